"""Means over the neighbours of each pixel along an axis, around the edge, and the memory that they take turns in.

The mean of k neighbours becomes that of k + 1 by a step of 1 / (k + 1) towards the next one: the same passes over
memory as a sum, and none to divide it; numbers that are equal stay what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["Means", "SpareMemory"]

_MOST_KEPT = 24
"""Means that are ready at once: more are needed only where memory is not used again."""

_FEW_NUMBERS = 1 << 13
"""Up to this many, a mean is bound by the number of calls: one that copies a whole shift is faster than two pieces."""

_MANY_NUMBERS = 1 << 20
"""From this many on views take no time in comparison, and what is kept ready would hold too much memory."""

_MOST_SPARE = 6
"""Pieces of memory that are kept: two for Sigma and Theta, two for one of them, and some of another shape."""


class SpareMemory:
    """The memory of images that are done with, for the next ones: fresh memory costs as much as writing into it.

    Attributes:
        means: over neighbours, made ready for this memory.
    """

    def __init__(self) -> None:
        self.means = Means()
        self._kept: list[Tensor] = []

    def like(self, images: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Memory of the images' shape, or of another one, whatever is in it."""
        wanted = images.shape if shape is None else torch.Size(shape)
        for place, kept in enumerate(self._kept):
            if kept.shape == wanted and kept.dtype == images.dtype:
                return self._kept.pop(place)
        return images.new_empty(wanted)

    def keep(self, *images: Tensor) -> None:
        """Take images that nobody reads any more, in memory of their own."""
        self._kept.extend(images)
        del self._kept[:-_MOST_SPARE]


class Means:
    """Means, of which the views are made once for each pair of memories: they take as long as some thousand numbers."""

    def __init__(self) -> None:
        self._ready: dict[tuple[Any, ...], _Ready] = {}

    def around(self, images: Tensor, offsets: tuple[int, ...], axis: int, out: Tensor) -> None:
        """Write the mean of the neighbours along an axis, around the edge, into ``out``.

        Args:
            images: of any shape.
            offsets: where the neighbours are, as ``Patches.offsets`` has them.
            axis: a dimension of the images, from the front.
            out: memory of their shape.
        """
        if not _FEW_NUMBERS < images.numel() < _MANY_NUMBERS:
            for call in _calls(images, offsets, axis, out):
                call()
            return
        key = (images.data_ptr(), out.data_ptr(), images.shape, images.stride(), axis, offsets)
        known = self._ready.get(key)
        if known is None:
            if len(self._ready) >= _MOST_KEPT:
                self._ready.clear()
            known = self._ready[key] = _Ready(images, offsets, axis, out)
        known()


class _Ready:
    """One of them, for two memories, which it keeps so that nothing else takes their place."""

    def __init__(self, images: Tensor, offsets: Sequence[int], axis: int, out: Tensor) -> None:
        self._memories = images, out
        self._calls = list(_calls(images, offsets, axis, out))

    def __call__(self) -> None:
        for call in self._calls:
            call()


def _calls(images: Tensor, offsets: Sequence[int], axis: int, out: Tensor) -> Iterable[Callable[[], object]]:
    """What to do, one after the other."""
    length = images.shape[axis]
    if sorted(offsets) == [-1, 0, 1] and length > 2 and images.numel() > _FEW_NUMBERS:
        yield from _mean_of_three(images, axis, out)
        return
    taken = 0
    # On a short axis several neighbours are one.
    for shift, times in Counter(offset % length for offset in offsets).items():
        taken += times
        for part, neighbours in _pieces(out, images, shift, axis):
            yield partial(part.copy_, neighbours) if taken == times else partial(part.lerp_, neighbours, times / taken)


def _mean_of_three(images: Tensor, axis: int, out: Tensor) -> Iterable[Callable[[], object]]:
    """Two passes over all: a pixel and the next one, and then the one before; the last pixel's next is the first."""
    rest = images.shape[axis] - 1
    here, ahead = images.narrow(axis, 0, rest), images.narrow(axis, 1, rest)
    first, last = images.select(axis, 0), images.select(axis, rest)
    yield partial(torch.lerp, here, ahead, 1 / 2, out=out.narrow(axis, 0, rest))
    yield partial(torch.lerp, out.select(axis, rest - 1), first, 1 / 3, out=out.select(axis, rest))
    yield partial(out.narrow(axis, 1, rest - 1).lerp_, images.narrow(axis, 0, rest - 1), 1 / 3)
    yield partial(out.select(axis, 0).lerp_, last, 1 / 3)


def _pieces(mean: Tensor, images: Tensor, shift: int, axis: int) -> list[tuple[Tensor, Tensor]]:
    """The mean and the neighbours so far ahead; in two pieces, as they come around the edge."""
    if shift == 0:
        return [(mean, images)]
    if images.numel() <= _FEW_NUMBERS:
        return [(mean, images.roll(-shift, axis))]
    rest = images.shape[axis] - shift
    return [
        (mean.narrow(axis, 0, rest), images.narrow(axis, shift, rest)),
        (mean.narrow(axis, rest, shift), images.narrow(axis, 0, shift)),
    ]
