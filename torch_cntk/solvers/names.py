"""Solvers by their names."""

from __future__ import annotations

from torch_cntk.solvers.base import Solver
from torch_cntk.solvers.conjugate_gradient import ConjugateGradient
from torch_cntk.solvers.direct import Direct
from torch_cntk.solvers.eigenpro import EigenPro

__all__ = ["NAMES", "named_solver"]

_SOLVERS: dict[str, type[Solver]] = {"direct": Direct, "cg": ConjugateGradient, "eigenpro": EigenPro}
NAMES = tuple(_SOLVERS)


def named_solver(name: str) -> Solver | None:
    """The solver of this name, with its usual settings; None for "auto", which chooses it by the equations.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "auto":
        return None
    if name not in _SOLVERS:
        known = ", ".join(f'"{known}"' for known in ("auto", *NAMES))
        raise ValueError(f"expected a solver such as ConjugateGradient(), or one of {known}, got {name!r}")
    return _SOLVERS[name]()
