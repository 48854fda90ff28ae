"""Tables in files: delimited text, data frames, Excel's sheets, GCT, GCTX, h5ad. Labels are text, as in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from torch_cntk.matrices.cells import Decimal, Reading, decimal_mark, holds_dates, number_of, repeated
from torch_cntk.matrices.containers import (
    BINARY,
    FRAMES,
    AnnData,
    Container,
    Frame,
    Gctx,
    Sheet,
    needed,
    read_gct,
    suffix_of,
)
from torch_cntk.matrices.delimited import Cells, read_cells
from torch_cntk.matrices.features import TableEncoder

__all__ = [
    "SEPARATORS",
    "Reading",
    "Table",
    "check_suffix",
    "encode_tables",
    "pandas_module",
    "read_long",
    "read_numbers",
    "read_sheet",
]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_TEXTS = (*SEPARATORS, ".gct")


@dataclass(frozen=True)
class Table:
    """A table read.

    Attributes:
        path: where it was read.
        frame: pandas' frame, with labels of text.
        cells: the text that it came from, or None if the file holds numbers.
        decimal: the mark of decimals in the text.
        index: labels of the rows as the file holds them, with their names and types.
        columns: likewise.
        long: the columns of labels of rows, labels of columns, and values, if that is the form of the file.
        container: what writes the file again, if it is no text.
    """

    path: Path
    frame: Any
    cells: Cells | None = None
    decimal: Decimal = "."
    index: Any = None
    columns: Any = None
    long: tuple[int, int, int] | None = None
    container: Container | None = None


def pandas_module() -> Any:
    """Import pandas, which not every installation has.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        return needed("pandas", "tables")
    except ImportError as error:
        raise ImportError(f"tables need pandas: pip install 'torch-cntk[tables]' ({error})") from error


def check_suffix(path: Path) -> None:
    """Refuse formats that are not known.

    Raises:
        ValueError: this is one.
    """
    suffix = suffix_of(path)
    compressed = path.suffix.lower() == ".gz"
    if suffix not in (*_TEXTS, *(() if compressed else BINARY)):
        others = ", ".join((".txt", ".gct", *BINARY[1:]))
        raise ValueError(
            f"expected a table in .csv, .tsv or .parquet (or {others}, or compressed text, .csv.gz), got {path.name}"
        )


def _read(path: Path, reading: Reading) -> tuple[Cells | Any, Container | None]:
    """Cells of text, or a frame of pandas if the file holds numbers; and what writes it again, if it is no text.

    Raises:
        ImportError: pandas, or what it needs for the format, is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is of no known format, or cannot be read.
    """
    pandas_module()
    check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = suffix_of(path)
    if suffix in FRAMES:
        return Frame.read(path)
    if suffix == ".gctx":
        return Gctx.read(path)
    if suffix == ".h5ad":
        return AnnData.read(path, reading.zeros)
    if suffix == ".xlsx":
        sheet = Sheet.read(path)
        return sheet.cells, sheet
    read = (
        read_gct(path, reading.encoding) if suffix == ".gct" else read_cells(path, reading.separator, reading.encoding)
    )
    return read, None


def read_numbers(path: Path, reading: Reading | None = None) -> Table:
    """Read a table of numbers; the first column holds the labels of its lines.

    Raises:
        ImportError: pandas is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is of no known format, a label stands twice, or a cell is no number.
    """
    reading = reading or Reading()
    read, container = _read(path, reading)
    if not isinstance(read, Cells):
        return _typed(path, read, reading, container)
    places = range(1, len(read.header))
    decimal = reading.decimal or decimal_mark((cells[place] for cells in read.rows for place in places), path)
    values = [_numbers(read, place, decimal, reading) for place in places]
    labels = _row_labels(read)
    data = np.stack(values, 1) if values else np.empty((len(labels), 0))
    frame = pandas_module().DataFrame(data, index=labels, columns=read.header[1:])
    return Table(path, frame, read, decimal, container=container)


