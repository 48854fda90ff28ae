"""What all pixels of an image have in common under a periodic kernel: the mean about which its windows are filled."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from torch_cntk._internal.contexts import plain
from torch_cntk.images.canvas import canvas_for, crop
from torch_cntk.images.decay import NearKernel
from torch_cntk.images.observed import Observed
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import ConjugateGradient, Regression

__all__ = ["common_part"]

_BAND = 1 << 22
"""Pixels that are weighed at a time."""
_TOLERANCE = 1e-3
"""Of the weights' sums; the common part is a part of the deviations from the plain mean, and enters holes in part."""


@plain()
def common_part(given: Observed, near: NearKernel) -> Tensor:
    """The common part of the regression, of each channel, in the units of ``Observed.normalised``.

    With K = N + f 1 1^T, the weights w satisfy (N + ridge) w = y - c and c = f 1^T w, so that
    c = 1^T M y / (1 / f + 1^T M 1) with M the inverse of N + ridge between observed pixels. M 1 is periodic but for the
    edges of the image: it is that of a small image with the same edges. Holes change it next to them only, and little.

    Args:
        given: what is known, in the user's units.
        near: N, its ridge and f.

    Returns:
        [batch, channels, 1, ...] in float64.
    """
    shape = given.mean.shape
    if near.common == 0:
        return torch.zeros_like(given.mean)
    period, reach = near.kernel.period, near.margin
    edges = tuple(math.ceil(m / p) * p for m, p in zip(reach, period, strict=True))
    least = (2 * e + p for e, p in zip(edges, period, strict=True))
    small = tuple(n if n <= k else k + (n - k) % p for n, k, p in zip(given.size, least, period, strict=True))
    weights = _weights(near.kernel, near.ridge, small).to(given.pixels.device)
    # Where each pixel's weight is in the small image: at the same distance from the nearer edge, else in the middle.
    places = []
    for n, k, e, p in zip(given.size, small, edges, period, strict=True):
        x = torch.arange(n, device=given.pixels.device)
        middle = torch.where(x >= n - e, x - (n - k), e + (x - e) % p)
        places.append(x if n == k else torch.where(x < e, x, middle))
    rows = max(_BAND * given.size[0] // math.prod(given.size), 1)
    total, sums = torch.zeros(shape[:2]).to(given.mean), torch.zeros(1, 1).to(given.mean)
    split = (torch.split(places[0], rows), torch.split(given.mask, rows, 1), torch.split(given.pixels, rows, 2))
    for place, mask, pixels in zip(*split, strict=True):
        here = weights[place]
        for axis, along in enumerate(places[1:], start=1):
            here = here.index_select(axis, along)
        known = torch.where(mask, here, 0).flatten(1)
        sums = sums + known.sum(1)[:, None]
        # One channel of one image at a time: widened, all of them would take twice the image's memory.
        for image, channels in enumerate(pixels.flatten(2)):
            for channel, values in enumerate(channels):
                total[image, channel] += known[image if len(known) > 1 else 0] @ values.double()
    deviation = total - given.mean.reshape(shape[:2]) * sums
    common = (
        deviation / (sums + near.own / near.common) / torch.where(given.scale > 0, given.scale, 1).reshape(shape[:2])
    )
    return common.reshape(shape)


@lru_cache(maxsize=8)
def _weights(kernel: Kernel, ridge: float, size: tuple[int, ...]) -> Tensor:
    """M 1 times the mean of the kernel's diagonal, for an image of this size of which all is known, in float64."""
    canvas = canvas_for(size, kernel)
    known = torch.zeros(canvas, dtype=torch.bool)
    known[tuple(slice(0, n) for n in size)] = True
    operator = kernel.to(device="cpu").operator(canvas)
    regression = Regression(operator, known, ridge)
    solution = ConjugateGradient(_TOLERANCE).solve(regression, known.to(operator.dtype))
    return crop(solution.weights, size) * operator.mean_diagonal
