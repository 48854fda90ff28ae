"""Passes for matrices: against dense regressions by other code, and beside means and soft-impute on made-up ratings."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import torch_cntk as tc
from tests.helpers.ratings import made_up_ratings
from tests.helpers.theorem_1 import theorem_1
from torch_cntk.matrices import fillers
from torch_cntk.matrices.choice import choose, left_out_like_missing
from torch_cntk.matrices.fillers import Columns, Entries, Filler, LowRank, Means, each_pass
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.sides import side
from torch_cntk.matrices.tables import Features


def table(generator: torch.Generator, rows: int = 9, columns: int = 7, rank: int = 2) -> tuple[torch.Tensor, Any]:
    """A table of low rank with noise, and which entries are known; each row and column has one."""
    factors = [torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in (rows, columns)]
    values = factors[0] @ factors[1].T + 0.1 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    known = torch.rand(rows, columns, generator=generator) < 0.7
    every = torch.arange(max(rows, columns))
    known[every % rows, every % columns] = True
    return values, known


def normalised_ntk(vectors: np.ndarray, depth: int) -> np.ndarray:
    """The NTK of a ReLU network between lines divided by their norms, with a diagonal of 1."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kernel = theorem_1(units @ units.T, depth)
    np.fill_diagonal(kernel, depth + 1)
    return kernel / (depth + 1)


def dense_pass(values: np.ndarray, known: np.ndarray, described: np.ndarray, depth: int, noise: float) -> np.ndarray:
    """Gaussian process regression on entries, by the matrix of all of them."""
    kernel = np.kron(normalised_ntk(described, depth), normalised_ntk(described.T, depth))
    seen = known.ravel()
    weights = np.linalg.solve(kernel[seen][:, seen] + noise * np.eye(seen.sum()), values.ravel()[seen])
    return (kernel[:, seen] @ weights).reshape(values.shape)


@pytest.mark.parametrize("solver", [None, tc.Direct(), tc.ConjugateGradient(tolerance=1e-11, max_iterations=2000)])
def test_two_passes_are_dense_regressions(solver: Any, generator: torch.Generator) -> None:
    given = Known.of(*table(generator))
    values, known = given.values.numpy(), given.observed.numpy()
    first = dense_pass(values, known, values, 1, 0.3)
    described = np.where(known, 0.3 * values + 0.7 * first, first)
    second = dense_pass(values, known, described, 3, 0.1)
    passes = [Entries(1, 0.3, means=False, solver=solver), Entries(3, 0.1, means=False, solver=solver)]
    found = [filled.values.numpy() for filled in each_pass(given, passes)]
    # Angles near 0 keep half of the digits in both codes, and what comes of them is divided by the noise.
    np.testing.assert_allclose(found[0], first, atol=1e-8)
    np.testing.assert_allclose(found[1], second, atol=1e-8)


def test_products_in_single_precision(generator: torch.Generator) -> None:
    given = Known.of(*table(generator, 25, 14))
    single, double = (Entries(3, 0.3, precision=p).filled(given, None) for p in ("float32", "float64"))
    # Their residuals are at most 1e-4 and 1e-5 of the entries, whose norm is about 20.
    torch.testing.assert_close(single.values, double.values, atol=3e-3, rtol=0)
    assert 0 < single.residual <= 1e-4
    model = tc.MatrixCompletion(passes=1, precision="float32").fit(given.table, given.observed)
    assert model.plan_ is not None
    ((_, (filler,)),) = model.plan_.parts
    assert isinstance(filler, Entries)
    assert filler.precision == "float32"


def test_means_are_taken_off_before_a_pass(generator: torch.Generator) -> None:
    given = Known.of(*table(generator))
    means = Means().filled(given, None).values.numpy()
    known = given.observed.numpy()
    left = np.where(known, given.values.numpy() - means, 0)
    found = Entries(1, 0.3).filled(given, None).values.numpy()
    np.testing.assert_allclose(found, means + dense_pass(left, known, left, 1, 0.3), atol=1e-8)


def test_shrunken_means_are_a_ridge_regression(generator: torch.Generator) -> None:
    given = Known.of(*table(generator, 12, 8))
    rows, columns = given.values.shape
    places = given.observed.nonzero().numpy()
    design = np.zeros((len(places), rows + columns))
    design[np.arange(len(places)), places[:, 0]] = 1
    design[np.arange(len(places)), rows + places[:, 1]] = 1
    targets = given.values.numpy()[given.observed.numpy()]
    effects = np.linalg.solve(design.T @ design + 5 * np.eye(rows + columns), design.T @ targets)
    # Ten rounds in turn leave some 1e-4 of the effects.
    expected = effects[:rows, None] + effects[None, rows:]
    np.testing.assert_allclose(Means().filled(given, None).values, expected, atol=1e-3)


