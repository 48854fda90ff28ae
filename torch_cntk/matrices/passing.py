"""A completion by passes: what ``MatrixCompletion(passes=...)`` finds, and what it says of other rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torch_cntk._internal.ranks import Mesh
from torch_cntk.matrices.choice import Choice, Trials, choose
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.options import Precision
from torch_cntk.matrices.sides import Side
from torch_cntk.matrices.tables import Matrix

__all__ = ["Passes", "Passing", "fit_passes"]

Passes = Literal["auto"] | int
_UNSOLVED = 1e-3
"""Relative residual of the equations of a pass from which the user is told."""


@dataclass(frozen=True, eq=False)
class Passing:
    """A matrix completed by passes.

    Attributes:
        known: what was observed.
        choice: the plan, and why it was chosen.
        values: the fit in the units of the table, [rows, columns], also at observed entries.
        residual: largest relative residual of any pass's equations.
    """

    known: Known
    choice: Choice
    values: Tensor
    residual: float

    def filled(self, matrix: Matrix) -> Tensor:
        """A matrix of the same columns with what is not observed filled, [rows, columns].

        Args:
            matrix: the one that was fitted, or other rows: they are set below those, and all is filled anew.
        """
        if matrix.values.shape == self.values.shape and torch.equal(
            torch.where(matrix.observed, matrix.values, 0), self.known.table
        ):
            values = self.values
        else:
            both = self.known.joined(matrix.values, matrix.observed)
            values = both.back(self.choice.plan.filled(both).values)[len(self.values) :]
        return torch.where(matrix.observed, matrix.values, values)

    def score(self, matrix: Matrix, seed: int) -> float:
        """R^2 at entries of a matrix that are left out as its missing ones are, against the means of their columns."""
        known = Known.of(matrix.values, matrix.observed)
        trials = Trials(known, seed)
        predicted = trials.of_plan(self.choice.plan)
        means = trials.of_means()
        return 1 - float((predicted - trials.truth).square().sum() / (means - trials.truth).square().sum())

    @property
    def notes(self) -> list[str]:
        """What to tell the user."""
        found = []
        if self.residual > _UNSOLVED:
            found.append(f"the iteration of a pass ended before its tolerance; residual {self.residual:.1e}")
        return found


def fit_passes(
    matrix: Matrix,
    rows: Side | None,
    columns: Side | None,
    passes: Passes,
    choice: Choice | None = None,
    *,
    precision: Precision,
    seed: int,
    progress: bool,
    mesh: Mesh | None = None,
) -> Passing:
    """Complete a matrix by passes.

    Args:
        matrix: read, with at least one observed entry.
        rows: features of the rows, or None.
        columns: features of the columns, or None.
        passes: see ``MatrixCompletion``.
        choice: made before; by default it is made now.
        precision: of products with kernels.
        seed: of the entries that are left out for it.
        progress: whether to show a bar.
        mesh: ranks that divide the choice.

    Returns:
        the completion.
    """
    known = Known.of(matrix.values, matrix.observed, rows, columns)
    choice = choice or choose(known, passes, precision=precision, seed=seed, progress=progress, mesh=mesh)
    filled = choice.plan.filled(known)
    return Passing(known, choice, known.back(filled.values), filled.residual)
