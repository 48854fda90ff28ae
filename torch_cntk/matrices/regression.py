"""From a matrix and its kernels to the weights of the regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.dealing import by_rank
from torch_cntk._internal.ranks import Mesh
from torch_cntk.matrices.systems import System
from torch_cntk.matrices.tables import Matrix, name_of
from torch_cntk.solvers import Solution, Solver, Status
from torch_cntk.solvers.base import unit_of
from torch_cntk.solvers.checkpoint import without_checkpoint

__all__ = ["RIDGES", "Weights", "best_ridge", "row_offsets", "solved", "targets_of", "told_of_empty"]

R = TypeVar("R")

_SINGULAR = (
    "the kernel between observed columns is singular: solved in the least-squares sense, in which columns that cannot "
    "be told apart share the mean of what was observed; give a ridge or an identity block to choose otherwise"
)

RIDGES = tuple(10.0 ** (k / 2) for k in range(-12, 5))
"""What ``ridge="cv"`` chooses from: 1e-6 to 100, relative to the kernel's mean diagonal."""
_BELOW = tuple(10.0 ** (k / 2) for k in range(-18, -12))
"""What is tried if the smallest is the best: down to 1e-9, below which inverses lose their digits."""
_ABOVE = tuple(10.0 ** (k / 2) for k in range(5, 9))
"""What is tried if the largest is the best: up to 1e4, where little but the mean is left."""
_GAIN = 1e-3
"""Share of the error by which a ridge beyond the grid must be better."""


def row_offsets(matrix: Matrix, *, center: bool, coupled: bool) -> tuple[Tensor, list[str]]:
    """What is taken off each row: its mean, or that of all entries for rows without one or with a kernel.

    Args:
        matrix: [rows, columns].
        center: whether means are taken off; else 0.
        coupled: whether rows have a kernel of their own.

    Returns:
        [rows], and what to tell the user of rows without an entry.
    """
    known = torch.where(matrix.observed, matrix.values, 0)
    counts = matrix.observed.sum(1)
    prior = known.sum() / counts.sum() if center else known.new_zeros(())
    if coupled:
        return prior.expand(len(known)), []
    empty, notes = counts == 0, []
    if bool(empty.any()):
        first = name_of(matrix.rows, int(empty.nonzero()[0]))
        notes.append(
            f"{int(empty.sum())} of {len(known)} rows have no observed entry (the first is row {first}); they are "
            f"filled with the prior mean, {float(prior):g}"
        )
    means = known.sum(1) / counts.clamp_min(1) if center else torch.zeros_like(known[:, 0])
    return torch.where(empty, prior, means), notes


def told_of_empty(observed: Tensor, what: str, labels: Sequence[Any] | None, axis: int) -> str:
    """What to tell the user of rows or columns without an entry and without features; nothing if there are none.

    Args:
        observed: boolean [rows, columns].
        what: "row" or "column".
        labels: of them, or None.
        axis: along which there is nothing.
    """
    empty = ~observed.any(axis)
    if not bool(empty.any()):
        return ""
    first = name_of(labels, int(empty.nonzero()[0]))
    return (
        f"{int(empty.sum())} of {len(empty)} {what}s have no observed entry and no features (the first is {what} "
        f"{first}); they are filled with means"
    )


def targets_of(matrix: Matrix, offsets: Tensor) -> Tensor:
    """Observed entries less the offset of their row, zero elsewhere, [rows, columns]."""
    return torch.where(matrix.observed, matrix.values - offsets[:, None], 0)