@pytest.mark.parametrize("depth", [0, 2])
def test_columns_are_regressions_on_the_other_columns_in_turn(depth: int, generator: torch.Generator) -> None:
    given = Known.of(*table(generator, 14, 4))
    values, known = given.values.numpy(), given.observed.numpy()
    estimate = torch.randn(14, 4, generator=generator, dtype=torch.float64)
    described = np.where(known, values, estimate.numpy())
    found = Columns(depth).filled(given, estimate).values.numpy()
    for column in np.argsort(-known.sum(0), kind="stable"):
        inputs = np.hstack([np.delete(described, column, 1) / 2, np.ones((14, 1))])
        lengths = np.linalg.norm(inputs, axis=1)
        cosines = np.clip(inputs @ inputs.T / np.outer(lengths, lengths), -1, 1)
        kernel = theorem_1(cosines, depth) * np.outer(lengths, lengths)
        seen = known[:, column]
        kernel /= kernel[seen][:, seen].diagonal().mean()
        targets, errors, fits = values[seen, column], [], []
        mean = targets.mean()
        for ridge in 10.0 ** (np.arange(-10, 5) / 2):
            matrix = kernel[seen][:, seen] + ridge * np.eye(seen.sum())
            parts = [np.delete(np.arange(seen.sum()), place) for place in range(seen.sum())]
            alone = [
                kernel[seen][:, seen][place, part] @ np.linalg.solve(matrix[part][:, part], (targets - mean)[part])
                for place, part in enumerate(parts)
            ]
            errors.append(np.sum((np.array(alone) + mean - targets) ** 2))
            fits.append(kernel[:, seen] @ np.linalg.solve(matrix, targets - mean) + mean)
        expected = np.where(known[:, column], values[:, column], fits[int(np.argmin(errors))])
        np.testing.assert_allclose(found[:, column], expected, atol=1e-5)
        described[:, column] = found[:, column]


def test_entries_with_features_have_them_beside_their_vectors(generator: torch.Generator) -> None:
    values, known = table(generator)
    sides = [torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in values.shape]
    model = tc.MatrixCompletion(passes=1).fit(values, known, features=sides[1], row_features=sides[0])
    assert model.plan_ is not None
    ((_, (filler,)),) = model.plan_.parts
    assert isinstance(filler, Entries)
    given = Known.of(values, known)
    means = Means().filled(given, None).values.numpy() if filler.means else np.zeros(values.shape)
    left = np.where(known.numpy(), given.values.numpy() - means, 0)
    kernels = []
    for vectors, own in ((left, sides[0]), (left.T, sides[1])):
        units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (vectors, own.numpy())]
        kernels.append(normalised_ntk(np.hstack([units[0], filler.side * units[1]]), filler.hidden_layers))
    kernel, seen = np.kron(*kernels), known.numpy().ravel()
    weights = np.linalg.solve(kernel[seen][:, seen] + filler.noise * np.eye(seen.sum()), left.ravel()[seen])
    filled = given.back(torch.from_numpy(means + (kernel[:, seen] @ weights).reshape(values.shape)))
    expected = torch.where(known, values, filled)
    torch.testing.assert_close(model.predict(), expected, atol=1e-8, rtol=0)


def test_passes_gain_on_means_and_low_rank() -> None:
    # A fixed seed: what is shown is a gain on data of a kind, and a draw could always be unlucky.
    truth, known, _ = made_up_ratings(torch.Generator().manual_seed(3), 70, 80, 0.2)
    given = Known.of(truth, known)

    def error(*chain: Filler) -> float:
        *_, last = each_pass(given, chain)
        return float((given.back(last.values) - truth)[~known].square().mean().sqrt())

    means = error(Means())
    low_rank = min(error(*[LowRank(share) for share in (0.7, 0.5, 0.35, 0.25, 0.18, 0.12)[:n]]) for n in range(1, 7))
    first, third = error(Entries(1, 0.3)), error(Entries(1, 0.3), Entries(3, 0.3), Entries(3, 0.3))
    assert third < 0.95 * first
    assert third < 0.95 * low_rank
    assert third < 0.8 * means


def test_features_of_items_help_passes() -> None:
    truth, known, places = made_up_ratings(torch.Generator().manual_seed(3), 50, 60, 0.15)
    features = Features(torch.cat([places, torch.ones(60, 1, dtype=torch.float64)], 1), None, None)
    columns = side(features, "column", identity=0.0, normalize=True, device=truth.device)
    errors = []
    for given in (Known.of(truth, known), Known.of(truth, known, None, columns)):
        *_, last = each_pass(given, [Entries(1, 0.3, side=2.0), Entries(3, 0.3, side=2.0)])
        errors.append(float((given.back(last.values) - truth)[~known].square().mean().sqrt()))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("apart", [False, True])
def test_entries_are_left_out_as_they_are_missing(apart: bool, generator: torch.Generator) -> None:
    known = torch.rand(200, 12, generator=generator) < 0.7
    if not apart:
        known[:] = True
        known[:100, :4] = known[100:150, 4:] = False
    hidden = left_out_like_missing(known, generator)
    assert not bool((hidden & ~known).any())
    assert bool(((known & ~hidden).sum(0) >= 2).all())
    assert bool((known & ~hidden).any(1).all())
    assert 0.01 < float(hidden.sum() / known.sum()) < 0.3
    if not apart:
        # Whole blocks of a row, or nothing.
        counts = hidden[:, :4].sum(1)
        assert bool(((counts == 0) | (counts == 4)).all())


