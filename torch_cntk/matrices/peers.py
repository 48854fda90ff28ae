"""Simple completions of a table that a kernel is compared with: they need nothing but the entries."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torch_cntk.matrices.baselines.tables import chosen_soft_impute, nearest_rows, two_way_means

__all__ = ["affordable", "completed_by"]

Method = Callable[[Tensor, Tensor], Tensor]

_MOST_WORK = 2e11
"""Multiplications above which a method is left out of the comparison: a core takes a minute or two."""
_DECOMPOSITIONS = 400
"""Eigendecompositions of soft-impute, with the choice of its shrinkage, about."""


def _row_means(values: Tensor, observed: Tensor) -> Tensor:
    known = torch.where(observed, values, 0)
    means = known.sum(1) / observed.sum(1).clamp_min(1)
    return torch.where(observed.any(1), means, values[observed].mean())[:, None].expand(values.shape)


def _column_means(values: Tensor, observed: Tensor) -> Tensor:
    return _row_means(values.T, observed.T).T


def _nearest_columns(values: Tensor, observed: Tensor) -> Tensor:
    return nearest_rows(values.T, observed.T).T


_METHODS: dict[str, Method] = {
    "row means": _row_means,
    "column means": _column_means,
    "row + column means": two_way_means,
    "5 nearest rows": nearest_rows,
    "5 nearest columns": _nearest_columns,
    "soft-impute": chosen_soft_impute,
}


def affordable(rows: int, columns: int) -> list[str]:
    """Names of the methods that do not take long for a table of this size."""
    small, large = min(rows, columns), max(rows, columns)
    work = {
        "5 nearest rows": rows * rows * columns * 10,
        "5 nearest columns": columns * columns * rows * 10,
        "soft-impute": _DECOMPOSITIONS * small**2 * large,
    }
    return [name for name in _METHODS if work.get(name, 0) <= _MOST_WORK]


def completed_by(name: str, values: Tensor, observed: Tensor) -> Tensor:
    """Complete a table.

    Args:
        name: of the method, see ``affordable``.
        values: [rows, columns] in float64.
        observed: boolean [rows, columns], True = known.

    Returns:
        its predictions, [rows, columns]; what they are at observed entries does not matter.
    """
    return _METHODS[name](values, observed)
