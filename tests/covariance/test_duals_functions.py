"""Duals without a closed form against quadrature written apart from the package, limits, and Monte Carlo."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_cntk as tc
from torch_cntk.covariance import duals

ACTIVATIONS: dict[str, tuple[Callable[..., Any], Any, tuple[float, ...]]] = {
    "tanh": (lambda **o: tc.Tanh(**o), torch.tanh, ()),
    "logistic": (lambda **o: tc.Logistic(**o), torch.sigmoid, ()),
    "softsign": (lambda **o: tc.Softsign(**o), functional.softsign, (0,)),
    "silu": (lambda **o: tc.SiLU(**o), functional.silu, ()),
    "mish": (lambda **o: tc.Mish(**o), functional.mish, ()),
    "softplus": (lambda **o: tc.Softplus(**o), functional.softplus, ()),
    "softplus 3": (lambda **o: tc.Softplus(3.0, **o), lambda u: functional.softplus(u, 3.0, 60), ()),
    "elu": (lambda **o: tc.ELU(**o), functional.elu, (0,)),
    "elu 0.3": (lambda **o: tc.ELU(0.3, **o), lambda u: functional.elu(u, 0.3), (0,)),
    "celu": (lambda **o: tc.CELU(**o), functional.celu, (0,)),
    # torch.celu has 1 / alpha in single precision.
    "celu 0.4": (
        lambda **o: tc.CELU(0.4, **o),
        lambda u: torch.where(u > 0, u, 0.4 * torch.expm1(u.clamp_max(0) / 0.4)),
        (0,),
    ),
    "selu": (lambda **o: tc.SELU(**o), functional.selu, (0,)),
    "hardtanh": (lambda **o: tc.Hardtanh(**o), functional.hardtanh, (-1, 1)),
    "hardtanh -0.5 2": (lambda **o: tc.Hardtanh(-0.5, 2.0, **o), lambda u: functional.hardtanh(u, -0.5, 2), (-0.5, 2)),
    "relu6": (lambda **o: tc.ReLU6(**o), functional.relu6, (0, 6)),
    "erf": (lambda **o: tc.Erf(**o), torch.erf, ()),
    "gelu": (lambda **o: tc.GELU(**o), functional.gelu, ()),
    "sine": (lambda **o: tc.Sin(**o), torch.sin, ()),
    "step": (lambda **o: tc.Step(**o), lambda u: (u > 0).to(u.dtype), (0,)),
}
"""Layer, function, and where it or its derivatives jump."""

HOMOGENEOUS = {
    "relu": (tc.ReLU(), lambda u: math.sqrt(2) * functional.relu(u)),
    "leaky": (tc.LeakyReLU(-0.4), lambda u: math.sqrt(2 / 1.16) * functional.leaky_relu(u, -0.4)),
    "abrelu": (tc.ABReLU(-2.0, 0.5), lambda u: math.sqrt(2 / 4.25) * torch.where(u > 0, 0.5 * u, -2 * u)),
    "absolute value": (tc.Abs(), torch.abs),
    "sign": (tc.Sign(), torch.sign),
}

NAMES = [name for name in ACTIVATIONS if name not in ("erf", "gelu", "sine", "step")]
"""Those without a closed form."""


@lru_cache
def panels(points: int = 12, finest: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre places and weights on [-1, 1], by panels that halve towards 0."""
    places, weights = np.polynomial.legendre.leggauss(points)
    edges = [0.0, *(2.0**-k for k in range(finest, -1, -1))]
    right = [((a + b) / 2 + (b - a) / 2 * places, (b - a) / 2 * weights) for a, b in itertools.pairwise(edges)]
    x, w = (np.concatenate([part[k] for part in right]) for k in (0, 1))
    return np.concatenate([-x[::-1], x]), np.concatenate([w[::-1], w])


def derivative(function: Any, u: torch.Tensor) -> torch.Tensor:
    u = u.detach().requires_grad_()
    (slope,) = torch.autograd.grad(function(u).sum(), u)
    return slope


