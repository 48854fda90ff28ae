"""Waves, bumps and the exponential against their expectations in many digits, at scales from 1e-100 up."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance import duals
from torch_cntk.covariance.duals.gradients import differentiable


def triples(decades: tuple[float, float], count: int = 40) -> list[tuple[float, float, float]]:
    draw = np.random.default_rng(int(torch.randint(1 << 30, ())))
    result = []
    for k in range(count):
        v, w = 10 ** draw.uniform(*decades, 2)
        cosine = [math.cos(draw.uniform(0, math.pi)), 1 - 10 ** draw.uniform(-6, 0), 0.0][k % 3]
        result.append((math.sqrt(v) * math.sqrt(w) * cosine, v, w))
    return result


def evaluate(dual: duals.Dual, given: list[tuple[float, float, float]]) -> list[tuple[float, float]]:
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*given, strict=True)]
    value, slope = dual(*columns)
    return list(zip(value.tolist(), slope.tolist(), strict=True))


def wave(s: Any, v: Any, w: Any, b: Any, c: Any) -> Any:
    """E[sin(bf + c) sin(bf' + c)] by the characteristic function of f - f' and of f + f', and that of the slopes."""
    apart, together = mp.exp(-(b**2) * (v + w - 2 * s) / 2), mp.exp(-(b**2) * (v + w + 2 * s) / 2) * mp.cos(2 * c)
    return (apart - together) / 2, b**2 * (apart + together) / 2


def bump(s: Any, v: Any, w: Any) -> Any:
    """det(1 + S)^-1/2 for the covariance matrix S, and its derivative by sigma (Price's theorem)."""
    square = (1 + v) * (1 + w) - s**2
    return square ** mp.mpf(-0.5), s * square ** mp.mpf(-1.5)


@pytest.mark.parametrize(("frequency", "phase"), [(1.0, 0.0), (0.3, 0.0), (2.0, 0.7), (-1.5, math.pi / 4), (1.0, 3.0)])
@pytest.mark.parametrize("decades", [(-100, -2), (-2, 1.5)])
def test_wave(frequency: float, phase: float, decades: tuple[float, float]) -> None:
    given = triples(decades)
    dual = duals.Wave(frequency, phase, normalise=False)
    with mp.workdps(250):
        for triple, (value, slope) in zip(given, evaluate(dual, given), strict=True):
            s, v, w = map(mp.mpf, triple)
            exact, exact_slope = wave(s, v, w, mp.mpf(frequency), mp.mpf(phase))
            # Rounding of variances in the exponent; values of a wave through 0 are small and exact.
            rounding = 1e-15 * (1 + frequency**2 * max(triple[1:]))
            scale = mp.sqrt(mp.mpf(triple[1]) * mp.mpf(triple[2])) if phase == 0 and decades[1] < 0 else 1
            assert abs(value - exact) <= 4 * rounding * scale * max(1, frequency**2)
            assert abs(slope - exact_slope) <= 4 * rounding * max(1, frequency**2)


@pytest.mark.parametrize("decades", [(-100, 0), (0, 100)])
def test_bump(decades: tuple[float, float]) -> None:
    given = triples(decades)
    with mp.workdps(450):
        for triple, (value, slope) in zip(given, evaluate(duals.Bump(normalise=False), given), strict=True):
            exact, exact_slope = bump(*map(mp.mpf, triple))
            # 1 - |rho| is known to 2^-47, relative to which the determinant is 1 / (v v') and more.
            inside = 1 - mp.mpf(triple[0]) ** 2 / (1 + mp.mpf(triple[1])) / (1 + mp.mpf(triple[2]))
            rounding = mp.mpf(2) ** -46 / inside + 1e-15
            assert abs(value - exact) <= rounding * exact
            assert abs(slope - exact_slope) <= 3 * rounding * max(abs(exact_slope), exact**3 * 1e-300)


def test_exponential() -> None:
    given = triples((-100, 1))
    for (s, v, w), (value, slope) in zip(given, evaluate(duals.Exponential(normalise=False), given), strict=True):
        exact = mp.exp(mp.mpf(s) + (mp.mpf(v) + mp.mpf(w)) / 2)
        assert abs(value - exact) <= 1e-14 * exact
        assert slope == value


def test_rbf_is_the_gaussian_kernel(generator: torch.Generator) -> None:
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(4, 8), tc.RBF(0.6))
    exact = torch.exp(-0.6 * torch.cdist(x, x).square() / 4)
    torch.testing.assert_close(net.gram(x, kind="nngp"), exact, atol=1e-13, rtol=0)
    # The derivative of the features is sqrt(2 gamma) times the other wave, of the same kernel.
    torch.testing.assert_close(net.gram(x), 1.2 * exact * (x @ x.T / 4), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        tc.RBF(0.3),
        tc.Exp(),
        tc.Gaussian(),
        tc.Sin(frequency=2.5, phase=1.0),
        tc.Sin(frequency=0.01),
        tc.Sin(phase=-7.0),
    ],
    ids=repr,
)
def test_normalised(layer: tc.layers.Activation) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    moment = (weights * layer(torch.from_numpy(nodes)).numpy() ** 2).sum() / math.sqrt(2 * math.pi)
    assert moment == pytest.approx(1, rel=1e-12)
    one = torch.ones(1, dtype=torch.float64)
    assert float(layer._dual()(one.clone(), one, one)[0]) == pytest.approx(1, rel=1e-13)


@pytest.mark.parametrize("layer", [tc.RBF(0.6), tc.Exp(), tc.Gaussian(), tc.Sin(frequency=1.7, phase=0.4)], ids=repr)
def test_gradients(layer: Any, generator: torch.Generator) -> None:
    v, w = (torch.rand(5, generator=generator, dtype=torch.float64) + 0.3 for _ in range(2))
    rho = 1.8 * torch.rand(5, generator=generator, dtype=torch.float64) - 0.9
    given = tuple(t.requires_grad_() for t in (rho * (v * w).sqrt(), v, w))
    assert torch.autograd.gradcheck(differentiable(layer._dual()), given)
    x = torch.randn(2, 1, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    net = tc.Sequential(tc.Conv1d(1, 2, 3), layer, tc.Conv1d(2, 2, 3), layer, tc.GlobalAvgPool())
    assert torch.autograd.gradcheck(lambda a: net.gram(a), (x,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tc.RBF(0.0), "expected gamma > 0"),
        (lambda: tc.RBF(-1.0), "gamma"),
        (lambda: tc.Sin(frequency=0.0), "other than 0"),
        (lambda: tc.Sin(phase=math.inf), "phase"),
    ],
)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_torch_has_one_sine() -> None:
    net = tc.Sequential(tc.Conv2d(1, 2, 3, padding_mode="zeros"), tc.Sin(frequency=2.0), tc.Conv2d(2, 1, 1))
    with pytest.raises(ValueError, match="frequency"):
        tc.to_torch(net)
