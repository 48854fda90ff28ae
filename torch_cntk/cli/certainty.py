"""How sure a fill is, in words: by how much known pixels were missed that were left out and filled in the same way."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk.images.default import default_kernel
from torch_cntk.images.inpaint import InpaintingResult, inpaint
from torch_cntk.images.patch_fill import PatchFill
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver

__all__ = ["Passes", "certainty"]

_LEVELS = 255
_SIDE, _HOLES = 96, 4
"""Of the part of the image that is tried: pixels at least, and times the largest hole's reach. A larger one would take
as long as the fill itself."""
_FEWEST = 20
"""Left-out pixels, of which fewer say little."""

Passes: TypeAlias = int | Literal["auto", "quick", "sharp"] | PatchFill
"""What ``--passes`` stands for."""


def certainty(
    image: Tensor,
    known: Tensor,
    observed: Tensor,
    kernel: Kernel | None,
    solver: Solver | Literal["auto"],
    passes: Passes,
    result: InpaintingResult,
) -> str:
    """A part of a sentence, empty where it cannot be told.

    The holes around the largest one are moved to where most is known; what is known there is left out and filled.

    Args:
        image: [channels, H, W] in [0, 1], or in units of its own.
        known: boolean [H, W]: False where there are no colours to go by.
        observed: boolean [H, W]: False where it was filled. A transparent background may be neither filled nor known.
        kernel: that filled it, or None for the default one.
        solver: that was asked for.
        passes: likewise; a choice is not made again, the usual one is taken.
        result: of the fill, whose ridge is taken.
    """
    if bool(observed.all()) or (kernel is not None and kernel.size is not None):
        return ""
    kernel = default_kernel(known) if kernel is None else kernel
    low, high = (float(level) for level in torch.aminmax(image[:, known]))
    place = _around_the_largest(observed)
    image, known = image[(slice(None), *place)], known[place]
    left_out = _moved(known, ~observed[place])
    if int(left_out.sum()) < _FEWEST or not bool((known & ~left_out).any()):
        return ""
    try:
        again: Passes = "quick" if isinstance(passes, str) else passes
        filled = inpaint(image, known & ~left_out, kernel, solver=solver, ridge=result.ridge, passes=again).image
    except (ValueError, MemoryError):  # a part may be too small for passes; the picture is filled all the same
        return ""
    error = float((filled - image)[:, left_out].double().square().mean().sqrt())
    return f"known pixels that were left out were off by {_in_words(error, low, high)}"


def _in_words(error: float, low: float, high: float) -> str:
    """An error of values from ``low`` to ``high``: in grey levels, unless these are in units of their own."""
    if low < 0 or high > 1:
        return f"{error:.2g}, of values from {low:.4g} to {high:.4g}"
    levels = _LEVELS * error
    return f"{f'{levels:.0f}' if levels >= 1 else 'less than 1'} of {_LEVELS}"


def _around_the_largest(observed: Tensor) -> tuple[slice, ...]:
    """The part of the image around the pixel that is most remote from one that is not filled."""
    distance = scipy.ndimage.distance_transform_cdt(~observed.cpu().numpy(), "chessboard")
    middle = np.unravel_index(int(distance.argmax()), distance.shape)
    side = max(_SIDE, _HOLES * int(distance.max()))
    starts = [max(min(int(at) - side // 2, n - side), 0) for at, n in zip(middle, distance.shape, strict=True)]
    return tuple(slice(start, start + side) for start in starts)


def _moved(known: Tensor, holes: Tensor) -> Tensor:
    """What is known where the holes are after they are moved by parts of the image: as much as possible."""
    moves = [[n * eighths // 8 for n in known.shape] for eighths in range(1, 8)]
    moved = [known & torch.roll(holes, move, (0, 1)) for move in moves]
    return max(moved, key=lambda left_out: int(left_out.sum()))
