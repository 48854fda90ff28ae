"""Boxes of displacements on a torus, and images read at displaced pixels.

A box is a ``range`` an axis; its entries count modulo the number of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

__all__ = ["Box", "at_displaced", "chunks", "covering", "index_in", "no_displacement", "positions_in", "scaled", "whole"]

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
    return tuple(range(r.start * f, r.start * f + len(r) * r.step * f, r.step * f) for r, f in zip(box, factor, strict=True))


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
    """Cut a box into boxes of at most so many displacements (at least one), the last axis whole if it fits."""
    counts: list[int] = []
    for axis in reversed(box):
        counts.append(max(1, min(len(axis), most)))
        most //= counts[-1]
    pieces = (
        [axis[k : k + count] for k in range(0, len(axis), count)] for axis, count in zip(box, reversed(counts), strict=True)
    )
    yield from product(*pieces)


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


def at_displaced(images: Tensor, box: Box, *, differentiable: bool = False) -> Tensor:
    """Images [*size, k] at all displaced pixels: [*size, k, *box], entry [a, :, u] is ``images[a + u]``.

    A view with overlapping entries, of a copy that holds each of them once or twice; a copy of all entries where
    gradients are wanted.
    """
    ndim = len(box)
    size = images.shape[:ndim]
    if all(len(axis) == 1 for axis in box):
        shift = [-axis.start for axis in box]
        moved = images.roll(shift, tuple(range(ndim))) if any(shift) else images.contiguous()
        return moved.reshape(*moved.shape, *(1,) * ndim)
    last = images.movedim(-1, 0)
    steps = tuple(axis.step for axis in box)
    counts = tuple(len(axis) for axis in box)
    for place, (axis, n) in enumerate(zip(box, size, strict=True)):
        reach = axis[-1] - axis[0] + n
        around = torch.arange(axis[0], axis[0] + reach, device=images.device) % n
        last = last.index_select(1 + place, around)
    if differentiable:
        for place, (n, step) in enumerate(zip(size, steps, strict=True)):
            last = last.unfold(1 + place, n, step)
        # [k, *counts, *size].
        return last.permute(*range(1 + ndim, 1 + 2 * ndim), *range(1 + ndim)).contiguous()
    last = last.contiguous()
    stride = last.stride()[1:]
    moved_on = tuple(s * t for s, t in zip(stride, steps, strict=True))
    return torch.as_strided(last, (*size, len(last), *counts), (*stride, last.stride(0), *moved_on), 0)
