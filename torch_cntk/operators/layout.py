"""How the processes that iterate together hold their images: each of them whole ones, or a band of every image.

What is in bands is a share of the memory, and a product with a kernel that reaches R pixels far needs R rows of each
neighbour instead of the image. Sums over an image are sums over the ranks then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.ranks import Mesh

__all__ = ["Banded", "Interval", "Layout", "Sections", "Whole"]

Interval = tuple[int, int]
"""The first of some rows, perhaps below 0, and their number: an image goes on around its edges."""


class Sections(ABC):
    """Rows of the images for each rank, which may overlap, whoever holds them."""

    @abstractmethod
    def fetch(self, images: Tensor) -> Tensor:
        """This rank's rows, from the images [n, *size] as the layout holds them."""

    @abstractmethod
    def fold(self, rows: Tensor) -> Tensor:
        """The images, as the layout holds them, in which all ranks' rows are added up: the transpose of ``fetch``."""


class Layout(ABC):
    """How images [..., *size] are held; what it does where ranks have to talk, all of them do."""

    @abstractmethod
    def own(self, images: Tensor) -> Tensor:
        """What this process holds of whole images, which every process has."""

    @abstractmethod
    def joined(self, parts: Tensor) -> Tensor:
        """The whole images, on every process."""

    @abstractmethod
    def total(self, numbers: Tensor) -> Tensor:
        """Sums over whole images, of those over what this process holds; the same bits on every process."""

    @abstractmethod
    def alike(self, images: Tensor) -> Tensor | None:
        """What all processes must have to the bit: the images, or nothing."""

    @abstractmethod
    def sections(self, axis: int, n: int, wanted: Sequence[Interval]) -> Sections:
        """Some of the n rows along an axis of whole images, an interval a rank."""


@dataclass(frozen=True)
class Whole(Layout):
    """Every process holds whole images.

    Args:
        mesh: the processes, where there are several.
    """

    mesh: Mesh | None = None

    def own(self, images: Tensor) -> Tensor:
        """The images."""
        return images

    def joined(self, parts: Tensor) -> Tensor:
        """The images."""
        return parts

    def total(self, numbers: Tensor) -> Tensor:
        """The numbers."""
        return numbers

    def alike(self, images: Tensor) -> Tensor:
        """The images."""
        return images

    def sections(self, axis: int, n: int, wanted: Sequence[Interval]) -> Sections:
        """See ``Layout.sections``."""
        mesh = self.mesh or Mesh.alone()
        return _OfWhole(mesh, axis, n, wanted[mesh.rank])


class Banded(Layout):
    """Each rank holds a band of near-equal length along the longest axis; none where ranks outnumber the rows.

    Args:
        mesh: the ranks.
        size: of the whole images.
        period: bands begin at multiples of it, an entry an axis.

    Attributes:
        axis: along which bands are cut.
        size: of the rank's band.
        start: of the rank's band along the axis.
    """

    def __init__(self, mesh: Mesh, size: tuple[int, ...], period: tuple[int, ...] | None = None) -> None:
        self.mesh, self._whole = mesh, size
        self.axis = max(range(len(size)), key=lambda axis: size[axis])
        self._multiple = 1 if period is None else period[self.axis]
        self._shares = mesh.shares(size[self.axis], self._multiple)
        mine = self._shares[mesh.rank]
        self.start, self._length = mine.start, mine.stop - mine.start
        self.size = (*size[: self.axis], self._length, *size[self.axis + 1 :])

    def own(self, images: Tensor) -> Tensor:
        """The rank's band, as a tensor of its own."""
        return images.narrow(self.axis - len(self.size), self.start, self._length).clone()

    def joined(self, parts: Tensor) -> Tensor:
        """The whole images, gathered."""
        dim = parts.ndim + self.axis - len(self.size)
        rows = self.mesh.gather(parts.movedim(dim, 0).contiguous(), self._whole[self.axis], self._multiple)
        return rows.movedim(0, dim).contiguous()

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over the ranks, in their order."""
        return self.mesh.sum(numbers)

    def alike(self, images: Tensor) -> None:
        """Nothing."""

    def sections(self, axis: int, n: int, wanted: Sequence[Interval]) -> Sections:
        """See ``Layout.sections``; the axis is that of the bands."""
        assert (axis, n) == (self.axis, self._whole[axis])
        return _Exchanged(self.mesh, axis, self._shares, wanted)

    def widened(self, before: int, after: int) -> Sections:
        """Each rank's band with so many more rows on its sides; nothing where it has no rows."""
        wanted = [
            (band.start - before, band.stop - band.start + before + after) if band.stop > band.start else (0, 0)
            for band in self._shares
        ]
        return self.sections(self.axis, self._whole[self.axis], wanted)


