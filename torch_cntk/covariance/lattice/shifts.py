"""Periodic images on a torus: their circular shifts, box means and repetitions.

A shift copies nothing: the image is tiled once, and every shift of it is a view into the tiles, all shifts of a slab
together one view with a stride for each displacement. A mean over patches adds the neighbours along one axis, in two
pieces where they come around the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from torch_cntk.covariance.table import Slab

__all__ = [
    "SpareMemory",
    "circular_sum",
    "positions_of",
    "repeated",
    "same_channels",
    "shifted",
    "tiled",
    "tiled_entries",
    "unshifted",
]


_FEW_NUMBERS = 1 << 13
"""Up to this many, a sum is bound by the number of calls: one that copies a whole shift is faster than two pieces."""


class SpareMemory:
    """The memory of images that are done with, for the next ones: fresh memory costs as much as writing into it."""

    def __init__(self) -> None:
        self._images: Tensor | None = None

    def like(self, images: Tensor) -> Tensor:
        """Memory of the images' shape, whatever is in it."""
        spare, self._images = self._images, None
        if spare is not None and spare.shape == images.shape and spare.dtype == images.dtype:
            return spare
        return torch.empty_like(images, memory_format=torch.contiguous_format)

    def keep(self, images: Tensor) -> None:
        """Take images that nobody reads any more."""
        self._images = images


def circular_sum(images: Tensor, offsets: Sequence[int], axis: int, spare: Tensor) -> Tensor:
    """The sum of neighbours along ``axis``, around the edge.

    Args:
        images: of any shape; they may be overwritten.
        offsets: where the neighbours are, as ``Patches.offsets`` has them.
        axis: a dimension of the images.
        spare: memory of their shape.

    Returns:
        the sum, in the spare memory or in that of the images.
    """
    length, sorted_offsets = images.shape[axis], sorted(offsets)
    if images.numel() > _FEW_NUMBERS:
        if sorted_offsets == [-1, 0, 1] and length > 2:
            _sum_three(images, axis, spare)
            return spare
        if sorted_offsets == [-2, -1, 0, 1, 2] and length > 4:
            _sum_five(images, axis, spare)
            return images
    if offsets[0] == 0:
        spare.copy_(images)
    else:
        spare.zero_()
    for _, members in groupby(offsets[offsets[0] == 0 :], key=abs):
        pair = list(members)
        if pair[0] % length == 0:
            spare.add_(images, alpha=len(pair))
            continue
        for offset in pair:
            _add_shifted(spare, images, offset % length, axis)
    return spare


def _sum_five(images: Tensor, axis: int, spare: Tensor) -> None:
    """In three passes: pairs of neighbours; a pixel and the pair behind it; the pair before. The images become it."""
    length = images.shape[axis]
    rest = length - 1
    torch.add(images.narrow(axis, 0, rest), images.narrow(axis, 1, rest), out=spare.narrow(axis, 0, rest))
    torch.add(images.select(axis, rest), images.select(axis, 0), out=spare.select(axis, rest))
    for shift in (1, length - 2):
        rest = length - shift
        images.narrow(axis, 0, rest).add_(spare.narrow(axis, shift, rest))
        images.narrow(axis, rest, shift).add_(spare.narrow(axis, 0, shift))


def _sum_three(images: Tensor, axis: int, out: Tensor) -> None:
    """Two passes over all: a pixel and the next one, and then the one before; the last pixel's next is the first."""
    rest = images.shape[axis] - 1
    before = images.narrow(axis, 0, rest)
    torch.add(before, images.narrow(axis, 1, rest), out=out.narrow(axis, 0, rest))
    torch.add(out.select(axis, rest - 1), images.select(axis, 0), out=out.select(axis, rest))
    out.narrow(axis, 1, rest - 1).add_(before.narrow(axis, 0, rest - 1))
    out.select(axis, 0).add_(images.select(axis, rest))


def _add_shifted(total: Tensor, images: Tensor, shift: int, axis: int) -> None:
    """Add the neighbours so far ahead; in two pieces, as they come around the edge."""
    if images.numel() <= _FEW_NUMBERS:
        total.add_(images.roll(-shift, axis))
        return
    rest = images.shape[axis] - shift
    total.narrow(axis, 0, rest).add_(images.narrow(axis, shift, rest))
    total.narrow(axis, rest, shift).add_(images.narrow(axis, 0, shift))


def repeated(images: Tensor, period: tuple[int, ...]) -> Tensor:
    """Periodic images, [..., *old period], as images of a longer period (the same memory if it is not longer)."""
    ndim = len(period)
    repeats = [p // old for p, old in zip(period, images.shape[-ndim:], strict=True)]
    return images.repeat(*(1,) * (images.ndim - ndim), *repeats) if any(r > 1 for r in repeats) else images


def tiled(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """One period of an image, [*period], repeated as ``shifted`` needs it for all displacements of a torus.

    Always in memory of its own, as ``shifted`` and some duals count from the beginning of it.
    """
    # ``repeat`` takes three times as long.
    tiles = image.clone(memory_format=torch.contiguous_format)
    for axis, (n, p) in enumerate(zip(size, image.shape, strict=True)):
        if p > 1:
            tiles = torch.cat([tiles] * (2 + n // p), axis)
    return tiles


def tiled_entries(period: tuple[int, ...], size: tuple[int, ...]) -> int:
    """Numbers of a tiled image."""
    return math.prod(1 if p == 1 else 2 * p + n for n, p in zip(size, period, strict=True))


def shifted(tiles: Tensor, period: tuple[int, ...], slab: Slab) -> Tensor:
    """The view [*count, *period] of a tiled periodic image: entry [u, a] is image(a + u). Nothing is copied.

    Of the rows a of positions only those of the slab's band.
    """
    stride = tiles.stride()
    start = slab.start
    if slab.band is not None:
        # The rows that the band begins with are a displacement as well.
        start = (start[0] + slab.band[0], *start[1:])
    offset = sum(s % p * k for s, p, k in zip(start, period, stride, strict=True))
    # An image of one pixel is not repeated: all its shifts are the same.
    step = tuple(s * k if p > 1 else 0 for s, k, p in zip(slab.step, stride, period, strict=True))
    return torch.as_strided(tiles, (*slab.count, *positions_of(period, slab)), (*step, *stride), offset)


def unshifted(tiles: Tensor, period: tuple[int, ...], slab: Slab) -> Tensor:
    """The view [1, ..., *period] of a tiled periodic image itself, of the rows of the slab's band."""
    ndim = len(period)
    return shifted(tiles, period, replace(slab, start=(0,) * ndim, count=(1,) * ndim))


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
