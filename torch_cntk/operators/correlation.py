"""The near part of a periodic kernel times images: a strided correlation as matrix products.

An image is cut into cells of one period p; every output of a cell is a weighted sum over the window of p + 2 R pixels
that surrounds it (per axis, R the radius). There are two ways to bring windows and weights together.

*Shifts.* Pixels of one phase make up a plane of cells. A window is all planes at some shifts, by a cell each, and every
shift is a product of the phases' weights with the planes, as they lie in memory. With short periods this is fastest.

*Windows.* Each cell's window is laid out as a row. That takes time, but saves operations, of which one product of all
of it takes (p + 2R) / (2R + 1) times as many an axis as there are pairs of pixels within the radius:

* Folding. If mirroring leaves the kernel as it is, phase p - 1 - a weighs the mirrored window as phase a weighs
  the window. Sums and differences of mirrored pixels then meet half as many phases over half as many places each: half
  of the operations for every axis.
* Blocks of phases. Phases near each other need a part of the window only; the first axis is cut into blocks.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.grids import open_grid, split_cells
from torch_cntk.covariance import Table

__all__ = ["Correlation", "Shifts", "Windows", "correlation"]

_Weights = Callable[[slice, slice], Tensor]


def correlation(table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> Correlation:
    """The faster way to take near @ w.

    Args:
        table: one channel; vanishes beyond the radius.
        radius: an entry an axis.
        dtype: in which it multiplies.
    """
    form = min((Shifts, Windows), key=lambda form: form.estimate(table, radius))
    return form(table, radius, dtype)


class Correlation(ABC):
    """near @ w for images w on a torus.

    Args:
        table: one channel; vanishes beyond the radius.
        radius: an entry an axis.
        dtype: in which it multiplies.

    Attributes:
        period: of the table.
        cost: time for each pixel of an image, in operations of a large matrix product that take as long.
    """

    def __init__(self, table: Table, radius: tuple[int, ...]) -> None:
        self.period = table.geometry.period
        self.radius = radius
        self.cost = self.estimate(table, radius)
        self._window = _window(self.period, radius)
        self._hang = _hang(self.period, radius)

    @staticmethod
    @abstractmethod
    def estimate(table: Table, radius: tuple[int, ...]) -> float:
        """The cost, before anything is made."""

    @property
    @abstractmethod
    def _weights(self) -> list[Tensor]:
        """All that images are multiplied by."""

    @abstractmethod
    def _rows(self, count: int, cells: tuple[int, ...], itemsize: int) -> int:
        """Rows of cells to be dealt with at a time: more would leave the cache."""

    @abstractmethod
    def _multiply(self, padded: Tensor) -> Tensor:
        """Outputs of all cells of [n, *padded size] but those that hang over: [n, *cells, *phases]."""

    @property
    def operations(self) -> float:
        """Multiplications and additions for each pixel of an image."""
        return sum(2 * weights.numel() for weights in self._weights) / math.prod(self.period)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(weights.nbytes for weights in self._weights)

    def __call__(self, images: Tensor) -> Tensor:
        """Near @ w for [n, *size], size a multiple of the period and at least 2 radius + 1."""
        cells = tuple(n // p for n, p in zip(images.shape[1:], self.period, strict=True))
        padding = [(r, h * p - r) for r, h, p in zip(self.radius, self._hang, self.period, strict=True)]
        pairs = list(itertools.chain(*reversed(padding)))
        padded = torch.nn.functional.pad(images[:, None], pairs, mode="circular")[:, 0]
        result = torch.empty_like(images, memory_format=torch.contiguous_format)
        by_cells = split_cells(result, self.period)
        step = self._rows(images.shape[0], cells, images.element_size())
        for first in range(0, cells[0], step):
            count = min(step, cells[0] - first)
            rows = padded.narrow(1, first * self.period[0], (count + self._hang[0]) * self.period[0])
            by_cells[:, first : first + count] = self._multiply(rows)
        return result


def _window(period: tuple[int, ...], radius: tuple[int, ...]) -> tuple[int, ...]:
    """Size of the window that a cell's outputs see."""
    return tuple(p + 2 * r for p, r in zip(period, radius, strict=True))


