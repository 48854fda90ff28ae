"""Fits that several ranks make are those of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from tests.helpers.ranks import Launcher, launcher
from torch_cntk.matrices import systems


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(seed: int, rows: int, columns: int, *, masks: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A table with missing columns, or missing entries here and there, and features of its columns."""
    features = draw(seed, columns, 6)
    values = draw(seed + 1, rows, 6) @ features.tanh().T + 0.1 * draw(seed + 2, rows, columns)
    missing = draw(seed + 3, rows, columns) > 0.8 if masks else (draw(seed + 3, 1, columns) > 0.8).expand(rows, -1)
    return values.masked_fill(missing, torch.nan), features


NYSTROM = tc.ConjugateGradient(tolerance=1e-12, preconditioner="nystrom")
ITERATION = tc.ConjugateGradient(tolerance=1e-13, max_iterations=3000, preconditioner="jacobi")
MODELS: list[tuple[dict[str, Any], bool, float]] = [
    ({"ridge": 1e-2}, False, 0.0),
    ({"ridge": "cv", "identity": 0.3}, True, 0.0),
    ({"ridge": 1e-2, "solver": ITERATION, "clip": (-1, None)}, False, 1e-9),
    ({"ridge": 0.1, "solver": NYSTROM}, False, 1e-9),
    ({"ridge": 0.1, "solver": tc.EigenPro(epochs=3)}, False, 1e-9),
    ({"ridge": 0.1, "solver": ITERATION, "precision": "float64", "hidden_layers": 2}, True, 1e-9),
]
"""Options, whether rows have masks of their own, and what results may differ by: the iteration's error."""


def completed(seed: int) -> list[float]:
    mesh = tc.distributed.mesh(timeout=60)
    found = []
    for number, (options, masks, tolerance) in enumerate(MODELS):
        values, features = table(seed + 10 * number, 5, 43, masks=masks)
        new = draw(seed + 5, 4, 6)
        single = tc.MatrixCompletion(**options).fit(values, features=features)
        shared = tc.MatrixCompletion(**options, mesh=mesh).fit(values, features=features)
        assert (shared.ridge_, shared.solver_) == (single.ridge_, single.solver_), number
        pairs = [
            (shared.weights_, single.weights_),
            (shared.predict(), single.predict()),
            (shared.predict(features=new), single.predict(features=new)),
        ]
        if number == 1:
            pairs.append((shared.transform(values[:2]), single.transform(values[:2])))
        for ours, theirs in pairs:
            assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max(), number
        found.append(float(shared.predict().sum()))
        if number != 1:
            continue
        for ours, theirs in zip(shared.predict(return_std=True), single.predict(return_std=True), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-7, atol=0), number
        assert shared.score(values) == pytest.approx(single.score(values), rel=1e-9)
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_completions_are_those_of_one_process(ranks: Launcher, size: int, generator: torch.Generator) -> None:
    found = ranks.values(completed, size, int(torch.randint(10**6, (), generator=generator)))
    assert all(one == found[0] for one in found)


