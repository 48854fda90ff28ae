"""The benchmark of small tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tables


@pytest.mark.parametrize("pattern", tables.PATTERNS)
@pytest.mark.parametrize("share", tables.SHARES)
def test_about_the_share_is_hidden(pattern: str, share: float) -> None:
    hidden = tables.hide((150, 8), share, pattern, 3)
    assert share - 0.06 < hidden.mean() < share + 0.1
    assert not hidden.all(1).any()
    assert ((~hidden).sum(0) >= 3).all()


@pytest.mark.parametrize("name", [*tables.SHIPPED, *tables.MADE])
def test_tables_are_numbers_that_vary(name: str) -> None:
    table = tables.load(name)
    assert np.isfinite(table).all()
    assert (table.std(0) > 0).all()
    np.testing.assert_array_equal(table, tables.load(name))


def test_light_methods_beat_means(monkeypatch: pytest.MonkeyPatch) -> None:
    light = {name: work for name, work in tables.METHODS.items() if "trees" not in name and name != tables.OURS}
    monkeypatch.setattr(tables, "METHODS", light)
    table = tables.load("low rank")[:60]
    found = tables.errors_of(table, tables.hide(table.shape, 0.3, "one by one", 0))
    assert set(found) == set(light)
    assert all(error < found["means"][0] for name, (error, _) in found.items() if name != "means")


def test_ratings_come_from_a_file(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    lines = {(rng.integers(15), rng.integers(12)): rng.integers(1, 6) for _ in range(150)}
    (tmp_path / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t881250949\n" for (u, i), r in lines.items()))
    options = argparse.Namespace(
        ratings=tmp_path / "u.data", separator=r"\s+|::|,|;", seed=0, held_out=0.1, passes=["1"]
    )
    tables.ratings(options)
    told = capsys.readouterr().out
    assert "15 users, 12 items" in told
    assert "passes=1" in told


@pytest.mark.slow
def test_quick_run_prints_ranks(capsys: Any) -> None:
    tables.tables(argparse.Namespace(tables=None, quick=True, seed=0))
    assert "mean rank" in capsys.readouterr().out
