"""Solvers of the kernel regression on the observed pixels."""

from torch_cntk.solvers.base import Factorisation, Regression, Solution, Solver, Status
from torch_cntk.solvers.conjugate_gradient import ConjugateGradient
from torch_cntk.solvers.cross_validation import cross_validated_ridge
from torch_cntk.solvers.direct import Direct
from torch_cntk.solvers.eigenpro import EigenPro
from torch_cntk.solvers.landmarks import Landmarks
from torch_cntk.solvers.names import named_solver
from torch_cntk.solvers.policy import automatic
from torch_cntk.solvers.settled import Settled

__all__ = [
    "ConjugateGradient",
    "Direct",
    "EigenPro",
    "Factorisation",
    "Landmarks",
    "Regression",
    "Settled",
    "Solution",
    "Solver",
    "Status",
    "automatic",
    "cross_validated_ridge",
    "named_solver",
]
