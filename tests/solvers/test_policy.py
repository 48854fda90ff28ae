"""Which solver and which ridge are taken when the user names none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.regressions import deep
from torch_cntk.operators.base import DenseOperator, Operator
from torch_cntk.solvers import Regression, automatic
from torch_cntk.solvers.cross_validation import RIDGES, cross_validated_ridge
from torch_cntk.solvers.policy import factorisation_cost, iteration_cost


@pytest.fixture(scope="module")
def kernel() -> tc.Kernel:
    return deep(2).kernel(tc.priors.Uniform())


def test_automatic_choice(kernel: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = torch.ones(16, 16, dtype=torch.bool), torch.ones(64, 64, dtype=torch.bool)
    assert automatic(Regression(kernel.operator((16, 16)), few, 0)) == tc.Direct()
    assert automatic(Regression(kernel.operator((64, 64)), many, 0)) == tc.ConjugateGradient()
    assert automatic(Regression(kernel.operator((64, 64)), many, 0), 1e-2) == tc.ConjugateGradient(1e-2)
    dense = kernel.operator((32, 32))
    matrix = DenseOperator(torch.eye(1600, dtype=torch.float64).reshape(40, 40, 40, 40), torch.zeros(40, 40).double())
    assert automatic(Regression(matrix, torch.ones(40, 40).bool(), 0)) == tc.Direct()
    columns = DenseOperator(torch.eye(2000, dtype=torch.float64))
    assert automatic(Regression(columns, torch.ones(2000).bool(), 0)) == tc.Direct()
    monkeypatch.setattr("torch_cntk.solvers.policy.available_bytes", lambda device="cpu": 1 << 20)
    assert automatic(Regression(columns, torch.ones(2000).bool(), 0), 1e-5) == tc.ConjugateGradient(1e-5)
    assert automatic(Regression(dense, torch.ones(32, 32).bool(), 0)) == tc.ConjugateGradient()


def windowed(size: tuple[int, int], radius: int, **options: Any) -> tc.Kernel:
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    return tc.guided_network().kernel(tc.priors.White(1e-2) + tc.priors.Tensor(image), size, radius=radius, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_windowed_kernels_of_many_pixels_are_iterated(dtype: Any, generator: torch.Generator) -> None:
    size = (72, 72)
    operator = windowed(size, 4, dtype=dtype).operator()
    observed = torch.rand(size, generator=generator) < 0.9
    regression = Regression(operator, observed, 1e-3)
    assert automatic(regression) == tc.ConjugateGradient()
    # It is no worse for that.
    targets = torch.rand(1, *size, generator=generator, dtype=torch.float64) * observed
    solution = automatic(regression).solve(regression, targets)
    assert solution.status is tc.Status.CONVERGED
    few = observed & (torch.rand(size, generator=generator) < 0.2)
    assert automatic(Regression(operator, few, 1e-3)) == tc.Direct()


class Stated(Operator):
    """Nothing but what it states."""

    def __init__(self, side: int = 100, **costs: Any) -> None:
        super().__init__((side, side), torch.float64, torch.device("cpu"), **costs)

    def _multiply(self, images: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


def chosen(operator: Operator, count: int) -> tc.Solver:
    observed = torch.zeros(operator.size, dtype=torch.bool)
    observed.view(-1)[:count] = True
    return automatic(tc.Regression(operator, observed, 0))


@pytest.fixture(autouse=True)
def mean_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stated, "mean_diagonal", 1.0)


def test_the_choice_asks_for_costs_and_for_nothing_else() -> None:
    for cost in (1, 1e9):
        # Next to nothing, whatever a product takes; and where nothing bounds the iterations, as much as the paper.
        assert chosen(Stated(cost=cost, iterations=10), 1000) == tc.Direct()
        assert chosen(Stated(cost=cost), 5000) == tc.Direct()
        assert chosen(Stated(180, cost=cost), 30_000) == tc.Direct()
        assert chosen(Stated(180, cost=cost), 30_001) == tc.ConjugateGradient()
    assert chosen(Stated(cost=1e3, iterations=10), 5000) == tc.ConjugateGradient()
    assert chosen(Stated(cost=1e3, iterations=100_000), 5000) == tc.Direct()
    assert chosen(Stated(cost=1e7, iterations=10), 5000) == tc.Direct()
    assert chosen(Stated(cost=1e3, iterations=10, traffic=1e5), 5000) == tc.Direct()
    assert chosen(Stated(cost=1e7, iterations=10, entry_cost=1e9), 5000) == tc.ConjugateGradient()


def test_stored_matrices_are_factorised_up_to_about_12000_pixels() -> None:
    limits = []
    for side in (100, 105, 110, 115, 120):
        operator = Stated(side, cost=2 * side**2, traffic=side**2, iterations=300)
        limits.append(chosen(operator, side**2) == tc.Direct())
    assert limits == [True, True, True, False, False]


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_periodic_kernels_are_iterated_beyond_a_thousand_pixels(levels: Any) -> None:
    operator = tc.load_kernel(f"uniform-{levels}x128-leaky0.1").operator((96, 96))
    assert chosen(operator, 1000) == tc.Direct()
    assert chosen(operator, 1100) == tc.ConjugateGradient()


def test_costs_are_those_of_the_formulas() -> None:
    operator = Stated(10, cost=7, traffic=2, iterations=3, entry_cost=5)
    assert factorisation_cost(operator, 6) == 2 * 6**3 / 3 + 5 * 6**2 / 2
    assert iteration_cost(operator) == 3 * (7 + 110 * 2) * 100
    assert iteration_cost(Stated(cost=1)) == math.inf


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 0.0, 0.1), (1.0, 0.3, 1.0)])
def test_cross_validation_finds_the_ridge_of_the_noise(
    noise: Any, least: Any, most: Any, generator: torch.Generator
) -> None:
    # Images drawn from the kernel itself: the best ridge is the variance of the noise over that of the image.
    kernel = deep(1).kernel(tc.priors.Normal(0, 1))
    size = (32, 32)
    operator = kernel.operator(size)
    root = torch.linalg.cholesky(kernel.dense(size).reshape(1024, 1024))
    images = (torch.randn(8, 1024, generator=generator, dtype=torch.float64) @ root.T).reshape(8, *size)
    scale = operator.mean_diagonal**0.5
    noisy = images + noise * scale * torch.randn(8, *size, generator=generator, dtype=torch.float64)
    observed = torch.rand(size, generator=generator) < 0.8
    ridge = cross_validated_ridge(operator, observed, noisy * observed, share=0.1)
    assert ridge in RIDGES
    # A few hundred pixels left out tell the order of magnitude; the error hardly depends on ridges far below it.
    assert least <= ridge <= most


def test_cross_validated_ridge_beats_interpolation_of_noise(generator: torch.Generator) -> None:
    image = torch.linspace(0, 1, 40).expand(1, 40, 40) + 0.2 * torch.randn(1, 40, 40, generator=generator)
    observed = torch.rand(40, 40, generator=generator) < 0.6
    truth = torch.linspace(0, 1, 40).expand(1, 40, 40)
    exact, chosen = (tc.inpaint(image, observed, ridge=ridge) for ridge in (1e-6, "cv"))
    assert chosen.ridge > 1e-3

    def error(result: tc.InpaintingResult) -> float:
        return float((result.image - truth)[:, ~observed].norm())

    assert error(chosen) < error(exact)


def test_cross_validation_needs_two_pixels(kernel: Any) -> None:
    observed = torch.zeros(8, 8, dtype=torch.bool)
    observed[0, 0] = True
    with pytest.raises(ValueError, match="at least two observed pixels to choose the ridge, got 1"):
        tc.inpaint(torch.ones(1, 8, 8), observed, ridge="cv")


@pytest.mark.parametrize("solver", ["fast", 3, tc.Direct])
def test_what_is_no_solver_is_refused(solver: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"expected .*solver"):
        tc.inpaint(torch.ones(1, 8, 8), torch.ones(8, 8, dtype=torch.bool), solver=solver)


def test_inpaint_says_what_it_chose(kernel: Any, generator: torch.Generator) -> None:
    image = torch.rand(2, 3, 20, 20, generator=generator, dtype=torch.float64)
    observed = torch.rand(2, 20, 20, generator=generator) < 0.7
    result = tc.inpaint(image, observed, kernel)
    assert result.solver == "direct (Cholesky, float64)"
    by_iteration = tc.inpaint(image, observed, kernel, solver=tc.ConjugateGradient(1e-8))
    assert by_iteration.solver == "conjugate gradients (circulant, float64)"
    # The tolerance times the condition number.
    assert float((result.image - by_iteration.image).abs().max()) < 1e-4
