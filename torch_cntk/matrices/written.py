"""Completed tables written to files: observed cells as they were read, in the dialect of the table."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from torch_cntk._internal.files import check_writable, writing
from torch_cntk.matrices.cells import Decimal, text_of
from torch_cntk.matrices.delimited import Dialect, write_cells
from torch_cntk.matrices.files import SEPARATORS, Table, check_suffix, pandas_module

__all__ = ["check_table_output", "write_table"]


def check_table_output(path: Path) -> None:
    """Find out before long work whether a table can be written.

    Raises:
        ImportError: pandas, or what it needs for the format, is not installed.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
        ValueError: it is of no known format.
    """
    pandas = pandas_module()
    check_writable(path)
    check_suffix(path)
    if path.suffix.lower() == ".parquet":
        # What pandas writes it with may not be installed: it says so itself.
        pandas.DataFrame({"a": [0.0]}).to_parquet()
    elif path.suffix.lower() == ".xlsx" and find_spec("openpyxl") is None:
        raise ImportError("Excel's sheets need openpyxl: pip install openpyxl")


def write_table(path: Path, frame: Any, like: Table | None = None) -> None:
    """Write a frame, whole or not at all.

    Args:
        path: CSV, TSV, Parquet or Excel.
        frame: a completed table, perhaps with further columns behind the others.
        like: what it was completed from: observed cells are written as they were, in the same dialect.
    """
    with writing(path) as temporary:
        suffix = path.suffix.lower()
        if suffix in SEPARATORS:
            dialect = _dialect(suffix, like)
            header, rows = _long(frame, like) if like is not None and like.long else _wide(frame, like)
            write_cells(temporary, header, rows, dialect)
            return
        frame = _labelled(frame, like)
        frame.to_parquet(temporary) if suffix == ".parquet" else frame.to_excel(temporary)


def _dialect(suffix: str, like: Table | None) -> Dialect:
    """That of the table if it is a file of the same kind; else what is usual, in the encoding of the table."""
    dialect = Dialect(SEPARATORS[suffix])
    if like is None or like.cells is None:
        return dialect
    own = like.cells.dialect
    return own if like.path.suffix.lower() == suffix else replace(dialect, encoding=own.encoding)


def _labelled(frame: Any, like: Table | None) -> Any:
    """The frame with the labels that the file had."""
    if like is None or like.index is None:
        if like is not None and like.cells is not None and not like.long:
            frame = frame.rename_axis(index=like.cells.header[0] or None)
        return frame
    added = list(frame.columns[len(like.columns) :])
    columns = like.columns if not added else pandas_module().Index([*like.columns, *added], name=like.columns.name)
    return frame.set_axis(like.index).set_axis(columns, axis=1)


def _wide(frame: Any, like: Table | None) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a matrix."""
    corner = ""
    decimal: Decimal = "."
    if like is not None:
        decimal = like.decimal
        corner = like.cells.header[0] if like.cells is not None else str(like.index.name or "")
    values, labels = frame.to_numpy(dtype=float, na_value=np.nan), [str(label) for label in frame.index]
    rows = [[label, *(text_of(number, decimal) for number in row)] for label, row in zip(labels, values, strict=True)]
    if like is not None and like.cells is not None:
        known = like.frame.notna().to_numpy()
        for row, cells, seen in zip(rows, like.cells.rows, known, strict=True):
            for place in seen.nonzero()[0] + 1:
                row[place] = cells[place]
    return [corner, *map(str, frame.columns)], rows


def _long(frame: Any, like: Table) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a long table: what it was, and what was filled below, row by row."""
    assert like.cells is not None
    assert like.long is not None
    given = [[cells[place] for place in like.long] for cells in like.cells.rows]
    known = like.frame.reindex(columns=frame.columns).notna().to_numpy()
    observed = [cells for cells, seen in zip(given, _seen(like), strict=True) if seen]
    filled = [
        [str(frame.index[row]), str(frame.columns[column]), text_of(float(frame.iat[row, column]), like.decimal)]
        for row, column in zip(*(~known).nonzero(), strict=True)
    ]
    # A file whose first line is an entry has no header.
    header = [] if like.cells.lines[0] == 1 else [like.cells.header[place] for place in like.long]
    return header, [*observed, *filled]


def _seen(like: Table) -> list[bool]:
    """Whether each line of a long table holds an observed entry."""
    assert like.cells is not None
    assert like.long is not None
    row, column, _ = like.long
    known = like.frame.notna().to_numpy()
    rows = {label: place for place, label in enumerate(like.frame.index)}
    columns = {label: place for place, label in enumerate(like.frame.columns)}
    return [bool(known[rows[cells[row]], columns[cells[column]]]) for cells in like.cells.rows]
