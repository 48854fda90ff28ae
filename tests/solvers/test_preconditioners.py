"""Preconditioners of conjugate gradients against dense matrices, and questions to a device that answers late."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.regressions import deep, masks, problem, random_operator, singular_kernel
from torch_cntk.operators.base import DenseOperator, Operator
from torch_cntk.solvers import Regression
from torch_cntk.solvers.conjugate_run import Run
from torch_cntk.solvers.preconditioners import _BLUNTNESS, Circulant, Nested, _InnerIteration, _sharpened


def stationary_operator(size: tuple[int, ...], common: float, generator: torch.Generator) -> DenseOperator:
    """C itself as an operator: a random spectrum between 0.01 and 1, and ``common`` added to all entries."""
    pixels = math.prod(size)
    noise = torch.fft.fftn(torch.randn(size, generator=generator, dtype=torch.float64)).abs()
    spectrum = 0.01 + noise / noise.max()
    c = torch.fft.ifftn(spectrum).real + common
    position = torch.arange(pixels).reshape(size)
    axes = tuple(range(len(size)))
    rows = [c.roll([int(x) for x in torch.unravel_index(flat, size)], axes) for flat in position.flatten()]
    return DenseOperator(torch.stack(rows).reshape(*size, *size), c)


def matrix_of_map(function: Any, mask: torch.Tensor) -> torch.Tensor:
    """Dense matrix of a map on the observed pixels."""
    known = mask.flatten() > 0
    basis = torch.eye(mask.numel(), dtype=torch.float64)[known].reshape(-1, *mask.shape)
    return function(basis).flatten(1)[:, known].T


def dense(operator: Operator) -> torch.Tensor:
    pixels = math.prod(operator.size)
    return operator.entries(torch.arange(pixels), torch.arange(pixels))


@pytest.mark.parametrize("size", [(24,), (6, 7), (3, 4, 2)])
@pytest.mark.parametrize("common", [0.0, 0.3, 300.0])
def test_circulant_is_the_inverse_where_everything_is_observed(
    size: Any, common: Any, generator: torch.Generator
) -> None:
    operator = stationary_operator(size, common, generator)
    regression = Regression(operator, torch.ones(size, dtype=torch.bool), 0)
    images = torch.randn(3, *size, generator=generator, dtype=torch.float64)
    preconditioner = Circulant(regression)
    divided = preconditioner.restricted(regression.mask[None])(regression.multiply(images))
    # Rounding of a matrix of condition 3e4 * pixels at most.
    torch.testing.assert_close(divided, images, rtol=1e-7, atol=1e-7)
    multiplied = preconditioner.multiplied(regression.mask[None])(images)
    torch.testing.assert_close(multiplied, regression.multiply(images))


@pytest.mark.parametrize("common", [0.0, 0.3, 300.0])
def test_circulant_is_a_restricted_inverse_that_knows_the_constant(common: Any, generator: torch.Generator) -> None:
    size = (6, 7)
    operator = stationary_operator(size, common, generator)
    observed = problem(size, (), generator)[0]
    regression = Regression(operator, observed, 1e-3)
    ours = matrix_of_map(Circulant(regression).restricted(regression.mask[None]), regression.mask)
    c = dense(operator) + regression.ridge * torch.eye(42, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(c)
    ones = torch.full((42,), 42**-0.5, dtype=torch.float64)
    along = (vectors.T @ ones).abs() > 0.99
    others = values[~along].max()
    f = max(float(ones @ c @ ones - others), 0) / 42
    known = observed.flatten()
    inverse = torch.linalg.inv(c - f)[known][:, known]
    u = inverse.sum(1)
    expected = inverse - (torch.outer(u, u) / (1 / f + u.sum()) if f else 0)
    assert (ours - expected).norm() <= 1e-8 * expected.norm()
    assert float(torch.linalg.eigvalsh((ours + ours.T) / 2).min()) > 0
    # Whatever all pixels have in common, the product's eigenvalues are those of what they have not.
    product = torch.linalg.eigvals(ours @ c[known][:, known]).real
    assert float(product.max()) <= 2 * float(torch.linalg.eigvalsh(inverse).max() * others)


@pytest.mark.parametrize("size", [(9,), (1, 5), (4, 5), (3, 2, 4)])
def test_rough_inverse_is_a_positive_definite_difference_from_the_neighbours(
    size: Any, generator: torch.Generator
) -> None:
    observed = problem(size, (), generator)[0]
    ours = matrix_of_map(lambda images: _sharpened(images, observed.double()), observed.double())
    place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij"), -1)[observed]
    apart = (place[:, None] - place).abs().sum(-1)
    expected = (1 + _BLUNTNESS) * (apart == 0) - (apart == 1) / (2 * len(size))
    torch.testing.assert_close(ours, expected.double())
    assert float(torch.linalg.eigvalsh(ours).min()) >= _BLUNTNESS / 2


def inner(mask: torch.Tensor, operator: Operator, tolerance: float) -> tuple[_InnerIteration, torch.Tensor]:
    """A nested preconditioner on a mask, and the matrix that it inverts."""
    regression = Regression(operator, mask, 1e-3)
    iteration = Nested(regression, tolerance, 2000).restricted(regression.mask[None])
    assert isinstance(iteration, _InnerIteration)
    return iteration, matrix_of_map(Circulant(regression).multiplied(regression.mask[None]), regression.mask)


def test_both_inner_iterations_solve_the_stationary_equations(generator: torch.Generator) -> None:
    operator = deep(2).kernel(tc.priors.Uniform()).operator((16, 16))
    observed, targets = problem((16, 16), (2,), generator, 0.5)
    iteration, matrix = inner(observed, operator, 1e-10)
    expected = torch.linalg.solve(matrix, targets[:, observed].T).T
    for divide in (iteration._divide, iteration._other):
        weights, _, done = iteration._iterate(targets, divide, 2000)
        assert done
        # The tolerance times the square root of the condition number, some 1e5.
        assert (weights[:, observed] - expected).norm() <= 1e-6 * expected.norm()
        assert not bool(weights[:, ~observed].any())


def test_inner_iteration_keeps_the_cheaper_preconditioner(generator: torch.Generator) -> None:
    operator = deep(3).kernel(tc.priors.Uniform(), dtype=torch.float32).operator((64, 64))
    kinds = masks((64, 64), generator)
    for name, rough in {"half": True, "tenth": True, "large": False, "none": False}.items():
        iteration, _ = inner(kinds[name], operator, 0.25)
        first = iteration._divide
        for _ in range(3):
            iteration(torch.randn(1, 64, 64, generator=generator) * kinds[name])
        assert (iteration._divide is not first) == rough, name


def test_right_hand_sides_of_the_inner_iteration_stop_on_their_own(generator: torch.Generator) -> None:
    operator = deep(2).kernel(tc.priors.Uniform()).operator((16, 16))
    observed, targets = problem((16, 16), (3,), generator)
    targets[1] = 0
    iteration, _ = inner(observed, operator, 0.1)
    together, most, _ = iteration._iterate(targets, iteration._divide, 2000)
    counts = []
    for image, weights in zip(targets, together, strict=True):
        alone, count, _ = iteration._iterate(image[None], iteration._divide, 2000)
        counts.append(count)
        # The order of additions differs with the batch.
        assert (weights - alone[0]).norm() <= 1e-8 * float(alone.norm())
    assert max(counts) == most


def test_single_precision_takes_as_many_iterations_as_double(generator: torch.Generator) -> None:
    kernel = deep(3).kernel(tc.priors.Uniform())
    observed, targets = problem((96, 96), (), generator, 0.5)
    image = torch.linspace(0, 1, 96, dtype=torch.float64).expand(96, 96) * observed + 0.1 * targets
    for name in ("circulant", "nested"):
        counts = []
        for dtype in (torch.float32, torch.float64):
            operator = kernel.operator((96, 96), dtype=dtype)
            solution = tc.ConjugateGradient(1e-5, preconditioner=name).solve(
                Regression(operator, observed, 1e-4), image
            )
            assert solution.status is tc.Status.CONVERGED
            counts.append(solution.iterations)
        # Without a part of its own for the constant, single precision took a quarter more.
        assert abs(counts[0] - counts[1]) <= 2 + counts[1] // 20, (name, counts)


@pytest.mark.parametrize("name", ["circulant", "nested", "jacobi", "none"])
@pytest.mark.parametrize("refresh", [5, 50])
@pytest.mark.parametrize("case", ["kernel", "random", "singular"])
def test_device_that_is_asked_late_gives_the_same_bits(
    name: Any, refresh: Any, case: Any, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    operator: Operator
    if case == "random":
        operator = random_operator((8, 8), 1e4, generator)
    else:
        kernel = singular_kernel() if case == "singular" else deep(2).kernel(tc.priors.Uniform())
        operator = kernel.operator((16, 16), dtype=torch.float32)
    observed, targets = problem(operator.size, (3,), generator)
    targets[1] *= 1e-3
    targets[2] = (operator @ targets[2]) * observed  # smooth, and done before the others
    regression = Regression(operator, observed, 0 if case == "singular" else 1e-3)
    solver = tc.ConjugateGradient(1e-5, 120, refresh, preconditioner=name)
    history: list[torch.Tensor] = []
    step = Run._step

    def recorded(run: Run, *paused: torch.Tensor) -> None:
        step(run, *paused)
        history.append(run.relative)

    monkeypatch.setattr(Run, "_step", recorded)
    solutions, histories = [], []
    for at_once in (True, False):
        for module in ("conjugate_run", "preconditioners"):
            monkeypatch.setattr(f"torch_cntk.solvers.{module}.answers_at_once", lambda device, now=at_once: now)
        solutions.append(solver.solve(regression, targets))
        # Steps in vain leave the residuals as they are.
        changes = [
            r for r, before in zip(history, [None, *history], strict=False) if before is None or not _same(r, before)
        ]
        histories.append((len(history), changes))
        history.clear()
    now, late = solutions
    assert torch.equal(now.weights, late.weights)
    assert torch.equal(now.residual, late.residual)
    assert (now.iterations, now.status) == (late.iterations, late.status)
    assert len(histories[0][1]) == len(histories[1][1])
    assert all(_same(*pair) for pair in zip(histories[0][1], histories[1][1], strict=True))
    if name != "nested":  # whose steps are too dear to take one in vain
        assert histories[1][0] >= histories[0][0]


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
