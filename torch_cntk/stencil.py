"""K @ w for kernels that reach a few pixels far: one pass over a stack of images, one for each displacement."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from torch_cntk.operators import Lookup, Operator

__all__ = ["StencilOperator"]

_BAND = 1 << 16
"""Numbers of an image that are worked on at a time: an image's weights, sums and displacement stay in the cache."""


class StencilOperator(Operator):
    """K(x, x + u) for the displacements u of a window, around the edges of the image; 0 for others.

    (K w)(x) is the sum of K(x, x + u) w(x + u) and K(x - u, x) w(x - u), so each entry is read once from memory and
    used twice. A band of rows at a time, all right-hand sides together.

    Args:
        values: [displacements, ..., *size], K(x, x + u); of u and -u one is there, u = 0 first.
        offsets: [displacements, ndim], the displacements.
        lookup: see ``Lookup``.
        dtype: to multiply in. Values of a narrower type, float16 say, are widened band by band.
    """

    def __init__(self, values: Tensor, offsets: Tensor, lookup: Lookup, dtype: torch.dtype) -> None:
        ndim = offsets.shape[1]
        size = tuple(values.shape[-ndim:])
        if dtype.itemsize < 4:
            dtype = torch.float32
        super().__init__(size, dtype, values.device, lookup)
        stored = values if values.dtype.itemsize <= dtype.itemsize else values.to(dtype)
        # Images of one axis are treated as one row each.
        self._values = stored.reshape(len(offsets), *((1,) if ndim == 1 else ()), *size)
        self._shape = tuple(self._values.shape[1:])
        self._offsets: list[tuple[int, ...]] = [((0,) if ndim == 1 else ()) + tuple(row) for row in offsets.tolist()]
        self._reach = tuple(max(abs(u) for u in axis) for axis in zip(*self._offsets, strict=True))

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        return self._values[0].double().reshape(self.size)

    def _multiply(self, images: Tensor) -> Tensor:
        weights = images.to(self.dtype).reshape(-1, *self._shape)
        around = tuple(entry for r in reversed(self._reach) for entry in (r, r))
        padded = torch.nn.functional.pad(weights[:, None], around, mode="circular")[:, 0]
        # Sums for the pixels themselves, and for pixels displaced from them, which may lie beyond the edge.
        sums = torch.zeros_like(padded)
        height = max(_BAND * self._shape[0] // weights.numel(), 1)
        for top in range(0, self._shape[0], height):
            self._add_band(slice(top, min(top + height, self._shape[0])), padded, sums)
        return _folded(sums, self._reach, self._shape).to(images.dtype).reshape(images.shape)

    def _add_band(self, rows: slice, padded: Tensor, sums: Tensor) -> None:
        """Add K(x, x + u) w(x + u) at x and K(x, x + u) w(x) at x + u, for the pixels x of some rows."""
        place = _shifted(rows, self._reach, (0,) * len(self._reach), self._shape)
        here, own = padded[place], sums[place]
        widened = None
        if self._values.dtype != self.dtype:
            widened = torch.empty(self._values[0, rows].shape, dtype=self.dtype, device=self.device)
        for entries, offset in zip(self._values, self._offsets, strict=True):
            band = entries[rows] if widened is None else widened.copy_(entries[rows])
            other = _shifted(rows, self._reach, offset, self._shape)
            own.addcmul_(band, padded[other])
            if any(offset):
                sums[other].addcmul_(band, here)


def _shifted(
    rows: slice, margin: tuple[int, ...], offset: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Where displaced pixels of some rows are in padded images [n, *(size + 2 margin)]."""
    first = slice(rows.start + margin[0] + offset[0], rows.stop + margin[0] + offset[0])
    others = (slice(m + u, m + u + n) for m, u, n in zip(margin[1:], offset[1:], shape[1:], strict=True))
    return (slice(None), first, *others)


def _folded(padded: Tensor, margin: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Add what lies beyond the edges to the pixels that are there on the torus."""
    for axis, (m, n) in enumerate(zip(margin, shape, strict=True), start=1):
        inner = padded.narrow(axis, m, n).clone()
        if m:
            inner.narrow(axis, n - m, m).add_(padded.narrow(axis, 0, m))
            inner.narrow(axis, 0, m).add_(padded.narrow(axis, m + n, m))
        padded = inner
    return padded
