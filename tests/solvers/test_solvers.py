"""Conjugate gradients against a direct solve, and how they end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.regressions import direct, matrix_of, problem, random_operator, residual_of, singular_kernel
from torch_cntk.solvers import Regression
from torch_cntk.solvers.preconditioners import Circulant


@pytest.mark.parametrize("size", [(30,), (6, 7), (3, 4, 5)])
@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_solution_equals_the_direct_one(size: Any, batch: Any, ridge: Any, generator: torch.Generator) -> None:
    operator = random_operator(size, 1e3, generator)
    observed, targets = problem(size, batch, generator)
    solver = tc.ConjugateGradient(tolerance=1e-12, max_iterations=2000)
    solution = solver.solve(Regression(operator, observed, ridge), targets)
    expected = direct(matrix_of(operator, size), observed, targets, ridge)
    assert solution.status is tc.Status.CONVERGED
    assert solution.weights.shape == targets.shape
    assert solution.residual.shape == batch
    # Residual times condition number, times a margin.
    assert (solution.weights - expected).norm() <= 1e-8 * expected.norm()
    assert bool((solution.weights * ~observed == 0).all())


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-9])
def test_residual_is_the_true_one_and_within_the_tolerance(tolerance: Any, generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e4, generator)
    observed, targets = problem((6, 8), (4,), generator)
    solution = tc.ConjugateGradient(tolerance, 5000).solve(Regression(operator, observed, 1e-5), targets)
    true = residual_of(matrix_of(operator, (6, 8)), observed, targets, solution.weights, 1e-5)
    assert solution.status is tc.Status.CONVERGED
    assert bool((true <= tolerance).all())
    torch.testing.assert_close(solution.residual, true, rtol=1e-3, atol=1e-13)


def test_looser_tolerance_takes_fewer_iterations(generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e4, generator)
    observed, targets = problem((6, 8), (), generator)
    regression = Regression(operator, observed, 0)
    counts = [tc.ConjugateGradient(tol, 5000).solve(regression, targets).iterations for tol in (1e-1, 1e-4, 1e-8)]
    assert 0 < counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("refresh", [1, 2, 3, 5, 50])
def test_refreshing_the_residual_does_not_change_the_answer(refresh: Any, generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e4, generator)
    observed, targets = problem((6, 8), (2,), generator)
    solver = tc.ConjugateGradient(1e-10, 3000, refresh)
    solution = solver.solve(Regression(operator, observed, 1e-3), targets)
    expected = direct(matrix_of(operator, (6, 8)), observed, targets, 1e-3)
    assert solution.status is tc.Status.CONVERGED
    # Residual times condition number, times a margin.
    assert (solution.weights - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("levels", [1, 2])
def test_solution_of_a_periodic_kernel_equals_the_direct_one(levels: Any, generator: torch.Generator) -> None:
    layers: list[tc.Layer] = []
    for _ in range(levels):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    for _ in range(levels):
        layers += [tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    kernel = tc.Sequential(*layers).kernel(tc.priors.Uniform())
    observed, targets = problem((16, 12), (3,), generator)
    solver = tc.ConjugateGradient(1e-11, 3000)
    solution = solver.solve(Regression(kernel.operator((16, 12)), observed, 1e-3), targets)
    expected = direct(kernel.dense((16, 12)), observed, targets, 1e-3)
    assert solution.status is tc.Status.CONVERGED
    assert (solution.weights - expected).norm() <= 1e-7 * expected.norm()


def test_each_right_hand_side_stops_on_its_own(generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e4, generator)
    observed = torch.ones(6, 8, dtype=torch.bool)
    # An eigenvector of the preconditioned matrix takes one step; a random image takes many.
    hard = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    regression = Regression(operator, observed, 1e-4)
    basis = torch.eye(48, dtype=torch.float64).reshape(48, 6, 8)
    inverse = Circulant(regression).restricted(regression.mask[None])(basis).reshape(48, 48)
    root = torch.linalg.cholesky((inverse + inverse.T) / 2)
    left = regression.multiply(basis).reshape(48, 48)
    vector = root @ torch.linalg.eigh(root.T @ left @ root).eigenvectors[:, 0]
    easy = (left @ vector).reshape(6, 8)
    solver = tc.ConjugateGradient(1e-6, 3000)
    alone = [solver.solve(regression, targets) for targets in (easy, hard)]
    together = solver.solve(regression, torch.stack([easy, hard]))
    assert alone[0].iterations < alone[1].iterations
    # The order of additions differs, which long runs amplify.
    assert together.iterations == pytest.approx(alone[1].iterations, rel=0.2)
    assert bool((together.residual <= 1e-6).all())
    # The easy one stood still after its few steps: its numbers are those of its own run.
    assert (together.weights[0] - alone[0].weights).norm() <= 1e-9 * alone[0].weights.norm()


def test_right_hand_sides_of_any_scale_are_solved_alike(generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e3, generator)
    observed, targets = problem((6, 8), (), generator)
    scales = torch.tensor([1e-12, 1.0, 1e12], dtype=torch.float64)[:, None, None]
    solution = tc.ConjugateGradient(1e-10, 3000).solve(Regression(operator, observed, 0), targets * scales)
    expected = direct(matrix_of(operator, (6, 8)), observed, targets, 0)
    for weights in solution.weights / scales:
        assert (weights - expected).norm() <= 1e-6 * expected.norm()


def test_each_image_may_have_its_own_mask(generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e3, generator)
    masks, images = zip(*(problem((6, 8), (2,), generator) for _ in range(3)), strict=True)
    solver = tc.ConjugateGradient(1e-12, 3000)
    regression = Regression(operator, torch.stack(masks)[:, None], 1e-3)
    solution = solver.solve(regression, torch.stack(images))
    matrix = matrix_of(operator, (6, 8))
    for observed, targets, weights in zip(masks, images, solution.weights, strict=True):
        expected = direct(matrix, observed, targets, 1e-3)
        assert (weights - expected).norm() <= 1e-8 * expected.norm()


def test_zeros_are_solved_by_zeros(generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e3, generator)
    observed, targets = problem((6, 8), (3,), generator)
    targets[1] = 0
    regression = Regression(operator, observed, 0)
    solution = tc.ConjugateGradient(1e-8, 3000).solve(regression, targets)
    assert solution.status is tc.Status.CONVERGED
    assert bool((solution.weights[1] == 0).all())
    assert float(solution.residual[1]) == 0
    assert bool((solution.residual <= 1e-8).all())
    nothing = tc.ConjugateGradient().solve(regression, torch.zeros(2, 6, 8, dtype=torch.float64))
    assert nothing.status is tc.Status.CONVERGED
    assert nothing.iterations == 0
    assert bool((nothing.weights == 0).all())


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_out_of_iterations_says_so_and_returns_the_best_so_far(iterations: Any, generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e6, generator)
    observed, targets = problem((6, 8), (3,), generator)
    solution = tc.ConjugateGradient(1e-10, iterations).solve(Regression(operator, observed, 0), targets)
    true = residual_of(matrix_of(operator, (6, 8)), observed, targets, solution.weights, 0)
    assert solution.status is tc.Status.ITERATIONS
    assert solution.iterations == iterations
    assert "raise max_iterations" in solution.status.value
    assert bool((true <= 1 + 1e-12).all())
    torch.testing.assert_close(solution.residual, true, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("missing", [0, 5])
@pytest.mark.parametrize("refresh", [5, 50])
def test_singular_kernel_neither_diverges_nor_seems_solved(
    dtype: Any, missing: Any, refresh: Any, generator: torch.Generator
) -> None:
    size = (16, 16)
    kernel = singular_kernel()
    matrix = kernel.dense(size)
    eigenvalues = torch.linalg.eigvalsh(matrix.reshape(256, 256))
    assert eigenvalues[0] < 1e-12 * eigenvalues[-1]
    observed = torch.ones(size, dtype=torch.bool)
    observed.view(-1)[torch.randperm(256, generator=generator)[:missing]] = False
    targets = torch.randn(3, *size, generator=generator, dtype=torch.float64) * observed
    solver = tc.ConjugateGradient(1e-4, 300, refresh)
    solution = solver.solve(Regression(kernel.operator(size, dtype=dtype), observed, 0), targets)
    true = residual_of(matrix, observed, targets, solution.weights, 0)
    assert solution.status in (tc.Status.RIDGE, tc.Status.STAGNATED, tc.Status.ITERATIONS)
    assert bool(torch.isfinite(solution.weights).all())
    assert bool((solution.residual <= 1).all())
    # Large weights times the rounding of the operator: it multiplies a little differently from the matrix.
    assert bool((true <= 1.01).all())
    # Random images cannot be met: a share of them, at least the missing rank's, is left over.
    assert bool((solution.residual > 1e-3).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_kernel_is_solved_with_a_ridge_and_says_so(dtype: Any, generator: torch.Generator) -> None:
    kernel = singular_kernel()
    observed = torch.ones(16, 16, dtype=torch.bool)
    targets = torch.randn(2, 16, 16, generator=generator, dtype=torch.float64)
    regression = Regression(kernel.operator((16, 16), dtype=dtype), observed, 0)
    solution = tc.ConjugateGradient(1e-4, 5000).solve(regression, targets)
    assert solution.status is tc.Status.RIDGE
    assert "solved with a ridge of 0.001" in solution.status.value
    expected = direct(kernel.dense((16, 16)), observed, targets, 1e-3)
    # The tolerance times the condition number with the ridge, which most of a random image is far from.
    assert (solution.weights - expected).norm() <= 1e-2 * expected.norm()
    # Of the equations that were asked about, without the ridge.
    true = residual_of(kernel.dense((16, 16)), observed, targets, solution.weights, 0)
    torch.testing.assert_close(solution.residual, true, rtol=1e-3, atol=1e-6)


def test_ridge_makes_a_singular_kernel_solvable(generator: torch.Generator) -> None:
    kernel = singular_kernel()
    observed = torch.ones(16, 16, dtype=torch.bool)
    targets = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    regression = Regression(kernel.operator((16, 16)), observed, 1e-2)
    solution = tc.ConjugateGradient(1e-8, 2000).solve(regression, targets)
    expected = direct(kernel.dense((16, 16)), observed, targets, 1e-2)
    assert solution.status is tc.Status.CONVERGED
    assert (solution.weights - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("ridge", [1e-4, 1e-5])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_residual_that_rises_for_long_before_it_falls_is_not_stagnation(
    ridge: Any, share: Any, generator: torch.Generator
) -> None:
    # Conjugate gradients lower the error in every step, but not the residual.
    layers: list[tc.Layer] = []
    for _ in range(2):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    layers += [tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv2d(1, 1, 3)]
    kernel = tc.Sequential(*layers).kernel(tc.priors.Uniform())
    observed, targets = problem((32, 32), (), generator, share)
    solution = tc.ConjugateGradient(1e-4, 5000).solve(Regression(kernel.operator((32, 32)), observed, ridge), targets)
    assert solution.status is tc.Status.CONVERGED
    true = residual_of(kernel.dense((32, 32)), observed, targets, solution.weights, ridge)
    assert float(true) <= 1.01e-4


def test_ill_conditioned_regular_problem_is_solved(generator: torch.Generator) -> None:
    operator = random_operator((15, 15), 1e6, generator)
    observed, targets = problem((15, 15), (), generator)
    solution = tc.ConjugateGradient(1e-4, 5000).solve(Regression(operator, observed, 0), targets)
    assert solution.status is tc.Status.CONVERGED


def test_same_problem_gives_the_same_answer(generator: torch.Generator) -> None:
    kernel = singular_kernel()
    observed, targets = problem((16, 16), (3,), generator)
    regression = Regression(kernel.operator((16, 16)), observed, 1e-3)
    first, second = (tc.ConjugateGradient().solve(regression, targets) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert first.iterations == second.iterations


def test_solver_leaves_its_arguments_alone(generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e3, generator)
    observed, targets = problem((6, 8), (2,), generator)
    before = observed.clone(), targets.clone()
    tc.ConjugateGradient().solve(Regression(operator, observed, 0), targets)
    assert torch.equal(observed, before[0])
    assert torch.equal(targets, before[1])


def test_bar_is_shown_on_request_only(capsys: pytest.CaptureFixture[str], generator: torch.Generator) -> None:
    operator = random_operator((6, 8), 1e3, generator)
    observed, targets = problem((6, 8), (), generator)
    regression = Regression(operator, observed, 0)
    tc.ConjugateGradient().solve(regression, targets)
    assert capsys.readouterr().err == ""
    tc.ConjugateGradient().solve(regression, targets, progress=True)
    captured = capsys.readouterr()
    assert "conjugate gradients" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "expected tolerance > 0, got 0"),
        ({"tolerance": -1e-4}, "expected tolerance to be at least 0"),
        ({"tolerance": math.nan}, "expected tolerance to be finite"),
        ({"tolerance": math.inf}, "expected tolerance to be finite"),
        ({"max_iterations": 0}, "expected max_iterations to be at least 1, got 0"),
        ({"refresh": -3}, "expected refresh to be at least 1, got -3"),
    ],
)
def test_option_out_of_range_is_refused_when_built(options: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        tc.ConjugateGradient(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"tolerance": "1e-4"}, "tolerance"),
        ({"tolerance": None}, "tolerance"),
        ({"max_iterations": 100.0}, "max_iterations"),
        ({"max_iterations": True}, "max_iterations"),
        ({"refresh": "often"}, "refresh"),
    ],
)
def test_option_of_a_wrong_type_is_refused_when_built(options: Any, name: Any) -> None:
    with pytest.raises(TypeError, match=f"expected {name} to be"):
        tc.ConjugateGradient(**options)


def test_options_cannot_be_changed_afterwards() -> None:
    solver = tc.ConjugateGradient()
    with pytest.raises(AttributeError):
        solver.tolerance = 0  # type: ignore[misc]
    assert solver == tc.ConjugateGradient()


@pytest.mark.parametrize(
    ("ridge", "error"),
    [(-1e-3, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (None, TypeError)],
)
def test_wrong_ridge_is_refused(ridge: Any, error: Any, generator: torch.Generator) -> None:
    operator = random_operator((2, 3), 10, generator)
    with pytest.raises(error, match="expected ridge to be"):
        Regression(operator, torch.ones(2, 3, dtype=torch.bool), ridge)


@pytest.mark.parametrize("tolerance", [1e-14, 1e-15])
def test_where_rounding_ends_the_iteration_the_equations_stay(tolerance: float, generator: torch.Generator) -> None:
    # Out of reach in float32: the best there is is given, and not the solution of another, larger ridge.
    kernel = tc.load_kernel("uniform-3x128-leaky0.1").operator((24, 24), dtype=torch.float32)
    observed, targets = problem((24, 24), (1,), generator)
    solution = tc.ConjugateGradient(tolerance).solve(Regression(kernel, observed, 1e-4), targets.float())
    assert solution.status is tc.Status.STAGNATED
    # Rounding of K @ w, some 1e-7 |K| |w|, with weights that are up to 1 / ridge of the targets' size.
    assert float(solution.residual.max()) < 1e-4


def test_tolerances_below_rounding_are_refused() -> None:
    with pytest.raises(ValueError, match="expected tolerance of at least 1e-15, got 1e-300"):
        tc.ConjugateGradient(1e-300)
