"""The dual of a clipped linear function: hardtanh, ReLU6."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import extremes, legs, of_stored
from torch_cntk.covariance.duals.quadrature import between_ends

__all__ = ["Clipped"]

_LEAST_DEPTH = 18.0
"""Minus logarithm of 2e-8: two kinks that are closer than that, in standard deviations, count as one."""

_STEP = 0.2
"""Of the logarithm of the distance from an axis: exp(-exp(log)) decays within pi/4 of the real axis."""

_CHUNK = 1 << 14
"""Numbers that are integrated at a time: some ten intermediate results of 128 kB each."""

_FAR = 1e4
"""Variance above which exp(C) - 1 would lose four digits, C = 1 / variance."""

_FARTHEST_KINK = 1e70
"""In standard deviations: its powers and those of angles are numbers that float64 holds."""


class _Rows(NamedTuple):
    """Of each variance: standard deviation, E[phi(f)], P(low < f < high), and the kinks that are not at 0, divided."""

    deviation: Tensor
    mean: Tensor
    inside: Tensor
    kinks: list[Tensor]


@dataclass(frozen=True)
class Clipped:
    """The function min(max(u, low), high), low <= 0 <= high, for every variance.

    By Price's theorem the value's second derivative in sigma is the density of (f, f') at pairs of kinks, with signs.
    With sigma = n sin w, n = sqrt(v v'), means m and probabilities p of being between the kinks,

        value = m m' + sigma p p' + 1/2pi int_0^asin(rho) (sigma - n sin w) S(w) dw, slope = p p' + 1/2pi int S(w) dw,

    S(w) = sum over kinks h of f and k of f' (in standard deviations) of +- exp(-(h^2 - 2 h k sin w + k^2) / 2 cos^2 w).
    The integral is by a trapezoidal rule, whose places are dense where w is near +-pi/2, the kinks' layers. The signed
    sum is written without cancellation. Accurate to 1e-10 at every scale.
    """

    low: float = -1.0
    high: float = 1.0
    normalise: bool = True

    @property
    def gain(self) -> float:
        """What the function is multiplied by."""
        if not self.normalise:
            return 1.0
        below, above = (0.5 * math.erfc(kink / math.sqrt(2)) for kink in (-self.low, self.high))
        density = [math.exp(-(kink**2) / 2) / math.sqrt(2 * math.pi) for kink in (self.low, self.high)]
        inside = 1 - below - above + self.low * density[0] - self.high * density[1]
        return 1 / math.sqrt(self.low**2 * below + self.high**2 * above + inside)

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope, computed in float64."""
        given = sigma.dtype
        first, other = (self._rows(v) for v in (variance, other_variance))
        high = extremes(variance, other_variance).high
        depth = max(_LEAST_DEPTH, 0.5 * math.log1p(high) + 5)
        inside = first.inside * other.inside
        value = sigma.double() * inside
        sign = torch.sign(value)
        cosine, sine = (leg.double() for leg in legs(sigma, variance, other_variance))
        angle, kinks = torch.atan2(sine, cosine.abs()), (first.kinks, other.kinks)
        bent, slope = _in_chunks(angle, sign, kinks, depth, high > _FAR)
        value.add_(bent.mul_(first.deviation * other.deviation)).add_(first.mean * other.mean)
        slope.mul_(sign).add_(inside)
        return value.mul_(self.gain**2).to(given), slope.mul_(self.gain**2).to(given)

    def _rows(self, variance: Tensor) -> _Rows:
        deviation, mean, inside, low, high = of_stored(variance, self, self._rows_of)
        return _Rows(deviation, mean, inside, [kink for kink, at in ((low, self.low), (high, self.high)) if at])

    def _rows_of(self, variance: Tensor) -> Tensor:
        deviation = variance.double().clamp_min(0).sqrt()
        # Both finite, as are their powers: features that vanish stay between the kinks.
        low, high = (
            (kink / deviation).clamp(-_FARTHEST_KINK, _FARTHEST_KINK) if kink else torch.zeros_like(deviation)
            for kink in (self.low, self.high)
        )
        below, above = torch.special.ndtr(low), torch.special.ndtr(-high)
        inside = (torch.erf(high / math.sqrt(2)) - torch.erf(low / math.sqrt(2))) / 2
        # The difference of the density at both kinks, without cancellation where they are close to 0.
        fallen = torch.expm1(-(low**2) / 2) - torch.expm1(-(high**2) / 2)
        mean = self.low * below + self.high * above + deviation * fallen / math.sqrt(2 * math.pi)
        return torch.stack([deviation, mean, inside, low, high])


def _in_chunks(
    angle: Tensor, sign: Tensor, kinks: tuple[list[Tensor], list[Tensor]], depth: float, far: bool
) -> tuple[Tensor, Tensor]:
    """``_integrals`` of so many numbers at a time that all of their intermediate results stay in a CPU's cache."""
    size = _CHUNK if angle.device.type == "cpu" else max(angle.numel(), 1)
    flat = [[kink.expand_as(angle).flatten() for kink in side] for side in kinks]
    angles, signs, parts = angle.flatten(), sign.flatten(), []
    for start in range(0, max(len(angles), 1), size):
        chunk = slice(start, start + size)
        first, other = ([kink[chunk] for kink in side] for side in flat)
        parts.append(_integrals(angles[chunk], signs[chunk], (first, other), depth, far))
    value, slope = (torch.cat(results).view(angle.shape) for results in zip(*parts, strict=True))
    return value, slope


def _integrals(
    angle: Tensor, sign: Tensor, kinks: tuple[list[Tensor], list[Tensor]], depth: float, far: bool
) -> tuple[Tensor, Tensor]:
    """1/2pi int (cos t - cos a) S da and 1/2pi int S da over a from t to pi/2, the angle from |w| to pi/2.

    For a negative correlation, S of the positive one with -k for k. In u = tan(a / 2) all are fractions: da =
    2 du / (1 + u^2), cos t - cos a = 2 (u^2 - u_t^2) / (1 + u^2)(1 + u_t^2).
    """
    value, slope = torch.zeros_like(angle), torch.zeros_like(angle)
    pairs = _pairs_of(*kinks, sign)
    start = torch.tan(angle / 2)
    width = (1 - start).clamp_min_(0)
    share, _, weights = between_ends(depth, 0.0, _STEP)
    for s, weight in zip(share.tolist(), weights.tolist(), strict=True):
        rise = width * s
        u = start + rise
        more = (u * u).add_(1)
        total = _signed_sum(u, more, pairs, far).mul_(width).div_(more).mul_(weight / math.pi)
        slope += total
        value += total.mul_(rise).mul_(u.add_(start)).div_(more)
    return value.mul_(2).div_(start.square_().add_(1)), slope


class _Kinks(NamedTuple):
    """What the integrals need of a kink h of f and a kink k of f': h^2, k^2, (|h| - |k|)^2 and |h k|, halved.

    Attributes:
        sign: of h k sin w, for each pair of features.
        below: 1 where that is negative, 0 elsewhere.
    """

    first: Tensor
    other: Tensor
    apart: Tensor
    product: Tensor
    sign: Tensor
    below: Tensor


def _pairs_of(first: list[Tensor], other: list[Tensor], sign: Tensor) -> list[_Kinks]:
    """All pairs of kinks: those that the sum must take together, so that both features count alike, are neighbours."""
    places = [(-1, -1)] if len(first) == 1 else [(0, 0), (1, 1), (0, 1), (1, 0)]
    result = []
    for j, k in places:
        h, g, signed = first[j].abs(), other[k].abs(), sign if j == k else -sign
        result.append(_Kinks(h * h / 2, g * g / 2, (h - g) ** 2 / 2, h * g / 2, signed, (signed < 0).to(h.dtype)))
    return result


def _signed_sum(u: Tensor, more: Tensor, pairs: list[_Kinks], far: bool) -> Tensor:
    """S at w = pi/2 - a, given u = tan(a / 2) and 1 + u^2.

    It is a second difference of E(h, k) = exp(-(h^2 - 2 h k sin w + k^2) / 2 cos^2 w). With D(h, k) = E(0, 0) - E(h, 0)
    - E(0, k) + E(h, k) it is the sum of D over pairs of kinks on the same side, less that over pairs on different
    sides; kinks at 0 have none.
    """
    fourth = (u * u).mul_(4).reciprocal_()
    # 1 / cos^2 w and 2 sin w / cos^2 w.
    inverse = (more * more).mul_(fourth)
    ratio = (2 - more).mul_(more).mul_(fourth).mul_(2)
    results = [_difference(kinks, more, inverse, ratio, far) for kinks in pairs]
    if len(results) == 1:
        return results[0]
    return results[0].add_(results[1]).sub_(results[2].add_(results[3]))


def _difference(kinks: _Kinks, more: Tensor, inverse: Tensor, ratio: Tensor, far: bool) -> Tensor:
    """D(h, k) = (1 - E(h, 0))(1 - E(0, k)) + E(h, 0) E(0, k) (exp(C) - 1), with C = h k sin w / cos^2 w.

    Of kinks on different sides of 0, or of negative correlations, C is below 0.
    """
    falls = torch.exp(-kinks.first * inverse).neg_().add_(1)
    falls.mul_(torch.exp(-kinks.other * inverse).neg_().add_(1))
    # E(h, k) for C > 0: (h^2 - 2 h k sin w + k^2) / 2 cos^2 w = (h - k)^2 / 2 cos^2 w + h k / (1 + sin w).
    whole = (kinks.apart * inverse).addcmul_(kinks.product, more).neg_().exp_()
    power = (kinks.product * ratio).neg_()
    # 1 - exp(-C), to all digits where kinks are close to 0; torch's expm1 takes ten times as long as its exp.
    rest = torch.expm1(power).neg_() if far else torch.exp(power).neg_().add_(1)
    # Below 0, exp(C) - 1 times E(h, 0) E(0, k) = E(h, k) exp(-C), which may be more than float64 holds, is another one:
    # with r = 1 - exp(-C) it is E(h, k) (r^2 - r), instead of E(h, k) r.
    return falls.addcmul_(torch.addcmul(kinks.sign, kinks.below, rest).mul_(rest), whole)
