"""The finished kernel between the pixels of an image, as a user holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.checks import as_device, as_precision, as_size, shape_text
from torch_cntk._internal.grids import open_grid
from torch_cntk._internal.memory import allocating
from torch_cntk.covariance import Table
from torch_cntk.kernels import files
from torch_cntk.kernels.storage import Storage
from torch_cntk.operators.base import Operator

__all__ = ["Kernel", "Rebuild", "read"]

Rebuild = Callable[[tuple[int, ...]], "Kernel | None"]
"""Gives the kernel of a size so small that displacements wrap, or None where it cannot. It can be pickled."""


@dataclass(frozen=True, eq=False, repr=False)
class Kernel:
    """K(x, x') between the pixels x, x' of an image, wrapping around at its edges.

    A kernel of a stationary prior serves every size that is a multiple of its period; others have one size. All
    channels of an image share one kernel. Kernels can be pickled and copied.

    Attributes:
        storage: the numbers; ``Periodic``, ``Dense`` or ``Windowed``.
        origin: descriptions of the network and the prior it came from, as JSON can hold them.
        rebuild: see ``Rebuild``; None if nothing can.
    """

    storage: Storage
    origin: Mapping[str, Any] = field(default_factory=dict)
    rebuild: Rebuild | None = None
    _wrapped: dict[tuple[int, ...], Kernel] = field(default_factory=dict, init=False)

    @property
    def near(self) -> Table:
        """The stored numbers of all displacements up to the radius."""
        return self.storage.near

    @property
    def far(self) -> Table | None:
        """What is added at all displacements, or None for 0."""
        return self.storage.far

    @property
    def radius(self) -> tuple[int, ...]:
        """Beyond it K depends on the two pixels' phases only, or is 0; an entry an axis."""
        return self.storage.radius

    @property
    def size(self) -> tuple[int, ...] | None:
        """The only size that the kernel serves, or None for every multiple of the period."""
        return self.storage.size

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.period)

    @property
    def period(self) -> tuple[int, ...]:
        """K is invariant to joint shifts by this many pixels; the image size for a dense kernel."""
        return self.storage.period

    @property
    def dtype(self) -> torch.dtype:
        """Of the stored numbers."""
        return self.storage.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.storage.device

    @property
    def nbytes(self) -> int:
        """Bytes of the stored numbers."""
        return sum(table.nbytes for table in self.storage.tables.values())

    @property
    def requires_grad(self) -> bool:
        """Whether the numbers have gradients: by an option of a layer or a prior, or by the features of one."""
        return any(table.values.requires_grad for table in self.storage.tables.values())

    def detach(self) -> Kernel:
        """The same numbers without gradients; itself if it has none."""
        if not self.requires_grad:
            return self
        tables = {name: Table(t.values.detach(), t.geometry) for name, t in self.storage.tables.items()}
        rebuild = None if self.rebuild is None else _Detached(self.rebuild)
        return Kernel(self.storage.with_tables(tables), self.origin, rebuild)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles and copies hold numbers alone."""
        own = self.detach()
        wrapped = {size: kernel.detach() for size, kernel in self._wrapped.items()}
        return {**self.__dict__, "storage": own.storage, "rebuild": own.rebuild, "_wrapped": wrapped}

    def __repr__(self) -> str:
        serves = "any multiple of the period" if self.size is None else shape_text(self.size)
        return (
            f"Kernel(period={self.period}, radius={self.radius}, size={serves}, "
            f"dtype={str(self.dtype).removeprefix('torch.')}, nbytes={self.nbytes:,})"
        )

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Kernel:
        """The same kernel in another precision or on another device; itself if nothing changes.

        Raises:
            TypeError: the dtype is no floating point type, or the device none.
            ValueError: torch has no such device here.
        """
        dtype, device = as_precision(dtype or self.dtype), as_device(device or self.device)
        if (dtype, device) == (self.dtype, self.device):
            return self
        rebuild = None if self.rebuild is None else _Converted(self.rebuild, dtype, device)
        return Kernel(self.storage.to(dtype, device), self.origin, rebuild)

    def rebuilt_by(self, rebuild: Rebuild) -> Kernel:
        """The same kernel, with what makes those of sizes on which displacements wrap."""
        return replace(self, rebuild=rebuild)

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
        given = self.size if size is None else size
        if given is None:
            raise ValueError("this kernel serves many sizes: expected size, such as (256, 256), got None")
        return self.check_size(given)

    def at(self, pixel: tuple[int, ...], other: tuple[int, ...], size: tuple[int, ...] | None = None) -> float:
        """K(pixel, other) in an image of ``size`` (not needed if the kernel has one).

        Raises:
            TypeError: a pixel or the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            IndexError: a pixel lies outside the image.
        """
        size = self._default_size(size)
        first, second = self._pixel(pixel, size), self._pixel(other, size)
        return float(self.on(size).detach().storage.entries(first, second, size))

    @allocating("a row of the kernel")
    def row(self, pixel: tuple[int, ...], size: tuple[int, ...] | None = None) -> Tensor:
        """K(pixel, x) for all pixels x, [*size]: which pixels fill this one.

        Raises:
            TypeError: the pixel or the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            IndexError: the pixel lies outside the image.
        """
        size = self._default_size(size)
        return self.on(size).storage.entries(self._pixel(pixel, size), open_grid(size, self.device), size)

    @allocating("the dense kernel")
    def dense(self, size: tuple[int, ...] | None = None) -> Tensor:
        """All of K, [*size, *size].

        Raises:
            TypeError: the size is no tuple of integers.
            ValueError: the kernel does not serve the size.
            OutOfMemoryError: it would not fit; the message says how many bytes it takes.
        """
        size = self._default_size(size)
        return self.on(size).storage.dense(size)

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
            ValueError: the kernel does not serve the size, or has gradients, which an operator would not pass on.
            OutOfMemoryError: the kernel is dense and its matrix would not fit.
        """
        size = self._default_size(size)
        if self.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "expected a kernel without gradients, as an operator passes none on to it: kernel.dense(size) and "
                "inpaint do; kernel.detach() has the same numbers without"
            )
        kernel = self.on(size).detach().to(device=device)
        return kernel.storage.operator(size, as_precision(dtype or kernel.dtype))

    def stationary_average(self) -> Kernel:
        """The mean of K(a, a + u) over all positions a: a kernel of period 1."""
        return Kernel(self.storage.stationary_average())

    def without_far(self) -> Kernel:
        """The near part alone: what is added at all displacements is left out."""
        return Kernel(self.storage.with_tables({"near": self.near}))

    def _pixel(self, pixel: tuple[int, ...], size: tuple[int, ...]) -> list[Tensor]:
        if len(pixel) != len(size) or not all(0 <= x < n for x, n in zip(pixel, size, strict=True)):
            raise IndexError(f"expected a pixel inside {shape_text(size)}, got {tuple(pixel)}")
        return [torch.tensor(int(x), device=self.device) for x in pixel]

    def save(self, path: str | Path, *, compact: bool = False) -> None:
        """Write the kernel to a safetensors file, with its origin, the format's version and a checksum.

        Args:
            path: of the file.
            compact: write the independent entries only, compressed: up to some 30 times fewer bytes, for a fraction
                of a second when the file is read. Entries that are equal by symmetry come back equal to the bit.

        Raises:
            ValueError: this is a rank's share of a kernel.
            FileNotFoundError: the folder does not exist.
            OSError: the file cannot be written; nothing is left behind then.
        """
        files.write(path, self.detach().storage, self.origin, compact=compact)

    @staticmethod
    def load(path: str | Path) -> Kernel:
        """Read a kernel that ``save`` wrote.

        ``torch_cntk.load_kernel`` knows kernels by name too, and serves images so small that displacements wrap.

        Args:
            path: of the file.

        Returns:
            the kernel, on the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is truncated, damaged, no kernel file, or of a newer format.
        """
        return read(path)


@dataclass(frozen=True)
class _Converted:
    """Rebuilds a kernel as another does, then takes it to a precision and a device."""

    rebuild: Rebuild
    dtype: torch.dtype
    device: torch.device

    def __call__(self, size: tuple[int, ...]) -> Kernel | None:
        kernel = self.rebuild(size)
        return None if kernel is None else kernel.to(self.dtype, self.device)


@dataclass(frozen=True)
class _Detached:
    """Rebuilds a kernel as another does, without gradients."""

    rebuild: Rebuild

    def __call__(self, size: tuple[int, ...]) -> Kernel | None:
        with torch.no_grad():
            return self.rebuild(size)


def read(path: str | Path) -> Kernel:
    """Read what ``Kernel.save`` wrote; it serves sizes on which displacements wrap once ``rebuilt_by`` is called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not a kernel file, or of a newer format.
        OutOfMemoryError: what the file holds would not fit.
    """
    return Kernel(*files.read(path))
