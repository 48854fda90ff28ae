"""How far rounding and the stated errors of activations may move a kernel: by recursions that are moved by as much.

A constant would be too strict for some networks and too lenient for others: an error of 1e-15 of a covariance is 1e-8
of a small angle, a variance of 1e12 makes 1e-3 of it in the phase of a sine, and layers behind hand all of that on.
"""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers import brute_force, expectations

ROUNDING = 4e-15
"""Of a correlation: that of some ten additions, and half of what ``duals.base.ROUNDING`` takes for equal."""
UNSURE = 1e-15
"""Correlations closer to 1 are those of equal features, whatever rounding does."""
TABLES = (3e-10, 3e-9)
"""Of value and slope, relative to the roots of both moments: what ``duals.Tabulated`` and ``Clipped`` state, and what
the quadrature of ``expectations`` sees of functions that are smooth."""
MARGIN = 2.0
"""Errors of several places add up otherwise than here, where all have one sign."""
WAVES = (tc.Sin, tc.RBF, tc.Exp)
"""Activations that tell variances apart, and no angles."""
EXACT = (tc.ReLU, tc.LeakyReLU, tc.ABReLU, tc.Abs, tc.Sign, tc.Step, tc.Erf, tc.Gaussian, *WAVES)
"""Activations of which package and recursion are exact to rounding."""


def bound(net: tc.Layer, sigma: Tensor, kind: str, exact: Tensor) -> float:
    """How far a kernel may be off the recursion, relative to its largest entry.

    Correlations before each activation are moved by ``ROUNDING``, up and down, and what activations with tables say by
    ``TABLES``; equal features stay equal.

    Args:
        net: the network.
        sigma: the prior's covariance.
        kind: "nngp" or "ntk".
        exact: that kernel, by the recursion.
    """
    largest, errors = float(exact.abs().max()), [0.0]
    for sign in (1.0, -1.0):
        with mock.patch.object(expectations, "activate", _moved(sign)):
            moved = dict(zip(("nngp", "ntk"), brute_force.propagate(net, sigma), strict=True))[kind]
        errors.append(float((moved - exact).abs().max()) / largest if largest > 0 else 0.0)
    return MARGIN * max(errors)


def _moved(sign: float) -> Any:
    original = expectations.activate

    def activate(layer: Any, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = original(layer, _nudged(sigma, sign, waves=isinstance(layer, WAVES)), theta)
        if isinstance(layer, EXACT):
            return value, slope
        # Values of equal features are exact.
        value = value + sign * TABLES[0] * torch.where(_equal(sigma), 0, _norm(value))
        return value, slope + sign * TABLES[1] * _norm(slope)

    return activate


def _nudged(sigma: Tensor, sign: float, *, waves: bool) -> Tensor:
    """Covariances of which the correlation is larger or smaller; the variances stay.

    Args:
        sigma: covariances.
        sign: 1 or -1.
        waves: whether equal features may differ by rounding too.
    """
    norm = _norm(sigma)
    moved = torch.where(sigma.abs() < norm, (sigma + sign * ROUNDING * norm).clamp(-norm, norm), sigma)
    kept = _diagonal_mask(sigma) if waves else _equal(sigma)
    if waves:
        moved = sigma - ROUNDING * sigma if sign < 0 else moved
    return torch.where(kept, sigma, moved)


def _equal(sigma: Tensor) -> Tensor:
    """Whether features are the same, or opposite."""
    norm = _norm(sigma)
    return norm - sigma.abs() <= UNSURE * norm


def _norm(sigma: Tensor) -> Tensor:
    v, other = expectations.variances(sigma)
    return v.clamp_min(0).sqrt() * other.clamp_min(0).sqrt()


def _diagonal_mask(sigma: Tensor) -> Tensor:
    pixels = math.isqrt(sigma.numel())
    return torch.eye(pixels, dtype=torch.bool).reshape(sigma.shape)
