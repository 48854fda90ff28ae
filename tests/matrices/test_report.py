"""How good a completion is: entries left out, standard deviations, samples, and the report beside simple methods."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.matrices.baselines import chosen_soft_impute, nearest_rows, two_way_means
from torch_cntk.matrices.report import OURS, verdict

FLOAT = torch.float64


def problem(generator: torch.Generator, rows: int = 5, columns: int = 14, noise: float = 0.1) -> tuple[Tensor, ...]:
    features = torch.randn(columns, 3, generator=generator, dtype=FLOAT)
    values = 2 + torch.randn(rows, 3, generator=generator, dtype=FLOAT) @ features.T
    values += noise * torch.randn(rows, columns, generator=generator, dtype=FLOAT)
    mask = torch.rand(rows, columns, generator=generator) < 0.7
    mask[:, :2], mask[:, 2] = True, torch.arange(rows) % 2 == 0
    mask[::2, 3] = False  # each row has an entry that is missing
    return values, mask, features


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("side", ["features", "rows", "sum", "weights", "dense"])
def test_leaving_out_in_closed_form_is_leaving_out(center: Any, side: Any, generator: torch.Generator) -> None:
    """Each entry by a fit of its own: also the mean has not seen it."""
    values, mask, features = problem(generator, 4, 8)
    mask[3] = False
    mask[3, 2] = True
    if side == "dense":
        mask[:3] = True
        mask[0, 5] = mask[1, 6] = False
    more: dict[str, Any] = {"features": features}
    if side in ("rows", "sum"):
        more["row_features"] = torch.randn(4, 2, generator=generator, dtype=FLOAT)
    if side == "weights":
        more["column_weight"] = torch.rand(8, generator=generator, dtype=FLOAT) + 0.5
    options: dict[str, Any] = {"ridge": 0.05, "center": center, "combine": "sum" if side == "sum" else "product"}
    left_out = tc.MatrixCompletion(**options).fit(values, mask, **more).left_out()
    assert torch.equal(torch.isnan(left_out), ~mask)
    for row, column in mask.nonzero().tolist():
        rest = mask.clone()
        rest[row, column] = False
        if side == "weights" and not rest[:, column].any():
            continue  # the mean of the weights that are used is another one then
        with pytest.warns(UserWarning) if not rest[row].any() and side not in ("rows", "sum") else _quiet():
            again = tc.MatrixCompletion(**options).fit(values, rest, **more).predict()[row, column]
        assert float(left_out[row, column]) == pytest.approx(float(again), rel=1e-7, abs=1e-9)


def _quiet() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("side", ["features", "rows", "sum", "weights"])
def test_deviations_are_those_of_a_gaussian_process(side: Any, generator: torch.Generator) -> None:
    """Up to a factor for each row, against scikit-learn's formula written out: K** - K*O (K_OO + noise)^-1 KO*."""
    values, mask, features = problem(generator)
    more: dict[str, Any] = {}
    if side in ("rows", "sum"):
        more["row_features"] = torch.randn(5, 2, generator=generator, dtype=FLOAT)
    weight = torch.rand(14, generator=generator, dtype=FLOAT) + 0.5 if side == "weights" else None
    model = tc.MatrixCompletion(ridge=0.1, identity=0.3, combine="sum" if side == "sum" else "product")
    model.fit(values, mask, features, column_weight=weight, **more)
    _, deviations = model.predict(return_std=True)
    noise = torch.full((14,), 0.1, dtype=FLOAT)
    if weight is not None:
        noise /= weight / weight[mask.any(0)].mean()
    kernel = _kernel(features, 0.3)
    noise *= kernel.diagonal().mean()
    for row in range(5):
        seen = mask[row]
        if side in ("rows", "sum"):
            other = _kernel(more["row_features"], 1.0)
            lines, across = other[:, None, :, None], kernel[None, :, None]
            whole = lines * across if side == "rows" else lines + across
            whole = whole.reshape(70, 70)
            level = 0.1 * whole.diagonal().mean()
            expected = _posterior(whole, level.expand(70), mask.flatten()).reshape(5, 14)[row][~seen]
        else:
            expected = _posterior(kernel, noise, seen)[~seen]
        assert bool((deviations[row][seen] == 0).all())
        ratio = deviations[row][~seen] / expected.sqrt()
        assert torch.allclose(ratio, ratio[0].expand(len(ratio)), rtol=1e-8)


