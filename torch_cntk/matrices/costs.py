"""How long a completion takes, before it is begun."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from torch_cntk.matrices.choice import families, trial_count
from torch_cntk.matrices.fillers import Columns
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.systems import patterns
from torch_cntk.matrices.tables import Matrix

if TYPE_CHECKING:
    from torch_cntk.matrices.judged import Judged

__all__ = ["expected_seconds"]

_TRIAL = 512
"""Size of the matrices whose product tells how fast the machine is: it takes milliseconds."""
_DIRECT = 30_000
"""Equations above which they are solved by iteration."""
_EIGENSYSTEM = 12.0
"""Products of matrices that an eigendecomposition takes as long as; a grid of ridges needs one for each mask."""
_ITERATIONS = 40.0
_ENTRY = 250.0
"""Multiplications that an entry of a kernel takes as long as, where it is computed in each iteration."""
_RIDGES = 17.0
_LEFT_OUT = 4_000
_CALL = 1e-3
"""Seconds that a column takes in a pass of chained columns, however small the table: calls of functions."""
_SLOWER = 2.0
"""Passes of small and middling tables take so many times as long as their FLOPs would in a large product."""


def expected_seconds(model: Judged, matrix: Matrix, *, passes: bool, coupled: bool) -> float:
    """Estimate how long ``fit`` takes, to a factor of about three.

    Args:
        model: with its options.
        matrix: read.
        passes: whether it makes passes.
        coupled: whether rows have features.
    """
    device = matrix.values.device
    trial = torch.ones(_TRIAL, _TRIAL, dtype=torch.float64, device=device)
    trial @ trial  # the first one starts threads
    start = time.perf_counter()
    float((trial @ trial)[0, 0])
    speed = 2 * _TRIAL**3 / max(time.perf_counter() - start, 1e-6)
    if not passes:
        return _operations(model, matrix, coupled=coupled) / speed
    known = Known.of(matrix.values, matrix.observed)
    chains = families(known, "auto" if model.passes is None else model.passes).values()
    tried = [filler for family in chains for chain in family for filler in chain]
    # Chains often end before their last pass; small products of matrices are slower than large ones.
    seconds = _SLOWER * sum(filler.cost(known) for filler in tried) / speed
    seconds += _CALL * matrix.values.shape[1] * sum(isinstance(filler, Columns) for filler in tried)
    return seconds * trial_count(int(known.observed.sum()))


def _operations(model: Judged, matrix: Matrix, *, coupled: bool) -> float:
    """Multiplications and additions of a regression without passes."""
    if coupled:
        return _system(int(matrix.observed.sum()), 1, model.ridge == "cv")
    work = 0.0
    for seen, members in patterns(matrix.observed):
        work += _system(len(seen), len(members), model.ridge == "cv")
    return work


def _system(equations: int, right: int, chosen: bool) -> float:
    size = float(equations)
    if size > _DIRECT:
        return (_ITERATIONS * (_RIDGES if chosen else 1)) * size**2 * (2 * right + _ENTRY)
    solved = 2 / 3 * size**3 + 4 * size**2 * right + _ENTRY * size**2
    if not chosen:
        return solved
    return solved + (2 * _EIGENSYSTEM * size**3 if size <= _LEFT_OUT else _RIDGES * solved)
