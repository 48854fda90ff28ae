"""``torch-cntk complete`` on tables as programs and people write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torch_cntk.cli.main import main
from torch_cntk.drug_response import read_drug_response

pandas = pytest.importorskip("pandas")

COLUMNS = [f"p{j}" for j in range(8)]
DRAWS = np.random.default_rng(0)
FEATURES = pandas.DataFrame(DRAWS.normal(size=(8, 3)), index=COLUMNS, columns=list("abc")).to_csv()
TABLE = pandas.DataFrame(
    DRAWS.normal(size=(3, 8)).round(3), index=pandas.Index(["g1", "g2", "g3"], name="gene"), columns=COLUMNS
).mask((DRAWS.random((3, 8)) < 0.3) & (np.arange(8) % 3 != np.arange(3)[:, None]))
"""Each column has an entry, so that a long table knows of it."""
TEXT = TABLE.to_csv()


@pytest.fixture
def complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run the command on texts; give the status, what it wrote, and what it told."""
    threads = torch.get_num_threads()

    def run(table: Any, *options: Any, features: Any = FEATURES, suffix: Any = ".csv", output: Any = None) -> Any:
        for name, content in ((f"t{suffix}", table), ("f.csv", features)):
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        out = tmp_path / f"o{output or suffix}"
        arguments = [str(tmp_path / f"t{suffix}"), "--features", str(tmp_path / "f.csv"), "-o", str(out)]
        status = main(["complete", *arguments, "--threads", "1", "--ridge", "cv", "--no-report", *options])
        told = capsys.readouterr()
        return status, out.read_bytes() if out.exists() else b"", told.out + told.err

    yield run
    torch.set_num_threads(threads)


def parsed(data: bytes, encoding: Any = "utf-8", separator: Any = ",", decimal: Any = ".") -> Any:
    """Cells and numbers; blank lines, comments at the end, and what follows the last column are left out."""
    found = csv.reader(io.StringIO(data.decode(encoding)), delimiter=separator, skipinitialspace=True)
    rows = [row for row in found if any(row) and not row[0].startswith("# ")]
    rows = [row[:-1] if len(row) > 9 else row for row in rows]
    rows[0] = ["", *rows[0]] if len(rows[0]) < len(rows[1]) else rows[0]
    return rows, [[float(cell.replace(decimal, ".")) for cell in row[1:]] for row in rows[1:]]


EXPECTED: dict[str, list[list[float]]] = {}


@pytest.mark.parametrize(
    ("content", "options", "encoding", "separator", "decimal"),
    [
        (TEXT, [], "utf-8", ",", "."),
        (TEXT.replace(",", ";"), [], "utf-8", ";", "."),
        (TABLE.to_csv(sep=";", decimal=","), [], "utf-8", ";", ","),
        (TABLE.to_csv(decimal=","), [], "utf-8", ",", ","),
        (TEXT.replace(",", "|"), [], "utf-8", "|", "."),
        (TEXT.replace(",", "\t"), [], "utf-8", "\t", "."),
        (TEXT.replace(",", ", "), [], "utf-8", ",", "."),
        (TEXT.replace(",", "~"), ["--separator", "~"], "utf-8", "~", "."),
        (b"\xef\xbb\xbf" + TEXT.encode(), [], "utf-8-sig", ",", "."),
        (TEXT.encode("utf-16"), [], "utf-16", ",", "."),
        (TEXT.replace("gene", "g\xe9ne").encode("latin-1"), ["--encoding", "latin-1"], "latin-1", ",", "."),
        (TEXT.replace("\n", "\r\n") + "\r\n\r\n", [], "utf-8", ",", "."),
        (TEXT + ",,,,,,,,\n", [], "utf-8", ",", "."),
        ("".join(f"{line},\n" for line in TEXT.splitlines()), [], "utf-8", ",", "."),
        (TEXT.replace(",,", ",-666,").replace(",,", ",-666.0,"), ["--missing=-666"], "utf-8", ",", "."),
        (TEXT.replace(",,", ",ND,").replace(",,", ",?,"), ["--missing", "ND", "--missing", "?"], "utf-8", ",", "."),
        (TEXT.replace(",,", ",NA,").replace(",,", ",n/a,"), [], "utf-8", ",", "."),
        ("#" + TEXT + "# the end\n", [], "utf-8", ",", "."),
        (TEXT.replace("gene,", "", 1), [], "utf-8", ",", "."),
    ],
)
def test_every_dialect_is_read_and_written(
    content: Any, options: Any, encoding: Any, separator: Any, decimal: Any, complete: Any
) -> None:
    if not EXPECTED:
        EXPECTED["values"] = parsed(complete(TEXT)[1])[1]
    status, data, told = complete(content, *options)
    assert status == 0, told
    rows, values = parsed(data, encoding, separator, decimal)
    assert values == EXPECTED["values"]
    assert rows[0][1:] == COLUMNS
    given = content if isinstance(content, bytes) else content.encode()
    assert (b"\r\n" in data) == (b"\r\n" in given)
    corner = given.decode(encoding).split(separator)[0]
    assert rows[0][0] == ("" if corner == "p0" else corner)