def _row_labels(read: Cells) -> list[str]:
    """Labels of the lines.

    Raises:
        ValueError: one stands twice.
    """
    labels = [cells[0] for cells in read.rows]
    twice = repeated(labels)
    if twice:
        lines = [str(line) for line, label in zip(read.lines, labels, strict=True) if label == twice[0]]
        raise ValueError(
            f"expected different labels for all lines of {read.path}, got {twice[0]!r} twice, in lines "
            f"{' and '.join(lines[:2])}"
        )
    return labels


def _numbers(read: Cells, place: int, decimal: Decimal, reading: Reading) -> np.ndarray:
    """A column as numbers, NaN where missing.

    Raises:
        ValueError: a cell is no number.
    """
    hidden, codes = reading.hides(), reading.codes
    values = np.full(len(read.rows), np.nan)
    for row, cells in enumerate(read.rows):
        number = number_of(cells[place], decimal)
        if number is None and not hidden(cells[place]):
            raise ValueError(_refusal(read, row, place, decimal))
        if number is not None and number not in codes:
            values[row] = number
    return values


def _refusal(read: Cells, row: int, place: int, decimal: Decimal) -> str:
    text = read.rows[row][place]
    kind = "the date " if holds_dates([text]) else ""
    other = "; is the decimal mark another one?" if any(mark in text for mark in ",.") and decimal not in text else ""
    return (
        f"expected numbers in {read.path}, got {kind}{text!r} in line {read.lines[row]} (row {read.rows[row][0]!r}), "
        f"column {read.header[place]!r}{other}; if it stands for something missing, say so (--missing {text})"
    )


def _typed(path: Path, frame: Any, reading: Reading, container: Container | None) -> Table:
    """A frame of a file that holds numbers, with its labels as text.

    Raises:
        ValueError: a label stands twice.
    """
    index, columns = frame.index, frame.columns
    frame = frame.set_axis(index.map(str)).set_axis(columns.map(str), axis=1)
    for labels, what in ((frame.index, "lines"), (frame.columns, "columns")):
        twice = repeated(labels)
        if twice:
            raise ValueError(f"expected different labels for all {what} of {path}, got {twice[0]!r} twice")
    if reading.missing:
        frame = frame.mask(frame.isin([*reading.missing, *reading.codes]))
    return Table(path, frame, index=index, columns=columns, container=container)


def read_sheet(path: Path, reading: Reading | None = None) -> Table:
    """Read a table of numbers, categories and text; the first column holds the labels of its lines.

    A column is one of numbers if all of its cells are that are not missing.

    Raises:
        ImportError: pandas is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is of no known format, a label stands twice, or a column holds dates.
    """
    reading = reading or Reading()
    read, container = _read(path, reading)
    if not isinstance(read, Cells):
        return _typed(path, read, reading, container)
    pandas = pandas_module()
    labels = _row_labels(read)
    columns = {}
    for place, name in enumerate(read.header[1:], 1):
        columns[name] = _column(read, place, reading)
    return Table(path, pandas.DataFrame(columns, index=labels), read)


def _column(read: Cells, place: int, reading: Reading) -> Any:
    """A column as numbers if it holds nothing else, or as words.

    Raises:
        ValueError: it holds dates.
    """
    cells, hidden = [row[place] for row in read.rows], reading.hides()
    told = [cell for cell in cells if not hidden(cell)]
    if holds_dates(told) and any(number_of(cell, ".") is None for cell in told):
        raise ValueError(
            f"expected numbers, categories or text in {read.path}, got dates in column {read.header[place]!r}, such as "
            f"{told[0]}; make numbers of them, such as days since the first"
        )
    found = _mark(told, read, place, reading)
    if found is not None:
        return _numbers(read, place, found, reading)
    hidden = reading.hides(words=True)
    return pandas_module().Series([None if hidden(cell) else cell for cell in cells], dtype=object).to_numpy()


