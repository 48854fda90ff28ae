"""What one would complete a table with before a kernel: means of rows and columns, neighbours, and low rank."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.matrices.baselines._observed import observed_entries
from torch_cntk.matrices.baselines.low_rank import soft_impute

__all__ = ["chosen_soft_impute", "nearest_rows", "two_way_means"]

_SWEEPS = 30
"""Of the alternating means; their error falls by a factor in each."""
_STEPS = 12
_FIRST, _FACTOR = 0.7, 0.7
"""Shrinkages that are tried, relative to the largest singular value: .7, .49 and so on, to .014."""
_WORSE = 2
"""The search ends when so many shrinkages in turn were no better than the best: further ones fit noise."""
_TRIAL_ITERATIONS, _ITERATIONS = 40, 100
_TOLERANCE = 1e-3
_HELD_OUT = 0.1


def two_way_means(matrix: Tensor, observed: Tensor) -> Tensor:
    """A mean for each row plus one for each column, by least squares.

    Args:
        matrix: [rows, columns].
        observed: boolean [rows, columns], True = known.

    Returns:
        [rows, columns] in float64. Rows and columns without an entry have the mean of the others.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit, or nothing is observed.
    """
    values = observed_entries(matrix, observed)
    seen = observed.double()
    counts = [seen.sum(axis) for axis in (0, 1)]
    mean = values.sum() / seen.sum()
    left = values - mean * seen
    rows, columns = torch.zeros_like(values[:, :1]), torch.zeros_like(values[:1])
    for _ in range(_SWEEPS):
        rows = ((left - seen * columns).sum(1) / counts[1].clamp_min(1))[:, None]
        columns = ((left - seen * rows).sum(0) / counts[0].clamp_min(1))[None]
    return mean + rows + columns


def nearest_rows(matrix: Tensor, observed: Tensor, neighbours: int = 5) -> Tensor:
    """The mean of each entry over the nearest other rows that have it; of the transposes: over the nearest columns.

    As ``sklearn.impute.KNNImputer`` with its defaults: the squared distance of two rows is the mean of the squared
    differences over the columns that both have. Unlike it, observed entries are predicted as well, from other rows.

    Args:
        matrix: [rows, columns].
        observed: boolean [rows, columns], True = known.
        neighbours: how many rows at most.

    Returns:
        [rows, columns] in float64. Where no other row that has the entry shares a column with this one, the mean of
        the column; in columns without an entry the mean of the row, or of all.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an option is out of range, shapes do not fit, or nothing is observed.
    """
    positive_int(neighbours, "neighbours")
    values = observed_entries(matrix, observed)
    distances = _distances(values, observed.double())
    rows, columns = (values.sum(axis) / observed.sum(axis).clamp_min(1) for axis in (1, 0))
    rows = torch.where(observed.any(1), rows, values[observed].mean())
    filled = torch.where(observed.any(0), columns, rows[:, None])
    for column in range(values.shape[1]):
        having = observed[:, column].nonzero()[:, 0]
        count = min(neighbours + 1, len(having))
        if count < 1:
            continue
        # One more than wanted: a row that has the entry itself is at infinity, and comes last.
        near, which = distances[:, having].topk(min(neighbours, count), dim=1, largest=False)
        known = torch.isfinite(near)
        total = torch.where(known, values[having[which], column], 0).sum(1)
        filled[:, column] = torch.where(known.any(1), total / known.sum(1).clamp_min(1), filled[:, column])
    return filled


def _distances(values: Tensor, seen: Tensor) -> Tensor:
    """Mean squared differences of rows over common columns, [rows, rows]; infinite to itself and to strangers."""
    squares = values.square() @ seen.T
    total = (squares + squares.T - 2 * values @ values.T).clamp_min(0)
    common = seen @ seen.T
    distances = torch.where(common > 0, total / common.clamp_min(1), torch.inf)
    return distances.fill_diagonal_(torch.inf)


def chosen_soft_impute(matrix: Tensor, observed: Tensor, seed: int = 0) -> Tensor:
    """``soft_impute`` of what two-way means leave, with the shrinkage that predicts a tenth of the entries best.

    Args:
        matrix: [rows, columns].
        observed: boolean [rows, columns], True = known.
        seed: of the choice of these entries.

    Returns:
        [rows, columns] in float64: means and the matrix of low rank together.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit, or nothing is observed.
    """
    means = two_way_means(matrix, observed)
    left = torch.where(observed, matrix.double() - means, 0)
    largest = float(torch.linalg.matrix_norm(left, 2))
    draw = torch.rand(observed.shape, generator=torch.Generator().manual_seed(seed)).to(observed.device)
    hidden = observed & (draw < _HELD_OUT)
    if largest == 0 or not bool(hidden.any()) or not bool((observed & ~hidden).any()):
        return means
    path = [_FIRST * _FACTOR**step * largest for step in range(_STEPS)]
    best = _best_shrinkage(left, observed & ~hidden, hidden, path)
    if best is None:
        return means
    fit = None
    for shrinkage in path[: best + 1]:
        last = shrinkage == path[best]
        fit = _fit(left, observed, shrinkage, fit, _ITERATIONS if last else _TRIAL_ITERATIONS // 4)
    assert fit is not None
    return means + fit


def _best_shrinkage(left: Tensor, known: Tensor, hidden: Tensor, path: list[float]) -> int | None:
    """The place of the shrinkage with the smallest error on hidden entries; None if zeros are better than all."""
    best, least, fit = None, float(left[hidden].square().sum()), None
    for place, shrinkage in enumerate(path):
        fit = _fit(left, known, shrinkage, fit, _TRIAL_ITERATIONS)
        error = float((fit - left)[hidden].square().sum())
        if error < least:
            best, least = place, error
        elif place - (best or 0) >= _WORSE and best is not None:
            break
    return best


def _fit(left: Tensor, known: Tensor, shrinkage: float, guess: Tensor | None, iterations: int) -> Tensor:
    return soft_impute(left, known, shrinkage, guess=guess, max_iterations=iterations, tolerance=_TOLERANCE)