def long_ones(seed: int) -> None:
    """Many masks whose factorisations would take long share an iteration; features of rows, weights, passes."""
    mesh = tc.distributed.mesh(timeout=60)
    values, features = table(seed, 12, 30, masks=True)
    single = tc.MatrixCompletion(ridge=0.1, passes=1).fit(values, features=features)
    shared = tc.MatrixCompletion(ridge=0.1, passes=1, mesh=mesh).fit(values, features=features)
    assert torch.equal(single.predict(), shared.predict())
    coupled = {"features": features, "row_features": draw(seed + 7, 12, 3)}
    single = tc.MatrixCompletion().fit(values, **coupled)
    shared = tc.MatrixCompletion(mesh=mesh).fit(values, **coupled)
    assert torch.equal(single.predict(), shared.predict())
    systems._LONG, systems._ITERATIONS = 0.0, 0
    weight = draw(seed + 8, 30).exp()
    for column_weight in (None, weight):
        single = tc.MatrixCompletion(ridge=0.1).fit(values, features=features, column_weight=column_weight)
        shared = tc.MatrixCompletion(ridge=0.1, mesh=mesh).fit(values, features=features, column_weight=column_weight)
        assert "conjugate gradients" in shared.solver_ and shared.solver_ == single.solver_
        # Each is within the tolerance of the iteration, and rounding may change when a row is left alone.
        assert torch.allclose(single.predict(), shared.predict(), rtol=0, atol=1e-4)
    scores = tc.matrices.cross_validate(shared, values, features=features, folds=2, mesh=mesh)
    expected = tc.matrices.cross_validate(single, values, features=features, folds=2)
    for ours, theirs in zip(scores.lines, expected.lines, strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_other_completions(ranks: Launcher, generator: torch.Generator) -> None:
    ranks.values(long_ones, 3, int(torch.randint(10**6, (), generator=generator)))


def regressed(seed: int) -> None:
    mesh = tc.distributed.mesh(timeout=60)
    net = tc.Sequential(tc.Linear(3, 1), tc.ReLU(), tc.Linear(1, 1))
    images = tc.Sequential(tc.Conv1d(2, 1, 3), tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(1, 1))
    for network, x, new in (
        (net, draw(seed, 31, 3), draw(seed + 1, 5, 3)),
        (images, draw(seed, 9, 2, 4), draw(0, 2, 2, 4)),
    ):
        y = x.flatten(1).sum(1).sin()
        single = tc.KernelRegressor(network).fit(x, y)
        shared = tc.KernelRegressor(network, mesh=mesh).fit(x, y)
        assert single.ridge_ == shared.ridge_
        for ours, theirs in zip(
            shared.predict(new, return_std=True), single.predict(new, return_std=True), strict=True
        ):
            assert torch.equal(ours, theirs)
        labels = (y > 0).long()
        alone, together = (tc.KernelClassifier(network, mesh=used).fit(x, labels) for used in (None, mesh))
        assert torch.equal(together.predict_proba(new), alone.predict_proba(new))
        assert np.array_equal(together.predict(new), alone.predict(new))
        assert torch.equal(network.gram(x, mesh=mesh), network.gram(x))
        assert torch.equal(network.gram(x, new, mesh=mesh), network.gram(x, new))
        first = network.gram(x, new, kind="nngp", mesh=mesh, results="first")
        assert (first is None) == (mesh.rank > 0)
        assert first is None or torch.equal(first, network.gram(x, new, kind="nngp"))
        operator = network.gram_operator(x, mesh=mesh)
        assert torch.allclose(operator @ y, network.gram_operator(x) @ y, rtol=1e-12, atol=0)
    tight = tc.ConjugateGradient(tolerance=1e-13)
    single, shared = (tc.KernelRegressor(net, ridge=0.1, solver=tight, mesh=used) for used in (None, mesh))
    assert torch.allclose(
        single.fit(x0(seed), y0(seed)).predict(x0(seed)), shared.fit(x0(seed), y0(seed)).predict(x0(seed))
    )


def x0(seed: int) -> torch.Tensor:
    return draw(seed, 31, 3)


def y0(seed: int) -> torch.Tensor:
    return x0(seed).sum(1).sin()


def test_regressions_are_those_of_one_process(ranks: Launcher, generator: torch.Generator) -> None:
    ranks.values(regressed, 3, int(torch.randint(10**6, (), generator=generator)))


def differing() -> list[tuple[str, str]]:
    mesh = tc.distributed.mesh(timeout=60)
    odd = mesh.rank == 1
    values, features = table(3, 4, 12, masks=False)
    results: Any = "last" if odd else "all"
    net = tc.Sequential(tc.Linear(6, 1), tc.ReLU(), tc.Linear(1, 1))
    fitted = tc.MatrixCompletion(mesh=mesh).fit(values, features=features)

    def features_of(shape: float) -> torch.Tensor:
        return features * (1 + shape * odd)

    works: list[Any] = [
        lambda: tc.MatrixCompletion(mesh=mesh).fit(values + 1e-9 * odd, features=features),
        lambda: tc.MatrixCompletion(mesh=mesh).fit(values, features=features_of(1e-3)),
        lambda: tc.MatrixCompletion(ridge=0.1 if odd else 0.2, mesh=mesh).fit(values, features=features),
        lambda: tc.MatrixCompletion(ridge=-1.0 if odd else 0.2, mesh=mesh).fit(values, features=features),
        lambda: tc.MatrixCompletion(mesh=mesh).fit(values, features=features[: 12 - odd]),
        lambda: tc.MatrixCompletion(mesh=mesh).fit(frame(values, 7 + odd), features=features),
        lambda: fitted.predict(features=features_of(1e-3)),
        lambda: net.gram(features_of(1e-12), mesh=mesh),
        lambda: net.gram(features, kind="nngp" if odd else "ntk", mesh=mesh),
        lambda: net.gram(features.requires_grad_(), mesh=mesh),
        lambda: tc.KernelRegressor(net, mesh=mesh).fit(features.detach(), values[0, :12].nan_to_num() + odd),
        lambda: tc.KernelClassifier(net, mesh=mesh).fit(features.detach(), ["a", "b" if odd else "c"] * 6),
        lambda: net.gram(features.detach(), mesh=mesh, results=results),
    ]
    found = []
    for work in works:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
            found.append(("", ""))
        except Exception as error:
            found.append((type(error).__name__, str(error)))
    return found


def frame(values: torch.Tensor, last: int) -> Any:
    """With labels that differ in the last one, if that differs."""
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(values.numpy(), columns=[*range(100, 100 + values.shape[1] - 1), last])


def test_what_differs_between_ranks_is_told(ranks: Launcher) -> None:
    found = ranks.values(differing, 3)
    assert found[0] == found[1] == found[2]
    expected = [
        "expected the same table on all ranks",
        "expected the same features on all ranks",
        "expected the same ridge (options) on all ranks",
        "on rank 1: expected ridge to be at least 0, got -1",
        "on rank 1: expected",
        "expected the same labels on all ranks",
        "expected the same features on all ranks",
        "expected the same features on all ranks",
        "expected the same kind (options) on all ranks",
        "expected features and layers without gradients beside mesh",
        "expected the same targets on all ranks",
        "expected the same classes on all ranks",
        'on rank 1: expected results "all" or "first", got \'last\'',
    ]
    assert [kind for kind, _ in found[0]] == ["ValueError"] * len(expected)
    for (_, text), start in zip(found[0], expected, strict=True):
        assert text.startswith(start), text


def test_mesh_must_be_one() -> None:
    values, features = table(3, 4, 12, masks=False)
    wrong: Any = "mesh"
    for fit in (
        lambda: tc.MatrixCompletion(mesh=wrong).fit(values, features=features),
        lambda: tc.KernelRegressor(tc.Linear(6, 1), mesh=wrong).fit(features, features[:, 0]),
    ):
        with pytest.raises(TypeError, match=r"expected mesh to be one of torch_cntk.distributed.mesh\(\), or None"):
            fit()
