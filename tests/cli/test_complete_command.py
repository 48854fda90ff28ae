"""``torch-cntk complete``, from files to files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.cli.main import main
from torch_cntk.matrices.features import TableEncoder

pandas = pytest.importorskip("pandas")


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def work(tmp_path: Path, generator: torch.Generator, threads: Any) -> Path:
    """A table with holes, one column of which has no entry, and features of its columns and of one more."""
    columns = [f"c{j}" for j in range(12)]
    dose = torch.rand(13, generator=generator, dtype=torch.float64).numpy()
    kind = np.array(["a", "b"])[(np.arange(13) % 2)]
    side = pandas.DataFrame({"dose": dose, "kind": kind}, index=[*columns, "new"])
    slope = torch.randn(5, 1, generator=generator, dtype=torch.float64).numpy()
    values = slope * dose[:12] + (kind[:12] == "a")
    holes = torch.rand(5, 12, generator=generator).numpy() < 0.3
    holes[:, 0], holes[:, 3], holes[:, 11] = False, False, True
    table = pandas.DataFrame(values, index=[f"r{i}" for i in range(5)], columns=columns).mask(holes)
    table.to_csv(tmp_path / "table.csv")
    table.to_csv(tmp_path / "table.tsv", sep="\t")
    side.iloc[::-1].to_csv(tmp_path / "features.csv")
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_completes_a_table(work: Any, suffix: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        f"{work / 'table'}.{suffix}",
        "--features",
        str(work / "features.csv"),
        "-o",
        f"{work / 'out'}.{suffix}",
    ]
    assert main(["complete", *arguments, "--ridge", "cv"]) == 0
    separator = {"csv": ",", "tsv": "\t"}[suffix]
    before = pandas.read_csv(work / "table.csv", index_col=0)
    after = pandas.read_csv(f"{work / 'out'}.{suffix}", index_col=0, sep=separator)
    assert list(after.index) == list(before.index)
    assert list(after.columns) == list(before.columns)
    known = before.notna().to_numpy()
    assert np.array_equal(after.to_numpy()[known], before.to_numpy()[known])
    side = pandas.read_csv(work / "features.csv", index_col=0)
    encoded = TableEncoder().fit_transform(side)[[side.index.get_loc(label) for label in before.columns]]
    expected = tc.MatrixCompletion(ridge="cv", identity=0.3).fit(before.to_numpy(), features=encoded).predict()
    assert np.allclose(after.to_numpy(), expected, rtol=1e-9)
    told = capsys.readouterr()
    assert f"filled {int((~known).sum())} of 60 entries (5 x 12)" in told.out
    assert told.err == ""


def test_predicts_columns_that_the_table_lacks(work: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(work / "table.csv"), "--features", str(work / "features.csv"), "-o", str(work / "out.csv")]
    assert main(["complete", *arguments, "--new-columns", "--ridge", "0.01", "--identity", "0.5"]) == 0
    after = pandas.read_csv(work / "out.csv", index_col=0)
    assert list(after.columns)[-1] == "new"
    assert after.notna().to_numpy().all()
    assert "added 1 column, ridge 1.0e-02" in capsys.readouterr().out


def test_rows_with_features(work: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pandas.DataFrame(
        {"group": list("xxyyx"), "note": ["a b", "b", "c", "c a", ""]}, index=[f"r{i}" for i in range(5)]
    )
    rows.to_csv(work / "rows.csv")
    arguments = [str(work / "table.csv"), "--features", str(work / "features.csv"), "-o", str(work / "out.csv")]
    arguments += ["--row-features", str(work / "rows.csv"), "--text", "note", "--hidden-layers", "2"]
    assert main(["complete", *arguments]) == 0
    assert pandas.read_csv(work / "out.csv", index_col=0).notna().to_numpy().all()


def test_rows_without_entries_are_said(work: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = pandas.read_csv(work / "table.csv", index_col=0)
    table.loc["r2"] = np.nan
    table.to_csv(work / "table.csv")
    arguments = [str(work / "table.csv"), "--features", str(work / "features.csv"), "-o", str(work / "out.csv")]
    assert main(["complete", *arguments, "--ridge", "cv", "--no-report"]) == 0
    assert "1 of 5 rows have no observed entry (the first is row 2 ('r2'))" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "none.csv"}, "there is no file"),
        ({"table": "features.csv"}, "column 'kind'; if it stands for something missing"),
        ({"features": "table.csv"}, "expected a line of features for each column, got none for 12 of 12"),
        ({"output": "out.docx"}, "expected a table in .csv, .tsv or .parquet"),
        ({"output": "nowhere/out.csv"}, "there is no folder"),
        ({"options": ["--text", "colour"]}, "got no column colour"),
        ({"options": ["--hidden-layers", "-1"]}, "expected hidden_layers to be at least 0"),
        ({"options": ["--ridge", "-1"]}, "expected ridge to be at least 0"),
    ],
)
def test_bad_input_is_told_in_a_line(work: Any, change: Any, message: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"table": "table.csv", "features": "features.csv", "output": "out.csv", "options": []} | change
    arguments = [str(work / given["table"]), "--features", str(work / given["features"])]
    assert main(["complete", *arguments, "-o", str(work / given["output"]), *given["options"]]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (work / "out.csv").exists()


def test_without_features_rows_and_columns_describe_each_other(work: Any, capsys: pytest.CaptureFixture[str]) -> None:
    table = pandas.read_csv(work / "table.csv", index_col=0).drop(columns="c11")
    table.to_csv(work / "table.csv")
    assert main(["complete", str(work / "table.csv"), "-o", str(work / "out.csv")]) == 0
    after = pandas.read_csv(work / "out.csv", index_col=0)
    expected = tc.MatrixCompletion(passes="auto").fit(table).predict()
    assert np.allclose(after, expected, rtol=1e-9)
    told = capsys.readouterr().out
    for text in (
        "passes, residual",
        "left-out entries, a fifth at a time",
        "5 nearest rows",
        "a mixture, chosen",
        "Trust",
    ):
        assert text in told


def test_what_is_written_beside_the_table(work: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    arguments = [str(work / "table.csv"), "--features", str(work / "features.csv"), "-o", str(work / "out.csv")]
    more = ["--std", str(work / "std.csv"), "--plot", str(work / "p.png"), "--by-row", str(work / "rows.csv")]
    assert main(["complete", *arguments, *more, "--ridge", "0.1", "--clip", "0", "-"]) == 0
    before = pandas.read_csv(work / "table.csv", index_col=0)
    filled, deviations = (pandas.read_csv(work / name, index_col=0) for name in ("out.csv", "std.csv"))
    assert float(filled.to_numpy()[before.isna()].min()) >= 0
    assert np.array_equal(deviations.to_numpy() > 0, before.isna().to_numpy())
    assert (work / "p.png").read_bytes().startswith(b"\x89PNG")
    rows = pandas.read_csv(work / "rows.csv", index_col=0)
    assert list(rows.index) == [f"r{i}" for i in range(5)]
    assert list(rows) == ["entries", "rmse", "r2"]
    assert "ridge 1.0e-01, as given" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--passes", "auto", "--ridge", "1", "--identity", "0"], "expected --passes without --ridge, --identity"),
        (["--clip", "2", "1"], "expected the smallest value of clip below the largest"),
        (["--plot", "p.docx"], "expected a picture in .png, .pdf, .svg"),
        (["--std", "nowhere/s.csv"], "there is no folder"),
    ],
)
def test_options_that_contradict_are_told(work: Any, options: Any, message: Any, capsys: Any) -> None:
    arguments = [str(work / "table.csv"), "--features", str(work / "features.csv"), "-o", str(work / "out.csv")]
    assert main(["complete", *arguments, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (work / "out.csv").exists()


def test_options_of_the_regression_need_features(work: Any, capsys: Any) -> None:
    for option in (["--ridge", "1"], ["--new-columns"]):
        assert main(["complete", str(work / "table.csv"), "-o", str(work / "out.csv"), *option]) == 2
        assert "expected --features beside" in capsys.readouterr().err


def test_a_long_fit_is_announced(work: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("torch_cntk.cli.complete._LONG", 0.0)
    arguments = [str(work / "table.csv"), "--features", str(work / "features.csv"), "-o", str(work / "out.csv")]
    assert main(["complete", *arguments, "--ridge", "1", "--no-report"]) == 0
    assert "this will take about 0.0 minutes" in capsys.readouterr().err


def test_the_estimate_of_seconds_grows_with_the_work() -> None:
    rng = np.random.default_rng(0)
    model = tc.MatrixCompletion(ridge="cv")
    small, large = rng.normal(size=(3, 100)), rng.normal(size=(3, 2000))
    assert 0 < model.expected_seconds(small, features=small.T) < model.expected_seconds(large, features=large.T)
    assert model.expected_seconds(small) > 0
    assert model.expected_seconds(small, features=small.T, row_features=np.eye(3)) > 0


def test_deviations_are_written_in_the_manner_of_the_table(tmp_path: Path, threads: Any) -> None:
    table = pandas.DataFrame(
        np.arange(12.0).reshape(4, 3) / 8, index=[f"{i:03d}" for i in range(4)], columns=list("abc")
    )
    table.iloc[1, 2] = np.nan
    table.to_csv(tmp_path / "table.csv", sep=";", decimal=",", index_label="id")
    arguments = ["--passes", "1", "--no-report", "-o", str(tmp_path / "out.csv"), "--std", str(tmp_path / "std.csv")]
    assert main(["complete", str(tmp_path / "table.csv"), *arguments]) == 0
    found = pandas.read_csv(tmp_path / "std.csv", sep=";", decimal=",", index_col="id", dtype={"id": str})
    assert list(found.index) == list(table.index)
    np.testing.assert_array_equal(found.to_numpy() > 0, table.isna())
    long = table.rename_axis("row").reset_index().melt("row", var_name="column").dropna()
    long.to_csv(tmp_path / "long.csv", index=False)
    assert main(["complete", str(tmp_path / "long.csv"), "--long", "row", "column", "value", *arguments]) == 0
    again = pandas.read_csv(tmp_path / "std.csv", dtype={"row": str}).pivot(
        index="row", columns="column", values="value"
    )
    np.testing.assert_array_equal(again.to_numpy() > 0, table.isna())


def test_a_first_column_that_looks_like_data_is_said(tmp_path: Path, threads: Any, capsys: Any) -> None:
    values = np.random.default_rng(0).normal(size=(4, 5))
    values[1, 2] = np.nan
    for index, said in ((False, True), (True, False)):
        pandas.DataFrame(values, columns=list("abcde")).to_csv(tmp_path / "table.csv", index=index)
        arguments = [str(tmp_path / "table.csv"), "--passes", "1", "--no-report", "-o", str(tmp_path / "out.csv")]
        assert main(["complete", *arguments]) == 0
        assert ("is taken for labels of rows and not completed" in capsys.readouterr().err) == said
