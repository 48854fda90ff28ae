"""The near part of a periodic kernel times images, by shifts.

Pixels of one phase make up a plane of cells. A window is all planes at some shifts, by a cell each, and every shift is
a product of the phases' weights with the planes, as they lie in memory. With short periods this is fastest.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.grids import split_cells
from torch_cntk.covariance import Table
from torch_cntk.operators.near import Correlation, overhang, plain_weights, window_of

__all__ = ["Shifts"]

_PASS = 40
"""Cost of one shift's pass over the outputs, as measured on two CPU cores."""
_PLANE_BYTES = 3 << 19
"""Planes are dealt with so many bytes at a time."""


@dataclass(frozen=True)
class _Part:
    """Weights [phases, planes] of the window's places after a shift: the first phases along each axis."""

    shift: tuple[int, ...]
    phases: tuple[int, ...]
    weights: Tensor


class Shifts(Correlation):
    """Products with planes of cells, one for each shift by whole cells."""

    def __init__(self, table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(table, radius)
        ndim = len(self.period)
        weights = plain_weights(table, radius, dtype)(slice(None), slice(None))[0]
        self._parts = []
        for shift in itertools.product(*(range(h + 1) for h in self._hang)):
            places = tuple(
                slice(m * p, min((m + 1) * p, w)) for m, p, w in zip(shift, self.period, self._window, strict=True)
            )
            part = weights[(slice(None),) * ndim + places]
            matrix = part.flatten(ndim).flatten(0, ndim - 1).contiguous()
            self._parts.append(_Part(shift, tuple(part.shape[ndim:]), matrix))

    @staticmethod
    def estimate(table: Table, radius: tuple[int, ...]) -> float:
        """See ``Correlation.estimate``."""
        period = table.geometry.period
        shifts = math.prod(h + 1 for h in overhang(period, radius))
        return 2 * math.prod(window_of(period, radius)) + _PASS * shifts

    @property
    def _weights(self) -> list[Tensor]:
        return [part.weights for part in self._parts]

    def _rows(self, count: int, cells: tuple[int, ...], itemsize: int) -> int:
        row = count * math.prod(cells[1:]) * math.prod(self.period) * itemsize
        bands = math.ceil(cells[0] * row / _PLANE_BYTES)
        return math.ceil(cells[0] / bands)

    def _multiply(self, padded: Tensor) -> Tensor:
        ndim = len(self.period)
        split = split_cells(padded, self.period)
        cells = split.shape[: 1 + ndim]
        planes = split.permute(*range(1 + ndim, 1 + 2 * ndim), *range(1 + ndim)).flatten(ndim)
        # A shift is an offset. What wraps around the end of a row falls on cells that hang over.
        strides = [math.prod(cells[k + 1 :]) for k in range(1, 1 + ndim)]
        offsets = [sum(m * s for m, s in zip(part.shift, strides, strict=True)) for part in self._parts]
        length = planes.shape[-1] - offsets[-1]
        outputs = planes.new_empty(math.prod(self.period), planes.shape[-1])
        sums = outputs[:, :length]
        # [phases of the first axis, those of the others, cells]: a copy, unless it is all of them.
        needed = {others: _some(planes, others) for others in {part.phases[1:] for part in self._parts}}
        for number, (part, offset) in enumerate(zip(self._parts, offsets, strict=True)):
            shifted = needed[part.phases[1:]][: part.phases[0]].flatten(0, 1).narrow(1, offset, length)
            torch.addmm(sums, part.weights, shifted, beta=float(number > 0), out=sums)
        wanted = outputs.reshape(*self.period, *cells)
        for dim, (n, h) in enumerate(zip(cells[1:], self._hang, strict=True), start=ndim + 1):
            wanted = wanted.narrow(dim, 0, n - h)
        return wanted.permute(*range(ndim, 1 + 2 * ndim), *range(ndim))


def _some(planes: Tensor, others: tuple[int, ...]) -> Tensor:
    """The first phases along all axes but the first: [period of the first, prod(others), cells]."""
    for dim, count in enumerate(others, start=1):
        planes = planes.narrow(dim, 0, count)
    return planes.reshape(len(planes), -1, planes.shape[-1])