@pytest.mark.parametrize(
    "labels", [["007", "008", "010"], ["NA", "None", ""], ["1E3", "2E5", "3E1"], [" a", "a ", "b"], ["1,5", "x;y", '"']]
)
def test_labels_and_observed_cells_are_text(labels: Any, complete: Any) -> None:
    lines = [["gene", "007", "7", "NA"], *([label, "1.10", "", "4"] for label in labels)]
    lines[2][2] = "2e-3"
    text = io.StringIO()
    csv.writer(
        text, quoting=csv.QUOTE_MINIMAL if " a" not in labels else csv.QUOTE_NONE, lineterminator="\n"
    ).writerows(lines)
    status, data, told = complete(text.getvalue(), features="id,x,y\nNA,1,2\n7,2,1\n007,1,1\n")
    assert status == 0, told
    rows = list(csv.reader(io.StringIO(data.decode())))
    assert [row[0] for row in rows[1:]] == labels
    assert rows[0] == lines[0]
    assert [row[1] for row in rows[1:]] == ["1.10"] * 3
    assert [row[3] for row in rows[1:]] == ["4"] * 3
    assert rows[2][2] == "2e-3"


@pytest.mark.parametrize(
    ("content", "options", "messages"),
    [
        (TEXT.replace(",,", ",ND,"), [], ["t.csv", "'ND' in line", "row 'g", "column 'p", "--missing ND"]),
        (TEXT.replace(",,", ",2020-01-31,"), [], ["the date '2020-01-31'"]),
        ("gene;p0;p1\ng1;1,234;2\ng2;;3\n", ["--decimal", "."], ["got '1,234' in line 2", "decimal mark another"]),
        ("gene;p0;p1\ng1;1,234;2\ng2;;3,456\n", [], ["decimals from thousands", "1,234"]),
        ("gene;p0;p1\ng1;1,5;2\ng2;;3.4\n", [], ["one mark of decimals", "1,5 and 3.4"]),
        (TEXT.replace("p4", "p3"), [], ["'p3' twice, above columns 5 and 6"]),
        (TEXT.replace("g3", "g1"), [], ["'g1' twice, in lines 2 and 4"]),
        (TEXT.replace("g3,", "g3,1,"), [], ["got 10 in line 4 and 9 in line 1"]),
        (TEXT.replace("p4", ""), [], ["empty one above column 6"]),
        (TEXT.replace("g2", '"g2'), [], ["line 3 of", "quotation mark"]),
        (TEXT.replace("g2", "\xdf").encode("latin-1"), [], ["t.csv to be utf-8", "0xdf in line 3"]),
        (TEXT, ["--encoding", "morse"], ["the name of an encoding"]),
        (TEXT, ["--separator", ""], ["expected a separator"]),
        ("", [], ["an empty file"]),
        ("gene,p0\n", [], ["got 1 lines"]),
        ("gene\ng1\n", [], ["tell its separator"]),
        (TEXT.replace("-0.", "-1_0."), [], ["expected numbers"]),
    ],
)
def test_what_is_wrong_is_said_with_the_place(content: Any, options: Any, messages: Any, complete: Any) -> None:
    status, data, told = complete(content, *options)
    assert (status, data) == (2, b"")
    for message in messages:
        assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("features", "warned"),
    [
        ({"tissue": ["lung", "skin", None, "bone", "lung", "skin", "bone", "lung"]}, "the first is 'p2'"),
        ({"dose": [-3, -2, -1, 0, 0, 1, 2, 3]}, "2 of 8 lines"),
        ({"continent": ["NA", "EU", "AS", "NA", "EU", "AS", "NA", "EU"]}, ""),
        ({"stage": ["None", "I", "II", "None", "I", "II", "None", "I"]}, ""),
        ({"dose": [1, 2, 3, 4, 5, 6, 7, 9.5]}, ""),
    ],
)
def test_columns_of_which_little_is_known_are_completed(features: Any, warned: Any, complete: Any) -> None:
    status, data, told = complete(TEXT, features=pandas.DataFrame(features, index=COLUMNS).to_csv())
    assert status == 0
    assert ("warning" in told) == bool(warned)
    assert warned in told
    assert np.isfinite(parsed(data)[1]).all()


