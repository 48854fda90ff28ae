"""Passes whose kernel is stationary: the autocorrelation of the last estimate is the feature prior (Theorem 2).

Where all of a signal moves or sounds alike, what is missing is found a period later, or a frame later and some pixels
further on; guided passes (``torch_cntk.images.guided``) see that within their window only, and must be told it anew
at each place. K is stationary, so that a product with it takes two Fourier transforms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk import priors
from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import weightless
from torch_cntk.images.canvas import fast_length
from torch_cntk.images.fill import each_pass
from torch_cntk.images.filler import Equations
from torch_cntk.images.observed import Observed, as_mask
from torch_cntk.layers import Layer, LeakyReLU, Sequential
from torch_cntk.layers.conv import CONVOLUTIONS
from torch_cntk.solvers import ConjugateGradient, Solver

__all__ = ["Autocorrelated", "autocorrelation_network", "autocorrelation_passes"]

_TOLERANCE = 1e-3
"""Relative residual of a pass: a smaller one changes no image by more than its error."""
_ROOM = 1.5
"""Size of the canvas by that of the image: opposite edges are apart by more than most of an autocorrelation reaches."""


@dataclass(frozen=True)
class Autocorrelated:
    """A pass whose kernel is that of the estimate's autocorrelation.

    Attributes:
        network: None takes ``autocorrelation_network``.
        white: variance of white noise in the prior, relative to the estimate's autocorrelation at 0.
        ridge: of the regression, relative to the mean of K's diagonal.
        solver: None takes ``ConjugateGradient(1e-3, preconditioner="circulant")``.

    Raises:
        TypeError: a setting is no number.
        ValueError: a setting is out of range.
    """

    network: Layer | None = None
    white: float = 1e-4
    ridge: float = 1e-4
    solver: Solver | None = None

    def __post_init__(self) -> None:
        if finite_number(self.white, "white", minimum=0) == 0:
            raise ValueError("expected white > 0, got 0")
        finite_number(self.ridge, "ridge", minimum=0)

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """See ``Filler``.

        Raises:
            ValueError: there is no estimate, or there are several images.
        """
        if estimate is None:
            raise ValueError("expected an estimate, whose autocorrelation a pass takes, got None")
        if len(estimate) != 1:
            raise ValueError(f"expected one image, got a batch of {len(estimate)}")
        canvas = tuple(fast_length(math.ceil(_ROOM * n)) for n in given.size)
        seen = given.in_one_unit(estimate)[0]
        prior: priors.Prior = priors.White(self.white)
        if bool((seen != seen.flatten(1)[:, 0].reshape(-1, *(1,) * given.ndim)).any()):
            # Of a constant there is none: each pixel is filled by the mean.
            prior = priors.Autocorrelation(seen) + prior
        network = self.network or _blank_network(given.ndim)
        kernel = network.kernel(prior, canvas, dtype=torch.float64, device=estimate.device)
        mean = estimate.mean(tuple(range(2, estimate.ndim)), keepdim=True)
        solver = self.solver or ConjugateGradient(_TOLERANCE, preconditioner="circulant")
        return Equations(kernel.operator(canvas, dtype=estimate.dtype), self.ridge, mean, solver)


def autocorrelation_network(ndim: int = 2, slope: float = 0.5) -> Layer:
    """A pixel by itself, an activation and a convolution of width 1: a wider one changes no stationary kernel.

    Args:
        ndim: number of spatial dimensions, 1 to 3.
        slope: of the LeakyReLU; with 1 the regression is linear, Wiener's.
    """
    conv = CONVOLUTIONS[ndim]
    return Sequential(conv(1, 1, 1), LeakyReLU(slope), conv(1, 1, 1))


def _blank_network(ndim: int) -> Layer:
    """``autocorrelation_network`` without weights, of which its kernel needs none."""
    with weightless():
        return autocorrelation_network(ndim)


def autocorrelation_passes(
    image: Tensor,
    observed: Tensor,
    estimate: Tensor,
    passes: int = 3,
    *,
    network: Layer | None = None,
    white: float = 1e-4,
    ridge: float = 1e-4,
    solver: Solver | None = None,
    progress: bool = False,
) -> Tensor:
    """Fill a signal, an image or a video by the kernel that the autocorrelation of an estimate gives.

    Args:
        image: [channels, *size], float32 or float64.
        observed: boolean, True = known, [*size].
        estimate: the first one, [channels, *size], such as ``inpaint(image, observed).image``.
        passes: how many; each takes the last one's result as estimate.
        network: ``autocorrelation_network`` by default.
        white: variance of white noise in the prior, relative to the estimate's autocorrelation at 0.
        ridge: of the regression, relative to the mean of K's diagonal.
        solver: ``ConjugateGradient(1e-3, preconditioner="circulant")`` by default.
        progress: whether to show bars.

    Returns:
        the filled image, of the input's shape and dtype; observed pixels are those of the input, to the bit.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes do not fit, an observed pixel or the estimate is not finite, the estimate is constant or
            nothing is observed.
    """
    positive_int(passes, "passes")
    filler = Autocorrelated(network, white, ridge, solver)
    observed = as_mask(observed)
    given = Observed.of(image, observed, observed.ndim)
    if image.ndim != given.ndim + 1:
        raise ValueError(
            f"expected an image [channels, *size] of the mask's {given.ndim} dimensions, got {tuple(image.shape)}"
        )
    results = each_pass(given, repeat(filler, passes), estimate, progress=progress)
    for filled in tqdm(results, total=passes, disable=not progress, desc="passes", unit="pass"):
        estimate = filled.image
    return estimate
