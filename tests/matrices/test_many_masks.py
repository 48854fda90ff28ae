"""Rows of many masks that share one iteration: as the solutions row by row, within the tolerance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.matrices import regression, systems


def problem(generator: torch.Generator, rows: int = 20, columns: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """A table that is a function of its columns' features, with noise; each row has a mask of its own."""
    features = torch.randn(columns, 5, generator=generator, dtype=torch.float64)
    values = torch.tanh(features @ torch.randn(5, 8, generator=generator, dtype=torch.float64))
    values = (values @ torch.randn(8, rows, generator=generator, dtype=torch.float64)).T
    values = values + 0.3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return values, torch.rand(rows, columns, generator=generator) < 0.5, features


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every factorisation is taken to be long, and iterations to be short."""
    monkeypatch.setattr(systems, "_LONG", 0.0)
    monkeypatch.setattr(systems, "_ITERATIONS", 0.0)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-5), ("float32", 1e-4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_iteration_is_as_good_as_all_factorisations(
    precision: Any, tolerance: float, weighted: bool, generator: torch.Generator, request: pytest.FixtureRequest
) -> None:
    values, known, features = problem(generator)
    weight = torch.rand(60, generator=generator) + 0.5 if weighted else None
    ridge = 0.03
    one_by_one = tc.MatrixCompletion(ridge=ridge).fit(values, known, features, column_weight=weight)
    request.getfixturevalue("long")
    model = tc.MatrixCompletion(ridge=ridge, precision=precision).fit(values, known, features, column_weight=weight)
    assert "nystrom" in model.solver_
    assert model.residual_ <= tolerance
    # A residual r moves a prediction by at most |r| sqrt(k / ridge k); float32 rounds products with weights as well.
    bound = tolerance * values.where(known, 0).norm(dim=1).max() / ridge**0.5 * (2 if weighted else 1)
    assert float((model.predict() - one_by_one.predict()).abs().max()) <= 2 * float(bound)


def test_the_ridge_is_chosen_by_what_is_held_out(
    generator: torch.Generator, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, known, features = problem(generator)
    exact = tc.MatrixCompletion(ridge="cv").fit(values, known, features)
    request.getfixturevalue("long")
    monkeypatch.setattr(systems, "_TRIED_ROWS", 15)
    model = tc.MatrixCompletion(ridge="cv").fit(values, known, features)
    assert "nystrom" in model.solver_
    # Other entries are left out, and many at a time: a decade apart at most, as the minimum is flat.
    assert 0.03 < model.ridge_ / exact.ridge_ < 32
    monkeypatch.setattr(systems, "_FUTILE", 100)
    (system,) = model._systems(known, torch.where(known, values - model.offsets_[:, None], 0))
    assert system.together
    few = system._few_rows(torch.Generator().manual_seed(4))
    found = few._held_out_in_turn(regression.RIDGES, torch.Generator().manual_seed(5))
    direct = few._held_out_errors(regression.RIDGES, tc.Direct(), torch.Generator().manual_seed(5))
    # Trial solutions have residuals of 1e-3, which small ridges enlarge.
    torch.testing.assert_close(found[6:], direct[6:], rtol=0.03, atol=0)


def test_small_ridges_are_not_tried_after_the_error_has_risen(
    generator: torch.Generator, request: pytest.FixtureRequest
) -> None:
    values, known, features = problem(generator)
    request.getfixturevalue("long")
    noise = values + 3 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    model = tc.MatrixCompletion(ridge="cv").fit(noise, known, features)
    (system,) = model._systems(known, torch.where(known, noise - model.offsets_[:, None], 0))
    errors = system.errors(regression.RIDGES, "auto", torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(errors).any())
    tried = torch.isfinite(errors).nonzero()[:, 0]
    # The largest ridges are tried first, one after the other.
    assert tried.tolist() == list(range(len(errors) - len(tried), len(errors)))


def test_many_masks_choose_the_ridge_on_some_of_them(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, known, features = problem(generator, rows=40)
    monkeypatch.setattr(regression, "_LONG", 0.0)
    model = tc.MatrixCompletion(ridge="cv").fit(values, known, features)
    assert "direct" in model.solver_
    part = tc.MatrixCompletion(ridge=model.ridge_).fit(values, known, features)
    torch.testing.assert_close(model.predict(), part.predict(), rtol=0, atol=0)
    found = model._systems(known, torch.where(known, values - model.offsets_[:, None], 0))
    assert len(regression._some(found, torch.Generator().manual_seed(0))) == regression._LEAST
