"""How sure a completion is of entries that it has not seen.

The regression is that of a Gaussian process (Rasmussen & Williams 2006, section 2.2): given what is observed, an entry
has the variance k(x, x) - k_xO G^-1 k_Ox + ridge under it, up to a factor. What the factor is, is found from entries
that were left out: one for each row, so that 90 % of them lie where a normal distribution says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_cntk.matrices.systems import patterns

if TYPE_CHECKING:
    from torch_cntk.matrices.judged import Judged
    from torch_cntk.matrices.judging import LeftOut

__all__ = ["LEVELS", "Calibration", "calibrated", "drawn", "variances_of"]

LEVELS = (0.5, 0.9, 0.95)
"""Of the central intervals whose coverage is reported."""
_MOST = 4_000
"""Most columns (or entries, where rows have features too) whose covariances are computed; of more, all entries of a row
are taken to be equally sure."""
_IMAGINARY = 5.0
"""Imaginary left-out entries, as sure as the mean over all rows, with which each row's factor is found."""
_CENTRAL = 0.9
_JITTER = 1e-10
"""Added to covariances before they are factorised, relative to their largest entry."""


@dataclass(frozen=True)
class Calibration:
    """Factors of standard deviations.

    Attributes:
        factors: [rows].
        coverage: of central intervals by their level: the share of left-out entries that they hold. The factors were
            found without those entries.
        entries: how many were left out.
    """

    factors: Tensor
    coverage: dict[float, float]
    entries: int


def _absolute(model: Judged) -> tuple[Tensor | None, float]:
    """The ridge of each column relative to that of the model, [columns] or None for 1, and that ridge, absolute."""
    scale = None if model._scale is None else model._scale.square().reciprocal()
    diagonal = model._operator.mean_diagonal
    if model._rows is not None:
        rows = model._rows.operator(model._network).mean_diagonal
        diagonal = diagonal * rows if model.combine == "product" else diagonal + rows
    return scale, model.ridge_ * diagonal


def _small(model: Judged) -> bool:
    if model.plan_ is not None:  # passes have no covariance: all missing entries of a row are taken to be equally sure
        return False
    shape = model._matrix.values.shape
    return (shape[1] if model._rows is None else shape.numel()) <= _MOST


