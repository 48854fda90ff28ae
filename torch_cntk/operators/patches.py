"""The near part of a periodic kernel times images, by windows that are laid out as rows (im2col).

Laying out takes time, but saves operations, of which one product of all of it takes (p + 2R) / (2R + 1) times as many
an axis as there are pairs of pixels within the radius:

* Folding. If mirroring leaves the kernel as it is, phase p - 1 - a weighs the mirrored window as phase a weighs
  the window. Sums and differences of mirrored pixels then meet half as many phases over half as many places each: half
  of the operations for every axis.
* Blocks of phases. Phases near each other need a part of the window only; the first axis is cut into blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk.covariance import Table
from torch_cntk.operators.near import Correlation, Weights, plain_weights, window_of

__all__ = ["Patches"]

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


class Patches(Correlation):
    """Products with laid out windows, folded where the kernel is symmetric."""

    def __init__(self, table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__(table, radius)
        self.folded = _folds(table)
        self._places = tuple(w // 2 for w in self._window) if self.folded else self._window
        phases = tuple(p // 2 for p in self.period) if self.folded else self.period
        weights = _folded_weights if self.folded else plain_weights
        self._blocks = list(self._cut(weights(table, radius, dtype), phases))

    @staticmethod
    def estimate(table: Table, radius: tuple[int, ...]) -> float:
        """See ``Correlation.estimate``; blocks of phases, which save some, are not considered."""
        period = table.geometry.period
        window = math.prod(window_of(period, radius))
        return 2 * window / (2 ** len(period) if _folds(table) else 1) + _LAYING_OUT * window / math.prod(period)

    @property
    def _weights(self) -> list[Tensor]:
        return [block.weights for block in self._blocks]

    def _cut(self, weights: Weights, phases: tuple[int, ...]) -> Iterator[_Block]:
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


def _folded_weights(table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> Weights:
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