def rule(kinks: Any, shift: np.ndarray | float, deviation: float) -> Any:
    """Places z in [-9, 9] and weights times density, dense where shift + deviation z is a kink or 0."""
    x, w = panels()
    centres = sorted({(kink - shift) / deviation for kink in (*kinks, 0.0)})
    bounds = [-9.0, *(c for c in centres if -9 < c < 9), 9.0]
    places, weights = [], []
    for a, b in itertools.pairwise(bounds):
        # Both ends may be layers: halves of the panels at each.
        half = (b - a) / 2
        right = x > 0
        places += [a + half * x[right], b - half * x[right]]
        weights += [half * w[right]] * 2
    z = np.concatenate(places)
    return z, np.concatenate(weights) * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def expectations(function: Any, kinks: Any, sigma: float, v: float, w: float) -> tuple[float, float]:
    """E[phi(f) phi(f')] and E[phi'(f) phi'(f')] by conditioning on f, on torch's own function and derivative."""
    rho = max(-1.0, min(1.0, sigma / math.sqrt(v * w)))
    rest = math.sqrt(max(0.0, (1 - rho) * (1 + rho))) * math.sqrt(w)
    z, weight = rule(kinks, 0.0, math.sqrt(v))
    mean = rho * math.sqrt(w) * z
    values: tuple[Any, ...]
    if rest < 1e-9 * math.sqrt(w):
        inner = torch.from_numpy(mean)
        values = function(inner), derivative(function, inner)
    else:
        rules = [rule(kinks, m, rest) for m in mean]
        counts = [len(places) for places, _ in rules]
        at = torch.from_numpy(np.concatenate([m + rest * places for m, (places, _) in zip(mean, rules, strict=True)]))
        weights = torch.from_numpy(np.concatenate([weights for _, weights in rules]))
        rows = torch.repeat_interleave(torch.arange(len(z)), torch.tensor(counts))
        values = tuple(
            torch.zeros(len(z), dtype=torch.float64).index_add_(0, rows, weights * part)
            for part in (function(at), derivative(function, at))
        )
    outer = torch.from_numpy(math.sqrt(v) * z)
    own = function(outer), derivative(function, outer)
    results = [torch.dot(torch.from_numpy(weight), mine * other) for mine, other in zip(own, values, strict=True)]
    return float(results[0]), float(results[1])


def dual_of(name: str, **options: Any) -> Any:
    return ACTIVATIONS[name][0](**options)._dual()


def of(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor([number], dtype=torch.float64) for number in numbers]


