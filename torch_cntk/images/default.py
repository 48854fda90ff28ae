"""The network and the kernel that suit a mask where the user gives none."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from torch_cntk import priors
from torch_cntk._internal.contexts import weightless
from torch_cntk.images.masks import has_holes, reach
from torch_cntk.images.observed import as_mask
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.layers import Layer, LeakyReLU
from torch_cntk.zoo import catalogue
from torch_cntk.zoo.hourglass import hourglass
from torch_cntk.zoo.loading import load_kernel

__all__ = ["default_kernel", "default_network", "kernel_of", "levels_for"]

_LEVELS = {1: (3, 8), 2: (3, 6), 3: (2, 3)}
"""Fewest and most of the default network: numbers in the kernel grow as 4^(levels * dimensions)."""
_FINE_LEVELS = 5
"""Up to this many levels images use "fine" of the catalogue, beyond it "wide"."""


def levels_for(observed: Tensor, ndim: int = 2) -> int:
    """Levels of resolution that a network needs for the holes of a mask.

    The paper: floor(log2(m + 1)) for a hole of m x m pixels; for images it is one more where pixels are scattered,
    as more levels are better but slower, and two more where there are holes. Of images at least 3 and at most 6 are
    returned, of signals 3 to 8, of videos 2 or 3. The hole's size is taken from its most remote pixel, by the
    chessboard distance to the nearest observed one.

    Args:
        observed: boolean, True = known, [..., *size].
        ndim: number of spatial dimensions.

    Returns:
        the number of levels for the largest hole of all the masks.

    Raises:
        ValueError: nothing is observed.
    """
    observed = as_mask(observed)
    size = observed.shape[-ndim:]
    masks = observed.reshape(-1, *size)
    if not bool(masks.flatten(1).any(1).all()):
        raise ValueError("expected at least one observed pixel in each mask, got none; observed is True where known")
    fewest, most = _LEVELS[ndim]
    return min(max(max(_levels_of(mask, ndim) for mask in masks), fewest), most)


def _levels_of(mask: Tensor, ndim: int) -> int:
    remotest = reach(mask)
    side = max(2 * remotest - 1, 1)
    more = 0 if ndim != 2 else 2 if has_holes(mask, remotest) else 1
    return int(math.log2(side + 1)) + more


def default_network(levels: int, channels: int = 3, ndim: int = 2, width: int = 128) -> Layer:
    """The network behind ``default_kernel``, whose input is ``priors.Uniform(0, 0.1)``.

    An hourglass without skip connections. For images it is ``catalogue.fine_network`` with LeakyReLU(0.3) up to 5
    levels and ``catalogue.wide_network`` with LeakyReLU(0.1) above: those that left-out pixels of photographs chose
    (``benchmarks.architecture``). For signals and videos, two convolutions and nearest upsampling on each level.

    Args:
        levels: number of times that the resolution is halved, at least 1.
        channels: of the image.
        ndim: number of spatial dimensions, 1 to 3.
        width: channels inside the network, of which the kernel is independent; its input has a quarter of them.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is out of range.
    """
    if ndim == 2:
        shape, slope = _shape_and_slope(levels)
        return catalogue.SHAPES[shape](levels, LeakyReLU(slope), width, channels)
    inputs, filters = max(width // 4, 1), (3, 3)
    return hourglass(
        levels,
        width,
        0,
        channels=channels,
        in_channels=inputs,
        slope=0.3,
        up_filter=filters,
        one_by_one=False,
        ndim=ndim,
    )


def _shape_and_slope(levels: int) -> tuple[str, float]:
    """Of the default network for images."""
    return ("fine", 0.3) if levels <= _FINE_LEVELS else ("wide", 0.1)


@lru_cache(maxsize=8)
def _kernel_of(levels: int, ndim: int) -> Kernel:
    if ndim == 2:
        shape, slope = _shape_and_slope(levels)
        return load_kernel(f"uniform-{shape}-{levels}x128-leaky{slope}")
    # The kernel does not depend on the width.
    with weightless():
        network = default_network(levels, ndim=ndim, width=1)
    return network.kernel(priors.Uniform(0, 0.1), dtype=torch.float32, device="cpu")


def default_kernel(observed: Tensor, ndim: int = 2) -> Kernel:
    """The kernel that ``inpaint`` takes when none is given: ``default_network`` with as many levels as the holes need.

    Args:
        observed: boolean, True = known, [..., *size].
        ndim: number of spatial dimensions, 1 to 3.

    Returns:
        a kernel for images of any size, one that ships with the package for ``ndim`` 2.

    Raises:
        ValueError: nothing is observed.
    """
    return _kernel_of(levels_for(observed, ndim), ndim)


def kernel_of(kernel: object) -> Kernel | None:
    """A kernel by itself, by its name or by its file; None stays None.

    Raises:
        TypeError: it is something else, such as a network.
        ValueError: there is no kernel of that name, or the file is damaged.
        FileNotFoundError: there is no such file.
        OutOfMemoryError: the kernel of that name has to be computed and would not fit.
    """
    if kernel is None or isinstance(kernel, Kernel):
        return kernel
    if isinstance(kernel, Layer):
        raise TypeError(
            f"expected a kernel, got the network {type(kernel).__name__}; pass net.kernel(priors.Uniform(0, 0.1)), say"
        )
    if not isinstance(kernel, str | Path):
        raise TypeError(f"expected a kernel of net.kernel(prior), or its name or file, got {type(kernel).__name__}")
    try:
        return load_kernel(kernel)
    except FileNotFoundError as error:
        if isinstance(kernel, str) and not kernel.endswith(".safetensors"):
            raise ValueError(f"expected a kernel's name or file, got {kernel!r}: {error}") from error
        raise