def _kernel(features: Tensor, identity: float) -> Tensor:
    """The NTK of one hidden ReLU layer of normalised features beside an identity block, as Theorem 1 has it."""
    unit = features / features.norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T + identity**2 * torch.eye(len(unit), dtype=FLOAT)) / (1 + identity**2)
    cosine = cosine.clamp(-1, 1)
    angle = cosine.arccos()
    first = ((1 - cosine**2).clamp_min(0).sqrt() + (torch.pi - angle) * cosine) / torch.pi
    kernel = first + cosine * (torch.pi - angle) / torch.pi
    return kernel / kernel[0, 0]


def _posterior(kernel: Tensor, noise: Tensor, seen: Tensor) -> Tensor:
    inner = kernel[seen][:, seen] + torch.diag(noise[seen])
    cross = kernel[:, seen]
    return kernel.diagonal() + noise - (cross @ torch.linalg.inv(inner) * cross).sum(1)


@pytest.mark.parametrize("coupled", [False, True])
def test_intervals_hold_as_much_as_they_say(coupled: Any, generator: torch.Generator) -> None:
    """Of 20 rows x 30 columns: a share of 170 missing entries has a standard deviation of 2.3 % at 90 %."""
    values, mask, features = problem(generator, 20, 30, noise=0.5)
    more = {"row_features": torch.eye(20)} if coupled else {}
    model = tc.MatrixCompletion(ridge="cv", row_identity=0.0).fit(values, mask, features, **more)
    filled, deviations = model.predict(return_std=True)
    missing = ~mask
    scores = ((filled - values)[missing] / deviations[missing]).abs()
    for level, width, allowed in ((0.5, 0.674, 0.2), (0.9, 1.645, 0.12), (0.95, 1.96, 0.09)):
        # The allowance: five deviations of the share, and that entries of a row go together.
        assert float((scores < width).double().mean()) == pytest.approx(level, abs=allowed)
        assert model.report().coverage[level] == pytest.approx(level, abs=allowed)


