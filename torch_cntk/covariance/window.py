"""Tables of near displacements only, under a taper that keeps them positive semi-definite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from torch_cntk.covariance.table import Geometry, Slab

__all__ = ["TAPERS", "Taper", "Window", "WindowShare", "overlap", "wendland"]

Taper = Literal["wendland", "overlap"]
"""What a window's entries are multiplied by: see ``wendland`` and ``overlap``."""
TAPERS: tuple[Taper, ...] = ("wendland", "overlap")
_Shape = tuple[tuple[int, ...], bool, tuple[int, ...] | None]
"""Reach, whether it is an ellipsoid, and the torus if these are all of its displacements."""


@dataclass(frozen=True)
class Window(Geometry):
    """The displacements inside an ellipsoid or a box, in a list: of u and -u one, as K(x, x') = K(x', x).

    A table of it has the shape [channels, displacements, 1, ..., *period], with as many ones as it takes for an entry
    an axis.

    Attributes:
        reach: half axes: the ellipsoid holds the u with |u / reach| < 1, the box those with |u_k| < reach_k.
        tapered: whether this is the ellipsoid, and entries are multiplied by a function of |u / reach|.
        taper: that function.
    """

    reach: tuple[int, ...] = ()
    tapered: bool = True
    taper: Taper = "wendland"

    @classmethod
    def of(cls, geometry: Geometry, reach: tuple[int, ...], taper: Taper = "wendland") -> Window:
        """An ellipsoid of a table's displacements."""
        return cls(geometry.size, geometry.period, reflective=False, square=False, reach=reach, taper=taper)

    @classmethod
    def box_of(cls, geometry: Geometry, largest: tuple[int, ...]) -> Window:
        """The displacements up to ``largest`` along each axis; half of the table at most."""
        reach = tuple(min(u, n // 2) + 1 for u, n in zip(largest, geometry.size, strict=True))
        return cls(geometry.size, geometry.period, reflective=False, square=False, reach=reach, tapered=False)

    @property
    def _shape(self) -> _Shape:
        return self.reach, self.tapered, None

    @property
    def _rows(self) -> slice:
        """The part of the list that there is."""
        return slice(None)

    @property
    def offsets(self) -> Tensor:
        """The displacements, [displacements, ndim]; zero first."""
        return _offsets(self._shape)[self._rows]

    @property
    def box(self) -> tuple[int, ...]:
        """Number of displacements, and ones."""
        return (len(self.offsets), *(1,) * (self.ndim - 1))

    def pieces(self, displacements: int) -> Iterator[tuple[Slab, slice]]:
        """Slabs of about so many displacements, and where in the list they are; zero comes first."""
        ones = (1,) * self.ndim
        begin, end, _ = self._rows.indices(len(_offsets(self._shape)))
        row = 0
        for leading, first, count in _runs(self._shape):
            low, high = max(begin - row, 0), min(end - row, count)
            for start in range(low, high, max(displacements, 1)):
                length = min(max(displacements, 1), high - start)
                place = row + start - begin
                yield Slab((*leading, first + start), (*ones[1:], length), ones), slice(place, place + length)
            row += count

    def weights(self) -> Tensor:
        """The taper of all displacements, [displacements] in float64."""
        distance = (self.offsets / torch.tensor(self.reach, dtype=torch.float64)).norm(dim=1)
        return wendland(distance) if self.taper == "wendland" else overlap(distance, self.ndim)

    def holds(self, displacement: Sequence[Tensor]) -> Tensor:
        """Whether the window holds displacements, given as for ``index``."""
        return self._place(displacement)[0] >= 0

    def index(self, displacement: Sequence[Tensor], position: Sequence[Tensor]) -> Tensor:
        """As ``Geometry.index``; anywhere in the table for displacements that the window does not hold."""
        row, swapped = self._place(displacement)
        index = row.clamp_min(0)
        for u, a, n, p in zip(displacement, position, self.size, self.period, strict=True):
            index = index * p + torch.where(swapped, a + u % n, a) % p
        return index

    def _place(self, displacement: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Where displacements are in the list (-1: nowhere), and whether their negatives are, in their stead."""
        places, swapped = _places(self._shape)
        cell: Tensor | None = None
        inside: Tensor | None = None
        for u, n, r in zip(displacement, self.size, self.reach, strict=True):
            u = u % n
            u = torch.where(u > n // 2, u - n, u)
            near = u.abs() < r
            u = torch.where(near, u + r - 1, 0)
            cell = u if cell is None else cell * (2 * r - 1) + u
            inside = near if inside is None else inside & near
        assert cell is not None
        assert inside is not None
        row = torch.where(inside, places.to(cell.device)[cell], -1)
        begin, end, _ = self._rows.indices(len(_offsets(self._shape)))
        row = torch.where((row >= begin) & (row < end), row - begin, -1)
        return row, swapped.to(cell.device)[cell]


@dataclass(frozen=True)
class WindowShare(Window):
    """A part of a window's list, or of that of all displacements of a torus.

    Attributes:
        rows: (first, last + 1) of the list.
        whole: whether these are displacements of the whole torus, each of which the list has once.
    """

    rows: tuple[int, int] = (0, 0)
    whole: bool = False

    @classmethod
    def of_window(cls, window: Window, share: Callable[[int], slice]) -> WindowShare:
        """Of a window.

        Args:
            window: the whole one.
            share: gives the part of so many rows.
        """
        return cls._of(window, share, False)

    @classmethod
    def of_torus(cls, geometry: Geometry, share: Callable[[int], slice]) -> WindowShare:
        """Of all displacements of a table; see ``of_window``."""
        reach = tuple(n // 2 + 1 for n in geometry.size)
        window = Window(geometry.size, geometry.period, reflective=False, square=False, reach=reach, tapered=False)
        return cls._of(window, share, True)

    @classmethod
    def _of(cls, window: Window, share: Callable[[int], slice], whole: bool) -> WindowShare:
        options = {option.name: getattr(window, option.name) for option in fields(window)}
        every = cls(**options, whole=whole)
        rows = share(len(_offsets(every._shape)))
        return replace(every, rows=(rows.start, rows.stop))

    @property
    def _shape(self) -> _Shape:
        return self.reach, self.tapered, self.size if self.whole else None

    @property
    def _rows(self) -> slice:
        return slice(*self.rows)


def wendland(distance: Tensor) -> Tensor:
    """(1 - q)^4 (4 q + 1) for q < 1, 0 beyond: smooth, and positive definite in up to 3 dimensions (Wendland 1995)."""
    rest = (1 - distance).clamp_min(0)
    return rest**4 * (4 * distance + 1)


def overlap(distance: Tensor, ndim: int) -> Tensor:
    """Share of a ball of diameter 1 that it has in common with one at a distance: 0 from 1 on.

    It falls slower than ``wendland``, with an edge at 0, so that a smaller window does as well. The convolution of a
    ball with itself is positive definite in ``ndim`` dimensions, and not in more (Gneiting 1999).
    """
    q = distance.clamp(0, 1)
    if ndim == 1:
        return 1 - q
    if ndim == 2:
        return 2 / math.pi * (torch.acos(q) - q * (1 - q.square()).sqrt())
    return 1 - 1.5 * q + 0.5 * q**3


@lru_cache(maxsize=64)
def _runs(shape: _Shape) -> list[tuple[tuple[int, ...], int, int]]:
    """The half of the displacements that is kept, as runs along the last axis: (leading entries, first, count)."""
    reach, round_, torus = shape
    if torus is not None:
        return _runs_of_torus(torus)
    runs = []
    *before, last = reach
    for leading in product(*(range(1 - r, r) for r in before)):
        squared = sum((u / r) ** 2 for u, r in zip(leading, before, strict=True)) if round_ else 0.0
        # The sum as ``norm`` has it decides on the surface: those displacements have taper 0 anyway.
        most = max((u for u in range(last) if squared + (u / last) ** 2 < 1), default=-1)
        sign = next((u for u in leading if u), 0)
        if sign < 0 or most < 0:
            continue
        first = 0 if sign == 0 else -most
        runs.append((leading, first, most - first + 1))
    # Zero first: it gives the variances that all others need.
    return sorted(runs, key=lambda run: any(run[0]))


def _runs_of_torus(size: tuple[int, ...]) -> list[tuple[tuple[int, ...], int, int]]:
    """As ``_runs``, of all displacements: entries from above -n / 2 to n / 2, which is its own negative."""
    *before, last = size
    runs = []
    for leading in product(*(range(-((n - 1) // 2), n // 2 + 1) for n in before)):
        negative = tuple(u if 2 * u == n else -u for u, n in zip(leading, before, strict=True))
        if leading < negative:
            continue
        first = 0 if leading == negative else -((last - 1) // 2)
        runs.append((leading, first, last // 2 - first + 1))
    return sorted(runs, key=lambda run: any(run[0]))


@lru_cache(maxsize=64)
def _offsets(shape: _Shape) -> Tensor:
    rows = [(*leading, first + k) for leading, first, count in _runs(shape) for k in range(count)]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, len(shape[0]))


@lru_cache(maxsize=64)
def _places(shape: _Shape) -> tuple[Tensor, Tensor]:
    """For each displacement of a box [2 reach - 1, ...], flattened: its row, and whether it is that of its negative."""
    reach, _, torus = shape
    offsets = _offsets(shape)
    sides = [2 * r - 1 for r in reach]
    strides = torch.tensor([math.prod(sides[k + 1 :]) for k in range(len(sides))])
    middle = torch.tensor([r - 1 for r in reach])
    places = torch.full((math.prod(sides),), -1, dtype=torch.long)
    swapped = torch.zeros(len(places), dtype=torch.bool)
    own_negative = torch.zeros_like(offsets) if torus is None else offsets * (2 * offsets == torch.tensor(torus))
    negative = ((middle - offsets + 2 * own_negative) * strides).sum(1)
    places[negative], swapped[negative] = torch.arange(len(offsets)), True
    positive = ((middle + offsets) * strides).sum(1)
    places[positive], swapped[positive] = torch.arange(len(offsets)), False
    return places, swapped
