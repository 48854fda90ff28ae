"""Which solver and which ridge are taken when the user names none."""

from __future__ import annotations

import pytest
import torch

import torch_cntk as tc
from tests.helpers.regressions import deep
from torch_cntk.operators.base import DenseOperator
from torch_cntk.solvers import Regression, automatic
from torch_cntk.solvers.cross_validation import RIDGES, cross_validated_ridge


@pytest.fixture(scope="module")
def kernel() -> tc.Kernel:
    return deep(2).kernel(tc.priors.Uniform())


def test_automatic_choice(kernel, generator, monkeypatch):
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


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 0.0, 0.1), (1.0, 0.3, 1.0)])
def test_cross_validation_finds_the_ridge_of_the_noise(noise, least, most, generator):
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


def test_cross_validated_ridge_beats_interpolation_of_noise(generator):
    image = torch.linspace(0, 1, 40).expand(1, 40, 40) + 0.2 * torch.randn(1, 40, 40, generator=generator)
    observed = torch.rand(40, 40, generator=generator) < 0.6
    truth = torch.linspace(0, 1, 40).expand(1, 40, 40)
    exact, chosen = (tc.inpaint(image, observed, ridge=ridge) for ridge in (1e-6, "cv"))
    assert chosen.ridge > 1e-3

    def error(result: tc.InpaintingResult) -> float:
        return float((result.image - truth)[:, ~observed].norm())

    assert error(chosen) < error(exact)


def test_cross_validation_needs_two_pixels(kernel):
    observed = torch.zeros(8, 8, dtype=torch.bool)
    observed[0, 0] = True
    with pytest.raises(ValueError, match="at least two observed pixels to choose the ridge, got 1"):
        tc.inpaint(torch.ones(1, 8, 8), observed, ridge="cv")


@pytest.mark.parametrize("solver", ["direct", 3, tc.Direct])
def test_what_is_no_solver_is_refused(solver):
    with pytest.raises((TypeError, ValueError), match=r"expected .*solver"):
        tc.inpaint(torch.ones(1, 8, 8), torch.ones(8, 8, dtype=torch.bool), solver=solver)


def test_inpaint_says_what_it_chose(kernel, generator):
    image = torch.rand(2, 3, 20, 20, generator=generator, dtype=torch.float64)
    observed = torch.rand(2, 20, 20, generator=generator) < 0.7
    result = tc.inpaint(image, observed, kernel)
    assert result.solver == "direct (Cholesky, float64)"
    by_iteration = tc.inpaint(image, observed, kernel, solver=tc.ConjugateGradient(1e-8))
    assert by_iteration.solver == "conjugate gradients (circulant, float64)"
    # The tolerance times the condition number.
    assert float((result.image - by_iteration.image).abs().max()) < 1e-4
