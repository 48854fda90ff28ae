"""Priors of independent pixels: their kernels are small and serve every image size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk.covariance import Extent, Geometry, Lattice, Stored, Table
from torch_cntk.priors.base import Prior

__all__ = ["Constant", "Normal", "Uniform", "White"]


class _Independent(Prior):
    """Pixels and channels i.i.d.; the subclass knows its moments."""

    _moments: tuple[float, float]  # (mean, second moment)

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
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

    Example:
        >>> import torch_cntk as tc
        >>> tc.priors.Uniform(0, 0.1).sample(4, size=(16, 16)).shape
        torch.Size([4, 16, 16])
    """

    _unnamed = 2

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

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = finite_number(mean, "mean"), finite_number(std, "std", minimum=0)
        if self.std == 0:
            raise ValueError("expected std > 0, got 0: all pixels would be the same")
        self._moments = self.mean, self.mean**2 + self.std**2
        self.gaussian = self.mean == 0

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

    def __init__(self, variance: float) -> None:
        self.variance = finite_number(variance, "variance", minimum=0)
        if self.variance == 0:
            raise ValueError("expected variance > 0, got 0: leave the prior out")
        super().__init__(0.0, math.sqrt(self.variance))


class Constant(_Independent):
    """The same number, the root of ``variance``, in every pixel and channel: Sigma_0 = variance.

    Raises:
        TypeError: the variance is no number.
        ValueError: the variance is negative.
    """

    def __init__(self, variance: float) -> None:
        self.variance = finite_number(variance, "variance", minimum=0)
        self._moments = math.sqrt(self.variance), self.variance

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        return torch.full(shape, math.sqrt(self.variance), dtype=dtype or torch.get_default_dtype(), device=device)
