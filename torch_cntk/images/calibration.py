"""By how much the standard deviations of a fill are too small, as left-out pixels tell."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.images.arrays import read
from torch_cntk.images.certainty import posterior_after
from torch_cntk.images.default import default_kernel, kernel_of
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.judged import around_the_largest
from torch_cntk.images.leaving_out import UNUSUAL_SEED, copies_of_holes
from torch_cntk.images.observed import Observed
from torch_cntk.images.posterior import Draws
from torch_cntk.kernels.kernel import Kernel

__all__ = ["CannotTellError", "factor_of", "std_factor"]

_SHARE, _DEVIATIONS = 0.9, 1.6449
"""Of a normal distribution, the share of values that lie within so many standard deviations."""
_FEWEST = 20
"""Left-out pixels, of which fewer say little."""
_MOVES = 64
"""Of small holes, of which several copies are left out at once."""
_DRAWS = 8
"""Images for a deviation where it is not exact: with three colours they tell it to an eighth."""


def std_factor(
    image: Any,
    observed: Any = None,
    kernel: Kernel | str | Path | None = None,
    *,
    count: int = 4,
    seed: int | torch.Generator = 0,
    **options: Any,
) -> float:
    """What standard deviations are to be multiplied by for nine of ten left-out pixels to lie within 1.645 of them.

        result = tc.inpaint(image, observed, samples=8)
        std = result.std * tc.images.std_factor(image, observed)

    The amplitude that makes all observed pixels most likely need not be that of the place of a hole, nor of errors as
    far from the edge of it; and passes and patches err by more than the regression behind them says. So the holes are
    moved to where the image is known, several times, and filled as it is: errors there are counted in deviations.
    Of holes of fewer than 20 pixels several copies are left out at once. Where an image is larger than a few holes it
    is the part around the largest one that is tried. A fill and its deviations are computed for each time. Deviations
    are never made smaller: that others are smaller elsewhere says little of the place of a hole.

    Args:
        image: one image, signal or video, in any of the forms that ``inpaint`` takes but a file; a batch of one is one.
            No gradients are recorded.
        observed: boolean, True = known, one mask for all channels; by default the pixels that are not NaN in any of
            them. See ``inpaint``.
        kernel: as for ``inpaint``; by default the one that it would choose.
        count: how many times the holes are moved, at most.
        seed: of the draws that deviations are told by.
        **options: of ``inpaint``, such as ``passes``. Deviations are those of the regression that stands for the fill:
            of the last of content-aware passes, and of the first regression for patches.

    Returns:
        the factor: 1 if deviations are right or too large, more if they are too small. 1 with a warning where nothing
        can be told: nothing is missing, fewer than 20 known pixels can be left out as the holes are, or all that were
        are constant.

    Raises:
        TypeError: see ``inpaint``.
        ValueError: there is more than one image, channels have masks of their own, or see ``inpaint``.
    """
    try:
        return factor_of(image, observed, kernel, count=count, seed=seed, **options)
    except CannotTellError as reason:
        warn_user(f"the factor of deviations cannot be told, and is given as 1: {reason}")
        return 1.0


class CannotTellError(ValueError):
    """Left-out pixels tell no factor."""


@torch.no_grad()
def factor_of(
    image: Any,
    observed: Any = None,
    kernel: Kernel | str | Path | None = None,
    *,
    count: int = 4,
    seed: int | torch.Generator = 0,
    **options: Any,
) -> float:
    """As ``std_factor``, which has the arguments.

    Raises:
        CannotTellError: nothing can be told.
        TypeError: see there.
        ValueError: see there.
    """
    times = positive_int(count, "count")
    Draws.of(_DRAWS, seed)
    kernel = kernel_of(kernel)
    pixels, known = _one_image(image, observed, None if kernel is None else kernel.ndim)
    kernel = default_kernel(known, known.ndim) if kernel is None else kernel.detach()
    if kernel.size is None:
        place = around_the_largest(known)
        pixels, known = pixels[(slice(None), *place)], known[place]
    scores = [
        _scores(pixels, known & ~left_out, left_out, kernel, seed, options) for left_out in _left_out(known, times)
    ]
    missed = torch.cat(scores).sort().values
    if float(missed[-1]) == 0:
        raise CannotTellError("expected known pixels that are missed when they are left out, got constants")
    return max(float(missed[int(_SHARE * len(missed))]) / _DEVIATIONS, 1.0)


def _one_image(image: Any, observed: Any, ndim: int | None) -> tuple[Tensor, Tensor]:
    """The only image [channels, *size] and its mask [*size].

    Raises:
        TypeError: the image is a file, or see ``Observed.of``.
        ValueError: there are several images, or see ``Observed.of``.
    """
    if isinstance(image, str | Path):
        raise TypeError(
            f"expected the image as a tensor or an array, got {type(image).__name__}; "
            "tc.images.read_image(path).pixels reads a file"
        )
    pixels, mask, _ = read(image, observed)
    given = Observed.of(pixels, mask, ndim)
    return given.pixels[0], given.single_mask


def _left_out(known: Tensor, times: int) -> list[Tensor]:
    """Which known pixels to leave out, so many times at most: where holes are moved to.

    Raises:
        CannotTellError: there are no holes, or too few pixels.
    """
    holes = ~known
    if not bool(holes.any()):
        raise CannotTellError("expected missing pixels, got none")
    moved = [copy for copy in copies_of_holes(known, holes)[:times] if int(copy.sum()) >= _FEWEST]
    moved = [copy for copy in moved or _together(holes)[:times] if bool((known & ~copy).any())]
    if not moved:
        raise CannotTellError(
            f"expected holes that fit into what is known, with at least {_FEWEST} pixels to leave out, got fewer"
        )
    return moved


def _together(holes: Tensor) -> list[Tensor]:
    """Copies of small holes, as many at once as have enough pixels, none of which touches a hole or another one."""
    ndim = holes.ndim
    parts = round(_MOVES ** (1 / ndim))
    moves = np.array(list(product(range(parts), repeat=ndim))) * np.array(holes.shape) // parts
    here, around = holes.cpu().numpy(), np.ones((3,) * ndim)
    taken, current = scipy.ndimage.binary_dilation(here, around), np.zeros_like(here)
    found = []
    for move in np.random.default_rng(UNUSUAL_SEED).permutation(moves):
        copy = np.roll(here, move, tuple(range(ndim)))
        if (copy & taken).any():
            continue
        taken |= scipy.ndimage.binary_dilation(copy, around)
        current = current | copy
        if current.sum() >= _FEWEST:
            found.append(torch.from_numpy(current).to(holes.device))
            current = np.zeros_like(here)
    return found


def _scores(
    image: Tensor, known: Tensor, left_out: Tensor, kernel: Kernel, seed: int | torch.Generator, options: dict[str, Any]
) -> Tensor:
    """Errors of left-out pixels in standard deviations, [values]."""
    result = inpaint(image, known, kernel, **options)
    progress = bool(options.get("progress", False))
    posterior = posterior_after(image, known, kernel, result, samples=_DRAWS, seed=seed, progress=progress)
    std = posterior.std[0][:, left_out].double()
    missed = (result.image - image).double()[:, left_out].abs()
    # What is constant is not missed, and has no deviation.
    return torch.where(std > 0, missed / std, 0).flatten()
