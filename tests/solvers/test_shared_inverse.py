"""Many masks of one matrix: what shares an inverse equals what is solved mask by mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.regressions import random_operator
from torch_cntk.matrices import systems
from torch_cntk.operators.base import DenseOperator
from torch_cntk.solvers import Regression
from torch_cntk.solvers.base import MaskSolver
from torch_cntk.solvers.leave_one_out import masked_residuals, residuals
from torch_cntk.solvers.shared_inverse import inverse_pays, restricted_inverse

SHARED = "direct (Cholesky of the whole, less what is missing, float64)"


def masked_problem(generator: torch.Generator, masks: int = 40, pixels: int = 20, condition: float = 1e3) -> Any:
    """A matrix, masks that leave out little (one of them nothing), and targets that are zero there."""
    matrix = random_operator((pixels,), condition, generator).entries(torch.arange(pixels), torch.arange(pixels))
    observed = torch.rand(masks, pixels, generator=generator) < 0.85
    observed[0], observed[:, 0] = True, True
    targets = torch.randn(masks, pixels, generator=generator, dtype=torch.float64) * observed
    return matrix, observed, targets


@pytest.mark.parametrize("bytes_", [1, 1 << 20])
def test_restricted_inverse(bytes_: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_cntk.solvers.shared_inverse._BYTES", bytes_)
    matrix, observed, targets = masked_problem(generator)
    solved, diagonals = restricted_inverse(torch.linalg.inv(matrix), observed, targets, diagonal=True)
    assert diagonals is not None
    for row, known in enumerate(observed):
        inverse = torch.linalg.inv(matrix[known][:, known])
        assert torch.allclose(solved[row, known], inverse @ targets[row, known], rtol=1e-8, atol=1e-9)
        assert torch.allclose(diagonals[row, known], inverse.diagonal(), rtol=1e-8)
        assert not bool(solved[row, ~known].any())
    again, none = restricted_inverse(torch.linalg.inv(matrix), observed, targets)
    assert none is None
    assert torch.equal(again, solved)


def test_masks_that_leave_out_much_or_are_one_do_not_share_an_inverse(generator: torch.Generator) -> None:
    _, observed, _ = masked_problem(generator)
    assert inverse_pays(observed)
    assert not inverse_pays(~observed)
    assert not inverse_pays(observed[:1].expand_as(observed))
    assert not inverse_pays(observed[:2])


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_direct_solution_of_many_masks_is_that_of_each(channels: Any, ridge: Any, generator: torch.Generator) -> None:
    matrix, observed, _ = masked_problem(generator)
    mask = observed.reshape(40, *(1 for _ in channels), 20)
    targets = torch.randn(40, *channels, 20, generator=generator, dtype=torch.float64) * mask
    regression = Regression(DenseOperator(matrix), mask, ridge)
    together, factorised = tc.Direct().solve(regression, targets), tc.Direct().factorise(regression).solve(targets)
    alone = MaskSolver.solve(tc.Direct(), regression, targets)
    assert together.solver == SHARED
    assert alone.solver != SHARED
    assert together.status is tc.Status.CONVERGED
    assert together.residual.shape == alone.residual.shape
    assert float(together.residual.max()) < 1e-11
    # Rounding times the condition number.
    assert torch.allclose(together.weights, alone.weights, rtol=1e-9, atol=1e-9)
    assert torch.equal(factorised.weights, together.weights)


def test_masks_are_solved_one_by_one_where_the_whole_is_singular(generator: torch.Generator) -> None:
    matrix, observed, targets = masked_problem(generator)
    # Pixels 1 and 2 are the same; no mask has both.
    matrix[2], matrix[:, 2] = matrix[1].clone(), matrix[:, 1].clone()
    matrix[2, 2] = matrix[1, 1]
    observed = torch.ones_like(observed)
    observed[torch.arange(40), 1 + torch.arange(40) % 2] = False
    observed[torch.arange(40), 3 + torch.arange(40) % 7] = False
    targets = targets * observed
    assert inverse_pays(observed)
    solution = tc.Direct().solve(Regression(DenseOperator(matrix), observed, 0), targets)
    assert solution.solver != SHARED
    for row, known in enumerate(observed):
        expected = torch.linalg.solve(matrix[known][:, known], targets[row, known])
        assert torch.allclose(solution.weights[row, known], expected, rtol=1e-7, atol=1e-7)


def test_masks_are_solved_one_by_one_where_rounding_has_won(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, observed, targets = masked_problem(generator)
    monkeypatch.setattr("torch_cntk.solvers.direct._EXACT", 0.0)
    solution = tc.Direct().solve(Regression(DenseOperator(matrix), observed, 0), targets)
    assert solution.solver != SHARED
    assert float(solution.residual.max()) < 1e-10


def test_leave_one_out_of_many_masks_is_that_of_each(generator: torch.Generator) -> None:
    matrix, observed, targets = masked_problem(generator)
    ridges = (1e-4, 0.3)
    together = list(masked_residuals(matrix, observed, targets, ridges))
    for row, known in enumerate(observed):
        alone = residuals(matrix[known][:, known], targets[row : row + 1, known], ridges)
        for ridge, errors in enumerate(alone):
            assert torch.allclose(together[ridge][row, known], errors[0], rtol=1e-8, atol=1e-9)
            assert not bool(together[ridge][row, ~known].any())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_completion_does_not_depend_on_who_shares_an_inverse(
    share: Any, weighted: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(25, 4, generator=generator, dtype=torch.float64)
    values = torch.tanh(features @ torch.randn(4, 60, generator=generator, dtype=torch.float64)).T
    values = values + 0.1 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(values.shape, generator=generator) < share
    mask[:, 0] = True
    weights = torch.rand(25, generator=generator, dtype=torch.float64) + 0.2 if weighted else None

    def fit() -> tc.MatrixCompletion:
        return tc.MatrixCompletion(ridge="cv", identity=0.2).fit(values, mask, features, column_weight=weights)

    together = fit()
    with monkeypatch.context() as patch:
        patch.setattr(systems, "inverse_pays", lambda masks: False)
        alone = fit()
    assert (together.solver_ == SHARED) == (share > 0.5)
    assert together.ridge_ == alone.ridge_
    assert torch.allclose(together.predict(), alone.predict(), rtol=1e-7, atol=1e-8)
    left_out = together.left_out()
    assert torch.equal(left_out.isnan(), ~mask)
    assert torch.allclose(left_out[mask], alone.left_out()[mask], rtol=1e-7, atol=1e-8)
    assert together.score(values, mask) == pytest.approx(alone.score(values, mask), rel=1e-8)
    # Without a ridge leaving out goes mask by mask, whoever shares the solution.
    together.ridge_ = alone.ridge_ = 0.0
    assert torch.allclose(together.left_out()[mask], alone.left_out()[mask], rtol=1e-6, atol=1e-7)
