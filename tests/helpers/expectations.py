"""What activations do to covariances [*S, *S] in float64, from their definitions, written apart from the package."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torch_cntk as tc

SAME = 4e-15
"""Features of which the correlation is closer to 1 count as equal: arccos(1 - 1e-15) is 4e-8."""
KINKS = {tc.Hardtanh: (-1.0, 1.0), tc.ReLU6: (0.0, 6.0)}
"""Where the slope of an activation jumps, if it does so elsewhere than at 0."""
LIMIT = 9.0
"""In standard deviations; beyond, the density is 1e-18."""
RATIO, POINTS = 4.0, 12
"""Of the distances of the two ends of a piece from a kink; and in a piece: they see 1e-14 of tanh, whose poles are
1.6 away from the kink."""
CLOSEST = 1e-14
"""Pieces are not shorter; layers are not thinner up to variances of 1e28."""


def variances(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Sigma(x, x) and Sigma(x', x'), to broadcast against sigma."""
    ndim = sigma.ndim // 2
    size, pixels = sigma.shape[:ndim], math.prod(sigma.shape[:ndim])
    variance = sigma.reshape(pixels, pixels).diagonal().reshape(size)
    return variance.reshape(*size, *(1,) * ndim), variance.reshape(*(1,) * ndim, *size)


