"""Fitted models and encoders are kept: pickled, copied, cloned by scikit-learn."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.matrices.drug_response import MixedNTK, PaperNTK, ResidualNTK
from torch_cntk.matrices.features import TableEncoder

pandas = pytest.importorskip("pandas")


def problem() -> Any:
    generator = np.random.default_rng(0)
    table = generator.normal(size=(4, 9))
    table[generator.random((4, 9)) < 0.3] = np.nan
    return table, generator.normal(size=(9, 3)), generator.normal(size=(4, 2))


def frame(table: Any, dtype: Any = "float64") -> Any:
    return pandas.DataFrame(table, index=list("abcd"), columns=[f"c{j}" for j in range(9)]).astype(dtype)


@pytest.mark.parametrize("keep", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize(
    "held",
    [torch.tensor, np.array, np.ma.masked_invalid, frame, lambda table: frame(table, "Float32")],
    ids=["tensor", "array", "masked", "frame", "Float32"],
)
@pytest.mark.parametrize("options", [{}, {"ridge": "cv", "activation": tc.LeakyReLU(0.2)}, {"solver": tc.EigenPro()}])
def test_a_fitted_model_says_the_same_after_it_was_saved(keep: Any, held: Any, options: Any) -> None:
    table, features, _ = problem()
    given = held(table)
    labelled = pandas.DataFrame(features, index=getattr(given, "columns", None))
    model = tc.MatrixCompletion(**options).fit(given, features=labelled if hasattr(given, "columns") else features)
    again = keep(model)
    say: Callable[[Any], Any]
    for say in (lambda m: m.predict(), lambda m: m.predict(features=features[:2] * 1.1), lambda m: m.transform(given)):
        first, second = say(model), say(again)
        assert type(first) is type(second)
        assert np.array_equal(np.asarray(first, float), np.asarray(second, float))


def test_a_model_with_features_of_rows_is_saved() -> None:
    table, features, row_features = problem()
    model = tc.MatrixCompletion(combine="sum").fit(table, features=features, row_features=row_features)
    again = pickle.loads(pickle.dumps(model))
    new = row_features[:2] + 0.1
    assert np.array_equal(again.predict(row_features=new), model.predict(row_features=new))


def test_encoders_are_saved_and_cloned() -> None:
    base = pytest.importorskip("sklearn.base")
    sheet: dict[str, Any] = {"dose": [1.0, None, 3.0], "kind": ["a", "b", "a"], "note": ["x y", "y", ""]}
    encoder = TableEncoder(["note"], {"dose": 2.0}).fit(sheet)
    for again in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert torch.equal(again.transform(sheet), encoder.transform(sheet))
    cloned = base.clone(encoder)
    assert cloned.get_params() == encoder.get_params()
    with pytest.raises(ValueError, match=r"expected fit\(\)"):
        cloned.transform(sheet)
    assert torch.equal(cloned.fit_transform(sheet), encoder.transform(sheet))


@pytest.mark.parametrize(
    "method",
    [
        PaperNTK(0, tc.baselines.falrtc),
        MixedNTK(PaperNTK(0), PaperNTK(0, "one-hot"), threshold=3),
        ResidualNTK(0, base=None, hidden_layers=(1,)),
    ],
)
def test_methods_of_drug_response_are_saved_and_cloned(method: Any) -> None:
    base = pytest.importorskip("sklearn.base")
    for again in (pickle.loads(pickle.dumps(method)), copy.deepcopy(method), base.clone(method)):
        assert again == method
