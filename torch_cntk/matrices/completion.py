"""Complete matrices whose columns (and perhaps rows) have features: Theorem 1 of the paper.

Row i of the matrix is a function of the column's features, observed at some columns and regressed with the kernel of an
infinitely wide fully connected network. A column without a single observed entry is no harder than any other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import on_ranks
from torch_cntk._internal.contexts import weightless
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.layers import ACTIVATIONS, Layer
from torch_cntk.matrices.choice import Plan
from torch_cntk.matrices.judged import Judged
from torch_cntk.matrices.options import PRECISIONS, Precision, check_options
from torch_cntk.matrices.passing import Passes, Passing, fit_passes
from torch_cntk.matrices.regression import (
    RIDGES,
    best_ridge,
    row_offsets,
    solved,
    targets_of,
    told_of_empty,
)
from torch_cntk.matrices.side_information import Encoding, encoded
from torch_cntk.matrices.sides import Activation, Side, fully_connected, roots_of_weights, side
from torch_cntk.matrices.systems import System, systems_of_columns
from torch_cntk.matrices.tables import Features, Matrix, read_matrix
from torch_cntk.operators.row_column import Combination, RowColumnOperator, between
from torch_cntk.solvers import Solver

__all__ = ["ACTIVATIONS", "RIDGES", "MatrixCompletion", "fully_connected"]


class MatrixCompletion(Judged):
    """Matrix completion with an infinitely wide fully connected network and a feature prior.

    An estimator in the manner of scikit-learn, which is not needed: the constructor keeps its arguments, ``fit`` checks
    them, attributes found by ``fit`` end in an underscore. In a ``Pipeline`` it completes the rows that come; in a
    ``GridSearchCV`` (over rows) it is scored by its leave-one-out errors, so that options are chosen without other
    data.

    Args:
        hidden_layers: of the network; 1 gives kappa_1 of Theorem 1, 0 the linear kernel.
        activation: a name among ``ACTIVATIONS``, or an activation layer.
        ridge: relative to the kernel's mean diagonal, at least 0; larger values forgive more noise, 0 interpolates
            (where columns have the same features, their mean). Or
            "cv": the one among ``RIDGES`` with the smallest leave-one-out error (of more than 4,000 equations: with the
            smallest error on a tenth of the entries, held out).
        identity: weight of an identity block behind the features: whatever is particular to a column (as noise is)
            and not told by its features. The features themselves have norm 1 if ``normalize``.
        normalize: whether to divide each column's features by their norm, as Theorem 1 does.
        center: whether to take each row's mean off before and to add it after.
        row_identity: as ``identity``, for the features of the rows.
        combine: how the kernels of rows and columns make one of entries if there are features of both: "product"
            (entries are alike if their rows and their columns are) or "sum" (an effect of the row plus one of the
            column).
        solver: "auto" solves directly up to 30,000 equations a row, if their matrix fits into half of the free memory,
            and iteratively above; or a ``Solver``.
        precision: "float64", or "float32": in which iterative solvers and predictions of columns multiply by the
            kernel. Its entries and direct solutions are float64 all the same. It pays with hundreds of rows.
        device: where to compute; by default where Y is, if it is a tensor, else the CPU.
        passes: the estimate as feature prior of rows and columns (docs/matrices.md#passes): a number of passes, or
            "auto", which mixes passes and simpler completions, all chosen by entries that are left out. Features of
            columns and rows stand beside the entries then; ridge, depth and so on are chosen as well. None makes passes
            ("auto") only where there are no features.
        seed: of what is held out.
        progress: whether to show bars.
        clip: the smallest and the largest value that a prediction may have, as (0, None) of what cannot be negative;
            observed entries stay as they are.
        mesh: of ``torch_cntk.distributed.mesh()``: processes that call the same methods with the same arguments. They
            divide the work, and all of them get the same results: those of one process, to the bit where the equations
            are solved directly, else to rounding. The device is the mesh's then, unless one is given.

    Attributes:
        ridge_: the ridge, relative; NaN after passes, each of which has a noise of its own.
        ridges_: what it was chosen from; nothing if it was given.
        weights_: [rows, columns], of the regression; 0 at unobserved entries, and after passes.
        passes_: how many passes there were; 0 without.
        plan_: what they were, and their weights in the mixture; None without.
        residual_: largest relative residual of the equations of any row.
        solver_: what solved them.
        n_iter_: iterations of the row that took most; 0 if none was needed.
        n_features_in_: number of columns.

    Example:
        >>> import torch
        >>> import torch_cntk as tc
        >>> table = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, float("nan")]], dtype=torch.float64)
        >>> features = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
        >>> model = tc.MatrixCompletion(ridge=1e-6, normalize=False).fit(table, features=features)
        >>> model.predict().shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        hidden_layers: int = 1,
        activation: Activation | Layer = "relu",
        *,
        ridge: float | Literal["cv"] = 1e-3,
        identity: float = 0.0,
        normalize: bool = True,
        center: bool = True,
        row_identity: float = 1.0,
        combine: Combination = "product",
        solver: Literal["auto"] | Solver = "auto",
        precision: Precision = "float64",
        passes: Passes | None = None,
        device: str | None = None,
        seed: int = 0,
        progress: bool = False,
        clip: tuple[float | None, float | None] | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        self.hidden_layers = hidden_layers
        self.activation = activation
        self.ridge = ridge
        self.identity = identity
        self.normalize = normalize
        self.center = center
        self.row_identity = row_identity
        self.combine = combine
        self.solver = solver
        self.precision = precision
        self.passes = passes
        self.device = device
        self.seed = seed
        self.progress = progress
        self.clip = clip
        self.mesh = mesh

    @on_ranks
    def fit(
        self,
        Y: Any,  # noqa: N803 - the paper's name
        observed: Any = None,
        features: Any = None,
        row_features: Any = None,
        *,
        column_weight: Any = None,
    ) -> Self:
        """Regress each row on its observed entries.

        Args:
            Y: [rows, columns]: a tensor, array, masked array, or frame of pandas or polars. It is computed with in
                float64.
            observed: boolean [rows, columns], **True = known**; by default what is not missing. Of two frames, entries
                are matched by label.
            features: of the columns, [columns, p] (the paper's Z is their transpose); None describes columns and rows
                by their entries. Of two frames, lines are
                matched by label.
            row_features: of the rows, [rows, q]. Without them rows do not learn from each other. With them all entries
                are one system of equations.
            column_weight: how much the squared error of each column counts, [columns], relative to the mean of observed
                columns; those of little noise should count more. By default all count the same.

        Returns:
            itself.

        Raises:
            TypeError: something is not numbers, or the mask not boolean.
            ValueError: an option is out of range, shapes or labels do not match, features are not finite or zero, or
                nothing is observed; or arguments differ between the ranks of the mesh.

        Warns:
            UserWarning: a row has no observed entry; the kernel is singular and there is no ridge; an iteration ended
                before its tolerance; or normalising leaves nothing but the signs of the features.
        """
        with allocating("fitting the matrix"):
            notes = self._fit(Y, observed, features, row_features, column_weight)
        for note in notes:
            warn_user(note)
        return self

    def _fit(self, table: Any, observed: Any, features: Any, row_features: Any, column_weight: Any) -> list[str]:
        """Do what ``fit`` does, and return what to tell the user."""
        with self._ranks.together("reading the matrix"):
            check_options(self)
            matrix, notes = self._read(table, observed, features, row_features, column_weight)
        self._agree(matrix)
        return notes + self._fit_read(matrix)

    def _read(
        self, table: Any, observed: Any, features: Any, row_features: Any, column_weight: Any
    ) -> tuple[Matrix, list[str]]:
        """Read what is given: the matrix, and what to tell the user.

        Raises:
            ValueError: nothing is observed, or columns have weights that passes do not know.
        """
        matrix = read_matrix(table, observed, self._device)
        if not bool(matrix.observed.any()):
            raise ValueError("expected at least one observed entry, got none; observed is True where known")
        self._passing: Passing | None = None
        self._made: Passes | None = "auto" if self.passes is None and features is None else self.passes
        if self._made is not None and column_weight is not None:
            raise ValueError("expected no column_weight beside passes, which weigh all columns alike, got some")
        rows, columns = matrix.values.shape
        with weightless():
            self._network = fully_connected(self.hidden_layers, self.activation)
        self._encodings: dict[str, Encoding] = {}
        own, notes = self._read_side(features, "column", matrix.columns, columns, matrix.values.device)
        self._rows, more = self._read_side(row_features, "row", matrix.rows, rows, matrix.values.device)
        self._described = own
        if own is not None:
            self._columns = own
        self._scale = None if column_weight is None else roots_of_weights(column_weight, matrix)
        self.n_features_in_ = columns
        return matrix, notes + more

    def _fit_read(self, matrix: Matrix) -> list[str]:
        self._matrix = matrix
        self._left_out = self._calibration = None
        return self._regress(matrix) if self._made is None else self._pass(matrix, self._made)

    def _pass(self, matrix: Matrix, passes: Passes) -> list[str]:
        """Complete by passes, those that were chosen before if there are any; return what to tell the user."""
        before = None if self._passing is None else self._passing.choice
        sides = self._rows, self._described
        self._passing = fit_passes(
            matrix,
            *sides,
            passes,
            before,
            precision=self.precision,
            seed=self.seed,
            progress=self.progress,
            mesh=self.mesh,
        )
        self.plan_: Plan | None = self._passing.choice.plan
        self.passes_ = self._passing.choice.plan.passes
        self.residual_, self.ridge_, self.ridges_ = self._passing.residual, math.nan, ()
        self.weights_, self.offsets_ = torch.zeros_like(matrix.values), torch.zeros_like(matrix.values[:, 0])
        self.solver_, self.n_iter_ = "passes", 0
        lines = (("row", matrix.rows, 1, self._rows), ("column", matrix.columns, 0, self._described))
        empty = [
            told_of_empty(matrix.observed, what, labels, axis) for what, labels, axis, side in lines if side is None
        ]
        return self._passing.notes + [note for note in empty if note]

    def _read_side(
        self, features: Any, what: Literal["column", "row"], labels: Sequence[Any] | None, count: int, device: Any
    ) -> tuple[Side | None, list[str]]:
        """Read the features of one side, if there are any, and what to tell the user of them."""
        if features is None:
            return None, []
        given, self._encodings[what], notes = encoded(features, what, labels, count, normalize=self.normalize)
        return self._side(given, what, device), notes

    def _side(self, features: Features, what: Literal["column", "row"], device: torch.device) -> Side:
        """One side of the matrix."""
        identity = self.identity if what == "column" else self.row_identity
        identity = identity if self._made is None else 0.0
        return side(features, what, identity=identity, normalize=self.normalize, device=device)

    def _regress(self, matrix: Matrix) -> list[str]:
        """Find ``weights_``, ``offsets_`` and how well they solve the equations; return what to tell the user."""
        operator = self._columns.operator(self._network, PRECISIONS[self.precision])
        self._operator = operator if self._ranks.size == 1 else operator.divided(self._ranks)
        self.offsets_, notes = row_offsets(matrix, center=self.center, coupled=self._rows is not None)
        targets = targets_of(matrix, self.offsets_)
        systems = self._systems(matrix.observed, targets)
        if isinstance(self.ridge, str):
            self.ridge_, self.ridges_ = best_ridge(
                systems, self.solver, self.seed, progress=self.progress, mesh=self.mesh
            )
        else:
            self.ridge_, self.ridges_ = float(self.ridge), ()
        weights = solved(systems, targets, self.ridge_, self.solver, progress=self.progress, mesh=self.mesh)
        self.weights_, self.residual_ = weights.values, weights.residual
        self.solver_, self.n_iter_ = weights.solver, weights.iterations
        self.plan_, self.passes_ = None, 0
        return notes + weights.notes

    def _systems(self, observed: Tensor, targets: Tensor) -> list[System]:
        if self._rows is None:
            return systems_of_columns(self._operator, observed, targets, self.solver, self._scale)
        rows, columns = self._rows.operator(self._network).dense(), self._operator.dense()
        entries = RowColumnOperator(rows, columns, self.combine)
        all_rows, all_columns = (torch.arange(n, device=observed.device) for n in observed.shape)
        whole = System(entries, observed, targets, all_rows, all_columns, entries.mean_diagonal)
        return [whole if self._scale is None else whole.scaled(self._scale)]

    @on_ranks
    @allocating("predicting the matrix")
    def predict(self, features: Any = None, row_features: Any = None, *, return_std: bool = False) -> Any:
        """Complete the matrix, or predict columns (and rows) that it did not have.

        Args:
            features: of new columns, [new columns, p]; by default the matrix' own columns.
            row_features: of new rows, [new rows, q], if the rows have features; by default the matrix' own rows.
            return_std: whether to give standard deviations as well, of a measurement of each entry (its noise
                included). They are those of a Gaussian process, times a factor for each row with which 90 % of the
                entries that were left out lie within 1.645 of them.

        Returns:
            [rows, columns] or [rows, new columns] and so on, as ``Y`` was given: tensor, array or frame. Without
            arguments, observed entries are untouched. With ``return_std`` a pair of these; the deviation of an
            observed entry is 0.

        Raises:
            ValueError: ``fit`` was not called, or features do not fit those of ``fit``; or standard deviations of new
                rows are asked for.
        """
        self._check_fitted()
        if return_std and (row_features is not None or (self._rows is not None and features is not None)):
            raise ValueError("expected return_std without features of new rows or of columns of coupled rows")
        if features is None and row_features is None:
            parts = [self._filled(), *([self._deviations()] if return_std else [])]
            labels = self._matrix.rows, self._matrix.columns
        else:
            if self._passing is not None:
                raise ValueError("expected no features after passes, got some; fit() a matrix that has the new lines")
            with self._ranks.together("reading features"):
                columns = self._columns if features is None else self._new_side(features, "column")
            self._ranks.agree(features=columns.features)
            values, rows = self._predicted(columns, row_features)
            parts = [values, *([self._deviations(columns)] if return_std else [])]
            labels = rows, columns.labels
        found = [self._matrix.restore(part, *labels) for part in parts]
        return tuple(found) if return_std else found[0]

    def _predicted(self, columns: Side, row_features: Any) -> tuple[Tensor, Any]:
        """Predictions of further columns, or of further rows of columns, and labels of the rows.

        Raises:
            ValueError: there are features of rows, but ``fit`` had none.
        """
        if self._rows is None:
            if row_features is not None:
                raise ValueError(
                    "expected row_features in fit() as well: rows without them do not learn from each other"
                )
            values = self._operator.cross_multiply(columns.features, self.weights_, progress=self.progress)
            return self._clipped(values + self.offsets_[:, None]), self._matrix.rows
        with self._ranks.together("reading features of rows"):
            rows = self._rows if row_features is None else self._new_side(row_features, "row")
        self._ranks.agree(row_features=rows.features)
        kernels = self._rows.kernel(self._network, rows), self._columns.kernel(self._network, columns)
        values = between(*kernels, self.weights_, self.combine) + self.offsets_[0]
        return self._clipped(values), self._matrix.rows if row_features is None else rows.labels

    def _new_side(self, features: Any, what: Literal["column", "row"]) -> Side:
        return self._side(self._encodings[what].read(features, what), what, self._matrix.values.device)

    def _filled(self, matrix: Matrix | None = None) -> Tensor:
        """A matrix, by default that of ``fit``, with what is not observed filled, [rows, columns]."""
        matrix = self._matrix if matrix is None else matrix
        if self._passing is not None:
            return torch.where(matrix.observed, matrix.values, self._clipped(self._passing.filled(matrix)))
        filled = matrix.values.clone()
        missing = ~matrix.observed
        columns = missing.any(0).nonzero()[:, 0]
        if len(columns) and self._rows is None:
            seen = matrix.observed.any(0).nonzero()[:, 0]
            # Columns that are filled for one row and observed for another: their weight is 0 where they are filled.
            values = self._operator.select(seen).cross_multiply(
                self._columns.features[columns], self.weights_[:, seen], progress=self.progress
            )
            filled[:, columns] = torch.where(missing[:, columns], values + self.offsets_[:, None], filled[:, columns])
        elif len(columns):
            assert self._rows is not None
            kernels = self._rows.kernel(self._network), self._columns.kernel(self._network)
            values = between(*kernels, self.weights_, self.combine) + self.offsets_[0]
            filled = torch.where(missing, values, filled)
        return torch.where(missing, self._clipped(filled), filled)

    @on_ranks
    def transform(self, Y: Any, observed: Any = None) -> Any:  # noqa: N803
        """Complete other rows of the same columns.

        Args:
            Y: [other rows, columns].
            observed: boolean of its shape, True = known; by default what is not NaN.

        Returns:
            Y completed.

        Raises:
            ValueError: ``fit`` was not called or had features of the rows, or the columns are others.
        """
        matrix = self._other_rows(Y, observed)
        other = copy.copy(self)
        other.ridge = self.ridge_
        for note in other._regress(matrix) if self._passing is None else ():
            warn_user(note)
        return matrix.restore(other._filled(matrix), matrix.rows, matrix.columns)
