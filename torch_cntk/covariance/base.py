"""The few verbs that every storage form of a covariance has; layers are written against them and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from torch_cntk.covariance.resampling import Resampling
    from torch_cntk.duals import Dual

__all__ = ["Covariance"]


class Covariance(ABC):
    """The pair (Sigma, Theta) = (NNGP, NTK) between all pixels of a feature map, on its way through a network.

    Every verb returns a new object and leaves this one as it was.
    """

    @property
    @abstractmethod
    def ndim(self) -> int:
        """Number of spatial dimensions."""

    @abstractmethod
    def average_patches(self, kernel_size: tuple[int, ...], bias_variance: float = 0.0) -> Self:
        """A weight layer over circular patches: Sigma' = P[Sigma] + b, Theta' = P[Theta] + P[Sigma] + b."""

    @abstractmethod
    def activate(self, dual: Dual) -> Self:
        """A pointwise nonlinearity: Sigma' = value, Theta' = Theta * slope."""

    @abstractmethod
    def subsample(self, stride: tuple[int, ...]) -> Self:
        """Keep every stride-th pixel of each axis, from pixel 0 on."""

    @abstractmethod
    def resample(self, resampling: tuple[Resampling, ...]) -> Self:
        """A fixed linear map U along each axis: Sigma' = U Sigma U^T, Theta' = U Theta U^T."""
