"""What a solver says of how it ended is true: also of kernels that are none, and of numbers of any scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.operators.base import DenseOperator

SOLVERS = [tc.Direct(), tc.ConjugateGradient(1e-8), tc.EigenPro(epochs=200, tolerance=1e-6)]


def symmetric(values: list[float], generator: torch.Generator) -> torch.Tensor:
    """A matrix of these eigenvalues."""
    basis = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator)).Q
    return (basis * torch.tensor(values, dtype=torch.float64)) @ basis.T


def true_residual(matrix: torch.Tensor, ridge: float, solution: tc.Solution, y: torch.Tensor) -> float:
    left = matrix @ solution.weights + ridge * matrix.diagonal().mean() * solution.weights - y
    return float(left.norm() / y.norm())


INDEFINITE = [[1.0, 0.5, -0.5], [-1.0, -2.0, -3.0], [2.0, 1.0, -1e-3], [1.0] * 20 + [-1.0]]


@pytest.mark.parametrize("values", INDEFINITE, ids=range(len(INDEFINITE)))
@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_a_direct_solution_of_no_kernel_is_right_or_refused(
    values: list[float], ridge: float, generator: torch.Generator
) -> None:
    matrix = symmetric(values, generator)
    y = torch.randn(len(values), dtype=torch.float64, generator=generator)
    regression = tc.Regression(DenseOperator(matrix), torch.ones(len(values), dtype=torch.bool), ridge)
    try:
        solution = tc.Direct().solve(regression, y)
    except ValueError as error:
        assert "positive semi-definite" in str(error)
        return
    found = true_residual(matrix, ridge, solution, y)
    assert abs(found - float(solution.residual)) <= 1e-6 * max(found, 1)
    assert (solution.status is tc.Status.CONVERGED) == (found <= 1e-9)


def test_zeros_on_the_diagonal_do_not_hide_that_it_is_no_kernel() -> None:
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    regression = tc.Regression(DenseOperator(matrix), torch.ones(2, dtype=torch.bool), 0.0)
    solution = tc.Direct().solve(regression, torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert solution.status is not tc.Status.CONVERGED
    assert float(solution.residual) == pytest.approx(1.0)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("exponent", [-1000, -600, -150, 150, 600, 1000])
def test_right_hand_sides_of_any_scale(solver: Any, exponent: int, generator: torch.Generator) -> None:
    """Multiplied by a power of 2, weights are multiplied by it to the bit, and the residual stays."""
    matrix = symmetric([3.0, 2.0, 1.0, 0.5, 0.3, 0.2], generator)
    y = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    mask = torch.tensor([True, True, True, True, False, True])
    regression = tc.Regression(DenseOperator(matrix), mask, 1e-3)
    usual = solver.solve(regression, y * mask)
    scale = torch.tensor([2.0**exponent, 1.0, 2.0 ** (exponent // 2)], dtype=torch.float64)[:, None]
    scaled = solver.solve(regression, y * mask * scale)
    assert scaled.status is usual.status is tc.Status.CONVERGED
    assert torch.allclose(scaled.weights / scale, usual.weights, rtol=1e-5, atol=1e-12)
    assert torch.allclose(scaled.residual, usual.residual, atol=1e-6)


def test_ridges_of_tiny_and_huge_matrices_are_chosen_alike(generator: torch.Generator) -> None:
    features = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    table = features @ torch.randn(3, 5, dtype=torch.float64, generator=generator)
    table = (table + 0.1 * torch.randn(8, 5, dtype=torch.float64, generator=generator)).T
    table[torch.rand(table.shape, generator=generator) < 0.2] = torch.nan
    usual = tc.MatrixCompletion(ridge="cv").fit(table, None, features)
    for scale in (2.0**-900, 2.0**700):
        model = tc.MatrixCompletion(ridge="cv").fit(table * scale, None, features)
        assert model.ridge_ == usual.ridge_
        assert torch.allclose(model.predict() / scale, usual.predict(), rtol=1e-9)
        assert model.score(table * scale) == pytest.approx(usual.score(table))
