"""Which network suits a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc


def random_mask(*shape: int, generator: torch.Generator, share: float) -> torch.Tensor:
    return torch.rand(*shape, generator=generator) < share


def square_hole(side: int, place: tuple[int, int] = (20, 30)) -> torch.Tensor:
    observed = torch.ones(160, 180, dtype=torch.bool)
    observed[place[0] : place[0] + side, place[1] : place[1] + side] = False
    return observed


@pytest.mark.parametrize(
    ("side", "levels"),
    [(0, 3), (1, 3), (3, 4), (6, 4), (7, 5), (8, 5), (14, 5), (15, 6), (16, 6), (30, 6), (31, 6), (100, 6)],
)
def test_levels_follow_the_largest_hole(side: Any, levels: Any) -> None:
    # Two more than floor(log2(side + 1)), at least 3 and at most 6; a single pixel is no hole.
    assert tc.levels_for(square_hole(side)) == levels


def test_levels_follow_the_narrow_side_of_a_hole() -> None:
    observed = torch.ones(100, 100, dtype=torch.bool)
    observed[10:90, 40:47] = False
    assert tc.levels_for(observed) == 5


def test_levels_follow_the_largest_hole_of_all_masks() -> None:
    masks = torch.stack([square_hole(3), square_hole(7), square_hole(1)])
    assert tc.levels_for(masks) == 5
    assert tc.levels_for(masks[:, None]) == 5


def test_scattered_pixels_need_the_fewest_levels(generator: torch.Generator) -> None:
    assert tc.levels_for(random_mask(100, 100, generator=generator, share=0.5)) == 3
