"""How the numbers of a kernel are stored: three forms that answer the same questions.

``Periodic`` serves every size that is a multiple of its period, ``Dense`` and ``Windowed`` serve one size. ``Kernel``
holds one of them and asks no further which.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.grids import open_grid
from torch_cntk._internal.memory import require_bytes
from torch_cntk.covariance import Table, Window
from torch_cntk.operators.base import DenseOperator, Lookup, Operator
from torch_cntk.operators.periodic import BlockCirculantOperator, PeriodicOperator
from torch_cntk.operators.stencil import StencilOperator

__all__ = ["Dense", "Periodic", "Storage", "Windowed", "displacement_of", "of_tables"]

_DENSE_BLOCK = 1 << 22
"""Entries of the dense kernel that are looked up at once: their indices take many times their bytes."""


@dataclass(frozen=True, eq=False)
class Storage(ABC):
    """The numbers of a kernel, and what can be asked of them.

    Attributes:
        near: table of one channel, whose period is that of the kernel.
        far: table of one channel that is added at all displacements, or None for 0.
        radius: beyond it the near part vanishes; an entry an axis.
    """

    near: Table
    far: Table | None
    radius: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...] | None:
        """The only size that is served, or None for every multiple of the period."""
        return self.near.geometry.size

    @property
    def tables(self) -> dict[str, Table]:
        """All tables by their names in files."""
        return {"near": self.near} if self.far is None else {"near": self.near, "far": self.far}

    @property
    def period(self) -> tuple[int, ...]:
        """K is invariant to joint shifts by this many pixels."""
        return self.near.geometry.period

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.near.values.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.near.values.device

    def check_whole(self) -> None:
        """Refuse what needs all of the kernel at one place, where this is a share of it."""
        return

    @abstractmethod
    def entries(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """K between pixels of an image of ``size``, given by an integer tensor an axis each, which broadcast."""

    @abstractmethod
    def operator(self, size: tuple[int, ...], dtype: torch.dtype) -> Operator:
        """K as a linear map on images of ``size`` and ``dtype``."""

    @abstractmethod
    def with_tables(self, tables: Mapping[str, Table]) -> Storage:
        """The same form with other tables."""

    def to(self, dtype: torch.dtype, device: torch.device) -> Storage:
        """The same numbers in another precision or on another device."""
        return self.with_tables(
            {
                name: Table(table.values.to(dtype=dtype, device=device), table.geometry)
                for name, table in self.tables.items()
            }
        )

    def stationary_average(self) -> Storage:
        """The mean of K(a, a + u) over all positions a, of period 1 and in float64."""
        return self.with_tables({name: _mean_over_positions(table) for name, table in self.tables.items()})

    def stationary(self, size: tuple[int, ...]) -> Tensor:
        """The same as an image, [*size]: entry u is the mean of K(a, a + u)."""
        origin = [torch.tensor(0, device=self.device) for _ in size]
        return self.stationary_average().entries(origin, open_grid(size, self.device), size)

    def lookup(self, size: tuple[int, ...]) -> Lookup:
        """``entries`` for images of one size, as operators take it; it can be pickled."""
        return partial(self.entries, size=size)

    def dense(self, size: tuple[int, ...]) -> Tensor:
        """All of K, [*size, *size].

        Raises:
            OutOfMemoryError: it would not fit; the message says how many bytes it takes.
        """
        entries = math.prod(size) ** 2
        # Some lines of pixels at a time: there are indices and a mask for each number.
        lines = max(_DENSE_BLOCK * size[0] // entries, 1)
        require_bytes(
            entries * self.dtype.itemsize
            + min(entries, lines * (entries // size[0])) * (2 * self.dtype.itemsize + 3 * 8 + 1),
            f"the dense kernel of {shape_text(size)} pixels",
            lambda free: "kernel.operator(size) multiplies by it without storing it",
            self.device,
        )
        pixels = open_grid(size, self.device)
        line, *others = open_grid(size, self.device, len(size))
        values = torch.empty((*size, *size), dtype=self.dtype, device=self.device)
        for start in range(0, size[0], lines):
            block = slice(start, start + lines)
            values[block] = self.entries([line[block], *others], pixels, size)
        return values


@dataclass(frozen=True, eq=False)
class Periodic(Storage):
    """K(x, x + u) = near(x mod period, u) + far(x mod p, (x + u) mod p), where near vanishes beyond the radius.

    Attributes:
        near: on any torus on which no displacement up to the radius wraps.
        far: table whose size is its period (all ones where far is one number), or None for 0.
        radius: an entry an axis.
    """

    @property
    def size(self) -> None:
        """Every multiple of the period is served."""
        return None

    def entries(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See ``Storage.entries``."""
        displacement = displacement_of(first, second, size)
        values = self.near.within(self.radius, displacement, first)[0]
        if self.far is not None:
            values += self.far.lookup(displacement, first)[0]
        return values

    def operator(self, size: tuple[int, ...], dtype: torch.dtype) -> Operator:
        """A strided correlation and a map between phases."""
        far = _no_far_part(self) if self.far is None else _between_phases(self.far)
        stationary = self.stationary(size)
        return PeriodicOperator(self.near, far, self.radius, dtype, size, self.lookup(size), stationary)

    def with_tables(self, tables: Mapping[str, Table]) -> Periodic:
        """See ``Storage.with_tables``."""
        return Periodic(tables["near"], tables.get("far"), self.radius)


