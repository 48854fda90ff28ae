"""A matrix of kernel entries that is computed block by block, in one order: by one process, or each block by a rank."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor
from tqdm import tqdm

__all__ = ["Blocks", "Place", "mirrored", "slices", "triangle"]

Place = tuple[slice, slice]
"""Rows and columns of a block, each with a start and a stop."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a matrix [m, n], or [m, n, *size, *size] between pixels.

    Attributes:
        shape: m and n.
        places: gives the places of the blocks, in the order in which they are computed; of a symmetric matrix those on
            and above the diagonal, of which blocks on it have the same rows and columns.
        compute: gives the block at a place.
        symmetric: whether entries (i, j) and (j, i) are one.
        told: what a bar says of the work, and what it counts; no bar by default.
    """

    shape: tuple[int, int]
    places: Callable[[], Iterator[Place]]
    compute: Callable[[Place], Tensor]
    symmetric: bool
    told: tuple[str, str] | None = None

    def dealt(self, rank: int, size: int) -> Blocks:
        """Every size-th of the blocks, from number ``rank`` on."""
        return replace(self, places=lambda: itertools.islice(self.places(), rank, None, size))

    def chosen(self, wanted: Callable[[Place], bool]) -> Blocks:
        """Those of the blocks that are wanted."""
        return replace(self, places=lambda: filter(wanted, self.places()))

    def __iter__(self) -> Iterator[tuple[Place, Tensor]]:
        """Compute the blocks, one after the other."""
        name, unit = self.told or ("", "")
        m, n = self.shape
        total = m * (m + 1) // 2 if self.symmetric else m * n
        with tqdm(total=total, disable=self.told is None, desc=name, unit=unit, unit_scale=True) as bar:
            for place in self.places():
                block = self.compute(place)
                yield place, block
                rows, columns = len(block), block.shape[1]
                bar.update(rows * (rows + 1) // 2 if self.on_diagonal(place) else rows * columns)

    def on_diagonal(self, place: Place) -> bool:
        """Whether a block is its own mirror image."""
        return self.symmetric and place[0] == place[1]

    def fill(self, matrix: Tensor) -> Tensor:
        """Write all blocks, and their mirror images, into the matrix."""
        for place, block in self:
            self.write(matrix, place, block)
        return matrix

    def write(self, matrix: Tensor, place: Place, block: Tensor) -> None:
        """Write a block, and its mirror image, into the matrix."""
        rows, columns = place
        matrix[rows, columns] = block
        if self.symmetric and rows != columns:
            matrix[columns, rows] = mirrored(block)

    def add_product(self, result: Tensor, images: Tensor) -> Tensor:
        """Add what the blocks, and their mirror images, make of images [k, n] to a result [k, m] of the same dtype."""
        for (rows, columns), block in self:
            part = block.to(images.dtype)
            result[:, rows].addmm_(images[:, columns], part.T)
            if self.symmetric and rows != columns:
                result[:, columns].addmm_(images[:, rows], part)
        return result


def slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """Cut a range into pieces."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def triangle(n: int, side: int) -> Iterator[Place]:
    """Square blocks on and above the diagonal of [n, n], row by row."""
    for above in slices(0, n, side):
        for beside in slices(above.start, n, side):
            yield above, beside


def mirrored(block: Tensor) -> Tensor:
    """K(x', x) of K(x, x'), [m, n, *size, *size] to [n, m, *size, *size]: inputs and pixels change places."""
    ndim = (block.ndim - 2) // 2
    axes = (*range(2 + ndim, 2 + 2 * ndim), *range(2, 2 + ndim))
    return block.permute(1, 0, *axes)
