"""Tables come out of files as they went in: byte for byte where the format allows, equal frames elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_cntk.matrices.cells import Reading
from torch_cntk.matrices.files import Table, read_long, read_numbers
from torch_cntk.matrices.written import check_table_output, write_table

pandas = pytest.importorskip("pandas")

WIDE = "gene,007,p 2,NA\ng1,1.10,-2e-3,4\n010,5,0.50,1e5\nNA,7,8.,9\n"
LONG = "user,item,rating\nu1,a,5\nu1,b,3.0\nu2,a,1e0\nu2,b,4\n"
GCT2 = "#1.2\n2\t3\nName\tDescription\ts1\ts2\ts3\n007\tna\t1.50\t2\t3\nG2\tsome text\t4\t5\t6e0\n"
GCT3 = (
    "#1.3\n2\t3\t1\t2\nid\tpr_symbol\ts1\ts2\ts3\ndose\t-666\t1\t2\t5\nunit\t-666\tuM\tuM\tuM\n"
    "g1\tTP53\t1.50\t2\t3\ng2\tEGFR\t4\t5\t6\n"
)
GERMAN = "Gen;007;p2\ng1;1,10;-2\nÄ;3,5;4\n"

TEXTS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "plain": ("t.csv", WIDE.encode(), {}),
    "semicolons": ("t.csv", WIDE.replace(",", ";").encode(), {}),
    "decimal commas": ("t.csv", GERMAN.encode(), {}),
    "latin-1": ("t.csv", GERMAN.encode("latin-1"), {"encoding": "latin-1"}),
    "cp1252 and Windows' ends": ("t.csv", GERMAN.replace("\n", "\r\n").encode("cp1252"), {"encoding": "cp1252"}),
    "old ends": ("t.csv", WIDE.replace("\n", "\r").encode(), {}),
    "mark of UTF-8": ("t.csv", b"\xef\xbb\xbf" + GERMAN.encode(), {}),
    "UTF-16": ("t.csv", GERMAN.encode("utf-16"), {}),
    "UTF-16, big end first": ("t.csv", b"\xfe\xff" + GERMAN.encode("utf-16-be"), {}),
    "tabs": ("t.tsv", WIDE.replace(",", "\t").encode(), {}),
    "tabs in .txt": ("t.txt", WIDE.replace(",", "\t").encode(), {}),
    "bars": ("t.csv", WIDE.replace(",", "|").encode(), {}),
    "two colons": ("t.csv", WIDE.replace(",", "::").encode(), {"separator": "::"}),
    "spaces behind commas": ("t.csv", WIDE.replace(",", ", ").encode(), {}),
    "no end of the last line": ("t.csv", WIDE.rstrip().encode(), {}),
    "blank lines": ("t.csv", WIDE.replace("010", "\n010").encode() + b"\n\n", {}),
    "comments": ("t.csv", b"# a, b\n# c\n" + WIDE.encode() + b"# end\n", {}),
    "commas at ends": ("t.csv", WIDE.replace("\n", ",\n").encode(), {}),
    "all quoted": ("t.csv", ('"' + WIDE.strip().replace(",", '","').replace("\n", '"\n"') + '"\n').encode(), {}),
    "quoted labels": ("t.csv", WIDE.replace("g1,", '"g1, the ""first"""' + ",").replace("\n", "\r\n").encode(), {}),
    "labels of several lines": ("t.csv", WIDE.replace("010", '"010\nand more"').encode(), {}),
    "no corner, as R writes": ("t.csv", WIDE.replace("gene,", "").encode(), {}),
    "an empty corner": ("t.csv", WIDE.replace("gene", "").encode(), {}),
    "compressed": ("t.csv.gz", gzip.compress(WIDE.encode(), mtime=0), {}),
    "long": ("t.csv", LONG.encode(), {"long": ["user", "item", "rating"]}),
    "long without a header": ("t.tsv", LONG.partition("\n")[2].replace(",", "\t").encode(), {"long": ["1", "2", "3"]}),
    "GCT 1.2": ("t.gct", GCT2.encode(), {}),
    "GCT 1.3": ("t.gct", GCT3.encode(), {}),
}


def read(path: Path, options: dict[str, Any]) -> Table:
    long = options.get("long")
    reading = Reading(**{key: value for key, value in options.items() if key != "long"})
    return read_long(path, long, reading) if long else read_numbers(path, reading)


def round_trip(path: Path, options: dict[str, Any]) -> Path:
    table = read(path, options)
    out = path.parent / f"out-{path.name}"
    check_table_output(out, path)
    write_table(out, table.frame.astype(float), table)
    return out


