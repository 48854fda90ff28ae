"""The torus on which an image is solved."""

from __future__ import annotations

import math

import scipy.fft
import torch
from torch import Tensor

from torch_cntk.kernels.kernel import Kernel

__all__ = ["canvas_for", "crop", "extend", "fast_length"]


def canvas_for(size: tuple[int, ...], kernel: Kernel, *, wrap: bool = False) -> tuple[int, ...]:
    """Size of the torus to solve on: with room for the kernel's radius, so that opposite edges do not meet.

    Raises:
        ValueError: the kernel is of one size, or the image wraps, and the kernel does not serve its size.
    """
    if kernel.size is not None or wrap:
        return kernel.check_size(size)
    least = (max(n + r, 2 * r + 1) for n, r in zip(size, kernel.radius, strict=True))
    return tuple(fast_length(math.ceil(n / p)) * p for n, p in zip(least, kernel.period, strict=True))


def fast_length(cells: int) -> int:
    """The next number whose Fourier transforms are fast: without a prime factor above 11."""
    return int(scipy.fft.next_fast_len(cells))


def extend(images: Tensor, canvas: tuple[int, ...]) -> Tensor:
    """Put the images into the corner of a larger, empty canvas."""
    missing = [n - old for n, old in zip(canvas, images.shape[-len(canvas) :], strict=True)]
    return torch.nn.functional.pad(images, [entry for m in reversed(missing) for entry in (0, m)])


def crop(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Undo ``extend``."""
    for axis, n in enumerate(size, start=images.ndim - len(size)):
        images = images.narrow(axis, 0, n)
    return images
