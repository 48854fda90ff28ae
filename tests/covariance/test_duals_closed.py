"""Duals in closed form against the textbook's formulas in hundreds of digits, at scales from 1e-100 to 1e100."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance import duals

BLUR = 2.0**-46
"""What 1 - |rho| may be off by: equal features have an angle of 0, at the price of those within 1e-7 of it."""


def points(seed: int = 0, count: int = 60, decades: float = 200.0) -> list[tuple[float, float, float]]:
    """(sigma, v, v') in float64: half of the pairs of like scale, angles from 1e-8 to pi - 1e-8, and 0 and pi."""
    draw = np.random.default_rng(seed)
    result = []
    for k in range(count):
        first = 10 ** draw.uniform(-decades, decades)
        other = first * 10 ** draw.uniform(-1, 1) if k % 2 else 10 ** draw.uniform(-decades, decades)
        angle = [10 ** draw.uniform(-8, 0), draw.uniform(0, math.pi), math.pi - 10 ** draw.uniform(-8, 0)][k % 3]
        if k % 10 == 0:
            other, angle = first, 0.0
        if k % 10 == 1:
            angle = math.pi
        cosine = -1.0 if angle == math.pi else math.cos(angle)
        sigma = first if first == other and angle == 0 else math.sqrt(first) * math.sqrt(other) * cosine
        result.append((sigma, first, other))
    return result


class Exact:
    """What is known of a pair, in enough digits that 1 + v does not lose v, and the rounding of its inputs shows."""

    def __init__(self, sigma: float, first: float, other: float) -> None:
        self.sigma, self.v, self.w = mp.mpf(sigma), mp.mpf(first), mp.mpf(other)
        self.n = mp.sqrt(self.v * self.w)
        # Rounding may put the correlation beyond 1.
        self.rho = max(mp.mpf(-1), min(mp.mpf(1), self.sigma / self.n))
        self.sigma = self.rho * self.n
        self.t = mp.acos(self.rho)


def rectifier(p: Exact, below: float = 0, above: float = 1) -> Any:
    bend = mp.mpf(above - below) ** 2 / (mp.mpf(above) ** 2 + mp.mpf(below) ** 2) / mp.pi
    slope = 1 - bend * p.t
    return p.sigma * slope + bend * p.n * mp.sin(p.t), slope


def erf(p: Exact) -> Any:
    square = (1 + 2 * p.v) * (1 + 2 * p.w)
    return 2 / mp.pi * mp.asin(2 * p.sigma / mp.sqrt(square)), 4 / mp.pi / mp.sqrt(square - 4 * p.sigma**2)


def gelu(p: Exact) -> Any:
    square = (1 + p.v) * (1 + p.w)
    d = mp.sqrt(square - p.sigma**2)
    t = mp.atan(p.sigma / d)
    value = p.sigma * (mp.mpf(1) / 4 + t / (2 * mp.pi)) + (p.sigma**2 + p.v * p.w * d**2) / (2 * mp.pi * square * d)
    bracket = 1 / d**2 + (1 - p.v * p.w) / square + 1
    return value, mp.mpf(1) / 4 + t / (2 * mp.pi) + p.sigma * bracket / (2 * mp.pi * d)


def sine(p: Exact) -> Any:
    mean = (p.v + p.w) / 2
    return (mp.exp(p.sigma - mean) - mp.exp(-p.sigma - mean)) / 2, (
        mp.exp(p.sigma - mean) + mp.exp(-p.sigma - mean)
    ) / 2


def evaluate(dual: Any, given: Any) -> Any:
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*given, strict=True)]
    value, slope = dual(*(column.clone() for column in columns))
    return value.tolist(), slope.tolist()


@pytest.fixture(autouse=True)
def digits() -> Iterator[Any]:
    # 1 + v keeps 50 digits of 1 at v = 1e200, and those of (v v' - sigma^2) / v v' = 1e-32 in squares.
    with mp.workdps(550):
        yield


def blurred_angle(t: Any) -> float:
    """What an angle is off by if 1 - |rho| is by BLUR."""
    t = min(t, mp.pi - t)
    return float(min(mp.sqrt(2 * BLUR), BLUR / max(t, mp.mpf(10) ** -30)))


