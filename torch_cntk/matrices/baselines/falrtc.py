"""Fast Low Rank Tensor Completion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk.matrices.baselines._observed import completed, observed_profiles

__all__ = ["falrtc"]


def falrtc(
    tensor: Tensor,
    observed: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 0.01),
    smoothing: float = 0.01,
    *,
    max_iterations: int = 20,
    tolerance: float = 0.1,
) -> Tensor:
    """Minimise a smoothed, weighted sum of the nuclear norms of the three unfoldings (Liu et al. 2013, FaLRTC).

    The defaults are the settings of Hodos et al. (2018), who order their tensor drugs x genes x cells: weights
    [1, 0.01, 1] / sum there. Begins from the mean of what is observed.

    Args:
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.
        weights: alpha, of the unfoldings along each axis; divided by their sum.
        smoothing: mu is this times alpha over the root of the axis' length.
        max_iterations: at most so many.
        tolerance: of the change in one iteration relative to the norm of what is observed.

    Returns:
        [drugs, cells, genes].

    Raises:
        TypeError: an option is no number, or the mask not boolean.
        ValueError: an option is out of range, or shapes do not fit.
    """
    values = observed_profiles(tensor, observed)
    alpha = [finite_number(w, "a weight", minimum=0) for w in weights]
    if len(alpha) != 3 or sum(alpha) == 0:
        raise ValueError(f"expected three weights, not all of them 0, got {tuple(weights)}")
    if finite_number(smoothing, "smoothing", minimum=0) == 0:
        raise ValueError("expected smoothing > 0, got 0")
    positive_int(max_iterations, "max_iterations")
    finite_number(tolerance, "tolerance", minimum=0)
    alpha = [w / sum(alpha) for w in alpha]
    mu = [smoothing * w / math.sqrt(n) for w, n in zip(alpha, values.shape, strict=True)]
    axes = [axis for axis, w in enumerate(alpha) if w > 0]
    filled = _minimise(
        values, observed, [alpha[k] for k in axes], [mu[k] for k in axes], axes, max_iterations, tolerance
    )
    return completed(tensor, observed, filled)


_RATE = 1.15
_FLAT = 15
"""The smoothing falls to its final value as iteration^-rate and stays there for the last iterations (authors' code)."""


def _minimise(
    values: Tensor,
    observed: Tensor,
    alpha: list[float],
    mu: list[float],
    axes: list[int],
    max_iterations: int,
    tolerance: float,
) -> Tensor:
    """Nesterov's method with a backtracked step; the symbols are those of Liu et al., Algorithm 4."""
    missing = ~observed[..., None]
    start = torch.where(missing, values[observed].mean(), values)
    y = z = start
    total, lipschitz = 0.0, 1e-5
    norm = float(torch.linalg.vector_norm(values))
    limit = 10 * sum(1 / m for m in mu)
    first = [0.3 * a * _largest(_unfolded(start, axis)) for a, axis in zip(alpha, axes, strict=True)]
    for k in range(1, max_iterations + 1):
        falling = k**-_RATE if k <= max_iterations - _FLAT else 0.0
        smooth = [max(m, m + (f - m) * falling) for m, f in zip(mu, first, strict=True)]
        before = y
        while True:
            step = (1 + math.sqrt(1 + 4 * lipschitz * total)) / (2 * lipschitz)
            x = (step * z + total * y) / (total + step)
            fx, gradient = _objective(x, alpha, smooth, axes)
            gradient *= missing
            trial = x - gradient / lipschitz
            fy, _ = _objective(trial, alpha, smooth, axes)
            if (fx - fy) * 2 * lipschitz >= float(gradient.square().sum()) or lipschitz > limit:
                break
            lipschitz /= 0.5
        y = trial
        if float(torch.linalg.vector_norm(y - before)) < tolerance * norm and k > 1:
            break
        z = z - step * gradient
        total += step
    return y


def _unfolded(x: Tensor, axis: int) -> Tensor:
    return x.movedim(axis, 0).flatten(1)


def _largest(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def _objective(x: Tensor, alpha: list[float], mu: list[float], axes: list[int]) -> tuple[float, Tensor]:
    """Sum over axes of alpha |X_(axis)|_*, where s^2 / 2t stands for singular values s < t = mu / alpha; gradient."""
    value, gradient = 0.0, torch.zeros_like(x)
    for a, m, axis in zip(alpha, mu, axes, strict=True):
        matrix = _unfolded(x, axis)
        bound = m / a
        # The small side's eigenvectors give what a full SVD would.
        wide = matrix.shape[0] <= matrix.shape[1]
        squares, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
        singular = squares.clamp_min(0).sqrt()
        smoothed = torch.where(singular < bound, singular.square() / (2 * bound), singular - bound / 2)
        value += a * float(smoothed.sum())
        # min(s / t, 1) in the place of s.
        scale = 1 / torch.clamp_min(singular, bound)
        shrink = (vectors * scale) @ vectors.T
        slope = shrink @ matrix if wide else matrix @ shrink
        rest = [n for k, n in enumerate(x.shape) if k != axis]
        gradient += a * slope.unflatten(1, rest).movedim(0, axis)
    return value, gradient
