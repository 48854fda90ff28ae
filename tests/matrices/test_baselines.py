"""Each baseline on a case whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from torch_cntk import baselines


def profiles(generator: torch.Generator, drugs: int = 7, cells: int = 5, genes: int = 11) -> Any:
    tensor = torch.randn(drugs, cells, genes, generator=generator, dtype=torch.float64)
    observed = torch.rand(drugs, cells, generator=generator) < 0.6
    observed[0] = True
    observed[:, 0] = True
    observed[-1, -1] = False
    return tensor, observed


def hidden(tensor: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """NaN where nothing is observed: nobody may read it."""
    return torch.where(observed[..., None], tensor, math.nan)


def test_means(generator: torch.Generator) -> None:
    tensor, observed = profiles(generator)
    holes = hidden(tensor, observed)
    missing = ~observed
    cells = holes.nanmean(0)[None].expand(tensor.shape)
    drugs = holes.nanmean(1)[:, None].expand(tensor.shape)
    assert torch.allclose(baselines.cell_mean(holes, observed)[missing], cells[missing])
    assert torch.allclose(baselines.drug_mean(holes, observed)[missing], drugs[missing])
    assert torch.equal(baselines.cell_mean(holes, observed)[observed], tensor[observed])


def test_means_of_what_was_never_observed(generator: torch.Generator) -> None:
    tensor, observed = profiles(generator)
    observed[:, 2] = False
    observed[3] = False
    holes = hidden(tensor, observed)
    means = torch.stack([holes.nanmean(0)[cell] for cell in (0, 1, 3, 4)]).mean(0)
    assert torch.allclose(baselines.cell_mean(holes, observed)[0, 2], means)
    means = torch.stack([holes.nanmean(1)[drug] for drug in (0, 1, 2, 4, 5, 6)]).mean(0)
    assert torch.allclose(baselines.drug_mean(holes, observed)[3, 0], means)


def test_additive_model_recovers_a_sum_of_effects(generator: torch.Generator) -> None:
    _, observed = profiles(generator)
    drugs = torch.randn(7, 1, 11, generator=generator, dtype=torch.float64)
    cells = torch.randn(1, 5, 11, generator=generator, dtype=torch.float64)
    whole = drugs + cells
    # Observed along the first row and column: every effect is determined.
    assert torch.allclose(baselines.additive(hidden(whole, observed), observed), whole)


def test_dnpp_takes_the_drug_that_is_the_same(generator: torch.Generator) -> None:
    tensor, observed = profiles(generator, drugs=6, genes=200)
    # Drugs 1 and 4 do the same everywhere, up to scale and shift, which correlations do not see.
    tensor[4] = 2 * tensor[1] + 1
    observed[1], observed[4] = True, True
    observed[1, 3] = False
    filled = baselines.dnpp(hidden(tensor, observed), observed, neighbours=1)
    assert torch.allclose(filled[1, 3], tensor[4, 3])


def test_dnpp_equals_its_definition(generator: torch.Generator) -> None:
    tensor, observed = profiles(generator, drugs=9, genes=6)
    neighbours = 3
    filled = baselines.dnpp(hidden(tensor, observed), observed, neighbours)
    for drug, cell in (~observed).nonzero().tolist():
        similar = []
        for other in range(9):
            shared = [c for c in range(5) if observed[drug, c] and observed[other, c]]
            if observed[other, cell] and shared:
                values = [np.corrcoef(tensor[drug, c], tensor[other, c])[0, 1] for c in shared]
                similar.append((np.mean(values), other))
        best = sorted(similar, reverse=True)[:neighbours]
        weights = np.array([max(value, 0) for value, _ in best])
        if weights.sum() == 0:
            expected = tensor[observed[:, cell], cell].mean(0)
        else:
            expected = sum(w * tensor[other, cell] for w, (_, other) in zip(weights, best, strict=True)) / weights.sum()
        assert torch.allclose(filled[drug, cell], expected)


def test_falrtc_recovers_a_tensor_of_low_rank(generator: torch.Generator) -> None:
    factors = [torch.rand(n, 1, generator=generator, dtype=torch.float64) + 0.5 for n in (12, 10, 30)]
    whole = torch.einsum("ar,br,cr->abc", *factors)
    observed = torch.rand(12, 10, generator=generator) < 0.8
    observed[0], observed[:, 0] = True, True
    observed[1, 1] = False
    filled = baselines.falrtc(hidden(whole, observed), observed, (1, 1, 1), 1e-4, max_iterations=300, tolerance=0)
    missing = ~observed
    error = (filled - whole)[missing].norm() / whole[missing].norm()
    assert error < 0.05


def test_gradient_of_the_smoothed_nuclear_norms(generator: torch.Generator) -> None:
    from torch_cntk.matrices.baselines.falrtc import _objective

    x = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    arguments = ([0.5, 0.2, 0.3], [0.3, 0.5, 0.6], [0, 1, 2])
    total: Any = 0.0
    for a, m, axis in zip(*arguments, strict=True):
        s = torch.linalg.svdvals(x.movedim(axis, 0).flatten(1))
        t = m / a
        total = total + a * torch.where(s < t, s**2 / (2 * t), s - t / 2).sum()
    (expected,) = torch.autograd.grad(total, x)
    value, gradient = _objective(x.detach(), *arguments)
    assert value == pytest.approx(float(total.detach()), rel=1e-10)
    assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-10)


def low_rank(generator: torch.Generator) -> Any:
    factors = [torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (40, 30)]
    observed = torch.rand(40, 30, generator=generator) < 0.7
    return factors[0] @ factors[1].T, observed


def test_soft_impute_is_the_minimum(generator: torch.Generator) -> None:
    whole, observed = low_rank(generator)
    shrinkage = 2.0
    fit = baselines.soft_impute(
        torch.where(observed, whole, math.nan), observed, shrinkage, max_iterations=3000, tolerance=1e-10
    )
    # Optimality: the residual over the shrinkage is a subgradient of the nuclear norm.
    u, s, v = torch.linalg.svd(fit)
    rank = int((s > 1e-8).sum())
    residual = torch.where(observed, whole - fit, 0) / shrinkage
    assert torch.linalg.matrix_norm(residual, 2) < 1 + 1e-4
    inside = u[:, :rank].T @ residual @ v[:rank].T
    assert torch.allclose(inside, torch.eye(rank, dtype=torch.float64), atol=1e-3)
    # And of full observation it is the shrunken SVD.
    everything = torch.ones_like(observed)
    values = torch.linalg.svdvals(baselines.soft_impute(whole, everything, shrinkage))
    assert torch.allclose(values, (torch.linalg.svdvals(whole) - shrinkage).clamp_min(0), atol=1e-9)


@pytest.mark.parametrize(
    "method",
    [
        lambda m, o: baselines.soft_impute(m, o, 0.02, max_iterations=3000, tolerance=1e-7),
        lambda m, o: baselines.matrix_factorisation(m, o, 2, 3e-3, iterations=200),
    ],
    ids=["soft_impute", "matrix_factorisation"],
)
def test_low_rank_matrices_are_recovered(method: Any, generator: torch.Generator) -> None:
    whole, observed = low_rank(generator)
    fit = method(torch.where(observed, whole, math.nan), observed)
    missing = ~observed
    assert (fit - whole)[missing].norm() < 0.05 * whole[missing].norm()


def test_empty_rows_are_zeros(generator: torch.Generator) -> None:
    whole, observed = low_rank(generator)
    observed[3] = False
    for fit in (baselines.soft_impute(whole, observed, 1.0), baselines.matrix_factorisation(whole, observed, 2, 0.1)):
        assert fit[3].abs().max() < 1e-10


TENSOR, MASK = torch.ones(3, 2, 4), torch.ones(3, 2, dtype=torch.bool)
MATRIX = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: baselines.cell_mean(TENSOR, MASK.float()), TypeError, "expected observed to be boolean"),
        (
            lambda: baselines.cell_mean(TENSOR, MASK.T),
            ValueError,
            r"expected values \[drugs, cells, genes\] and observed \[drugs, cells\]",
        ),
        (lambda: baselines.drug_mean(TENSOR, ~MASK), ValueError, "at least one observed profile"),
        (lambda: baselines.additive(TENSOR * math.nan, MASK), ValueError, "finite numbers in each observed profile"),
        (lambda: baselines.dnpp(TENSOR, MASK, 0), ValueError, "expected neighbours to be at least 1"),
        (lambda: baselines.falrtc(TENSOR, MASK, (1, 1)), ValueError, "expected three weights"),
        (lambda: baselines.falrtc(TENSOR, MASK, smoothing=0), ValueError, "expected smoothing > 0"),
        (lambda: baselines.soft_impute(MATRIX, MASK, -1), ValueError, "expected shrinkage to be at least 0"),
        (lambda: baselines.soft_impute(MATRIX, ~MASK, 1), ValueError, "at least one observed entry"),
        (
            lambda: baselines.soft_impute(MATRIX, MASK.T, 1),
            ValueError,
            r"expected values \[rows, columns\] and observed \[rows, columns\]",
        ),
        (
            lambda: baselines.soft_impute(MATRIX * math.inf, MASK, 1),
            ValueError,
            "finite numbers in each observed entry",
        ),
        (lambda: baselines.matrix_factorisation(MATRIX, MASK.int(), 1, 1), TypeError, "to be boolean"),
        (lambda: baselines.matrix_factorisation(MATRIX, MASK, 1, 0), ValueError, "expected ridge > 0"),
    ],
)
def test_bad_input_is_refused(attempt: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        attempt()
