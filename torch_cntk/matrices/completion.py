"""Complete matrices whose columns (and perhaps rows) have features: Theorem 1 of the paper.

Row i of the matrix is a function of the column's features, observed at some columns and regressed with the kernel of an
infinitely wide fully connected network. A column without a single observed entry is no harder than any other.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.contexts import weightless
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.layers import ACTIVATIONS, Layer
from torch_cntk.matrices.parameters import Estimator
from torch_cntk.matrices.regression import RIDGES, best_ridge, row_offsets, solved, targets_of
from torch_cntk.matrices.sides import Activation, Side, fully_connected, roots_of_weights, side
from torch_cntk.matrices.systems import System, systems_of_columns
from torch_cntk.matrices.tables import Matrix, different, read_matrix
from torch_cntk.operators.row_column import COMBINATIONS, Combination, RowColumnOperator, between
from torch_cntk.solvers import Solver
from torch_cntk.solvers.base import unit_of

__all__ = ["ACTIVATIONS", "RIDGES", "MatrixCompletion", "fully_connected"]

Precision = Literal["float64", "float32"]
_PRECISIONS: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Precision)}
_SIGNS = (
    "the features of all {what}s are multiples of one line: divided by their norms, nothing but their signs is left; "
    "add a constant feature (features.concatenate), or set normalize=False"
)


class MatrixCompletion(Estimator):
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
        seed: of what is held out.
        progress: whether to show bars.

    Attributes:
        ridge_: the ridge, relative.
        weights_: [rows, columns], of the regression; 0 at unobserved entries.
        residual_: largest relative residual of the equations of any row.
        solver_: what solved them.
        n_iter_: iterations of the row that took most; 0 if none was needed.
        n_features_in_: number of columns.
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
        device: str | None = None,
        seed: int = 0,
        progress: bool = False,
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
        self.device = device
        self.seed = seed
        self.progress = progress

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def fit(
        self,
        Y: Any,  # noqa: N803 - the paper's name
        observed: Any = None,
        features: Any = None,
        row_features: Any = None,
        *,
        column_weight: Any = None,
    ) -> MatrixCompletion:
        """Regress each row on its observed entries.

        Args:
            Y: [rows, columns]: a tensor, array, masked array, or frame of pandas or polars. It is computed with in
                float64.
            observed: boolean [rows, columns], **True = known**; by default what is not missing. Of two frames, entries
                are matched by label.
            features: of the columns, [columns, p] (the paper's Z is their transpose). Of two frames, lines are
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
                nothing is observed.

        Warns:
            UserWarning: a row has no observed entry; the kernel is singular and there is no ridge; an iteration ended
                before its tolerance; or normalising leaves nothing but the signs of the features.
        """
        self._check_options()
        with allocating("fitting the matrix"):
            notes = self._fit(Y, observed, features, row_features, column_weight)
        for note in notes:
            warn_user(note)
        return self

    def _fit(self, table: Any, observed: Any, features: Any, row_features: Any, column_weight: Any) -> list[str]:
        """Do what ``fit`` does, and return what to tell the user.

        Raises:
            ValueError: there are no features, or nothing is observed.
        """
        matrix = read_matrix(table, observed, self.device)
        if features is None:
            raise ValueError("expected features of the columns, [columns, p], got None")
        if not bool(matrix.observed.any()):
            raise ValueError("expected at least one observed entry, got none; observed is True where known")
        rows, columns = matrix.values.shape
        with weightless():
            self._network = fully_connected(self.hidden_layers, self.activation)
        device = matrix.values.device
        self._columns, notes = self._side(features, "column", matrix.columns, columns, device)
        self._rows = None
        if row_features is not None:
            self._rows, more = self._side(row_features, "row", matrix.rows, rows, device)
            notes += more
        self._scale = None if column_weight is None else roots_of_weights(column_weight, matrix)
        self._matrix = matrix
        self.n_features_in_ = columns
        return notes + self._regress(matrix)

    def _check_options(self) -> None:
        if isinstance(self.ridge, str):
            if self.ridge != "cv":
                raise ValueError(f'expected ridge to be a number or "cv", got {self.ridge!r}')
        else:
            finite_number(self.ridge, "ridge", minimum=0)
        finite_number(self.identity, "identity", minimum=0)
        finite_number(self.row_identity, "row_identity", minimum=0)
        if self.combine not in COMBINATIONS:
            raise ValueError(f"expected combine to be one of {', '.join(COMBINATIONS)}, got {self.combine!r}")
        if self.solver != "auto" and not isinstance(self.solver, Solver):
            raise ValueError(f'expected solver to be "auto" or a Solver, got {self.solver!r}')
        if self.precision not in _PRECISIONS:
            raise ValueError(f"expected precision to be one of {', '.join(_PRECISIONS)}, got {self.precision!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or self.seed < 0:
            raise ValueError(f"expected seed to be an integer of at least 0, got {self.seed!r}")

    def _side(
        self,
        features: Any,
        what: Literal["column", "row"],
        labels: Sequence[Any] | None,
        count: int | None,
        device: torch.device,
    ) -> tuple[Side, list[str]]:
        """One side of the matrix, and what to tell the user of its features."""
        identity = self.identity if what == "column" else self.row_identity
        read = side(features, what, labels, count, identity=identity, normalize=self.normalize, device=device)
        return read, [_SIGNS.format(what=what)] if read.only_signs and count is not None else []

    def _regress(self, matrix: Matrix) -> list[str]:
        """Find ``weights_``, ``offsets_`` and how well they solve the equations; return what to tell the user."""
        self._operator = self._columns.operator(self._network, _PRECISIONS[self.precision])
        self.offsets_, notes = row_offsets(matrix, center=self.center, coupled=self._rows is not None)
        targets = targets_of(matrix, self.offsets_)
        systems = self._systems(matrix.observed, targets)
        if isinstance(self.ridge, str):
            self.ridge_ = best_ridge(systems, self.solver, self.seed, progress=self.progress)
        else:
            self.ridge_ = float(self.ridge)
        weights = solved(systems, targets, self.ridge_, self.solver, progress=self.progress)
        self.weights_, self.residual_ = weights.values, weights.residual
        self.solver_, self.n_iter_ = weights.solver, weights.iterations
        return notes + weights.notes

    def _systems(self, observed: Tensor, targets: Tensor) -> list[System]:
        if self._rows is None:
            return systems_of_columns(self._operator, observed, targets, self.solver, self._scale)
        rows, columns = self._rows.operator(self._network).dense(), self._operator.dense()
        entries = RowColumnOperator(rows, columns, self.combine)
        all_rows, all_columns = (torch.arange(n, device=observed.device) for n in observed.shape)
        whole = System(entries, observed, targets, all_rows, all_columns, entries.mean_diagonal)
        return [whole if self._scale is None else whole.scaled(self._scale)]

    @allocating("predicting the matrix")
    def predict(self, features: Any = None, row_features: Any = None) -> Any:
        """Complete the matrix, or predict columns (and rows) that it did not have.

        Args:
            features: of new columns, [new columns, p]; by default the matrix' own columns.
            row_features: of new rows, [new rows, q], if the rows have features; by default the matrix' own rows.

        Returns:
            [rows, columns] or [rows, new columns] and so on, as ``Y`` was given: tensor, array or frame. Without
            arguments, observed entries are untouched.

        Raises:
            ValueError: ``fit`` was not called, or features do not fit those of ``fit``.
        """
        self._check_fitted()
        if features is None and row_features is None:
            return self._completed(self._matrix, self.weights_, self.offsets_)
        columns = self._columns if features is None else self._new_side(features, "column", self._columns)
        row_labels, column_labels = self._matrix.rows, columns.labels
        if self._rows is None:
            if row_features is not None:
                raise ValueError(
                    "expected row_features in fit() as well: rows without them do not learn from each other"
                )
            values = self._operator.cross_multiply(columns.features, self.weights_, progress=self.progress)
            return self._matrix.restore(values + self.offsets_[:, None], row_labels, column_labels)
        rows = self._rows if row_features is None else self._new_side(row_features, "row", self._rows)
        kernels = self._rows.kernel(self._network, rows), self._columns.kernel(self._network, columns)
        values = between(*kernels, self.weights_, self.combine)
        row_labels = row_labels if row_features is None else rows.labels
        return self._matrix.restore(values + self.offsets_[0], row_labels, column_labels)

    def _new_side(self, features: Any, what: Literal["column", "row"], fitted: Side) -> Side:
        return self._side(fitted.read_more(features, what), what, None, None, self._matrix.values.device)[0]

    def _completed(self, matrix: Matrix, weights: Tensor, offsets: Tensor) -> Any:
        """Fill what is not observed."""
        filled = matrix.values.clone()
        missing = ~matrix.observed
        columns = missing.any(0).nonzero()[:, 0]
        if len(columns) and self._rows is None:
            seen = matrix.observed.any(0).nonzero()[:, 0]
            # Columns that are filled for one row and observed for another: their weight is 0 where they are filled.
            values = self._operator.select(seen).cross_multiply(
                self._columns.features[columns], weights[:, seen], progress=self.progress
            )
            filled[:, columns] = torch.where(missing[:, columns], values + offsets[:, None], filled[:, columns])
        elif len(columns):
            assert self._rows is not None
            kernels = self._rows.kernel(self._network), self._columns.kernel(self._network)
            values = between(*kernels, weights, self.combine) + offsets[0]
            filled = torch.where(missing, values, filled)
        return matrix.restore(filled, matrix.rows, matrix.columns)

    def fit_predict(
        self,
        Y: Any,  # noqa: N803
        observed: Any = None,
        features: Any = None,
        row_features: Any = None,
        *,
        column_weight: Any = None,
    ) -> Any:
        """``fit`` and then ``predict``."""
        return self.fit(Y, observed, features, row_features, column_weight=column_weight).predict()

    def fit_transform(
        self,
        Y: Any,  # noqa: N803
        observed: Any = None,
        *,
        features: Any = None,
        row_features: Any = None,
        column_weight: Any = None,
    ) -> Any:
        """``fit`` and then ``predict``, by the name that pipelines call it."""
        return self.fit(Y, observed, features, row_features, column_weight=column_weight).predict()

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
        for note in other._regress(matrix):
            warn_user(note)
        return other._completed(matrix, other.weights_, other.offsets_)

    def left_out(self) -> Any:
        """What the fit says of each observed entry without having seen it (leave-one-out, in closed form).

        Returns:
            [rows, columns], as ``Y`` was given; NaN at unobserved entries. Means of rows, if they were taken off, have
            seen the entry.

        Raises:
            ValueError: ``fit`` was not called, or there are too many equations or a solver that is not direct.
        """
        self._check_fitted()
        matrix = self._matrix
        targets = targets_of(matrix, self.offsets_)
        values = torch.full_like(matrix.values, torch.nan)
        for system in self._systems(matrix.observed, targets):
            errors = system.left_out(self.ridge_)
            if system.scale is not None:
                errors /= system.scale
            places = (system.rows[:, None], system.columns)
            values[places] = matrix.values[places] - errors
        values = torch.where(matrix.observed, values, torch.nan)
        return matrix.restore(values, matrix.rows, matrix.columns)

    def score(self, Y: Any, observed: Any = None) -> float:  # noqa: N803
        """R^2 of each observed entry's prediction from the other observed entries of its row (leave-one-out).

        Args:
            Y: [any rows, columns].
            observed: boolean of its shape, True = known; by default what is not NaN.

        Returns:
            1 less the squared errors over the squared deviations from the rows' means, weighted as in ``fit``.

        Raises:
            ValueError: ``fit`` was not called or had features of the rows, or the columns are others.
        """
        matrix = self._other_rows(Y, observed)
        offsets, notes = row_offsets(matrix, center=self.center, coupled=False)
        targets = targets_of(matrix, offsets)
        unit = unit_of(targets)  # of both sums of squares
        systems = systems_of_columns(self._operator, matrix.observed, targets / unit, self.solver, self._scale)
        generator = torch.Generator().manual_seed(self.seed)
        error = torch.stack([system.errors((self.ridge_,), self.solver, generator)[0] for system in systems]).sum()
        means = torch.where(matrix.observed, matrix.values, 0).sum(1) / matrix.observed.sum(1).clamp_min(1)
        deviations = torch.where(matrix.observed, matrix.values - means[:, None], 0) / unit
        spread = (deviations if self._scale is None else deviations * self._scale).square().sum()
        for note in notes:
            warn_user(note)
        return 1 - float(error / spread)

    def _other_rows(self, table: Any, observed: Any) -> Matrix:
        self._check_fitted()
        if self._rows is not None:
            raise ValueError("expected rows without features: with them, pass row_features to predict()")
        matrix = read_matrix(table, observed, self.device)
        if matrix.values.shape[1] != self.n_features_in_:
            raise ValueError(f"expected the {self.n_features_in_} columns of fit(), got {matrix.values.shape[1]}")
        if different(matrix.columns, self._matrix.columns):
            raise ValueError("expected the columns of fit() in the same order, got other labels")
        if not bool(matrix.observed.any()):
            raise ValueError("expected at least one observed entry, got none; observed is True where known")
        return matrix

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise ValueError("expected fit() before this, got an estimator that has not been fitted")
