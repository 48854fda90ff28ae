"""Feature priors: what the network gets as input.

Each prior gives both a sample for the finite network and the covariance Sigma_0 between pixels for the kernel, with
the convention Sigma_0(x, x') = mean over channels of E[Z_c(x) Z_c(x')].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor as _Tensor

from torch_cntk._checks import as_size, finite_number, positive_int, shape_text
from torch_cntk.covariance import Extent, Features, Geometry, Lattice, Stored, Table

__all__ = ["Identity", "Meshgrid", "Normal", "Prior", "Stationary", "Tensor", "Uniform", "from_description"]


class Prior(ABC):
    """A distribution of input images.

    Attributes:
        size: the only image size that the prior exists for, or None if it exists for any.
        device: where its kernel is computed unless told otherwise.
        dtype: that its kernel is stored in unless told otherwise.
    """

    size: tuple[int, ...] | None = None
    device: torch.device | None = None
    dtype: torch.dtype = torch.float64

    def sample(
        self,
        channels: int,
        size: tuple[int, ...] | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> _Tensor:
        """Draw the input of a finite network.

        Args:
            channels: the network's input channels.
            size: spatial size; may be left out where the prior has one.
            generator: source of randomness; torch's global one by default.
            dtype: of the sample.
            device: of the sample.

        Returns:
            [channels, *size].

        Raises:
            TypeError: the channels or the size are no integers.
            ValueError: the size is needed and missing, or the prior does not have these channels or this size.
        """
        size = self.size if size is None else as_size(size)
        if size is None:
            raise ValueError(f"{self!r} has no size of its own: expected size, such as (256, 256), got None")
        return self._draw((positive_int(channels, "channels"), *size), generator, dtype, device)

    @abstractmethod
    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        """A sample of ``shape`` [channels, *size]; dtype and device are the prior's own choice where they are None."""

    @abstractmethod
    def covariance(self, size: tuple[int, ...], device: torch.device | None = None) -> Lattice:
        """Sigma_0 (and Theta = 0) on a torus of ``size`` pixels, an entry of ``size`` an axis."""

    def extent(self, ndim: int) -> Extent | None:
        """Period and radius of Sigma_0 in ``ndim`` dimensions, or None if it is not stationary."""
        return None

    @abstractmethod
    def description(self) -> dict[str, Any] | None:
        """What rebuilds the prior (see ``from_description``), or None where that would hold the data itself."""


class _Independent(Prior):
    """Pixels and channels i.i.d.; the subclass knows its moments."""

    _moments: tuple[float, float]  # (mean, second moment)

    def covariance(self, size: tuple[int, ...], device: torch.device | None = None) -> Lattice:
        """The squared mean everywhere, the second moment at displacement zero."""
        mean, second_moment = self._moments
        ndim = len(size)
        geometry = Geometry(size, (1,) * ndim, reflective=True, square=ndim > 1 and size[0] == size[1])
        values = torch.zeros((2, *geometry.box, *geometry.period), dtype=torch.float64, device=device)
        values[0] = mean**2
        values[(0, *(0,) * (2 * ndim))] = second_moment
        return Stored(Table(values, geometry))

    def extent(self, ndim: int) -> Extent | None:
        """Radius 0."""
        return Extent.start(ndim)


class Uniform(_Independent):
    """Independent U[low, high] in every pixel and channel; the deep image prior takes U[0, 0.1].

    Raises:
        TypeError: a bound is no number.
        ValueError: ``low`` is not below ``high``.
    """

    def __init__(self, low: float = 0.0, high: float = 0.1) -> None:
        self.low, self.high = finite_number(low, "low"), finite_number(high, "high")
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got low={low} and high={high}")
        mean = (self.low + self.high) / 2
        self._moments = mean, (self.low**2 + self.low * self.high + self.high**2) / 3

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        unit = torch.rand(shape, generator=generator, dtype=dtype, device=device)
        return self.low + (self.high - self.low) * unit

    def description(self) -> dict[str, Any]:
        """Name and bounds."""
        return {"prior": "Uniform", "low": self.low, "high": self.high}

    def __repr__(self) -> str:
        return f"Uniform({self.low:g}, {self.high:g})"


