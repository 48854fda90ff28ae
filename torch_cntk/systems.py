"""The equations of a matrix completion: which rows share them, how they are solved, and which ridge suits them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torch_cntk._memory import available_bytes
from torch_cntk.gram_operator import GramOperator
from torch_cntk.leave_one_out import residuals
from torch_cntk.operators import Operator
from torch_cntk.scaled_operator import ScaledOperator
from torch_cntk.solvers import ConjugateGradient, Regression, Solution, Solver
from torch_cntk.temporary_direct import Direct

__all__ = ["System", "patterns", "solved_directly", "systems_of_columns"]

_DIRECT = 30_000
"""Most equations that are solved directly, as in the paper."""
_LEAVE_ONE_OUT = 4_000
"""Most equations of which an eigendecomposition is taken; of more, a share is held out instead."""
_HELD_OUT = 0.1
_ITERATIVE = ConjugateGradient(tolerance=1e-6, max_iterations=2000)


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
    """

    operator: Operator
    observed: Tensor
    targets: Tensor
    rows: Tensor
    columns: Tensor
    mean_diagonal: float
    scale: Tensor | None = None

    def scaled(self, scale: Tensor) -> System:
        """The same equations with squared errors that count ``scale`` squared times, [n]."""
        operator = ScaledOperator(self.operator, scale)
        return replace(self, operator=operator, targets=self.targets * scale, scale=scale)

    @property
    def shared(self) -> bool:
        """Whether all right-hand sides have the same observed entries."""
        return tuple(self.observed.shape) == self.operator.size

    @property
    def equations(self) -> int:
        """Number of them, of the right-hand side with most."""
        return int(self.observed.reshape(-1, math.prod(self.operator.size)).sum(1).max())

    def solve(self, ridge: float, solver: str | Solver, *, progress: bool = False) -> Solution:
        """Find the weights, of the shape of the targets.

        Args:
            ridge: relative to ``mean_diagonal``.
            solver: or "auto": directly where ``solved_directly``, else by conjugate gradients.
            progress: whether to show a bar.

        Returns:
            the weights and their quality.
        """
        if solver == "auto":
            solver = Direct() if self.shared and solved_directly(self.equations, self.operator.device) else _ITERATIVE
        assert isinstance(solver, Solver)
        regression = Regression(self.operator, self.observed, ridge * self.mean_diagonal / self.operator.mean_diagonal)
        return solver.solve(regression, self.targets, progress=progress)

    def left_out(self, ridges: Sequence[float]) -> Iterator[Tensor]:
        """What each observed target is, less what the others say of it, for each ridge, [k, observed].

        Raises:
            ValueError: right-hand sides have masks of their own, or there are too many equations.
        """
        if not self.shared or self.equations > _LEAVE_ONE_OUT:
            raise ValueError(
                f"expected at most {_LEAVE_ONE_OUT:,} equations and a direct solver to leave out each entry, "
                f"got {self.equations:,} equations"
            )
        index = self.observed.flatten().nonzero()[:, 0]
        targets = self.targets.reshape(-1, self.observed.numel())[:, index]
        absolute = [ridge * self.mean_diagonal for ridge in ridges]
        return residuals(self.operator.entries(index, index), targets, absolute)

    def errors(self, ridges: Sequence[float], solver: str | Solver, generator: torch.Generator) -> Tensor:
        """Sum of squared errors for each ridge, of each entry left out or of a tenth of them held out, [ridges]."""
        if self.shared and self.equations <= _LEAVE_ONE_OUT:
            return torch.stack([error.square().sum() for error in self.left_out(ridges)])
        draw = torch.rand(self.observed.shape, generator=generator).to(self.observed.device)
        hidden = self.observed & (draw < _HELD_OUT)
        known = self.observed & ~hidden
        rest = replace(self, observed=known, targets=torch.where(known, self.targets, 0))
        found = []
        for ridge in ridges:
            filled = self.operator @ rest.solve(ridge, solver).weights
            found.append(torch.where(hidden, filled - self.targets, 0).square().sum())
        return torch.stack(found)


def solved_directly(equations: int, device: torch.device) -> bool:
    """Whether so many equations are few enough, and their matrix and its factor fit into memory."""
    free = available_bytes(device)
    return equations <= _DIRECT and (free is None or 2 * 8 * equations**2 < free)


def systems_of_columns(
    operator: GramOperator,
    observed: Tensor,
    targets: Tensor,
    solver: str | Solver,
    scale: Tensor | None = None,
) -> list[System]:
    """The equations of rows that do not learn from each other.

    Rows with the same observed columns share their equations. Rows that are not solved directly share one iteration,
    each with its own mask, whichever columns they have observed.

    Args:
        operator: K between all columns.
        observed: boolean [rows, columns].
        targets: [rows, columns], zero where not observed.
        solver: or "auto".
        scale: root of what each column's squared error is multiplied by, [columns], or None for 1.
    """
    systems = []
    together: list[Tensor] = []
    for columns, rows in patterns(observed):
        if solver == "auto" and not solved_directly(len(columns), operator.device):
            together.append(rows)
        elif solver == "auto" or isinstance(solver, Direct):
            mask = torch.ones(len(columns), dtype=torch.bool, device=operator.device)
            systems.append(_system(operator, mask, targets, rows, columns, scale))
        else:
            together.append(rows)
    if together:
        rows = torch.cat(together)
        columns = observed[rows].any(0).nonzero()[:, 0]
        mask = observed[rows][:, columns]
        systems.append(_system(operator, mask[0] if bool(mask.all()) else mask, targets, rows, columns, scale))
    return systems


def _system(
    operator: GramOperator, mask: Tensor, targets: Tensor, rows: Tensor, columns: Tensor, scale: Tensor | None
) -> System:
    chosen, values = operator.select(columns), targets[rows][:, columns]
    system = System(chosen, mask, values, rows, columns, operator.mean_diagonal)
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
