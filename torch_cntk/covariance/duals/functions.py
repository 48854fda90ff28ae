"""Activations without a closed form, as tabulated duals need them: phi and its derivative, smooth on both sides of 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from torch_cntk.covariance.duals import quadrature

__all__ = ["Elu", "Function", "Logistic", "Mish", "Selu", "Silu", "Softplus", "Softsign", "Tanh"]


class Function(quadrature.Function, Protocol):
    """phi, hashable and compared by its parameters; its features are about 1 wide and phi'(0) is not 0."""

    bounded: ClassVar[bool]
    """Whether phi is, so that phi' is a peak about 0. Otherwise phi grows linearly on at least one side."""
    vanishes: ClassVar[bool]
    """Whether phi(0) = 0."""


@dataclass(frozen=True)
class Tanh:
    """The hyperbolic tangent."""

    bounded: ClassVar[bool] = True
    vanishes: ClassVar[bool] = True

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return torch.tanh(u)

    def slope(self, u: Tensor) -> Tensor:
        """1 / cosh^2, in a form that keeps its digits far out."""
        return 4 * torch.sigmoid(2 * u) * torch.sigmoid(-2 * u)


@dataclass(frozen=True)
class Logistic:
    """1 / (1 + exp(-u))."""

    bounded: ClassVar[bool] = True
    vanishes: ClassVar[bool] = False

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return torch.sigmoid(u)

    def slope(self, u: Tensor) -> Tensor:
        """Phi (1 - phi)."""
        return torch.sigmoid(u) * torch.sigmoid(-u)


@dataclass(frozen=True)
class Softsign:
    """u / (1 + |u|)."""

    bounded: ClassVar[bool] = True
    vanishes: ClassVar[bool] = True

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return functional.softsign(u)

    def slope(self, u: Tensor) -> Tensor:
        """(1 + |u|)^-2."""
        return (1 + u.abs()).square().reciprocal()


@dataclass(frozen=True)
class Silu:
    """u / (1 + exp(-u))."""

    bounded: ClassVar[bool] = False
    vanishes: ClassVar[bool] = True

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return functional.silu(u)

    def slope(self, u: Tensor) -> Tensor:
        """The logistic function s, plus u s (1 - s)."""
        share = torch.sigmoid(u)
        return share + u * share * torch.sigmoid(-u)


@dataclass(frozen=True)
class Mish:
    """u tanh(log(1 + exp(u)))."""

    bounded: ClassVar[bool] = False
    vanishes: ClassVar[bool] = True

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return functional.mish(u)

    def slope(self, u: Tensor) -> Tensor:
        """T + u (1 - t^2) / (1 + exp(-u)), with t the tangent."""
        soft = functional.softplus(u, threshold=40)
        return torch.tanh(soft) + u * 4 * torch.sigmoid(2 * soft) * torch.sigmoid(-2 * soft) * torch.sigmoid(u)


@dataclass(frozen=True)
class Softplus:
    """log(1 + exp(u))."""

    bounded: ClassVar[bool] = False
    vanishes: ClassVar[bool] = False

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return functional.softplus(u, threshold=40)

    def slope(self, u: Tensor) -> Tensor:
        """The logistic function."""
        return torch.sigmoid(u)


@dataclass(frozen=True)
class Elu:
    """u above 0, alpha (exp(u) - 1) below."""

    alpha: float = 1.0
    bounded: ClassVar[bool] = False
    vanishes: ClassVar[bool] = True

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return functional.elu(u, self.alpha)

    def slope(self, u: Tensor) -> Tensor:
        """1 or alpha exp(u)."""
        return torch.where(u > 0, 1, self.alpha * torch.exp(u.clamp_max(0)))


@dataclass(frozen=True)
class Selu:
    """ELU with the two constants of Klambauer et al. (2017), which are torch's."""

    bounded: ClassVar[bool] = False
    vanishes: ClassVar[bool] = True
    alpha: ClassVar[float] = 1.6732632423543772848170429916717
    scale: ClassVar[float] = 1.0507009873554804934193349852946

    def value(self, u: Tensor) -> Tensor:
        """phi(u)."""
        return functional.selu(u)

    def slope(self, u: Tensor) -> Tensor:
        """Scale times that of ELU."""
        return self.scale * torch.where(u > 0, 1, self.alpha * torch.exp(u.clamp_max(0)))
