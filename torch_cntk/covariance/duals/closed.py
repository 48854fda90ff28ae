"""Duals of smooth functions in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import ROUNDING, extremes, of_stored

__all__ = ["Erf", "Gelu", "Sine", "lifted"]

_NEAR = (2.0**-10, 2.0**4)
"""Between these variances differences, D^2 - sigma^2 or two exponentials, lose a digit or three in the formulas as they
stand, which take less time."""


@dataclass(frozen=True)
class Erf:
    """The error function (Williams, 1997): value 2/pi arcsin(2 sigma / D), slope 4/pi / sqrt(D^2 - 4 sigma^2).

    D^2 = (1 + 2 v)(1 + 2 v'). Large variances take the form S = 2 sigma / D, R^2 = 1 - S^2 without cancellation:
    value 2/pi atan(S / R), slope 4/pi / (D R). Exact to rounding at every scale.
    """

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the error function is multiplied by."""
        return 1 / math.sqrt(2 / math.pi * math.asin(2 / 3)) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        square = self.gain**2
        if extremes(variance, other_variance).high > _NEAR[1]:
            sine, cosine, norm, _ = lifted(sigma, variance, other_variance, 2.0)
            value = torch.atan2(sine, cosine, out=sine)
            return value.mul_(square * 2 / math.pi), norm.mul_(cosine).reciprocal_().mul_(square * 4 / math.pi)
        root = torch.mul(1 + 2 * variance, 1 + 2 * other_variance, out=torch.empty_like(sigma))
        root.addcmul_(sigma, sigma, value=-4).sqrt_()
        value = torch.atan2(sigma.mul_(2), root, out=sigma).mul_(square * 2 / math.pi)
        return value, root.reciprocal_().mul_(square * 4 / math.pi)


@dataclass(frozen=True)
class Gelu:
    """The Gaussian error linear unit x Phi(x), exactly (Tsuchida et al., 2021).

    With P = v v', Q = (1 + v)(1 + v'), d = sqrt(Q - sigma^2) and the angle t = atan(sigma / d), the value is
    sigma (1/4 + t/2pi) + (sigma^2 + P d^2) / (2 pi Q d) and the slope
    1/4 + t/2pi + sigma (1/d^2 + (1 - P)/Q + 1) / (2 pi d). Large variances take the form S = sigma / sqrt(Q),
    R^2 = 1 - S^2 without cancellation, e = 1 / (1 + v): value sigma A + (S^2 / (sqrt(Q) R) + P/Q sqrt(Q) R) / 2pi and
    slope A + S/R (e e'/R^2 + e + e') / 2pi, with A = atan2(R, -S) / 2pi = 1/4 + t/2pi.
    Exact to rounding, relative to sqrt(v v'), at every scale.
    """

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the unit is multiplied by."""
        return 1 / math.sqrt(1 / 3 + 1 / (2 * math.pi * math.sqrt(3))) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        if extremes(variance, other_variance).high > _NEAR[1]:
            return self._far(sigma, variance, other_variance)
        square = self.gain**2
        product = torch.mul(variance, other_variance, out=torch.empty_like(sigma))
        above = torch.mul(1 + variance, 1 + other_variance, out=torch.empty_like(sigma))
        rest = above - sigma * sigma
        root = rest.sqrt()
        slope = torch.atan2(sigma, root).div_(2 * math.pi).add_(0.25)
        value = sigma * slope
        value += (sigma * sigma).addcmul_(product, rest).div_(above * root).div_(2 * math.pi)
        slope += rest.reciprocal().add_((1 - product) / above).add_(1).mul_(sigma).div_(root).div_(2 * math.pi)
        return value.mul_(square), slope.mul_(square)

    def _far(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        sine, cosine, norm, (rest, other_rest, share, other_share) = lifted(sigma, variance, other_variance, 1.0)
        square = self.gain**2
        slope = torch.atan2(cosine, -sine).div_(2 * math.pi)
        length = norm * cosine
        value = (sine * sine).div_(length).add_((share * other_share).mul_(length)).div_(2 * math.pi)
        value.addcmul_(sigma, slope)
        bent = (rest * other_rest).div_(cosine * cosine).add_(rest + other_rest)
        slope += bent.mul_(sine).div_(cosine).div_(2 * math.pi)
        return value.mul_(square), slope.mul_(square)


@dataclass(frozen=True)
class Sine:
    """The sine: value exp(-(v + v')/2) sinh(sigma), slope exp(-(v + v')/2) cosh(sigma).

    Exact to rounding at small scales; at large ones as far as rounding lets v + v' - 2 |sigma| be known, which the
    exponential turns into a relative error: 1e-16 times the variance.
    """

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the sine is multiplied by."""
        return 1 / math.sqrt((1 - math.exp(-2)) / 2) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        half = self.gain**2 / 2
        mean = torch.add(variance, other_variance, out=torch.empty_like(sigma)).mul_(0.5)
        # Together in the exponent: neither factor alone need be a number that float64 holds.
        low, high, _ = extremes(variance, other_variance)
        if _NEAR[0] < low and high < _NEAR[1]:
            rising = torch.exp(sigma - mean).mul_(half)
            falling = torch.exp(sigma.neg_().sub_(mean)).mul_(half)
            return rising - falling, rising.add_(falling)
        size = sigma.abs()
        # Only rounding makes the exponent positive.
        factor = torch.sub(size, mean, out=mean).clamp_max_(0).exp_().mul_(half)
        # 2 sinh = e^size (1 - e^(-2 size)), 2 cosh = e^size (1 + e^(-2 size)).
        falling = size.mul_(-2).expm1_()
        value = (falling * factor).mul_(sigma.sign_()).neg_()
        return value, falling.add_(2).mul_(factor)


def lifted(
    sigma: Tensor, variance: Tensor, other_variance: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Sine and cosine of the angle of (1, f) and (1, f') to orthogonality, the constants of variance 1 / scale.

    With D = sqrt((1 + k v)(1 + k v')), k the scale: S = k sigma / D and R^2 = 1 - S^2. Near 1 S has lost the digits of
    R^2; so R^2 = (1 - c c') + c c' (1 - rho^2), where c = k v / (1 + k v), e = 1 - c = 1 / (1 + k v) and
    1 - c c' = e + e' - e e'. 1 - |rho| is taken for 0 below the rounding error of a covariance, so that equal features
    are equal.

    Returns:
        S, R, D, and (e, e', c, c').
    """
    (root, norm, rest, share), (other_root, other_norm, other_rest, other_share) = (
        of_stored(v, ("lifted", scale), lambda v: _lifts(v, scale)) for v in (variance, other_variance)
    )
    length = torch.mul(norm, other_norm, out=torch.empty_like(sigma))
    cosine = torch.div(sigma.abs(), root * other_root).neg_().add_(1)
    cosine = torch.nn.functional.threshold(cosine, ROUNDING[sigma.dtype], 0, inplace=True)
    cosine.mul_(2 - cosine).mul_(share * other_share)
    cosine.add_(rest + other_rest).sub_(rest * other_rest).sqrt_()
    return sigma * scale / length, cosine, length, (rest, other_rest, share, other_share)


def _lifts(variance: Tensor, scale: float) -> Tensor:
    """sqrt(v), sqrt(1 + k v), 1 / (1 + k v) and k v / (1 + k v); the first above 0, to divide by."""
    least = torch.finfo(variance.dtype).tiny ** 0.5
    one_more = 1 + scale * variance
    root = variance.sqrt().clamp_min(least)
    return torch.stack([root, one_more.sqrt(), one_more.reciprocal(), scale * variance / one_more])