def correlation(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(v v'), and sigma over it; rounding must not make an angle of equal features."""
    v, other = variances(sigma)
    norm = v.sqrt() * other.sqrt()
    cosine = torch.where(norm > 0, sigma / norm, 1.0).clamp(-1, 1)
    return norm, torch.where(1 - cosine.abs() < SAME, cosine.sign(), cosine)


def activate(layer: Any, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """(NNGP, NTK) behind an activation."""
    match layer:
        case tc.ReLU():
            return rectify(sigma, theta, 0.0)
        case tc.LeakyReLU():
            return rectify(sigma, theta, layer.negative_slope)
        case tc.Abs():
            return rectify(sigma, theta, -1.0)
        case tc.Erf():
            return erf(sigma, theta, layer.gain)
        case tc.Sin():
            return wave(sigma, theta, layer.gain, layer.frequency, layer.phase)
        case tc.RBF():
            return wave(sigma, theta, layer.gain, math.sqrt(2 * layer.gamma), math.pi / 4)
        case tc.Exp():
            return exponential(sigma, theta, layer.gain)
        case tc.Gaussian():
            return bump(sigma, theta, layer.gain)
        case tc.Elementwise():
            return by_quadrature(layer.function, sigma, theta, layer.gain)
    return between_kinks(layer, sigma, theta)


def rectify(sigma: Tensor, theta: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    norm, cosine = correlation(sigma)
    angle = torch.arccos(cosine)
    k0 = (math.pi - angle) / math.pi
    k1 = (cosine * (math.pi - angle) + torch.sqrt(1 - cosine**2)) / math.pi
    weight = 2 * slope / (1 + slope**2)
    value = norm * ((1 - weight) * k1 + weight * cosine)
    factor = (1 - weight) * k0 + weight
    return value, theta * factor


def erf(sigma: Tensor, theta: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    """Williams (1997), with (1 + 2 v)(1 + 2 v') - 4 sigma^2 = 1 + 2 v + 2 v' + 4 v v' (1 - rho^2)."""
    v, other = variances(sigma)
    norm, cosine = correlation(sigma)
    root = torch.sqrt(1 + 2 * v + 2 * other + 4 * (1 - cosine.square()) * norm.square())
    return gain**2 * 2 / math.pi * torch.atan2(2 * sigma, root), gain**2 * 4 / math.pi / root * theta


def wave(sigma: Tensor, theta: Tensor, gain: float, frequency: float, phase: float) -> tuple[Tensor, Tensor]:
    """sin a sin b = (cos(a - b) - cos(a + b)) / 2, and E[cos(u + c)] = exp(-Var u / 2) cos c."""
    v, other = (frequency**2 * variance for variance in variances(sigma))
    sigma, turn = frequency**2 * sigma, math.cos(2 * phase)
    minus, plus = torch.exp(-(v + other - 2 * sigma) / 2), turn * torch.exp(-(v + other + 2 * sigma) / 2)
    # Of small waves the difference would be rounding alone.
    small = torch.exp(-(v + other) / 2) * torch.sinh(sigma.clamp(-1, 1))
    value = torch.where(sigma.abs() < 1, small, (minus - plus) / 2) if phase == 0 else (minus - plus) / 2
    return gain**2 * value, (gain * frequency) ** 2 * (minus + plus) / 2 * theta


def exponential(sigma: Tensor, theta: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    """E[exp(f + f')] = exp(Var(f + f') / 2)."""
    v, other = variances(sigma)
    value = gain**2 * torch.exp((v + other + 2 * sigma) / 2)
    return value, value * theta


def bump(sigma: Tensor, theta: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    """E[exp(-(f^2 + f'^2) / 2)] = det(1 + S)^(-1/2) for the covariance S of both; its derivative by sigma."""
    v, other = variances(sigma)
    norm, cosine = correlation(sigma)
    square = 1 + v + other + (1 - cosine.square()) * norm.square()
    return gain**2 / square.sqrt(), gain**2 * sigma / square**1.5 * theta


def by_quadrature(function: Any, sigma: Tensor, theta: Tensor, gain: float, points: int = 80) -> tuple[Tensor, Tensor]:
    """Any function that is about as smooth as a polynomial, by Gauss-Hermite quadrature in two dimensions."""
    places, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(points))
    weights = weights / weights.sum()
    v, other = (variance.expand(sigma.shape).flatten() for variance in variances(sigma))
    rho = (sigma.flatten() / torch.sqrt(v * other)).clamp(-1, 1)
    first = (v.sqrt()[:, None] * places).requires_grad_()
    mixed = rho[:, None, None] * places[:, None] + torch.sqrt(1 - rho**2)[:, None, None] * places
    second = (other.sqrt()[:, None, None] * mixed).requires_grad_()
    values = [gain * function(u) for u in (first, second)]
    slopes = [torch.autograd.grad(value.sum(), u)[0] for value, u in zip(values, (first, second), strict=True)]
    value, slope = (
        torch.einsum("i,j,ki,kij->k", weights, weights, a, b).reshape(sigma.shape).detach() for a, b in (values, slopes)
    )
    return value, slope * theta


def panels(ends: Tensor) -> tuple[Tensor, Tensor]:
    """Places and weights of Gauss-Legendre quadrature of the standard normal density, [..., pieces * POINTS] each.

    Args:
        ends: of the pieces, ascending, [..., pieces + 1].
    """
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(POINTS))
    low, half = ends[..., :-1, None], ends.diff(dim=-1)[..., None] / 2
    places = (low + half * (nodes + 1)).flatten(-2)
    density = torch.exp(-(places**2) / 2) / math.sqrt(2 * math.pi)
    return places, (half * weights).flatten(-2) * density


def graded(centres: Tensor, least: Tensor) -> Tensor:
    """Ends of pieces, ascending, [..., n]: some for the density, others the closer to the centres the shorter.

    Args:
        centres: kinks, or middles of layers, [..., k].
        least: how wide the layers are.
    """
    count = max(1, math.ceil(math.log(2 * LIMIT / float(least), RATIO)))
    distances = float(least) * RATIO ** torch.arange(count, dtype=torch.float64)
    steps = torch.cat([-distances.flip(0), distances.new_zeros(1), distances])
    layers = (centres[..., None] + steps).flatten(-2).nan_to_num(LIMIT)
    density = torch.tensor([-LIMIT, -4.5, -2, 0, 2, 4.5, LIMIT], dtype=torch.float64)
    ends = torch.cat([layers, density.expand(*layers.shape[:-1], -1)], -1)
    return ends.clamp(-LIMIT, LIMIT).sort(-1).values


def between_kinks(layer: Any, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Any activation that is smooth but for kinks and jumps, by quadrature between them in two dimensions.

    All that it does, it does within some units of them: at a variance of 1e12 that is a millionth of a standard
    deviation. So the pieces are short there.
    """
    _, cosine = correlation(sigma)
    sides = torch.stack([variance.expand(sigma.shape).flatten() for variance in variances(sigma)]).sort(0).values
    entries, place = torch.unique(torch.cat([sides, cosine.flatten()[None]]), dim=1, return_inverse=True)
    value, slope = torch.stack([torch.stack(expectation(layer, *entry)) for entry in entries.T], -1)[:, place]
    return value.reshape(sigma.shape), slope.reshape(sigma.shape) * theta


def expectation(layer: Any, v: Tensor, other: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope of one pair: f = sqrt(v) x and f' = sqrt(v') (rho x + sqrt(1 - rho^2) y)."""
    kinks = torch.tensor(KINKS.get(type(layer), (0.0,)), dtype=torch.float64)
    v, other, rest = v.sqrt(), other.sqrt(), torch.sqrt((1 - rho) * (1 + rho))
    # The integral over y changes where f' has a kink, in layers as wide as y moves f'.
    least = torch.stack([1 / v, 1 / other, rest if rest > 0 else torch.full_like(v, LIMIT)]).amin()
    centres = torch.unique(torch.cat([kinks / v, kinks / (rho * other)]).nan_to_num(LIMIT))
    x, x_weights = panels(graded(centres, least.clamp(CLOSEST, LIMIT)))
    cuts = (kinks / other - rho * x[:, None]) / rest
    y, y_weights = panels(graded(cuts, (1 / (other * rest)).clamp(CLOSEST, LIMIT)))
    first = (v * x).requires_grad_()
    second = (other * (rho * x[:, None] + rest * y)).requires_grad_()
    values = [layer(u) for u in (first, second)]
    slopes = [torch.autograd.grad(value.sum(), u)[0] for value, u in zip(values, (first, second), strict=True)]
    value, slope = ((x_weights * a * (y_weights * b).sum(-1)).sum().detach() for a, b in (values, slopes))
    return value, slope