class Normal(_Independent):
    """Independent N(mean, std^2) in every pixel and channel.

    Raises:
        TypeError: a parameter is no number.
        ValueError: ``std`` is not positive.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = finite_number(mean, "mean"), finite_number(std, "std", minimum=0)
        if self.std == 0:
            raise ValueError("expected std > 0, got 0: all pixels would be the same")
        self._moments = self.mean, self.mean**2 + self.std**2

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        return self.mean + self.std * torch.randn(shape, generator=generator, dtype=dtype, device=device)

    def description(self) -> dict[str, Any]:
        """Name and moments."""
        return {"prior": "Normal", "mean": self.mean, "std": self.std}

    def __repr__(self) -> str:
        return f"Normal({self.mean:g}, {self.std:g})"


class _Given(Prior):
    """A fixed input; the subclass gives it for each size."""

    @abstractmethod
    def _features(self, size: tuple[int, ...]) -> _Tensor:
        """Z, [channels, *size]."""

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        channels, *size = shape
        features = self._features(tuple(size))
        if channels != len(features):
            raise ValueError(f"expected the {len(features)} channels of {self!r}, got {channels}")
        return features.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def covariance(self, size: tuple[int, ...], device: torch.device | None = None) -> Lattice:
        """Mean over channels of Z_c(x) Z_c(x')."""
        return Features(self._features(size).to(device=device))


class Tensor(_Given):
    """A given input Z, [channels, *size], floating point. Its kernel's period is the image size: it is dense.

    Raises:
        TypeError: Z is no floating point tensor.
        ValueError: Z has no spatial dimension, no entries, or entries that are not finite.
    """

    def __init__(self, features: _Tensor) -> None:
        if not isinstance(features, torch.Tensor) or not features.is_floating_point():
            got = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
            raise TypeError(f"expected a floating point tensor [channels, *size], got {got}")
        if features.ndim < 2 or features.numel() == 0:
            raise ValueError(f"expected a tensor [channels, *size] with entries, got shape {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("expected finite features, got NaN or infinity among them")
        self.features = features
        self.size = tuple(features.shape[1:])
        self.device = features.device
        self.dtype = features.dtype

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        if size != self.size:
            raise ValueError(f"expected the prior's size {self.size}, got {size}")
        return self.features

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        return super()._draw(shape, generator, dtype or self.dtype, device or self.device)

    def description(self) -> None:
        """None: the tensor is not kept with a kernel."""

    def __repr__(self) -> str:
        return f"Tensor({tuple(self.features.shape)})"


class Identity(_Given):
    """The identity matrix as an image of one channel: 1 where all coordinates are equal, else 0. Dense kernels."""

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        first, *others = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
        equal = torch.ones(size, dtype=torch.bool)
        for coordinate in others:
            equal &= coordinate == first
        return equal.double()[None]

    def description(self) -> dict[str, Any]:
        """The name."""
        return {"prior": "Identity"}

    def __repr__(self) -> str:
        return "Identity()"


class Meshgrid(_Given):
    """The deep image prior's coordinates: one channel an axis, 0 at the first pixel and 1 at the last.

    Its kernels are dense. As the deep image prior has it, the first channel varies along the last axis (x, then y).
    """

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        ramps = [torch.linspace(0, 1, n, dtype=torch.float64) for n in size]
        return torch.stack(torch.meshgrid(*ramps, indexing="ij")).flip(0)

    def description(self) -> dict[str, Any]:
        """The name."""
        return {"prior": "Meshgrid"}

    def __repr__(self) -> str:
        return "Meshgrid()"


class Stationary(Prior):
    """Gaussian features whose covariance depends on the displacement between pixels only: Theorem 2 of the paper.

    Args:
        psi: takes displacements u, one float64 tensor an axis (they broadcast; -n/2 < u <= n/2 on a torus of n pixels),
            and gives the covariance, psi(u) = psi(-u). It must be positive semi-definite on the torus.
        radius: psi is constant beyond this displacement along any axis, if it is: the kernel then serves every image
            size. By default it belongs to one.

    Raises:
        TypeError: psi is not callable, or the radius no integer.
        ValueError: the radius is below 0.
    """

    def __init__(self, psi: Callable[..., _Tensor], radius: int | None = None) -> None:
        if not callable(psi):
            raise TypeError(f"expected psi as a function of the displacements, got {type(psi).__name__}")
        if radius is not None and (isinstance(radius, bool) or not isinstance(radius, int)):
            raise TypeError(f"expected radius to be an integer or None, got {radius!r}")
        if radius is not None and radius < 0:
            raise ValueError(f"expected radius to be at least 0, got {radius}")
        self.psi = psi
        self.radius = radius

    def extent(self, ndim: int) -> Extent | None:
        """Of the given radius."""
        return None if self.radius is None else Extent.start(ndim, self.radius)

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        # White noise, filtered by the root of the spectrum.
        size = shape[1:]
        axes = tuple(range(-len(size), 0))
        spectrum = torch.fft.rfftn(self._values(size)).real.clamp_min(0)
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        coloured: _Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * spectrum.sqrt(), s=size, dim=axes)
        return coloured.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def _values(self, size: tuple[int, ...]) -> _Tensor:
        """Psi on the torus, [*size].

        Raises:
            ValueError: psi is not symmetric, finite and positive semi-definite there.
        """
        displacements = []
        for axis, n in enumerate(size):
            u = torch.arange(n, dtype=torch.float64)
            u = torch.where(u > n // 2, u - n, u)
            displacements.append(u.reshape([-1 if k == axis else 1 for k in range(len(size))]))
        values = torch.as_tensor(self.psi(*displacements), dtype=torch.float64).expand(size)
        if not bool(torch.isfinite(values).all()):
            raise ValueError("expected finite values of psi, got NaN or infinity among them")
        around = tuple(range(len(size)))
        mirrored = values.flip(around).roll((1,) * len(size), around)
        largest = float(values.abs().max())
        if float((values - mirrored).abs().max()) > 1e-12 * largest:
            raise ValueError("expected psi(u) = psi(-u) on the torus, got a function that is not symmetric")
        spectrum = torch.fft.fftn(values).real
        if float(spectrum.min()) < -1e-10 * float(spectrum.max()):
            raise ValueError(
                f"expected a positive semi-definite psi on {shape_text(size)} pixels, got the eigenvalue "
                f"{float(spectrum.min()):.3g} (the largest is {float(spectrum.max()):.3g})"
            )
        return values

    def covariance(self, size: tuple[int, ...], device: torch.device | None = None) -> Lattice:
        """Psi, of period 1."""
        values = self._values(size)
        even = all(torch.equal(values, values.flip(axis).roll(1, axis)) for axis in range(len(size)))
        square = even and len(size) > 1 and torch.equal(values, values.transpose(0, 1))
        geometry = Geometry(size, (1,) * len(size), reflective=even, square=square)
        stored = values[tuple(slice(n) for n in geometry.box)].reshape(*geometry.box, *geometry.period)
        return Stored(Table(torch.stack((stored, torch.zeros_like(stored))).to(device=device), geometry))

    def description(self) -> None:
        """None: a function is not kept with a kernel."""

    def __repr__(self) -> str:
        return f"Stationary({getattr(self.psi, '__name__', 'psi')})"


_BY_NAME: dict[str, type[Prior]] = {
    "Identity": Identity,
    "Meshgrid": Meshgrid,
    "Normal": Normal,
    "Uniform": Uniform,
}


def from_description(description: Mapping[str, Any]) -> Prior:
    """Rebuild a prior from ``Prior.description()``.

    Raises:
        ValueError: the description names no prior that can be rebuilt.
    """
    options = dict(description)
    name = options.pop("prior", None)
    if name not in _BY_NAME:
        raise ValueError(f"expected one of the priors {sorted(_BY_NAME)}, got {name!r}")
    return _BY_NAME[name](**options)
