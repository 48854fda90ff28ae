"""Sums over the neighbours of each pixel along an axis, from one memory into another.

Images are [c, *size, I, J, *box]: the neighbours of a pixel are whole rows of memory, whatever the axis. The views that
a sum is made of take as long to make as some thousand additions; so they are made once for each pair of memories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from torch_cntk.covariance.pairs.displacements import Box

__all__ = ["Sums", "inside_along"]

_MOST_KEPT = 64
"""Sums that are kept at once; more are needed only where memory is not used again."""


class Sums:
    """The sums that have been made ready."""

    def __init__(self) -> None:
        self._around: dict[tuple[int, int, int, tuple[int, ...]], _Around] = {}

    def around(self, images: Tensor, offsets: tuple[int, ...], axis: int, total: Tensor) -> None:
        """Write the sum of the neighbours along an axis, around the edge, into ``total``.

        Args:
            images: [c, *size, ...].
            offsets: where the neighbours are.
            axis: of the pixels.
            total: memory of the images' shape.
        """
        key = (id(images), id(total), axis, offsets)
        known = self._around.get(key)
        if known is None:
            if len(self._around) >= _MOST_KEPT:
                self._around.clear()
            known = self._around[key] = _Around(images, offsets, 1 + axis, total)
        known()

    def inside(self, images: Tensor, offsets: tuple[int, ...], axis: int, box: Box, total: Tensor) -> None:
        """The same over the neighbours of which both pixels, a + d and a + u + d, are inside."""
        n, dim = images.shape[1 + axis], 1 + axis
        if 0 in offsets:
            total.copy_(images)
        else:
            total.zero_()
        shape = [1] * images.ndim
        shape[dim + len(box) + 2] = len(box[axis])
        for offset in offsets:
            shape[dim] = rest = n - abs(offset)
            if offset == 0 or rest <= 0:
                continue
            start = max(0, -offset)
            target, source = total.narrow(dim, start, rest), images.narrow(dim, start + offset, rest)
            if box[axis] == range(1):
                target.add_(source)
            else:
                target.addcmul_(source, _known_inside(n, box[axis], offset, images.dtype, images.device).view(shape))


class _Around:
    """One of them, for two memories, which it keeps so that nothing else takes their place."""

    def __init__(self, images: Tensor, offsets: Sequence[int], axis: int, total: Tensor) -> None:
        self._memories = images, total
        n = images.shape[axis]
        self._calls = (
            _of_three(images, axis, total)
            if sorted(offsets) == [-1, 0, 1] and n > 2
            else _of(images, offsets, axis, total)
        )

    def __call__(self) -> None:
        for call in self._calls:
            call()


def _of_three(images: Tensor, axis: int, total: Tensor) -> list[Callable[[], Tensor]]:
    """Two passes over all: a pixel and the next one, and then the one before; the last pixel's next is the first."""
    rest = images.shape[axis] - 1
    here, ahead = images.narrow(axis, 0, rest), images.narrow(axis, 1, rest)
    first, last = images.select(axis, 0), images.select(axis, rest)
    return [
        partial(torch.add, here, ahead, out=total.narrow(axis, 0, rest)),
        partial(torch.add, total.select(axis, rest - 1), first, out=total.select(axis, rest)),
        partial(total.narrow(axis, 1, rest - 1).add_, images.narrow(axis, 0, rest - 1)),
        partial(total.select(axis, 0).add_, last),
    ]


def _of(images: Tensor, offsets: Sequence[int], axis: int, total: Tensor) -> list[Callable[[], Tensor]]:
    n = images.shape[axis]
    counts = Counter(offset % n for offset in offsets)
    calls: list[Callable[[], Tensor]] = [partial(torch.mul, images, counts.pop(0, 0), out=total)]
    for shift, count in counts.items():
        rest = n - shift
        for at, of, length in ((0, shift, rest), (rest, 0, shift)):
            add = total.narrow(axis, at, length).add_
            calls.append(partial(add, images.narrow(axis, of, length), alpha=count))
    return calls


@lru_cache(maxsize=4096)
def _known_inside(n: int, displacements: range, offset: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The rows of ``inside_along`` for which a + d is inside: [n - |d|, displacements]."""
    with torch.inference_mode(False):
        first = torch.arange(max(0, -offset), min(n, n - offset))[:, None]
        second = (first + torch.tensor(list(displacements))) % n + offset
        return ((second >= 0) & (second < n)).to(device, dtype)


def inside_along(images: Tensor, axis: int, box: Box) -> Callable[[int], Tensor]:
    """Whether a + d and a + u + d are inside along an axis, 1 or 0, to broadcast against images [*size, I, J, *box]."""
    n, ndim = images.shape[axis], len(box)
    first = torch.arange(n, device=images.device)[:, None]
    second = (first + torch.tensor(list(box[axis]), device=images.device)) % n
    shape = [1] * images.ndim
    shape[axis], shape[ndim + 2 + axis] = n, len(box[axis])

    def inside(offset: int) -> Tensor:
        places = (first + offset, second + offset)
        both = torch.stack([((place >= 0) & (place < n)).expand(second.shape) for place in places]).all(0)
        return both.to(images.dtype).view(shape)

    return inside
