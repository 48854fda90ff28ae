"""Activations without a closed form: phi and its derivative, smooth on both sides of 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Celu", "Elu", "Function", "Logistic", "Mish", "Selu", "Silu", "Softplus", "Softsign", "Tanh"]


class Function(ABC):
    """phi as tabulated duals need it: compared by its parameters, about 1 wide, and phi'(0) is not 0.

    Attributes:
        bounded: whether phi is, so that phi' is a peak about 0. Otherwise phi grows linearly on at least one side.
        vanishes: whether phi(0) = 0.
    """

    bounded: ClassVar[bool]
    vanishes: ClassVar[bool] = True

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """Return phi'(u)."""


@dataclass(frozen=True)
class Tanh(Function):
    """The hyperbolic tangent."""

    bounded = True

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return torch.tanh(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return 1 / cosh^2, in a form that keeps its digits far out."""
        return 4 * torch.sigmoid(2 * u) * torch.sigmoid(-2 * u)


@dataclass(frozen=True)
class Logistic(Function):
    """1 / (1 + exp(-u))."""

    bounded = True
    vanishes = False

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return torch.sigmoid(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return phi (1 - phi)."""
        return torch.sigmoid(u) * torch.sigmoid(-u)


@dataclass(frozen=True)
class Softsign(Function):
    """u / (1 + |u|)."""

    bounded = True

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.softsign(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return (1 + |u|)^-2."""
        return (1 + u.abs()).square().reciprocal()


@dataclass(frozen=True)
class Silu(Function):
    """u / (1 + exp(-u))."""

    bounded = False

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.silu(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return s + u s (1 - s), with s the logistic function."""
        share = torch.sigmoid(u)
        return share + u * share * torch.sigmoid(-u)


@dataclass(frozen=True)
class Mish(Function):
    """u tanh(log(1 + exp(u)))."""

    bounded = False

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.mish(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return t + u (1 - t^2) / (1 + exp(-u)), with t the tangent."""
        soft = functional.softplus(u, threshold=40)
        return torch.tanh(soft) + u * 4 * torch.sigmoid(2 * soft) * torch.sigmoid(-2 * soft) * torch.sigmoid(u)


@dataclass(frozen=True)
class Softplus(Function):
    """log(1 + exp(u))."""

    bounded = False
    vanishes = False

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.softplus(u, threshold=40)

    def slope(self, u: Tensor) -> Tensor:
        """Return the logistic function."""
        return torch.sigmoid(u)


@dataclass(frozen=True)
class Elu(Function):
    """u above 0, alpha (exp(u) - 1) below."""

    alpha: float = 1.0
    bounded = False

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.elu(u, self.alpha)

    def slope(self, u: Tensor) -> Tensor:
        """Return 1 or alpha exp(u)."""
        return torch.where(u > 0, 1, self.alpha * torch.exp(u.clamp_max(0)))


@dataclass(frozen=True)
class Celu(Function):
    """u above 0, exp(u) - 1 below; other widths are multiples of it."""

    bounded = False

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.celu(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return 1 or exp(u)."""
        return torch.exp(u.clamp_max(0))


@dataclass(frozen=True)
class Selu(Function):
    """ELU with the two constants of Klambauer et al. (2017), which are torch's."""

    bounded = False
    alpha: ClassVar[float] = 1.6732632423543772848170429916717
    scale: ClassVar[float] = 1.0507009873554804934193349852946

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        return functional.selu(u)

    def slope(self, u: Tensor) -> Tensor:
        """Return the scale times that of ELU."""
        return self.scale * torch.where(u > 0, 1, self.alpha * torch.exp(u.clamp_max(0)))
