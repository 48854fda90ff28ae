"""The torus on which an image is solved."""

from __future__ import annotations

import math

import scipy.fft

from torch_cntk.kernels.kernel import Kernel

__all__ = ["canvas_for", "fast_length"]


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
