"""Side information of any kind is encoded when a matrix is fitted, and remembered."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import torch_cntk as tc
from torch_cntk.matrices.features import TableEncoder

pandas = pytest.importorskip("pandas")

COLUMNS = [f"p{j}" for j in range(12)]


@pytest.fixture
def table(rng: Any) -> Any:
    values = rng.normal(size=(4, 12))
    values[rng.random((4, 12)) < 0.3] = np.nan
    return pandas.DataFrame(values, index=list("abcd"), columns=COLUMNS)


@pytest.fixture
def rng(generator: Any) -> np.random.Generator:
    return np.random.default_rng(generator.initial_seed() % 2**32)


@pytest.fixture
def sheet(rng: Any) -> Any:
    return pandas.DataFrame(
        {"age": rng.integers(20, 80, 12), "tissue": np.array(["lung", "skin", "bone"])[np.arange(12) % 3]},
        index=COLUMNS,
    )


def test_frames_with_categories_are_encoded_and_remembered(table: Any, sheet: Any, rng: Any) -> None:
    model = tc.MatrixCompletion(ridge=0.1).fit(table, features=sheet.iloc[rng.permutation(12)])
    encoder = TableEncoder().fit(sheet)
    by_hand = tc.MatrixCompletion(ridge=0.1).fit(table.to_numpy(), features=encoder.transform(sheet))
    assert np.allclose(model.predict(), by_hand.predict(), rtol=1e-9)
    new = pandas.DataFrame({"tissue": ["bone", "hair"], "age": [33, 44]}, index=["x", "y"])
    told = pickle.loads(pickle.dumps(model)).predict(features=new)
    assert list(told.columns) == ["x", "y"]
    assert np.allclose(told, by_hand.predict(features=encoder.transform(new)), rtol=1e-9)
    with pytest.raises(ValueError, match=r"expected the columns \['tissue'\] as well"):
        model.predict(features=new[["age"]])
    with pytest.raises(TypeError, match=r"a frame of features, as in fit\(\), got ndarray"):
        model.predict(features=np.ones((2, 4)))


def test_frames_of_polars_are_encoded(table: Any, sheet: Any) -> None:
    polars = pytest.importorskip("polars")
    given = polars.DataFrame({"id": sheet.index.tolist(), **{name: sheet[name].tolist() for name in sheet}})
    expected = tc.MatrixCompletion().fit(table, features=sheet).predict()
    assert np.allclose(tc.MatrixCompletion().fit(table, features=given.reverse()).predict(), expected, rtol=1e-9)


@pytest.mark.parametrize("encoded", [True, False])
def test_lines_without_metadata_are_the_mean_of_the_others(table: Any, sheet: Any, encoded: Any) -> None:
    side = sheet if encoded else pandas.DataFrame({"x": np.arange(12.0), "y": 3.0}, index=COLUMNS)
    with pytest.warns(UserWarning, match=r"2 of 12 columns have no features.* column 3 \('p3'\)\); .* the mean of the"):
        filled = tc.MatrixCompletion().fit(table, features=side.drop(index=["p3", "p7"])).predict()
    rest = side.drop(index=["p3", "p7"])
    numbers = TableEncoder().fit(rest).transform(rest).numpy() if encoded else rest.to_numpy()
    by_hand = pandas.DataFrame(numbers, index=rest.index)
    for label in ("p3", "p7"):
        by_hand.loc[label] = numbers.mean(0)
    assert np.allclose(filled, tc.MatrixCompletion().fit(table, features=by_hand).predict(), rtol=1e-9)


def test_lines_that_are_average_get_a_constant_beside_them(table: Any) -> None:
    side = pandas.DataFrame({"a": [1.0, 3.0, 2.0] * 4, "b": ["x", None, None] * 4}, index=COLUMNS)
    with pytest.warns(UserWarning, match=r"4 of 12 columns .*column 2 \('p2'\)\) have features that say nothing"):
        model = tc.MatrixCompletion().fit(table, features=side)
    assert np.isfinite(model.predict().to_numpy()).all()
    assert np.isfinite(model.predict(features=side[:3]).to_numpy()).all()


def test_what_cannot_be_a_gap_is_refused(table: Any, sheet: Any) -> None:
    numbers = pandas.DataFrame(np.ones((12, 2)) * np.arange(12)[:, None] ** [1, 2], index=COLUMNS)
    with pytest.raises(ValueError, match="none for 12 of 12"):
        tc.MatrixCompletion().fit(table, features=numbers.rename(str.upper))
    numbers[0] = np.nan
    with pytest.raises(ValueError, match="expected finite features, got NaN or infinity for 12 columns"):
        tc.MatrixCompletion().fit(table, features=numbers)
    mixed = sheet.assign(when=pandas.Timestamp("2020-01-01"))
    with pytest.raises(TypeError, match="column 'when'"):
        tc.MatrixCompletion().fit(table, features=mixed)


# The encoder beside scikit-learn's.


def test_the_encoder_is_what_scikit_learns_encoders_are() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    rng = np.random.default_rng()
    numbers, kinds = rng.normal(3, 9, 30), rng.choice(list("xyz"), 30)
    notes = [" ".join(rng.choice(["red", "blue", "sad"], 2, replace=False)) for _ in range(30)]
    frame = pandas.DataFrame({"n": numbers, "k": kinds, "t": notes})
    encoder = TableEncoder(text=["t"]).set_output(transform="pandas")
    encoded = encoder.fit_transform(frame)
    assert list(encoded) == ["n", "k_x", "k_y", "k_z", "t_blue", "t_red", "t_sad"]
    assert list(encoder.get_feature_names_out()) == list(encoded)
    standard = preprocessing.StandardScaler().fit_transform(numbers[:, None])
    assert np.allclose(encoded[["n"]], standard, rtol=1e-12)
    one_hot = preprocessing.OneHotEncoder(sparse_output=False).fit_transform(kinds[:, None])
    assert np.allclose(encoded.filter(like="k_"), one_hot, rtol=1e-12)
    words = text.TfidfVectorizer(smooth_idf=False, norm=None, binary=True).fit_transform(notes).toarray()
    assert np.allclose(encoded.filter(like="t_"), words / np.sqrt((words**2).sum(1).mean()), rtol=1e-12)


def test_output_is_what_was_set() -> None:
    polars = pytest.importorskip("polars")
    frame = pandas.DataFrame({"n": [1.0, 2.0, 5.0], "k": ["a", "b", "a"]}, index=list("xyz"))
    tensor = TableEncoder().fit_transform(frame)
    as_pandas = TableEncoder().set_output(transform="pandas").fit_transform(frame)
    assert list(as_pandas.index) == list("xyz")
    as_polars = TableEncoder().set_output(transform="polars").fit_transform(frame)
    assert isinstance(as_polars, polars.DataFrame)
    for other in (as_pandas, as_polars):
        assert list(other.columns) == ["n", "k_a", "k_b"]
        assert np.array_equal(other.to_numpy(), tensor.numpy())
    with pytest.raises(ValueError, match="one of default, pandas, polars"):
        TableEncoder().set_output(transform="arrow")  # type: ignore[arg-type]


def test_the_encoder_stands_in_a_pipeline() -> None:
    pipeline = pytest.importorskip("sklearn.pipeline")
    linear = pytest.importorskip("sklearn.linear_model")
    frame = pandas.DataFrame({"n": [1.0, 2.0, 5.0, 3.0], "k": ["a", "b", "a", "b"]})
    target = [1.0, 2.0, 5.0, 3.0]
    model = pipeline.make_pipeline(TableEncoder().set_output(transform="pandas"), linear.LinearRegression())
    assert np.allclose(model.fit(frame, target).predict(frame), target)
