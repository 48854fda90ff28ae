"""Matrices of low rank, without features."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk.matrices.baselines._observed import observed_entries

__all__ = ["matrix_factorisation", "soft_impute"]


def soft_impute(
    matrix: Tensor,
    observed: Tensor,
    shrinkage: float,
    *,
    guess: Tensor | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
) -> Tensor:
    """Minimise half the squared error on the observed entries plus the nuclear norm (Mazumder et al. 2010).

    Args:
        matrix: [rows, columns]; take means off before, as what is missing is drawn towards 0.
        observed: boolean [rows, columns], True = known.
        shrinkage: weight of the nuclear norm, at least 0.
        guess: where to begin; zeros by default.
        max_iterations: at most so many decompositions.
        tolerance: of the relative change in one iteration.

    Returns:
        the low-rank matrix, [rows, columns]; at observed entries it is a fit, not what was observed.

    Raises:
        TypeError: an option is no number, or the mask not boolean.
        ValueError: an option is out of range, or shapes do not fit.
    """
    finite_number(shrinkage, "shrinkage", minimum=0)
    positive_int(max_iterations, "max_iterations")
    values = observed_entries(matrix, observed)
    low_rank = torch.zeros_like(values) if guess is None else guess.double()
    for _ in range(max_iterations):
        before, low_rank = low_rank, _shrunken(torch.where(observed, values, low_rank), shrinkage)
        change = torch.linalg.vector_norm(low_rank - before)
        if float(change) <= tolerance * float(torch.linalg.vector_norm(before)):
            break
    return low_rank.to(matrix.dtype)


def _shrunken(matrix: Tensor, shrinkage: float) -> Tensor:
    """The matrix with its singular values s replaced by max(s - shrinkage, 0)."""
    wide = matrix.shape[0] < matrix.shape[1]
    # The small side's eigenvectors are several times as fast as a full SVD.
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    kept = squares > shrinkage**2
    singular, vectors = squares[kept].sqrt(), vectors[:, kept]
    projector = (vectors * (1 - shrinkage / singular)) @ vectors.T
    shrunken: Tensor = projector @ matrix if wide else matrix @ projector
    return shrunken


def matrix_factorisation(
    matrix: Tensor, observed: Tensor, rank: int, ridge: float, *, iterations: int = 20, seed: int = 0
) -> Tensor:
    """A product of two factors, fitted by alternating ridge regressions (Koren, Bell & Volinsky 2009).

    Args:
        matrix: [rows, columns]; take means off before, as what is missing is drawn towards 0.
        observed: boolean [rows, columns], True = known.
        rank: of the product.
        ridge: on the squared norms of the factors, above 0; a row's is weighted by its number of observed entries.
        iterations: of both regressions.
        seed: of the first factor.

    Returns:
        the product, [rows, columns].

    Raises:
        TypeError: an option is no number, or the mask not boolean.
        ValueError: an option is out of range, or shapes do not fit.
    """
    positive_int(rank, "rank")
    positive_int(iterations, "iterations")
    if finite_number(ridge, "ridge", minimum=0) == 0:
        raise ValueError("expected ridge > 0, got 0: a row with few entries has many solutions")
    values = observed_entries(matrix, observed)
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(values.shape[1], rank, generator=generator, dtype=values.dtype).to(values.device)
    mask = observed.to(values.dtype)
    rows = columns
    for _ in range(iterations):
        rows = _factor(values, mask, columns, ridge)
        columns = _factor(values.T, mask.T, rows, ridge)
    return (rows @ columns.T).to(matrix.dtype)


def _factor(values: Tensor, mask: Tensor, other: Tensor, ridge: float) -> Tensor:
    """The rows' factor that fits best, given that of the columns, [rows, rank]."""
    rank = other.shape[1]
    products = (other[:, :, None] * other[:, None, :]).flatten(1)
    gram = (mask @ products).reshape(-1, rank, rank)
    # Rows without an entry get zeros.
    counts = mask.sum(1).clamp_min(1)
    gram.diagonal(dim1=1, dim2=2).add_(ridge * counts[:, None])
    factor: Tensor = torch.linalg.solve(gram, values @ other)
    return factor