def _hang(period: tuple[int, ...], radius: tuple[int, ...]) -> tuple[int, ...]:
    """Cells that a window enters beyond the one that it begins in; at the far edges these want no outputs."""
    return tuple((w - 1) // p for w, p in zip(_window(period, radius), period, strict=True))


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
        weights = _plain_weights(table, radius, dtype)(slice(None), slice(None))[0]
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
        shifts = math.prod(h + 1 for h in _hang(period, radius))
        return 2 * math.prod(_window(period, radius)) + _PASS * shifts

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


_LAYING_OUT = 200
"""Cost of laying out an entry of a window, as measured on two CPU cores."""
_BLOCK_PHASES = 64
"""Fewest phases in a block: narrower matrices are slower than the operations they save."""
_PATCH_BYTES = 1 << 21
"""Windows are laid out for so many bytes of cells at a time: more would leave the cache."""
_CELLS = 192
"""Fewest cells at a time, if there are so many: the weights are read anew each time, and large ones take longer."""


@dataclass(frozen=True)
class _Block:
    """Weights of some phases: [parities, places, phases], for the places ``start ..`` along the first axis."""

    weights: Tensor
    start: int
    length: int


class Windows(Correlation):
    """Products with laid out windows, folded where the kernel is symmetric."""

    def __init__(self, table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(table, radius)
        self.folded = _folds(table)
        self._places = tuple(w // 2 for w in self._window) if self.folded else self._window
        phases = tuple(p // 2 for p in self.period) if self.folded else self.period
        weights = _folded_weights if self.folded else _plain_weights
        self._blocks = list(self._cut(weights(table, radius, dtype), phases))

    @staticmethod
    def estimate(table: Table, radius: tuple[int, ...]) -> float:
        """See ``Correlation.estimate``; blocks of phases, which save some, are not considered."""
        period = table.geometry.period
        window = math.prod(_window(period, radius))
        return 2 * window / (2 ** len(period) if _folds(table) else 1) + _LAYING_OUT * window / math.prod(period)

    @property
    def _weights(self) -> list[Tensor]:
        return [block.weights for block in self._blocks]

    def _cut(self, weights: _Weights, phases: tuple[int, ...]) -> Iterator[_Block]:
        """Blocks of phases along the first axis, each with the places that it needs."""
        count = max(math.ceil(_BLOCK_PHASES / math.prod(phases[1:])), 1)
        radius = self.radius[0]
        for first in range(0, phases[0], count):
            last = min(first + count, phases[0])
            start, stop = (0, radius + last) if self.folded else (first, last + 2 * radius)
            block = weights(slice(first, last), slice(start, stop))
            # [parities, phases, places] so far; products read places fastest.
            yield _Block(block.flatten(1 + len(phases)).flatten(1, len(phases)).mT, start, stop - start)

    def _rows(self, count: int, cells: tuple[int, ...], itemsize: int) -> int:
        row = count * math.prod(cells[1:])
        fitting = _PATCH_BYTES // (math.prod(self._window) * itemsize)
        return min(math.ceil(max(fitting, _CELLS) / row), cells[0])

    def _multiply(self, padded: Tensor) -> Tensor:
        ndim = len(self.period)
        patches = self._patches(padded)
        parities, shape = patches.shape[0], patches.shape[1 : 2 + ndim]
        flat = patches.reshape(parities, -1, self._places[0], math.prod(self._places[1:]))
        parts = []
        for block in self._blocks:
            needed = flat.narrow(2, block.start, block.length).flatten(2)
            parts.append(torch.bmm(needed, block.weights))
        outputs = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        return (self._unfold(outputs) if self.folded else outputs[0]).reshape(*shape, *self.period)

    def _patches(self, padded: Tensor) -> Tensor:
        """Windows, folded or as they are: [parities, n, *cells, *places]."""
        patches = padded[None]
        for axis, (w, p, places) in enumerate(zip(self._window, self.period, self._places, strict=True)):
            # [parities, n, cells so far, axes to come, places so far, this axis's window]
            windows = patches.unfold(2 + axis, w, p)
            patches = self._fold(windows, axis, places) if self.folded else windows
        return patches.contiguous()

    def _fold(self, windows: Tensor, axis: int, places: int) -> Tensor:
        """Sums and differences of the two halves of the last dimension: twice the parities, half of the places."""
        upper, lower = windows.narrow(-1, places, places), windows.narrow(-1, 0, places).flip(-1)
        # In memory the axes to come vary fastest, as they do in the image; only the view has the places last.
        come, here = range(3 + axis, windows.ndim - 1 - axis), windows.ndim - 1 - axis
        order = [*range(3 + axis), *range(here, windows.ndim), *come]
        memory = windows.new_empty(2, *(upper.shape[k] for k in order))
        folded = memory.permute(0, *(1 + order.index(k) for k in range(windows.ndim)))
        torch.add(upper, lower, out=folded[0])
        torch.sub(upper, lower, out=folded[1])
        return folded.flatten(0, 1)

    def _unfold(self, outputs: Tensor) -> Tensor:
        """[parities, cells, half the phases] to [cells, phases]."""
        halves = tuple(p // 2 for p in self.period)
        ndim = len(halves)
        outputs = outputs.reshape(*(2,) * ndim, -1, *halves)
        for axis in reversed(range(ndim)):  # the last axis to be folded has the slowest parity
            even, odd = outputs.unbind(0)
            dim = even.ndim - ndim + axis
            outputs = torch.cat(((even - odd).flip(dim), even + odd), dim)
        return outputs


def _folds(table: Table) -> bool:
    """Whether each cell's mirror image is another one's place by place."""
    return table.geometry.reflective and all(p % 2 == 0 for p in table.geometry.period)


def _folded_weights(table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> _Weights:
    """Halves of the sums and differences of each phase's weights at mirrored places.

    Returns:
        a function of the phases and the places of the first axis, counted outwards from the middle of the cell, that
        gives [parities, *phases, *places].
    """
    geometry = table.geometry
    ndim = geometry.ndim
    pairs = torch.nn.functional.pad(table.paired(), (0, 1) * ndim)

    def weights(phases: slice, places: slice) -> Tensor:
        values, shape = pairs[None], []
        for axis, (p, r) in enumerate(zip(geometry.period, radius, strict=True)):
            b = torch.arange(p // 2, device=pairs.device)[phases if axis == 0 else slice(None), None]
            t = torch.arange(p // 2 + r, device=pairs.device)[places if axis == 0 else slice(None)]
            shape += [len(b), len(t)]
            indices = [geometry.paired_index(axis, u, p // 2 + b, r).flatten() for u in (t - b, -1 - t - b)]
            upper, lower = (values.index_select(1 + axis, index) for index in indices)
            values = torch.cat((upper + lower, upper - lower)).mul_(0.5)
        values = values.reshape(-1, *shape).to(dtype)
        return values.permute(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2))

    return weights


def _plain_weights(table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> _Weights:
    """Weights of each phase at each place of the window.

    Returns:
        a function of the phases and the places of the first axis that gives [1, *phases, *places].
    """
    ndim, device = table.geometry.ndim, table.values.device

    def weights(phases: slice, places: slice) -> Tensor:
        positions = open_grid(table.geometry.period, device, ndim)
        windows = open_grid([p + 2 * r for p, r in zip(table.geometry.period, radius, strict=True)], device)
        positions[0], windows[0] = positions[0][phases], windows[0][places]
        displacement = [y - r - a for y, r, a in zip(windows, radius, positions, strict=True)]
        return table.within(radius, displacement, positions).to(dtype)

    return weights
