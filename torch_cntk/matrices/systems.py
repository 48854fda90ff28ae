"""The equations of a matrix completion: which rows share them, how they are solved, and which ridge suits them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.memory import available_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators.base import DenseOperator, Operator
from torch_cntk.operators.derived import ScaledOperator, SelectedOperator
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.sharded import ShardedGram
from torch_cntk.solvers import (
    ConjugateGradient,
    Direct,
    Regression,
    Solution,
    Solver,
    Status,
    automatic,
)
from torch_cntk.solvers.leave_one_out import masked_residuals, residuals
from torch_cntk.solvers.shared_inverse import distinct, inverse_pays

__all__ = ["System", "patterns", "systems_of_columns"]

_LEAVE_ONE_OUT = 4_000
"""Most equations of which an eigendecomposition is taken; of more, a share is held out instead."""
_HELD_OUT = 0.1
_EIGENSYSTEM = 12
"""An eigendecomposition takes as long as so many n^3 multiplications of matrices."""
_SOUND = 1e-9
"""Least ridge with which an inverse of the whole kernel has digits left for its parts."""
_SHARE = 4
"""A kernel that many rows take entries of is stored if it takes at most this fraction of the free memory."""
_CONJUGATE_GRADIENT = ConjugateGradient(tolerance=1e-5, max_iterations=2000)
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
"""Relative residual of rows that share one iteration; rounding of products in float32 leaves no less than 1e-5."""
_LONG = 1e12
"""Multiplications above which factorising each mask, or an eigendecomposition of each, is too long: a core takes about
a minute. Up to there, solutions are direct and every entry is left out."""
_ITERATIONS = 30
"""Products with the kernel that rows of many masks take with the preconditioner that they share; 15 to 40 were seen."""
_TRIED_ROWS = 128
"""Rows of many masks that the ridge is chosen on: tens of thousands of entries are held out, as a rule."""
_TRIAL_TOLERANCE = 1e-3
"""Relative residual of trial solutions: their error is far below that of the prediction."""
_WORSE, _FUTILE = 1.02, 3
"""Smaller ridges are not tried after so many in a row whose error exceeded the smallest one by this factor: they take
ever more iterations, and fit noise."""


@dataclass(frozen=True)
class System:
    """Rows that are regressed together.

    Attributes:
        operator: K between the columns that any of these rows has observed, [n], or between all entries of the
            matrix, [rows, columns].
        observed: boolean; of the operator's size if all right-hand sides share it, else [k, n].
        targets: [k, n], or [rows, columns]; zero where not observed.
        rows: which rows of the matrix these are, [k].
        columns: which columns of it, [n].
        mean_diagonal: that the ridge is relative to, the same for all systems of a matrix.
        scale: that the targets and the rows and columns of the operator's kernel have been multiplied by (see
            ``ScaledOperator``), or None.
        together: whether the right-hand sides, each with a mask of its own, shall share one iteration.
        divided: whether ranks divide the operator's products and entries, so that all of them work on this at a time.
    """

    operator: Operator
    observed: Tensor
    targets: Tensor
    rows: Tensor
    columns: Tensor
    mean_diagonal: float
    scale: Tensor | None = None
    together: bool = False
    divided: bool = False

    def __post_init__(self) -> None:
        """Refuse kernels that are not finite.

        Raises:
            ValueError: this one is not.
        """
        if not math.isfinite(self.mean_diagonal):
            raise ValueError(
                f"expected features whose kernel is finite, got {self.mean_diagonal} as the mean of its diagonal: "
                "normalise the features, or take an activation that grows more slowly than exp"
            )

    def scaled(self, scale: Tensor) -> System:
        """The same equations with squared errors that count ``scale`` squared times, [n]."""
        operator = ScaledOperator(self.operator, scale)
        return replace(self, operator=operator, targets=self.targets * scale, scale=scale)

    def over(self, mesh: Mesh) -> System:
        """The same equations, with products that ranks divide."""
        every = torch.arange(self.operator.size[0], device=self.operator.device)
        matrix = self.operator.entries(every, every).to(self.operator.dtype)
        return replace(self, operator=DenseOperator(matrix).divided(mesh), divided=True)

    @property
    def shared(self) -> bool:
        """Whether all right-hand sides have the same observed entries."""
        return tuple(self.observed.shape) == self.operator.size

    @property
    def equations(self) -> int:
        """Number of them, of the right-hand side with most."""
        return int(self.observed.reshape(-1, math.prod(self.operator.size)).sum(1).max())

    def regression(self, ridge: float) -> Regression:
        """The equations with a ridge relative to ``mean_diagonal``."""
        own = self.operator.mean_diagonal
        return Regression(self.operator, self.observed, ridge * self.mean_diagonal / own if own > 0 else 0.0)

    def solve(self, ridge: float, solver: Literal["auto"] | Solver, *, progress: bool = False) -> Solution:
        """Find the weights, of the shape of the targets.

        Args:
            ridge: relative to ``mean_diagonal``.
            solver: or "auto": direct where ``automatic`` is, else conjugate gradients.
            progress: whether to show a bar.

        Returns:
            the weights and their quality.
        """
        if self.operator.mean_diagonal == 0:
            return self._without_kernel(ridge * self.mean_diagonal)
        regression = self.regression(ridge)
        return self._solver(regression, solver).solve(regression, self.targets, progress=progress)

    def _without_kernel(self, ridge: float) -> Solution:
        """The solution of 0 w + ridge w = y, where features are zeros and nothing can be said: 0 without a ridge."""
        weights = self.targets.double() / ridge if ridge > 0 else torch.zeros_like(self.targets, dtype=torch.float64)
        batch = self.targets.shape[: self.targets.ndim - len(self.operator.size)]
        unsolved = self.targets.reshape(*batch, -1).abs().amax(-1) > 0 if ridge == 0 else torch.zeros(batch)
        residual = unsolved.to(weights)
        status = Status.SINGULAR if ridge == 0 else Status.CONVERGED
        return Solution(weights, residual, 0, 0.0, status, "none (the kernel is zero)")

    def _solver(self, regression: Regression, solver: Literal["auto"] | Solver) -> Solver:
        if isinstance(solver, Solver):
            return solver
        if self.together:
            return self._iteration(_TOLERANCE[self.operator.dtype])
        chosen = automatic(regression)
        return chosen if isinstance(chosen, Direct) else _CONJUGATE_GRADIENT

    @staticmethod
    def _iteration(tolerance: float) -> ConjugateGradient:
        """Of all right-hand sides at once."""
        return ConjugateGradient(tolerance=tolerance, max_iterations=2000, preconditioner="nystrom")

    def left_out(self, ridge: float) -> Tensor:
        """What each observed target is, less what the others say of it, of the targets' shape; zero elsewhere.

        Raises:
            ValueError: there are too many equations.
        """
        if self.equations > _LEAVE_ONE_OUT:
            raise ValueError(
                f"expected at most {_LEAVE_ONE_OUT:,} equations to leave out each entry, got {self.equations:,}"
            )
        if self._together((ridge,)):
            return next(self._masked_residuals((ridge,)))
        errors = torch.zeros_like(self.targets)
        if not self.shared:
            for rows, columns, part in self._parts():
                errors[rows[:, None], columns] = part.left_out(ridge)
            return errors
        errors[..., self.observed] = next(self._residuals((ridge,))).reshape(errors[..., self.observed].shape)
        return errors

    def errors(self, ridges: Sequence[float], solver: Literal["auto"] | Solver, generator: torch.Generator) -> Tensor:
        """Sum of squared errors for each ridge, of each entry left out or of a tenth of them held out, [ridges]."""
        if self.together and solver == "auto":
            return self._few_rows(generator)._held_out_in_turn(ridges, generator)
        if self.equations > _LEAVE_ONE_OUT:
            return self._held_out_errors(ridges, solver, generator)
        if self._together(ridges):
            return torch.stack([error.square().sum() for error in self._masked_residuals(ridges)])
        if not self.shared:
            return torch.stack([part.errors(ridges, solver, generator) for _, _, part in self._parts()]).sum(0)
        targets = self.targets.reshape(-1, self.observed.numel())
        if len(targets) > targets.shape[1]:
            # Of right-hand sides, an orthogonal map changes no sum of squares: fewer of them will do.
            targets = torch.linalg.qr(targets, mode="r").R
        condensed = replace(self, targets=targets)
        return torch.stack([error.square().sum() for error in condensed._residuals(ridges)])

    def draws(self, solver: Literal["auto"] | Solver) -> bool:
        """Whether ``errors`` draws what is held out."""
        return (self.together and solver == "auto") or self.equations > _LEAVE_ONE_OUT

    @property
    def leaving_out(self) -> float:
        """Multiplications that it takes to leave out each entry of right-hand sides that share a mask."""
        return _EIGENSYSTEM * float(self.equations) ** 3

    def _few_rows(self, generator: torch.Generator) -> System:
        """The equations of some of the rows."""
        chosen = torch.randperm(len(self.rows), generator=generator)[:_TRIED_ROWS].to(self.rows.device)
        return replace(
            self, observed=self.observed[chosen], targets=self.targets[chosen], rows=self.rows[chosen], together=True
        )

    def _held_out_in_turn(self, ridges: Sequence[float], generator: torch.Generator) -> Tensor:
        """As ``_held_out_errors``, from the best conditioned equations to the worst, each from the one before."""
        rest, hidden = self._without_some(generator)
        errors = dict.fromkeys(ridges, math.inf)
        guess: Tensor | None = None
        futile = 0
        for ridge in sorted(ridges, reverse=True):
            factorisation = self._iteration(_TRIAL_TOLERANCE).factorise(rest.regression(ridge))
            guess = factorisation.solve(rest.targets, guess=guess).weights
            filled = self.operator.multiply(guess)
            errors[ridge] = float(torch.where(hidden, filled - self.targets, 0).square().sum())
            futile = futile + 1 if errors[ridge] > _WORSE * min(errors.values()) else 0
            if futile == _FUTILE:
                break
        return self.targets.new_tensor(list(errors.values()))

    def _without_some(self, generator: torch.Generator) -> tuple[System, Tensor]:
        """The equations without a tenth of the entries, and which these are."""
        draw = torch.rand(self.observed.shape, generator=generator).to(self.observed.device)
        hidden = self.observed & (draw < _HELD_OUT)
        known = self.observed & ~hidden
        return replace(self, observed=known, targets=torch.where(known, self.targets, 0)), hidden

    def _held_out_errors(
        self, ridges: Sequence[float], solver: Literal["auto"] | Solver, generator: torch.Generator
    ) -> Tensor:
        rest, hidden = self._without_some(generator)
        found = []
        for ridge in ridges:
            filled = self.operator.multiply(rest.solve(ridge, solver).weights)
            found.append(torch.where(hidden, filled - self.targets, 0).square().sum())
        return torch.stack(found)

    def _residuals(self, ridges: Sequence[float]) -> Iterator[Tensor]:
        """Of a mask that all right-hand sides share, [k, observed] for each ridge."""
        index = self.observed.flatten().nonzero()[:, 0]
        targets = self.targets.reshape(-1, self.observed.numel())[:, index]
        absolute = [ridge * self.mean_diagonal for ridge in ridges]
        return residuals(self.operator.entries(index, index), targets, absolute)

    def _masked_residuals(self, ridges: Sequence[float]) -> Iterator[Tensor]:
        """Of right-hand sides with masks of their own, [k, n] for each ridge."""
        every = torch.arange(self.targets.shape[1], device=self.targets.device)
        absolute = [ridge * self.mean_diagonal for ridge in ridges]
        return masked_residuals(self.operator.entries(every, every), self.observed, self.targets, absolute)

    def _together(self, ridges: Sequence[float]) -> bool:
        """Whether one eigendecomposition of the whole and what is missing beat an eigendecomposition of each mask."""
        if self.shared or min(ridges) < _SOUND or self.targets.shape[1] > _LEAVE_ONE_OUT:
            return False
        whole = self.targets.shape[1]
        missing = (~self.observed).sum(1).double()
        seen = distinct(self.observed).sum(1).double()
        updates = len(ridges) * (whole**3 + whole * float(missing.square().sum()))
        return _EIGENSYSTEM * whole**3 + updates < _EIGENSYSTEM * float(seen.pow(3).sum())

    def _parts(self) -> Iterator[tuple[Tensor, Tensor, System]]:
        """The equations of each mask by themselves, with their rows and columns here."""
        for columns, rows in patterns(self.observed):
            mask = torch.ones(len(columns), dtype=torch.bool, device=columns.device)
            part = replace(
                self,
                operator=SelectedOperator(self.operator, columns),
                observed=mask,
                targets=self.targets[rows[:, None], columns],
                rows=self.rows[rows],
                columns=self.columns[columns],
                scale=None if self.scale is None else self.scale[columns],
            )
            yield rows, columns, part


def systems_of_columns(
    operator: GramOperator | ShardedGram,
    observed: Tensor,
    targets: Tensor,
    solver: Literal["auto"] | Solver,
    scale: Tensor | None = None,
) -> list[System]:
    """The equations of rows that do not learn from each other.

    Rows with the same observed columns share their equations. Rows that are not solved directly share one iteration,
    each with its own mask, whichever columns they have observed; and so do rows of many masks whose factorisations
    would take long. Rows of many masks that leave out little share the inverse of the whole kernel.

    Args:
        operator: K between all columns.
        observed: boolean [rows, columns].
        targets: [rows, columns], zero where not observed.
        solver: or "auto".
        scale: root of what each column's squared error is multiplied by, [columns], or None for 1.
    """
    systems = []
    together: list[Tensor] = []
    groups = list(patterns(observed))
    kernel = _stored(operator, sum(len(columns) ** 2 for columns, _ in groups) if len(groups) > 1 else 0)
    for columns, rows in groups:
        mask = torch.ones(len(columns), dtype=torch.bool, device=operator.device)
        system = _system(kernel, mask, targets, rows, columns, scale)
        chosen = automatic(system.regression(0.0)) if solver == "auto" else solver
        if isinstance(chosen, Direct):
            systems.append(system)
        else:
            together.append(rows)

    def joined(several: list[Tensor], kernel: Operator) -> System:
        rows = torch.cat(several)
        columns = observed[rows].any(0).nonzero()[:, 0]
        mask = observed[rows][:, columns]
        return _system(kernel, mask[0] if bool(mask.all()) else mask, targets, rows, columns, scale)

    if kernel is not operator and len(systems) > 1:
        whole = joined([system.rows for system in systems], kernel)
        pays = inverse_pays(whole.observed)
        if solver == "auto" and _iteration_pays(whole, inverse=pays):
            systems = [
                replace(joined([system.rows for system in systems], _multiplied(kernel, operator)), together=True)
            ]
            if isinstance(operator, ShardedGram):
                systems = [system.over(operator.mesh) for system in systems]
        elif pays:
            systems = [whole]
    return [*systems, *([joined(together, operator)] if together else [])]


def _iteration_pays(whole: System, *, inverse: bool) -> bool:
    """Whether factorisations of the masks, or of what they leave out, are long, and one iteration is not.

    Args:
        whole: rows with masks of their own.
        inverse: whether the inverse of the whole kernel would be shared.
    """
    seen = whole.observed.reshape(-1, whole.targets.shape[1])
    if inverse:
        direct = whole.targets.shape[1] ** 3 + float((~seen).sum(1).double().pow(3).sum()) / 3
    else:
        direct = float(distinct(seen).sum(1).double().pow(3).sum()) / 3
    return direct > max(_LONG, _ITERATIONS * float(whole.targets.numel()) * whole.targets.shape[1])


def _multiplied(kernel: Operator, operator: GramOperator | ShardedGram) -> Operator:
    """A stored kernel in the precision that the operator multiplies in."""
    if operator.dtype == kernel.dtype:
        return kernel
    every = torch.arange(operator.size[0], device=operator.device)
    return DenseOperator(kernel.entries(every, every).to(operator.dtype))


def _stored(operator: GramOperator | ShardedGram, needed: int) -> Operator:
    """The kernel as a matrix if more entries of it are needed than it has, as by many rows, and it is small enough."""
    entries = operator.size[0] ** 2
    free = available_bytes(operator.device)
    if needed <= entries or (free is not None and 8 * entries * _SHARE > free):
        return operator
    return DenseOperator(operator.dense())


def _system(
    operator: Operator, mask: Tensor, targets: Tensor, rows: Tensor, columns: Tensor, scale: Tensor | None
) -> System:
    chosen = SelectedOperator(operator, columns)
    divided = isinstance(operator, ShardedGram)
    system = System(chosen, mask, targets[rows][:, columns], rows, columns, operator.mean_diagonal, divided=divided)
    return system if scale is None else system.scaled(scale[columns])


def patterns(observed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows by the set of columns that they have observed; rows without any are left out.

    Args:
        observed: boolean [rows, columns].

    Yields:
        the columns, and the rows that have observed them and no others.
    """
    bits = np.packbits(observed.cpu().numpy(), axis=1)
    groups: dict[bytes, list[int]] = {}
    for row, key in enumerate(map(bytes, bits)):
        groups.setdefault(key, []).append(row)
    for members in groups.values():
        columns = observed[members[0]].nonzero()[:, 0]
        if len(columns):
            yield columns, torch.tensor(members, device=observed.device)