def _mark(told: list[str], read: Cells, place: int, reading: Reading) -> Decimal | None:
    """The mark of decimals in a column of numbers, or None if it holds something else.

    Raises:
        ValueError: it may be one of two, or is another than the user said.
    """
    if told and all(number_of(cell.replace(",", "."), ".") is not None for cell in told):
        mark = reading.decimal or decimal_mark(told, read.path)
        wrong = next((cell for cell in told if number_of(cell, mark) is None), None)
        if wrong is not None:
            raise ValueError(
                f"expected decimals with {mark!r} in {read.path}, as was said, got {wrong!r} in column "
                f"{read.header[place]!r}"
            )
        return mark
    return None


def read_long(path: Path, names: Sequence[str], reading: Reading | None = None) -> Table:
    """Read a long table, one entry a line, as a matrix; rows and columns in the order in which they first appear.

    Args:
        path: of the file.
        names: of the columns that hold the label of the row, that of the column, and the value; or their places from 1,
            in a file without a header.
        reading: how it is to be read.

    Raises:
        ImportError: pandas is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is not text, a column is missing, an entry stands twice, or a value is no number.
    """
    reading = reading or Reading()
    read, _ = _read(path, reading)
    if not isinstance(read, Cells):
        raise ValueError(f"expected a long table as text, .csv or .tsv, got {path.name}")
    if all(name.isdecimal() and name not in read.header for name in names):
        read = _without_header(read)
    row, column, value = (read.column(name) for name in names)
    decimal = reading.decimal or decimal_mark((cells[value] for cells in read.rows), path)
    numbers = _numbers(read, value, decimal, reading)
    rows = {label: place for place, label in enumerate(dict.fromkeys(cells[row] for cells in read.rows))}
    columns = {label: place for place, label in enumerate(dict.fromkeys(cells[column] for cells in read.rows))}
    places = [(rows[cells[row]], columns[cells[column]]) for cells in read.rows]
    if len(set(places)) < len(places):
        seen: dict[tuple[int, int], int] = {}
        for place, line in zip(places, read.lines, strict=True):
            if place in seen:
                raise ValueError(f"expected each entry once in {path}, got that of line {seen[place]} in line {line}")
            seen[place] = line
    matrix = np.full((len(rows), len(columns)), np.nan)
    matrix[tuple(np.array(places).T)] = numbers
    frame = pandas_module().DataFrame(matrix, index=list(rows), columns=list(columns))
    return Table(path, frame, read, decimal, long=(row, column, value))


def _without_header(read: Cells) -> Cells:
    """The same cells where the first line is an entry as any other; columns are called by their places."""
    header = [str(place + 1) for place in range(len(read.header))]
    return replace(read, header=header, rows=[read.header, *read.rows], lines=[1, *read.lines])


def encode_tables(tables: Mapping[str, Table], text: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Frames of numbers, of tables that hold categories and text as well; see ``features.TableEncoder``.

    A constant feature is added where lines would be zeros (nothing is known, or all of it average), and where there is
    one number alone, of which dividing by the norm would leave the sign.

    Returns:
        the frames, and what to tell the user of them.

    Raises:
        TypeError: a column holds something else.
        ValueError: no table has a column that is named in ``text``, or a number is not finite.
    """
    pandas = pandas_module()
    unknown = [name for name in text if not any(name in table.frame.columns for table in tables.values())]
    if unknown:
        raise ValueError(f"expected text in columns of the features, got no column {', '.join(unknown)}")
    encoded, notes = {}, []
    for key, table in tables.items():
        try:
            features = TableEncoder([name for name in text if name in table.frame.columns]).fit_transform(table.frame)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (file {table.path})") from error
        values = features.numpy()
        zeros = np.asarray(~values.any(1))
        if bool(zeros.any()) or (values.shape[1] == 1 and table.frame.dtypes.iloc[0].kind in "biuf"):
            values = np.concatenate([values, np.ones((len(values), 1))], 1)
        if bool(zeros.any()):
            first = table.frame.index[int(zeros.argmax())]
            notes.append(
                f"{int(zeros.sum())} of {len(zeros)} lines of {table.path} (the first is {first!r}) say nothing, as "
                "all is missing or average; a constant feature was added to all lines"
            )
        encoded[key] = pandas.DataFrame(values, index=table.frame.index)
    return encoded, notes