def test_a_mixture_is_no_worse_than_its_parts(generator: torch.Generator) -> None:
    values, known = table(generator, 24, 4)
    choice = choose(Known.of(values, known), "auto", seed=1)
    weights = [weight for weight, _ in choice.plan.parts]
    assert sum(weights) == pytest.approx(1)
    assert min(weights) > 0
    parts = {name: error for name, error in choice.errors.items() if name != "mixture"}
    # Weights of less than 0.02 were dropped after the fit.
    assert choice.errors["mixture"] <= 1.01 * min(parts.values())
    left = ~torch.isnan(choice.left_out)
    assert bool(left.any())
    assert not bool((left & ~known).any())


def test_units_of_columns_do_not_matter(generator: torch.Generator) -> None:
    values, known = table(generator, 24, 4)
    factor = torch.tensor([1.0, 1e3, 1e-4, 1e6], dtype=torch.float64)
    fitted = tc.MatrixCompletion(passes=2).fit_predict(values * factor, known)
    other = tc.MatrixCompletion(passes=2).fit_predict(values * factor.flip(0) + 1e3 * factor.flip(0), known)
    torch.testing.assert_close(fitted / factor, other / factor.flip(0) - 1e3, atol=1e-7, rtol=0)


def test_without_features_rows_and_columns_describe_each_other(generator: torch.Generator) -> None:
    values, known = table(generator, 24, 4)
    frame = pd.DataFrame(values.numpy()).where(known.numpy())
    model = tc.MatrixCompletion()
    filled = model.fit_predict(frame)
    assert isinstance(filled, pd.DataFrame)
    assert filled.notna().all(axis=None)
    assert filled.where(known.numpy()).equals(frame)
    errors = ((filled - values.numpy()) ** 2).where(~known.numpy()).stack()
    spread = ((values.numpy() - frame.mean().to_numpy()) ** 2)[~known.numpy()]
    assert errors.mean() < 0.5 * spread.mean()
    left_out = model.left_out()
    assert left_out.notna().any(axis=None)
    assert not (left_out.notna() & frame.isna()).any(axis=None)
    pd.testing.assert_frame_equal(model.transform(frame), filled)
    assert 0 < model.score(frame) <= 1
    assert model.transform(frame.iloc[:3]).notna().all(axis=None)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(model)).predict(), filled)
    with pytest.raises(ValueError, match="expected no features after passes"):
        model.predict(features=torch.ones(2, 3))


@pytest.mark.filterwarnings("ignore:.*no observed entry")
@pytest.mark.parametrize("passes", ["auto", 1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 4)])
def test_small_tables(passes: Any, shape: tuple[int, int], generator: torch.Generator) -> None:
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    for known in (torch.ones(shape, dtype=torch.bool), torch.rand(shape, generator=generator) < 0.6):
        known[0, 0] = True
        model = tc.MatrixCompletion(passes=passes)
        filled = model.fit_predict(values, known)
        assert bool(torch.isfinite(filled).all())
        assert torch.equal(filled[known], values[known])
        if passes != "auto":
            assert model.passes_ == passes


@pytest.mark.filterwarnings("ignore:.*no observed entry")
def test_constant_and_empty_lines(generator: torch.Generator) -> None:
    values, known = table(generator, 20, 5)
    values[:, 1] = 3.0
    known[:, 4] = known[7] = False
    with pytest.warns(UserWarning, match=r"1 of 20 rows have no observed entry and no features .*row 7"):
        filled = tc.MatrixCompletion().fit_predict(values, known)
    assert bool(torch.isfinite(filled).all())
    assert float((filled[:, 1] - 3).abs().max()) < 1.5
    same = tc.MatrixCompletion().fit_predict(torch.full((6, 4), 2.0), known[:6, :4])
    torch.testing.assert_close(same, torch.full((6, 4), 2.0))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_ends_of_the_scale(scale: float, generator: torch.Generator) -> None:
    values, known = table(generator)
    plain = tc.MatrixCompletion(passes=1).fit_predict(values, known)
    torch.testing.assert_close(tc.MatrixCompletion(passes=1).fit_predict(values * scale, known) / scale, plain)


def test_many_rows_need_no_square_matrix(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Known.of(*table(generator, 300, 4))
    whole = Columns(1).filled(given, None).values
    monkeypatch.setattr(fillers, "_BLOCK", 1)
    torch.testing.assert_close(Columns(1).filled(given, None).values, whole)
    monkeypatch.setattr(fillers, "_MOST", 50)
    few = Columns(1).filled(given, None).values
    missing = ~given.observed
    assert float((few - whole)[missing].square().mean()) < 0.3
