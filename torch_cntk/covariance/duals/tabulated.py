"""Duals without a closed form, interpolated between expectations that are computed once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import extremes, legs, of_stored, overlapping
from torch_cntk.covariance.duals.functions import Function
from torch_cntk.covariance.duals.interpolation import Series
from torch_cntk.covariance.duals.quadrature import moments
from torch_cntk.covariance.duals.tables import (
    LARGEST,
    SMALLEST,
    Table,
    angle_place,
    length,
    parts_of,
    second_moment,
    table_between,
    table_of,
)

__all__ = ["Tabulated"]

_EQUAL = 2.0**-40
"""Relative difference of variances that count as one in a table: those of normalised inputs differ by rounding."""

_FEW = 8
"""So many variances get a table of their own: that takes less time than one of all variances between them."""

_APART = 2.0**19
"""Variances v below it are so far from those beyond LARGEST, v', that their ratio does not show: relative to the roots
of both moments parallel features have a slope of (v / v')^(1/4), of which a share of (v / v')^(1/2) log(v' / v) at most
hangs on it (softsign's, whose slope decays like 1 / u^2). That is 1e-8."""

_WIDE = 64.0
"""Ratio of variances above which a table of all between them takes long to make, so that they are counted first."""


class _Rows(NamedTuple):
    """What a dual needs to know of each variance, all views of its shape.

    Attributes:
        size: gain sqrt(E[phi(f)^2]), over what makes the table's correlation of equal features exactly 1.
        value: the table's U_pr.
        slope: the table's U_pr.
        parts: see ``parts_of``.
    """

    size: Tensor
    value: list[Tensor]
    slope: list[Tensor]
    parts: list[Tensor]


@dataclass(frozen=True)
class Tabulated:
    """Any function that is smooth on both sides of 0, for every variance: phi(u) = gain g(k u) / k.

    Expectations are computed by quadrature, to 1e-12, at Chebyshev points of the variances that arrive and of the
    angle between f and f', and interpolated between them: relative to sqrt(E[phi(f)^2] E[phi(f')^2]) the error of the
    value is about 1e-10, relative to sqrt(E[phi'(f)^2] E[phi'(f')^2]) that of the slope 1e-9; beyond variances of 2e18,
    where limits are taken, both are 1e-8. Both variables are
    stretched where phi has its layers, so that the expansion converges at every variance. Values of equal features are
    exact to rounding, as the next layer takes roots of the difference: the second moment, which has tables of its own,
    does not depend on what other variances there are.

    Attributes:
        function: g.
        scale: k.
        normalise: whether the gain makes E[phi(f)^2] = 1 for f ~ N(0, 1); otherwise it is 1.
    """

    function: Function
    scale: float = 1.0
    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the function is multiplied by."""
        return _gain(self.function, self.scale) if self.normalise else 1.0

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value (in sigma's memory) and slope.

        Raises:
            ValueError: phi is bounded, one variance is beyond 2e18, and another that differs from it is above 5e5: what
                slope parallel features of such variances have is known only if all are beyond 2e18.
        """
        low, high, shrink = self._range(variance, other_variance)
        table = self._table(low, high, shrink, variance, other_variance)
        first, other = (self._rows(v, table, shrink) for v in (variance, other_variance))
        cosine, sine = legs(sigma, variance, other_variance)
        angle = torch.atan2(sine, cosine)
        slope = torch.zeros_like(angle)
        _add_series(angle_place(angle, table.layer), table, (first, other), sigma.zero_(), slope)
        if self.function.bounded:
            slope.div_(length(angle, first.parts, other.parts))
        return sigma.mul_(first.size * other.size), slope.mul_(self.gain**2)

    def _range(self, variance: Tensor, other_variance: Tensor) -> tuple[float, float, float]:
        """Smallest and largest variance for the table, and what all are divided by for it.

        Raises:
            ValueError: see ``__call__``.
        """
        low, high, vanish = extremes(variance, other_variance)
        low, high = (bound * self.scale**2 for bound in (0.0 if vanish else low, high))
        if high <= LARGEST or not self.function.bounded:
            return min(low, LARGEST), min(high, LARGEST), 1.0
        # Exactly of those that are here, not of all that the images hold which they are views of.
        here = torch.cat([_flat(variance), _flat(other_variance)]).double() * self.scale**2
        low, high = (float(bound) for bound in torch.aminmax(here))
        least = float(here[here > _APART].min()) if high > LARGEST else high
        if high <= least * (1 + _EQUAL):
            return min(low, LARGEST), min(high, LARGEST), 1.0
        if low < LARGEST:
            raise ValueError(
                f"expected variances below {LARGEST:.0e}, or all of them beyond it, or one beyond it and others below "
                f"{_APART:.0e}, at the input of a bounded activation; got {low:.1e}, and from {least:.1e} to {high:.1e}"
            )
        # So far out only their ratios count.
        return LARGEST, LARGEST * (high / low), low / LARGEST

    def _table(self, low: float, high: float, shrink: float, variance: Tensor, other_variance: Tensor) -> Table:
        if high <= low * (1 + _EQUAL):
            return table_of(self.function, (_rounded(high),))
        flat = torch.cat([_flat(variance), _flat(other_variance)]).double()
        if high <= low * _WIDE and len(flat) > 2 * _FEW:
            return table_between(self.function, low, high)
        given = torch.unique(flat * (self.scale**2 / shrink)).clamp_(SMALLEST, max(high, LARGEST))
        few = sorted({_rounded(v) for v in given[: 4 * _FEW].tolist()})
        if len(given) > 4 * _FEW or len(few) > _FEW:
            return table_between(self.function, low, high)
        return table_of(self.function, tuple(few))

    def _rows(self, variance: Tensor, table: Table, shrink: float) -> _Rows:
        values = len(table.value.basis)
        bounds = table.bounds if table.only is None else tuple(table.only.tolist())
        rows = of_stored(variance, (self, bounds, shrink), lambda v: self._rows_of(v, table, shrink))
        return _Rows(rows[0], rows[4 : 4 + values], rows[4 + values :], rows[1:4])

    def _rows_of(self, variance: Tensor, table: Table, shrink: float) -> Tensor:
        given = variance.to(torch.float64).clamp_min(0).flatten() * self.scale**2
        weights = table.weights(given / shrink)
        value, slope = (series.basis.to(given.device) @ weights for series in (table.value, table.slope))
        signs = value.new_tensor([sign for row in table.value.signs for sign in row])
        size = (second_moment(self.function, given) / (signs @ value.square())).sqrt() * (self.gain / self.scale)
        rows = torch.cat([size[None], torch.stack(parts_of(given)), value, slope])
        return rows.to(variance.dtype).view(-1, *variance.shape)


@lru_cache(maxsize=64)
def _gain(function: Function, scale: float) -> float:
    return scale / math.sqrt(float(moments(function, torch.tensor([scale**2], dtype=torch.float64))[0]))


def _flat(variance: Tensor) -> Tensor:
    """All numbers that are stored."""
    stored = overlapping(variance)
    return variance.flatten() if stored is None else stored


def _rounded(variance: float) -> float:
    """To what two variances that count as one are rounded, most likely, and never 0."""
    mantissa, exponent = math.frexp(max(variance, SMALLEST))
    return math.ldexp(round(mantissa / _EQUAL) * _EQUAL, exponent)


def _add_series(x: Tensor, table: Table, rows: tuple[_Rows, _Rows], value: Tensor, slope: Tensor) -> None:
    """Add both series at places x of the angle."""
    first, other = rows
    parts = [
        _Terms(value, table.value, first.value, other.value),
        _Terms(slope, table.slope, first.slope, other.slope),
    ]
    before, now, double = torch.ones_like(x), x, 2 * x
    for p in range(max(len(table.value.signs), len(table.slope.signs))):
        for terms in parts:
            terms.add(p, before)
        before, now = now, before.neg_().addcmul_(double, now)


class _Terms:
    """Terms of a series, in their order."""

    def __init__(self, total: Tensor, series: Series, first: list[Tensor], other: list[Tensor]) -> None:
        self._total = total
        self._signs = series.signs
        self._constant = series.basis[:, 0].square().tolist() if series.basis.shape[1] == 1 else None
        self._first, self._other = first, other
        self._mixed: Tensor | None = None
        self._row = 0

    def add(self, p: int, polynomial: Tensor) -> None:
        """Add the term of T_p."""
        signs = self._signs[p] if p < len(self._signs) else ()
        if not signs:
            return
        start, self._row = self._row, self._row + len(signs)
        if self._constant is not None:
            self._total.add_(polynomial, alpha=signs[0] * self._constant[start])
            return
        if self._mixed is None:
            self._mixed = torch.empty_like(self._total)
        # Products of both features first: then they count alike to the last bit.
        torch.mul(self._first[start], self._other[start], out=self._mixed)
        if signs[0] < 0:
            self._mixed.neg_()
        for r, sign in enumerate(signs[1:], start + 1):
            self._mixed.addcmul_(self._first[r], self._other[r], value=sign)
        self._total.addcmul_(polynomial, self._mixed)
