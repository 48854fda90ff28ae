"""Cut the missing pixels of an image into windows, so that the cost of filling them follows the holes.

A window is a box of missing pixels and a margin of what is known around it. Boxes come from a tree: that of all missing
pixels is cut in two where the windows of the two parts have the fewest pixels, each part is shrunk to its missing
pixels and cut in turn; then, from the leaves up, two parts are taken instead of their box where that is cheaper. Holes
near each other share a window for that reason, those far apart do not, and a long scratch is a chain of windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Box", "Cut", "Window", "cut"]

Box = tuple[slice, ...]
"""A part of an image: a slice for each axis, with its start and stop."""
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_CHEAPER = 2
"""Windows must have so many times fewer pixels than the whole: some of them are solved twice, to see that their margin
is enough."""
_EACH = 4096
"""A window takes as long as so many pixels before its first product with K: some 20 ms on a CPU core."""
_DEEP = 64
"""Cuts within cuts after which boxes are halved, whatever that costs: then there are at most some ten more."""


@dataclass(frozen=True)
class Window:
    """A part of an image that is filled by itself.

    Attributes:
        core: the box whose missing pixels are filled.
        place: the box that is looked at, around the core.
    """

    core: Box
    place: Box

    @property
    def within(self) -> Box:
        """The core, counted from the window's first corner."""
        return tuple(
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(self.core, self.place, strict=True)
        )


