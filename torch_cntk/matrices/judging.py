"""What a fitted completion says of entries that it has not seen, and how sure it is of them.

Where rows are regressed on columns by one kernel, each entry is left out in closed form: with G = K_OO + ridge I,
w = G^-1 (y - m) and u = G^-1 1, the regression on all other points, about the mean of all other points, errs at x by
(w + (m - m_x) u)(x) / (G^-1)(x, x), where m_x is that mean; its variance there is 1 / (G^-1)(x, x), up to a factor
(Wahba 1990, section 4.2; Rasmussen & Williams 2006, section 5.4.2). Otherwise the entries are left out in parts, and
the completion is fitted anew without each.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk.matrices.one_left_out import MOST_EQUATIONS, left_out
from torch_cntk.matrices.regression import targets_of
from torch_cntk.matrices.uncertainty import variances_of

if TYPE_CHECKING:
    from torch_cntk.matrices.judged import Judged

__all__ = ["LeftOut", "closed_form", "fold_count", "folds_of", "in_closed_form", "in_parts", "refitted"]

_FOLDS = 5
"""Parts that entries are left out in: more take longer, fewer take much away from the fit."""
_LARGE = 100_000
"""Entries above which only one part of ten is left out: it tells the error to a percent, and refits take long."""
_SHARE_OF_LARGE = 10


@dataclass(frozen=True)
class LeftOut:
    """Predictions of observed entries that were made without them.

    Attributes:
        values: [rows, columns]; NaN where nothing was left out.
        variances: [rows, columns], up to a factor; NaN likewise.
        exact: whether each entry was left out by itself, all others being known; else many at a time.
    """

    values: Tensor
    variances: Tensor
    exact: bool


def folds_of(observed: Tensor, folds: int, seed: int) -> Tensor:
    """Which part leaves out each entry, [rows, columns]; -1 where nothing is observed.

    Entries are dealt out in random order, so that all parts are of one size (but for one entry).
    """
    places = observed.flatten().nonzero()[:, 0]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).to(places.device)
    fold = torch.full((observed.numel(),), -1, dtype=torch.int64, device=observed.device)
    fold[places[order]] = torch.arange(len(places), device=places.device) % folds
    return fold.reshape(observed.shape)


def fold_count(entries: int) -> tuple[int, int]:
    """Into how many parts so many entries are dealt, and how many of the parts are left out."""
    if entries > _LARGE:
        return _SHARE_OF_LARGE, 1
    return min(_FOLDS, entries), min(_FOLDS, entries)


def refitted(model: Judged, observed: Tensor) -> Judged:
    """The same completion, with its ridge, of the same matrix of which less is observed.

    Args:
        model: fitted.
        observed: boolean [rows, columns], with at least one entry.
    """
    other = copy.copy(model)
    other.ridge, other.progress = model.ridge_, False
    other._fit_read(replace(model._matrix, observed=observed))
    return other


def in_closed_form(model: Judged) -> bool:
    """Whether each entry can be left out by itself without fitting anew."""
    if model.plan_ is not None:
        return False
    systems = model._systems(model._matrix.observed, targets_of(model._matrix, model.offsets_))
    return all(system.equations <= MOST_EQUATIONS for system in systems)


def closed_form(model: Judged) -> LeftOut:
    """Leave out each entry by itself.

    Args:
        model: fitted.
    """
    matrix, offsets = model._matrix, model.offsets_
    values, variances = (torch.full_like(matrix.values, torch.nan) for _ in range(2))
    others = _means_without(model)
    for system in model._systems(matrix.observed, targets_of(matrix, offsets)):
        places = (system.rows[:, None], system.columns)
        scale = 1.0 if system.scale is None else system.scale
        left = left_out(system, model.ridge_ * system.mean_diagonal)
        moved = torch.where(matrix.observed[places], offsets[system.rows, None] - others[places], 0)
        values[places] = matrix.values[places] - left.errors / scale - moved * left.of_ones / scale
        variances[places] = left.variances / scale**2
    if model._rows is None:
        # Nothing is left of their rows but the prior mean.
        alone = (matrix.observed.sum(1) == 1)[:, None]
        values = torch.where(alone, others, values)
    seen = matrix.observed
    return LeftOut(torch.where(seen, values, torch.nan), torch.where(seen, variances, torch.nan), True)


def _means_without(model: Judged) -> Tensor:
    """The offset that the row of each observed entry would have without it, [rows, columns]."""
    matrix = model._matrix
    known = torch.where(matrix.observed, matrix.values, 0)
    if not model.center:
        return torch.zeros_like(known)
    count, total = matrix.observed.sum(), known.sum()
    overall = (total - known) / (count - 1).clamp_min(1)
    if model._rows is not None:
        return overall
    counts = matrix.observed.sum(1, keepdim=True)
    return torch.where(counts > 1, (known.sum(1, keepdim=True) - known) / (counts - 1).clamp_min(1), overall)


def in_parts(model: Judged, fold: Tensor, parts: int) -> LeftOut:
    """Leave out the entries of one part after the other, and fit to the rest.

    Args:
        model: fitted.
        fold: which part an entry belongs to, [rows, columns]; see ``folds_of``.
        parts: the first so many are left out.
    """
    observed = model._matrix.observed
    values, variances = (torch.full_like(model._matrix.values, torch.nan) for _ in range(2))
    for part in tqdm(range(parts), disable=not model.progress, desc="leaving out", unit="part"):
        hidden = fold == part
        rest = observed & ~hidden
        if not bool(rest.any()):
            continue
        other = refitted(model, rest)
        values = torch.where(hidden, other._filled(), values)
        variances = torch.where(hidden, variances_of(other), variances)
    return LeftOut(values, variances, False)
