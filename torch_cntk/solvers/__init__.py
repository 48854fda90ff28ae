"""Solvers of the kernel regression on the observed pixels."""

from torch_cntk.solvers.base import Regression, Solution, Solver, Status
from torch_cntk.solvers.conjugate_gradient import ConjugateGradient

__all__ = ["ConjugateGradient", "Regression", "Solution", "Solver", "Status"]
