"""Features and neighbours as parts of a mixture; what the defaults are worth beside neighbours alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.matrices.baselines import nearest_rows
from torch_cntk.matrices.choice import Plan
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.side_information import encoded
from torch_cntk.matrices.sides import Side, side
from torch_cntk.matrices.told import Nearest, Told

FLOAT = torch.float64


def columns_of(features: torch.Tensor) -> Side:
    given, _, _ = encoded(features, "column", None, len(features), normalize=True)
    return side(given, "column", identity=0.0, normalize=True, device=torch.device("cpu"))


def test_the_features_alone_are_the_regression_without_passes(generator: torch.Generator) -> None:
    features = torch.randn(20, 3, generator=generator, dtype=FLOAT)
    values = 5 + torch.randn(4, 3, generator=generator, dtype=FLOAT) @ features.T
    mask = torch.rand(4, 20, generator=generator) < 0.7
    mask[:, :3], mask[:, 19] = True, False
    known = Known.of(values, mask, None, columns_of(features))
    found = known.back(Told().filled(known, None).values)
    expected = tc.MatrixCompletion(ridge="cv", identity=0.3).fit(values, mask, features).predict()
    assert torch.allclose(found[~mask], expected[~mask], rtol=1e-9)
    # A column that nobody has measured is told by its features alone, whatever else is mixed.
    plan = Plan(((0.5, (Told(),)), (0.5, (Nearest(),))))
    mixed = known.back(plan.filled(known).values)
    assert torch.allclose(mixed[:, 19], expected[:, 19], rtol=1e-9)
    near = known.back(Nearest().filled(known, None).values)
    other = ~mask & mask.any(0)
    assert torch.allclose(mixed[other], (0.5 * expected + 0.5 * near)[other], rtol=1e-9)


def test_without_features_there_is_nothing_to_tell(generator: torch.Generator) -> None:
    values = torch.randn(3, 4, generator=generator, dtype=FLOAT)
    known = Known.of(values, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected features of the columns"):
        Told().filled(known, None)


@pytest.mark.parametrize("columns", [False, True])
def test_neighbours_are_those_of_the_baseline(columns: Any, generator: torch.Generator) -> None:
    values = torch.randn(9, 12, generator=generator, dtype=FLOAT)
    mask = torch.rand(9, 12, generator=generator) < 0.8
    known = Known.of(values, mask)
    found = Nearest(columns).filled(known, None).values
    turned = (known.values.T, mask.T) if columns else (known.values, mask)
    expected = nearest_rows(*turned)
    assert torch.equal(found, expected.T if columns else expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["features", "hidden factors", "clusters"])
def test_defaults_are_no_worse_than_neighbours(kind: Any) -> None:
    """Tables of 15 rows and 40 columns with four kinds and an age: told by these, by what is hidden, or in clusters."""
    impute = pytest.importorskip("sklearn.impute")
    rng = np.random.default_rng(0)
    side_information = np.c_[np.eye(4)[rng.integers(4, size=40)], rng.normal(size=40)]
    told = {
        "features": rng.normal(size=(15, 5)) @ side_information.T,
        "hidden factors": rng.normal(size=(15, 3)) @ rng.normal(size=(3, 40)),
        "clusters": rng.normal(size=(15, 5))[:, rng.integers(5, size=40)],
    }[kind]
    values = told + 0.2 * rng.normal(size=(15, 40))
    holes = np.where(rng.random(values.shape) < 0.3, np.nan, values)
    missing = np.isnan(holes)

    def error(filled: np.ndarray) -> float:
        return float(np.sqrt(((filled - values)[missing] ** 2).mean()))

    rows, columns = (impute.KNNImputer().fit_transform(part) for part in (holes, holes.T))
    neighbours = min(error(rows), error(columns.T))
    model = tc.MatrixCompletion(passes="auto").fit(holes, features=side_information)
    # Of 180 missing entries, an error is known to 5 %.
    assert error(model.predict()) < 1.05 * neighbours
    assert error(model.predict()) < error(tc.MatrixCompletion().fit(holes, features=side_information).predict()) * 1.15
