"""Dual activations: what a nonlinearity does to a covariance, in closed form.

For a centred Gaussian pair (f, f') with variances v, v' and covariance sigma, the dual of phi is
E[phi(f) phi(f')] (the new NNGP covariance) and its slope E[phi'(f) phi'(f')] (the factor that the NTK takes).
Activations are normalised so that E[phi(f)^2] = 1 for f ~ N(0, 1): variance survives any depth. Those that are not
homogeneous can be had as they are as well, with a gain of 1.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import scipy.special
import torch
from torch import Tensor

__all__ = ["Dual", "Erf", "Gelu", "Hermite", "Rectifier", "Sine"]


_ROUNDING = {torch.float64: 2.0**-47, torch.float32: 2.0**-22}
"""Relative rounding error of a covariance after a layer: in float64 that of some ten additions. In float32 that would
show, so that it is the least that gives features of equal numbers, as on the diagonal, angle 0."""


_NEGLIGIBLE = 1e-26
"""Share of the largest term of a series of some hundred that does not show in float64."""


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
    The slope -1 is the absolute value.
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
        angle = torch.atan2(root, sigma)
        slope = torch.add(angle.new_ones(()), angle, alpha=-bend, out=angle)
        value = sigma.mul_(slope).add_(root, alpha=bend)
        return value, slope


@dataclass(frozen=True)
class Erf:
    """The error function (Williams, 1997): value 2/pi arcsin(2 sigma / D), slope 4/pi / sqrt(D^2 - 4 sigma^2).

    D^2 = (1 + 2 v)(1 + 2 v').
    """

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the error function is multiplied by."""
        return 1 / math.sqrt(2 / math.pi * math.asin(2 / 3)) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        square = self.gain**2
        root = torch.mul(1 + 2 * variance, 1 + 2 * other_variance, out=torch.empty_like(sigma))
        root.addcmul_(sigma, sigma, value=-4).sqrt_()
        value = torch.atan2(sigma.mul_(2), root, out=sigma).mul_(square * 2 / math.pi)
        return value, root.reciprocal_().mul_(square * 4 / math.pi)


@dataclass(frozen=True)
class Gelu:
    """The Gaussian error linear unit x Phi(x), exactly (Tsuchida et al., 2021).

    With P = v v', Q = (1 + v)(1 + v'), d = sqrt(Q - sigma^2) and the angle t = atan(sigma / d), the value is
    sigma (1/4 + t/2pi) + (sigma^2 + P d^2) / (2 pi Q d) and the slope
    1/4 + t/2pi + sigma (1/d^2 + (1 - P)/Q + 1) / (2 pi d).
    """

    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the unit is multiplied by."""
        return 1 / math.sqrt(1 / 3 + 1 / (2 * math.pi * math.sqrt(3))) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
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


@dataclass(frozen=True)
class Sine:
    """The sine: value exp(-(v + v')/2) sinh(sigma), slope exp(-(v + v')/2) cosh(sigma)."""

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
        rising = torch.exp(sigma - mean).mul_(half)
        falling = torch.exp(sigma.neg_().sub_(mean)).mul_(half)
        return rising - falling, rising.add_(falling)


@dataclass(frozen=True)
class Hermite:
    """Any function phi, by its expansion in Hermite polynomials: coefficients from Gauss-Hermite quadrature.

    phi(sqrt(v) x) = sum_k a_k(v) h_k(x), with h_k orthonormal under N(0, 1), gives the value
    sum_k a_k(v) a_k(v') rho^k, rho = sigma / sqrt(v v'); the slope is the same sum for phi'. Exact for polynomials of
    degree below ``terms``; see ``error`` for others.

    Attributes:
        function: phi, pointwise on tensors, differentiable by torch.
        terms: of the sum; twice as many points are used in the quadrature.
        gain: what phi is multiplied by.
    """

    function: Callable[[Tensor], Tensor]
    terms: int = 64
    gain: float = 1.0
    _kept: list[tuple[weakref.ref[Tensor], int, tuple[Tensor, Tensor]]] = field(
        default_factory=list, compare=False, repr=False
    )

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope (in sigma's memory)."""
        norm = torch.mul(variance, other_variance, out=torch.empty_like(sigma)).sqrt_()
        # Features that vanish have no angle; their coefficients of order above 0 vanish as well.
        rho = torch.where(norm > 0, sigma.div_(norm), 0).clamp_(-1, 1)
        first, other = self._of_stored(variance), self._of_stored(other_variance)
        value = _series(rho, first[0], other[0], torch.zeros_like(rho))
        return value, _series(rho, first[1], other[1], sigma.zero_())

    def _of_stored(self, variance: Tensor) -> list[list[tuple[Tensor, float]]]:
        """Coefficients of phi and of phi', a view of the variance's shape each, with the largest absolute value.

        Shifts of an image overlap in memory: each number that is stored is worked on once.
        """
        stored = torch.as_strided(variance, (variance.untyped_storage().nbytes() // variance.itemsize,), (1,), 0)
        overlapping = stored.numel() < variance.numel()
        base = variance._base if overlapping else None
        rows_of_both = self._looked_up(base, stored if overlapping else variance)
        sizes = [rows.abs().flatten(1).amax(1).tolist() for rows in rows_of_both]
        layout = (variance.shape, variance.stride(), variance.storage_offset())
        return [
            [
                (torch.as_strided(row, *layout[:2], row.storage_offset() + layout[2]) if overlapping else row, size)
                for row, size in zip(rows, largest, strict=True)
            ]
            for rows, largest in zip(rows_of_both, sizes, strict=True)
        ]

    def _looked_up(self, base: Tensor | None, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of all that the tensor ``base`` stores, kept for the next shifts of the same image."""
        if base is None:
            return self.coefficients(variance)
        for tensor, version, rows in self._kept:
            if tensor() is base and version == base._version:
                return rows
        rows = self.coefficients(variance)
        self._kept[:] = [(weakref.ref(base), base._version, rows)]
        return rows

    def coefficients(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """a_k(v) of phi and of phi', [terms, *variance.shape] each, in float64."""
        places, weighted = _hermite(self.terms, 2 * self.terms)
        places, weighted = places.to(variance.device), weighted.to(variance.device)
        inputs = variance.to(torch.float64).sqrt() * places.reshape(-1, *(1,) * variance.ndim)
        with torch.enable_grad():
            inputs.requires_grad_()
            outputs = self.gain * self.function(inputs)
            (slopes,) = torch.autograd.grad(outputs.sum(), inputs)
        return torch.tensordot(weighted, outputs.detach(), 1), torch.tensordot(weighted, slopes, 1)

    def error(self, variance: float = 1.0) -> tuple[float, float]:
        """Of value and slope for features of this variance: the largest difference to twice as many terms and points.

        Over all correlations. That is the error of smooth functions; with a kink it is 2 (value) to 3.5 times (slope)
        as much, as what is left out decays with the terms and their root.
        """
        rho = torch.linspace(-1, 1, 201, dtype=torch.float64)
        v = torch.full_like(rho, variance)
        own, finer = (
            Hermite(self.function, terms, self.gain)(rho * variance, v, v) for terms in (self.terms, 2 * self.terms)
        )
        value, slope = (float((mine - other).abs().max()) for mine, other in zip(own, finer, strict=True))
        return value, slope


def _series(rho: Tensor, first: list[tuple[Tensor, float]], other: list[tuple[Tensor, float]], total: Tensor) -> Tensor:
    """Sum over k of first_k other_k rho^k, in ``total``, which is zero; powers without a coefficient cost little."""
    sizes = [a * b for (_, a), (_, b) in zip(first, other, strict=True)]
    begun = False
    for k in reversed(range(len(first))):
        if begun:
            total.mul_(rho)
        # Half of them are zero up to rounding if phi is odd or even, and all from some power on if it is smooth.
        if sizes[k] > _NEGLIGIBLE * max(sizes):
            total.addcmul_(first[k][0], other[k][0])
            begun = True
    return total


@lru_cache(maxsize=16)
def _hermite(terms: int, points: int) -> tuple[Tensor, Tensor]:
    """Points of Gauss-Hermite quadrature, [points], and weight times polynomial there, [terms, points]."""
    places, weights = (torch.from_numpy(values) for values in scipy.special.roots_hermitenorm(points))
    rows = [torch.ones_like(places)]
    for k in range(terms - 1):
        before = rows[k - 1] * math.sqrt(k) if k else 0
        rows.append((places * rows[k] - before) / math.sqrt(k + 1))
    return places, torch.stack(rows) * (weights / weights.sum())
