"""Cross-validation of completions, beside simple methods on the same left-out entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.matrices import cross_validate
from torch_cntk.matrices.validation import METRICS

FLOAT = torch.float64
MODEL = tc.MatrixCompletion(ridge=0.05)


def problem(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    features = torch.randn(16, 3, generator=generator, dtype=FLOAT)
    values = 1 + torch.randn(6, 3, generator=generator, dtype=FLOAT) @ features.T
    mask = torch.rand(6, 16, generator=generator) < 0.8
    mask[0], mask[:, 0] = True, True
    return values, mask, features


def test_columns_that_are_left_out_are_predicted_from_the_others(generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    result = cross_validate(MODEL, values, mask, features, leave="columns", folds=16)
    assert result.methods[0] == "this completion"
    errors = []
    for column in range(16):
        rest = mask.clone()
        rest[:, column] = False
        filled = tc.MatrixCompletion(ridge=0.05).fit(values, rest, features).predict()
        errors.append(float((filled - values)[:, column][mask[:, column]].square().mean().sqrt()))
    assert sorted(result.values("this completion", "rmse")) == pytest.approx(sorted(errors))
    assert sum(line["entries"] for line in result.lines if line["method"] == "row means") == int(mask.sum())
    assert np.mean(result.values("this completion", "rmse")) < np.mean(result.values("row means", "rmse"))


def test_metrics_are_what_they_are_called(generator: torch.Generator) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    values, _, features = problem(generator)
    whole = torch.ones(6, 16, dtype=torch.bool)
    result = cross_validate(MODEL, values, whole, features, leave="rows", folds=6, seed=3)
    for line in result.lines:
        if line["method"] != "column means":
            continue
        # One row is left out, whichever it is: columns' means over the other five.
        found = []
        for row in range(6):
            rest = np.delete(values.numpy(), row, 0)
            truth, means = values[row].numpy(), rest.mean(0)
            r2 = 1 - ((means - truth) ** 2).sum() / ((truth - rest.mean()) ** 2).sum()
            found.append([metrics.root_mean_squared_error(truth, means), metrics.mean_absolute_error(truth, means)])
            found[-1] += [r2, np.corrcoef(truth, means)[0, 1]]
        assert any(np.allclose([line[metric] for metric in METRICS], one) for one in found)


@pytest.mark.parametrize("leave", ["columns", "rows"])
def test_groups_are_left_out_together(leave: Any, generator: torch.Generator) -> None:
    pandas = pytest.importorskip("pandas")
    values, mask, features = problem(generator)
    count = 16 if leave == "columns" else 6
    labels = [f"l{k}" for k in range(count)]
    table = pandas.DataFrame(values.numpy()).where(mask.numpy())
    table = table.set_axis(labels, axis=1) if leave == "columns" else table.set_axis(labels)
    groups = pandas.Series([f"g{k // 2}" for k in range(count)], index=labels)[::-1]
    seen = []
    model = tc.MatrixCompletion(ridge=0.05)

    class Watched(tc.MatrixCompletion):
        def fit(self, Y: Any, observed: Any = None, *arguments: Any, **options: Any) -> Any:
            seen.append(observed)
            return super().fit(Y, observed, *arguments, **options)

    watched = Watched(**model.get_params())
    cross_validate(watched, table, None, features.numpy(), leave=leave, groups=groups, folds=3)
    for rest in seen:
        gone = ~rest.any(0 if leave == "columns" else 1)
        assert bool((gone[::2] == gone[1::2]).all())
        assert bool(gone.any())
    assert len(seen) == 3


def test_the_result_is_a_frame_a_text_and_a_picture(generator: torch.Generator) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    values, mask, features = problem(generator)
    result = cross_validate(MODEL, values, mask, features, folds=2)
    frame = result.frame()
    assert list(frame) == ["method", "fold", "entries", *METRICS, "seconds"]
    assert len(frame) == 2 * len(result.methods)
    assert int(frame[frame.method == "soft-impute"].entries.sum()) == int(mask.sum())
    text = str(result)
    assert "this completion" in text
    assert " +- " in text
    axes = result.plot("mae")
    assert [label.get_text() for label in axes.get_yticklabels()] == result.methods
    with pytest.raises(ValueError, match="expected one of"):
        result.values("nobody", "rmse")
    again = cross_validate(MODEL, values, mask, features, folds=2)
    assert again.values("this completion", "rmse") == result.values("this completion", "rmse")


def test_passes_are_cross_validated(generator: torch.Generator) -> None:
    values, mask, _ = problem(generator)
    result = cross_validate(tc.MatrixCompletion(passes=1), values, mask, folds=2)
    assert len(result.values("this completion", "r2")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leave": "cells"}, "expected leave to be one of entries, columns, rows"),
        ({"folds": 1}, "at least 2 folds"),
        ({"folds": 17, "leave": "columns"}, "expected at least 17 columns for 17 folds, got 16"),
        ({"leave": "columns", "groups": [1] * 16}, "at least 5 groups"),
        ({"leave": "columns", "groups": [1, 2]}, "a group for each of 16 columns, got 2"),
        ({"groups": [1] * 16}, 'groups with leave="columns" or "rows"'),
    ],
)
def test_bad_options_are_refused(options: Any, message: Any, generator: torch.Generator) -> None:
    values, mask, features = problem(generator)
    with pytest.raises(ValueError, match=message):
        cross_validate(MODEL, values, mask, features, **options)


def test_groups_without_a_label_are_told() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.random.default_rng(0).normal(size=(3, 4)), columns=list("abcd"))
    with pytest.raises(ValueError, match="a group for each of the columns, got none for 'd'"):
        cross_validate(MODEL, table, None, np.eye(4), leave="columns", groups=pandas.Series([1, 2, 3], list("abc")))
