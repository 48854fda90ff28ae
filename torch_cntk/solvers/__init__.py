"""Solvers of the kernel regression on the observed pixels."""

from torch_cntk.solvers.base import Factorisation, Regression, Solution, Solver, Status
from torch_cntk.solvers.conjugate_gradient import ConjugateGradient

__all__ = ["ConjugateGradient", "Factorisation", "Regression", "Solution", "Solver", "Status"]
