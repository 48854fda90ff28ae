"""K @ w for kernels that reach a few pixels far: one pass over a stack of images, one for each displacement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators.base import Lookup, Operator
from torch_cntk.operators.over_ranks import SummedOperator

__all__ = ["StencilOperator"]

_BAND = 1 << 19
"""Numbers of images that are worked on at a time: weights, sums and a displacement's entries stay in the cache."""
_KEPT_VIEWS = 1 << 14
"""Views of the work space are kept if they are no more than this: making one takes as long as using it in a small
image."""
_TAPERED = 200
"""Products with K that conjugate gradients take, preconditioned by the diagonal: tapers and white noise, which come
with windows, keep K's condition moderate."""


class StencilOperator(Operator):
    """K(x, x + u) for the displacements u of a window, around the edges of the image; 0 for others.

    (K w)(x) is the sum of K(x, x + u) w(x + u) and K(x - u, x) w(x - u), so each entry is read once from memory and
    used twice. A band of rows at a time, all right-hand sides together. Where u and -u are one displacement of the
    torus, as 0 is, and half of an even number of pixels, it counts once.

    Args:
        values: [displacements, ..., *size], K(x, x + u); of u and -u one is there.
        offsets: [displacements, ndim], the displacements.
        lookup: see ``Lookup``.
        dtype: to multiply in, float32 at least. Values of a narrower type, float16 say, are widened band by band.
    """

    def __init__(self, values: Tensor, offsets: Tensor, lookup: Lookup, dtype: torch.dtype) -> None:
        ndim = offsets.shape[1]
        size = tuple(values.shape[-ndim:])
        super().__init__(
            size,
            torch.promote_types(dtype, torch.float32),
            values.device,
            lookup,
            cost=4 * max(len(offsets), 1),
            entry_dtype=values.dtype,
            traffic=len(offsets),
            iterations=_TAPERED,
        )
        self._values = values.reshape(len(offsets), *size)
        self._offsets = [tuple(row) for row in offsets.tolist()]
        self._reach = tuple(offsets.abs().amax(0).tolist()) if len(offsets) else (0,) * ndim
        self._space: _WorkSpace | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the work space, whose views belong together."""
        return {**self.__dict__, "_space": None}

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64; 0 where the displacement 0 is another rank's."""
        zero = (0,) * len(self.size)
        if zero not in self._offsets:
            return torch.zeros(self.size, dtype=torch.float64, device=self.device)
        return self._values[self._offsets.index(zero)].double()

    def divided(self, mesh: Mesh) -> Operator:
        """Each rank multiplies by some of the displacements; see ``Operator.divided``."""
        mine = mesh.share(len(self._offsets))
        offsets = torch.tensor(self._offsets[mine], dtype=torch.long).reshape(-1, len(self.size))
        return SummedOperator(self, StencilOperator(self._values[mine], offsets, self.lookup, self.dtype), mesh)

    def _multiply(self, images: Tensor) -> Tensor:
        if self._space is None or len(self._space.padded) != len(images):
            with torch.inference_mode(False):  # it is written to again, perhaps outside of that mode
                self._space = _WorkSpace(len(images), self._values, self._offsets, self._reach, self.dtype)
        return self._space.multiply(images)


class _WorkSpace:
    """Memory for products with so many images, and the views of it that take part.

    Attributes:
        padded: the images with a margin, [n, *(size + 2 reach)].
        sums: likewise, of what is added up at pixels and, for displaced pixels, beyond the edges.
    """

    def __init__(
        self, count: int, values: Tensor, offsets: list[tuple[int, ...]], reach: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self._values, self._offsets, self._reach = values, offsets, reach
        self._size = tuple(values.shape[1:])
        self._once = [all(2 * u % n == 0 for u, n in zip(offset, self._size, strict=True)) for offset in offsets]
        padded = [n + 2 * r for n, r in zip(self._size, reach, strict=True)]
        self.padded = torch.empty((count, *padded), dtype=dtype, device=values.device)
        self.sums = torch.empty_like(self.padded)
        # Even bands. A GPU has work for all of its threads in whole images only.
        bands = math.ceil(count * math.prod(self._size) / _BAND) if values.device.type == "cpu" else 1
        self._height = math.ceil(self._size[0] / bands)
        few = len(offsets) * math.ceil(self._size[0] / self._height) <= _KEPT_VIEWS
        self._kept = [(rows, list(self._views(rows))) for rows in self._bands()] if few else None

    def _bands(self) -> Iterator[slice]:
        for top in range(0, self._size[0], self._height):
            yield slice(top, min(top + self._height, self._size[0]))

    def _views(self, rows: slice) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Entries K(x, x + u) for x in some rows, and the images and sums at x + u; for each u."""
        for entries, offset in zip(self._values, self._offsets, strict=True):
            other = self._displaced(rows, offset)
            yield entries[rows], self.padded[other], self.sums[other]

    def _displaced(self, rows: slice, offset: tuple[int, ...]) -> tuple[slice, ...]:
        first, *others = (m + u for m, u in zip(self._reach, offset, strict=True))
        rest = (slice(start, start + n) for start, n in zip(others, self._size[1:], strict=True))
        return (slice(None), slice(rows.start + first, rows.stop + first), *rest)

    def multiply(self, images: Tensor) -> Tensor:
        """K @ w for [n, *size]."""
        self._wrap_around(images)
        self.sums.zero_()
        for rows, views in self._kept or ((rows, self._views(rows)) for rows in self._bands()):
            self._add(rows, iter(views))
        return self._folded().to(images.dtype)

    def _add(self, rows: slice, views: Iterator[tuple[Tensor, Tensor, Tensor]]) -> None:
        place = self._displaced(rows, (0,) * len(self._size))
        here, own = self.padded[place], self.sums[place]
        wide: Tensor | None = None
        for (entries, other, other_sums), once in zip(views, self._once, strict=True):
            if entries.dtype == own.dtype:
                known = entries
            else:
                wide = torch.empty(entries.shape, dtype=own.dtype, device=own.device) if wide is None else wide
                known = wide.copy_(entries)
            own.addcmul_(known, other)
            if not once:
                other_sums.addcmul_(known, here)

    def _wrap_around(self, images: Tensor) -> None:
        """Write images into the work space, and what is on their other side into the margins."""
        inside = tuple(slice(r, r + n) for r, n in zip(self._reach, self._size, strict=True))
        self.padded[(slice(None), *inside)] = images
        for axis, (r, n) in enumerate(zip(self._reach, self._size, strict=True), start=1):
            self.padded.narrow(axis, 0, r).copy_(self.padded.narrow(axis, n, r))
            self.padded.narrow(axis, r + n, r).copy_(self.padded.narrow(axis, r, r))

    def _folded(self) -> Tensor:
        """The sums, what lies beyond the edges added to the pixels that are there on the torus."""
        sums = self.sums
        for axis, (r, n) in enumerate(zip(self._reach, self._size, strict=True), start=1):
            sums.narrow(axis, n, r).add_(sums.narrow(axis, 0, r))
            sums.narrow(axis, r, r).add_(sums.narrow(axis, r + n, r))
            sums = sums.narrow(axis, r, n)
        return sums.clone()
