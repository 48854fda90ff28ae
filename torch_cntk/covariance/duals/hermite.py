"""The dual of any function, by its expansion in Hermite polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import scipy.special
import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import once, overlapping, viewed

__all__ = ["Hermite"]


_NEGLIGIBLE = 1e-26
"""Share of the largest term of a series of some hundred that does not show in float64."""

_TOLERANCE = 1e-6
"""Share of E[phi(f)^2] and of E[phi'(f)^2] that a series may leave out before it takes more terms."""

_MOST_TERMS = 512
"""What a series grows to: it takes a hundred times as long as a rectifier then."""

_VANISHING = 1e-280
"""Variances whose squares and products are none that float64 holds; phi is linear then."""


class _Rows(NamedTuple):
    """Coefficients of phi or of phi' at some variances, [terms, *variances], and the largest absolute value of each."""

    numbers: Tensor
    sizes: list[float]


@dataclass(frozen=True)
class Hermite:
    """Any function phi, by its expansion in Hermite polynomials: coefficients from Gauss-Hermite quadrature.

    phi(sqrt(v) x) = sum_k a_k(v) h_k(x), with h_k orthonormal under N(0, 1), gives the value
    sum_k a_k(v) a_k(v') rho^k, rho = sigma / sqrt(v v'); the slope is the same sum for phi'. Exact for polynomials of
    degree below ``terms``; see ``error`` for others.

    The more a function is stretched by the variance, the more terms it takes. The sum of the a_k(v)^2 that are left out
    is E[phi(f)^2] less those that are not; by Cauchy and Schwarz it bounds the error at every correlation. Variances
    for which it is above 1e-6 of E[phi(f)^2], and above twice its share at variance 1 with ``terms`` of them, get
    more terms, 512 at most; those that need more are refused. How many is decided for each variance alone, so that
    equal features stay equal.

    Attributes:
        function: phi, pointwise on tensors, differentiable by torch.
        terms: of the sum at variance 1; twice as many points are used in the quadrature.
        gain: what phi is multiplied by.
    """

    function: Callable[[Tensor], Tensor]
    terms: int = 64
    gain: float = 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope (in sigma's memory).

        Raises:
            ValueError: the series would take too many terms at one of the variances.
        """
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
        stored = overlapping(variance)
        if stored is None:
            both = self._rows(variance)
        elif variance._base is None:
            both = self._rows(stored)
        else:
            both = once(variance._base, self, lambda _: self._rows(stored))
        return [
            [
                (row if stored is None else viewed(row, variance), size)
                for row, size in zip(rows.numbers, rows.sizes, strict=True)
            ]
            for rows in both
        ]

    def _rows(self, variance: Tensor) -> tuple[_Rows, _Rows]:
        value, slope = self._adapted(variance)
        return _Rows(value, _sizes(value)), _Rows(slope, _sizes(slope))

    def _adapted(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of phi and of phi', of as many terms as each variance needs and 0 beyond.

        Raises:
            ValueError: that is too many.
        """
        bounds = _accepted(self.function, self.terms)
        value, slope, missing = self._expanded(variance, self.terms)
        terms = self.terms
        while bool((late := _exceed(missing, bounds)).any()):
            terms *= 2
            if terms > _MOST_TERMS:
                raise ValueError(_refusal(variance, missing, bounds, terms // 2))
            padding = value.new_zeros(terms - len(value), *variance.shape)
            value, slope = torch.cat([value, padding]), torch.cat([slope, padding])
            value[:, late], slope[:, late], left = self._expanded(variance[late], terms)
            missing = missing.masked_scatter(late, left)
        return value, slope

    def coefficients(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """a_k(v) of phi and of phi', [terms, *variance.shape] each, in float64; with no regard to the error."""
        return self._expanded(variance, self.terms)[:2]

    def _expanded(self, variance: Tensor, terms: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first coefficients of phi and of phi', and which share of both is left out, [2, *variance.shape]."""
        places, weighted = _hermite(terms, 2 * terms)
        places, weighted = places.to(variance.device), weighted.to(variance.device)
        inputs = variance.to(torch.float64).clamp_min(0).sqrt() * places.reshape(-1, *(1,) * variance.ndim)
        with torch.enable_grad():
            inputs.requires_grad_()
            outputs = self.gain * self.function(inputs)
            (slopes,) = torch.autograd.grad(outputs.sum(), inputs)
        rows = [torch.tensordot(weighted, values, 1) for values in (outputs.detach(), slopes)]
        # The rule's own sum of squares: what 2 terms of the series would hold.
        whole = [torch.tensordot(weighted[0], values.square(), 1) for values in (outputs.detach(), slopes)]
        left = torch.stack([1 - row.square().sum(0) / total for row, total in zip(rows, whole, strict=True)])
        # Nothing at all is found where all points miss a peak, or features vanish and phi with them.
        left = left.nan_to_num(nan=1.0).masked_fill((variance < _VANISHING) | variance.isnan(), 0)
        return rows[0], rows[1], left

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


def _sizes(rows: Tensor) -> list[float]:
    sizes: list[float] = rows.abs().flatten(1).amax(1).tolist()
    return sizes


@lru_cache(maxsize=64)
def _accepted(function: Callable[[Tensor], Tensor], terms: int) -> tuple[float, float]:
    """Shares of value and slope that may be left out: the tolerance, or twice what is at variance 1."""
    one = torch.ones((), dtype=torch.float64)
    value, slope = (max(_TOLERANCE, 2 * float(share)) for share in Hermite(function, terms)._expanded(one, terms)[2])
    return value, slope


def _exceed(missing: Tensor, bounds: tuple[float, float]) -> Tensor:
    return (missing[0] > bounds[0]) | (missing[1] > bounds[1])


def _refusal(variance: Tensor, missing: Tensor, bounds: tuple[float, float], terms: int) -> str:
    excess = torch.maximum(missing[0] / bounds[0], missing[1] / bounds[1]).flatten()
    worst = int(excess.nan_to_num(0).argmax())
    which = int(missing[0].flatten()[worst] / bounds[0] < missing[1].flatten()[worst] / bounds[1])
    return (
        f"expected an activation that {terms} Hermite polynomials describe at the variance of its inputs; at variance "
        f"{float(variance.flatten()[worst]):.3g} they miss a share of {float(missing[which].flatten()[worst]):.1e} of "
        f"the {('value', 'slope')[which]}, more than {bounds[which]:.1e}. Take an activation with a layer of its own, "
        "or keep the variance near 1: by smaller inputs, or by normalisation over channels in residual networks"
    )


def _series(rho: Tensor, first: list[tuple[Tensor, float]], other: list[tuple[Tensor, float]], total: Tensor) -> Tensor:
    """Sum over k of first_k other_k rho^k, in ``total``, which is zero; powers without a coefficient cost little."""
    # Beyond the shorter series its own coefficients are 0.
    shared = min(len(first), len(other))
    sizes = [a * b for (_, a), (_, b) in zip(first[:shared], other[:shared], strict=True)]
    begun = False
    for k in reversed(range(shared)):
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
    # Of many points those far out have no weight that float64 holds, and polynomials that it does not hold either.
    places, weights = places[weights > 0], weights[weights > 0]
    rows = [torch.ones_like(places)]
    for k in range(terms - 1):
        before = rows[k - 1] * math.sqrt(k) if k else 0
        rows.append((places * rows[k] - before) / math.sqrt(k + 1))
    return places, torch.stack(rows) * (weights / weights.sum())