@pytest.mark.parametrize(
    ("below", "above"), [(0, 1), (0.1, 1), (-1, 1), (-0.3, 1), (3, -0.5), (1, 1), (0, -2), (1e-200, 1e200), (-2, 0)]
)
def test_two_slopes_at_every_scale(below: Any, above: Any) -> None:
    given = points()
    values, slopes = evaluate(duals.Rectifier(below, above), given)
    for triple, value, slope in zip(given, values, slopes, strict=True):
        pair = Exact(*triple)
        exact, exact_slope = rectifier(pair, below, above)
        # Relative to n: at opposite features terms of its size cancel. dvalue/dt = -slope n sin t.
        assert abs(value - exact) <= 2e-14 * pair.n
        assert abs(slope - exact_slope) <= 1e-15 + 2 * blurred_angle(pair.t) / math.pi


def test_equal_and_opposite_features_are_exact() -> None:
    v = torch.tensor([1e-200, 1e-100, 1e-3, 1.0, 1e100, 1e200], dtype=torch.float64)
    value, slope = duals.Rectifier(0.2)(v.clone(), v, v)
    torch.testing.assert_close(value, v, rtol=4e-16, atol=0)
    assert torch.equal(slope, torch.ones_like(v))
    value, slope = duals.Rectifier()(-v, v, v)
    assert (value.abs() <= 1e-15 * v).all()
    assert (slope.abs() <= 1e-15).all()
    value, _ = duals.Jump()(v.clone(), v, v)
    assert torch.equal(value, torch.ones_like(v))


@pytest.mark.parametrize(("below", "above"), [(-1.0, 1.0), (0.0, 1.0), (0.5, 2.0)])
def test_jumps_at_every_scale(below: Any, above: Any) -> None:
    given = points(1)
    values, slopes = evaluate(duals.Jump(below, above), given)
    for triple, value, slope in zip(given, values, slopes, strict=True):
        pair = Exact(*triple)
        # P(both above), P(both below) = (pi - t) / 2pi, and t / 2pi for each of the other two.
        same, mixed = (mp.pi - pair.t) / (2 * mp.pi), pair.t / mp.pi
        exact = same * (below**2 + above**2) + mixed * below * above
        assert abs(value - exact) <= 1e-15 * max(below**2, above**2) + (above - below) ** 2 * blurred_angle(pair.t)
        assert slope == 0


@pytest.mark.parametrize(
    ("dual", "formula", "scale"), [(duals.Erf(False), erf, 2), (duals.Gelu(False), gelu, 1)], ids=["erf", "gelu"]
)
@pytest.mark.parametrize("decades", [1.2, 8.0, 200.0])
def test_erf_and_gelu_at_every_scale(dual: Any, formula: Any, scale: Any, decades: Any) -> None:
    given = points(2, 90, decades)
    values, slopes = evaluate(dual, given)
    for triple, value, slope in zip(given, values, slopes, strict=True):
        pair = Exact(*triple)
        exact, exact_slope = formula(pair)
        # R^2 = 1 - S^2 is known to a rounding error, of 1 where that is not much more than R^2, and to BLUR times how
        # much of it 1 - rho^2 is; it is not below 1 - c c'.
        share = [scale * v / (1 + scale * v) for v in (pair.v, pair.w)]
        least = 1 - share[0] * share[1]
        square = 1 - share[0] * share[1] * pair.rho**2
        blur = 2 * BLUR * share[0] * share[1] + 2e-15 * (1 if max(pair.v, pair.w) <= 16 else square)
        low, high = square + blur, max(square - blur, least * (1 - mp.mpf(10) ** -14))
        size = {"Erf": mp.sqrt(share[0] * share[1]), "Gelu": pair.n}[type(dual).__name__]
        assert abs(value - exact) <= size * (1e-14 + mp.sqrt(low) - mp.sqrt(high))
        if formula is erf:
            assert exact_slope * mp.sqrt(square / low) * (1 - 1e-14) <= slope
            assert slope <= exact_slope * mp.sqrt(square / high) * (1 + 1e-14)
        else:
            assert abs(slope - exact_slope) <= 1e-14 + mp.sqrt(low) - mp.sqrt(high)


