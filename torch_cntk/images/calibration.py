"""By how much the standard deviations of a fill are too small, as left-out pixels tell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.images.arrays import read
from torch_cntk.images.certainty import posterior_after
from torch_cntk.images.default import default_kernel
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.judged import around_the_largest
from torch_cntk.images.leaving_out import copies_of_holes
from torch_cntk.images.observed import Observed
from torch_cntk.kernels.kernel import Kernel

__all__ = ["std_factor"]

_SHARE, _DEVIATIONS = 0.9, 1.6449
"""Of a normal distribution, the share of values that lie within so many standard deviations."""
_FEWEST = 20
"""Left-out pixels, of which fewer say little."""
_DRAWS = 8
"""Images for a deviation where it is not exact: with three colours they tell it to an eighth."""


def std_factor(
    image: Any,
    observed: Any = None,
    kernel: Kernel | None = None,
    *,
    count: int = 4,
    seed: int = 0,
    **options: Any,
) -> float:
    """What standard deviations are to be multiplied by for nine of ten left-out pixels to lie within 1.645 of them.

        result = tc.inpaint(image, observed, samples=8)
        std = result.std * tc.images.std_factor(image, observed)

    The amplitude that makes all observed pixels most likely need not be that of the place of a hole, nor of errors as
    far from the edge of it; and passes and patches err by more than the regression behind them says. So the holes are
    moved to where the image is known, several times, and filled as it is: errors there are counted in deviations.
    Where an image is larger than a few holes it is the part around the largest one that is tried. A fill and its
    deviations are computed for each time. Deviations are never made smaller: that others are smaller elsewhere says
    little of the place of a hole.

    Args:
        image: one image [channels, *size], a tensor or an array; see ``inpaint``.
        observed: boolean [*size], True = known; by default the pixels that are not NaN.
        kernel: as for ``inpaint``; by default the one that it would choose.
        count: how many times the holes are moved, at most.
        seed: of the draws that deviations are told by.
        **options: of ``inpaint``, such as ``passes``. Deviations are those of the regression that stands for the fill:
            of the last of content-aware passes, and of the first regression for patches.

    Returns:
        the factor: 1 if deviations are right or too large, more if they are too small.

    Raises:
        TypeError: see ``inpaint``.
        ValueError: there is more than one image, fewer than 20 known pixels can be left out as the holes are, all that
            were are constant, or see ``inpaint``.
    """
    times = positive_int(count, "count")
    pixels, mask, _ = read(image, observed)
    if not isinstance(pixels, torch.Tensor) or not 2 <= pixels.ndim <= 4:
        got = tuple(pixels.shape) if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise ValueError(f"expected one image [channels, *size] of one to three dimensions, got {got}")
    known = Observed.of(pixels, mask, pixels.ndim - 1).single_mask
    if kernel is None:
        kernel = default_kernel(known)
    if kernel.size is None:
        place = around_the_largest(known)
        pixels, known = pixels[(slice(None), *place)], known[place]
    scores = [
        _scores(pixels, known & ~left_out, left_out, kernel, seed, options)
        for left_out in copies_of_holes(known, ~known)[:times]
        if int(left_out.sum()) >= _FEWEST and bool((known & ~left_out).any())
    ]
    if not scores:
        raise ValueError(
            f"expected holes that fit into what is known, with at least {_FEWEST} pixels to leave out, got none"
        )
    missed = torch.cat(scores).sort().values
    if float(missed[-1]) == 0:
        raise ValueError("expected known pixels that are missed when they are left out, got constants")
    return max(float(missed[int(_SHARE * len(missed))]) / _DEVIATIONS, 1.0)


def _scores(
    image: Tensor, known: Tensor, left_out: Tensor, kernel: Kernel, seed: int, options: dict[str, Any]
) -> Tensor:
    """Errors of left-out pixels in standard deviations, [values]."""
    result = inpaint(image, known, kernel, **options)
    progress = bool(options.get("progress", False))
    posterior = posterior_after(image, known, kernel, result, samples=_DRAWS, seed=seed, progress=progress)
    std = posterior.std[0][:, left_out].double()
    missed = (result.image - image).double()[:, left_out].abs()
    # What is constant is not missed, and has no deviation.
    return torch.where(std > 0, missed / std, 0).flatten()
