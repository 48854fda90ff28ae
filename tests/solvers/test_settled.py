"""Conjugate gradients that stop when the picture no longer changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.operators.base import DenseOperator
from torch_cntk.solvers import Regression, Settled, Status


def equations(
    generator: torch.Generator, channels: int = 2, ridge: float = 1e-2
) -> tuple[Regression, Tensor, Tensor, Tensor]:
    """A kernel of 60 places on a line, of which about half are observed, right-hand sides, and what fills them."""
    place = torch.arange(60, dtype=torch.float64)
    kernel = torch.exp(-(place[:, None] - place).abs() / 4)
    observed = torch.rand(60, generator=generator) < 0.5
    observed[0] = True
    targets = torch.randn(channels, 60, generator=generator, dtype=torch.float64) * observed
    inner = kernel[observed][:, observed] + ridge * torch.eye(int(observed.sum()))
    filled = torch.linalg.solve(inner, targets[:, observed].T).T @ kernel[observed]
    return Regression(DenseOperator(kernel), observed, ridge), targets, filled, observed


def test_a_small_change_solves_the_equations(generator: torch.Generator) -> None:
    regression, targets, filled, _ = equations(generator)
    solution = Settled(1e-9).solve(regression, targets)
    assert solution.status is Status.SETTLED
    assert solution.image is not None
    torch.testing.assert_close(solution.image, filled, atol=1e-6, rtol=0)
    torch.testing.assert_close(regression.operator @ solution.weights, filled, atol=1e-6, rtol=0)
    left = regression.multiply(solution.weights) - targets
    torch.testing.assert_close(solution.residual, left.norm(dim=1) / targets.norm(dim=1), atol=1e-10, rtol=1e-3)


def test_it_stops_where_the_picture_is_nearly_that_of_the_equations(generator: torch.Generator) -> None:
    regression, targets, filled, observed = equations(generator)
    solution = Settled().solve(regression, targets)
    assert solution.image is not None
    assert solution.iterations < Settled(1e-9).solve(regression, targets).iterations
    off = (solution.image - filled)[:, ~observed].square().mean().sqrt() / targets[:, observed].square().mean().sqrt()
    # Conjugate gradients on such kernels change by less from step to step: what is to come is a few times the last.
    assert float(off) < 10 * Settled().change


def test_a_good_guess_saves_steps_and_a_bad_one_does_no_harm(generator: torch.Generator) -> None:
    regression, targets, filled, _ = equations(generator)
    solver = Settled(1e-6)
    plain = solver.solve(regression, targets)
    factorised = solver.factorise(regression)
    good = factorised.solve(targets, guess=plain.weights)
    assert good.iterations < plain.iterations
    bad = factorised.solve(targets, guess=1e6 * torch.randn(2, 60, generator=generator, dtype=torch.float64))
    for solution in (good, bad):
        assert solution.image is not None
        torch.testing.assert_close(solution.image, filled, atol=1e-3, rtol=0)


def test_only_pixels_of_the_image_are_looked_at(generator: torch.Generator) -> None:
    regression, targets, _, observed = equations(generator, channels=1)
    inside = torch.zeros(60, dtype=torch.bool)
    inside[torch.nonzero(~observed)[0]] = True
    one = Regression(regression.operator, observed, regression.relative_ridge, inside=inside)
    assert Settled(1e-3).solve(one, targets).status is Status.SETTLED
    nothing = Regression(regression.operator, observed, 1e-2, inside=observed)
    assert Settled().solve(nothing, targets).iterations == 3  # no pixel is to be filled, so none changes


def test_zeros_any_scale_and_too_few_iterations(generator: torch.Generator) -> None:
    regression, targets, _, _ = equations(generator)
    assert torch.equal(Settled().solve(regression, 0 * targets).weights, torch.zeros_like(targets))
    usual = Settled().solve(regression, targets)
    for scale in (2.0**-300, 2.0**300):
        scaled = Settled().solve(regression, targets * scale)
        assert torch.equal(scaled.weights, usual.weights * scale)
    assert Settled(1e-9, max_iterations=2).solve(regression, targets).status is Status.ITERATIONS


def test_what_is_no_kernel_is_told(generator: torch.Generator) -> None:
    basis = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64, generator=generator)).Q
    matrix = (basis * torch.tensor([1.0] * 10 + [-1.0] * 10, dtype=torch.float64)) @ basis.T
    matrix += 1e-3 * torch.eye(20)
    regression = tc.Regression(DenseOperator(matrix), torch.ones(20, dtype=torch.bool), 0.0)
    solution = Settled().solve(regression, torch.randn(20, generator=generator, dtype=torch.float64))
    assert solution.status is Status.STAGNATED


@pytest.mark.parametrize(
    ("options", "error"),
    [({"change": 0}, ValueError), ({"change": "small"}, TypeError), ({"max_iterations": 0}, ValueError)],
)
def test_options_are_checked(options: dict[str, float], error: type[Exception]) -> None:
    with pytest.raises(error, match="expected"):
        Settled(**options)  # type: ignore[arg-type]
