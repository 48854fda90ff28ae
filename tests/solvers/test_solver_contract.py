"""What every solver promises, and what each promises beyond."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers.regressions import deep, direct, masks, matrix_of, problem, random_operator, residual_of
from torch_cntk.operators.base import DenseOperator
from torch_cntk.solvers import Regression
from torch_cntk.solvers.base import MaskSolver

TIGHT = {
    "direct": tc.Direct(),
    "circulant": tc.ConjugateGradient(1e-11, 5000, preconditioner="circulant"),
    "nested": tc.ConjugateGradient(1e-11, 5000, preconditioner="nested"),
    "laplacian": tc.ConjugateGradient(1e-11, 5000, preconditioner="laplacian"),
    "jacobi": tc.ConjugateGradient(1e-11, 5000, preconditioner="jacobi"),
    "none": tc.ConjugateGradient(1e-11, 5000, preconditioner="none"),
    "eigenpro": tc.EigenPro(epochs=3000, tolerance=1e-9),
    "eigenpro in batches": tc.EigenPro(epochs=3000, tolerance=1e-9, batch=16),
}
RIDGE = 1e-2


@pytest.fixture(scope="module")
def kernel() -> tc.Kernel:
    return deep(2).kernel(tc.priors.Uniform())


@pytest.mark.parametrize("name", TIGHT)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_solution_is_that_of_the_matrix(name: Any, batch: Any, kernel: Any, generator: torch.Generator) -> None:
    operator = kernel.operator((16, 12))
    observed, targets = problem((16, 12), batch, generator)
    solution = TIGHT[name].solve(Regression(operator, observed, RIDGE), targets)
    matrix = kernel.dense((16, 12))
    expected = direct(matrix, observed, targets, RIDGE)
    assert solution.status is tc.Status.CONVERGED
    assert (solution.weights.shape, solution.weights.dtype) == (targets.shape, torch.float64)
    assert solution.residual.shape == batch
    # The tolerance times the condition number, which the ridge bounds by some 1e4.
    assert (solution.weights - expected).norm() <= 1e-4 * expected.norm()
    assert bool((solution.weights * ~observed == 0).all())
    true = residual_of(matrix, observed, targets, solution.weights, RIDGE)
    torch.testing.assert_close(solution.residual, true, rtol=1e-3, atol=1e-13)
    assert solution.seconds > 0


@pytest.mark.parametrize("name", TIGHT)
def test_factorisation_serves_further_right_hand_sides(name: Any, kernel: Any, generator: torch.Generator) -> None:
    operator = kernel.operator((12, 12))
    observed, first = problem((12, 12), (2,), generator)
    second = torch.randn(3, 12, 12, generator=generator, dtype=torch.float64) * observed
    factorisation = TIGHT[name].factorise(Regression(operator, observed, RIDGE))
    for targets in (first, second, first):
        expected = direct(kernel.dense((12, 12)), observed, targets, RIDGE)
        assert (factorisation.solve(targets).weights - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("name", TIGHT)
def test_each_mask_gets_its_own_solution(name: Any, kernel: Any, generator: torch.Generator) -> None:
    operator = kernel.operator((12, 12))
    observed = torch.rand(3, 1, 12, 12, generator=generator) < 0.6
    observed[2] = observed[0]  # equal masks share a factorisation
    targets = torch.randn(3, 2, 12, 12, generator=generator, dtype=torch.float64) * observed
    weights = TIGHT[name].solve(Regression(operator, observed, RIDGE), targets).weights
    for image in range(3):
        expected = direct(kernel.dense((12, 12)), observed[image, 0], targets[image], RIDGE)
        assert (weights[image] - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("name", TIGHT)
def test_a_good_guess_saves_work_and_a_bad_one_does_no_harm(name: Any, kernel: Any, generator: torch.Generator) -> None:
    operator = kernel.operator((12, 12))
    observed, targets = problem((12, 12), (2,), generator)
    factorisation = TIGHT[name].factorise(Regression(operator, observed, RIDGE))
    cold = factorisation.solve(targets)
    warm = factorisation.solve(targets, guess=cold.weights)
    assert warm.iterations <= min(1, cold.iterations)
    wild = 1e6 * torch.randn(targets.shape, generator=generator, dtype=torch.float64) * observed
    lost = factorisation.solve(targets, guess=wild)
    assert lost.status is tc.Status.CONVERGED
    assert (lost.weights - cold.weights).norm() <= 1e-4 * cold.weights.norm()


@pytest.mark.parametrize("name", TIGHT)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_convergence_does_not_depend_on_the_scale_of_the_kernel(
    name: Any, scale: Any, generator: torch.Generator
) -> None:
    operator = random_operator((8, 8), 1e3, generator)
    scaled = DenseOperator(matrix_of(operator, (8, 8)).reshape(8, 8, 8, 8) * scale, operator.stationary * scale)
    observed, targets = problem((8, 8), (2,), generator)
    one, other = (TIGHT[name].solve(Regression(o, observed, RIDGE), targets) for o in (operator, scaled))
    assert other.status is tc.Status.CONVERGED
    # Rounding may move the last iteration.
    assert abs(one.iterations - other.iterations) <= 1 + one.iterations // 50
    assert (other.weights * scale - one.weights).norm() <= 1e-4 * one.weights.norm()


@pytest.mark.parametrize("name", TIGHT)
def test_same_seed_gives_the_same_weights_and_the_global_one_is_left_alone(
    name: Any, kernel: Any, generator: torch.Generator
) -> None:
    observed, targets = problem((12, 12), (2,), generator)
    regression = Regression(kernel.operator((12, 12)), observed, RIDGE)
    state = torch.random.get_rng_state()
    first, second = (TIGHT[name].solve(regression, targets) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", TIGHT)
def test_threads_agree(name: Any, kernel: Any, threads: Any, generator: torch.Generator) -> None:
    observed, targets = problem((16, 16), (2,), generator)
    solutions = []
    for count in (1, 2):
        threads(count)
        solutions.append(TIGHT[name].solve(Regression(kernel.operator((16, 16)), observed, RIDGE), targets).weights)
    assert (solutions[0] - solutions[1]).norm() <= 1e-4 * solutions[0].norm()


@pytest.mark.parametrize("name", TIGHT)
def test_zeros_are_solved_by_zeros_beside_others(name: Any, kernel: Any, generator: torch.Generator) -> None:
    observed, targets = problem((12, 12), (3,), generator)
    targets[1] = 0
    solution = TIGHT[name].solve(Regression(kernel.operator((12, 12)), observed, RIDGE), targets)
    assert solution.status is tc.Status.CONVERGED
    assert not bool(solution.weights[1].any())
    assert float(solution.residual[1]) == 0


@pytest.mark.parametrize("name", TIGHT)
def test_bar_is_shown_on_request_only(
    name: Any, kernel: Any, capsys: pytest.CaptureFixture[str], generator: torch.Generator
) -> None:
    observed, targets = problem((8, 8), (1,), generator)
    regression = Regression(kernel.operator((8, 8)), observed, RIDGE)
    TIGHT[name].solve(regression, targets)
    assert capsys.readouterr().err == ""
    TIGHT[name].solve(regression, targets, progress=True)
    assert capsys.readouterr().err != ""


@pytest.mark.parametrize("name", TIGHT)
def test_interrupted_solve_leaves_nothing_behind(
    name: Any, kernel: Any, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator, tmp_path: Path
) -> None:
    observed, targets = problem((12, 12), (2,), generator)
    operator = kernel.operator((12, 12))
    factorisation = TIGHT[name].factorise(Regression(operator, observed, RIDGE))
    expected = factorisation.solve(targets).weights
    state, before = torch.random.get_rng_state(), targets.clone()
    monkeypatch.chdir(tmp_path)

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "reshape", interrupt)  # every solver begins and ends with one
        with pytest.raises(KeyboardInterrupt):
            factorisation.solve(targets)
    with monkeypatch.context() as patched:
        patched.setattr(type(operator), "_multiply", interrupt)
        patched.setattr("torch_cntk.solvers.direct._Matrix.solve", interrupt)
        with pytest.raises(KeyboardInterrupt):
            factorisation.solve(targets)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(targets, before)
    assert list(tmp_path.iterdir()) == []
    # The factorisation is as good as before.
    assert torch.equal(factorisation.solve(targets).weights, expected)


@pytest.mark.parametrize("name", TIGHT)
def test_options_cannot_be_changed(name: Any) -> None:
    solver: Any = TIGHT[name]
    for field in dataclasses.fields(solver):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(solver, field.name, 1)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31),
    sides=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    channels=st.integers(1, 3),
    share=st.floats(0.1, 1.0),
    ridge=st.sampled_from([1e-3, 1e-2, 1e-1]),
)
def test_solvers_agree(kernel: Any, seed: Any, sides: Any, channels: Any, share: Any, ridge: Any) -> None:
    size = (4 * sides[0], 4 * sides[1])
    generator = torch.Generator().manual_seed(seed)
    observed, targets = problem(size, (channels,), generator, share)
    regression = Regression(kernel.operator(size), observed, ridge)
    expected = tc.Direct().solve(regression, targets).weights
    for name, solver in TIGHT.items():
        solution = solver.solve(regression, targets)
        assert solution.status is tc.Status.CONVERGED, name
        assert (solution.weights - expected).norm() <= 1e-4 * expected.norm(), name


# Direct.


def test_direct_residual_is_at_rounding(kernel: Any, generator: torch.Generator) -> None:
    observed, targets = problem((24, 24), (2,), generator)
    solution = tc.Direct().solve(Regression(kernel.operator((24, 24)), observed, 0), targets)
    assert solution.status is tc.Status.CONVERGED
    assert float(solution.residual.max()) < 1e-10


@pytest.mark.parametrize("block", [1, 7, 64, 100])
def test_blocks_of_the_factorisation_do_not_matter(
    block: Any, kernel: Any, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    observed, targets = problem((12, 12), (2,), generator)
    regression = Regression(kernel.operator((12, 12)), observed, RIDGE)
    expected = tc.Direct().solve(regression, targets).weights
    monkeypatch.setattr("torch_cntk.solvers.direct._BLOCK", block)
    assert (tc.Direct().solve(regression, targets).weights - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_kernel_is_solved_in_the_least_squares_sense(dtype: Any, generator: torch.Generator) -> None:
    kernel = tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(1, 1, 3)).kernel(
        tc.priors.Uniform()
    )
    size = (12, 12)
    matrix = kernel.dense(size).reshape(144, 144)
    observed, targets = problem(size, (2,), generator, 0.95)
    solution = tc.Direct().solve(Regression(kernel.to(dtype).operator(size), observed, 0), targets)
    assert solution.status is tc.Status.SINGULAR
    assert "least-squares" in solution.status.value
    known = observed.flatten()
    block = matrix[known][:, known]
    expected = torch.linalg.lstsq(block, targets.flatten(1)[:, known].T, driver="gelsd", rcond=1e-6).solution
    # Of rank-deficient least squares the fit is unique; it is what the missing pixels follow.
    fit = block @ solution.weights.flatten(1)[:, known].T
    assert (fit - block @ expected).norm() <= {torch.float32: 1e-2, torch.float64: 1e-6}[dtype] * targets.norm()


def test_singular_direct_solution_is_the_shortest(generator: torch.Generator) -> None:
    vectors = torch.randn(16, 9, generator=generator, dtype=torch.float64)
    operator = DenseOperator((vectors @ vectors.T).reshape(4, 4, 4, 4))
    observed, targets = problem((4, 4), (3,), generator, 0.99)
    solution = tc.Direct().solve(Regression(operator, observed, 0), targets)
    assert solution.status is tc.Status.SINGULAR
    assert "rank 9 of" in solution.solver
    known = observed.flatten()
    block = operator._matrix[known][:, known]
    expected = torch.linalg.pinv(block, hermitian=True, rtol=1e-9) @ targets.flatten(1)[:, known].T
    assert (solution.weights.flatten(1)[:, known].T - expected).norm() <= 1e-8 * expected.norm()


def test_direct_solution_that_would_not_fit_is_refused(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": 1 << 24)
    observed = torch.ones(64, 64, dtype=torch.bool)
    with pytest.raises(tc.OutOfMemoryError, match=r"4,096 equations needs 134 MB, .* 1,448 would fit"):
        tc.Direct().factorise(Regression(kernel.operator((64, 64)), observed, 0))


# Nested conjugate gradients.


@pytest.mark.parametrize("levels", [2, 3])
def test_outer_iterations_do_not_depend_on_the_mask(levels: Any, generator: torch.Generator) -> None:
    operator = deep(levels, tc.Conv2d(1, 1, 1)).kernel(tc.priors.Uniform(), dtype=torch.float32).operator((64, 64))
    image = torch.rand(1, 64, 64, generator=generator, dtype=torch.float64)
    counts = {}
    for name, observed in masks((64, 64), generator).items():
        solver = tc.ConjugateGradient(1e-4, preconditioner="nested")
        solution = solver.solve(Regression(operator, observed, 1e-3), image * observed)
        assert solution.status is tc.Status.CONVERGED
        counts[name] = solution.iterations
    assert max(counts.values()) <= 20, counts
    assert max(counts.values()) - min(counts.values()) <= 7, counts


def test_the_dearer_the_kernel_the_more_is_nested(generator: torch.Generator) -> None:
    for levels, name in ((1, "circulant"), (4, "nested")):
        operator = deep(levels).kernel(tc.priors.Uniform(), dtype=torch.float32).operator((64, 64))
        observed, targets = problem((64, 64), (), generator)
        assert name in tc.ConjugateGradient(1e-2).solve(Regression(operator, observed, RIDGE), targets).solver


@pytest.mark.parametrize("name", ["laplacian", "circulant", "nested"])
def test_preconditioner_that_needs_displacements_is_refused_without(name: Any, generator: torch.Generator) -> None:
    operator = DenseOperator(torch.eye(9, dtype=torch.float64).reshape(3, 3, 3, 3))
    with pytest.raises(ValueError, match="one without displacements"):
        tc.ConjugateGradient(preconditioner=name).factorise(Regression(operator, torch.ones(3, 3).bool(), 0))


def test_unknown_preconditioner_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected Landmarks, or one of .*, got 'ilu'"):
        tc.ConjugateGradient(preconditioner="ilu")  # type: ignore[arg-type]


def test_nearly_singular_kernel_gives_the_same_in_both_precisions(generator: torch.Generator) -> None:
    # Ends in upsample, convolution; the image has detail that such a network cannot make.
    layers: list[tc.Layer] = []
    for _ in range(2):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    layers += [tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv2d(1, 1, 3)]
    kernel = tc.Sequential(*layers).kernel(tc.priors.Uniform(0, 0.1))
    line = torch.linspace(0, 3, 96, dtype=torch.float64)
    image = (torch.sin(line)[:, None] * torch.cos(2 * line))[None]
    image += torch.rand(1, 96, 96, generator=generator, dtype=torch.float64)
    observed = torch.rand(96, 96, generator=generator) < 0.95
    results = [
        tc.inpaint(image.to(dtype), observed, kernel.to(dtype), solver=tc.ConjugateGradient(), ridge=0)
        for dtype in (torch.float32, torch.float64)
    ]
    assert {result.status for result in results} == {tc.Status.RIDGE}
    assert not any(result.converged for result in results)
    # The tolerance times what the ridge of 1e-3 leaves of the condition number.
    assert float((results[0].image.double() - results[1].image).abs().max()) < 1e-3 * float(image.abs().max())


# EigenPro.


def test_eigenpro_holds_out_pixels_and_stops_before_it_fits_the_noise(kernel: Any, generator: torch.Generator) -> None:
    size = (32, 32)
    observed = torch.rand(size, generator=generator) < 0.7
    smooth = torch.linspace(0, 1, 32, dtype=torch.float64).expand(size)
    noisy = (smooth + 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)) * observed
    operator = kernel.operator(size)
    solver = tc.EigenPro(epochs=2000, tolerance=1e-9, validation=0.2, patience=3)
    solution = solver.solve(Regression(operator, observed, 0), noisy)
    assert solution.status is tc.Status.EARLY
    trained = observed & (solution.weights != 0)
    assert int(trained.sum()) == int(observed.sum()) - int(0.2 * int(observed.sum()))
    exact = tc.Direct().solve(Regression(operator, trained, 0), noisy * trained)

    def error(weights: torch.Tensor) -> float:
        return float(((operator @ weights) - smooth)[~observed].norm())

    assert error(solution.weights) < error(exact.weights)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs to be at least 1"),
        ({"epochs": 1.5}, TypeError, "epochs to be an integer"),
        ({"subsample": 0}, ValueError, "subsample to be at least 1"),
        ({"eigenvectors": -1}, ValueError, "eigenvectors to be at least 1"),
        ({"batch": 0}, ValueError, "batch to be at least 1"),
        ({"tolerance": -1.0}, ValueError, "tolerance to be at least 0"),
        ({"tolerance": math.nan}, ValueError, "tolerance to be finite"),
        ({"validation": 1.0}, ValueError, "validation between 0 and 1"),
        ({"memory": 0}, ValueError, "memory to be at least 1"),
    ],
)
def test_wrong_options_of_eigenpro_are_refused(options: Any, error: Any, match: Any) -> None:
    with pytest.raises(error, match=match):
        tc.EigenPro(**options)


def test_eigenpro_keeps_to_its_memory(generator: torch.Generator) -> None:
    operator = random_operator((20, 20), 1e2, generator)
    observed, targets = problem((20, 20), (2,), generator, 0.9)
    regression = Regression(operator, observed, RIDGE)
    factorisation: Any = tc.EigenPro(batch=64, memory=100_000).factorise(regression)
    part = factorisation._parts[0]
    assert not part.kept
    assert part.batch * len(part.trained) * 8 <= 100_000
    solution = tc.EigenPro(epochs=3000, tolerance=1e-8, batch=64, memory=100_000).solve(regression, targets)
    expected = direct(matrix_of(operator, (20, 20)), observed, targets, RIDGE)
    assert (solution.weights - expected).norm() <= 1e-4 * expected.norm()


def test_eigenpro_recovers_from_a_step_that_is_too_long(
    kernel: Any, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr("torch_cntk.solvers.eigenpro._SAFETY", 50.0)
    observed, targets = problem((16, 16), (2,), generator)
    regression = Regression(kernel.operator((16, 16)), observed, RIDGE)
    solution = tc.EigenPro(epochs=3000, tolerance=1e-8).solve(regression, targets)
    assert solution.status is tc.Status.CONVERGED


def test_mask_solvers_hold_one_factorisation_at_a_time(kernel: Any, generator: torch.Generator) -> None:
    alive: list[int] = []

    class Counting(MaskSolver):
        def factorise_mask(self, regression: Any, *, progress: Any = False) -> Any:
            alive.append(1)
            return tc.Direct().factorise_mask(regression)

    observed = torch.rand(4, 8, 8, generator=generator) < 0.5
    targets = torch.rand(4, 8, 8, generator=generator, dtype=torch.float64) * observed
    Counting().solve(Regression(kernel.operator((8, 8)), observed, RIDGE), targets)
    assert len(alive) == 4
