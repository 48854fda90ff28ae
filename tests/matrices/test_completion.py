"""Matrix completion against textbook kernel regression, its special cases, and what it refuses."""

from __future__ import annotations

import copy
import math
import typing
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from tests.helpers.theorem_1 import theorem_1
from torch_cntk.matrices import sides, systems

RIDGE = 0.01


def problem(generator: torch.Generator, rows: int = 6, columns: int = 15, p: int = 4) -> Any:
    """A smooth function of the features for each row."""
    features = torch.randn(columns, p, generator=generator, dtype=torch.float64)
    z = features / features.norm(dim=1, keepdim=True)
    values = torch.tanh(z @ torch.randn(p, rows, generator=generator, dtype=torch.float64)).T
    return values, features


def random_mask(shape: tuple[int, int], share: float, generator: torch.Generator) -> torch.Tensor:
    mask = torch.rand(shape, generator=generator) < share
    mask[:, 0] = True
    mask[:, -1] = False
    return mask


def textbook(
    values: Any,
    mask: Any,
    features: Any,
    *,
    depth: Any = 1,
    ridge: Any = RIDGE,
    identity: Any = 0.0,
    center: Any = True,
) -> np.ndarray:
    """Row by row: normalise, Theorem 1, solve."""
    z = features / features.norm(dim=1, keepdim=True)
    xi = (z @ z.T).numpy() / (1 + identity**2)
    np.fill_diagonal(xi, 1)
    kernel = theorem_1(xi, depth)
    filled = values.numpy().copy()
    for row, seen in zip(filled, mask.numpy(), strict=True):
        mean = row[seen].mean() if center else 0.0
        block = kernel[np.ix_(seen, seen)] + ridge * kernel[0, 0] * np.eye(seen.sum())
        row[~seen] = mean + kernel[np.ix_(~seen, seen)] @ np.linalg.solve(block, row[seen] - mean)
    return filled


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("depth", "identity"), [(0, 0.5), (1, 0.0), (3, 0.7)])
def test_each_row_is_regressed_on_its_observed_entries(
    depth: Any, identity: Any, center: Any, generator: torch.Generator
) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    model = tc.MatrixCompletion(depth, ridge=RIDGE, identity=identity, center=center)
    filled = model.fit(values, mask, features).predict()
    expected = textbook(values, mask, features, depth=depth, identity=identity, center=center)
    assert np.abs(filled.numpy() - expected).max() < 1e-9
    assert torch.equal(filled[mask], values[mask])
    assert model.residual_ < 1e-10


def test_nan_is_missing_unless_a_mask_is_given(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.5, generator)
    holes = torch.where(mask, values, math.nan)
    by_mask = tc.MatrixCompletion().fit(values, mask, features).predict()
    by_nan = tc.MatrixCompletion().fit(holes, features=features).predict()
    assert torch.equal(by_mask, by_nan)
    assert torch.equal(tc.MatrixCompletion().fit_predict(holes, mask, features), by_nan)


