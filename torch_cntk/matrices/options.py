"""The options of ``MatrixCompletion``, checked before long work."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Literal, get_args

import torch

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk.matrices.bounds import check_bounds
from torch_cntk.operators.row_column import COMBINATIONS
from torch_cntk.solvers import Solver

if TYPE_CHECKING:
    from torch_cntk.matrices.completion import MatrixCompletion

__all__ = ["PRECISIONS", "Precision", "check_options"]

Precision = Literal["float64", "float32"]
PRECISIONS: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(Precision)}


def check_options(model: MatrixCompletion) -> None:
    """Refuse options that are out of range.

    Raises:
        TypeError: one is no number.
        ValueError: so it is.
    """
    if isinstance(model.ridge, str):
        if model.ridge != "cv":
            raise ValueError(f'expected ridge to be a number or "cv", got {model.ridge!r}')
    else:
        finite_number(model.ridge, "ridge", minimum=0)
    finite_number(model.identity, "identity", minimum=0)
    finite_number(model.row_identity, "row_identity", minimum=0)
    if model.combine not in COMBINATIONS:
        raise ValueError(f"expected combine to be one of {', '.join(COMBINATIONS)}, got {model.combine!r}")
    if model.solver != "auto" and not isinstance(model.solver, Solver):
        raise ValueError(f'expected solver to be "auto" or a Solver, got {model.solver!r}')
    if model.precision not in PRECISIONS:
        raise ValueError(f"expected precision to be one of {', '.join(PRECISIONS)}, got {model.precision!r}")
    if isinstance(model.seed, bool) or not isinstance(model.seed, Integral) or model.seed < 0:
        raise ValueError(f"expected seed to be an integer of at least 0, got {model.seed!r}")
    check_bounds(model.clip)
    if isinstance(model.passes, str):
        if model.passes != "auto":
            raise ValueError(f'expected passes to be "auto", a number or None, got {model.passes!r}')
    elif model.passes is not None:
        positive_int(model.passes, "passes")
