"""Derivatives of the dual of a clipped linear function, in closed form.

phi'' is a unit mass at the lower kink less one at the upper kink. With p the density of f, m and P mean of phi(f') and
probability that f' is between the kinks, given f, Price's theorem makes

    dV/dsigma = S,                        dS/dsigma = E[phi'' phi''],
    dV/dv = (p m | low - p m | high) / 2, dS/dv = ((p P)' | high - (p P)' | low) / 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import ROUNDING
from torch_cntk.covariance.duals.clipped import Clipped

__all__ = ["clipped_gradients"]


def clipped_gradients(
    dual: Clipped, s: Tensor, v: Tensor, w: Tensor, value: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by sigma, v and v', given those by value and slope.

    The slope is not differentiable where two features are equal, by itself: an input with itself is always equal, and
    so only the derivative along v = v' = sigma counts there.
    """
    given = [part.double() for part in (s, v, w)]
    slopes = dual(*(part.clone() for part in given))[1]
    determinant = given[1] * given[2] * (1 - ROUNDING[torch.float64]) - given[0].square()
    # Variances of 0 are those of features without gradients.
    alive = (given[1] > 0) & (given[2] > 0)
    equal = (determinant <= 0) | ~alive
    s, v, w = (torch.where(alive, part, default) for part, default in zip(given, (0.0, 1.0, 1.0), strict=True))
    determinant = torch.where(equal, 1.0, determinant)
    of_sigma = value * slopes + slope * torch.where(equal, 0, _between_kinks(dual, s, v, w, determinant))
    found = [of_sigma]
    for own in (v, w):
        deviation = torch.where(equal, 0, determinant / own).sqrt()
        moved = _of_value(dual, s, own, deviation)
        bent = torch.where(equal, _along(dual, own), _of_slope(dual, s, own, torch.where(equal, 1.0, deviation)))
        found.append(torch.where(alive, value * moved + slope * bent, 0))
    gradients = [part.to(value.dtype) for part in found]
    return gradients[0], gradients[1], gradients[2]


def _density(kink: float, variance: Tensor) -> Tensor:
    return torch.exp(-(kink**2) / (2 * variance)) / (2 * math.pi * variance).sqrt()


def _between_kinks(dual: Clipped, s: Tensor, v: Tensor, w: Tensor, determinant: Tensor) -> Tensor:
    """The density of (f, f') at pairs of kinks, with signs."""
    total = torch.zeros_like(s)
    for a, sign in ((dual.low, 1.0), (dual.high, -1.0)):
        for b, other in ((dual.low, 1.0), (dual.high, -1.0)):
            exponent = (a * a * w - 2 * a * b * s + b * b * v) / (2 * determinant)
            total += sign * other * torch.exp(-exponent)
    return dual.gain**2 * total / (2 * math.pi * determinant.sqrt())


def _of_value(dual: Clipped, s: Tensor, own: Tensor, deviation: Tensor) -> Tensor:
    """(p m | low - p m | high) / 2; a deviation of 0 is that of equal features."""
    total = torch.zeros_like(s)
    for kink, sign in ((dual.low, 0.5), (dual.high, -0.5)):
        mean = kink * s / own
        safe = deviation.clamp_min(torch.finfo(s.dtype).tiny)
        low, high = ((bound - mean) / safe for bound in (dual.low, dual.high))
        inside = torch.special.ndtr(high) - torch.special.ndtr(low)
        falls = torch.exp(-high.square() / 2) - torch.exp(-low.square() / 2)
        clipped = dual.low * torch.special.ndtr(low) + dual.high * torch.special.ndtr(-high) + mean * inside
        clipped -= deviation * falls / math.sqrt(2 * math.pi)
        clipped = torch.where(deviation > 0, clipped, mean.clamp(dual.low, dual.high))
        total += sign * _density(kink, own) * clipped
    return dual.gain**2 * total


def _of_slope(dual: Clipped, s: Tensor, own: Tensor, deviation: Tensor) -> Tensor:
    """(-(p P)' | low + (p P)' | high) / 2."""
    total = torch.zeros_like(s)
    for kink, sign in ((dual.low, -0.5), (dual.high, 0.5)):
        mean = kink * s / own
        low, high = ((bound - mean) / deviation for bound in (dual.low, dual.high))
        inside = torch.special.ndtr(high) - torch.special.ndtr(low)
        falls = torch.exp(-high.square() / 2) - torch.exp(-low.square() / 2)
        moved = -s / own / deviation * falls / math.sqrt(2 * math.pi)
        total += sign * _density(kink, own) * (moved - kink / own * inside)
    return dual.gain**2 * total


def _along(dual: Clipped, variance: Tensor) -> Tensor:
    """Half of the derivative of P(low < f < high) by the variance."""
    total = torch.zeros_like(variance)
    for kink, sign in ((dual.low, 1.0), (dual.high, -1.0)):
        total += sign * kink * _density(kink, variance)
    return dual.gain**2 * total / (4 * variance)
