"""Which solver a problem gets if the user names none."""

from __future__ import annotations

import math

from torch_cntk._internal.memory import available_bytes
from torch_cntk.operators.base import DenseOperator
from torch_cntk.solvers.base import Regression, Solver
from torch_cntk.solvers.conjugate_gradient import ConjugateGradient
from torch_cntk.solvers.direct import Direct

__all__ = ["automatic"]

_SMALL = 1000
"""Equations of an image that a factorisation solves before an iteration has begun."""
_DENSE = 12_000
"""Equations up to which a factorisation beats some hundred products with a dense matrix, which read all of it."""
_PAPER = 30_000
"""Equations that the paper solves directly. It takes EigenPro above; conjugate gradients reach a residual of 1e-4 in
less time (docs/matrices.md): an epoch of EigenPro multiplies by K twice, and small eigenvalues gain little in each."""


def automatic(regression: Regression, tolerance: float | None = None) -> Solver:
    """Choose a solver for these equations.

    * Images: a factorisation for up to 1,000 observed pixels (12,000 if K is dense), else conjugate gradients.
    * Grids without displacements, such as the columns of a matrix: the same, but a factorisation for up to 30,000.

    A factorisation must fit into half of the memory that is free.

    Args:
        regression: the equations.
        tolerance: relative residual asked of an iteration; the solver's own by default.

    Returns:
        the solver; ``Solution.solver`` says what it was.
    """
    operator = regression.operator
    pixels = regression.observed.reshape(-1, math.prod(operator.size)).sum(1)
    count = int(pixels.max())
    columns = operator.stationary is None
    most = _PAPER if columns else _DENSE if isinstance(operator, DenseOperator) else _SMALL
    free = available_bytes(operator.device)
    if count <= most and (free is None or 16 * count**2 <= free):
        return Direct()
    return ConjugateGradient() if tolerance is None else ConjugateGradient(tolerance=tolerance)