class _OfWhole(Sections):
    """See ``Whole``."""

    def __init__(self, mesh: Mesh, axis: int, n: int, wanted: Interval) -> None:
        self._mesh, self._dim, self._length, self._wanted = mesh, 1 + axis, n, wanted

    def _rows(self, images: Tensor) -> Tensor:
        first, count = self._wanted
        return torch.arange(first, first + count, device=images.device) % self._length

    def fetch(self, images: Tensor) -> Tensor:
        """See ``Sections.fetch``."""
        return images.index_select(self._dim, self._rows(images))

    def fold(self, rows: Tensor) -> Tensor:
        """See ``Sections.fold``."""
        shape = [self._length if dim == self._dim else n for dim, n in enumerate(rows.shape)]
        return self._mesh.sum(rows.new_zeros(shape).index_add_(self._dim, self._rows(rows), rows))


@dataclass(frozen=True)
class _Run:
    """Rows that a rank wants and another one, or itself, holds.

    Attributes:
        owner: who holds them.
        start: of the rows in the owner's band.
        place: of the rows among those that are wanted.
        count: of the rows.
    """

    owner: int
    start: int
    place: int
    count: int


def _runs(shares: Sequence[slice], wanted: Interval) -> list[_Run]:
    """Who holds the rows of an interval, piece by piece."""
    n, (first, count) = shares[-1].stop, wanted
    found: list[_Run] = []
    place = 0
    while place < count:
        row = (first + place) % n
        owner = next(rank for rank, share in enumerate(shares) if share.start <= row < share.stop)
        length = min(count - place, shares[owner].stop - row)
        found.append(_Run(owner, row - shares[owner].start, place, length))
        place += length
    return found


class _Exchanged(Sections):
    """See ``Banded``: rows go to whom they are for, in one message a pair of ranks."""

    def __init__(self, mesh: Mesh, axis: int, shares: Sequence[slice], wanted: Sequence[Interval]) -> None:
        self._mesh, self._dim = mesh, 1 + axis
        self._length = shares[mesh.rank].stop - shares[mesh.rank].start
        self._count = wanted[mesh.rank][1]
        runs = [_runs(shares, interval) for interval in wanted]
        me = mesh.rank
        self._from = {rank: [run for run in runs[me] if run.owner == rank] for rank in range(mesh.size)}
        self._for = {rank: [run for run in runs[rank] if run.owner == me] for rank in range(mesh.size)}

    def fetch(self, images: Tensor) -> Tensor:
        """See ``Sections.fetch``."""
        found = self._resized(images, self._count)
        parcels = {
            rank: [images.narrow(self._dim, run.start, run.count) for run in runs]
            for rank, runs in self._for.items()
            if runs
        }
        for rank, parts in self._swapped(parcels, self._from, images).items():
            for run, part in zip(self._from[rank], parts, strict=True):
                found.narrow(self._dim, run.place, run.count).copy_(part)
        return found

    def fold(self, rows: Tensor) -> Tensor:
        """See ``Sections.fold``; they are added in the order of the ranks."""
        found = self._resized(rows, self._length).zero_()
        parcels = {
            rank: [rows.narrow(self._dim, run.place, run.count) for run in runs]
            for rank, runs in self._from.items()
            if runs
        }
        for rank, parts in sorted(self._swapped(parcels, self._for, rows).items()):
            for run, part in zip(self._for[rank], parts, strict=True):
                found.narrow(self._dim, run.start, run.count).add_(part)
        return found

    def _resized(self, images: Tensor, length: int) -> Tensor:
        return images.new_empty([length if dim == self._dim else n for dim, n in enumerate(images.shape)])

    def _swapped(
        self, parcels: dict[int, list[Tensor]], expected: dict[int, list[_Run]], like: Tensor
    ) -> dict[int, list[Tensor]]:
        """Rows that come from other ranks, and from this one, by rank: as long as the runs that are expected."""
        kept = parcels.pop(self._mesh.rank, None)
        shapes = {
            rank: [torch.Size(run.count if dim == self._dim else n for dim, n in enumerate(like.shape)) for run in runs]
            for rank, runs in expected.items()
            if runs and rank != self._mesh.rank
        }
        counts = {rank: [shape.numel() for shape in of_rank] for rank, of_rank in shapes.items()}
        sent = {rank: torch.cat([part.flatten() for part in parts]) for rank, parts in parcels.items()}
        came = self._mesh.swap(sent, {rank: sum(of_rank) for rank, of_rank in counts.items()}, like)
        found = {} if kept is None else {self._mesh.rank: kept}
        for rank, flat in came.items():
            parts = zip(torch.split(flat, counts[rank]), shapes[rank], strict=True)
            found[rank] = [part.reshape(shape) for part, shape in parts]
        return found
