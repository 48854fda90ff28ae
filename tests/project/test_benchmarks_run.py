"""Benchmarks that have a quick mode run in it."""

from __future__ import annotations

import sys

import pytest

from benchmarks import windows
from benchmarks.suite import ratios


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_the_benchmark_of_windows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    windows.main(["--quick", "holes"])
    shown = capsys.readouterr().out
    assert "1 spots" in shown and "GB" in shown


def test_the_suite_has_a_unit_for_each_row() -> None:
    rows = {name for name in vars(ratios) if name.startswith("track_")}
    assert rows == set(ratios.UNITS)
    # The rows that take no time run; the others have the same parts.
    assert 0 < ratios.track_shipped_kernel() < 2
    assert ratios.track_periodic_product() > 1