@pytest.mark.parametrize("name", TEXTS)
def test_text_without_gaps_comes_back_byte_for_byte(name: Any, tmp_path: Path) -> None:
    file, content, options = TEXTS[name]
    (tmp_path / file).write_bytes(content)
    assert round_trip(tmp_path / file, options).read_bytes() == content


@pytest.mark.parametrize("name", [name for name in TEXTS if "long" not in name])
def test_of_text_with_gaps_the_gaps_alone_are_changed(name: Any, tmp_path: Path) -> None:
    """One number is taken out, whichever way it is written, and put back: what the text was, but for that number."""
    file, content, options = TEXTS[name]
    path = tmp_path / file
    path.write_bytes(content)
    whole = read(path, options)
    assert whole.cells is not None
    last = whole.cells.rows[-1][-1]
    encoding = whole.cells.dialect.encoding
    text = whole.cells.text
    place = text.rindex(last)
    holed = (text[:place] + text[place + len(last) :]).encode(encoding)
    mark = whole.cells.dialect.mark
    path.write_bytes(gzip.compress(mark + holed) if file.endswith(".gz") else mark + holed)
    table = read(path, options)
    assert table.frame.isna().to_numpy().sum() == 1
    out = tmp_path / f"out-{file}"
    write_table(out, table.frame.fillna(2.5), table)
    written = gzip.decompress(out.read_bytes()) if file.endswith(".gz") else out.read_bytes()
    number = "2,5" if whole.decimal == "," else "2.5"
    assert written == mark + (text[:place] + number + text[place + len(last) :]).encode(encoding)


def frame() -> Any:
    values = {"a": [1.5, 2.25, 3.0], "007": [1, 2, 3], "c": np.array([0.1, 0.2, 0.3], np.float32)}
    return pandas.DataFrame(values, index=pandas.Index(["g1", "010", "NA"], name="gene"))


def nullable() -> Any:
    return frame().astype({"a": "Float64", "007": "Int64", "c": "Float32"}).reset_index()


def levels() -> Any:
    index = pandas.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["gene", "visit"])
    return frame().set_axis(index)