def _covariances(model: Judged) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Groups of rows whose missing entries have one covariance: rows, places of the entries, and it, noise included.

    Of a model with features of rows the one group has all missing entries of the flattened matrix, and no rows.
    """
    relative, ridge = _absolute(model)
    matrix = model._matrix
    rows, columns = matrix.values.shape
    noise = matrix.values.new_ones(columns) * ridge if relative is None else relative * ridge
    kernel = model._columns.kernel(model._network)
    if model._rows is not None:
        other = model._rows.kernel(model._network)
        whole = (
            torch.kron(other, kernel)
            if model.combine == "product"
            else other.repeat_interleave(columns, 0).repeat_interleave(columns, 1) + kernel.repeat(rows, rows)
        )
        seen = matrix.observed.flatten()
        yield torch.arange(0), (~seen).nonzero()[:, 0], _conditional(whole, noise.repeat(rows), seen)
        return
    groups = [(columns, members) for columns, members in patterns(matrix.observed)]
    empty = (~matrix.observed.any(1)).nonzero()[:, 0]
    if len(empty):
        groups.append((empty[:0], empty))
    for known, members in groups:
        seen = torch.zeros(columns, dtype=torch.bool, device=kernel.device)
        seen[known] = True
        yield members, (~seen).nonzero()[:, 0], _conditional(kernel, noise, seen)


def _conditional(kernel: Tensor, noise: Tensor, seen: Tensor) -> Tensor:
    """The covariance of measurements at the points that are not seen, given those at the others."""
    inner = kernel[seen][:, seen] + torch.diag(noise[seen])
    cross = kernel[seen][:, ~seen]
    prior = kernel[~seen][:, ~seen] + torch.diag(noise[~seen])
    if not len(inner) or not len(prior):
        return prior
    factor, failed = torch.linalg.cholesky_ex(inner)
    if not int(failed):
        half: Tensor = torch.linalg.solve_triangular(factor, cross, upper=False)
        return prior - half.T @ half
    values, vectors = torch.linalg.eigh(inner)
    floor = float(values[-1]) * len(values) * torch.finfo(values.dtype).eps
    if floor <= 0:
        return prior
    half = (vectors / values.clamp_min(floor).sqrt()).T @ cross
    return prior - half.T @ half


def variances_of(model: Judged) -> Tensor:
    """Variances of all missing entries up to a factor for each row, [rows, columns]; 0 at observed ones.

    Where there are too many columns, they are all 1.
    """
    missing = ~model._matrix.observed
    if not _small(model):
        return missing.to(model._matrix.values)
    # Row by row in memory, whichever way the table lies: entries are found by their place in the flattened matrix.
    result = torch.zeros_like(model._matrix.values, memory_format=torch.contiguous_format)
    for rows, places, covariance in _covariances(model):
        # Rounding may take a variance below 0, where the others tell an entry exactly.
        variance = covariance.diagonal().clamp_min(0)
        if model._rows is None:
            result[rows[:, None], places] = variance
        else:
            result.view(-1)[places] = variance
    return result


def calibrated(left: LeftOut, values: Tensor, seed: int) -> Calibration:
    """Find the factors of standard deviations, and what they are worth.

    Args:
        left: entries that were left out.
        values: what they are, [rows, columns].
        seed: of the halves, each of which tests the factors that the other one gave.
    """
    known = ~torch.isnan(left.values)
    errors = torch.where(known, values - left.values, 0)
    spread = torch.where(known, left.variances, 1).clamp_min(torch.finfo(errors.dtype).tiny).sqrt()
    scores = torch.where(known, errors / spread, 0).abs()
    factors = _factors(scores, known)
    half = torch.rand(known.shape, generator=torch.Generator().manual_seed(seed)).to(known.device) < 0.5
    held: dict[float, float] = dict.fromkeys(LEVELS, 0.0)
    for tested in (half, ~half):
        found = _factors(scores, known & ~tested)[:, None]
        for level in LEVELS:
            inside = known & tested & (scores <= _quantile(level) * found)
            held[level] += float(inside.sum())
    count = int(known.sum())
    return Calibration(factors, {level: number / max(count, 1) for level, number in held.items()}, count)


def _factors(scores: Tensor, known: Tensor) -> Tensor:
    """A factor for each row of scores [rows, columns]: their root mean square, near that of all, [rows]."""
    if not bool(known.any()):
        return scores.new_ones(len(scores))
    squares = torch.where(known, scores, 0).square()
    overall = squares.sum() / known.sum()
    rows = ((squares.sum(1) + _IMAGINARY * overall) / (known.sum(1) + _IMAGINARY)).sqrt()
    relative = scores / rows.clamp_min(torch.finfo(rows.dtype).tiny)[:, None]
    middle = relative[known].sort().values
    # As a normal distribution has 90 % within 1.645 deviations: heavy tails widen the mean square, not this.
    place = min(math.ceil(_CENTRAL * (len(middle) + 1)), len(middle)) - 1
    return rows * middle[place] / _quantile(_CENTRAL)


def _quantile(level: float) -> float:
    """Deviations within which a standard normal variable lies with this probability."""
    return float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))


def drawn(model: Judged, filled: Tensor, factors: Tensor, count: int, seed: int) -> Tensor:
    """Tables that what is observed leaves possible.

    Args:
        model: fitted.
        filled: the mean, [rows, columns].
        factors: of the rows' deviations, [rows].
        count: how many.
        seed: of the draws.

    Returns:
        [count, rows, columns].
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn((count, *filled.shape), generator=generator, dtype=filled.dtype).to(filled.device)
    missing = ~model._matrix.observed
    if not _small(model):
        return torch.where(missing, filled + draws * factors[:, None], filled)
    noise = torch.zeros_like(draws, memory_format=torch.contiguous_format)
    for rows, places, covariance in _covariances(model):
        jitter = _JITTER * float(covariance.diagonal().max()) if len(covariance) else 0.0
        covariance.diagonal().add_(jitter + torch.finfo(covariance.dtype).tiny)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            # Rounding has left no definite matrix: what is missing is told exactly, or nearly so.
            values, vectors = torch.linalg.eigh(covariance)
            factor = vectors * values.clamp_min(0).sqrt()
        if model._rows is None:
            noise[:, rows[:, None], places] = draws[:, rows[:, None], places] @ factor.T
        else:
            noise.flatten(1)[:, places] = draws.flatten(1)[:, places] @ factor.T
    return filled + noise * factors[:, None]
