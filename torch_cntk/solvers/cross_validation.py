"""The ridge that predicts observed pixels best which were left out."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk.operators.base import Operator
from torch_cntk.solvers.base import Regression, Solver
from torch_cntk.solvers.checkpoint import without_checkpoint
from torch_cntk.solvers.policy import automatic

__all__ = ["RIDGES", "cross_validated_ridge"]

RIDGES: tuple[float, ...] = tuple(10.0 ** (exponent / 2) for exponent in range(0, -13, -1))
"""Candidates, relative to the mean of K's diagonal: half a decade apart, from 1 down to 1e-6."""

_TOLERANCE = 1e-3
"""Relative residual of the trial solutions: their error is far below that of the prediction."""


def cross_validated_ridge(
    operator: Operator,
    observed: Tensor,
    targets: Tensor,
    *,
    solver: Solver | None = None,
    share: float = 0.05,
    seed: int = 0,
    progress: bool = False,
) -> float:
    """Choose the ridge by leaving out a few of the observed pixels.

    Args:
        operator: K.
        observed: boolean, True = known, broadcasts against the targets.
        targets: [..., *size], zero at unobserved pixels.
        solver: of the trials; the automatic one by default.
        share: of the observed pixels of each mask, to leave out; at least one pixel is.
        seed: of their choice.
        progress: whether to show a bar.

    Returns:
        the candidate of ``RIDGES`` with the smallest squared error on the pixels that were left out.

    Raises:
        ValueError: the share is not between 0 and 1, or a mask has fewer than two observed pixels.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected the share to leave out between 0 and 1, got {share}")
    generator = torch.Generator().manual_seed(seed)
    kept = _leave_out(observed, len(operator.size), share, generator)
    left_out = observed & ~kept
    errors: list[float] = []
    guess: Tensor | None = None
    # From the best conditioned equations to the worst, each from the solution before it.
    for ridge in tqdm(RIDGES, disable=not progress, desc="ridge", leave=False):
        regression = Regression(operator, kept, ridge)
        chosen = without_checkpoint(solver) or automatic(regression, _TOLERANCE)
        guess = chosen.factorise(regression).solve(targets * kept, guess=guess).weights
        error = (operator.multiply(guess) - targets) * left_out
        errors.append(float(error.square().sum()))
    return RIDGES[min(range(len(errors)), key=errors.__getitem__)]


def _leave_out(observed: Tensor, ndim: int, share: float, generator: torch.Generator) -> Tensor:
    """Unset a share of each mask.

    Raises:
        ValueError: a mask has fewer than two observed pixels.
    """
    kept = observed.clone().flatten(observed.ndim - ndim)
    for mask in kept.reshape(-1, kept.shape[-1]):
        known = mask.nonzero()[:, 0]
        if len(known) < 2:
            raise ValueError(f"expected at least two observed pixels to choose the ridge, got {len(known)}")
        count = max(round(share * len(known)), 1)
        mask[known[torch.randperm(len(known), generator=generator)[:count].to(known.device)]] = False
    return kept.reshape(observed.shape)
