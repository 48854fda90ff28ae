"""The preconditioner of large kernel matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

import torch_cntk as tc
from torch_cntk._internal.memory import OutOfMemoryError
from torch_cntk.operators import DenseOperator
from torch_cntk.solvers import landmarks
from torch_cntk.solvers.landmarks import LandmarkNystrom, suggested
from torch_cntk.solvers.preconditioners import choose

CHOICES: tuple[Literal["pivoted", "random"], ...] = ("pivoted", "random")


def kernel(generator: torch.Generator, n: int = 150) -> torch.Tensor:
    """A smooth kernel, whose eigenvalues fall fast, plus some white noise."""
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return torch.exp(-torch.cdist(x, x).square()) + 1e-3 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("shared", [True, False])
def test_it_is_the_inverse_of_a_low_rank_part_and_the_rest(
    choice: Literal["pivoted", "random"], shared: bool, generator: torch.Generator
) -> None:
    matrix = kernel(generator)
    seen = torch.rand(1 if shared else 3, 150, generator=generator) < 0.6
    regression = tc.Regression(DenseOperator(matrix), seen, 1e-3)
    preconditioner = LandmarkNystrom(regression, tc.Landmarks(40, choice))
    residual = torch.randn(3, 150, generator=generator, dtype=torch.float64) * regression.mask
    found = preconditioner.restricted(regression.mask)(residual)
    factor, rest = preconditioner._factor, preconditioner._rest
    left = (matrix - factor @ factor.T).diagonal()[seen.any(0)]
    assert rest == pytest.approx(regression.ridge + float(left.mean()), rel=1e-8)
    for one, mask, right in zip(found, seen.expand(3, -1), residual, strict=True):
        part = factor[mask]
        dense = part @ part.T + rest * torch.eye(len(part), dtype=torch.float64)
        # Condition numbers of about 1e5, in numbers of 1e-16.
        torch.testing.assert_close(one[mask], torch.linalg.solve(dense, right[mask]), rtol=1e-7, atol=1e-9)
        assert not bool(one[~mask].any())


@pytest.mark.parametrize("choice", CHOICES)
def test_it_is_a_partial_cholesky_decomposition(
    choice: Literal["pivoted", "random"], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "_BLOCK", 16)
    matrix = kernel(generator)
    regression = tc.Regression(DenseOperator(matrix), torch.ones(150, dtype=torch.bool), 0)
    factor = LandmarkNystrom(regression, tc.Landmarks(50, choice))._factor
    rest = matrix - factor @ factor.T
    # A Schur complement: nothing is left of the pivots, and what is left of the others is positive semi-definite.
    gone = rest.diagonal() < 1e-10
    assert int(gone.sum()) == factor.shape[1] == 50
    assert float(rest[gone].abs().max()) < 1e-10
    assert float(torch.linalg.eigvalsh(rest)[0]) > -1e-10
    # Of 50 columns, the trace that is left is within a factor of that of the best approximation of 25.
    best = torch.linalg.eigvalsh(matrix).flip(0)[25:].sum()
    assert float(rest.diagonal().sum()) < 3 * float(best)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("choice", CHOICES)
def test_iterations_are_fewer(
    choice: Literal["pivoted", "random"], dtype: torch.dtype, generator: torch.Generator
) -> None:
    matrix = kernel(generator).to(dtype)
    seen = torch.rand(150, generator=generator) < 0.7
    targets = torch.randn(2, 150, generator=generator, dtype=torch.float64) * seen
    regression = tc.Regression(DenseOperator(matrix), seen, 1e-2)
    # Rounding of the products stops at 1e-4 in float32.
    solver = tc.ConjugateGradient(tolerance=1e-4 if dtype == torch.float64 else 3e-3, preconditioner="jacobi")
    plain = solver.solve(regression, targets)
    helped = replace(solver, preconditioner=tc.Landmarks(40, choice)).solve(regression, targets)
    assert helped.status is tc.Status.CONVERGED
    assert 2 * helped.iterations < plain.iterations
    assert f"40 {choice} landmarks" in helped.solver
    torch.testing.assert_close(helped.weights, plain.weights, rtol=0, atol=0.05 * float(plain.weights.abs().max()))


@pytest.mark.parametrize("choice", CHOICES)
def test_degenerate_kernels(choice: Literal["pivoted", "random"], generator: torch.Generator) -> None:
    vector = torch.randn(30, 1, generator=generator, dtype=torch.float64)
    seen = torch.rand(30, generator=generator) < 0.5
    twins = torch.cat((kernel(generator, 15), kernel(generator, 15)))
    for matrix in (vector @ vector.T, torch.zeros(30, 30).double(), torch.eye(30).double(), twins @ twins.T):
        for ridge in (0.0, 1e-3):
            regression = tc.Regression(DenseOperator(matrix), seen, ridge)
            residual = torch.randn(4, 30, generator=generator, dtype=torch.float64) * regression.mask
            found = LandmarkNystrom(regression, tc.Landmarks(20, choice)).restricted(regression.mask[None])(residual)
            assert bool(torch.isfinite(found).all())
            # Positive definite on the mask.
            assert bool(((found * residual).sum(1) > 0).all())


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="the count of landmarks"):
        tc.Landmarks(0)
    with pytest.raises(ValueError, match='expected landmarks to be "pivoted" or "random", got \'best\''):
        tc.Landmarks(10, "best")  # type: ignore[arg-type]


def test_memory_is_counted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tc.Sequential(tc.Linear(4, 8), tc.ReLU(), tc.Linear(8, 1))
    operator = net.gram_operator(torch.randn(200_000, 4, dtype=torch.float64))
    regression = tc.Regression(operator, torch.ones(200_000, dtype=torch.bool), 1e-3)
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device: 10**9)
    with pytest.raises(
        OutOfMemoryError, match="a preconditioner of 20,000 pivoted landmarks for 200,000 inputs needs 4"
    ):
        LandmarkNystrom(regression, tc.Landmarks(20_000))


def test_large_systems_get_landmarks_by_themselves(generator: torch.Generator) -> None:
    def asked(n: int, masks: int = 1) -> object:
        net = tc.Sequential(tc.Linear(6, 8), tc.ReLU(), tc.Linear(8, 1))
        operator = net.gram_operator(torch.randn(n, 6, generator=generator, dtype=torch.float64))
        seen = torch.rand(masks, n, generator=generator) < 0.9
        return choose(tc.Regression(operator, seen, 1e-3))

    assert asked(500) == asked(5000, masks=2) == "jacobi"
    few, many = asked(2000), asked(8000)
    assert isinstance(few, tc.Landmarks) and isinstance(many, tc.Landmarks)
    assert 100 <= few.count < many.count <= 2000
    # A product with a stored matrix costs little: setting up would not pay.
    stored = DenseOperator(torch.eye(2000, dtype=torch.float64))
    assert suggested(tc.Regression(stored, torch.ones(2000, dtype=torch.bool), 1e-3)) is None