def to_gctx(data: Any, path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file["0/DATA/0/matrix"] = data.to_numpy(dtype=np.float32).T
        file["0/META/ROW/id"] = [label.encode() for label in data.index]
        file["0/META/COL/id"] = [label.encode() for label in data.columns]
        file["0/META/COL/dose"] = np.arange(3)


def from_gctx(path: Path) -> Any:
    with pytest.importorskip("h5py").File(path) as file:
        dose = file["0/META/COL/dose"][()].tolist()
        return pandas.DataFrame(file["0/DATA/0/matrix"][()].T, columns=[f"dose {d}" for d in dose])


def to_h5ad(data: Any, path: Path, sparse: bool = False) -> None:
    anndata = pytest.importorskip("anndata")
    scipy = pytest.importorskip("scipy.sparse")
    values = data.to_numpy(dtype=np.float32)
    held = anndata.AnnData(
        scipy.csr_matrix(values) if sparse else values,
        obs=pandas.DataFrame({"kind": list("xyz")}, index=list(data.index)),
        var=pandas.DataFrame({"chip": [1, 2, 3]}, index=list(data.columns)),
    )
    held.uns["note"] = "kept"
    held.write_h5ad(path)


def from_h5ad(path: Path) -> Any:
    held = pytest.importorskip("anndata").read_h5ad(path)
    assert held.uns["note"] == "kept"
    values = held.X.toarray() if hasattr(held.X, "toarray") else held.X
    return pandas.concat(
        [pandas.DataFrame(values, held.obs_names, held.var_names), held.obs["kind"].astype(str)], axis=1
    )


def to_excel(data: Any, path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    data.to_excel(path)
    book = openpyxl.load_workbook(path)
    book.create_sheet("notes")["A1"] = "kept"
    book.worksheets[0]["B2"].number_format = "0.00"
    book.save(path)


def from_excel(path: Path) -> Any:
    book = pytest.importorskip("openpyxl").load_workbook(path)
    assert book["notes"]["A1"].value == "kept"
    assert book.worksheets[0]["B2"].number_format == "0.00"
    return pandas.read_excel(path, dtype=object)


def written_by(name: str) -> Callable[[Any, Path], None]:
    return lambda data, path: getattr(data, name)(path)


BINARY: dict[str, tuple[str, Callable[[], Any], Callable[[Any, Path], None], Callable[[Path], Any]]] = {
    "Parquet": ("t.parquet", frame, written_by("to_parquet"), pandas.read_parquet),
    "Parquet, labels in a column": ("t.parquet", nullable, written_by("to_parquet"), pandas.read_parquet),
    "Parquet, two levels": ("t.parquet", levels, written_by("to_parquet"), pandas.read_parquet),
    "Feather": ("t.feather", nullable, written_by("to_feather"), pandas.read_feather),
    "Arrow": ("t.arrow", nullable, written_by("to_feather"), pandas.read_feather),
    "Excel": ("t.xlsx", frame, to_excel, from_excel),
    "GCTX": ("t.gctx", frame, to_gctx, from_gctx),
    "h5ad": ("t.h5ad", frame, to_h5ad, from_h5ad),
    "h5ad, sparse": ("t.h5ad", frame, lambda data, path: to_h5ad(data, path, True), from_h5ad),
}


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_tables_in_containers_come_back(name: Any, gaps: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file, make, write, load = BINARY[name]
    data = make()
    path = tmp_path / file
    options = {"zeros": "missing"} if "sparse" in name else {}
    first = list(data.columns).index("a")
    if gaps:
        data.iloc[1, first] = np.nan if "sparse" not in name else 0.0
    write(data, path)
    before = load(path)
    table = read(path, options)
    assert list(table.frame.columns) == ["a", "007", "c"]
    assert int(table.frame.isna().to_numpy().sum()) == int(gaps)
    out = tmp_path / f"out-{file}"
    check_table_output(out, path)
    write_table(out, table.frame.astype("float64").fillna(9.5), table)
    after = load(out)
    if gaps:
        column = before.columns[first if name not in ("Excel",) else 1]
        assert float(after[column].iloc[1]) == 9.5
        before.loc[before.index[1], column] = 9.5
    pandas.testing.assert_frame_equal(after, before)


def test_there_are_at_least_thirty_files() -> None:
    assert len(TEXTS) + len(BINARY) >= 30


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".feather", ".xlsx"])
def test_one_format_is_written_as_another(suffix: Any, tmp_path: Path) -> None:
    path, out = tmp_path / "t.csv", tmp_path / f"out{suffix}"
    path.write_text(WIDE)
    table = read_numbers(path)
    write_table(out, table.frame, table)
    again = read_numbers(out)
    assert list(again.frame.index) == ["g1", "010", "NA"]
    assert list(again.frame.columns) == ["007", "p 2", "NA"]
    assert np.array_equal(again.frame.to_numpy(), table.frame.to_numpy())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("t.gct", b"#1.2\n3\t3\nName\tDescription\ts1\ts2\ts3\na\tb\t1\t2\t3\n", "expected 3 rows and 3 columns"),
        ("t.gct", b"a\tb\nc\td\n", "expected a GCT file"),
        ("t.gctx", b"HDF?", "expected a GCTX file"),
        ("t.h5ad", b"HDF?", "expected an h5ad file"),
        ("t.parquet", b"PAR?", "pyarrow cannot read"),
        ("t.csv.gz", b"a,b\n1,2\n", "expected .* to be compressed"),
        ("t.parquet.gz", b"", "expected a table in .csv"),
        ("t.gct", GCT2.replace("4", "2020-01-31").encode(), "the date '2020-01-31' in line 5 .row 'G2'., column 's1'"),
    ],
)
def test_files_that_are_not_what_they_are_called_are_refused(
    file: Any, content: Any, message: Any, tmp_path: Path
) -> None:
    pytest.importorskip({".gctx": "h5py", ".h5ad": "anndata", ".parquet": "pyarrow"}.get(Path(file).suffix, "pandas"))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_numbers(tmp_path / file)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_what_zeros_of_a_sparse_matrix_mean_is_asked(tmp_path: Path) -> None:
    data = frame()
    data.iloc[1, 0] = 0.0
    to_h5ad(data, tmp_path / "t.h5ad", sparse=True)
    with pytest.raises(ValueError, match="--zeros missing or --zeros values"):
        read_numbers(tmp_path / "t.h5ad")
    for zeros, missing in (("missing", 1), ("values", 0)):
        found = read(tmp_path / "t.h5ad", {"zeros": zeros}).frame
        assert int(found.isna().to_numpy().sum()) == missing


def test_a_format_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    with pytest.raises(ValueError, match=r"expected a table of the same format to write t.gctx, got t.csv"):
        check_table_output(tmp_path / "t.gctx", tmp_path / "t.csv")
