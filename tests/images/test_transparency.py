"""Alpha: what it hides is no colour, and what was erased is opaque again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torch_cntk.images.transparency import erased, fill_alpha, own_alpha, visible

SIZE = (24, 31)


def hole() -> torch.Tensor:
    observed = torch.ones(SIZE, dtype=torch.bool)
    observed[8:14, 10:18] = False
    observed[2:4, 2:4] = False
    return observed


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_an_erased_hole_becomes_opaque(dtype: Any, top: Any) -> None:
    observed = hole()
    alpha = torch.where(observed, top, 0)[None].to(dtype)
    gone = erased(alpha, observed)
    assert torch.equal(gone, ~observed)
    assert bool((fill_alpha(alpha, gone).to(torch.int32) == top).all())
    assert fill_alpha(alpha, gone).dtype == dtype


def test_a_soft_eraser_leaves_no_rim() -> None:
    observed = hole()
    alpha = torch.full((1, *SIZE), 255, dtype=torch.uint8)
    alpha[0, 8:14, 10:18], alpha[0, 9:13, 11:17] = 130, 0
    gone = erased(alpha, observed)
    assert bool(gone[8:14, 10:18].all())
    # The other hole was opaque, and stays as it is.
    assert not bool(gone[2:4, 2:4].any())
    assert bool((fill_alpha(alpha, gone) == 255).all())


def test_an_eraser_that_leaves_a_trace_erases() -> None:
    """Alpha is nowhere 0 in the stroke; a square of the same file that is half transparent stays."""
    alpha = torch.full((1, *SIZE), 255, dtype=torch.uint8)
    alpha[0, 8:14, 10:18], alpha[0, 10, 12] = 90, 12
    alpha[0, 2:4, 2:4] = 128
    mask = own_alpha(alpha)
    expected = torch.ones(SIZE, dtype=torch.bool)
    expected[8:14, 10:18] = False
    assert torch.equal(mask.observed, expected)
    assert mask.reading.startswith("left 4 partly transparent pixels as they are")
    # Exactly, though not all that is known is opaque.
    filled = fill_alpha(alpha, erased(alpha, mask.observed))
    assert bool((filled[0, 8:14, 10:18] == 255).all()) and torch.equal(filled[0, :6], alpha[0, :6])


def test_alpha_of_a_drawing_is_kept() -> None:
    alpha = torch.randint(1, 256, (1, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    gone = erased(alpha, hole())
    assert not bool(gone.any())
    assert fill_alpha(alpha, gone) is alpha


def test_alpha_is_filled_as_an_image_is() -> None:
    """A soft edge through the hole: the filled opacities go on with it."""
    columns = torch.arange(SIZE[1]).expand(SIZE)
    ramp = (columns * 8).clamp(40, 200).to(torch.uint8)[None]
    observed = hole()
    alpha = torch.where(observed, ramp, 0).to(torch.uint8)
    filled = fill_alpha(alpha, erased(alpha, observed))
    assert torch.equal(filled[0][observed], alpha[0][observed])
    assert float((filled.float() - ramp.float()).abs().max()) < 25


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_visible(dtype: Any) -> None:
    alpha = torch.tensor([[[0, 1, 128, 255]]]).to(dtype)
    assert visible(alpha).tolist() == [[False, True, True, True]]


def test_nothing_known_is_left_alone() -> None:
    alpha = torch.from_numpy(np.zeros((1, *SIZE), np.uint8))
    everything = torch.ones(SIZE, dtype=torch.bool)
    assert fill_alpha(alpha, everything) is alpha
