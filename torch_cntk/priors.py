"""Feature priors: what the network gets as input.

Each prior gives both a sample for the finite network and the covariance Sigma_0 between pixels for the kernel, with
the convention Sigma_0(x, x') = mean over channels of E[Z_c(x) Z_c(x')].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor as _Tensor

from torch_cntk._checks import as_size, finite_number, positive_int
from torch_cntk.covariance import Extent, Features, Geometry, Lattice, Stored, Table

__all__ = ["Normal", "Prior", "Tensor", "Uniform", "from_description"]


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

    @abstractmethod
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
        """

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
        geometry = Geometry(size, (1,) * ndim, reflective=True)
        values = torch.zeros((2, *geometry.box, *geometry.period), dtype=torch.float64, device=device)
        values[0] = mean**2
        values[(0, *(0,) * (2 * ndim))] = second_moment
        return Stored(Table(values, geometry))

    def extent(self, ndim: int) -> Extent | None:
        """Radius 0."""
        return Extent.start(ndim)

    def _options(self, size: tuple[int, ...] | None, channels: int) -> tuple[int, ...]:
        if size is None:
            raise ValueError(f"{self!r} has no size of its own: expected size, such as (256, 256), got None")
        return (positive_int(channels, "channels"), *as_size(size))


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

    def sample(
        self,
        channels: int,
        size: tuple[int, ...] | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> _Tensor:
        """Draw [channels, *size]; see ``Prior.sample``."""
        shape = self._options(size, channels)
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

    def sample(
        self,
        channels: int,
        size: tuple[int, ...] | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> _Tensor:
        """Draw [channels, *size]; see ``Prior.sample``."""
        shape = self._options(size, channels)
        return self.mean + self.std * torch.randn(shape, generator=generator, dtype=dtype, device=device)

    def description(self) -> dict[str, Any]:
        """Name and moments."""
        return {"prior": "Normal", "mean": self.mean, "std": self.std}

    def __repr__(self) -> str:
        return f"Normal({self.mean:g}, {self.std:g})"


class Tensor(Prior):
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

    def sample(
        self,
        channels: int,
        size: tuple[int, ...] | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> _Tensor:
        """Z itself; see ``Prior.sample``.

        Raises:
            ValueError: the channels or the size are not those of Z.
        """
        if (channels, *(size or self.features.shape[1:])) != tuple(self.features.shape):
            got = (channels, *(size or ()))
            raise ValueError(f"expected channels and size of Z, {tuple(self.features.shape)}, got {got}")
        return self.features.to(dtype=dtype, device=device)

    def covariance(self, size: tuple[int, ...], device: torch.device | None = None) -> Lattice:
        """Mean over channels of Z_c(x) Z_c(x').

        Raises:
            ValueError: ``size`` is not that of Z.
        """
        if size != self.size:
            raise ValueError(f"expected the prior's size {self.size}, got {size}")
        return Features(self.features.to(device=device))

    def description(self) -> None:
        """None: the tensor is not kept with a kernel."""

    def __repr__(self) -> str:
        return f"Tensor({tuple(self.features.shape)})"


_BY_NAME: dict[str, type[Prior]] = {"Uniform": Uniform, "Normal": Normal}


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