def test_features_that_cannot_be_used_are_refused(complete: Any) -> None:
    frame = pandas.DataFrame({"when": ["2020-01-31"] * 8}, index=COLUMNS)
    assert "dates in column 'when'" in complete(TEXT, features=frame.to_csv())[2]
    frame = pandas.DataFrame({"x": [1.0] * 7 + [np.inf]}, index=COLUMNS)
    assert "got inf in line 7 ('p7')" in complete(TEXT, features=frame.to_csv())[2]
    frame = pandas.DataFrame({"x": [0.5] * 8}, index=COLUMNS)
    assert (
        "expected decimals with ','"
        in complete(TABLE.to_csv(sep=";", decimal=","), "--decimal", ",", features=frame.to_csv())[2]
    )


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("separator", ["\t", ",", "::"])
def test_long_tables_stay_long(header: Any, separator: Any, complete: Any) -> None:
    entries = [(row, column, repr(value)) for (row, column), value in TABLE.stack().dropna().items()]
    lines = [separator.join((*entry, "881250949")) for entry in entries]
    names = ["user", "item", "rating"]
    options = ["--long", *(names if header else "123")]
    if separator == "::":
        options += ["--separator", "::"]
    text = "\n".join([*([separator.join([*names, "time"])] if header else []), *lines]) + "\n"
    status, data, told = complete(text, *options)
    assert status == 0, told
    written = [line.split(separator) for line in data.decode().splitlines()]
    if header:
        assert written.pop(0) == names
    assert [tuple(line) for line in written[: len(entries)]] == entries
    # The matrix has its rows and columns in another order, and so do the sums.
    wide = parsed(complete(TEXT)[1])
    expected = {(row[0], name): value for row, values in zip(wide[0][1:], wide[1], strict=True)
                for name, value in zip(COLUMNS, values, strict=True)}  # fmt: skip
    assert len(written) == 24
    for row, column, value in written:
        assert float(value) == pytest.approx(expected[row, column], rel=1e-6, abs=1e-9)


def test_long_tables_that_are_none_are_refused(complete: Any) -> None:
    text = "user,item,rating\na,p0,1\na,p1,2\na,p0,3\n"
    assert "got that of line 2 in line 4" in complete(text, "--long", "user", "item", "rating")[2]
    assert "expected a column 'film'" in complete(text, "--long", "user", "film", "rating")[2]
    assert "got 'p0' in line 2" in complete(text, "--long", "user", "rating", "item")[2]


BODY = "cell,drug,g1,g2\nA,x,1,2\nB,x,3,4\nA,y,5,6\n"


@pytest.mark.parametrize(
    "content",
    [
        BODY + "\n\n",
        b"\xef\xbb\xbf" + BODY.encode(),
        BODY.encode("utf-16"),
        ",cell,drug,g1,g2\n0,A,x,1,2\n1,B,x,3,4\n2,A,y,5,6\n",
        "Unnamed: 0,cell,drug,g1,g2\n1,A,x,1,2\n2,B,x,3,4\n3,A,y,5,6\n",
        BODY.replace(",", ";"),
        BODY.replace("\n", "\r\n"),
        "# profiles\n" + BODY,
        BODY + "B,x,NA,4\nB,x,3,\n",
    ],
)
def test_long_tables_of_drug_response_in_every_dialect(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = read_drug_response(path)
    assert (data.genes, data.drugs, data.cells) == (("g1", "g2"), ("x", "y"), ("A", "B"))
    assert data.tensor[0].tolist() == [[1, 2], [3, 4]]
    assert data.observed.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("3,4", "high,4"), "got 'high' under g1 in line 3"),
        (("3,4", "inf,4"), "got 'inf' under g1 in line 3"),
        (("g2", "g1"), "'g1' twice"),
        (("3,4", "3"), "got 3 in line 3"),
    ],
)
def test_bad_tables_of_drug_response_are_refused_by_line(change: Any, message: Any, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(BODY.replace(*change))
    with pytest.raises(ValueError, match=message):
        read_drug_response(path)