@dataclass(frozen=True, eq=False)
class Dense(Storage):
    """A table of all displacements of one torus; its period is the torus, or divides it.

    Attributes:
        near: the table.
        radius: half of the torus: no displacement is longer.
    """

    far: None = field(init=False, default=None)
    radius: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", tuple(n // 2 for n in self.near.geometry.size))

    def entries(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See ``Storage.entries``."""
        return self.near.lookup([y - x for x, y in zip(first, second, strict=True)], first)[0]

    def operator(self, size: tuple[int, ...], dtype: torch.dtype) -> Operator:
        """A matrix if the period is the image, else one for each frequency of the cells.

        Raises:
            OutOfMemoryError: it would not fit.
        """
        stationary = self.stationary(size)
        if self.period == size:
            return DenseOperator(self.to(dtype, self.device).dense(size), stationary)
        return BlockCirculantOperator(self._blocks(size).to(dtype), self.lookup(size), stationary)

    def with_tables(self, tables: Mapping[str, Table]) -> Dense:
        """See ``Storage.with_tables``."""
        return Dense(tables["near"])

    def _blocks(self, size: tuple[int, ...]) -> Tensor:
        """K between a cell and every cell of the image, [*cells, *period, *period].

        Raises:
            OutOfMemoryError: it would not fit.
        """
        cells = [n // p for n, p in zip(size, self.period, strict=True)]
        entries = math.prod(cells) * math.prod(self.period) ** 2
        require_bytes(
            entries * (3 * self.dtype.itemsize + 3 * 8),
            f"the kernel of period {shape_text(self.period)} on {shape_text(size)} pixels as an operator",
            lambda free: "a stationary prior with a radius has a smaller one",
            self.device,
        )
        # Broadcast over [*cells, *phases, *phases].
        cell = open_grid(cells, self.device, 2 * len(size))
        first = open_grid(self.period, self.device, len(size))
        second = open_grid(self.period, self.device)
        other = [b + m * p for b, m, p in zip(second, cell, self.period, strict=True)]
        return self.entries(first, other, size)


@dataclass(frozen=True, eq=False)
class Windowed(Storage):
    """A table of the displacements inside a window; K is 0 for others.

    Attributes:
        near: the table; its geometry is a ``Window``.
        radius: the longest displacement along each axis.
    """

    far: None = field(init=False, default=None)
    radius: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", tuple(r - 1 for r in self.window.reach))

    @property
    def window(self) -> Window:
        """Which displacements there are."""
        window = self.near.geometry
        assert isinstance(window, Window)
        return window

    def entries(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See ``Storage.entries``."""
        return self.near.within(self.radius, displacement_of(first, second, size), first)[0]

    def operator(self, size: tuple[int, ...], dtype: torch.dtype) -> Operator:
        """A stencil; where the period is shorter than the image, a strided correlation."""
        lookup = self.lookup(size)
        if self.period == size:
            return StencilOperator(self.near.values[0], self.window.offsets, lookup, dtype)
        far, stationary = _no_far_part(self), self.stationary(size)
        return PeriodicOperator(self.near, far, self.radius, dtype, size, lookup, stationary)

    def with_tables(self, tables: Mapping[str, Table]) -> Windowed:
        """See ``Storage.with_tables``."""
        return Windowed(tables["near"])


def of_tables(tables: Mapping[str, Table], radius: tuple[int, ...], size: tuple[int, ...] | None) -> Storage:
    """The form that a file's facts describe.

    Raises:
        ValueError: the facts contradict each other.
    """
    near, far = tables["near"], tables.get("far")
    geometry = near.geometry
    if size is None:
        storage: Storage = Periodic(near, far, radius)
        if isinstance(geometry, Window) or any(n < 2 * r + 1 for n, r in zip(geometry.size, radius, strict=True)):
            raise ValueError(f"expected a table on which no displacement up to {radius} wraps, got {geometry}")
        if far is not None and any(p % q for p, q in zip(geometry.period, far.geometry.size, strict=True)):
            raise ValueError(f"expected a far part whose size divides {geometry.period}, got {far.geometry.size}")
        return storage
    storage = Windowed(near) if isinstance(geometry, Window) else Dense(near)
    if far is not None:
        raise ValueError("expected no far part in a kernel of one size")
    if size != storage.size:
        raise ValueError(f"expected a size of {storage.size}, got {size}")
    if radius != storage.radius:
        raise ValueError(f"expected a radius of {storage.radius}, got {radius}")
    return storage


def displacement_of(first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> list[Tensor]:
    """The shortest displacement from each pixel to the other, along each axis."""
    displacement = []
    for x, y, n in zip(first, second, size, strict=True):
        u = (y - x) % n
        displacement.append(torch.where(u > n // 2, u - n, u))
    return displacement


def _mean_over_positions(table: Table) -> Table:
    ndim = table.geometry.ndim
    means = table.values.mean(tuple(range(1 + ndim, 1 + 2 * ndim)), keepdim=True, dtype=torch.float64)
    return Table(means, replace(table.geometry, period=(1,) * ndim))


def _between_phases(far: Table) -> Tensor:
    """The far part between pairs of phases, [*p, *p]."""
    period = far.geometry.period
    first, second = open_grid(period, far.values.device, len(period)), open_grid(period, far.values.device)
    return far.lookup([y - x for x, y in zip(first, second, strict=True)], first)[0]


def _no_far_part(storage: Storage) -> Tensor:
    """Zero between all phases."""
    return torch.zeros((1,) * (2 * len(storage.period)), dtype=storage.dtype, device=storage.device)
