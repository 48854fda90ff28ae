"""Complete matrices whose columns (and perhaps rows) have features: Theorem 1 of the paper.

Row i of the matrix is a function of the column's features, observed at some columns and regressed with the kernel of an
infinitely wide fully connected network. A column without a single observed entry is no harder than any other.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.memory import allocating
from torch_cntk.layers import ACTIVATIONS, Layer, Linear, Sequential, activation_of
from torch_cntk.matrices.systems import System, systems_of_columns
from torch_cntk.matrices.tables import Matrix, name_of, read_features, read_matrix
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.row_column import COMBINATIONS, RowColumnOperator, between
from torch_cntk.solvers import Solver, Status

__all__ = ["ACTIVATIONS", "MatrixCompletion", "fully_connected"]

_SINGULAR = (
    "the kernel between observed columns is singular: solved in the least-squares sense, in which columns that cannot "
    "be told apart share the mean of what was observed; give a ridge or an identity block to choose otherwise"
)

_PRECISIONS = {"float64": torch.float64, "float32": torch.float32}

RIDGES = tuple(10.0 ** (k / 2) for k in range(-12, 5))
"""What ``ridge="cv"`` chooses from: 1e-6 to 100, relative to the kernel's mean diagonal."""


def fully_connected(hidden_layers: int, activation: str | Layer = "relu") -> Sequential:
    """The network whose kernel ``MatrixCompletion`` takes; the kernel does not depend on the width, which is 1 here.

    Args:
        hidden_layers: at least 0, which gives the linear kernel.
        activation: a name among ``ACTIVATIONS``, or an activation layer.

    Raises:
        TypeError: the number is no integer, or the activation neither a name nor a layer.
        ValueError: the number is negative, or the name unknown.
    """
    if isinstance(hidden_layers, bool) or not isinstance(hidden_layers, int | np.integer):
        raise TypeError(f"expected hidden_layers to be an integer, got {hidden_layers!r}")
    if hidden_layers < 0:
        raise ValueError(f"expected hidden_layers to be at least 0, got {hidden_layers}")
    bend = activation_of(activation)
    hidden = [layer for _ in range(hidden_layers) for layer in (Linear(1, 1), bend)]
    return Sequential(*hidden, Linear(1, 1))