@dataclass(frozen=True)
class Cut:
    """How windows of an image are made.

    Attributes:
        margin: pixels around a core, an entry an axis.
        step: windows begin at multiples of it, an entry an axis.
        canvas: size of the canvas on which an image of a size is solved.
    """

    margin: tuple[int, ...]
    step: tuple[int, ...]
    canvas: Callable[[tuple[int, ...]], tuple[int, ...]]

    def window(self, core: Box, size: tuple[int, ...], margin: tuple[int, ...] | None = None) -> Window:
        """The window of a core in an image of a size, perhaps with another margin."""
        place = []
        for box, n, m, s in zip(core, size, margin or self.margin, self.step, strict=True):
            place.append(slice(max(box.start - m, 0) // s * s, min(box.stop + m, n)))
        return Window(core, tuple(place))

    def cost(self, window: Window) -> float:
        """Pixels of its canvas, and what each window costs beside them.

        Each pixel of a canvas takes as long in a window as in the whole image: ``Operator.cost`` and ``iterations``
        are the same, but for the logarithm of a Fourier transform's length.
        """
        return math.prod(self.canvas(tuple(box.stop - box.start for box in window.place))) + _EACH


def cut(missing: Bools, plan: Cut) -> list[Window] | None:
    """Windows that together fill all missing pixels.

    Args:
        missing: [*size], at least one is.
        plan: how windows are made.

    Returns:
        the windows, whose cores do not share a missing pixel; None where they would cost more than half of the whole.
    """
    size = missing.shape
    most = math.prod(plan.canvas(size)) / _CHEAPER
    cells = tuple(max((m + 1) // 2, 1) for m in plan.margin)
    grid = _any_in_blocks(missing, cells)
    if _surrounded(grid, plan.margin, cells) > most:
        return None
    tree = _Tree(grid, cells, plan, size)
    cores = [_shrunk(missing, core) for core in tree.cores()]
    windows = [plan.window(core, size) for core in cores]
    return windows if sum(map(plan.cost, windows)) <= most else None


def _any_in_blocks(missing: Bools, cells: tuple[int, ...]) -> Bools:
    """Whether a pixel is missing, for each block of ``cells`` pixels."""
    for axis, cell in enumerate(cells):
        missing = np.logical_or.reduceat(missing, np.arange(0, missing.shape[axis], cell), axis=axis)
    return missing


def _surrounded(grid: Bools, margin: tuple[int, ...], cells: tuple[int, ...]) -> float:
    """Pixels of all blocks within the margin of one in which a pixel is missing: no windows have fewer."""
    for axis, (m, cell) in enumerate(zip(margin, cells, strict=True)):
        blocks = m // cell
        padded = np.pad(grid, [(blocks, blocks) if k == axis else (0, 0) for k in range(grid.ndim)])
        grid = np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * blocks + 1, axis).any(-1))
    return float(grid.sum()) * math.prod(cells)


def _shrunk(missing: Bools, box: Box) -> Box:
    """The smallest box around the missing pixels of a box."""
    part = missing[box]
    tight = []
    for axis, side in enumerate(box):
        along = np.flatnonzero(part.any(tuple(k for k in range(part.ndim) if k != axis)))
        tight.append(slice(side.start + int(along[0]), side.start + int(along[-1]) + 1))
    return tuple(tight)


class _Tree:
    """Boxes of blocks in which pixels are missing, each cut in two down to boxes that need no further cut."""

    def __init__(self, grid: Bools, cells: tuple[int, ...], plan: Cut, size: tuple[int, ...]) -> None:
        self._grid, self._cells, self._plan, self._size = grid, cells, plan, size
        # Pixels of a window beyond its core: the margin, and what the canvas adds to a window of about this size.
        usual = tuple(2 * m + c for m, c in zip(plan.margin, cells, strict=True))
        added = (n - u for n, u in zip(plan.canvas(usual), usual, strict=True))
        self._beyond = np.array([2 * m + a for m, a in zip(plan.margin, added, strict=True)])

    def cores(self) -> list[Box]:
        """The boxes of the cheapest windows, in pixels."""
        whole = tuple(slice(0, n) for n in self._grid.shape)
        boxes, _ = self._best(_shrunk(self._grid, whole), 0)
        return [self._pixels(box) for box in boxes]

    def _pixels(self, box: Box) -> Box:
        return tuple(
            slice(side.start * cell, min(side.stop * cell, n))
            for side, cell, n in zip(box, self._cells, self._size, strict=True)
        )

    def _best(self, box: Box, depth: int) -> tuple[list[Box], float]:
        """The cheapest boxes for what is missing in a box, and their cost."""
        own = self._plan.cost(self._plan.window(self._pixels(box), self._size))
        # A box of no more blocks than its margin has gains nothing by a cut.
        if all(side.stop - side.start <= 2 for side in box):
            return [box], own
        parts = [self._best(_shrunk(self._grid, part), depth + 1) for part in self._parts(box, depth)]
        together = sum(cost for _, cost in parts)
        return ([b for boxes, _ in parts for b in boxes], together) if together < own else ([box], own)

    def _parts(self, box: Box, depth: int) -> tuple[Box, Box]:
        """The two parts of the cut that leaves the fewest pixels in windows."""
        grid = self._grid[box]
        if depth < _DEEP:
            cuts = [(*self._cheapest(grid, axis), axis) for axis in range(grid.ndim) if grid.shape[axis] > 1]
            _, place, axis = min(cuts)
        else:
            axis = int(np.argmax(grid.shape))
            place = grid.shape[axis] // 2
        middle = box[axis].start + place
        first = (*box[:axis], slice(box[axis].start, middle), *box[axis + 1 :])
        second = (*box[:axis], slice(middle, box[axis].stop), *box[axis + 1 :])
        return first, second

    def _cheapest(self, grid: Bools, axis: int) -> tuple[float, int]:
        """Cost of the best cut across an axis, and the first block behind it."""
        before, behind = self._costs(grid, axis), self._costs(np.flip(grid, axis), axis)[::-1]
        total = before[:-1] + behind[1:]
        # Of equal ones that next to the middle, so that no long chain of small cuts arises.
        off = np.abs(np.arange(1, len(before)) - len(before) / 2)
        best = int(np.lexsort((off, total))[0])
        return float(total[best]), best + 1

    def _costs(self, grid: Bools, axis: int) -> npt.NDArray[np.float64]:
        """Pixels of the window around what is missing in the first blocks along an axis: up to each of them."""
        length = grid.shape[axis]
        taken = np.asarray(grid.any(tuple(k for k in range(grid.ndim) if k != axis)))
        first, last = int(taken.argmax()), np.maximum.accumulate(np.where(taken, np.arange(length), -1))
        pixels = np.maximum(last - first + 1, 0) * self._cells[axis] + self._beyond[axis]
        cost: npt.NDArray[np.float64] = pixels.astype(np.float64)
        for other in (k for k in range(grid.ndim) if k != axis):
            seen = np.asarray(grid.any(tuple(k for k in range(grid.ndim) if k not in (axis, other))))
            rows = seen if axis < other else seen.T
            low = np.minimum.accumulate(np.where(taken, rows.argmax(1), grid.shape[other]))
            high = np.maximum.accumulate(np.where(taken, grid.shape[other] - rows[:, ::-1].argmax(1), 0))
            cost *= np.maximum(high - low, 0) * self._cells[other] + self._beyond[other]
        cost += _EACH
        return cost
