"""Derivatives of tabulated duals: those of the expansions that they are interpolated by.

By Price's theorem the value's derivative by sigma is the slope. Let the dot be a derivative by v at a fixed angle t,
which both expansions have. Then, as t itself moves with v,

    dV/dv = V. - S sigma / 2v,    dS/dv = S. - (dS/dsigma) sigma / 2v,    dS/dsigma = -(dS/dt) / (n sin t).

The last one is 0 / 0 for parallel features, and finite there for functions without a kink: next to that angle it is
continued from three angles further off.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import ROUNDING
from torch_cntk.covariance.duals.interpolation import Series
from torch_cntk.covariance.duals.tables import LARGEST, SMALLEST, Table, angle_place, table_between
from torch_cntk.covariance.duals.tabulated import Tabulated

__all__ = ["tabulated_gradients"]

_NEAR = 0.03
"""Angles below so many times the width of phi's layers are continued from once, twice and three times it: the
expansion's error of 1e-9 is divided by them, and what a parabola misses is some 1e-5."""


class _Rows(NamedTuple):
    """Of each variance of one side, and their derivatives by it: the size, and the terms of both expansions."""

    size: Tensor
    value: Tensor
    slope: Tensor


class _Side(NamedTuple):
    """Variances of one side, their rows, and the derivatives of these."""

    variance: Tensor
    rows: _Rows
    rates: _Rows

    def at(self, index: Tensor) -> _Side:
        """Some entries of it."""
        rows, rates = (_Rows(*(part[..., index] for part in group)) for group in (self.rows, self.rates))
        return _Side(self.variance[index], rows, rates)


class _Sum(NamedTuple):
    """An expansion at angles t, and its derivatives by t, v and v'."""

    sum: Tensor
    by_angle: Tensor
    by_first: Tensor
    by_other: Tensor