def test_erf_keeps_parallel_features_parallel() -> None:
    """x and c x: their correlation is 1 but for rounding, which times v would be all that is left of the slope."""
    v = 10.0 ** torch.arange(0, 201, 10, dtype=torch.float64)
    w = 7.3 * v
    found = duals.Erf(False)(v.sqrt() * w.sqrt(), v, w)[1]
    torch.testing.assert_close(found, 4 / math.pi / torch.sqrt(1 + 2 * v + 2 * w), rtol=1e-14, atol=0)


@pytest.mark.parametrize("decades", [1.2, 100.0])
def test_sine(decades: Any) -> None:
    given = [p for p in points(3, 90, decades) if max(p[1:]) < 1e3]
    values, slopes = evaluate(duals.Sine(False), given)
    for triple, value, slope in zip(given, values, slopes, strict=True):
        pair = Exact(*triple)
        pair.sigma = mp.mpf(triple[0])
        exact, exact_slope = sine(pair)
        # The exponent is a difference of numbers of the variance's size, whose rounding shows as a relative error;
        # near variance 1 the value is one of two exponentials.
        rounding = 4e-16 * (1 + max(triple[1:]))
        near = 4e-16 * exact_slope if min(triple[1:]) > 2.0**-10 and max(triple[1:]) < 16 else 0
        assert abs(value - exact) <= rounding * abs(exact) + near
        assert abs(slope - exact_slope) <= rounding * exact_slope


def test_sine_of_large_variances_is_finite() -> None:
    v = 10.0 ** torch.arange(3, 300, 20, dtype=torch.float64)
    value, slope = duals.Sine(False)(v.clone(), v, v)
    torch.testing.assert_close(value, torch.full_like(v, 0.5))
    torch.testing.assert_close(slope, torch.full_like(v, 0.5))
    # sigma beyond sqrt(v v') by rounding must not grow with the variance.
    value, slope = duals.Sine(False)(v * (1 + 4e-16), v, v)
    assert (value <= 0.5).all()
    assert (slope <= 0.5).all()


