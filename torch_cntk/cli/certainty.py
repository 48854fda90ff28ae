"""How sure a fill is, in words: by how much known pixels were missed that were left out and filled in the same way."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from torch_cntk.images.inpaint import InpaintingResult, inpaint
from torch_cntk.images.trials import leave_out_error
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver

__all__ = ["certainty"]

_LEVELS = 255


def certainty(
    image: Tensor, known: Tensor, kernel: Kernel | None, solver: Solver | Literal["auto"], result: InpaintingResult
) -> str:
    """A part of a sentence, empty where it cannot be told.

    Args:
        image: [channels, H, W] in [0, 1].
        known: boolean [H, W].
        kernel: that filled it, or None for the default one.
        solver: that was asked for.
        result: of the fill, whose ridge and number of passes are taken.
    """
    if bool(known.all()) or (kernel is not None and kernel.size is not None):
        return ""

    def fill(part: Tensor, mask: Tensor) -> Tensor:
        return inpaint(part, mask, kernel, solver=solver, ridge=result.ridge, passes=result.passes).image

    try:
        error = math.sqrt(leave_out_error(image, known, fill))
    except ValueError:  # too few pixels
        return ""
    levels = error * _LEVELS
    return (
        f"known pixels that were left out were off by {f'{levels:.0f}' if levels >= 1 else 'less than 1'} of {_LEVELS}"
    )
