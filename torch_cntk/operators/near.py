"""What the ways to multiply images by the near part of a periodic kernel have in common.

An image is cut into cells of one period p; every output of a cell is a weighted sum over the window of p + 2 R pixels
that surrounds it (per axis, R the radius).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from torch_cntk._internal.grids import open_grid, split_cells
from torch_cntk.covariance import Table

__all__ = ["Correlation", "Weights", "overhang", "plain_weights", "window_of"]

Weights = Callable[[slice, slice], Tensor]
"""Gives the weights of some phases and places of the first axis, [parities, *phases, *places]."""


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
        self._window = window_of(self.period, radius)
        self._hang = overhang(self.period, radius)

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

    def __call__(self, images: Tensor, wide: int | None = None) -> Tensor:
        """Near @ w for [n, *size], size a multiple of the period and at least 2 radius + 1.

        Args:
            images: w.
            wide: an axis along which they come with as many more pixels on both sides as the radius has; others go
                around.

        Returns:
            [n, *size].
        """
        size = list(images.shape[1:])
        if wide is not None:
            size[wide] -= 2 * self.radius[wide]
        padded = self._padded(images, wide)
        result = images.new_empty(images.shape[0], *size)
        by_cells = split_cells(result, self.period)
        cells = tuple(n // p for n, p in zip(size, self.period, strict=True))
        step = self._rows(images.shape[0], cells, images.element_size())
        for first in range(0, cells[0], step):
            count = min(step, cells[0] - first)
            rows = padded.narrow(1, first * self.period[0], (count + self._hang[0]) * self.period[0])
            by_cells[:, first : first + count] = self._multiply(rows)
        return result

    def _padded(self, images: Tensor, wide: int | None) -> Tensor:
        """The windows of all cells, side by side: with what is on the other side of an image, but not along ``wide``.

        What fills up the last cell, beyond the radius, has no weights.
        """
        around = [(r, h * p - r) for r, h, p in zip(self.radius, self._hang, self.period, strict=True)]
        if wide is not None:
            ends = [(0, 0)] * len(around)
            ends[wide] = (0, around[wide][1] - self.radius[wide])
            images, around[wide] = torch.nn.functional.pad(images, _pairs(ends)), (0, 0)
        return torch.nn.functional.pad(images[:, None], _pairs(around), mode="circular")[:, 0]


def _pairs(padding: list[tuple[int, int]]) -> list[int]:
    """As ``torch.nn.functional.pad`` wants them: the last axis first."""
    return list(itertools.chain(*reversed(padding)))


def window_of(period: tuple[int, ...], radius: tuple[int, ...]) -> tuple[int, ...]:
    """Size of the window that a cell's outputs see."""
    return tuple(p + 2 * r for p, r in zip(period, radius, strict=True))


def overhang(period: tuple[int, ...], radius: tuple[int, ...]) -> tuple[int, ...]:
    """Extra cells that a window spans beyond the one that it begins in; padding cells have no outputs."""
    return tuple((w - 1) // p for w, p in zip(window_of(period, radius), period, strict=True))


def plain_weights(table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> Weights:
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