PAIRS = [(1.0, 1.0, 0.3), (0.01, 0.013, 1.2), (25.0, 25.0, 0.05), (25.0, 9.0, 2.5), (1e3, 1.0, 0.8), (4.0, 4.0, 3.0)]
"""Variances and an angle."""


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_the_expectations(name: Any) -> None:
    _, function, kinks = ACTIVATIONS[name]
    dual = dual_of(name, normalise=False)
    for v, w, angle in PAIRS:
        sigma = math.sqrt(v * w) * math.cos(angle)
        exact, exact_slope = expectations(function, kinks, sigma, v, w)
        value, slope = (float(part) for part in dual(*of(sigma, v, w)))
        sizes = [expectations(function, kinks, u, u, u) for u in (v, w)]
        assert abs(value - exact) <= 2e-9 * math.sqrt(sizes[0][0] * sizes[1][0])
        assert abs(slope - exact_slope) <= 2e-9 * math.sqrt(sizes[0][1] * sizes[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_equal_features_have_the_second_moment(name: Any) -> None:
    """Exact whatever else there is: the next layer takes roots of what is missing."""
    _, function, kinks = ACTIVATIONS[name]
    dual = dual_of(name, normalise=False)
    few = torch.tensor([1e-6, 0.01, 1.0, 2.0, 30.0, 1e4], dtype=torch.float64)
    many = torch.rand(300, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    many[:3] = few[1:4]
    found = dual(few.clone(), few, few)[0]
    for v, value in zip(few.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(expectations(function, kinks, v, v, v)[0], rel=1e-10)
    torch.testing.assert_close(dual(many.clone(), many, many)[0][:3], found[1:4], rtol=7e-15, atol=0)
    one = dual_of(name)(*of(1, 1, 1))[0]
    torch.testing.assert_close(one, torch.ones_like(one), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_interpolation_between_many_variances(name: Any) -> None:
    """A table of all variances between two gives what tables of single ones do."""
    g = torch.Generator().manual_seed(1)
    dual = dual_of(name)
    v = torch.rand(40, 1, dtype=torch.float64, generator=g) * 20
    w = torch.rand(1, 30, dtype=torch.float64, generator=g) * 20
    sigma = (2 * torch.rand(40, 30, dtype=torch.float64, generator=g) - 1) * (v * w).sqrt()
    found = dual(sigma.clone(), v, w)
    size = [(dual(u.clone(), u, u)) for u in (v, w)]
    for i, j in ((0, 0), (3, 7), (20, 11), (39, 29)):
        alone = dual(sigma[i, j].clone().reshape(1), v[i], w[:, j])
        for k in (0, 1):
            scale = math.sqrt(float(size[0][k][i, 0] * size[1][k][0, j]))
            assert abs(float(found[k][i, j] - alone[k])) <= 2e-9 * scale
    mirrored = dual(sigma.T.clone(), w.T.contiguous(), v.T.contiguous())
    for a, b in zip(found, mirrored, strict=True):
        assert torch.equal(a, b.T)


@pytest.mark.parametrize("name", NAMES)
def test_small_variances_are_linear(name: Any) -> None:
    """phi(u) = phi(0) + a u above 0 and phi(0) + b u below, to 1e-60 or so."""
    function = ACTIVATIONS[name][1]
    dual = dual_of(name, normalise=False)
    tiny = torch.tensor([-1e-30, 0.0, 1e-30], dtype=torch.float64)
    low, middle, high = function(tiny).tolist()
    slopes = derivative(function, tiny).tolist()
    below, above = slopes[0], slopes[2]
    for exponent in (-200, -100, -60):
        v, w = 10.0**exponent, 3 * 10.0**exponent
        sigma = math.sqrt(v) * math.sqrt(w) * math.cos(0.7)
        value, slope = (float(part) for part in dual(*of(sigma, v, w)))
        if middle:
            assert value == pytest.approx(middle**2, rel=1e-10)
        else:
            square = (above**2 + below**2) / 2
            kinked = duals.Rectifier(below, above)(*of(sigma, v, w))
            assert value == pytest.approx(square * float(kinked[0]), rel=1e-10)
        parted = (above**2 + below**2) / 2 - (above - below) ** 2 / 2 * 0.7 / math.pi
        assert slope == pytest.approx(parted, rel=1e-9)
        assert low <= middle <= high


@pytest.mark.parametrize("name", NAMES)
def test_large_variances_are_kinked(name: Any) -> None:
    """phi(u) / u tends to a slope on either side, or phi to two limits."""
    function = ACTIVATIONS[name][1]
    dual = dual_of(name, normalise=False)
    low, high = function(torch.tensor([-1e30, 1e30], dtype=torch.float64)).tolist()
    bounded = abs(high) < 1e20
    for exponent in (30, 100, 200):
        v, w = 10.0**exponent, 10.0**exponent
        for angle in (0.7, 2.4):
            sigma = v * math.cos(angle)
            value, slope = (float(part) for part in dual(*of(sigma, v, w)))
            if bounded:
                limit, limit_slope = duals.Jump(low, high)(*of(sigma, v, w))
                # Softsign reaches its limits slowly, like 1 / u.
                assert value == pytest.approx(float(limit), rel=5e-9, abs=1e-9 * high**2)
                # E[phi'(f) phi'(f')] = (high - low)^2 times the density of (f, f') at (0, 0).
                assert slope == pytest.approx((high - low) ** 2 / (2 * math.pi * v * math.sin(angle)), rel=1e-8)
            else:
                limit, limit_slope = duals.Rectifier(0, 1)(*of(sigma, v, w))
                steep = high / 1e30
                assert value == pytest.approx(steep**2 / 2 * float(limit), rel=1e-9, abs=1e-9 * v)
                assert slope == pytest.approx(steep**2 / 2 * float(limit_slope), abs=1e-9)
        value, slope = (float(part) for part in dual(*of(v, v, v)))
        assert math.isfinite(value)
        if bounded:
            # E[phi'(f)^2] = integral of phi'^2, over sqrt(2 pi v).
            assert 0 < slope * math.sqrt(v) < 10 * high**2


@pytest.mark.parametrize("name", NAMES)
def test_float32(name: Any) -> None:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(20, 4, generator=g)
    sigma, v = x @ x.T, x.square().sum(1)
    sigma.diagonal().copy_(v)
    dual = dual_of(name)
    found = dual(sigma.clone(), v[:, None], v)
    exact = dual(sigma.double(), v.double()[:, None], v.double())
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 2e-5 * theirs.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_vanishing_features(name: Any) -> None:
    _, function, kinks = ACTIVATIONS[name]
    dual = dual_of(name, normalise=False)
    at = float(function(torch.zeros(1, dtype=torch.float64)))
    sigma, v, w = torch.tensor([[0.0, 0.0, 0.3], [0.0, 0.0, 0.5], [0.0, 2.0, 2.0]], dtype=torch.float64)
    value, slope = dual(sigma.clone(), v, w)
    assert torch.isfinite(slope).all()
    assert float(value[0]) == pytest.approx(at**2, abs=1e-13)
    if not at:
        assert torch.equal(value[:2], torch.zeros(2).double())
    exact = expectations(function, kinks, 0.3, 0.5, 2.0)
    assert float(value[2]) == pytest.approx(exact[0], rel=1e-8)
    assert float(slope[2]) == pytest.approx(exact[1], rel=1e-8)


@pytest.mark.parametrize("name", [*ACTIVATIONS, *HOMOGENEOUS])
@pytest.mark.parametrize("variance", [0.01, 1.0, 25.0])
def test_monte_carlo(name: Any, variance: Any) -> None:
    """Samples of Gaussian pairs, through the layer's own forward pass: five standard errors, or five rare events."""
    layer = ACTIVATIONS[name][0](normalise=False) if name in ACTIVATIONS else HOMOGENEOUS[name][0]
    g = torch.Generator().manual_seed(3)
    z = torch.randn(2, 200_000, dtype=torch.float64, generator=g)
    other, angle = 0.6 * variance, 0.9
    f = math.sqrt(variance) * z[0]
    h = math.sqrt(other) * (math.cos(angle) * z[0] + math.sin(angle) * z[1])
    value, slope = (
        float(x) for x in layer._dual()(*of(math.sqrt(variance * other) * math.cos(angle), variance, other))
    )
    steps = name in ("sign", "step")
    for sample, expected in (
        (layer(f) * layer(h), value),
        *([] if steps else [(derivative(layer, f) * derivative(layer, h), slope)]),
    ):
        sample = sample.detach()
        assert abs(float(sample.mean()) - expected) <= 5 * float(sample.std()) / math.sqrt(len(f)) + 5 / len(f)


@pytest.mark.parametrize("name", ["tanh", "silu", "softplus", "elu", "relu6", "erf", "gelu"])
def test_sixteen_residual_blocks(name: Any) -> None:
    """Kernels whose variance grows from block to block, by the recursion with the quadrature of this file."""
    make, function, kinks = ACTIVATIONS[name]
    gain = make().gain
    x = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    net = tc.Sequential(tc.Linear(4, 8), *(tc.Residual(make(), tc.Linear(8, 8)) for _ in range(16)), tc.Linear(8, 1))
    sigma = (x @ x.T / 4).tolist()
    s, v, w = sigma[0][1], sigma[0][0], sigma[1][1]
    theta = s
    for _ in range(16):
        value, slope = (gain**2 * e for e in expectations(function, kinks, s, v, w))
        # A weight layer behind the activation: Theta' = Theta slope + value.
        theta = theta + theta * slope + value
        v, w = (u + gain**2 * expectations(function, kinks, u, u, u)[0] for u in (v, w))
        s = s + value
    found = net.gram(x)[0, 1], net.gram(x, kind="nngp")[0, 1]
    assert float(found[1]) == pytest.approx(s, rel=1e-8)
    assert float(found[0]) == pytest.approx(theta + s, rel=1e-8)


TORCH = {
    "tanh": nn.Tanh(),
    "logistic": nn.Sigmoid(),
    "softsign": nn.Softsign(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "softplus 3": nn.Softplus(3.0),
    "elu": nn.ELU(),
    "elu 0.3": nn.ELU(0.3),
    "celu": nn.CELU(),
    "celu 0.4": nn.CELU(0.4),
    "selu": nn.SELU(),
    "hardtanh": nn.Hardtanh(),
    "hardtanh -0.5 2": nn.Hardtanh(-0.5, 2.0),
    "relu6": nn.ReLU6(),
}


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_those_of_torch(name: Any) -> None:
    u = torch.linspace(-30, 30, 601)
    make = ACTIVATIONS[name][0]
    plain, layer = make(normalise=False), make()
    assert torch.equal(plain(u), TORCH[name](u))
    assert plain.gain == 1
    torch.testing.assert_close(layer(u), layer.gain * TORCH[name](u))
    again = tc.layers.from_description(layer.description())
    assert repr(again) == repr(layer)
    assert again.description() == layer.description()
    # A normalisation over channels is exact behind odd functions only, whose mean is 0.
    odd = torch.allclose(plain(u), -plain(-u))
    with nullcontext() if odd else pytest.raises(ValueError, match="mean over the channels"):
        tc.Sequential(tc.Conv1d(2, 4, 1), layer, tc.ChannelNorm())


def test_bounded_functions_refuse_what_they_do_not_know() -> None:
    """Parallel features beyond 2e18 of unequal length, beside short ones: their slope depends on the ratio."""
    v = torch.tensor([1.0, 1e30, 1e32], dtype=torch.float64)
    dual = duals.Tabulated(duals.functions.Tanh())
    with pytest.raises(ValueError, match="expected variances below"):
        dual(torch.zeros(3, 3, dtype=torch.float64), v[:, None], v)
    # Among themselves they are known, by the ratio alone.
    far = v[1:]
    value, slope = dual((far[:, None] * far).sqrt(), far[:, None], far)
    near = far * 1e-20
    near_value, near_slope = dual((near[:, None] * near).sqrt(), near[:, None], near)
    torch.testing.assert_close(value, near_value, rtol=1e-4, atol=0)
    torch.testing.assert_close(slope * 1e10, near_slope, rtol=1e-4, atol=0)


# Elementwise.


@pytest.mark.parametrize(("function", "closed"), [(torch.erf, tc.Erf), (functional.gelu, tc.GELU), (torch.sin, tc.Sin)])
def test_elementwise_is_accurate_or_refuses(function: Any, closed: Any) -> None:
    """Residual networks grow the variance: by closed form, to the tolerance of a block times their number."""
    x = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def net(make: Any, blocks: Any) -> Any:
        return tc.Sequential(tc.Linear(10, 8), *(tc.Residual(make(), tc.Linear(8, 8)) for _ in range(blocks)))

    refused = []
    for blocks in (1, 4, 8, 16, 32):
        try:
            found = net(lambda: tc.Elementwise(function), blocks).gram(x)
        except ValueError as error:
            assert "at variance" in str(error)
            assert "1.0e-06" in str(error)
            refused.append(blocks)
            continue
        exact = net(closed, blocks).gram(x)
        assert float((found / exact - 1).abs().max()) <= 1e-5 * blocks
    assert 4 not in refused


def test_elementwise_of_a_large_input_is_refused() -> None:
    x = 8 * torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = tc.Sequential(tc.Linear(10, 8), tc.Elementwise(torch.tanh), tc.Linear(8, 1))
    with pytest.raises(ValueError, match="they miss a share of"):
        net.gram(x)
    kinked = tc.Sequential(tc.Linear(10, 8), tc.Elementwise(functional.relu), tc.Linear(8, 1))
    exact = tc.Sequential(tc.Linear(10, 8), tc.ReLU(), tc.Linear(8, 1))
    # Homogeneous: as accurate as at variance 1, which is what was asked for.
    assert float((kinked.gram(x) - exact.gram(x)).abs().max() / exact.gram(x).max()) < 2e-2


def test_elementwise_keeps_equal_features_equal() -> None:
    """How many terms there are is decided for each variance alone."""
    dual = duals.Hermite(torch.tanh)
    v = torch.tensor([0.5, 1.0, 4.0, 9.0, 14.0], dtype=torch.float64)
    together = dual((v[:, None] * v).sqrt(), v[:, None], v)[0].diagonal()
    alone = torch.cat([dual(u.clone(), u, u)[0] for u in v[:, None]])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=0)


def test_elementwise_finds_what_its_points_miss() -> None:
    """A derivative that is 0 at all points, and a peak between them, is no derivative of 0."""
    net = tc.Sequential(tc.Linear(2, 8), tc.Elementwise(functional.hardtanh), tc.Linear(8, 1))
    with pytest.raises(ValueError, match="at variance"):
        net.gram(torch.full((1, 2), 300.0))
    vanishing = net.gram(torch.zeros(1, 2))
    assert torch.equal(vanishing, torch.zeros(1, 1).double())
