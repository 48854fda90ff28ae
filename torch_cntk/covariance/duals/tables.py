"""Tables of expectations for tabulated duals: correlations and slopes between variances, moments of one variance."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.duals.functions import Function
from torch_cntk.covariance.duals.interpolation import Series, coefficients, points, polynomials, split, unresolved
from torch_cntk.covariance.duals.quadrature import moments, pairs

__all__ = [
    "LARGEST",
    "SMALLEST",
    "Table",
    "angle_place",
    "length",
    "parts_of",
    "second_moment",
    "table_between",
    "table_of",
]

SMALLEST, LARGEST = 2.0**-99, 2.0**61
"""Below the first of these variances phi is linear on both sides of 0, to 1e-15; beyond the second it is homogeneous or
as far as its limits, to 1e-9."""

_CELLS = 80
"""Tables of moments are for variances from 4^k to 4^(k + 1), times SMALLEST; the last one ends at LARGEST."""

_CELL_TERMS = 16
"""Of the logarithm of a moment, in that of the variance, over one cell."""

_LOWEST = -5
"""Bounds of tables of correlations are at variances 2 * 4^k; all below k = _LOWEST is one table, down to 0."""

_BEND = 0.25
"""Standard deviation up to which the place of a variance is linear in it; beyond it is logarithmic."""

_TOLERANCE = 1e-10
"""What the last coefficients of an expansion may be, relative to the largest: that is about its relative error."""

_MOST_PLACES, _MOST_ANGLES = 400, 1000
"""More coefficients than any function with layers about 0 takes."""


class Table(NamedTuple):
    """Correlations and slopes at any angle, for variances between two bounds or for some of them only.

    Attributes:
        bounds: places of the smallest and the largest variance.
        only: the variances that it is for, ascending, or None for all between the bounds.
        layer: the angle below which phi shows details at the largest variance.
        value: of E[phi(f) phi(f')] / sqrt(E[phi(f)^2] E[phi(f')^2]).
        slope: of E[phi'(f) phi'(f')], times the length of ``length`` if phi is bounded.
    """

    bounds: tuple[float, float]
    only: Tensor | None
    layer: float
    value: Series
    slope: Series

    def weights(self, variance: Tensor) -> Tensor:
        """The functions of variances [n] that the rows of both bases are sums of, [places, n]."""
        if self.only is not None:
            middles = ((self.only[1:] + self.only[:-1]) / 2).to(variance.device)
            index = torch.bucketize(variance, middles)
            return torch.nn.functional.one_hot(index, len(self.only)).to(variance.dtype).T
        low, high = self.bounds
        place = (2 * place_of(variance) - low - high) / (high - low)
        return polynomials(place.clamp(-1, 1), self.value.basis.shape[1])


def place_of(variance: Tensor) -> Tensor:
    """log(1 + sqrt(v) / b): expectations are smooth functions of it, from v = 0 on."""
    return torch.log1p(variance.sqrt() / _BEND)


def parts_of(variance: Tensor) -> list[Tensor]:
    """sqrt(1 + v), 1 / (1 + v) and v / (1 + v)."""
    return [(1 + variance).sqrt(), (1 + variance).reciprocal(), variance / (1 + variance)]


def length(angle: Tensor, first: list[Tensor], other: list[Tensor]) -> Tensor:
    """Return d = sqrt((1 + v)(1 + v') - sigma^2), given ``parts_of`` both: slopes of bounded functions fall like 1 / d.

    Without cancellation or overflow: d^2 / (1 + v)(1 + v') = e + e' - e e' + c c' sin^2 t, e = 1 / (1 + v), c = 1 - e.
    """
    (norm, rest, share), (other_norm, other_rest, other_share) = first, other
    squared = torch.sin(angle).square_().mul_(share * other_share)
    return squared.add_(rest + other_rest).sub_(rest * other_rest).sqrt_().mul_(norm * other_norm)


@lru_cache(maxsize=64)
def table_between(function: Function, low: float, high: float) -> Table:
    """The table of the bounds that two variances lie between."""
    first, last = (math.floor(math.log(max(v, SMALLEST) / 2, 4)) for v in (low, high))
    return _table_between(function, max(first, _LOWEST - 1), max(last, _LOWEST - 1) + 1)


@lru_cache(maxsize=64)
def _table_between(function: Function, first: int, last: int) -> Table:
    bottom, top = (0.0 if k < _LOWEST else 2 * 4.0**k for k in (first, last))
    low, high = (float(place_of(torch.tensor(v, dtype=torch.float64))) for v in (bottom, top))
    places = 9 + math.ceil(5.5 * (high - low))
    while True:
        at = (low + high) / 2 + (high - low) / 2 * points(places)
        expansions, layer = _resolved(function, (_BEND * torch.expm1(at)).square())
        expansions = [coefficients(coefficients(e, 0), 1) for e in expansions]
        if max(unresolved(e, 0) for e in expansions) < _TOLERANCE or places > _MOST_PLACES:
            value, slope = (split(e) for e in expansions)
            return Table((low, high), None, layer, value, slope)
        places += places // 3


@lru_cache(maxsize=256)
def table_of(function: Function, variances: tuple[float, ...]) -> Table:
    """The table of some variances, ascending."""
    only = torch.tensor(variances, dtype=torch.float64)
    (value, slope), layer = _resolved(function, only)
    return Table((0.0, 0.0), only, layer, split(value), split(slope))


def _resolved(function: Function, variances: Tensor) -> tuple[list[Tensor], float]:
    """Values and slopes in Chebyshev polynomials of the angle's place, [n, n, p] each; and the layer."""
    largest = float(variances.max())
    layer = 1 / math.sqrt(1 + largest)
    # An even number: of pi - t only t is computed.
    terms = 2 * math.ceil(13 + 2 * math.log1p(largest))
    scale = moments(function, variances)[0].sqrt()
    while True:
        angles = _angles(points(terms)[: terms // 2], layer)
        value, slope = pairs(function, variances, angles)
        value = value / (scale[:, None] * scale)[..., None, None]
        if function.bounded:
            first, other = ([part.view(shape) for part in parts_of(variances)] for shape in ((-1, 1, 1), (1, -1, 1)))
            slope = slope * length(angles.expand(slope.shape[:3]).clone(), first, other)[..., None]
        expansions = [coefficients(torch.cat([v[..., 0], v[..., 1].flip(-1)], -1), 2) for v in (value, slope)]
        if max(unresolved(e, 2) for e in expansions) < _TOLERANCE or terms > _MOST_ANGLES:
            return expansions, layer
        terms += 2 * (terms // 6)


def _angles(x: Tensor, layer: float) -> Tensor:
    """The angles of places x: the inverse of ``angle_place``."""
    ratio = torch.exp(-x * math.log((math.pi + layer) / layer))
    return ((ratio * (math.pi + layer) - layer) / (1 + ratio)).clamp_min(0)


def angle_place(angle: Tensor, layer: float) -> Tensor:
    """From 1 at t = 0 to -1 at pi, logarithmic in the distance from both: -log((t + b) / (pi - t + b)), scaled."""
    ratio = (angle + layer).div_(math.pi + layer - angle)
    return ratio.log_().mul_(-1 / math.log((math.pi + layer) / layer)).clamp_(-1, 1)


@lru_cache(maxsize=64)
def _moment_table(function: Function) -> Tensor:
    """Of log E[phi(f)^2], [cells, terms]."""
    logs = (torch.arange(_CELLS)[:, None] * 2 + 1 + points(_CELL_TERMS)) * math.log(2) + math.log(SMALLEST)
    values = moments(function, logs.exp().flatten())[0].log().view(_CELLS, _CELL_TERMS)
    return coefficients(values, 1)


def second_moment(function: Function, variance: Tensor) -> Tensor:
    """E[phi(f)^2] for variances [n] in float64, from 0 to any number; the same whatever other variances there are."""
    inside = variance.clamp(SMALLEST, LARGEST)
    place = torch.log2(inside / SMALLEST) / 2
    cell = place.floor().clamp(0, _CELLS - 1)
    table = _moment_table(function).to(variance.device)[cell.long()]
    result = (polynomials(2 * (place - cell) - 1, _CELL_TERMS) * table.T).sum(0).exp()
    if function.vanishes:
        result = result * (variance / SMALLEST).clamp_max(1)
    return result if function.bounded else result * (variance / LARGEST).clamp_min(1)
