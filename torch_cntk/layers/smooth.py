"""Activations that are known for every variance, in closed form or by tables: those of torch.nn, waves and bumps."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance import duals
from torch_cntk.covariance.duals import functions
from torch_cntk.layers.activation import Activation, Scalable

__all__ = ["CELU", "ELU", "RBF", "SELU", "Exp", "Gaussian", "Hardtanh", "Logistic", "Mish", "ReLU6", "SiLU"]
__all__ += ["Softplus", "Softsign", "Tanh"]


class Tanh(Scalable):
    """The hyperbolic tangent.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.Tanh``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return torch.tanh(u)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Tanh(), normalise=self.normalise)


class Logistic(Scalable):
    """1 / (1 + exp(-u)), known as the sigmoid, as an activation that the kernel knows; ``Sigmoid`` is a head.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.Sigmoid``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return torch.sigmoid(u)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Logistic(), normalise=self.normalise)


class Softsign(Scalable):
    """u / (1 + |u|).

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.Softsign``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return functional.softsign(u)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Softsign(), normalise=self.normalise)


class SiLU(Scalable):
    """u / (1 + exp(-u)), also known as swish.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.SiLU``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return functional.silu(u)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Silu(), normalise=self.normalise)


class Mish(Scalable):
    """u tanh(log(1 + exp(u))).

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.Mish``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return functional.mish(u)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Mish(), normalise=self.normalise)


class Softplus(Scalable):
    """log(1 + exp(beta u)) / beta.

    Args:
        beta: above 0.
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.Softplus``,
            which is linear where beta u > 20, a difference of 2e-9 / beta.

    Raises:
        TypeError: beta is no number.
        ValueError: beta is not finite or not above 0.
    """

    def __init__(self, beta: float = 1.0, *, normalise: bool = True) -> None:
        super().__init__(normalise=normalise)
        self.beta = finite_number(beta, "beta", minimum=0)
        if self.beta == 0:
            raise ValueError("expected beta to be above 0, got 0")

    def _phi(self, u: Tensor) -> Tensor:
        return functional.softplus(u, self.beta)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Softplus(), self.beta, normalise=self.normalise)


class ELU(Scalable):
    """u above 0, alpha (exp(u) - 1) below.

    Args:
        alpha: finite.
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.ELU``.

    Raises:
        TypeError: alpha is no number.
        ValueError: alpha is not finite.
    """

    def __init__(self, alpha: float = 1.0, *, normalise: bool = True) -> None:
        super().__init__(normalise=normalise)
        self.alpha = finite_number(alpha, "alpha")

    def _phi(self, u: Tensor) -> Tensor:
        return functional.elu(u, self.alpha)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Elu(self.alpha), normalise=self.normalise)


class CELU(Scalable):
    """u above 0, alpha (exp(u / alpha) - 1) below: its slope is continuous (Barron, 2017).

    Args:
        alpha: above 0.
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.CELU``.

    Raises:
        TypeError: alpha is no number.
        ValueError: alpha is not finite or not above 0.
    """

    def __init__(self, alpha: float = 1.0, *, normalise: bool = True) -> None:
        super().__init__(normalise=normalise)
        self.alpha = finite_number(alpha, "alpha", minimum=0)
        if self.alpha == 0:
            raise ValueError("expected alpha to be above 0, got 0")

    def _phi(self, u: Tensor) -> Tensor:
        return functional.celu(u, self.alpha)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Celu(), 1 / self.alpha, normalise=self.normalise)


class SELU(Scalable):
    """The self-normalising unit of Klambauer et al. (2017): 1.0507 times u, or times 1.6733 (exp(u) - 1) below 0.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), which it nearly is, rather than take it as
            ``torch.nn.SELU``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return functional.selu(u)

    def _dual(self) -> duals.Tabulated:
        return duals.Tabulated(functions.Selu(), normalise=self.normalise)


class Hardtanh(Scalable):
    """u, but not below ``min_val`` nor above ``max_val``.

    Args:
        min_val: 0 or below.
        max_val: 0 or above; not both are 0.
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.Hardtanh``.

    Raises:
        TypeError: a bound is no number.
        ValueError: the bounds are not finite, or not on both sides of 0.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, *, normalise: bool = True) -> None:
        super().__init__(normalise=normalise)
        self.min_val, self.max_val = finite_number(min_val, "min_val"), finite_number(max_val, "max_val")
        if not self.min_val <= 0 <= self.max_val or self.min_val == self.max_val:
            raise ValueError(f"expected min_val <= 0 <= max_val, and not both 0, got {min_val} and {max_val}")

    def _phi(self, u: Tensor) -> Tensor:
        return functional.hardtanh(u, self.min_val, self.max_val)

    def _dual(self) -> duals.Clipped:
        return duals.Clipped(self.min_val, self.max_val, self.normalise)


class ReLU6(Scalable):
    """u, but not below 0 nor above 6.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.ReLU6``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return functional.relu6(u)

    def _dual(self) -> duals.Clipped:
        return duals.Clipped(0.0, 6.0, self.normalise)


class RBF(Activation):
    """sqrt(2) sin(sqrt(2 gamma) u + pi/4): random features of a Gaussian kernel (Rahimi & Recht, 2007).

    Behind a weight layer the NNGP kernel is exp(-gamma |f - f'|^2), with |f - f'|^2 the mean over channels of the
    squared difference of the features before that layer (Sigma(x, x) + Sigma(x', x') - 2 Sigma(x, x')).

    Args:
        gamma: above 0; a tensor of one number passes gradients on.

    Raises:
        TypeError: gamma is no number.
        ValueError: gamma is not finite or not above 0.
    """

    gain = math.sqrt(2)

    gamma = Tunable(minimum=0, above=True)

    def __init__(self, gamma: float | Tensor = 1.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Of a tensor of any shape."""
        gamma = live(self, "gamma")
        frequency = math.sqrt(2 * gamma) if isinstance(gamma, float) else (2 * gamma).sqrt()
        return self.gain * torch.sin(frequency * input + math.pi / 4)

    def _dual(self) -> duals.Dual:
        gamma = live(self, "gamma")
        wave = duals.Wave(math.sqrt(2 * self.gamma), math.pi / 4)
        return wave if isinstance(gamma, float) else duals.Tuned(wave, (2 * gamma,))


class Exp(Scalable):
    """The exponential. Its second moment grows as exp(2 v) with the variance v: behind others it soon is no number.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.exp``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return torch.exp(u)

    def _dual(self) -> duals.Exponential:
        return duals.Exponential(self.normalise)


class Gaussian(Scalable):
    """exp(-u^2 / 2); of another width behind ``Scale``.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as it is.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return torch.exp(-u.square() / 2)

    def _dual(self) -> duals.Bump:
        return duals.Bump(self.normalise)
