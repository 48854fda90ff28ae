"""Two more ways to fill a matrix: by the features of the columns alone, as in the paper, and by neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from torch_cntk.matrices.baselines.tables import nearest_rows
from torch_cntk.matrices.fillers import Filled
from torch_cntk.matrices.forms import TensorForm
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.regression import best_ridge, row_offsets, solved, targets_of
from torch_cntk.matrices.sides import Side, fully_connected
from torch_cntk.matrices.systems import patterns, systems_of_columns
from torch_cntk.matrices.tables import Matrix

__all__ = ["Nearest", "Told"]

_EIGENSYSTEM = 30.0
"""FLOPs of an eigendecomposition and a grid of ridges, for each n^3."""


@dataclass(frozen=True)
class Told:
    """Each row regressed on the features of the columns: ``MatrixCompletion(ridge="cv")`` without passes.

    It is in the units of the table: what features tell of a column that nobody has measured includes its mean.

    Attributes:
        identity: weight of what is particular to a column; see ``MatrixCompletion``.
        seed: of what is held out to choose the ridge, where there are many equations.
    """

    identity: float = 0.3
    seed: int = 0

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """See ``Filler.filled``; the estimate does not matter.

        Raises:
            ValueError: columns have no features.
        """
        if known.columns is None:
            raise ValueError("expected features of the columns, got none")
        side = _with_identity(known.columns, self.identity)
        operator = side.operator(fully_connected(1))
        form = TensorForm(known.table.dtype, known.table.device)
        matrix = Matrix(known.table, known.observed, None, None, form)
        offsets, _ = row_offsets(matrix, center=True, coupled=False)
        targets = targets_of(matrix, offsets)
        systems = systems_of_columns(operator, known.observed, targets, "auto")
        ridge, _ = best_ridge(systems, "auto", self.seed, progress=False)
        weights = solved(systems, targets, ridge, "auto", progress=False)
        values = operator.cross_multiply(side.features, weights.values) + offsets[:, None]
        return Filled((values - known.center) / known.scale, weights.residual)

    def cost(self, known: Known) -> float:
        """See ``Filler.cost``."""
        return sum(_EIGENSYSTEM * float(len(seen)) ** 3 for seen, _ in patterns(known.observed))


@dataclass(frozen=True)
class Nearest:
    """The mean of the five nearest rows (or columns) that have the entry; see ``baselines.nearest_rows``.

    Attributes:
        columns: whether neighbours are columns.
    """

    columns: bool = False

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """See ``Filler.filled``; the estimate does not matter."""
        if self.columns:
            return Filled(nearest_rows(known.values.T, known.observed.T).T)
        return Filled(nearest_rows(known.values, known.observed))

    def cost(self, known: Known) -> float:
        """See ``Filler.cost``."""
        rows, columns = known.table.shape
        return _SORT * rows * columns * float(columns if self.columns else rows)


_SORT = 40.0
"""FLOPs that finding the nearest takes for each pair of rows and column."""


def _with_identity(side: Side, identity: float) -> Side:
    """A side that was made without an identity block, with one."""
    whole = 1 + identity**2
    return replace(side, features=side.features / math.sqrt(whole), white=identity**2 / whole)
