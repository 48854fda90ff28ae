"""Duals in closed form of functions whose expectations are exponentials: waves, bumps and the exponential."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk.covariance.duals.closed import Sine, lifted

__all__ = ["Bump", "Exponential", "Wave"]


@dataclass(frozen=True)
class Wave:
    """sin(b u + c): value (r - q cos 2c) / 2 and slope b^2 (r + q cos 2c) / 2.

    r = exp(-b^2 (v + v' - 2 sigma) / 2) is E[cos b(f - f')], and q = exp(-b^2 (v + v' + 2 sigma) / 2). With c = pi/4,
    times sqrt(2), they are the random features of a Gaussian kernel (Rahimi & Recht, 2007). Relative errors are 1e-16
    times b^2 v; small values are exact to rounding for c = 0.

    Attributes:
        frequency: b, not 0.
        phase: c.
        normalise: whether E[phi(u)^2] = 1 for u ~ N(0, 1).
    """

    frequency: float = 1.0
    phase: float = 0.0
    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the wave is multiplied by."""
        if not self.normalise:
            return 1.0
        # (1 - cos 2c + cos 2c (1 - e)) / 2, whose parts keep their digits.
        falls = -math.expm1(-2 * self.frequency**2)
        return 1 / math.sqrt(math.sin(self.phase) ** 2 + math.cos(2 * self.phase) * falls / 2)

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        square, gain = self.frequency**2, self.gain**2
        if self.phase == 0:
            value, slope = Sine(normalise=False)(sigma * square, variance * square, other_variance * square)
            return value.mul_(gain), slope.mul_(gain * square)
        mean = torch.add(variance, other_variance, out=torch.empty_like(sigma)).mul_(0.5)
        # Only rounding makes the exponents positive.
        rising = (sigma - mean).clamp_max_(0).mul_(square).exp_().mul_(gain / 2)
        falling = (sigma + mean).clamp_min_(0).mul_(-square).exp_().mul_(gain / 2 * math.cos(2 * self.phase))
        return rising - falling, rising.add_(falling).mul_(square)


@dataclass(frozen=True)
class Exponential:
    """exp(u): value and slope exp(sigma + (v + v') / 2). Relative errors are 1e-16 times the variance."""

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the exponential is multiplied by."""
        return math.exp(-1) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        mean = torch.add(variance, other_variance, out=torch.empty_like(sigma)).mul_(0.5)
        value = mean.add_(sigma).exp_().mul_(self.gain**2)
        return value, value.clone()


@dataclass(frozen=True)
class Bump:
    """exp(-u^2 / 2): value 1 / d and slope sigma / d^3, with d^2 = (1 + v)(1 + v') - sigma^2.

    Exact to rounding at every scale.
    """

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the bump is multiplied by."""
        return 3**0.25 if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        sine, cosine, norm, _ = lifted(sigma, variance, other_variance, 1.0)
        # d = norm cosine.
        value = (norm * cosine).reciprocal_()
        slope = sine.div_(cosine * cosine).div_(norm).mul_(value)
        return value.mul_(self.gain**2), slope.mul_(self.gain**2)
