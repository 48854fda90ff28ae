"""Kernels compared by leaving out observed pixels, and the search that does it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_cntk as tc
from benchmarks import architecture
from torch_cntk import catalogue
from torch_cntk.images import masks


def test_error_is_that_of_the_pixels_left_out(generator: torch.Generator) -> None:
    image = torch.rand(2, 40, 50, generator=generator)
    observed = torch.rand(40, 50, generator=generator) < 0.6
    seen = []

    def fill(known: Any, mask: Any) -> Any:
        seen.append(mask)
        assert not bool((mask & ~observed).any())
        assert bool((known[:, ~mask] == 0).all())
        return torch.full_like(known, 0.25)

    found = tc.leave_out_error(image, observed, fill)
    (mask,) = seen
    left_out = observed & ~mask
    assert bool(left_out.any())
    assert found == pytest.approx(float((image[:, left_out] - 0.25).square().mean()), rel=1e-6)


def test_hidden_pixels_do_not_matter(generator: torch.Generator) -> None:
    image = torch.rand(1, 48, 48, generator=generator)
    observed = torch.rand(48, 48, generator=generator) < 0.5
    fill = lambda known, mask: tc.inpaint(known, mask).image  # noqa: E731
    spoilt = torch.where(observed, image, math.nan)
    assert tc.leave_out_error(spoilt, observed, fill) == tc.leave_out_error(image, observed, fill)


def test_copies_of_the_holes_are_left_out(generator: torch.Generator) -> None:
    observed = torch.ones(96, 96, dtype=torch.bool)
    observed[30:46, 20:36] = False
    image = torch.rand(1, 96, 96, generator=generator)
    left: list[int] = []

    def kept(known: Any, mask: Any) -> Any:
        left.append(int((~mask).sum()))
        return known

    tc.leave_out_error(image, observed, kept)
    # The hole itself and a copy, as far as both are in the part of the image that is tried.
    assert left and all(16 * 16 <= count <= 2 * 16 * 16 for count in left)


def test_too_few_pixels_to_leave_out_any_are_refused() -> None:
    observed = torch.zeros(8, 8, dtype=torch.bool)
    observed[3, 3] = True
    with pytest.raises(ValueError, match="expected observed pixels enough"):
        tc.leave_out_error(torch.zeros(1, 8, 8), observed, lambda known, mask: known)


def test_search_takes_the_best_of_what_it_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture.main(["50", "--fast", "--sweep", "1", "-o", str(tmp_path / "table.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "table.jsonl").read_text().splitlines()]
    tried = [row for row in rows if row["method"] == "CNTK" and row["levels"] == 2]
    best = max(row["mean"] for row in tried)
    start, winner, shallow = (line.split("|") for line in capsys.readouterr().out.splitlines()[-3:])
    # Options are taken for a gain of 0.01 dB each; the table is rounded.
    assert float(winner[9]) >= best - 5 * 0.01 - 0.005
    assert float(winner[9]) >= float(start[9])
    assert winner[3].strip() == "2" and shallow[3].strip() == "1"


def test_search_builds_the_default_networks() -> None:
    """The names in the catalogue are what the search calls them."""
    fine = {"up": "finest bilinear", "up_filter": (3, 3), "slope": 0.3, "down_filter": (3, 3), "skip": 0}
    kernel = architecture.kernel_of(3, fine)
    default = tc.default_network(3, width=1).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)
    shipped = tc.load_kernel("uniform-fine-3x128-leaky0.3")
    wide = architecture.kernel_of(4, fine | {"up": "nearest", "up_filter": (3, 3, 3), "slope": 0.1})
    recipe = catalogue.recipe("uniform-wide-4x1-leaky0.1")
    assert recipe is not None
    for one, other in (
        (kernel, default),
        (kernel, shipped),
        (wide, recipe.network.kernel(tc.priors.Uniform(0, 0.1))),
    ):
        size = tuple(3 * p for p in one.period)
        # float32 of tables computed in float64, and a file that holds differences.
        a, b = one.row((3, 5), size), other.row((3, 5), size)
        assert float((a - b).abs().max()) <= 1e-6 * float(a.abs().max())


@pytest.mark.parametrize("mask", [architecture.strokes, architecture.holes])
def test_masks_of_the_search_have_holes(mask: Any) -> None:
    for seed in range(3):
        observed = mask(160, seed)
        assert masks.has_holes(observed)
        assert 0.02 < float((~observed).double().mean()) < 0.4
