"""K @ w for matrices whose rows and columns both have a kernel."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from torch_cntk.operators.base import Operator

__all__ = ["COMBINATIONS", "Combination", "RowColumnOperator", "between"]

Combination = Literal["product", "sum"]
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)
_ENTRY = 200.0
"""Two entries of a matrix are found for each one; see ``Operator.entry_cost``."""


class RowColumnOperator(Operator):
    """The kernel between entries (i, j) of a matrix: R(i, i') C(j, j') or R(i, i') + C(j, j').

    Args:
        rows: R, [r, r] in float64.
        columns: C, [c, c] in float64.
        combine: "product" or "sum".
    """

    def __init__(self, rows: Tensor, columns: Tensor, combine: str) -> None:
        size = (len(rows), len(columns))
        super().__init__(size, columns.dtype, columns.device, cost=2 * sum(size), entry_cost=_ENTRY)
        self._rows, self._columns, self._combine = rows, columns, combine

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        rows, columns = self._rows[first[0], second[0]], self._columns[first[1], second[1]]
        return rows * columns if self._combine == "product" else rows + columns

    def _multiply(self, images: Tensor) -> Tensor:
        return between(self._rows, self._columns, images.to(self.dtype), self._combine).to(images.dtype)


def between(rows: Tensor, columns: Tensor, weights: Tensor, combine: str) -> Tensor:
    """The regression at entries of other rows and columns, or of the same.

    Args:
        rows: R between them and the rows of the weights, [r', r].
        columns: C between them and the columns of the weights, [c', c].
        weights: [..., r, c].
        combine: "product" or "sum".

    Returns:
        [..., r', c'].
    """
    if combine == "product":
        product: Tensor = rows @ weights @ columns.T
        return product
    return torch.add((weights.sum(-1) @ rows.T)[..., None], (weights.sum(-2) @ columns.T)[..., None, :])