def best_ridge(
    systems: Sequence[System],
    solver: Literal["auto"] | Solver,
    seed: int,
    *,
    progress: bool,
    mesh: Mesh | None = None,
) -> tuple[float, tuple[float, ...]]:
    """The one among ``RIDGES`` with the smallest error over all rows, or one beyond if the best is the last of them.

    Args:
        systems: the equations of all rows.
        solver: or "auto".
        seed: of what is held out.
        progress: whether to show a bar.
        mesh: ranks that divide the systems, unless these draw from one generator, one after the other.

    Returns:
        it, and all that were tried, in ascending order.
    """
    trial = without_checkpoint(solver)
    # One unit for all: squares of errors are to be compared.
    unit = max((unit_of(system.targets) for system in systems), default=1.0)
    systems = [replace(system, targets=system.targets / unit) for system in systems]
    systems = _some(systems, torch.Generator().manual_seed(seed))

    def errors_of(ridges: Sequence[float]) -> list[float]:
        # Each time from the same seed: what is held out is the same.
        generator = torch.Generator().manual_seed(seed)
        some = _some(systems, generator)
        ranks = mesh if mesh is not None and not any(system.draws(trial) for system in some) else None
        with tqdm(total=len(some), disable=not progress, desc="ridge", unit="system") as bar:

            def of_system(system: System) -> Tensor:
                found = system.errors(ridges, trial, generator)
                bar.update()
                return found

            errors: list[float] = torch.stack(_of_each(some, of_system, ranks)).sum(0).tolist()
        return errors

    errors = dict(zip(RIDGES, errors_of(RIDGES), strict=True))
    best = min(errors, key=lambda ridge: errors[ridge])
    for edge, beyond in ((RIDGES[0], _BELOW), (RIDGES[-1], _ABOVE)):
        if best == edge:
            errors |= zip(beyond, errors_of(beyond), strict=True)
            further = min(beyond, key=lambda ridge: errors[ridge])
            best = further if errors[further] < (1 - _GAIN) * errors[edge] else best
            break
    return best, tuple(sorted(errors))


def _of_each(systems: Sequence[System], work: Callable[[System], R], mesh: Mesh | None) -> list[R]:
    """The results of some work on each of the systems, in their order: each by one rank, or by all if they divide it.

    A rank that works alone does what one process does: those results have the same bits.
    """
    if mesh is None or mesh.size == 1:
        return [work(system) for system in systems]
    alone = [system for system in systems if not system.divided]
    # Of one system nobody would gain by waiting for the rank that works on it.
    found = iter(by_rank(mesh, work, alone, systems[0].targets.device) if len(alone) > 1 else map(work, alone))
    return [work(system) if system.divided else next(found) for system in systems]


_LONG = 1e12
"""Multiplications above which the ridge is not chosen on the rows of all masks: a core takes about a minute."""
_LEAST = 16
"""Masks that take part in any case."""


def _some(systems: Sequence[System], generator: torch.Generator) -> Sequence[System]:
    """All systems; or, where leaving out each entry would take long, some drawn at random."""
    if sum(system.leaving_out for system in systems) <= _LONG or len(systems) <= _LEAST:
        return systems
    order = [systems[place] for place in torch.randperm(len(systems), generator=generator).tolist()]
    spent = 0.0
    chosen: list[System] = []
    for system in order:
        spent += system.leaving_out
        if spent > _LONG and len(chosen) >= _LEAST:
            break
        chosen.append(system)
    return chosen


@dataclass(frozen=True)
class Weights:
    """The weights of the regression, and how well they solve its equations.

    Attributes:
        values: [rows, columns]; 0 at unobserved entries.
        residual: largest relative residual of the equations of any row.
        solver: what solved them.
        iterations: of the row that took most.
        notes: what to tell the user.
    """

    values: Tensor
    residual: float
    solver: str
    iterations: int
    notes: list[str]


def solved(
    systems: Sequence[System],
    targets: Tensor,
    ridge: float,
    solver: Literal["auto"] | Solver,
    *,
    progress: bool,
    mesh: Mesh | None = None,
) -> Weights:
    """Solve all equations of a matrix with targets [rows, columns]; ranks of a mesh divide them.

    Raises:
        ValueError: weights are too large for float64.
    """
    values = torch.zeros_like(targets)
    residual, name, iterations = 0.0, "", 0
    several, statuses = len(systems) > 1, set()
    with tqdm(total=len(systems), disable=not (progress and several), desc="rows", unit="pattern") as bar:

        def solve(system: System) -> Solution:
            found = system.solve(ridge, solver, progress=progress and not several)
            bar.update()
            return found

        solutions = _of_each(systems, solve, mesh)
    for system, solution in zip(systems, solutions, strict=True):
        weights = solution.weights if system.scale is None else solution.weights * system.scale
        values[system.rows[:, None], system.columns] = weights
        residual = max(residual, float(solution.residual.max()))
        name = solution.solver
        iterations = max(iterations, solution.iterations)
        statuses.add(solution.status)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            "expected a matrix and features whose weights float64 holds, got weights that it does not: scale them, or "
            "set normalize=True"
        )
    notes = [
        _SINGULAR if status is Status.SINGULAR else f"{status.value}; residual {residual:.1e}"
        for status in statuses - {Status.CONVERGED}
    ]
    return Weights(values, residual, name, iterations, notes)
