"""What can be asked of a fitted ``MatrixCompletion``: entries left out, standard deviations, samples, a report."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import on_ranks, ranks_of
from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.memory import allocating, require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.matrices.costs import expected_seconds
from torch_cntk.matrices.judging import LeftOut, closed_form, fold_count, folds_of, in_closed_form, in_parts
from torch_cntk.matrices.parameters import Completer
from torch_cntk.matrices.passing import Passes, Passing
from torch_cntk.matrices.regression import row_offsets, targets_of
from torch_cntk.matrices.report import Report, reported
from torch_cntk.matrices.sides import Side
from torch_cntk.matrices.systems import System, systems_of_columns
from torch_cntk.matrices.tables import Matrix, different, read_matrix
from torch_cntk.matrices.uncertainty import Calibration, calibrated, drawn, variances_of
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.row_column import Combination
from torch_cntk.operators.sharded import ShardedGram
from torch_cntk.solvers.base import unit_of
from torch_cntk.solvers.checkpoint import without_checkpoint

__all__ = ["Judged"]


class Judged(Completer):
    """An estimator that completes matrices, and what can be asked of it once it is fitted."""

    ridge: float | Literal["cv"]
    ridge_: Any
    ridges_: tuple[float, ...]
    weights_: Any
    plan_: Any
    residual_: float
    offsets_: Tensor
    n_features_in_: int
    center: bool
    passes: Passes | None
    combine: Combination
    solver: Any
    seed: int
    device: str | None
    progress: bool
    clip: tuple[float | None, float | None] | None
    mesh: Mesh | None = None
    _matrix: Matrix
    _columns: Side
    _rows: Side | None
    _described: Side | None
    _network: Any
    _operator: GramOperator | ShardedGram
    _scale: Tensor | None
    _passing: Passing | None
    _left_out: LeftOut | None
    _calibration: Calibration | None

    @property
    def _ranks(self) -> Mesh:
        """Those that work on this.

        Raises:
            TypeError: the mesh is none.
        """
        return ranks_of(self.mesh)

    @property
    def _device(self) -> Any:
        """Where to compute; None for where the matrix is."""
        return self.device if self.device is not None or self.mesh is None else self.mesh.device

    def _agree(self, matrix: Matrix) -> None:
        """Make sure that all ranks have the same options and data.

        Raises:
            ValueError: they do not.
        """
        own = {name: value for name, value in self.get_params().items() if name not in ("mesh", "device", "progress")}
        sides = [None if side is None else side.features for side in (self._described, self._rows)]
        self._ranks.agree(
            options=own,
            table=torch.where(matrix.observed, matrix.values, 0),
            observed=matrix.observed,
            labels=[None if names is None else list(names) for names in (matrix.rows, matrix.columns)],
            features=sides[0],
            row_features=sides[1],
            column_weight=self._scale,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "residual_")

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise ValueError("expected fit() before this, got an estimator that has not been fitted")

    def _fit_read(self, matrix: Matrix) -> list[str]:
        """Fit to a matrix that was read, and return what to tell the user."""
        raise NotImplementedError

    def _systems(self, observed: Tensor, targets: Tensor) -> list[System]:
        """The equations of the matrix."""
        raise NotImplementedError

    def _filled(self, matrix: Matrix | None = None) -> Tensor:
        """The matrix filled, [rows, columns]."""
        raise NotImplementedError

    def _clipped(self, values: Tensor) -> Tensor:
        """Predictions within the bounds that the user gave."""
        if self.clip is None:
            return values
        return values.clamp(*self.clip)

    def _judged(self) -> LeftOut:
        """Every entry (or many of them) predicted without it; computed once."""
        if self._left_out is None:
            with allocating("leaving out entries"):
                if in_closed_form(self):
                    found = closed_form(self)
                else:
                    parts, tried = fold_count(int(self._matrix.observed.sum()))
                    found = in_parts(self, folds_of(self._matrix.observed, parts, self.seed), tried)
            self._left_out = replace(found, values=self._clipped(found.values))
        return self._left_out

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            self._calibration = calibrated(self._judged(), self._matrix.values, self.seed)
        return self._calibration

    def expected_seconds(
        self,
        Y: Any,  # noqa: N803
        observed: Any = None,
        features: Any = None,
        row_features: Any = None,
    ) -> float:
        """Estimate how long ``fit`` takes on this machine, to a factor of about three, without doing it.

        Args:
            Y: as in ``fit``.
            observed: likewise.
            features: likewise; here it matters only whether there are any.
            row_features: likewise.

        Returns:
            seconds.
        """
        matrix = read_matrix(Y, observed, self._device)
        passes = self.passes is not None or features is None
        return expected_seconds(self, matrix, passes=passes, coupled=row_features is not None)

    @on_ranks
    def left_out(self) -> Any:
        """What the fit says of each observed entry without having seen it.

        Where there are at most 4,000 equations a row and the entries say nothing about the features, each entry is
        left out by itself, in closed form; else a fifth of them at a time (of more than 100,000, one tenth alone).
        The ridge, and what else was chosen, has seen all of them.

        Returns:
            [rows, columns], as ``Y`` was given; NaN at unobserved entries, and where nothing was left out.

        Raises:
            ValueError: ``fit`` was not called.
        """
        self._check_fitted()
        return self._matrix.restore(self._judged().values, self._matrix.rows, self._matrix.columns)

    @on_ranks
    def report(self) -> Report:
        """How good the completion is, beside simple methods on the same left-out entries, and which to trust.

        Returns:
            the report; ``print`` it, or ``plot`` it.

        Raises:
            ValueError: ``fit`` was not called, or there are fewer than two observed entries.
        """
        self._check_fitted()
        with allocating("the report"):
            return reported(self)

    @on_ranks
    def samples(self, count: int = 1, *, seed: int | None = None) -> Tensor:
        """Tables that what is observed leaves possible.

        Missing entries of a row are drawn together, from the normal distribution whose mean is the prediction and whose
        standard deviations are those of ``predict(return_std=True)``; observed entries are in each as they are.

        Args:
            count: how many.
            seed: of the draws; by default the estimator's.

        Returns:
            [count, rows, columns] in float64.

        Raises:
            ValueError: ``fit`` was not called, or the number is below 1.
            OutOfMemoryError: they do not fit into memory.
        """
        self._check_fitted()
        positive_int(count, "count")
        require_bytes(
            4 * 8 * count * self._matrix.values.numel(), f"{count:,} samples of the table", lambda free: "draw fewer"
        )
        with allocating("samples of the table"):
            factors = self._calibrated().factors
            found = drawn(self, self._filled(), factors, count, self.seed if seed is None else seed)
        missing = ~self._matrix.observed
        return torch.where(missing, self._clipped(found), self._matrix.values)

    def _deviations(self, columns: Side | None = None) -> Tensor:
        """Calibrated standard deviations of missing entries, or of all entries of further columns."""
        if columns is None:
            return variances_of(self).sqrt() * self._calibrated().factors[:, None]
        wider = copy.copy(self)
        unseen = torch.zeros(len(self._matrix.values), len(columns.features), device=self._matrix.values.device)
        wider._matrix = replace(
            self._matrix,
            values=torch.cat([self._matrix.values, unseen.double()], 1),
            observed=torch.cat([self._matrix.observed, unseen.bool()], 1),
        )
        wider._columns = replace(self._columns, features=torch.cat([self._columns.features, columns.features]))
        if self._scale is not None:
            wider._scale = torch.cat([self._scale, self._scale.new_ones(len(columns.features))])
        variances = variances_of(wider)[:, self._matrix.values.shape[1] :]
        return variances.sqrt() * self._calibrated().factors[:, None]

    @on_ranks
    def score(self, Y: Any, observed: Any = None) -> float:  # noqa: N803
        """R^2 of each observed entry's prediction from the other observed entries of its row (leave-one-out).

        The mean of the row alone, which is taken off before, has seen the entry. ``left_out`` and ``report`` leave it
        out there as well, and are a little more severe.

        Args:
            Y: [any rows, columns].
            observed: boolean of its shape, True = known; by default what is not NaN.

        Returns:
            1 less the squared errors over the squared deviations from the rows' means, weighted as in ``fit``.

        Raises:
            ValueError: ``fit`` was not called or had features of the rows, or the columns are others.
        """
        matrix = self._other_rows(Y, observed)
        if self._passing is not None:
            return self._passing.score(matrix, self.seed)
        offsets, notes = row_offsets(matrix, center=self.center, coupled=False)
        targets = targets_of(matrix, offsets)
        unit = unit_of(targets)  # of both sums of squares
        systems = systems_of_columns(self._operator, matrix.observed, targets / unit, self.solver, self._scale)
        generator = torch.Generator().manual_seed(self.seed)
        solver = without_checkpoint(self.solver)
        error = torch.stack([system.errors((self.ridge_,), solver, generator)[0] for system in systems]).sum()
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
        with self._ranks.together("reading the matrix"):
            matrix = self._read_rows(table, observed)
        self._ranks.agree(table=torch.where(matrix.observed, matrix.values, 0), observed=matrix.observed)
        return matrix

    def _read_rows(self, table: Any, observed: Any) -> Matrix:
        """Other rows of the columns of ``fit``.

        Raises:
            ValueError: the columns are others, or nothing is observed.
        """
        matrix = read_matrix(table, observed, self._device)
        if matrix.values.shape[1] != self.n_features_in_:
            raise ValueError(f"expected the {self.n_features_in_} columns of fit(), got {matrix.values.shape[1]}")
        if different(matrix.columns, self._matrix.columns):
            raise ValueError("expected the columns of fit() in the same order, got other labels")
        if not bool(matrix.observed.any()):
            raise ValueError("expected at least one observed entry, got none; observed is True where known")
        return matrix
