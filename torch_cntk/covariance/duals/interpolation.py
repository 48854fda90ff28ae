"""Chebyshev expansions in one, two and three variables, the first two of which are alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Series", "coefficients", "points", "polynomials", "split", "unresolved"]

_SHARE = 1e-13
"""Share of the largest coefficient below which others are left out."""


class Series(NamedTuple):
    """A sum over p of T_p(x) times sum_r s_pr U_pr(y) U_pr(y'), with signs s.

    Attributes:
        signs: s_pr, an entry for each p.
        basis: of the U_pr in Chebyshev polynomials of y, [sum over p of the numbers of r, places].
    """

    signs: tuple[tuple[float, ...], ...]
    basis: Tensor


def points(count: int) -> Tensor:
    """The zeros of T_count, from 1 to -1."""
    return torch.cos(math.pi / count * (torch.arange(count, dtype=torch.float64) + 0.5))


def polynomials(x: Tensor, count: int) -> Tensor:
    """T_0 to T_(count - 1) at places of any shape, [count, *shape]."""
    rows = [torch.ones_like(x), x]
    for _ in range(count - 2):
        rows.append(2 * x * rows[-1] - rows[-2])
    return torch.stack(rows[:count])


def coefficients(values: Tensor, dim: int) -> Tensor:
    """Of the expansion along ``dim`` of values at ``points``."""
    count = values.shape[dim]
    rows = polynomials(points(count), count) * (2 / count)
    rows[0] /= 2
    return torch.movedim(torch.tensordot(rows, values, dims=([1], [dim])), 0, dim)


def unresolved(expansion: Tensor, dim: int) -> float:
    """The last two coefficients along ``dim``, as a share of the largest."""
    if expansion.shape[dim] == 1:
        return 0.0
    size = expansion.abs()
    return float(size.narrow(dim, expansion.shape[dim] - 2, 2).max() / size.max())


def split(expansion: Tensor) -> Series:
    """The expansion [n, n, p], symmetric in the first two, as a sum of products: few, as it is smooth."""
    size = float(expansion.abs().max())
    signs: list[tuple[float, ...]] = []
    rows = []
    for matrix in expansion.unbind(-1):
        weights, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        kept = weights.abs() > _SHARE * size
        signs.append(tuple(weights[kept].sign().tolist()))
        rows.append((vectors[:, kept] * weights[kept].abs().sqrt()).T)
    while signs and not signs[-1]:
        signs.pop()
    return Series(tuple(signs), torch.cat(rows))
