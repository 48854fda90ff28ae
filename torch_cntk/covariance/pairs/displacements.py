"""Boxes of displacements on a torus, and images read at displaced pixels.

A box is a ``range`` an axis; its entries count modulo the number of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

__all__ = [
    "Box",
    "Displaced",
    "at_displaced",
    "chunks",
    "covering",
    "index_in",
    "no_displacement",
    "positions_in",
    "scaled",
    "whole",
]

Box = tuple[range, ...]
"""Displacements along each axis."""


def no_displacement(ndim: int) -> Box:
    """Displacement 0 alone."""
    return (range(1),) * ndim


def whole(size: Sequence[int]) -> Box:
    """All displacements of a torus."""
    return tuple(range(n) for n in size)


def scaled(box: Box, factor: Sequence[int]) -> Box:
    """The displacements that many times as long."""
    return tuple(
        range(r.start * f, r.start * f + len(r) * r.step * f, r.step * f) for r, f in zip(box, factor, strict=True)
    )


def covering(first: Box, second: Box, size: Sequence[int]) -> Box:
    """A box that holds both."""
    return tuple(_cover(a, b, n) for a, b, n in zip(first, second, size, strict=True))


def _cover(first: range, second: range, n: int) -> range:
    if first == second:
        return first
    low, high = min(first[0], second[0]), max(first[-1], second[-1])
    if high - low >= n:
        return range(n)
    steps = [r.step for r in (first, second) if len(r) > 1]
    return range(low, high + 1, math.gcd(*steps, first[0] - second[0]))


def chunks(box: Box, most: int) -> Iterator[Box]:
    """Cut a box into boxes of at most so many displacements (at least one), the last axis whole if it fits.

    They are of one shape if it can be: memory is used again.
    """
    counts: list[int] = []
    for axis in reversed(box):
        pieces = math.ceil(len(axis) / max(1, most))
        counts.append(math.ceil(len(axis) / pieces))
        most //= len(axis)
    cut = (
        [axis[k : k + count] for k in range(0, len(axis), count)]
        for axis, count in zip(box, reversed(counts), strict=True)
    )
    yield from product(*cut)


def index_in(box: Box, wanted: Box, size: Sequence[int]) -> list[Tensor | None]:
    """Where the wanted displacements are in a box that holds them, an axis each; None where the axes are equal."""
    found: list[Tensor | None] = []
    for own, other, n in zip(box, wanted, size, strict=True):
        place = [(u - own.start) % n // own.step for u in other]
        found.append(None if own == other else torch.tensor(place))
    return found


def positions_in(box: Box, size: Sequence[int]) -> tuple[int, ...] | None:
    """Where displacement 0 is in a box, if it is there."""
    places = []
    for axis, n in zip(box, size, strict=True):
        place = (-axis.start) % n
        if place % axis.step or place // axis.step >= len(axis):
            return None
        places.append(place // axis.step)
    return tuple(places)


def at_displaced(images: Tensor, box: Box) -> Tensor:
    """A copy of images [k, *size, J] at all displaced pixels: [k, *size, J, *box], entry [:, a, :, u] is at a + u."""
    for axis, displacements in enumerate(box, 1):
        n = images.shape[axis]
        index = (torch.arange(n)[:, None] + torch.tensor(list(displacements))) % n
        moved = images.index_select(axis, index.flatten().to(images.device)).reshape(
            (*images.shape[:axis], *index.shape, *images.shape[axis + 1 :])
        )
        images = moved.movedim(axis + 1, -1)
    return images


class Displaced:
    """The same without a copy, for any part of a box: the image is continued, and a displacement is a place to begin.

    Args:
        images: [k, *size, J].
        box: all displacements that will be asked for.
    """

    def __init__(self, images: Tensor, box: Box) -> None:
        # What is small stays in the nearest cache; the images come first, so that displacements are side by side.
        tiles = images.movedim(-1, 1)
        for axis, displacements in enumerate(box, 2):
            n = tiles.shape[axis]
            around = torch.arange(displacements[0], displacements[-1] + n) % n
            tiles = tiles.index_select(axis, around.to(images.device))
        self._tiles = tiles.contiguous()
        self._box, self._size, count = box, images.shape[1:-1], images.shape[-1]
        kind, image, *self._strides = self._tiles.stride()
        self._shape = (len(images), *self._size, count)
        self._stride = (kind, *self._strides, image)

    def part(self, box: Box) -> Tensor | None:
        """The view [k, *size, J, *box], of overlapping entries; None if the box is no part of the whole one."""
        offset = 0
        for own, asked, n, stride in zip(self._box, box, self._size, self._strides, strict=True):
            start = (asked[0] - own[0]) % n
            if start + asked[-1] - asked[0] > own[-1] - own[0]:
                return None
            offset += start * stride
        moved_on = [r.step * stride for r, stride in zip(box, self._strides, strict=True)]
        return torch.as_strided(self._tiles, (*self._shape, *map(len, box)), (*self._stride, *moved_on), offset)
