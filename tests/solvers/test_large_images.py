"""What grows with the number of pixels must not grow the number of iterations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance import Table
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.operators.periodic import PeriodicOperator
from torch_cntk.solvers import Regression, conjugate_run
from torch_cntk.solvers.preconditioners import Circulant

SHIPPED = "uniform-fine-3x128-leaky0.3"


def with_stronger_far(kernel: Kernel, factor: float) -> Kernel:
    """As in an image of so many times the pixels: the common part's eigenvalue is f times their number."""
    far = kernel.storage.tables["far"]
    tables = {"near": kernel.near, "far": Table(far.values * factor, far.geometry)}
    return Kernel(kernel.storage.with_tables(tables))


@pytest.mark.parametrize(("kind", "name"), [("scattered", SHIPPED), ("hole", "uniform-fine-5x128-leaky0.3")])
def test_iterations_do_not_grow_with_the_image(
    kind: Any, name: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Weights are compared with the diagonal, most of which the stronger far part would be.
    monkeypatch.setattr(conjugate_run, "_LARGEST", dict.fromkeys((torch.float32, torch.float64), (0.0, 0.0)))
    size, megapixels = (128, 128), 6
    observed = torch.rand(size, generator=generator) < 0.5
    if kind == "hole":
        observed[:] = True
        observed[40:50, 30:43] = False
    grids = torch.meshgrid(*(torch.linspace(0, 9, n) for n in size), indexing="ij")
    image = grids[0].sin() * grids[1].cos() + 0.1 * torch.rand(size, generator=generator)
    targets = torch.where(observed, image - image[observed].mean(), 0)
    plain = tc.load_kernel(name)
    iterations = []
    for kernel in (plain, with_stronger_far(plain, megapixels * 1e6 / targets.numel())):
        operator = kernel.operator(size)
        # The same number is added to the diagonal of both.
        ridge = 1e-4 * plain.operator(size).mean_diagonal / operator.mean_diagonal
        solver = tc.ConjugateGradient(preconditioner="nested", max_iterations=60)
        solution = solver.solve(Regression(operator, observed, ridge), targets)
        assert float(solution.residual) <= 1e-4
        iterations.append(solution.iterations)
    # Some more, as the first step leaves a larger residual.
    assert iterations[1] <= iterations[0] + 8


def test_the_stationary_product_keeps_its_small_eigenvalues(generator: torch.Generator) -> None:
    size = (96, 88)
    operator = with_stronger_far(tc.load_kernel(SHIPPED), 1e4).operator(size)
    mask = (torch.rand((1, *size), generator=generator) < 0.6).float()
    regression = Regression(operator, mask.bool(), 1e-8)
    weights = torch.randn((1, *size), generator=generator) * mask
    weights -= mask * weights.sum() / mask.sum()  # what is large cancels
    found = Circulant(regression).multiplied(mask)(weights)
    assert operator.stationary is not None
    spectrum = torch.fft.rfftn(operator.stationary)
    exact = torch.fft.irfftn(torch.fft.rfftn(weights.double()) * (spectrum + regression.ridge), s=size) * mask
    # Rounding to 24 bits of the weights, whose sum f multiplies; a transform would round f times their number.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-3 * float(exact.abs().max()))


def test_rounding_makes_no_negative_far_part() -> None:
    kernel = tc.load_kernel(SHIPPED)
    operator = kernel.operator(tuple(4 * p for p in kernel.period))
    assert isinstance(operator, PeriodicOperator)
    stored, factor = operator._far, operator._factor
    # As stored it has eigenvalues below 0, which the number of cells would multiply.
    assert float(torch.linalg.eigvalsh(stored)[0]) < 0
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(factor @ factor.T, stored, rtol=0, atol=8 * eps * float(stored.max()))
    assert factor.shape[1] < len(stored) / 4