def tabulated_gradients(
    dual: Tabulated, s: Tensor, v: Tensor, w: Tensor, value: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by sigma, v and v', given those by value and slope.

    Raises:
        ValueError: a variance is beyond 2e18, where limits are taken.
    """
    given = [part.double().flatten() for part in (s, v, w)]
    low, high = (float(bound) * dual.scale**2 for bound in torch.aminmax(torch.cat(given[1:])))
    if high > LARGEST:
        raise ValueError(f"expected variances below {LARGEST:.0e} for gradients, got {high:.1e}")
    table = table_between(dual.function, max(low, 0.0) / 2, max(high, SMALLEST) * 2)
    first, other = (_side(dual, table, part) for part in given[1:])
    cosine, norm = given[0], (given[1] * given[2]).sqrt()
    sine = (norm.square() * (1 - ROUNDING[torch.float64]) - cosine.square()).clamp_min(0).sqrt()
    angle = torch.atan2(sine, cosine)
    total = _expanded(table.value, first.rows.value, other.rows.value, (first, other), angle, table, value=True)
    slopes, by_first, by_other = _slopes(dual, table, first, other, angle)
    turning = _turning(dual, table, first, other, angle, norm)
    value, slope = value.double().flatten(), slope.double().flatten()
    of_sigma = value * slopes + slope * turning
    sizes, rates = (first.rows.size, other.rows.size), (first.rates.size, other.rates.size)
    found = [of_sigma]
    for k, (variance, explicit, own) in enumerate(zip(given[1:], (by_first, by_other), total[2:], strict=True)):
        moved = rates[k] * sizes[1 - k] * total.sum + sizes[0] * sizes[1] * own
        bent = torch.where(variance > 0, given[0] / (2 * variance), 0)
        found.append(value * (moved - slopes * bent) + slope * (explicit - turning * bent))
    gradients = [part.to(s.dtype).view(s.shape) for part in found]
    return gradients[0], gradients[1], gradients[2]


def _side(dual: Tabulated, table: Table, variance: Tensor) -> _Side:
    """The rows of some variances, each different one looked up once."""
    distinct, place = torch.unique(variance.clamp_min(SMALLEST / dual.scale**2), return_inverse=True)
    values = len(table.value.basis)

    def rows(given: Tensor) -> Tensor:
        found = dual._rows_of(given, table, 1.0)
        return torch.cat([found[:1], found[4:]])

    with torch.enable_grad():
        distinct.requires_grad_()
        found = rows(distinct)
        # Each row's derivative by its own variance: that of a sum with weights, by the weights.
        weights = torch.zeros_like(found, requires_grad=True)
        (summed,) = torch.autograd.grad(found, distinct, weights, create_graph=True)
        (rates,) = torch.autograd.grad(summed.sum(), weights)
    found = found.detach()
    groups = [_Rows(part[0], part[1 : 1 + values], part[1 + values :])[:] for part in (found, rates)]
    own, moved = (_Rows(*(part[..., place] for part in group)) for group in groups)
    return _Side(variance, own, moved)


def _expanded(
    series: Series,
    first: Tensor,
    other: Tensor,
    sides: tuple[_Side, _Side],
    angle: Tensor,
    table: Table,
    *,
    value: bool,
) -> _Sum:
    """The sum over p of T_p(x) sum_r s_pr U_pr(v) U_pr(v'), at places x of the angle."""
    rates = [side.rates.value if value else side.rates.slope for side in sides]
    x = angle_place(angle.clone(), table.layer)
    width = math.log((math.pi + table.layer) / table.layer)
    moves = -((angle + table.layer).reciprocal() + (math.pi - angle + table.layer).reciprocal()) / width
    sums = [torch.zeros_like(x) for _ in range(4)]
    before, now = torch.ones_like(x), x
    rising_before, rising = torch.zeros_like(x), torch.ones_like(x)
    row = 0
    for signs in series.signs:
        mixed, by_first, by_other = (torch.zeros_like(x) for _ in range(3))
        for sign in signs:
            mixed.addcmul_(first[row], other[row], value=sign)
            by_first.addcmul_(rates[0][row], other[row], value=sign)
            by_other.addcmul_(first[row], rates[1][row], value=sign)
            row += 1
        for total, polynomial, part in zip(
            sums, (before, rising_before, before, before), (mixed, mixed, by_first, by_other), strict=True
        ):
            total.addcmul_(polynomial, part)
        before, now, rising_before, rising = now, 2 * x * now - before, rising, 2 * now + 2 * x * rising - rising_before
    return _Sum(sums[0], sums[1] * moves, sums[2], sums[3])


def _parts(dual: Tabulated, table: Table, first: _Side, other: _Side, angle: Tensor) -> _Sum:
    """The slope and its derivatives by t, v and v'."""
    total = _expanded(table.slope, first.rows.slope, other.rows.slope, (first, other), angle, table, value=False)
    factor = dual.gain**2
    if not dual.function.bounded:
        return _Sum(*(factor * part for part in total))
    # S = G / d with d^2 = 1 + v + v' + v v' sin^2 t, of scaled variances.
    square = dual.scale**2
    v, w, sine = square * first.variance, square * other.variance, torch.sin(angle).square()
    length = 1 + v + w + v * w * sine
    falls = (v * w * torch.sin(2 * angle), square * (1 + w * sine), square * (1 + v * sine))
    root = length.sqrt()
    moved = [
        factor * (part - total.sum * fall / (2 * length)) / root for part, fall in zip(total[1:], falls, strict=True)
    ]
    return _Sum(factor * total.sum / root, *moved)


def _slopes(dual: Tabulated, table: Table, first: _Side, other: _Side, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The slope, and its derivatives by v and v' at fixed angles."""
    found = _parts(dual, table, first, other, angle)
    return found.sum, found.by_first, found.by_other


def _turning(dual: Tabulated, table: Table, first: _Side, other: _Side, angle: Tensor, norm: Tensor) -> Tensor:
    """The slope's derivative by sigma."""

    def ratio(at: Tensor, index: Tensor | slice) -> Tensor:
        sides = (first, other) if isinstance(index, slice) else (first.at(index), other.at(index))
        return _parts(dual, table, *sides, at).by_angle / torch.sin(at)

    step = _NEAR * table.layer
    close = torch.minimum(angle, math.pi - angle) < step
    # Not to be divided by 0; such are continued or left out.
    safe = torch.where(close, math.pi / 2, angle)
    result = ratio(safe, slice(None))
    index = close.nonzero()[:, 0]
    if len(index):
        near, behind = angle[index], angle[index] > math.pi / 2
        if _has_kink(dual):
            # It grows like 1 / t; equal features have none, by themselves.
            at = near.clamp(1e-6, math.pi - 1e-6)
            continued = torch.where((near > 1e-6) & (near < math.pi - 1e-6), ratio(at, index), 0)
        else:
            values = [ratio(torch.where(behind, math.pi - k * step, k * step), index) for k in (1, 2, 3)]
            u = torch.where(behind, math.pi - near, near) / step
            weights = ((u - 2) * (u - 3) / 2, -(u - 1) * (u - 3), (u - 1) * (u - 2) / 2)
            continued = sum((w * r for w, r in zip(weights, values, strict=True)), torch.zeros_like(u))
        result[index] = continued
    return torch.where(norm > 0, -result / norm, 0)


def _has_kink(dual: Tabulated) -> bool:
    """Whether the function's derivative jumps at 0."""
    above, below = dual.function.slope(torch.tensor([1e-200, -1e-200], dtype=torch.float64))
    return not torch.allclose(above, below, rtol=1e-12, atol=0)
