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
from torch_cntk.operators.layout import Banded
from torch_cntk.operators.over_ranks import BandedOperator, BandOperator

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
        reach = offsets.abs().amax(0).tolist() if len(offsets) else [0] * ndim
        self._margins = [(pixels, pixels) for pixels in reach]
        self._once = [all(2 * u % n == 0 for u, n in zip(offset, size, strict=True)) for offset in self._offsets]
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
        """Each rank multiplies in a band of the image; see ``Operator.divided``."""
        return BandedOperator(self, StencilBand(self, Banded(mesh, self.size)))

    def _multiply(self, images: Tensor) -> Tensor:
        if self._space is None or len(self._space.padded) != len(images):
            with torch.inference_mode(False):  # it is written to again, perhaps outside of that mode
                self._space = _WorkSpace(
                    len(images), self._values, self._offsets, self._once, self._margins, self.dtype
                )
        return self._space.multiply(images)


class StencilBand(BandOperator):
    """A stencil on images in bands.

    A rank multiplies by the entries K(x, x + u) at pixels x of its band. It fetches what it needs of w from its
    neighbours, and sends them back what it has found for pixels of theirs.

    Args:
        whole: the stencil.
        layout: the bands.
    """

    def __init__(self, whole: StencilOperator, layout: Banded) -> None:
        super().__init__(whole, layout)
        axis = layout.axis
        self._values = whole._values.narrow(1 + axis, layout.start, layout.size[axis])
        self._offsets, self._once, self._margins = whole._offsets, whole._once, list(whole._margins)
        along = [offset[axis] for offset in self._offsets]
        self._margins[axis] = (max(-min(along, default=0), 0), max(max(along, default=0), 0))
        self._sections = layout.widened(*self._margins[axis])
        self._space: _WorkSpace | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the work space, whose views belong together."""
        return {**self.__dict__, "_space": None}

    def _multiply(self, images: Tensor) -> Tensor:
        wide = self._sections.fetch(images)
        with self.mesh.together("a product in bands"):
            if images.numel():
                wide = self._of_band(wide)
        return self._sections.fold(wide)

    def _of_band(self, wide: Tensor) -> Tensor:
        if self._space is None or len(self._space.padded) != len(wide):
            with torch.inference_mode(False):  # it is written to again, perhaps outside of that mode
                self._space = _WorkSpace(
                    len(wide), self._values, self._offsets, self._once, self._margins, self.dtype, self.layout.axis
                )
        return self._space.multiply(wide)


class _WorkSpace:
    """Memory for products with so many images, and the views of it that take part.

    Args:
        count: n, number of images.
        values: [displacements, *size], entries at the pixels where they are taken.
        offsets: the displacements.
        once: whether a displacement and its opposite are one.
        margins: how far displacements reach before the first and behind the last pixel of an axis.
        dtype: to multiply in.
        wide: an axis along which images come with their margins, and products go with them; others go around.

    Attributes:
        padded: the images with their margins, [n, *(before + size + after)].
        sums: likewise, of what is added up at pixels and, for displaced pixels, beyond the edges.
    """

    def __init__(
        self,
        count: int,
        values: Tensor,
        offsets: list[tuple[int, ...]],
        once: list[bool],
        margins: list[tuple[int, int]],
        dtype: torch.dtype,
        wide: int | None = None,
    ) -> None:
        self._values, self._offsets, self._once, self._margins = values, offsets, once, margins
        self._size = tuple(values.shape[1:])
        self._around = [axis for axis in range(len(margins)) if axis != wide]
        padded = [n + before + after for n, (before, after) in zip(self._size, margins, strict=True)]
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
        first, *others = (before + u for (before, _), u in zip(self._margins, offset, strict=True))
        rest = (slice(start, start + n) for start, n in zip(others, self._size[1:], strict=True))
        return (slice(None), slice(rows.start + first, rows.stop + first), *rest)

    def multiply(self, images: Tensor) -> Tensor:
        """K @ w for [n, *size], both with margins along the wide axis."""
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
        inside = self.padded
        for axis in self._around:
            inside = inside.narrow(1 + axis, self._margins[axis][0], self._size[axis])
        inside.copy_(images)
        for axis in self._around:
            (before, after), n = self._margins[axis], self._size[axis]
            self.padded.narrow(1 + axis, 0, before).copy_(self.padded.narrow(1 + axis, n, before))
            self.padded.narrow(1 + axis, before + n, after).copy_(self.padded.narrow(1 + axis, before, after))

    def _folded(self) -> Tensor:
        """The sums, what lies beyond the edges added to the pixels that are there on the torus."""
        sums = self.sums
        for axis in self._around:
            (before, after), n = self._margins[axis], self._size[axis]
            sums.narrow(1 + axis, n, before).add_(sums.narrow(1 + axis, 0, before))
            sums.narrow(1 + axis, before, after).add_(sums.narrow(1 + axis, before + n, after))
            sums = sums.narrow(1 + axis, before, n)
        return sums.clone()
