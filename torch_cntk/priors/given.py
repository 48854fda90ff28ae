"""Priors that are one given input: their kernels are dense, for one image size."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor as _Tensor

from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance import Features, Lattice
from torch_cntk.priors.base import Prior

__all__ = ["Identity", "Meshgrid", "Tensor"]


class _Given(Prior):
    """A fixed input; the subclass gives it for each size, to be multiplied by the root of ``weight``."""

    weight = 1.0

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
        return features.to(dtype=dtype or torch.get_default_dtype(), device=device) * math.sqrt(self.weight)

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """Weight * mean over channels of Z_c(x) Z_c(x')."""
        return Features(self._features(size).to(device=device), live(self, "weight"), dtype)


class Tensor(_Given, described=False):
    """A given input Z, [channels, *size], floating point. Its kernel's period is the image size: it is dense.

    Args:
        features: Z.
        weight: Sigma_0(x, x') = weight * mean over channels of Z_c(x) Z_c(x'). For a sum over the channels, give
            their number. Gradients by it pass where it is a tensor, and those by Z where Z requires them.

    Raises:
        TypeError: Z is no floating point tensor, or the weight no number.
        ValueError: Z has no spatial dimension, no entries, or entries that are not finite, or the weight is negative.
    """

    weight = Tunable(minimum=0)

    def __init__(self, features: _Tensor, weight: float | _Tensor = 1.0) -> None:
        if not isinstance(features, torch.Tensor) or not features.is_floating_point():
            got = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
            raise TypeError(f"expected a floating point tensor [channels, *size], got {got}")
        if features.ndim < 2 or features.numel() == 0:
            raise ValueError(f"expected a tensor [channels, *size] with entries, got shape {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("expected finite features, got NaN or infinity among them")
        self.features = features
        self.weight = weight
        self.size = tuple(features.shape[1:])
        self.device = features.device
        self.dtype = features.dtype

    def channels(self, ndim: int) -> int:
        """Those of Z."""
        return len(self.features)

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

    def tensors(self, ndim: int) -> list[_Tensor]:
        """Z and the weight, as far as they require gradients."""
        return super().tensors(ndim) + [self.features] * self.features.requires_grad

    def description(self) -> None:
        """None: the tensor is not kept with a kernel."""

    def __repr__(self) -> str:
        weight = "" if self.weight == 1 else f", weight={self.weight:g}"
        return f"Tensor({tuple(self.features.shape)}{weight})"


class Identity(_Given):
    """The identity matrix as an image of one channel: 1 where all coordinates are equal, else 0. Dense kernels."""

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        first, *others = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
        equal = torch.ones(size, dtype=torch.bool)
        for coordinate in others:
            equal &= coordinate == first
        return equal.double()[None]

    def channels(self, ndim: int) -> int:
        """One."""
        return 1


class Meshgrid(_Given):
    """The deep image prior's coordinates: one channel an axis, 0 at the first pixel and 1 at the last.

    Its kernels are dense. As the deep image prior has it, the first channel varies along the last axis (x, then y).
    """

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        ramps = [torch.linspace(0, 1, n, dtype=torch.float64) for n in size]
        return torch.stack(torch.meshgrid(*ramps, indexing="ij")).flip(0)

    def channels(self, ndim: int) -> int:
        """One an axis."""
        return ndim