class MatrixCompletion:
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
        activation: str | Layer = "relu",
        *,
        ridge: float | str = 1e-3,
        identity: float = 0.0,
        normalize: bool = True,
        center: bool = True,
        row_identity: float = 1.0,
        combine: str = "product",
        solver: str | Solver = "auto",
        precision: str = "float64",
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

    # scikit-learn's manners.

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` changes nothing."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> MatrixCompletion:
        """Change some of the constructor's arguments.

        Raises:
            ValueError: there is no such argument.
        """
        for name, value in params.items():
            if name not in self._names():
                raise ValueError(f"expected a parameter among {', '.join(self._names())}, got {name!r}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(allow_nan=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def __repr__(self) -> str:
        defaults = {name: parameter.default for name, parameter in inspect.signature(type(self)).parameters.items()}
        changed = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
        return f"MatrixCompletion({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    # Fitting.

    @allocating("fitting the matrix")
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
            Y: [rows, columns], a tensor, array or pandas frame. It is computed with in float64.
            observed: boolean [rows, columns], **True = known**; by default what is not NaN.
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
            UserWarning: a row has no observed entry; the kernel is singular and there is no ridge; or an iteration
                ended before its tolerance.
        """
        self._check_options()
        matrix = read_matrix(Y, observed, self.device)
        if features is None:
            raise ValueError("expected features of the columns, [columns, p], got None")
        if not bool(matrix.observed.any()):
            raise ValueError("expected at least one observed entry, got none; observed is True where known")
        rows, columns = matrix.values.shape
        self._network = fully_connected(self.hidden_layers, self.activation)
        device = matrix.values.device
        self._columns = self._side(features, "column", matrix.columns, columns, self.identity, device)
        self._rows = (
            None
            if row_features is None
            else self._side(row_features, "row", matrix.rows, rows, self.row_identity, device)
        )
        self._scale = None if column_weight is None else _scale(column_weight, matrix.observed.any(0))
        self._matrix = matrix
        self.n_features_in_ = columns
        self._regress(matrix)
        return self

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
        positive_int(self.seed + 1, "seed + 1")

    def _side(
        self,
        features: Any,
        what: str,
        labels: Sequence[Any] | None,
        count: int | None,
        identity: float,
        device: torch.device,
    ) -> Side:
        numbers, found = read_features(features, what, labels, count)
        return Side(*self._prior(numbers.to(device), what, found, identity), found)

    def _prior(
        self, features: Tensor, what: str, labels: Sequence[Any] | None, identity: float
    ) -> tuple[Tensor, float]:
        """Features whose mean products are the products of the given ones, and the variance of the identity block.

        Raises:
            ValueError: features are zero and cannot be normalised.
        """
        # Sigma_0 of a network is a mean over its input's features.
        root = math.sqrt(features.shape[1])
        if not self.normalize:
            return features * root, identity**2
        norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        if not bool((norm > 0).all()):
            place = int((norm[:, 0] == 0).nonzero()[0])
            raise ValueError(
                f"expected features of norm above 0, got zeros for {what} {name_of(labels, place)}, among "
                f"{int((norm == 0).sum())} such; add a constant feature, or set normalize=False"
            )
        # Features and identity block together have norm 1.
        whole = 1 + identity**2
        return features / norm * (root / math.sqrt(whole)), identity**2 / whole

    def _regress(self, matrix: Matrix) -> None:
        """Find ``weights_``, ``offsets_`` and how well they solve the equations."""
        self._operator = self._columns.operator(self._network, _PRECISIONS[self.precision])
        self.offsets_ = self._offsets(matrix)
        targets = torch.where(matrix.observed, matrix.values - self.offsets_[:, None], 0)
        systems = self._systems(matrix.observed, targets)
        self.ridge_: float = self._choose_ridge(systems) if self.ridge == "cv" else float(self.ridge)
        self.weights_ = torch.zeros_like(targets)
        self.residual_, self.solver_, self.n_iter_ = 0.0, "", 0
        several, statuses = len(systems) > 1, set()
        for system in tqdm(systems, disable=not (self.progress and several), desc="rows", unit="pattern"):
            solution = system.solve(self.ridge_, self.solver, progress=self.progress and not several)
            weights = solution.weights if system.scale is None else solution.weights * system.scale
            self.weights_[system.rows[:, None], system.columns] = weights
            self.residual_ = max(self.residual_, float(solution.residual.max()))
            self.solver_ = solution.solver
            self.n_iter_ = max(self.n_iter_, solution.iterations)
            statuses.add(solution.status)
        for status in statuses - {Status.CONVERGED}:
            text = _SINGULAR if status is Status.SINGULAR else f"{status.value}; residual {self.residual_:.1e}"
            warnings.warn(text, stacklevel=3)

    def _systems(self, observed: Tensor, targets: Tensor) -> list[System]:
        if self._rows is None:
            return systems_of_columns(self._operator, observed, targets, self.solver, self._scale)
        rows, columns = self._rows.operator(self._network).dense(), self._operator.dense()
        entries = RowColumnOperator(rows, columns, self.combine)
        all_rows, all_columns = (torch.arange(n, device=observed.device) for n in observed.shape)
        whole = System(entries, observed, targets, all_rows, all_columns, entries.mean_diagonal)
        return [whole if self._scale is None else whole.scaled(self._scale)]

    def _choose_ridge(self, systems: list[System]) -> float:
        """The one with the smallest error over all rows."""
        generator = torch.Generator().manual_seed(self.seed)
        bar = tqdm(systems, disable=not self.progress, desc="ridge", unit="system")
        errors = torch.stack([system.errors(RIDGES, self.solver, generator) for system in bar]).sum(0)
        best: float = RIDGES[int(errors.argmin())]
        return best

    def _offsets(self, matrix: Matrix) -> Tensor:
        """What is taken off each row: its mean, or that of all entries for rows without one or with a kernel."""
        known = torch.where(matrix.observed, matrix.values, 0)
        counts = matrix.observed.sum(1)
        prior = known.sum() / counts.sum() if self.center else known.new_zeros(())
        if self._rows is not None:
            return prior.expand(len(known))
        empty = counts == 0
        if bool(empty.any()):
            first = name_of(matrix.rows, int(empty.nonzero()[0]))
            warnings.warn(
                f"{int(empty.sum())} of {len(known)} rows have no observed entry (the first is row {first}); they are "
                f"filled with the prior mean, {float(prior):g}",
                stacklevel=4,
            )
        means = known.sum(1) / counts.clamp_min(1) if self.center else torch.zeros_like(known[:, 0])
        return torch.where(empty, prior, means)

    # Prediction.

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
        values = between(
            self._cross(self._rows, rows), self._cross(self._columns, columns), self.weights_, self.combine
        )
        row_labels = row_labels if row_features is None else rows.labels
        return self._matrix.restore(values + self.offsets_[0], row_labels, column_labels)

    def _cross(self, fitted: Side, new: Side) -> Tensor:
        """K between new rows or columns and those of ``fit``."""
        operator = fitted.operator(self._network)
        return operator.dense() if new is fitted else operator.cross(new.features)

    def _new_side(self, features: Any, what: str, fitted: Side) -> Side:
        numbers, labels = read_features(features, what)
        if numbers.shape[1] != fitted.features.shape[1]:
            raise ValueError(
                f"expected {fitted.features.shape[1]} features of each {what}, as in fit(), got {numbers.shape[1]}"
            )
        identity = self.identity if what == "column" else self.row_identity
        return self._side(numbers, what, labels, None, identity, self._matrix.values.device)

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
            rows_kernel, columns_kernel = self._cross(self._rows, self._rows), self._cross(self._columns, self._columns)
            values = between(rows_kernel, columns_kernel, weights, self.combine) + offsets[0]
            filled = torch.where(missing, values, filled)
        return matrix.restore(filled, matrix.rows, matrix.columns)

    def fit_predict(self, Y: Any, observed: Any = None, features: Any = None, row_features: Any = None) -> Any:  # noqa: N803
        """``fit`` and then ``predict``."""
        return self.fit(Y, observed, features, row_features).predict()

    def fit_transform(self, Y: Any, observed: Any = None, **features: Any) -> Any:  # noqa: N803
        """``fit`` and then ``predict``, by the name that pipelines call it."""
        return self.fit(Y, observed, **features).predict()

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
        other._regress(matrix)
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
        targets = torch.where(matrix.observed, matrix.values - self.offsets_[:, None], 0)
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
        offsets = self._offsets(matrix)
        targets = torch.where(matrix.observed, matrix.values - offsets[:, None], 0)
        systems = systems_of_columns(self._operator, matrix.observed, targets, self.solver, self._scale)
        generator = torch.Generator().manual_seed(self.seed)
        error = torch.stack([system.errors((self.ridge_,), self.solver, generator)[0] for system in systems]).sum()
        means = torch.where(matrix.observed, matrix.values, 0).sum(1) / matrix.observed.sum(1).clamp_min(1)
        deviations = torch.where(matrix.observed, matrix.values - means[:, None], 0)
        spread = (deviations if self._scale is None else deviations * self._scale).square().sum()
        return 1 - float(error / spread)

    def _other_rows(self, table: Any, observed: Any) -> Matrix:
        self._check_fitted()
        if self._rows is not None:
            raise ValueError("expected rows without features: with them, pass row_features to predict()")
        matrix = read_matrix(table, observed, self.device)
        if matrix.values.shape[1] != self.n_features_in_:
            raise ValueError(f"expected the {self.n_features_in_} columns of fit(), got {matrix.values.shape[1]}")
        if None not in (matrix.columns, self._matrix.columns) and list(matrix.columns) != list(self._matrix.columns):  # type: ignore[arg-type]
            raise ValueError("expected the columns of fit() in the same order, got other labels")
        if not bool(matrix.observed.any()):
            raise ValueError("expected at least one observed entry, got none; observed is True where known")
        return matrix

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise ValueError("expected fit() before this, got an estimator that has not been fitted")


@dataclass(frozen=True)
class Side:
    """The columns of a matrix, or its rows.

    Attributes:
        features: as the network takes them, [n, p].
        white: variance of the identity block.
        labels: of a frame, else None.
    """

    features: Tensor
    white: float
    labels: Sequence[Any] | None

    def operator(self, network: Layer, dtype: torch.dtype = torch.float64) -> GramOperator:
        """K between them, which multiplies in ``dtype``."""
        return GramOperator(network.propagate, self.features, white=self.white, dtype=dtype)


def _scale(weight: Any, known: Tensor) -> Tensor:
    """Roots of the columns' weights, whose mean over the columns with an observed entry is set to 1.

    Raises:
        ValueError: there is not one for each column, or one is not positive.
    """
    weights = torch.as_tensor(weight).to(known.device).double()
    if weights.shape != known.shape or not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise ValueError(f"expected {len(known)} column weights, finite and above 0, got shape {tuple(weights.shape)}")
    return (weights / weights[known].mean()).sqrt()
