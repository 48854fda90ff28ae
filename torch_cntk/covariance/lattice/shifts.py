"""Periodic images on a torus: their circular shifts and repetitions.

A shift copies nothing: the image is tiled once, and every shift of it is a view into the tiles, all shifts of a slab
together one view with a stride for each displacement.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk.covariance.table import Slab

__all__ = [
    "positions_of",
    "repeated",
    "same_channels",
    "shifted",
    "tiled",
    "tiled_entries",
    "unshifted",
]


def repeated(images: Tensor, period: tuple[int, ...]) -> Tensor:
    """Periodic images, [..., *old period], as images of a longer period (the same memory if it is not longer)."""
    ndim = len(period)
    repeats = [p // old for p, old in zip(period, images.shape[-ndim:], strict=True)]
    return images.repeat(*(1,) * (images.ndim - ndim), *repeats) if any(r > 1 for r in repeats) else images


def tiled(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """One period of some images, [..., *period], repeated as ``shifted`` needs it for all displacements of a torus.

    Always in memory of its own, as ``shifted`` and some duals count from the beginning of it.
    """
    # ``repeat`` takes three times as long.
    tiles = images.clone(memory_format=torch.contiguous_format)
    for axis, n in enumerate(size, -len(size)):
        p = images.shape[axis]
        if p > 1:
            tiles = torch.cat([tiles] * (2 + n // p), axis)
    return tiles


def tiled_entries(period: tuple[int, ...], size: tuple[int, ...]) -> int:
    """Numbers of a tiled image."""
    return math.prod(1 if p == 1 else 2 * p + n for n, p in zip(size, period, strict=True))


def shifted(tiles: Tensor, period: tuple[int, ...], slab: Slab) -> Tensor:
    """The view [..., *count, *period] of tiled periodic images: entry [u, a] is image(a + u). Nothing is copied.

    Of the rows a of positions only those of the slab's band.
    """
    return _view(tiles, period, slab, slab.start, slab.count)


def unshifted(tiles: Tensor, period: tuple[int, ...], slab: Slab) -> Tensor:
    """The view [..., 1, ..., *period] of tiled periodic images themselves, of the rows of the slab's band."""
    ndim = len(period)
    return _view(tiles, period, slab, (0,) * ndim, (1,) * ndim)


def _view(tiles: Tensor, period: tuple[int, ...], slab: Slab, start: tuple[int, ...], count: tuple[int, ...]) -> Tensor:
    ndim, strides = len(period), tiles.stride()
    stride = strides[-ndim:]
    if slab.band is not None:
        # The rows that the band begins with are a displacement as well.
        start = (start[0] + slab.band[0], *start[1:])
    offset, steps = 0, []
    for s, p, k, step in zip(start, period, stride, slab.step, strict=True):
        offset += s % p * k
        # An image of one pixel is not repeated: all its shifts are the same.
        steps.append(step * k if p > 1 else 0)
    shape = (*tiles.shape[:-ndim], *count, *positions_of(period, slab))
    return torch.as_strided(tiles, shape, (*strides[:-ndim], *steps, *stride), offset)


def positions_of(period: tuple[int, ...], slab: Slab) -> tuple[int, ...]:
    """Shape of the positions that a slab is wanted for; where all rows are alike there is one, whatever the band."""
    return period if slab.band is None or period[0] == 1 else (slab.band[1], *period[1:])


def same_channels(features: Tensor, others: Tensor) -> bool:
    """Whether both have the same channels, in any order (of many channels: in this order)."""
    if features.shape != others.shape:
        return False
    if len(features) > 8:
        return torch.equal(features, others)
    left = list(others)
    for channel in features:
        match = next((k for k, other in enumerate(left) if torch.equal(channel, other)), None)
        if match is None:
            return False
        del left[match]
    return True