def test_predicts_new_columns(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    # Columns that nobody has observed are predicted by predict() or, as new ones, by predict(features).
    mask[:, 9:] = False
    whole = tc.MatrixCompletion(2, identity=0.4).fit(values, mask, features).predict()
    model = tc.MatrixCompletion(2, identity=0.4).fit(values[:, :9], mask[:, :9], features[:9])
    assert torch.allclose(model.predict(features=features[9:]), whole[:, 9:], rtol=1e-9, atol=1e-12)


def test_rows_with_the_same_columns_share_a_factorisation(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, features = problem(generator, rows=8)
    mask = random_mask((2, 15), 0.6, generator)[[0, 1, 0, 0, 1, 0, 1, 1]]
    count = 0
    factorise = tc.Direct.factorise_mask

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return factorise(*args, **options)

    monkeypatch.setattr(tc.Direct, "factorise_mask", counted)
    filled = tc.MatrixCompletion(ridge=RIDGE).fit(values, mask, features).predict()
    assert count == 2
    assert np.abs(filled.numpy() - textbook(values, mask, features)).max() < 1e-9


@pytest.mark.parametrize("activation", sorted(tc.matrices.completion.ACTIVATIONS))
def test_every_activation_has_a_kernel(activation: Any, generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    filled = tc.MatrixCompletion(2, activation, ridge=RIDGE, identity=0.3).fit(values, mask, features).predict()
    by_layer = tc.matrices.completion.ACTIVATIONS[activation]()
    other = tc.MatrixCompletion(2, by_layer, ridge=RIDGE, identity=0.3).fit(values, mask, features).predict()
    assert torch.equal(filled, other)
    assert bool(torch.isfinite(filled).all())
    # Of variance 1, an input above 6 has a probability of 1e-9: ReLU6 is ReLU but for rounding.
    assert activation in {"relu", "relu6"} or not torch.allclose(
        filled, tc.MatrixCompletion(2, ridge=RIDGE, identity=0.3).fit(values, mask, features).predict()
    )


def test_the_names_of_activations_are_those_of_the_registry() -> None:
    assert set(typing.get_args(sides.Activation)) == set(tc.matrices.completion.ACTIVATIONS)


def test_products_in_single_precision(generator: torch.Generator) -> None:
    values, features = problem(generator, columns=40)
    mask = random_mask(values.shape, 0.6, generator)
    direct = tc.MatrixCompletion(ridge=0.05).fit(values, mask, features)
    assert direct.n_iter_ == 0
    solver = tc.ConjugateGradient(tolerance=1e-5)
    model = tc.MatrixCompletion(ridge=0.05, solver=solver, precision="float32").fit(values, mask, features)
    assert "float32" in model.solver_
    assert model.n_iter_ > 1
    assert model.weights_.dtype == model.predict().dtype == torch.float64
    # Residuals of 1e-5, a condition of some hundred.
    assert torch.allclose(model.predict(), direct.predict(), atol=1e-3)
    assert torch.equal(model.predict()[mask], values[mask])


@pytest.mark.parametrize("same_mask", [True, False])
def test_iterative_solvers_agree_with_the_direct_one(same_mask: Any, generator: torch.Generator) -> None:
    values, features = problem(generator, columns=40)
    mask = random_mask(values.shape, 0.6, generator)
    if same_mask:
        mask = mask[:1].expand_as(mask)
    direct = tc.MatrixCompletion(ridge=0.05).fit(values, mask, features)
    solver = tc.ConjugateGradient(tolerance=1e-9)
    iterative = tc.MatrixCompletion(ridge=0.05, solver=solver).fit(values, mask, features)
    assert "conjugate" in iterative.solver_
    assert torch.allclose(iterative.predict(), direct.predict(), rtol=1e-6, atol=1e-7)


def test_many_rows_take_entries_of_one_stored_matrix(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, features = problem(generator, rows=12)
    mask = random_mask(values.shape, 0.6, generator)
    stored = tc.MatrixCompletion(ridge="cv").fit(values, mask, features)
    with monkeypatch.context() as patch:
        patch.setattr(systems, "_stored", lambda operator, needed: operator)
        anew = tc.MatrixCompletion(ridge="cv").fit(values, mask, features)
    assert torch.allclose(stored.predict(), anew.predict(), rtol=1e-9, atol=1e-12)
    operator = tc.matrices.completion.fully_connected(1)
    whole = tc.GramOperator(operator.propagate, features)
    assert systems._stored(whole, 15**2) is whole
    assert torch.equal(systems._stored(whole, 15**2 + 1).diagonal, whole.dense().diagonal())
    monkeypatch.setattr(systems, "available_bytes", lambda device: 15**2 * 8)
    assert systems._stored(whole, 15**2 + 1) is whole


def test_too_many_equations_are_solved_iteratively(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    values, features = problem(generator, columns=40)
    mask = random_mask(values.shape, 0.6, generator)
    limit = int(mask.sum(1).sort().values[2])
    direct = tc.MatrixCompletion(ridge=0.05).fit(values, mask, features).predict()
    monkeypatch.setattr("torch_cntk.solvers.policy._SMALL", 0)
    monkeypatch.setattr("torch_cntk.solvers.policy._PAPER", limit)
    model = tc.MatrixCompletion(ridge=0.05).fit(values, mask, features)
    assert "conjugate" in model.solver_
    # Residuals of 1e-5, a condition of some hundred.
    assert torch.allclose(model.predict(), direct, atol=1e-3)
    shared = mask[:1].expand_as(mask)
    monkeypatch.setattr("torch_cntk.solvers.policy._PAPER", 5)
    model = tc.MatrixCompletion(ridge=0.05).fit(values, shared, features)
    assert "conjugate" in model.solver_
    direct = tc.MatrixCompletion(ridge=0.05, solver=tc.Direct()).fit(values, shared, features).predict()
    assert torch.allclose(model.predict(), direct, atol=1e-3)


def brute_force_left_out(values: Any, mask: Any, features: Any, ridge: Any) -> float:
    """Squared errors of each observed entry, predicted from the others of its row about the same mean."""
    total = 0.0
    for row in range(len(values)):
        seen = mask[row].nonzero()[:, 0]
        mean = values[row, seen].mean()
        for place in seen.tolist():
            rest = mask[row : row + 1].clone()
            rest[0, place] = False
            filled = textbook(values[row : row + 1] - mean, rest, features, ridge=ridge, center=False)
            total += float((filled[0, place] + mean - values[row, place]) ** 2)
    return total


def test_ridge_and_score_come_from_leaving_out_each_entry(generator: torch.Generator) -> None:
    values, features = problem(generator, rows=3, columns=12)
    values = values + 0.2 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    mask = random_mask(values.shape, 0.7, generator)
    ridges = tc.matrices.completion.RIDGES
    errors = [brute_force_left_out(values, mask, features, ridge) for ridge in ridges]
    model = tc.MatrixCompletion(ridge="cv").fit(values, mask, features)
    assert model.ridge_ == ridges[int(np.argmin(errors))]
    deviations = torch.where(mask, values, math.nan)
    deviations = deviations - deviations.nanmean(1, keepdim=True)
    expected = 1 - min(errors) / float(deviations.square().nansum())
    assert model.score(values, mask) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("coupled", [False, True])
def test_left_out_entries_are_predicted_from_the_others(coupled: Any, generator: torch.Generator) -> None:
    values, features = problem(generator, rows=3, columns=9)
    mask = random_mask(values.shape, 0.7, generator)
    mask[:2, :-1] = True  # no column loses its last entry, and with it its part in the mean of the weights
    weights = torch.rand(9, generator=generator, dtype=torch.float64) + 0.1
    side: dict[str, Any] = {"row_features": torch.randn(3, 2, generator=generator)} if coupled else {}
    options: dict[str, Any] = {"ridge": 0.05, "center": False}
    left_out = tc.MatrixCompletion(**options).fit(values, mask, features, **side, column_weight=weights).left_out()
    assert bool(left_out[~mask].isnan().all())
    for row, column in mask.nonzero().tolist():
        rest = mask.clone()
        rest[row, column] = False
        model = tc.MatrixCompletion(**options).fit(values, rest, features, **side, column_weight=weights)
        assert float(model.predict()[row, column]) == pytest.approx(float(left_out[row, column]), rel=1e-6, abs=1e-9)


def test_ridge_of_many_equations_is_chosen_by_holding_out(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, features = problem(generator, rows=20, columns=60, p=3)
    noisy = values + 1.5 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    mask = random_mask(values.shape, 0.8, generator)
    monkeypatch.setattr("torch_cntk.matrices.systems._LEAVE_ONE_OUT", 3)
    clean_ridge = tc.MatrixCompletion(ridge="cv").fit(values, mask, features).ridge_
    noisy_ridge = tc.MatrixCompletion(ridge="cv").fit(noisy, mask, features).ridge_
    assert clean_ridge < noisy_ridge


@pytest.mark.parametrize("solver", ["auto", tc.ConjugateGradient(tolerance=1e-10)])
@pytest.mark.parametrize("coupled", [False, True])
def test_weights_of_columns_are_those_of_their_squared_errors(
    coupled: Any, solver: Any, generator: torch.Generator
) -> None:
    """The minimum of sum_j w_j (f(j) - y_j)^2 + ridge |f|^2: (K + ridge / w) alpha = y."""
    values, features = problem(generator)
    mask = random_mask((1, 15), 0.6, generator).expand(6, 15)
    weights = torch.rand(15, generator=generator, dtype=torch.float64) + 0.1
    model = tc.MatrixCompletion(ridge=0.1, center=False, solver=solver, row_identity=0)
    # Rows that the linear part of the kernel cannot tell from each other would be another problem: one row, then.
    rows = 1 if coupled else 6
    side: dict[str, Any] = {"row_features": torch.ones(1, 1)} if coupled else {}
    filled = model.fit(values[:rows], mask[:rows], features, **side, column_weight=weights).predict()
    seen = mask[0]
    net = tc.matrices.completion.fully_connected(1)
    z = features / features.norm(dim=1, keepdim=True)
    kernel = tc.GramOperator(net.propagate, z * 2).dense()
    factor = 2 if coupled else 1
    block = factor * kernel[seen][:, seen] + torch.diag(0.1 * factor * 2 * weights[seen].mean() / weights[seen])
    expected = factor * kernel[:, seen] @ torch.linalg.solve(block, values[:rows, seen].T)
    assert torch.allclose(filled[:, ~seen], expected.T[:, ~seen], rtol=1e-7, atol=1e-8)


def test_weights_of_columns_matter_in_the_choice_of_the_ridge(generator: torch.Generator) -> None:
    """Leaving out a column whose error counts for almost nothing costs almost nothing."""
    values, features = problem(generator, rows=3, columns=12)
    mask = random_mask(values.shape, 0.7, generator)
    weights = torch.full((12,), 1e-9, dtype=torch.float64)
    weights[:6] = 1
    model = tc.MatrixCompletion(ridge=0.1, center=False).fit(values, mask, features, column_weight=weights)
    # The ridge is relative to the mean weight of observed columns.
    share = float(weights[mask.any(0)].mean())
    alone = tc.MatrixCompletion(ridge=0.1 * share, center=False).fit(values[:, :6], mask[:, :6], features[:6])
    assert torch.allclose(model.predict(features=features), alone.predict(features=features), rtol=1e-4, atol=1e-5)
    deviations = torch.where(mask, values, math.nan)
    spread = [(deviations - deviations.nanmean(1, keepdim=True))[:, :6].square().nansum()]
    spread.append((deviations[:, :6] - deviations[:, :6].nanmean(1, keepdim=True)).square().nansum())
    errors = [(1 - model.score(values, mask)) * spread[0], (1 - alone.score(values[:, :6], mask[:, :6])) * spread[1]]
    assert float(errors[0]) == pytest.approx(float(errors[1]), rel=1e-4)


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize("solver", ["auto", tc.ConjugateGradient(tolerance=1e-10)])
def test_rows_with_features_learn_from_each_other(combine: Any, solver: Any, generator: torch.Generator) -> None:
    values, features = problem(generator, rows=7, columns=9)
    row_features = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    mask = random_mask(values.shape, 0.5, generator)
    mask[2] = False
    model = tc.MatrixCompletion(ridge=0.03, identity=0.3, row_identity=0.8, combine=combine, solver=solver)
    filled = model.fit(values, mask, features, row_features).predict()

    def kernel(z: Any, identity: Any) -> Any:
        z = z / z.norm(dim=1, keepdim=True)
        xi = (z @ z.T).numpy() / (1 + identity**2)
        np.fill_diagonal(xi, 1)
        return theorem_1(xi, 1)

    rows, columns = kernel(row_features, 0.8), kernel(features, 0.3)
    ones_r, ones_c = np.ones_like(rows), np.ones_like(columns)
    whole = np.kron(rows, columns) if combine == "product" else np.kron(rows, ones_c) + np.kron(ones_r, columns)
    seen, y = mask.flatten().numpy(), values.flatten().numpy()
    mean = y[seen].mean()
    block = whole[np.ix_(seen, seen)] + 0.03 * whole[0, 0] * np.eye(seen.sum())
    expected = mean + whole[:, seen] @ np.linalg.solve(block, y[seen] - mean)
    expected[seen] = y[seen]
    assert np.abs(filled.numpy().ravel() - expected).max() < 1e-7
    # New rows and columns are those that nobody has observed.
    model.fit(values[:, :8], mask[:, :8], features[:8], row_features)
    assert np.abs(model.predict(features=features[8:]).numpy() - expected.reshape(7, 9)[:, 8:]).max() < 1e-7
    kept = [0, 1, 3, 4, 5, 6]
    model.fit(values[kept], mask[kept], features, row_features[kept])
    assert np.abs(model.predict(row_features=row_features[2:3]).numpy() - expected.reshape(7, 9)[2]).max() < 1e-7


def test_identity_features_of_rows_are_no_features(generator: torch.Generator) -> None:
    """The paper's kernel: delta of the rows times that of the columns."""
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    alone = tc.MatrixCompletion(0, ridge=RIDGE, center=False).fit(values, mask, features).predict()
    model = tc.MatrixCompletion(0, ridge=RIDGE, center=False, row_identity=0)
    coupled = model.fit(values, mask, features, torch.eye(6)).predict()
    assert torch.allclose(alone, coupled, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_one_hot_prior_is_the_mean_over_the_category(depth: Any, generator: torch.Generator) -> None:
    """Its kernel is singular; without a ridge the regression is the mean over the cell type, exactly."""
    cells = [*torch.randint(4, (30,), generator=generator).tolist(), 0, 1, 2, 3]
    values = torch.randn(5, 34, generator=generator, dtype=torch.float64)
    mask = torch.zeros(5, 34, dtype=torch.bool)
    mask[:, 26:] = True
    expected = torch.stack(
        [values[:, [j for j in range(26, 34) if cells[j] == cells[place]]].mean(1) for place in range(26)], 1
    )
    for center in (True, False):
        model = tc.MatrixCompletion(depth, ridge=0, center=center)
        with pytest.warns(UserWarning, match="singular"):
            filled = model.fit(values, mask, tc.features.one_hot(cells)).predict()
        assert (filled[:, :26] - expected).abs().max() < 1e-9


def test_graph_laplacian_is_semi_supervised_learning(generator: torch.Generator) -> None:
    nodes = 12
    adjacency = (torch.rand(nodes, nodes, generator=generator, dtype=torch.float64) < 0.3).double()
    adjacency = torch.triu(adjacency, 1)
    adjacency[range(nodes - 1), range(1, nodes)] = 1.0
    adjacency = adjacency + adjacency.T
    labels = torch.randn(2, nodes, generator=generator, dtype=torch.float64)
    mask = torch.zeros(2, nodes, dtype=torch.bool)
    mask[:, :4] = True
    options: dict[str, Any] = {"normalize": False, "center": False, "ridge": 0}
    for shift, tolerance in ((0.3, 1e-9), (1e-6, 1e-4)):
        features = tc.features.laplacian(adjacency, shift)
        filled = tc.MatrixCompletion(0, **options).fit(labels, mask, features).predict()
        matrix = torch.diag(adjacency.sum(1)) - adjacency + shift * torch.eye(nodes, dtype=torch.float64)
        expected = -torch.linalg.solve(matrix[4:, 4:], matrix[4:, :4] @ labels[:, :4].T).T
        assert (filled[:, 4:] - expected).abs().max() < tolerance
    # Every unlabelled node is the mean of its neighbours.
    means = filled @ adjacency / adjacency.sum(0)
    assert (means - filled)[:, 4:].abs().max() < 1e-4


def test_pseudo_inverse_of_the_laplacian(generator: torch.Generator) -> None:
    adjacency = torch.rand(6, 6, generator=generator, dtype=torch.float64)
    adjacency = adjacency + adjacency.T
    matrix = torch.diag(adjacency.sum(1)) - adjacency
    features = tc.features.laplacian(adjacency)
    assert torch.allclose(features @ features.T, torch.linalg.pinv(matrix, hermitian=True), atol=1e-12)


# What goes in comes out.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_tensors_keep_their_dtype(dtype: Any, generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    filled = tc.MatrixCompletion().fit(values.to(dtype), mask, features.to(dtype)).predict()
    assert filled.dtype == dtype
    assert torch.equal(filled[mask], values.to(dtype)[mask])


def test_arrays_and_lists_in_arrays_out(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    expected = tc.MatrixCompletion().fit(values, mask, features).predict().numpy()
    filled = tc.MatrixCompletion().fit(values.numpy(), mask.numpy(), features.numpy()).predict()
    assert isinstance(filled, np.ndarray)
    assert np.array_equal(filled, expected)
    filled = tc.MatrixCompletion().fit(values.tolist(), mask.tolist(), features.tolist()).predict()
    assert np.array_equal(filled, expected)
    integers = (values * 10).round().long()
    assert tc.MatrixCompletion().fit(integers, mask, features).predict().dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_the_cpu(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    here = tc.MatrixCompletion(ridge="cv").fit(values, mask, features).predict()
    there = tc.MatrixCompletion(ridge="cv").fit(values.cuda(), mask, features).predict()
    assert there.device.type == "cuda"
    assert torch.allclose(there.cpu(), here, rtol=1e-8, atol=1e-10)


def test_pandas_frames(generator: torch.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    values, features = problem(generator, rows=3)
    mask = random_mask(values.shape, 0.6, generator)
    labels = [f"c{j}" for j in range(15)]
    table = pandas.DataFrame(values.numpy(), index=list("xyz"), columns=labels).where(mask.numpy())
    side = pandas.DataFrame(features.numpy(), index=labels)
    expected = tc.MatrixCompletion().fit(values, mask, features).predict().numpy()
    # Lines of features are found by their labels, in whatever order, more of them than needed.
    order = torch.randperm(15, generator=generator).tolist()
    extra = pandas.DataFrame([[1.0, 2.0, 3.0, 4.0]], index=["other"])
    shuffled = pandas.concat([extra, side.iloc[order]])
    model = tc.MatrixCompletion().fit(table, features=shuffled)
    filled = model.predict()
    assert list(filled.index) == list("xyz")
    assert list(filled.columns) == labels
    assert np.allclose(filled.to_numpy(), expected, rtol=1e-12)
    new = model.predict(features=extra)
    assert list(new.columns) == ["other"]
    assert new.shape == (3, 1)
    with pytest.raises(ValueError, match="different labels for all columns"):
        tc.MatrixCompletion().fit(table.rename(columns={"c1": "c0"}), features=side)
    with pytest.raises(ValueError, match="columns of fit"):
        model.transform(table[labels[::-1]])


# scikit-learn's manners.


def test_parameters_are_read_and_set() -> None:
    model = tc.MatrixCompletion(2, ridge=0.5)
    assert model.get_params()["hidden_layers"] == 2
    assert tc.MatrixCompletion(**model.get_params()).get_params() == model.get_params()
    assert model.set_params(ridge="cv") is model
    assert repr(model) == "MatrixCompletion(hidden_layers=2, ridge='cv')"
    with pytest.raises(ValueError, match="expected a parameter among"):
        model.set_params(depth=2)


def test_other_rows_are_completed(generator: torch.Generator) -> None:
    values, features = problem(generator, rows=8)
    mask = random_mask(values.shape, 0.6, generator)
    model = tc.MatrixCompletion(ridge="cv").fit(values[:4], mask[:4], features)
    expected = tc.MatrixCompletion(ridge=model.ridge_).fit(values[4:], mask[4:], features).predict()
    before = copy.deepcopy(model.weights_)
    assert torch.equal(model.transform(values[4:], mask[4:]), expected)
    assert torch.equal(model.weights_, before)


def test_works_with_scikit_learn(generator: torch.Generator) -> None:
    sklearn = pytest.importorskip("sklearn")
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values, features = problem(generator, rows=12, columns=20)
    mask = random_mask(values.shape, 0.7, generator)
    table = torch.where(mask, values, math.nan).numpy()
    table[:, -1] = values[:, -1]
    model = sklearn.base.clone(tc.MatrixCompletion(2, ridge=0.1))
    assert model.get_params() == tc.MatrixCompletion(2, ridge=0.1).get_params()

    pipeline = make_pipeline(StandardScaler(), tc.MatrixCompletion(ridge=0.1))
    filled = pipeline.fit_transform(table, matrixcompletion__features=features)
    scaler = StandardScaler().fit(table)
    expected = tc.MatrixCompletion(ridge=0.1).fit(scaler.transform(table), features=features).predict()
    assert np.allclose(filled, expected)
    assert not np.isnan(pipeline.transform(table[:3])).any()

    grid = {"ridge": [1e-3, 100.0], "hidden_layers": [1, 2]}
    search = GridSearchCV(tc.MatrixCompletion(), grid, cv=3).fit(table, features=features)
    assert search.best_params_["ridge"] == 1e-3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert not np.isnan(search.best_estimator_.predict()).any()


# Bad input.


def test_rows_without_an_entry_are_filled_with_the_prior_mean(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    mask[3] = False
    with pytest.warns(UserWarning, match=r"1 of 6 rows have no observed entry \(the first is row 3\)"):
        filled = tc.MatrixCompletion().fit(values, mask, features).predict()
    assert torch.allclose(filled[3], values[mask].mean())
    with pytest.warns(UserWarning, match="prior mean, 0"):
        filled = tc.MatrixCompletion(center=False).fit(values, mask, features).predict()
    assert torch.equal(filled[3], torch.zeros(15, dtype=torch.float64))


def test_a_complete_matrix_stays_as_it_is(generator: torch.Generator) -> None:
    values, features = problem(generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(tc.MatrixCompletion().fit_predict(values, features=features), values)


def test_duplicate_columns_without_a_ridge_are_said_and_share_their_mean(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    mask[:, [2, 7]] = True
    mask[:, 9] = False
    features[7] = 3 * features[2]
    features[9] = features[2]
    with pytest.warns(UserWarning, match="singular: solved in the least-squares sense"):
        filled = tc.MatrixCompletion(ridge=0).fit(values, mask, features).predict()
    assert torch.allclose(filled[:, 9], values[:, [2, 7]].mean(1), rtol=1e-6, atol=1e-7)
    for better in ({"ridge": 1e-6}, {"ridge": 0, "identity": 0.1}, {"ridge": "cv"}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.isfinite(tc.MatrixCompletion(**better).fit(values, mask, features).predict()).all()


@pytest.mark.parametrize("solver", [tc.ConjugateGradient(), tc.EigenPro(epochs=20)])
def test_duplicate_columns_without_a_ridge_are_said_by_iterative_solvers(
    solver: Any, generator: torch.Generator
) -> None:
    values, features = problem(generator)
    # The same features and other values: no weights meet both.
    features[7] = features[2]
    values[:, 7] = values[:, 2] + 1
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[:, -1] = False
    with pytest.warns(UserWarning, match=r"ridge.*; residual"):
        filled = tc.MatrixCompletion(ridge=0, solver=solver).fit(values, mask, features).predict()
    assert bool(torch.isfinite(filled).all())


def test_rows_without_an_entry_are_said_of_other_rows_too(generator: torch.Generator) -> None:
    values, features = problem(generator)
    mask = random_mask(values.shape, 0.6, generator)
    model = tc.MatrixCompletion().fit(values, mask, features)
    mask[4] = False
    with pytest.warns(UserWarning, match=r"1 of 6 rows have no observed entry \(the first is row 4\)"):
        filled = model.transform(values, mask)
    assert torch.allclose(filled[4], values[mask].mean())


def test_bad_features_of_new_columns_are_refused(generator: torch.Generator) -> None:
    values, features = problem(generator)
    model = tc.MatrixCompletion().fit(values, features=features)
    new = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    for bad, message in (
        (math.nan, "NaN or infinity for 1 columns, the first of them column 1"),
        (0.0, "for column 1"),
    ):
        broken = new.clone()
        broken[1] = bad
        with pytest.raises(ValueError, match=message):
            model.predict(features=broken)


def test_features_of_no_length_are_features_if_they_are_not_normalised(generator: torch.Generator) -> None:
    values, features = problem(generator)
    features[3] = 0
    mask = random_mask(values.shape, 0.6, generator)
    with pytest.raises(ValueError, match="got zeros for column 3, among 1 such; add a constant feature, or set normal"):
        tc.MatrixCompletion().fit(values, mask, features)
    filled = tc.MatrixCompletion(normalize=False).fit(values, mask, features).predict()
    assert bool(torch.isfinite(filled).all())


def test_bad_frames_are_refused_by_label(generator: torch.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    values, features = problem(generator, rows=3)
    labels = [f"c{j}" for j in range(15)]
    table = pandas.DataFrame(values.numpy(), index=list("xyz"), columns=labels)
    side = pandas.DataFrame(features.numpy(), index=labels)
    lines = pandas.DataFrame(np.ones((3, 2)), index=list("xyz"))

    def fit(change: Any, **more: Any) -> Any:
        return tc.MatrixCompletion().fit(**({"Y": table, "features": side} | {"features": change} | more))

    broken = side.copy()
    broken.loc["c4", 0] = math.inf
    with pytest.raises(ValueError, match=r"for 1 columns, the first of them column 4 \('c4'\)"):
        fit(broken)
    broken.loc["c4"] = 0.0
    with pytest.raises(ValueError, match=r"got zeros for column 4 \('c4'\), among 1 such"):
        fit(broken)
    with pytest.raises(ValueError, match=r"none for 15 of 15: 'c0', 'c1', 'c2', 'c3', 'c4', \.\.\."):
        fit(side.set_index(pandas.RangeIndex(15)))
    with pytest.raises(ValueError, match="different labels for all lines of the columns' features"):
        fit(pandas.concat([side, side.iloc[:1]]))
    with pytest.raises(ValueError, match=r"a line of features for each row, got none for 3 of 3: 'x', 'y', 'z'"):
        fit(side, row_features=lines.rename(str.upper))
    with pytest.raises(ValueError, match="different labels for all rows"):
        fit(side, Y=table.set_axis(list("xxz")))
    empty = table.copy()
    empty.loc["y"] = math.nan
    with pytest.warns(UserWarning, match=r"the first is row 1 \('y'\)"):
        fit(side, Y=empty)


def test_an_iteration_that_does_not_end_is_said(generator: torch.Generator) -> None:
    values, features = problem(generator, columns=40)
    mask = random_mask(values.shape, 0.6, generator)
    solver = tc.ConjugateGradient(tolerance=1e-12, max_iterations=2)
    with pytest.warns(UserWarning, match="out of iterations.*residual"):
        tc.MatrixCompletion(solver=solver).fit(values, mask, features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passes": "some"}, 'expected passes to be "auto", a number or None'),
        ({"passes": 0}, "expected passes to be at least 1"),
        ({"passes": 1, "column_weight": torch.ones(15)}, "expected no column_weight beside passes"),
        ({"features": torch.ones(6, 15)}, "got 6 lines; pass their transpose"),
        ({"features": torch.ones(15)}, "expected features"),
        ({"features": torch.full((15, 2), math.nan)}, "NaN or infinity for 15 columns, the first of them column 0"),
        ({"features": torch.zeros(15, 2)}, "norm above 0, got zeros for column 0, among 15"),
        ({"row_features": torch.zeros(6, 2)}, "norm above 0, got zeros for row 0, among 6"),
        ({"row_features": torch.ones(7, 2)}, "expected features of 6 rows"),
        ({"observed": torch.zeros(6, 15, dtype=torch.bool)}, "at least one observed entry"),
        ({"observed": torch.ones(15, dtype=torch.bool)}, "expected observed of the matrix' shape"),
        ({"Y": torch.ones(15)}, "expected a matrix"),
        ({"Y": torch.full((6, 15), math.inf)}, "expected finite numbers at observed entries, got inf in row 0"),
        ({"column_weight": torch.zeros(15)}, "expected 15 column weights, finite and above 0"),
        ({"column_weight": torch.ones(6)}, "expected 15 column weights"),
        ({"ridge": "best"}, 'number or "cv"'),
        ({"ridge": -1.0}, "expected ridge to be at least 0"),
        ({"identity": -1.0}, "expected identity to be at least 0"),
        ({"combine": "difference"}, "expected combine to be one of"),
        ({"hidden_layers": -1}, "expected hidden_layers to be at least 0"),
        ({"activation": "tanhh"}, "expected an activation among relu"),
        ({"precision": "half"}, "expected precision to be one of float64, float32"),
        ({"solver": "fast"}, 'expected solver to be "auto" or a Solver'),
    ],
)
def test_bad_input_is_refused(change: Any, message: Any, generator: torch.Generator) -> None:
    values, features = problem(generator)
    given = {"Y": values, "observed": torch.ones(6, 15, dtype=torch.bool), "features": features}
    given |= {"row_features": None, "column_weight": None}
    options: dict[str, Any] = {name: value for name, value in change.items() if name not in given}
    given |= {name: value for name, value in change.items() if name in given}
    if "Y" in change:
        given["observed"] = None
    with pytest.raises(ValueError, match=message):
        tc.MatrixCompletion(**options).fit(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Y": torch.ones(6, 15, dtype=torch.complex64)}, "expected real numbers"),
        ({"Y": [["a"] * 15] * 6}, "expected numbers in the matrix"),
        ({"observed": torch.ones(6, 15)}, "expected observed to be boolean"),
        ({"features": [["a"]] * 15}, "expected numbers in the features"),
        ({"hidden_layers": 1.5}, "expected hidden_layers to be an integer"),
        ({"activation": torch.relu}, "expected the activation as a name or a layer"),
        ({"ridge": None}, "expected ridge to be a number"),
    ],
)
def test_wrong_types_are_refused(change: Any, message: Any, generator: torch.Generator) -> None:
    values, features = problem(generator)
    given = {"Y": values, "observed": None, "features": features}
    options: dict[str, Any] = {name: value for name, value in change.items() if name not in given}
    given |= {name: value for name, value in change.items() if name in given}
    with pytest.raises(TypeError, match=message):
        tc.MatrixCompletion(**options).fit(**given)


def test_prediction_needs_a_fit_and_features_that_suit(generator: torch.Generator) -> None:
    values, features = problem(generator)
    with pytest.raises(ValueError, match="expected fit"):
        tc.MatrixCompletion().predict()
    model = tc.MatrixCompletion().fit(values, features=features)
    with pytest.raises(ValueError, match="expected 4 features of each column, as in fit"):
        model.predict(features=torch.ones(2, 5))
    with pytest.raises(ValueError, match="row_features in fit"):
        model.predict(row_features=torch.ones(2, 5))
    with pytest.raises(ValueError, match="expected the 15 columns"):
        model.transform(torch.ones(2, 5))


@pytest.mark.parametrize("ridge", [0.0, 1e-3, "cv"])
@pytest.mark.parametrize("solver", ["auto", tc.EigenPro(), tc.ConjugateGradient(), tc.Direct()], ids=repr)
@pytest.mark.parametrize("rows", [1, 15])
def test_a_kernel_that_is_infinite_is_refused(generator: torch.Generator, ridge: Any, solver: Any, rows: int) -> None:
    values, features = problem(generator, columns=6)
    model = tc.MatrixCompletion(2, "exp", normalize=False, ridge=ridge, solver=solver)
    with pytest.raises(ValueError, match=r"features whose kernel is finite|not finite"):
        model.fit(values[:rows], features=1e3 * features)
