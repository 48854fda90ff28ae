"""Tables go in and come out as people have them: labels, names, dtypes, masks; what is no number is refused by name."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

import torch_cntk as tc
from torch_cntk._internal import memory
from torch_cntk.matrices.features import TableEncoder, laplacian, one_hot

pandas = pytest.importorskip("pandas")

COLUMNS = [f"p{j}" for j in range(8)]


@pytest.fixture
def table() -> Any:
    draws = np.random.default_rng(0)
    values = draws.normal(size=(3, 8)).astype(np.float32).astype(float)
    values[draws.random((3, 8)) < 0.3] = np.nan
    return pandas.DataFrame(values, index=pandas.Index(["g1", "g2", "g3"], name="gene"), columns=COLUMNS)


@pytest.fixture
def features() -> Any:
    values = np.random.default_rng(1).normal(size=(8, 3))
    return pandas.DataFrame(values, index=pandas.Index(COLUMNS, name="patient"), columns=list("abc"))


def completed(table: Any, features: Any, **options: Any) -> Any:
    return tc.MatrixCompletion(ridge=1e-2).fit(table, features=features, **options).predict()


@pytest.mark.parametrize(
    "index",
    [
        pandas.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["gene", "replicate"]),
        pandas.date_range("2020-01-01", periods=3, name="day"),
        pandas.CategoricalIndex(["x", "y", "z"], name="kind"),
        pandas.RangeIndex(3, 6),
        pandas.Index([True, 2, "c"], name=("a", "b")),
    ],
)
def test_labels_and_names_come_back(index: Any, table: Any, features: Any) -> None:
    given = table.set_axis(index).rename_axis(columns="patient")
    given.attrs["unit"] = ["nM"]
    filled = completed(given, features)
    pandas.testing.assert_index_equal(filled.index, index)
    pandas.testing.assert_index_equal(filled.columns, given.columns)
    assert filled.attrs == {"unit": ["nM"]}
    assert filled.attrs["unit"] is not given.attrs["unit"]
    new = tc.MatrixCompletion().fit(given, features=features).predict(features=features[:2])
    assert new.columns.name == "patient"
    pandas.testing.assert_index_equal(new.index, index)


def test_columns_of_several_levels_are_found(table: Any, features: Any) -> None:
    levels = pandas.MultiIndex.from_tuples([(name, j) for j, name in enumerate(COLUMNS)], names=["patient", "visit"])
    filled = completed(table.set_axis(levels, axis=1), features.set_axis(levels)[::-1])
    pandas.testing.assert_index_equal(filled.columns, levels)
    assert np.array_equal(filled.to_numpy(), completed(table, features).to_numpy())


@pytest.mark.parametrize(
    ("dtype", "back"),
    [
        ("float32", "float32"),
        ("Float32", "Float32"),
        ("Float64", "Float64"),
        (object, "float64"),
        (pandas.SparseDtype("float64", np.nan), "float64"),
        ("category", "float64"),
    ],
)
def test_dtypes_of_frames_come_back(dtype: Any, back: Any, table: Any, features: Any) -> None:
    filled = completed(table.astype(dtype), features)
    assert set(map(str, filled.dtypes)) == {back}
    expected = completed(table, features).to_numpy()
    # A float32 keeps 24 bits of what was computed in float64.
    assert np.allclose(filled.to_numpy(dtype=float), expected, rtol=2**-23, atol=1e-7)
    known = table.notna().to_numpy()
    assert np.array_equal(filled.to_numpy(dtype=float)[known], table.to_numpy()[known])


def test_each_column_has_its_own_dtype(table: Any, features: Any) -> None:
    given = table.fillna(0).round().clip(0, 1)
    given = given.astype({"p0": "Int64", "p1": "float32", "p2": "boolean", "p3": "int8"})
    given.loc["g2", ["p0", "p2"]] = pandas.NA
    filled = completed(given, features)
    assert [str(dtype) for dtype in filled.dtypes[:4]] == ["Float64", "float32", "Float64", "float64"]
    assert filled.notna().to_numpy().all()
    left_out = tc.MatrixCompletion(ridge=1e-2).fit(given, features=features).left_out()
    assert left_out["p0"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("missing", [None, np.nan, pandas.NA, pandas.NaT, Decimal("NaN"), " "])
def test_every_kind_of_missing_is_missing(missing: Any, table: Any, features: Any) -> None:
    objects = np.array(table, dtype=object)
    objects[table.isna()] = missing
    assert np.array_equal(completed(objects, features.to_numpy()), completed(table, features).to_numpy())


@pytest.mark.parametrize("fill", [-9999.0, 0.0, np.inf])
def test_what_a_masked_array_hides_is_missing(fill: Any, table: Any, features: Any) -> None:
    holes = table.isna().to_numpy()
    given = np.ma.array(np.where(holes, fill, table), mask=holes)
    filled = completed(given, features.to_numpy())
    assert isinstance(filled, np.ma.MaskedArray)
    assert not np.ma.getmaskarray(filled).any()
    assert np.array_equal(filled.data, completed(table.to_numpy(), features.to_numpy()))
    with pytest.warns(UserWarning, match="columns have no features, or not all"):
        completed(table.to_numpy(), np.ma.masked_less(features.to_numpy(), 0))


def test_sparse_arrays_need_to_be_told_what_is_missing(table: Any, features: Any) -> None:
    sparse = scipy.sparse.csr_matrix(np.nan_to_num(table))
    with pytest.raises(TypeError, match="expected observed beside the matrix"):
        completed(sparse, features.to_numpy())
    filled = completed(sparse, scipy.sparse.coo_array(features.to_numpy()), observed=table.notna().to_numpy())
    # Products of features are summed in another order where they lie otherwise in memory.
    assert np.allclose(filled, completed(table.to_numpy(), features.to_numpy()), rtol=1e-12)
    tensor = torch.tensor(np.nan_to_num(table)).to_sparse()
    with pytest.raises(TypeError, match="expected observed beside the matrix"):
        completed(tensor, features.to_numpy())


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (pandas.Timestamp("2020-01-01"), "dates"),
        (pandas.Timedelta("1D"), "durations"),
        (pandas.Timestamp("2020-01-01", tz="UTC"), "dates"),
        (pandas.Period("2020-01"), "period"),
        (1j, "complex"),
        ("high", "high"),
    ],
)
def test_what_is_no_number_is_refused_by_name(entry: Any, told: Any, table: Any, features: Any) -> None:
    column = pandas.Series([entry] * 3, index=table.index)
    with pytest.raises(TypeError, match=f"column 'p3'.*{told}|{told}.*column 'p3'"):
        completed(table.assign(p3=column), features)
    line = pandas.Series([entry] * 8, index=COLUMNS)
    if told != "high":
        with pytest.raises(TypeError, match=r"TableEncoder|column 'a'"):
            completed(table, features.assign(a=line))
        with pytest.raises(TypeError, match="column 'when'"):
            TableEncoder().fit(pandas.DataFrame({"when": column}))


@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, pandas.DataFrame, lambda x: pandas.DataFrame(x, dtype="Int64")]
)
def test_integers_that_float64_leaves_out_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"at most 2\^53"):
        tc.MatrixCompletion().fit(kind([[2**53 + 1, 2]]), features=np.eye(2))
    assert tc.MatrixCompletion().fit(kind([[2**53, 2]]), features=np.eye(2)) is not None


def test_masks_and_weights_are_found_by_label(table: Any, features: Any) -> None:
    observed = table.notna()
    whole = table.fillna(1e6)
    turned = observed.iloc[::-1, ::-1]
    assert completed(whole, features, observed=turned).equals(completed(table, features))
    weight = pandas.Series(np.arange(1.0, 9.0), index=COLUMNS)
    expected = completed(table, features, column_weight=weight.to_numpy())
    assert completed(table, features, column_weight=weight[::-1]).equals(expected)
    with pytest.raises(ValueError, match="labels of the matrix"):
        completed(whole, features, observed=observed.rename(columns={"p0": "q"}))
    with pytest.raises(ValueError, match="column weights for each label, got none for 'p7'"):
        completed(table, features, column_weight=weight[:-1])
    with pytest.raises(TypeError, match="boolean"):
        completed(whole, features, observed=observed.astype("boolean").mask(observed))


def test_names_of_features_are_those_of_the_fit(table: Any, features: Any) -> None:
    model = tc.MatrixCompletion().fit(table, features=features)
    with pytest.raises(ValueError, match=r"expected features named \['a', 'b', 'c'\] in this order"):
        model.predict(features=features[["b", "a", "c"]])
    with pytest.raises(ValueError, match="0 is text in one table and a number in the other"):
        completed(table.set_axis(range(8), axis=1), features.set_axis(map(str, range(8))))


@pytest.mark.parametrize(
    "side", [[[0.5], [1.0], [2.0], [-3.0]], [[1, 2], [2, 4], [-3, -6], [4, 8]], [[0, 1.5], [0, 2.5], [0, 3], [0, 1]]]
)
def test_a_number_of_which_the_sign_alone_is_left_is_said(side: Any) -> None:
    values = np.array([[1.0, np.nan, 2.0, 3.0]])
    with pytest.warns(UserWarning, match="nothing but their signs is left") as caught:
        model = tc.MatrixCompletion(ridge=0.1).fit(values, features=np.array(side, float))
    assert caught[0].filename == __file__
    # It was standardised, beside a constant: what was said can be done by hand.
    numbers = np.array(side, float)
    spread = numbers.std(0)
    standard = np.c_[(numbers - numbers.mean(0)) / np.where(spread > 0, spread, 1), np.ones(4)]
    expected = tc.MatrixCompletion(ridge=0.1).fit(values, features=standard)
    assert np.allclose(model.predict(), expected.predict(), rtol=1e-12)
    new = model.predict(features=numbers[:2])
    assert np.allclose(new, expected.predict(features=standard[:2]), rtol=1e-12)


def test_one_entry_and_one_row() -> None:
    assert tc.MatrixCompletion().fit([[3.0]], features=[[1.0]]).predict().tolist() == [[3.0]]
    filled = tc.MatrixCompletion().fit([[3.0, np.nan]], features=[[1.0, 2.0], [2.0, 1.0]]).predict()
    assert filled.tolist() == [[3.0, 3.0]]
    with pytest.raises(ValueError, match="two axes"):
        tc.MatrixCompletion().fit(pandas.Series([1.0, 2.0]), features=np.eye(2))


def test_frames_of_polars_come_back(table: Any, features: Any) -> None:
    polars = pytest.importorskip("polars")
    given = polars.from_pandas(table.reset_index()).with_columns(polars.col("p1").cast(polars.Float32))
    filled = completed(given, features)
    assert filled.columns == ["gene", *COLUMNS]
    assert filled["gene"].to_list() == ["g1", "g2", "g3"]
    assert filled.schema["p1"] == polars.Float32
    expected = completed(table, features).to_numpy()
    assert np.allclose(filled.drop("gene").to_numpy(), expected, rtol=2**-23, atol=1e-7)
    side = polars.from_pandas(features.reset_index())
    assert np.allclose(completed(given, side).drop("gene").to_numpy(), expected, rtol=2**-23, atol=1e-7)


def test_tables_of_arrow_come_back(table: Any, features: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    given = pyarrow.Table.from_pandas(table.reset_index(), preserve_index=False)
    given = given.set_column(2, "p1", given["p1"].cast(pyarrow.float32()))
    filled = completed(given, features)
    assert isinstance(filled, pyarrow.Table)
    assert filled.column_names == ["gene", *COLUMNS]
    assert filled["gene"].to_pylist() == ["g1", "g2", "g3"]
    assert filled.schema.field("p1").type == pyarrow.float32()
    expected = completed(table, features).to_numpy()
    found = np.stack([filled[name].to_numpy() for name in COLUMNS], 1)
    assert np.allclose(found, expected, rtol=2**-23, atol=1e-7)
    numbers = given.drop_columns(["gene"])
    assert completed(numbers, features).column_names == COLUMNS
    dates = given.append_column("when", pyarrow.array([datetime.date(2020, 1, 1)] * 3))
    with pytest.raises(TypeError, match="column 'when'"):
        completed(dates, features)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_annotated_matrices_come_back(table: Any, features: Any) -> None:
    anndata = pytest.importorskip("anndata")
    rows = pandas.DataFrame({"kind": list("xyz")}, index=list(table.index))
    given = anndata.AnnData(table.to_numpy().astype(np.float32), obs=rows, var=pandas.DataFrame(index=COLUMNS))
    filled = completed(given, features[::-1])
    assert filled.X.dtype == np.float32
    assert list(filled.obs["kind"]) == list("xyz")
    assert np.allclose(filled.X, completed(table, features).to_numpy(), rtol=2**-23, atol=1e-7)
    new = tc.MatrixCompletion().fit(given, features=features).predict(features=features[:2].rename({"p0": "q"}))
    assert list(new.var_names) == ["q", "p1"]
    sparse = anndata.AnnData(scipy.sparse.csr_matrix(table.fillna(0).to_numpy()), obs=rows, var=given.var)
    with pytest.raises(TypeError, match="expected observed beside the matrix, got a sparse array alone"):
        completed(sparse, features)
    assert np.allclose(completed(sparse, features, observed=table.notna().to_numpy()).X, filled.X, atol=1e-6)


# Kernels that are zero.


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, "cv"])
@pytest.mark.parametrize("solver", ["auto", tc.ConjugateGradient()])
@pytest.mark.parametrize("seen", [[2], [2, 3], [0, 1, 2, 3]])
@pytest.mark.filterwarnings("ignore:the kernel between observed columns is singular", "ignore:.*residual")
def test_columns_of_which_nothing_is_known_say_nothing(depth: Any, ridge: Any, solver: Any, seen: Any) -> None:
    features = torch.zeros(4, 2, dtype=torch.float64)
    if len(seen) < 4:
        features[:2] = torch.eye(2)
    values = torch.full((2, 4), torch.nan, dtype=torch.float64)
    values[0, seen] = torch.arange(1.0, 1 + len(seen), dtype=torch.float64)
    values[1, :2] = torch.tensor([1.0, 5.0], dtype=torch.float64)
    model = tc.MatrixCompletion(depth, ridge=ridge, solver=solver, normalize=False).fit(values, features=features)
    filled = model.predict()
    assert bool(torch.isfinite(filled).all())
    # What has no features is predicted by the mean of its row.
    missing = torch.isnan(values[0])
    assert torch.allclose(filled[0, missing], values[0, seen].mean())
    rows = torch.zeros(2, 1)
    both = tc.MatrixCompletion(depth, ridge=ridge, solver=solver, normalize=False, row_identity=0.0)
    assert bool(torch.isfinite(both.fit(values, features=features, row_features=rows).predict()).all())


# Features.


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([1, 2, 1]),
        [torch.tensor(1), torch.tensor(2), torch.tensor(1)],
        np.array([0.5, 1.5, 0.5]),
        [np.array("a"), "b", "a"],
        [float("nan"), 1.0, float("nan")],
        [None, "a", None],
        pandas.Series(["a", pandas.NA, "a"], dtype="string"),
    ],
)
def test_equal_labels_are_one_category(labels: Any) -> None:
    assert one_hot(labels).tolist() == [[1, 0], [0, 1], [1, 0]]


def test_labels_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in one line, \[n\], got shape \(2, 2\)"):
        one_hot(torch.eye(2))
    with pytest.raises(ValueError, match="single labels"):
        one_hot([np.eye(2)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="labels that can be compared"):
        one_hot([[1], [2]])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "column",
    [
        pandas.array([1, pandas.NA, 3], dtype="Int64"),
        torch.tensor([1.0, torch.nan, 3.0]),
        np.ma.array([1, 9, 3], mask=[False, True, False]),
        [Decimal(1), None, Decimal(3)],
        [1.0, pandas.NaT, 3],
    ],
)
def test_numbers_with_gaps_are_standardised(column: Any) -> None:
    assert TableEncoder().fit_transform({"x": column}).tolist() == [[-1.0], [0.0], [1.0]]


def test_columns_of_one_name_are_all_encoded() -> None:
    frame = pandas.DataFrame([[1, "x"], [3, "y"]], columns=["a", "a"])
    encoder = TableEncoder().fit(frame)
    assert encoder.transform(frame).shape == (2, 3)
    with pytest.raises(ValueError, match=r"expected the columns \['a'\] as well"):
        encoder.transform(frame.iloc[:, :1])


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ([1.0, np.inf], ValueError, "got inf in line 1 \\('l1'\\)"),
        ([1e200, -1e200], ValueError, "whose squares are finite"),
        ([datetime.date(2020, 1, 1)] * 2, TypeError, "make numbers of dates"),
        ([1j, 2.0], TypeError, "expected real numbers in column 'x'"),
    ],
)
def test_bad_columns_are_refused_by_name_and_line(column: Any, kind: Any, message: Any) -> None:
    with pytest.raises(kind, match=message):
        TableEncoder().fit(pandas.DataFrame({"x": column}, index=["l0", "l1"]))


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        TableEncoder().fit({"a": [1], "b": [1, 2]})
    with pytest.raises(ValueError, match="one entry a line"):
        TableEncoder().fit({"a": np.eye(2)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="columns by name"):
        TableEncoder().fit(np.eye(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="numbers, as in fit"):
        TableEncoder().fit({"a": [1, 2]}).transform({"a": ["x"]})


@pytest.mark.parametrize(
    "work",
    [
        lambda: laplacian(torch.zeros(1, 1).expand(2000, 2000)),
        lambda: one_hot(range(3000)),
        lambda: TableEncoder().fit({"name": [str(k) for k in range(3000)]}),
    ],
)
def test_bytes_are_counted_before_long_work(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1 << 24)
    with pytest.raises(tc.OutOfMemoryError, match=r"needs .* but 16.8 MB are free"):
        work()
