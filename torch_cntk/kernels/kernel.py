"""The finished kernel between the pixels of an image, as a user holds it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from torch_cntk._internal.checks import as_size, shape_text
from torch_cntk._internal.files import writing
from torch_cntk._internal.grids import open_grid
from torch_cntk._internal.memory import allocating, require_bytes
from torch_cntk.covariance import Geometry, Table, Window
from torch_cntk.kernels.compression import compress, decompress
from torch_cntk.kernels.packing import pack, unpack
from torch_cntk.operators.base import BlockCirculantOperator, DenseOperator, Operator, PeriodicOperator
from torch_cntk.operators.stencil import StencilOperator

__all__ = ["FORMAT_VERSION", "Kernel", "from_table", "from_window", "read"]

FORMAT_VERSION = 1
"""Of the files that ``Kernel.save`` writes; files of a newer format are refused."""

_METADATA = "torch_cntk kernel"
"""The only key of a file's metadata: their order is not fixed, and equal kernels are to give equal files."""

_DENSE_BLOCK = 1 << 22
"""Entries of the dense kernel that are looked up at once: their indices take many times their bytes."""


class Kernel:
    """K(x, x') between the pixels x, x' of an image, wrapping around at its edges.

    It is stored as K(x, x + u) = near(x mod period, u) + far(x mod p, (x + u) mod p), where near vanishes beyond the
    radius. A kernel of a stationary prior serves every size that is a multiple of its period; others have one size.
    All channels of an image share one kernel.

    Args:
        near: table of one channel on any torus on which no displacement up to the radius wraps.
        far: table of one channel whose size is its period (all ones where far is one number), or None for 0.
        radius: an entry an axis.
        size: the only size that the kernel serves, or None.
        origin: descriptions of the network and the prior it came from, as JSON can hold them.
        rebuild: gives the kernel of a size so small that displacements wrap, or None.
    """

    def __init__(
        self,
        near: Table,
        far: Table | None,
        radius: tuple[int, ...],
        *,
        size: tuple[int, ...] | None = None,
        origin: Mapping[str, Any] | None = None,
        rebuild: Callable[[tuple[int, ...]], Kernel | None] | None = None,
    ) -> None:
        self.near = near
        self.far = far
        self.radius = radius
        self.size = size
        self.origin = dict(origin or {})
        self.rebuild = rebuild
        self._wrapped: dict[tuple[int, ...], Kernel] = {}

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.period)

    @property
    def period(self) -> tuple[int, ...]:
        """K is invariant to joint shifts by this many pixels; the image size for a dense kernel."""
        return self.near.geometry.period

    @property
    def dtype(self) -> torch.dtype:
        """Of the stored numbers."""
        return self.near.values.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.near.values.device

    @property
    def nbytes(self) -> int:
        """Bytes of the stored numbers."""
        return self.near.nbytes + (0 if self.far is None else self.far.nbytes)

    def __repr__(self) -> str:
        serves = "any multiple of the period" if self.size is None else shape_text(self.size)
        return (
            f"Kernel(period={self.period}, radius={self.radius}, size={serves}, "
            f"dtype={str(self.dtype).removeprefix('torch.')}, nbytes={self.nbytes:,})"
        )

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Kernel:
        """The same kernel in another precision or on another device; itself if nothing changes."""
        dtype, device = dtype or self.dtype, torch.device(device or self.device)
        if (dtype, device) == (self.dtype, self.device):
            return self
        rebuild = self.rebuild

        def rebuild_there(size: tuple[int, ...]) -> Kernel | None:
            kernel = rebuild(size) if rebuild is not None else None
            return None if kernel is None else kernel.to(dtype, device)

        return Kernel(
            Table(self.near.values.to(dtype=dtype, device=device), self.near.geometry),
            None if self.far is None else Table(self.far.values.to(dtype=dtype, device=device), self.far.geometry),
            self.radius,
            size=self.size,
            origin=self.origin,
            rebuild=rebuild_there,
        )

    def check_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``size`` if the kernel serves it.

        Raises:
            TypeError: ``size`` is no tuple of integers.
            ValueError: it is not a size of this kernel.
        """
        size = as_size(size, "size", self.ndim)
        if self.size is not None and size != self.size:
            raise ValueError(f"this kernel is for images of {shape_text(self.size)} pixels, got {shape_text(size)}")
        if any(n % p for n, p in zip(size, self.period, strict=True)):
            raise ValueError(
                f"expected a size that is a multiple of the period {shape_text(self.period)}, got {shape_text(size)}"
            )
        return size

    def on(self, size: tuple[int, ...]) -> Kernel:
        """The kernel for images of ``size``: itself, or where displacements would wrap, that of the small torus.

        Raises:
            TypeError: ``size`` is no tuple of integers.
            ValueError: the kernel does not serve it.
        """
        size = self.check_size(size)
        if self.size is not None or all(n >= 2 * r + 1 for n, r in zip(size, self.radius, strict=True)):
            return self
        if size not in self._wrapped:
            kernel = None if self.rebuild is None else self.rebuild(size)
            if kernel is None:
                least = shape_text([2 * r + 1 for r in self.radius])
                raise ValueError(
                    f"displacements wrap on {shape_text(size)} pixels (fewer than {least}) and this kernel does not "
                    "know its network; make it with net.kernel(prior)"
                )
            self._wrapped[size] = kernel
        return self._wrapped[size]

    def _default_size(self, size: tuple[int, ...] | None) -> tuple[int, ...]:
        if size is None and self.size is None:
            raise ValueError("this kernel serves many sizes: expected size, such as (256, 256), got None")
        return self.check_size(self.size if size is None else size)  # type: ignore[arg-type]

    def _values(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """K between pixels given by an integer tensor an axis each, which broadcast."""
        displacement = []
        for x, y, n in zip(first, second, size, strict=True):
            u = (y - x) % n
            displacement.append(torch.where(u > n // 2, u - n, u))
        values = self.near.within(self.radius, displacement, first)[0]
        if self.far is not None:
            values += self.far.lookup(displacement, first)[0]
        return values

    def at(self, pixel: tuple[int, ...], other: tuple[int, ...], size: tuple[int, ...] | None = None) -> float:
        """K(pixel, other) in an image of ``size`` (not needed if the kernel has one).

        Raises:
            TypeError: a pixel or the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            IndexError: a pixel lies outside the image.
        """
        size = self._default_size(size)
        first, second = self._pixel(pixel, size), self._pixel(other, size)
        return float(self.on(size)._values(first, second, size))

    @allocating("a row of the kernel")
    def row(self, pixel: tuple[int, ...], size: tuple[int, ...] | None = None) -> Tensor:
        """K(pixel, x) for all pixels x, [*size]: which pixels fill this one.

        Raises:
            TypeError: the pixel or the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            IndexError: the pixel lies outside the image.
        """
        size = self._default_size(size)
        return self.on(size)._values(self._pixel(pixel, size), open_grid(size, self.device), size)

    @allocating("the dense kernel")
    def dense(self, size: tuple[int, ...] | None = None) -> Tensor:
        """All of K, [*size, *size].

        Raises:
            TypeError: the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            OutOfMemoryError: it would not fit; the message says how many bytes it takes.
        """
        size = self._default_size(size)
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
        kernel, pixels = self.on(size), open_grid(size, self.device)
        line, *others = open_grid(size, self.device, self.ndim)
        values = torch.empty((*size, *size), dtype=self.dtype, device=self.device)
        for start in range(0, size[0], lines):
            block = slice(start, start + lines)
            values[block] = kernel._values([line[block], *others], pixels, size)
        return values

    @allocating("the kernel as an operator")
    def operator(
        self,
        size: tuple[int, ...] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Operator:
        """K as a linear map on images of ``size``: ``operator @ w`` for w of shape [..., *size].

        Args:
            size: of the images; not needed if the kernel has one.
            dtype: of the images; the kernel's by default.
            device: of the images; the kernel's by default.

        Returns:
            a strided correlation; for kernels of one size a matrix (if the period is the image) or one matrix for each
            frequency; for windowed kernels a stencil, which multiplies images of float32 even if it is kept in float16.

        Raises:
            TypeError: the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            OutOfMemoryError: the kernel is dense and its matrix would not fit.
        """
        size = self._default_size(size)
        kernel = self.on(size).to(device=device)
        dtype = dtype or kernel.dtype

        def lookup(first: list[Tensor], second: list[Tensor]) -> Tensor:
            return kernel._values(first, second, size)

        window = kernel.near.geometry
        if isinstance(window, Window) and kernel.period == size:
            return StencilOperator(kernel.near.values[0], window.offsets, lookup, dtype)
        stationary = kernel.stationary_average().row((0,) * self.ndim, size)
        if kernel.size is not None and kernel.period != size and not isinstance(window, Window):
            return BlockCirculantOperator(kernel._blocks(size).to(dtype), lookup, stationary)
        if kernel.size is not None and not isinstance(window, Window):
            return DenseOperator(kernel.to(dtype).dense(size), stationary)
        return PeriodicOperator(
            kernel.near,
            kernel._far_matrix(),
            kernel.radius,
            dtype,
            size,
            lookup,
            stationary,
        )

    def _blocks(self, size: tuple[int, ...]) -> Tensor:
        """K between a cell and every cell of the image, [*cells, *period, *period]."""
        cells = [n // p for n, p in zip(size, self.period, strict=True)]
        entries = math.prod(cells) * math.prod(self.period) ** 2
        require_bytes(
            entries * (3 * self.dtype.itemsize + 3 * 8),
            f"the kernel of period {shape_text(self.period)} on {shape_text(size)} pixels as an operator",
            lambda free: "a stationary prior with a radius has a smaller one",
            self.device,
        )
        # Broadcast over [*cells, *phases, *phases].
        cell = open_grid(cells, self.device, 2 * self.ndim)
        first = open_grid(self.period, self.device, self.ndim)
        second = open_grid(self.period, self.device)
        other = [b + m * p for b, m, p in zip(second, cell, self.period, strict=True)]
        return self._values(first, other, size)

    def _far_matrix(self) -> Tensor:
        """The far part between pairs of phases, [*p, *p]."""
        ndim = self.ndim
        if self.far is None:
            return torch.zeros((1,) * (2 * ndim), dtype=self.dtype, device=self.device)
        period = self.far.geometry.period
        first, second = open_grid(period, self.device, ndim), open_grid(period, self.device)
        return self.far.lookup([y - x for x, y in zip(first, second, strict=True)], first)[0]

    def stationary_average(self) -> Kernel:
        """The mean of K(a, a + u) over all positions a: a kernel of period 1."""
        return Kernel(
            _mean_over_positions(self.near),
            None if self.far is None else _mean_over_positions(self.far),
            self.radius,
            size=self.size,
        )

    def _pixel(self, pixel: tuple[int, ...], size: tuple[int, ...]) -> list[Tensor]:
        if len(pixel) != len(size) or not all(0 <= x < n for x, n in zip(pixel, size, strict=True)):
            raise IndexError(f"expected a pixel inside {shape_text(size)}, got {tuple(pixel)}")
        return [torch.tensor(int(x), device=self.device) for x in pixel]

    def save(self, path: str | Path, *, compact: bool = False) -> None:
        """Write the kernel to a safetensors file, with its origin and the format's version in the metadata.

        Args:
            path: of the file.
            compact: write the independent entries only, compressed: up to some 30 times fewer bytes, for a fraction
                of a second when the file is read. Entries that are equal by symmetry come back equal to the bit.

        Raises:
            FileNotFoundError: the folder does not exist.
            OSError: the file cannot be written; nothing is left behind then.
        """
        tables = {"near": self.near} if self.far is None else {"near": self.near, "far": self.far}
        facts = {
            "version": FORMAT_VERSION,
            "radius": self.radius,
            "size": self.size,
            "origin": self.origin,
            "tables": {name: vars(table.geometry) for name, table in tables.items()},
            "compact": str(self.dtype).removeprefix("torch.") if compact else None,
        }
        tensors = {
            name: compress(pack(table)) if compact else table.values.contiguous() for name, table in tables.items()
        }
        with writing(path) as temporary:
            safetensors.torch.save_file(tensors, temporary, {_METADATA: json.dumps(facts)})


def _mean_over_positions(table: Table) -> Table:
    ndim = table.geometry.ndim
    means = table.values.mean(tuple(range(1 + ndim, 1 + 2 * ndim)), keepdim=True, dtype=torch.float64)
    return Table(means, replace(table.geometry, period=(1,) * ndim))


def read(path: str | Path) -> Kernel:
    """Read what ``Kernel.save`` wrote; it serves sizes on which displacements wrap once ``rebuild`` is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, not a kernel file, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no kernel file {path}")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if _METADATA not in metadata:
        raise ValueError(f"expected a file written by Kernel.save, got another safetensors file: {path}")
    try:
        facts = json.loads(metadata[_METADATA])
        version = int(facts["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a consistent kernel file: {error!r}") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"expected format version {FORMAT_VERSION} or older, got {version}: {path}; update torch_cntk")
    try:
        compact = facts.get("compact")
        tables = {name: _checked_table(tensors[name], entry, compact) for name, entry in facts["tables"].items()}
        near = tables["near"]
        radius = as_size([r + 1 for r in facts["radius"]], "radius", near.geometry.ndim)
        size = None if facts["size"] is None else tuple(facts["size"])
        if size not in (None, near.geometry.size):
            raise ValueError(f"expected a size of {near.geometry.size}, got {size}")
        if any(r - 1 > n // 2 for r, n in zip(radius, near.geometry.size, strict=True)):
            raise ValueError(f"expected a radius of at most half of {near.geometry.size}, got {facts['radius']}")
        return Kernel(near, tables.get("far"), tuple(r - 1 for r in radius), size=size, origin=facts["origin"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a consistent kernel file: {error!r}") from error


def _checked_table(values: Tensor, entry: Mapping[str, Any], compact: str | None) -> Table:
    facts = (tuple(entry["size"]), tuple(entry["period"]), bool(entry["reflective"]), bool(entry["square"]))
    geometry = Geometry(*facts) if "reach" not in entry else Window(*facts, tuple(entry["reach"]), entry["tapered"])
    if compact is not None:
        return unpack(decompress(values, _DTYPES[compact]), geometry)
    expected = (1, *geometry.box, *geometry.period)
    if tuple(values.shape) != expected:
        raise ValueError(f"expected a table of shape {expected}, got {tuple(values.shape)}")
    return Table(values, geometry)


_DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


def from_table(
    table: Table,
    *,
    radius: tuple[int, ...] | None,
    far: float | None,
    dtype: torch.dtype,
    origin: Mapping[str, Any],
    rebuild: Callable[[tuple[int, ...]], Kernel | None],
) -> Kernel:
    """Make a kernel of a finished table.

    Args:
        table: one channel.
        radius: beyond which the kernel depends on the phases only, and which the table exceeds on every axis; None for
            a kernel of one size.
        far: the number that was subtracted from the table so that it vanishes beyond the radius; None if that would
            take a number for each pair of phases (then the table is float64, and it is done here).
        dtype: of the kernel.
        origin: see ``Kernel``.
        rebuild: see ``Kernel``.

    Returns:
        the kernel; with a radius, for every multiple of the period.
    """
    geometry = table.geometry
    if radius is None:
        halves = tuple(n // 2 for n in geometry.size)
        return Kernel(Table(table.values.to(dtype), geometry), None, halves, size=geometry.size, origin=origin)
    if far is not None:
        ones = (1,) * geometry.ndim
        number = torch.full((1, *ones, *ones), far, dtype=dtype, device=table.values.device)
        far_table = Table(number, replace(geometry, size=ones, period=ones))
        return Kernel(table, far_table, radius, origin=origin, rebuild=rebuild)
    phases = _far_table(table, radius)
    displacement = open_grid(geometry.box, table.values.device, geometry.ndim)
    position = open_grid(geometry.period, table.values.device)
    near = table.values - phases.lookup(displacement, position)
    return Kernel(
        Table(near.to(dtype), geometry),
        Table(phases.values.to(dtype), phases.geometry),
        radius,
        origin=origin,
        rebuild=rebuild,
    )


def from_window(table: Table, origin: Mapping[str, Any]) -> Kernel:
    """Make the kernel of one size that is a table of one channel, whose geometry is a ``Window``, and 0 beyond."""
    window = table.geometry
    assert isinstance(window, Window)
    return Kernel(table, None, tuple(r - 1 for r in window.reach), size=window.size, origin=origin)


def _far_table(table: Table, radius: tuple[int, ...]) -> Table:
    """What the table holds beyond the radius, as a table on a torus of one period."""
    geometry = table.geometry
    period = geometry.period
    own = replace(geometry, size=period, period=period)
    # The same phases as in the first period, as many periods further on as it takes to be outside.
    displacement = [
        r + 1 + (u - r - 1) % p
        for u, p, r in zip(open_grid(own.box, table.values.device, own.ndim), period, radius, strict=True)
    ]
    position = open_grid(period, table.values.device)
    return Table(table.lookup(displacement, position), own)
