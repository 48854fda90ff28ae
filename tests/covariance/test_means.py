"""Means over neighbours, and the loops for roots and arcsines, against definitions and many digits."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

from torch_cntk.covariance import means
from torch_cntk.covariance.duals import loops
from torch_cntk.covariance.means import Means, SpareMemory

ULPS = 2.0
"""Of an arcsine: both libraries promise less, and the exact number is rounded once more."""


@pytest.mark.parametrize("few", [0, 1 << 13])
@pytest.mark.parametrize("many", [0, 1 << 20])
@pytest.mark.parametrize("offsets", [(0, 1, -1), (0,), (1, -1), (0, 1, -1, 2, -2), (0, 3, -3), (0, 1), (-1, 2)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 4, 1, 3), (2, 2, 2, 6)])
def test_a_mean_is_that_of_the_neighbours(
    shape: Any, offsets: Any, many: Any, few: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(means, "_FEW_NUMBERS", few)
    monkeypatch.setattr(means, "_MANY_NUMBERS", many)
    ready = Means()
    memories = [torch.empty(shape, dtype=torch.float64) for _ in range(2)]
    for axis in (2, 3):
        # The second time the views are known, and the numbers are others.
        for _ in range(2):
            images = memories[0].copy_(torch.randn(shape, generator=generator, dtype=torch.float64))
            expected = sum(images.roll(-offset, axis) for offset in offsets) / len(offsets)
            ready.around(images, offsets, axis, memories[1].fill_(torch.nan))
            # A few steps, each of which rounds what is at most a few units.
            torch.testing.assert_close(memories[1], expected, rtol=0, atol=1e-14)


def test_a_mean_of_equal_numbers_is_that_number() -> None:
    images = torch.full((1, 100, 100), 0.1, dtype=torch.float64)
    out = torch.empty_like(images)
    Means().around(images, (0, 1, -1), 1, out)
    assert torch.equal(out, images)


def test_views_of_memory_that_is_gone_are_not_taken_for_others(generator: torch.Generator) -> None:
    ready = Means()
    for _ in range(100):
        images = torch.randn(3, 60, 60, generator=generator, dtype=torch.float64)
        out = torch.empty_like(images)
        ready.around(images, (0, 1), 1, out)
        torch.testing.assert_close(out, (images + images.roll(-1, 1)) / 2, rtol=0, atol=1e-14)
    assert len(ready._ready) <= means._MOST_KEPT


def test_spare_memory_is_given_out_once_and_is_bounded() -> None:
    spare, images = SpareMemory(), torch.zeros(2, 3)
    spare.keep(images)
    assert spare.like(torch.empty(3, 2)).shape == (3, 2)
    assert spare.like(torch.empty(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert spare.like(images) is images
    assert spare.like(images) is not images
    spare.keep(*(torch.zeros(2, 3) for _ in range(50)))
    assert len(spare._kept) == means._MOST_SPARE


@pytest.mark.parametrize("by_numpy", [False, True])
def test_roots_and_arcsines_are_exact_to_rounding(
    by_numpy: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "_numpy_is_faster", lambda numbers: by_numpy)
    near = 1 - 10 ** (-16 * torch.rand(300, generator=generator, dtype=torch.float64))
    numbers = torch.cat([near, -near, torch.tensor([0.0, 1.0, -1.0, 1e-300, 0.5], dtype=torch.float64)])
    with mp.workdps(40):
        exact = [mp.asin(float(x)) for x in numbers]
        found = loops.arcsine_(numbers.clone()).tolist()
        for x, y in zip(found, exact, strict=True):
            assert abs(x - y) <= ULPS * np.spacing(abs(float(y)))
        squares = numbers.abs()
        for x, square in zip(loops.root_(squares.clone()).tolist(), squares.tolist(), strict=True):
            assert abs(x - mp.sqrt(square)) <= ULPS * np.spacing(x)


def test_where_numpy_is_faster_is_known_of_this_processor() -> None:
    assert isinstance(loops._slow_library(), bool)
    assert not loops._numpy_is_faster(torch.zeros(3))