@pytest.mark.parametrize("coupled", [False, True])
def test_samples_have_the_mean_and_the_deviations_of_the_prediction(coupled: Any, generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    more = {"row_features": torch.randn(5, 2, generator=generator)} if coupled else {}
    model = tc.MatrixCompletion(ridge=0.05).fit(values, mask, features, **more)
    filled, deviations = model.predict(return_std=True)
    draws = model.samples(4000)
    assert torch.equal(draws[:, mask], values[mask].expand(4000, -1))
    missing = ~mask
    # Means of 4,000 draws are off by deviation / 63, deviations by a factor of 1 +- 0.011; five times that.
    assert bool(((draws.mean(0) - filled)[missing].abs() < 5 * deviations[missing] / 63).all())
    assert torch.allclose(draws.std(0)[missing], deviations[missing], rtol=0.06)
    assert torch.equal(model.samples(2, seed=5), model.samples(2, seed=5))
    assert not torch.equal(model.samples(2, seed=5), model.samples(2, seed=6))


def test_new_columns_have_deviations(generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    whole = mask.clone()
    whole[:, 10:] = False
    _, expected = tc.MatrixCompletion(ridge=0.1).fit(values, whole, features).predict(return_std=True)
    model = tc.MatrixCompletion(ridge=0.1).fit(values[:, :10], mask[:, :10], features[:10])
    _, found = model.predict(features[10:], return_std=True)
    assert torch.allclose(found, expected[:, 10:], rtol=1e-8)
    with pytest.raises(ValueError, match="return_std without features of new rows"):
        model.predict(row_features=features, return_std=True)


def test_deviations_come_in_the_form_of_the_table(generator: torch.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    values, mask, features = problem(generator)
    table = pandas.DataFrame(values.numpy(), index=list("abcde")).where(mask.numpy()).astype("float32")
    model = tc.MatrixCompletion(ridge=0.1).fit(table, features=features)
    filled, deviations = model.predict(return_std=True)
    assert list(deviations.index) == list("abcde")
    assert set(map(str, deviations.dtypes)) == {"float32"} == set(map(str, filled.dtypes))


@pytest.mark.parametrize("coupled", [False, True])
def test_frames_are_judged_as_tensors_are(coupled: Any, generator: torch.Generator) -> None:
    """Columns of a frame lie together in memory, and not its rows."""
    pandas = pytest.importorskip("pandas")
    values, mask, features = problem(generator)
    more = {"row_features": torch.randn(5, 2, generator=generator).numpy()} if coupled else {}
    frame = pandas.DataFrame({j: values[:, j].numpy() for j in range(14)}).where(mask.numpy())
    given: list[Any] = [torch.where(mask, values, torch.nan), frame]
    models = [tc.MatrixCompletion(ridge=0.1).fit(table, features=features, **more) for table in given]
    texts = [str(model.report()) for model in models]
    assert texts[0] == texts[1]
    told = [model.predict(return_std=True)[1] for model in models]
    assert np.allclose(told[0], told[1], rtol=1e-8)
    assert torch.allclose(models[0].samples(2), models[1].samples(2), rtol=1e-6, atol=1e-9)


# The report.


def test_the_report_compares_on_the_same_entries(generator: torch.Generator) -> None:
    values, mask, features = problem(generator, 12, 30)
    model = tc.MatrixCompletion(ridge="cv").fit(values, mask, features)
    report = model.report()
    assert report.methods[0] == OURS
    assert report.compared == int(mask.sum())
    left_out = model.left_out()
    errors = (left_out - values)[mask].square()
    assert report.left_out_rmse == pytest.approx(float(errors.mean().sqrt()))
    spread = torch.where(mask, values, torch.nan)
    spread = (spread - spread.nanmean(1, keepdim=True))[mask].square()
    assert report.left_out_r2 == pytest.approx(1 - float(errors.sum() / spread.sum()))
    rows = report.by_row()
    own = (left_out - values)[3][mask[3]]
    assert rows["rmse"][3] == pytest.approx(float(own.square().mean().sqrt()))
    assert rows["entries"] == mask.sum(1).tolist()
    text = str(report)
    for name in (*report.methods, "intervals", "ridge", "Trust this completion: its error is"):
        assert name in text
    assert str(pickle.loads(pickle.dumps(model)).report()) == text
    table = report.by_method()
    assert table["rmse"][0] < min(table["rmse"][1:])


def test_the_report_says_when_another_method_is_to_be_trusted(generator: torch.Generator) -> None:
    # Columns alike in five groups, of which the features know nothing.
    centres = torch.randn(25, 5, generator=generator, dtype=FLOAT)
    values = centres[:, torch.arange(60) % 5] + 0.05 * torch.randn(25, 60, generator=generator, dtype=FLOAT)
    mask = torch.rand(25, 60, generator=generator) < 0.7
    report = tc.MatrixCompletion().fit(values, mask, torch.randn(60, 3, generator=generator)).report()
    assert report.verdict.startswith("Trust 5 nearest columns rather than this completion: its error is")


def test_the_verdict_weighs_chance() -> None:
    flat = torch.ones(100, dtype=FLOAT)
    noisy = 1.05 * torch.linspace(0, 2, 100, dtype=FLOAT)
    assert "alike" in verdict({OURS: flat, "means": noisy}, 0.5)
    assert verdict({OURS: flat, "means": 2 * flat}, 0.5).startswith("Trust this completion: its error is 1 at")
    assert "no better than their means" in verdict({OURS: flat, "means": 2 * flat}, -0.1)
    assert verdict({OURS: 2 * flat, "means": flat, "other": 3 * flat}, 0.5).startswith("Trust means rather than this")


@pytest.mark.parametrize("solver", [tc.ConjugateGradient(tolerance=1e-10)])
def test_more_equations_are_left_out_in_parts(
    solver: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, mask, features = problem(generator, 6, 20)
    exact = tc.MatrixCompletion(ridge=0.1).fit(values, mask, features)
    assert exact.report().exact
    monkeypatch.setattr("torch_cntk.matrices.judging.MOST_EQUATIONS", 3)
    model = tc.MatrixCompletion(ridge=0.1, solver=solver).fit(values, mask, features)
    report = model.report()
    assert not report.exact
    assert "a fifth at a time: error" in str(report)
    assert report.rmse[0] == pytest.approx(exact.report().rmse[0], rel=1e-6)
    assert report.left_out_rmse == pytest.approx(report.rmse[0])
    # The same entries are missing in each part: what it says is what a fit without them says.
    left_out = model.left_out()
    fold = _folds(mask)
    rest = mask & (fold != 2)
    again = tc.MatrixCompletion(ridge=0.1).fit(values, rest, features).predict()
    assert torch.allclose(left_out[fold == 2], again[fold == 2], rtol=1e-6)


def _folds(mask: Tensor) -> Tensor:
    from torch_cntk.matrices.judging import folds_of

    fold = folds_of(mask, 5, 0)
    counts = torch.bincount(fold[mask])
    assert int(counts.max() - counts.min()) <= 1
    assert bool((fold[~mask] == -1).all())
    return fold


def test_little_is_said_of_little(generator: torch.Generator) -> None:
    model = tc.MatrixCompletion(ridge=0.1).fit([[1.0, 2.0, np.nan]], features=np.eye(3))
    report = model.report()
    assert report.compared == 2
    assert "Trust" in str(report)
    with pytest.raises(ValueError, match="at least two observed entries"):
        tc.MatrixCompletion(ridge=0.1).fit([[1.0, np.nan]], features=np.eye(2)).report()
    with pytest.raises(ValueError, match="expected fit"):
        tc.MatrixCompletion().report()


def test_a_fit_forgets_what_was_judged(generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    model = tc.MatrixCompletion(ridge=0.1).fit(values, mask, features)
    before = model.left_out()
    other = copy.copy(model).fit(-values, mask, features)
    assert torch.allclose(other.left_out()[mask], -before[mask])
    assert torch.equal(model.left_out()[mask], before[mask])


@pytest.mark.parametrize(("noise", "edge"), [(0.0, "below"), (1e3, "above")])
def test_the_grid_of_ridges_grows_where_the_best_is_its_last(noise: Any, edge: Any, generator: torch.Generator) -> None:
    values, mask, features = problem(generator, 20, 30)
    # Linear in the features, with a linear kernel: without noise, no ridge is best.
    values = (values - values.mean()) * (noise == 0) if noise else features.sum(1).expand(20, -1).clone()
    if noise:
        values = noise * torch.randn(20, 30, generator=generator, dtype=FLOAT)
    model = tc.MatrixCompletion(0, ridge="cv", center=False, normalize=False).fit(values, mask, features)
    if edge == "below":
        assert model.ridges_[0] == pytest.approx(1e-9)
        assert model.ridge_ < 1e-6
        assert "the smallest of them: there is hardly noise" in str(model.report())
    else:
        assert model.ridge_ >= 1
    assert len(model.ridges_) in (17, 21, 23)
    assert tc.MatrixCompletion(ridge=0.1).fit(values, mask, features).ridges_ == ()


@pytest.mark.parametrize("clip", [(0, None), (None, 1.5), (-0.5, 0.5)])
def test_predictions_keep_to_bounds(clip: Any, generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    free = tc.MatrixCompletion(ridge=0.1).fit(values, mask, features)
    model = tc.MatrixCompletion(ridge=0.1, clip=clip).fit(values, mask, features)
    assert torch.equal(model.predict(), torch.where(mask, values, free.predict().clamp(*clip)))
    assert torch.equal(model.predict(features[:3]), free.predict(features[:3]).clamp(*clip))
    assert torch.equal(model.left_out()[mask], free.left_out()[mask].clamp(*clip))
    assert torch.equal(model.transform(values, mask), model.predict())
    assert torch.equal(model.samples(3)[:, ~mask], model.samples(3)[:, ~mask].clamp(*clip))


@pytest.mark.parametrize("clip", [(1, 0), (None, None), 3, (0, float("nan")), (0, 1, 2)])
def test_bounds_that_are_none_are_refused(clip: Any, generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    with pytest.raises(ValueError, match="clip"):
        tc.MatrixCompletion(clip=clip).fit(values, mask, features)


def test_predictions_are_drawn_against_what_was_left_out(generator: torch.Generator) -> None:
    pytest.importorskip("matplotlib")
    values, mask, features = problem(generator)
    report = tc.MatrixCompletion(ridge=0.1).fit(values, mask, features).report()
    axes = report.plot()
    assert len(np.asarray(axes.lines[1].get_xdata())) == int(mask.sum())
    assert axes.get_xlabel() == "left out"
    assert report.plot(axes) is axes


# What it is compared with.


def test_nearest_rows_are_those_of_scikit_learn(generator: torch.Generator) -> None:
    impute = pytest.importorskip("sklearn.impute")
    values = torch.randn(20, 9, generator=generator, dtype=FLOAT)
    mask = torch.rand(20, 9, generator=generator) < 0.7
    mask[:7] = True
    expected = impute.KNNImputer().fit_transform(torch.where(mask, values, torch.nan).numpy())
    found = nearest_rows(values, mask)
    assert torch.allclose(found[~mask], torch.from_numpy(expected)[~mask], rtol=1e-9)
    # At observed entries it has not seen them.
    other = values.clone()
    other[4, 3] += 0.01
    hidden = mask.clone()
    hidden[4, 3] = False
    near = nearest_rows(values, mask)[4, 3]
    assert float(near) in [float(c) for c in (nearest_rows(other, mask)[4, 3], near)]


def test_two_way_means_are_least_squares(generator: torch.Generator) -> None:
    values = torch.randn(5, 7, generator=generator, dtype=FLOAT)
    mask = torch.rand(5, 7, generator=generator) < 0.8
    mask[0], mask[:, 0] = True, True
    design = torch.zeros(35, 12, dtype=FLOAT)
    places = torch.arange(35)
    design[places, places // 7], design[places, 5 + places % 7] = 1, 1
    effects = torch.linalg.pinv(design[mask.flatten()]) @ values[mask]
    assert torch.allclose(two_way_means(values, mask).flatten(), design @ effects, atol=1e-6)


def test_soft_impute_finds_its_shrinkage(generator: torch.Generator) -> None:
    low = torch.randn(40, 2, generator=generator, dtype=FLOAT) @ torch.randn(2, 50, generator=generator, dtype=FLOAT)
    mask = torch.rand(40, 50, generator=generator) < 0.7
    error = (chosen_soft_impute(low, mask) - low)[~mask].square().mean()
    assert float(error) < 0.1 * float((two_way_means(low, mask) - low)[~mask].square().mean())
    flat = torch.full((3, 4), 2.0, dtype=FLOAT)
    assert torch.allclose(chosen_soft_impute(flat, torch.ones(3, 4, dtype=torch.bool)), flat)


def test_passes_are_judged_too(generator: torch.Generator) -> None:
    values, mask, _ = problem(generator, 12, 16)
    model = tc.MatrixCompletion(clip=(None, 4.0)).fit(torch.where(mask, values, torch.nan))
    report = model.report()
    assert not report.exact
    assert report.compared == int(mask.sum())
    assert "a mixture, chosen by entries that were left out:" in str(report)
    filled, deviations = model.predict(return_std=True)
    assert float(filled[~mask].max()) <= 4
    # Without a covariance, the missing entries of a row are equally sure.
    row = deviations[0][~mask[0]]
    assert bool((row > 0).all())
    assert torch.allclose(row, row[0].expand(len(row)))
    draws = model.samples(500)
    assert torch.equal(draws[:, mask], values[mask].expand(500, -1))


def test_passes_say_what_they_know_nothing_of() -> None:
    table = np.random.default_rng(0).normal(size=(5, 6))
    table[2], table[:, 4] = np.nan, np.nan
    with pytest.warns(UserWarning) as caught:
        filled = tc.MatrixCompletion(passes=1).fit(table).predict()
    told = [str(warning.message) for warning in caught]
    lines = (("5 rows", "row 2"), ("6 columns", "column 4"))
    assert told == [
        f"1 of {many} have no observed entry and no features (the first is {first}); they are filled with means"
        for many, first in lines
    ]
    assert np.isfinite(filled).all()


def test_one_pass_is_no_passes() -> None:
    table = np.random.default_rng(0).normal(size=(5, 6))
    table[2, 3] = np.nan
    for passes, said in ((1, "at most 1 pass"), (2, "at most 2 passes")):
        text = str(tc.MatrixCompletion(passes=passes).fit(table).report())
        assert any(line.endswith(said) for line in text.splitlines())
