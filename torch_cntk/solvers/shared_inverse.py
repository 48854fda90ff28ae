"""Equations on many masks of one matrix, from the inverse of the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["distinct", "inverse_pays", "restricted_inverse"]

_BYTES = 1 << 20
"""That the rows of the inverse of one batch of masks take."""


def inverse_pays(masks: Tensor) -> bool:
    """Whether solving on each of these masks, boolean [k, n], by ``restricted_inverse`` beats factorising each."""
    seen = distinct(masks).sum(1).double()
    if len(seen) == 1:
        return False
    missing = (~masks).sum(1).double()
    # A factorisation takes n^3 / 3 multiplications, an inverse n^3.
    return bool(3 * masks.shape[1] ** 3 + missing.pow(3).sum() < seen.pow(3).sum())


def distinct(masks: Tensor) -> Tensor:
    """The masks of boolean [k, n] that differ, each once."""
    bits = np.packbits(masks.cpu().numpy(), axis=1)
    return masks[list({bytes(row): place for place, row in enumerate(bits)}.values())]


def restricted_inverse(
    inverse: Tensor, masks: Tensor, targets: Tensor, *, diagonal: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Solve G_OO w = y for each of many sets O of points, given P = G^-1.

    With M the points that are not in O, (G_OO)^-1 = P_OO - P_OM (P_MM)^-1 P_MO: each mask costs a factorisation of
    the size of what it leaves out.

    Args:
        inverse: P, [n, n], symmetric positive definite.
        masks: O, boolean [k, n].
        targets: y, [k, n], zero outside of O.
        diagonal: whether to give the diagonals of (G_OO)^-1 as well.

    Returns:
        the solutions, [k, n], zero outside of O; and the diagonals, [k, n], meaningless outside of O, or None.
    """
    missing = ~masks
    counts = missing.sum(1)
    solved = targets @ inverse
    removed = torch.zeros_like(solved)
    diagonals = inverse.diagonal().repeat(len(masks), 1) if diagonal else None
    for rows in _batches(counts, inverse.shape[0] if diagonal else 0):
        most = int(counts[rows].max())
        # What is missing first; what follows it is filler, and made a block of the identity.
        index = missing[rows].byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        filler = torch.arange(most, device=index.device) >= counts[rows, None]
        block = inverse[index[:, :, None], index[:, None, :]]
        block.masked_fill_(filler[:, :, None] | filler[:, None, :], 0).diagonal(dim1=1, dim2=2).add_(filler)
        factor = torch.linalg.cholesky(block)
        inner = torch.cholesky_solve(solved[rows].gather(1, index).masked_fill_(filler, 0)[..., None], factor)[..., 0]
        removed[rows] = torch.zeros_like(solved[rows]).scatter_(1, index, inner)
        if diagonals is not None:
            # A product with the inverse of the factor takes half of the time of a solve with the factor.
            identity = torch.diag_embed((~filler).to(block.dtype))
            half = torch.linalg.solve_triangular(factor, identity, upper=False) @ inverse[index]
            diagonals[rows] -= half.square_().sum(1)
    return torch.where(masks, solved - removed @ inverse, 0), diagonals


def _batches(counts: Tensor, width: int) -> Iterator[Tensor]:
    """Masks that leave out about as much, of which ``width`` numbers for each point left out fit into the cache."""
    order = counts.argsort(descending=True)
    order = order[counts[order] > 0]
    first = 0
    while first < len(order):
        most = int(counts[order[first]])
        many = max(1, _BYTES // (8 * most * (most + width)))
        yield order[first : first + many]
        first += many
