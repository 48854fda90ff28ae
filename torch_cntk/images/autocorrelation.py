"""Passes whose kernel is stationary: the autocorrelation of the last estimate is the feature prior (Theorem 2).

Where all of a signal moves or sounds alike, what is missing is found a period later, or a frame later and some pixels
further on; guided passes (``torch_cntk.images.guided``) see that within their window only, and must be told it anew
at each place. K is stationary, so that a product with it takes two Fourier transforms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk import priors
from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk.images.inpaint import _checked, _crop, _extend, _transformable
from torch_cntk.layers import Layer, LeakyReLU, Sequential
from torch_cntk.layers.conv import CONVOLUTIONS
from torch_cntk.solvers import ConjugateGradient, Regression, Solver

__all__ = ["autocorrelation_network", "autocorrelation_passes"]


def autocorrelation_network(ndim: int = 2, slope: float = 0.5) -> Layer:
    """A pixel by itself, an activation and a convolution of width 1: a wider one changes no stationary kernel.

    Args:
        ndim: number of spatial dimensions, 1 to 3.
        slope: of the LeakyReLU; with 1 the regression is linear, Wiener's.
    """
    conv = CONVOLUTIONS[ndim]
    return Sequential(conv(1, 1, 1), LeakyReLU(slope), conv(1, 1, 1))


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
    if finite_number(white, "white", minimum=0) == 0:
        raise ValueError("expected white > 0, got 0")
    ndim = observed.ndim
    batch, mask = _checked(image, observed, ndim)
    if len(batch) != 1 or image.ndim != ndim + 1:
        raise ValueError(
            f"expected an image [channels, *size] of the mask's {ndim} dimensions, got {tuple(image.shape)}"
        )
    if estimate.shape != image.shape:
        raise ValueError(f"expected an estimate of the image's shape {tuple(image.shape)}, got {tuple(estimate.shape)}")
    size = tuple(observed.shape)
    # Half as large again: opposite edges are apart by more than most of an autocorrelation reaches.
    canvas = tuple(_transformable(math.ceil(1.5 * n)) for n in size)
    network = network or autocorrelation_network(ndim)
    solver = solver or ConjugateGradient(1e-3, preconditioner="circulant")
    known = _extend(mask, canvas)[0]
    for _ in tqdm(range(passes), disable=not progress, desc="passes", unit="pass"):
        prior = priors.Autocorrelation(estimate) + priors.White(white)
        kernel = network.kernel(prior, canvas, dtype=torch.float64, device=image.device)
        regression = Regression(kernel.operator(dtype=image.dtype), known, ridge)
        mean = estimate.mean(tuple(range(1, ndim + 1)), keepdim=True)
        targets = _extend(torch.where(mask, batch[0] - mean, 0), canvas)
        solution = solver.factorise(regression).solve(targets, progress=progress)
        filled = _crop(regression.operator @ solution.weights, size).to(image.dtype) + mean
        estimate = torch.where(mask, batch[0], filled)
    return estimate
