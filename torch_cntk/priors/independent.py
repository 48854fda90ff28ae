"""Priors of independent pixels: their kernels are small and serve every image size."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance import Extent, Geometry, Lattice, Stored, Table
from torch_cntk.covariance.patches import Number
from torch_cntk.priors.base import Prior

__all__ = ["Constant", "Normal", "Uniform", "White"]


class _Independent(Prior):
    """Pixels and channels i.i.d.; the subclass knows its moments."""

    @property
    @abstractmethod
    def _moments(self) -> tuple[Number, Number]:
        """Squared mean, and second moment."""

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """The squared mean everywhere, the second moment at displacement zero."""
        squared_mean, second_moment = self._moments
        ndim = len(size)
        geometry = Geometry(size, (1,) * ndim, reflective=True, square=ndim > 1 and size[0] == size[1])
        values = torch.zeros((2, *geometry.box, *geometry.period), dtype=torch.float64, device=device)
        values[0] = squared_mean
        values[(0, *(0,) * (2 * ndim))] = second_moment
        return Stored(Table(values, geometry))

    def extent(self, ndim: int) -> Extent | None:
        """Radius 0."""
        return Extent.start(ndim)


class Uniform(_Independent):
    """Independent U[low, high] in every pixel and channel; the deep image prior takes U[0, 0.1].

    A tensor of one number in the place of a bound passes gradients of the kernel on; so do the options of other priors.

    Raises:
        TypeError: a bound is no number.
        ValueError: ``low`` is not below ``high``.

    Example:
        >>> import torch_cntk as tc
        >>> tc.priors.Uniform(0, 0.1).sample(4, size=(16, 16)).shape
        torch.Size([4, 16, 16])
    """

    _unnamed = 2
    low = Tunable()
    high = Tunable()

    def __init__(self, low: float | Tensor = 0.0, high: float | Tensor = 0.1) -> None:
        self.low, self.high = low, high
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got low={self.low} and high={self.high}")

    @property
    def _moments(self) -> tuple[Number, Number]:
        low, high = live(self, "low"), live(self, "high")
        return ((low + high) / 2) ** 2, (low**2 + low * high + high**2) / 3

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        unit = torch.rand(shape, generator=generator, dtype=dtype, device=device)
        return self.low + (self.high - self.low) * unit


class Normal(_Independent):
    """Independent N(mean, std^2) in every pixel and channel.

    Raises:
        TypeError: a parameter is no number.
        ValueError: ``std`` is not positive.
    """

    _unnamed = 2
    mean = Tunable()
    std = Tunable(minimum=0, above=True)

    def __init__(self, mean: float | Tensor = 0.0, std: float | Tensor = 1.0) -> None:
        self.mean, self.std = mean, std

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        """Whether the mean is 0."""
        return self.mean == 0

    @property
    def _moments(self) -> tuple[Number, Number]:
        mean, std = live(self, "mean"), live(self, "std")
        return mean**2, mean**2 + std**2

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        return self.mean + self.std * torch.randn(shape, generator=generator, dtype=dtype, device=device)


class White(Normal):
    """White noise: independent N(0, variance) in every pixel and channel.

    Raises:
        TypeError: the variance is no number.
        ValueError: the variance is not positive.
    """

    variance = Tunable(minimum=0, above=True)
    mean = 0.0

    def __init__(self, variance: float | Tensor) -> None:
        self.variance = variance

    @property
    def std(self) -> float:  # type: ignore[override]
        """Root of the variance."""
        return math.sqrt(self.variance)

    @property
    def _moments(self) -> tuple[Number, Number]:
        variance = live(self, "variance")
        return 0.0, variance if isinstance(variance, Tensor) else self.std**2


class Constant(_Independent):
    """The same number, the root of ``variance``, in every pixel and channel: Sigma_0 = variance.

    Raises:
        TypeError: the variance is no number.
        ValueError: the variance is negative.
    """

    variance = Tunable(minimum=0)

    def __init__(self, variance: float | Tensor) -> None:
        self.variance = variance

    @property
    def _moments(self) -> tuple[Number, Number]:
        variance = live(self, "variance")
        return variance if isinstance(variance, Tensor) else math.sqrt(variance) ** 2, variance

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        return torch.full(shape, math.sqrt(self.variance), dtype=dtype or torch.get_default_dtype(), device=device)
