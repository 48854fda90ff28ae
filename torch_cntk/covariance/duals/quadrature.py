"""Expectations of any function that is smooth on both sides of 0, by trapezoidal rules in logarithms.

A kink or a jump of phi or of its derivatives at 0 does no harm: every quadrant of the plane (f, f') is integrated by
itself. Nor does a large variance, which leaves all that phi does in thin layers along the axes: in the logarithm of
the distance from them a layer is as wide as any other. The rules converge exponentially: integrands are analytic in a
strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Function", "Pair", "between_ends", "moments", "pairs"]

_ANGULAR_STEP = 0.3
"""Of the logarithm of the distance from an axis. Functions with poles on the imaginary axis leave a strip of width pi/2
on either side, hence exp(-pi^2 / step) = 5e-15, and some digits less where the rule is stretched."""

_RADIAL_STEP = 0.15
"""Of log r. exp(-r^2 / 2) decays within pi/4 of the real axis, hence exp(-pi^2 / 2 / step) = 5e-15."""

_LAYERS = 2.0
"""Of the logarithms: up to so far beyond 1 / standard deviation there are layers to resolve."""

_TAIL = 3.6
"""And so far beyond that, where functions are powers, the places are spread out by an exponential: 2 exp(3.6) = 73 is
the logarithm of what is left out."""

_FARTHEST = math.log(8.5)
"""Of log r: exp(-8.5^2 / 2) = 2e-16."""

Pair = tuple[Tensor, Tensor]


class Function(Protocol):
    """A function phi that is smooth on both sides of 0, pointwise on tensors."""

    def value(self, u: Tensor) -> Tensor:
        """Return phi(u)."""
        ...

    def slope(self, u: Tensor) -> Tensor:
        """Return phi'(u)."""
        ...


def moments(phi: Function, variances: Tensor) -> Pair:
    """E[phi(f)^2] and E[phi'(f)^2] for variances [n], in float64."""
    places, weights = _radial(float(variances.max()) ** 0.5)
    weights = weights / places * torch.exp(-places.square() / 2) / math.sqrt(2 * math.pi)
    inputs = variances.sqrt()[:, None] * places
    value, slope = (
        (function(inputs).square() + function(-inputs).square()) @ weights for function in (phi.value, phi.slope)
    )
    return value, slope


def pairs(phi: Function, variances: Tensor, angles: Tensor) -> Pair:
    """E[phi(f) phi(f')] and E[phi'(f) phi'(f')] at angles t and pi - t; the correlation is cos t.

    By quadrants: with e and o the even and the odd part of phi, E = M_e(pi - t) + M_e(t) + M_o(pi - t) - M_o(t), where
    M_g(w) is twice the mean of g(f) g(f') over one quadrant, which is w wide. Products of even and odd parts have no
    mean.

    Args:
        phi: the function.
        variances: of f and of f', [n].
        angles: t, [p], from 0 to pi.

    Returns:
        value and slope, [n, n, p, 2] each in float64; at t and at pi - t.
    """
    values: list[Tensor] = []
    slopes: list[Tensor] = []
    for angle in angles.tolist():
        widths = (math.pi - angle, angle)
        wide, narrow = (_quadrant(phi, variances.sqrt(), *order) for order in (widths, widths[::-1]))
        for results, (even, odd), (other_even, other_odd) in zip((values, slopes), wide, narrow, strict=True):
            both = even + other_even
            results.append(torch.stack([both + odd - other_odd, both - odd + other_odd], -1))
    return torch.stack(values, 2), torch.stack(slopes, 2)


def _quadrant(phi: Function, deviations: Tensor, width: float, beyond: float) -> tuple[Pair, Pair]:
    """(M_e, M_o) of phi and of phi', [n, n] each, for a quadrant of this width, and what it is short of pi by."""
    largest = float(deviations.max())
    lengths, radial = _radial(largest)
    depth = _LAYERS + math.log1p(largest)
    share, rest, angular = between_ends(depth, depth)
    # f = sqrt(v) r sin a and f' = sqrt(v') r sin(width - a). Beyond pi/2 from the other side, where sin is small.
    near = width * share
    sines = torch.sin(torch.where(near <= math.pi / 2, near, beyond + width * rest))
    weights = (radial * torch.exp(-lengths.square() / 2))[:, None] * (angular * (width / math.pi))
    inputs = deviations[:, None, None] * (lengths[:, None] * sines)
    value, slope = (_parts(function, inputs, weights) for function in (phi.value, phi.slope))
    return value, slope


def _parts(function: Callable[[Tensor], Tensor], inputs: Tensor, weights: Tensor) -> Pair:
    """M_e and M_o."""
    above, below = function(inputs), function(-inputs)
    results = []
    for part in ((above + below) / 2, (above - below) / 2):
        # The places of f' are those of f in reverse.
        product = torch.tensordot(part * weights, part.flip(-1), dims=([1, 2], [1, 2]))
        results.append((product + product.T) / 2)
    return results[0], results[1]


def _radial(largest: float) -> Pair:
    """Places r and weights of the integral over r dr, for functions that are a power of r below 1 / largest."""
    depth = _LAYERS + math.log1p(largest)
    q = torch.arange(-depth - _TAIL, _FARTHEST, _RADIAL_STEP, dtype=torch.float64)
    bend = torch.exp(-q - depth)
    places = torch.exp(q - bend)
    return places, places.square() * (1 + bend) * _RADIAL_STEP


def between_ends(below: float, above: float, step: float = _ANGULAR_STEP) -> tuple[Tensor, Tensor, Tensor]:
    """A rule for the integral over s from 0 to 1 of functions that are smooth in log s, and in log(1 - s) at the end.

    Args:
        below: the function is a power of s where s is below exp(-below).
        above: as for 1 - s.
        step: of the logarithms.

    Returns:
        places s, the 1 - s, and weights.
    """
    first, last = math.ceil((below + _TAIL) / step), math.ceil((above + _TAIL) / step)
    q = step * torch.arange(-first, last + 1, dtype=torch.float64)
    falling, rising = torch.exp(-q - below), torch.exp(q - above)
    share, rest = torch.sigmoid(q - falling + rising), torch.sigmoid(falling - rising - q)
    return share, rest, share * rest * (1 + falling + rising) * step
