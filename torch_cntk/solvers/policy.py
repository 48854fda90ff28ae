"""Which solver a problem gets if the user names none."""

from __future__ import annotations

import math

from torch_cntk._internal.memory import available_bytes
from torch_cntk.operators.base import Operator
from torch_cntk.solvers.base import Regression, Solver
from torch_cntk.solvers.conjugate_gradient import ConjugateGradient
from torch_cntk.solvers.direct import Direct

__all__ = ["automatic", "factorisation_cost", "iteration_cost"]

_SMALL = 1000
"""Equations that a factorisation solves in some 0.05 s, before an iteration has begun."""
_PAPER = 30_000
"""Equations that the paper solves directly, where nothing bounds the number of iterations. It takes EigenPro above;
conjugate gradients reach a residual of 1e-4 in less time (docs/matrices.md): an epoch of EigenPro multiplies by K
twice, and small eigenvalues gain little in each."""
_FLOAT64 = 2
"""An operation in float64, as all of a factorisation's are, takes as long as so many in float32, the unit of costs."""
_READING = 110
"""A number that is read from memory takes as long as so many operations, as measured on a CPU core."""
_MARGIN = 4
"""A factorisation has to be so many times cheaper than the iteration: it holds n^2 numbers instead of a few images, and
numbers of iterations are guesses."""


def automatic(regression: Regression, tolerance: float | None = None) -> Solver:
    """Choose a solver for these equations.

    * Up to 1,000 observed pixels are solved by a factorisation, as it takes no time.
    * Where nothing is known that bounds the iterations (``Operator.iterations`` is None), as between the columns of a
      matrix, up to 30,000 are.
    * Else the costs that the operator states are compared: n^3 / 3 operations and n^2 / 2 entries, against as many
      products with K as an iteration takes. Periodic kernels of images are iterated then, unless next to nothing is
      observed; stored matrices are factorised up to some 12,000 pixels; windowed kernels are iterated from a few
      thousand pixels on.

    A factorisation must fit into half of the memory that is free.

    Args:
        regression: the equations.
        tolerance: relative residual asked of an iteration; the solver's own by default.

    Returns:
        the solver; ``Solution.solver`` says what it was.
    """
    operator = regression.operator
    count = int(regression.observed.reshape(-1, math.prod(operator.size)).sum(1).max())
    free = available_bytes(operator.device)
    fits = free is None or 16 * count**2 <= free
    if fits and _factorisation_pays(operator, count):
        return Direct()
    return ConjugateGradient() if tolerance is None else ConjugateGradient(tolerance=tolerance)


def _factorisation_pays(operator: Operator, count: int) -> bool:
    """Whether so many equations are better factorised than iterated."""
    if operator.iterations is None:
        return count <= _PAPER
    return count <= _SMALL or _MARGIN * factorisation_cost(operator, count) <= iteration_cost(operator)


def factorisation_cost(operator: Operator, count: int) -> float:
    """Time to find the entries of so many equations and factorise them, in units of ``Operator.cost``."""
    return _FLOAT64 * count**3 / 3 + operator.entry_cost * count**2 / 2


def iteration_cost(operator: Operator) -> float:
    """Time of all products with K in an iteration, in units of ``Operator.cost``; infinite if nothing bounds them."""
    if operator.iterations is None:
        return math.inf
    return operator.iterations * (operator.cost + _READING * operator.traffic) * math.prod(operator.size)
