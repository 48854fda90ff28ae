"""Duals from scales at which all is linear to those at which all is a limit, against quadrature with ever finer pieces.

``test_large_variances_are_kinked`` has the limits themselves, and scales beyond these.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import pytest
import torch

import torch_cntk as tc
from tests.helpers.expectations import expectation
from torch_cntk.layers.registry import ACTIVATIONS

# The quadrature does not follow waves, nor what grows like an exponential; their closed forms have tests of their own.
NAMES = [name for name in ACTIVATIONS if name not in ("sin", "rbf", "exp", "gaussian")]
SCALES = (1e-9, 7.0, 3e2, 1e6, 2e8)
COSINES = (1.0, 0.9999, 0.6, -1.0)
BOUNDED = ("tanh", "logistic", "softsign")
DIFFERENT = ("tanh", "softsign", "silu", "elu", "relu6", "erf", "gelu", "step")
"""A kind of function each; they take a while."""


def of(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor(number, dtype=torch.float64) for number in numbers]


@lru_cache(maxsize=8)
def moments(layer: tc.layers.Activation, scale: float) -> tuple[float, float]:
    value, slope = expectation(layer, *of(scale**2, scale**2, 1.0))
    return float(value), float(slope)


def error(layer: tc.layers.Activation, first: float, other: float, cosine: float) -> tuple[float, float]:
    """Of value and slope, relative to the roots of both moments."""
    v, w, rho = of(first**2, other**2, cosine)
    exact = expectation(layer, v, w, rho)
    sizes = [moments(layer, scale) for scale in (first, other)]
    found = layer._dual()((rho * (first * other))[None], v[None], w[None])
    errors = []
    for k in (0, 1):
        size = math.sqrt(sizes[0][k]) * math.sqrt(sizes[1][k])
        errors.append(abs(float(found[k]) - float(exact[k])) / size if size else abs(float(found[k])))
    return errors[0], errors[1]


@pytest.mark.parametrize(("name", "ratio"), [(name, 1.0) for name in NAMES] + [(name, 40.0) for name in DIFFERENT])
def test_every_scale(name: str, ratio: float) -> None:
    """What the tables state, and what 12 points a piece see; rounding of sigma alone is 1e-13 at the smallest angle."""
    layer = ACTIVATIONS[name]()
    for scale, cosine in itertools.product(SCALES, COSINES):
        if name in BOUNDED and scale > 1e8 and ratio > 1:
            continue
        value, slope = error(layer, scale, scale * ratio, cosine)
        assert value <= 1e-9, (scale, cosine)
        assert slope <= 3e-9, (scale, cosine)


@pytest.mark.parametrize("name", ["tanh", "softsign", "relu6"])
@pytest.mark.parametrize("scale", [0.3, 700.0])
def test_one_scale_far_beyond_others(name: str, scale: float) -> None:
    layer = ACTIVATIONS[name]()
    for far, cosine in itertools.product((3e9, 1e12), COSINES):
        value, slope = error(layer, scale, far, cosine)
        assert value <= 2e-8, (far, cosine)
        assert slope <= 2e-8, (far, cosine)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize(("scale", "far"), [(1e9, 1e12), (1e9, 3e9), (1e3, 2e9), (1e8, 1e40)])
def test_scales_of_which_the_ratio_shows_are_refused(name: str, scale: float, far: float) -> None:
    """Parallel features beyond 2e18 and below: the table's ends stand for another ratio."""
    with pytest.raises(ValueError, match=r"expected variances below 2e\+18, or all of them beyond it"):
        error(ACTIVATIONS[name](), scale, far, 1.0)
