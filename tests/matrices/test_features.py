"""Side information as features."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.matrices.features import TableEncoder


def test_one_hot_in_the_order_of_appearance() -> None:
    assert tc.features.one_hot(["b", "a", "b", 3]).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_concatenation_adds_covariances(generator: torch.Generator) -> None:
    first, second = (torch.randn(5, p, generator=generator, dtype=torch.float64) for p in (3, 4))
    whole = tc.features.concatenate(first, second, weights=(2, 0.5))
    assert torch.allclose(whole @ whole.T, 4 * first @ first.T + 0.25 * second @ second.T)
    assert torch.equal(tc.features.concatenate(first, second), torch.cat([first, second], 1))


def test_unit_features_have_norm_1(generator: torch.Generator) -> None:
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    features[2] = 0
    norms = tc.features.unit(features).norm(dim=1)
    assert torch.allclose(norms, torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64))


def test_numbers_are_standardised_and_missing_ones_are_the_mean() -> None:
    table: dict[str, Any] = {"dose": [1, 2.0, None, 3, float("nan")], "same": [7, 7, 7, 7, 7]}
    encoded = TableEncoder(weights={"dose": 2}).fit_transform(table)
    scale = 2 / math.sqrt(2 / 3)
    expected = torch.tensor([[-scale, 0], [0, 0], [0, 0], [scale, 0], [0, 0]], dtype=torch.float64)
    assert torch.allclose(encoded, expected)


def test_categories_are_one_hot_and_unknown_ones_are_zeros() -> None:
    encoder = TableEncoder().fit({"kind": ["b", "a", "", "b"]})
    encoded = encoder.transform({"kind": ["a", "b", "c", None]})
    assert (encoded > 0).tolist() == [[True, False], [False, True], [False, False], [False, False]]
    # Three of four lines have a category: of those the length is 1 on average over all lines.
    assert float(encoded[0].square().sum()) == pytest.approx(4 / 3)


def test_rare_words_weigh_more() -> None:
    encoder = TableEncoder(text=["target"])
    encoded = encoder.fit_transform({"target": ["EGFR, MAP kinase", "EGFR", "EGFR", "map kinase; CDK4"]})
    # Between commas or semicolons; in small letters: cdk4, egfr, map kinase.
    assert (encoded > 0).tolist() == [
        [False, True, True],
        [False, True, False],
        [False, True, False],
        [True, False, True],
    ]
    ratio = (math.log(4 / 1) + 1) / (math.log(4 / 3) + 1)
    assert float(encoded[3, 0] / encoded[0, 1]) == pytest.approx(ratio)
    assert float(encoded.square().sum(1).mean()) == pytest.approx(1)
    words = TableEncoder(text="note").fit_transform({"note": ["red fox", "fox"]})
    assert (words > 0).tolist() == [[True, True], [True, False]]


def test_columns_are_weighted_or_left_out() -> None:
    table: dict[str, Any] = {"a": [1, 2], "b": ["x", "y"]}
    whole = TableEncoder(weights={"b": 3}).fit_transform(table)
    assert float(whole[:, 1:].square().sum(1).mean()) == pytest.approx(9)
    assert TableEncoder(weights={"a": 0}).fit_transform(table).shape == (2, 2)


def test_frames_are_tables() -> None:
    pandas = pytest.importorskip("pandas")
    table: dict[str, Any] = {"a": [1.0, 2.5, 4.0], "b": ["x", "y", None], "c": [True, False, True]}
    expected = TableEncoder().fit_transform(table)
    assert torch.equal(TableEncoder().fit_transform(pandas.DataFrame(table)), expected)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: tc.features.one_hot([]), "at least one label"),
        (lambda: tc.features.concatenate(torch.ones(2, 1), torch.ones(3, 1)), "with the same n"),
        (lambda: tc.features.concatenate(), "got none"),
        (lambda: tc.features.concatenate(torch.ones(2, 1), weights=(1, 2)), "a weight for each of 1 blocks"),
        (lambda: tc.features.laplacian(torch.ones(2, 3)), r"adjacency matrix \[n, n\]"),
        (lambda: tc.features.laplacian(torch.tensor([[0.0, 1], [0, 0]])), "symmetric"),
        (lambda: tc.features.laplacian(-torch.ones(2, 2)), "not negative"),
        (lambda: tc.features.laplacian(torch.ones(2, 2), -1), "shift to be at least 0"),
        (lambda: TableEncoder(text=["x"]).fit({"y": ["a"]}), r"columns named \['x'\]"),
        (lambda: TableEncoder().fit({}), "columns named somehow"),
        (lambda: TableEncoder().transform({"y": ["a"]}), "expected fit"),
        (lambda: TableEncoder().fit({"y": ["a"]}).transform({"z": ["a"]}), r"the columns \['y'\] as well"),
    ],
)
def test_bad_input_is_refused(attempt: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()
