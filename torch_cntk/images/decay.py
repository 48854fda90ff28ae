"""How far a periodic kernel looks for what fills a pixel: the margin that windows need, and what serves them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torch_cntk.kernels.kernel import Kernel

__all__ = ["NearKernel", "near_kernel"]

_BEYOND = 3e-4
"""Weight of all pixels beyond the margin in the filling of a single pixel, as the root of a sum of squares. Set with
the shipped kernels on a photograph with edges: most thin and thick holes are filled to a fifth of a grey level then."""
_PERIODS = (8, 64)
"""The weights are found on a torus of so many periods, or radii, along each axis: margins are at most half of it."""
_TORUS = 1 << 18
"""Pixels of that torus, if the fewest periods have no more."""
_ALIKE = 1e-3
"""The far part may differ so much between phases, relative to the near part at the origin: differences are left out."""


@dataclass(frozen=True, eq=False)
class NearKernel:
    """A kernel without what all pixels have in common: the regression of what differs from the mean is local.

    K = N + f 1 1^T, where N vanishes beyond the radius. The common part is found from all pixels (``common_part``), and
    what is left is a regression with N.

    Attributes:
        kernel: N.
        ridge: of a regression with N, relative to the mean of N's diagonal, that is the same as that with K.
        margin: beyond which pixels do not matter for a hole of one pixel, an entry an axis.
        own: mean of N's diagonal.
        common: f.
    """

    kernel: Kernel
    ridge: float
    margin: tuple[int, ...]
    own: float
    common: float


@lru_cache(maxsize=8)
def near_kernel(kernel: Kernel, ridge: float) -> NearKernel | None:
    """The near part of a kernel, and how far it looks; None where what is left out of windows would be felt.

    Where all others are observed, a missing pixel is filled by the sum of -q(u) / q(0) times the pixel u further, with
    q the inverse of N + ridge: a Fourier transform of the mean of N over positions gives it. The margin is the distance
    beyond which the sum of the squares of these weights is below a bound.

    Args:
        kernel: of any size.
        ridge: relative to the mean of K's diagonal.
    """
    near = kernel.without_far()
    torus = tuple(_torus_length(p, r, kernel.ndim) for p, r in zip(kernel.period, kernel.radius, strict=True))
    origin = (0,) * kernel.ndim
    stationary = near.stationary_average().row(origin, torus).double().cpu()
    far = _far_entries(kernel)
    common, own = float(far.mean()), float(stationary[origin])
    if own <= 0 or common < 0 or float(far.max() - far.min()) > _ALIKE * own:
        return None
    noise = ridge * (own + common)
    spectrum = torch.fft.rfftn(stationary).real
    rounding = float(spectrum.max()) * torch.finfo(kernel.dtype).eps
    if float(spectrum.min()) + noise < -rounding:  # N is no kernel by itself
        return None
    inverse = torch.fft.irfftn(1 / (spectrum + noise).clamp_min(rounding), s=torus)
    margin = _margin(inverse.square().numpy())
    if margin is None:
        return None
    return NearKernel(near, noise / own, margin, own, common)


def _torus_length(period: int, radius: int, ndim: int) -> int:
    fewest, most = (count * max(period, radius) for count in _PERIODS)
    length: float = min(max(float(_TORUS) ** (1 / ndim), fewest), most)
    return math.ceil(length / period) * period


def _far_entries(kernel: Kernel) -> Tensor:
    """What the kernel adds at all displacements, for all pairs of phases; 0 if nothing."""
    return torch.zeros(1) if kernel.far is None else kernel.far.values.double()


def _margin(squares: npt.NDArray[np.float64]) -> tuple[int, ...] | None:
    """Distance along each axis beyond which the squares of weights are small together; None where none is."""
    margin = []
    bound = _BEYOND**2 * squares[(0,) * squares.ndim]
    for axis, n in enumerate(squares.shape):
        along = squares.sum(tuple(k for k in range(squares.ndim) if k != axis))
        half = n // 2
        # Displacements of both directions, from the longest on.
        distance = along[:half] + np.roll(along[::-1], 1)[:half]
        beyond = distance[::-1].cumsum()[::-1]
        enough = np.flatnonzero(beyond <= bound)
        if len(enough) == 0:
            return None
        margin.append(int(enough[0]))
    return tuple(margin)
