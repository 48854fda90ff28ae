"""The preconditioner that many masks of one kernel share."""

from __future__ import annotations

import pytest
import torch

import torch_cntk as tc
from torch_cntk.operators import DenseOperator
from torch_cntk.solvers.nystrom import Nystrom


def kernel(generator: torch.Generator, n: int = 80) -> torch.Tensor:
    """A smooth kernel plus some white noise."""
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.exp(-torch.cdist(x, x).square()) + 1e-4 * torch.eye(n, dtype=torch.float64)


def masks(generator: torch.Generator, n: int = 80) -> torch.Tensor:
    """Scattered ones, a block, and all."""
    seen = torch.rand(3, n, generator=generator) < 0.5
    seen[1] = torch.arange(n) < n // 3
    seen[2] = True
    return seen


def test_it_is_the_inverse_of_a_low_rank_part_and_the_rest(generator: torch.Generator) -> None:
    regression = tc.Regression(DenseOperator(kernel(generator)), masks(generator), 1e-3)
    preconditioner = Nystrom(regression, rank=12)
    residual = torch.randn(3, 80, generator=generator, dtype=torch.float64) * regression.mask
    found = preconditioner.restricted(regression.mask)(residual)
    factor, rest = preconditioner._factor, preconditioner._rest
    for one, mask, right in zip(found, regression.observed, residual, strict=True):
        part = factor[mask]
        matrix = part @ part.T + rest * torch.eye(len(part), dtype=torch.float64)
        torch.testing.assert_close(one[mask], torch.linalg.solve(matrix, right[mask]), rtol=1e-7, atol=1e-9)
        assert not bool(one[~mask].any())


def test_the_low_rank_part_is_near_the_best_one(generator: torch.Generator) -> None:
    matrix = kernel(generator)
    preconditioner = Nystrom(tc.Regression(DenseOperator(matrix), masks(generator), 1e-3), rank=20)
    near = preconditioner._factor @ preconditioner._factor.T
    best = torch.linalg.eigvalsh(matrix).flip(0)[10]
    # Of twice the rank, an approximation by a random sketch errs by less than a few times the best one of half of it.
    assert float(torch.linalg.matrix_norm(matrix - near, 2)) < 5 * float(best)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_iterations_are_fewer(dtype: torch.dtype, generator: torch.Generator) -> None:
    matrix, seen = kernel(generator).to(dtype), masks(generator)
    targets = torch.randn(3, 80, generator=generator, dtype=torch.float64) * seen
    regression = tc.Regression(DenseOperator(matrix), seen, 1e-2)
    plain, helped = (
        tc.ConjugateGradient(tolerance=1e-4, preconditioner=name).solve(regression, targets)
        for name in ("jacobi", "nystrom")
    )
    assert helped.status is tc.Status.CONVERGED
    assert helped.iterations < plain.iterations
    assert "nystrom" in helped.solver


def test_degenerate_kernels(generator: torch.Generator) -> None:
    vector = torch.randn(30, 1, generator=generator, dtype=torch.float64)
    seen = torch.rand(4, 30, generator=generator) < 0.5
    for matrix in (vector @ vector.T, torch.zeros(30, 30, dtype=torch.float64), torch.eye(30, dtype=torch.float64)):
        regression = tc.Regression(DenseOperator(matrix), seen, 1e-3)
        residual = torch.randn(4, 30, generator=generator, dtype=torch.float64) * regression.mask
        found = Nystrom(regression).restricted(regression.mask)(residual)
        assert bool(torch.isfinite(found).all())
        # Positive definite on the mask.
        assert bool(((found * residual).sum(1) > 0).all())
