"""Dual activations: what a nonlinearity does to a covariance, in closed form.

For a centred Gaussian pair (f, f') with variances v, v' and covariance sigma, the dual of phi is
E[phi(f) phi(f')] (the new NNGP covariance) and its slope E[phi'(f) phi'(f')] (the factor that the NTK takes).
Activations are normalised so that E[phi(f)^2] = 1 for f ~ N(0, 1): variance survives any depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Dual", "Rectifier"]


_ROUNDING = {torch.float64: 2.0**-47, torch.float32: 2.0**-22}
"""Relative rounding error of a covariance after a layer: in float64 that of some ten additions. In float32 that would
show, so that it is the least that gives features of equal numbers, as on the diagonal, angle 0."""


class Dual(Protocol):
    """A dual activation; implementations are hashable and compare by their parameters."""

    def __call__(
        self,
        sigma: Tensor,  # covariance of f and f'; may be overwritten
        variance: Tensor,  # of f, broadcasts against sigma
        other_variance: Tensor,  # of f', broadcasts against sigma
    ) -> tuple[Tensor, Tensor]:
        """Return (E[phi(f) phi(f')], E[phi'(f) phi'(f')]), both of sigma's shape."""
        ...


@dataclass(frozen=True)
class Rectifier:
    """LeakyReLU of the given negative slope (0 is ReLU), the arc-cosine kernel of Cho & Saul (2009).

    With w = 2a/(1 + a^2), n = sqrt(v v') and the angle t = arccos(sigma / n) between f and f', the value is
    n ((1-w) k1 + w cos t) and the slope (1-w) k0 + w, where k0 = (pi - t)/pi and
    k1 = (cos t (pi - t) + sin t)/pi. Both follow from the slope g = 1 - (1-w) t/pi: value = sigma g + (1-w)/pi n sin t.
    """

    negative_slope: float = 0.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value (in sigma's memory) and slope."""
        bend = (1 - self.negative_slope) ** 2 / (1 + self.negative_slope**2) / math.pi
        # n sin t, from n^2 - sigma^2, which keeps its digits where arccos loses half of them. Equal features must give
        # exactly 0: the root would blow a rounding error of 1e-16 up to 1e-8, hence the shrinkage by a few of them.
        # In sigma's layout: the variances may be overlapping views, whose strides torch would otherwise copy.
        root = torch.mul(variance * (1 - _ROUNDING[sigma.dtype]), other_variance, out=torch.empty_like(sigma))
        root.addcmul_(sigma, sigma, value=-1).clamp_min_(0).sqrt_()
        slope = torch.rsub(torch.atan2(root, sigma), 1, alpha=bend)
        value = sigma.mul_(slope).add_(root, alpha=bend)
        return value, slope