@pytest.mark.parametrize(
    "make", [tc.ReLU, tc.Abs, lambda: tc.LeakyReLU(0.2), lambda: tc.LeakyReLU(-0.5), lambda: tc.ABReLU(-3.0, 0.25)]
)
@pytest.mark.parametrize("scale", [1e-100, 1e-60, 1e60, 1e100])
def test_homogeneous_networks_scale(make: Any, scale: Any) -> None:
    """K(c x, c x') = c^2 K(x, x'), also where c^4 is no number of float64, and of very different inputs."""
    features = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features[1] = 2 * features[0]
    net = tc.Sequential(tc.Linear(6, 4), make(), tc.Linear(4, 4), make(), tc.Linear(4, 1))
    expected = net.gram(features)
    torch.testing.assert_close(net.gram(scale * features) / scale / scale, expected, rtol=1e-13, atol=0)
    scales = torch.tensor([1.0, scale, 1.0, scale, 1 / scale], dtype=torch.float64)
    found = net.gram(scales[:, None] * features) / scales[:, None] / scales
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_scaling_does_not_change_a_bit() -> None:
    """Powers of two are exact, so that the path for extreme scales gives the same digits as the usual one."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, dtype=torch.float64, generator=g)
    sigma, v = x @ x.T, x.square().sum(1)
    dual = duals.Rectifier(0.1)
    value, slope = dual(sigma.clone(), v[:, None], v)
    far = 2.0**600
    far_value, far_slope = dual(sigma * far, v[:, None] * far, v * far)
    assert torch.equal(far_value / far, value)
    assert torch.equal(far_slope, slope)


@pytest.mark.parametrize(
    "dual", [duals.Erf(), duals.Gelu(), duals.Sine(), duals.Jump(), duals.Clipped(), duals.Jump(0, 1)]
)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_both_features_count_alike_to_the_last_bit(dual: Any, size: Any) -> None:
    g = torch.Generator().manual_seed(2)
    x, y = (torch.randn(n, 5, dtype=torch.float64, generator=g) * size for n in (7, 4))
    sigma, v, w = x @ y.T, x.square().sum(1)[:, None], y.square().sum(1)
    first = dual(sigma.clone(), v, w)
    other = dual(sigma.T.clone(), w[:, None], v.T)
    for a, b in zip(first, other, strict=True):
        assert torch.equal(a, b.T)


@pytest.mark.parametrize(
    "dual",
    [duals.Rectifier(0.2), duals.Erf(), duals.Gelu(), duals.Sine(), duals.Jump(), duals.Clipped(0, 6), duals.Clipped()],
    ids=repr,
)
@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_float32_is_float64_rounded(dual: Any, size: Any) -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(30, 5, generator=g) * size
    sigma, v = x @ x.T, x.square().sum(1)
    sigma.fill_diagonal_(0).diagonal().copy_(v)
    found = dual(sigma.clone(), v[:, None], v)
    exact = dual(sigma.double(), v.double()[:, None], v.double())
    # Sine turns rounding errors of v into relative ones.
    tolerance = 1e-6 * (1 + (float(v.max()) if isinstance(dual, duals.Sine) else 0))
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_vanishing_features() -> None:
    sigma, v, w = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), torch.ones(3).double()
    for dual in (duals.Rectifier(0.2), duals.Erf(), duals.Gelu(), duals.Sine(), duals.Clipped(), duals.Clipped(0, 6)):
        for pair in ((v, w), (v, v)):
            value, slope = dual(sigma.clone(), *pair)
            assert torch.equal(value, torch.zeros_like(v))
            assert torch.isfinite(slope).all()
    for pair in ((v, w), (v, v)):
        assert torch.equal(duals.Jump()(sigma.clone(), *pair)[0], torch.zeros_like(v))
        torch.testing.assert_close(duals.Jump(0, 1)(sigma.clone(), *pair)[0], torch.full_like(v, 0.25))


def test_residual_networks_of_gelu_stay_finite() -> None:
    features = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks = (tc.Residual(tc.GELU(), tc.Linear(8, 8)) for _ in range(200))
    kernel = tc.Sequential(tc.Linear(4, 8), *blocks).gram(features)
    assert torch.isfinite(kernel).all()
    # Far out GELU is ReLU times gain / sqrt(2), so that the variance grows by 1 + gain^2 / 2 a block.
    gain = tc.GELU().gain
    shorter = tc.Sequential(tc.Linear(4, 8), *(tc.Residual(tc.GELU(), tc.Linear(8, 8)) for _ in range(199)))
    ratio = kernel.diagonal() / shorter.gram(features).diagonal()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 + gain**2 / 2), rtol=1e-2, atol=0)


def test_steps_hide_the_layers_before_them() -> None:
    """The NTK of a network that steps is that of the last layer, as automatic differentiation has it."""
    features = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for step in (tc.Sign(), tc.Step(), tc.Step(normalise=False)):
        net = tc.Sequential(tc.Linear(5, 9), step, tc.Linear(9, 1))
        torch.testing.assert_close(net.gram(features), net.gram(features, kind="nngp"))
        u = torch.randn(50, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(step(u).sum(), u)
        assert torch.equal(gradient, torch.zeros_like(u))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tc.ABReLU(0, 0), "differ from 0"),
        (lambda: tc.ABReLU(math.nan), "negative_slope to be finite"),
        (lambda: tc.LeakyReLU(-math.inf), "negative_slope to be finite"),
        (lambda: tc.Softplus(0), "beta to be above 0"),
        (lambda: tc.Softplus(-1), "beta to be at least 0"),
        (lambda: tc.ELU(math.inf), "alpha to be finite"),
        (lambda: tc.Hardtanh(0.5, 1), "min_val <= 0 <= max_val"),
        (lambda: tc.Hardtanh(0, 0), "not both 0"),
    ],
)
def test_parameters_are_checked(make: Any, match: Any) -> None:
    with pytest.raises(ValueError, match=match):
        make()
