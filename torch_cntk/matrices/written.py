"""Completed tables written to files: observed cells as they were read, in the dialect of the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from torch_cntk._internal.files import check_writable, writing
from torch_cntk.matrices.cells import Decimal, text_of
from torch_cntk.matrices.containers import needed, suffix_of, write_frame
from torch_cntk.matrices.delimited import Dialect, replaced, write_cells
from torch_cntk.matrices.files import SEPARATORS, Table, check_suffix, pandas_module

__all__ = ["check_table_output", "write_table"]


_NEEDS = {
    ".parquet": ("pyarrow", "Parquet's files"),
    ".feather": ("pyarrow", "Arrow's files"),
    ".arrow": ("pyarrow", "Arrow's files"),
    ".xlsx": ("openpyxl", "Excel's sheets"),
    ".gctx": ("h5py", "GCTX files"),
    ".h5ad": ("anndata", "h5ad files"),
}


def check_table_output(path: Path, like: Path | None = None) -> None:
    """Find out before long work whether a table can be written.

    Args:
        path: where it shall be.
        like: the file that it is completed from.

    Raises:
        ImportError: pandas, or what it needs for the format, is not installed.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
        ValueError: it is of no known format, or of one that only files of the same format are written in.
    """
    pandas_module()
    check_writable(path)
    check_suffix(path)
    suffix = suffix_of(path)
    if suffix in _NEEDS:
        needed(*_NEEDS[suffix])
    if suffix in (".gctx", ".h5ad", ".gct") and (like is None or suffix_of(like) != suffix):
        raise ValueError(f"expected a table of the same format to write {path.name}, got {like and like.name}")


def write_table(path: Path, frame: Any, like: Table | None = None) -> None:
    """Write a frame, whole or not at all.

    Args:
        path: CSV, TSV, Parquet, Arrow or Excel, or what ``like`` is.
        frame: a completed table, perhaps with further columns behind the others.
        like: what it was completed from: in a file of the same format nothing but what was missing is changed.
    """
    with writing(path) as temporary:
        suffix = suffix_of(path)
        same = like is not None and suffix_of(like.path) == suffix
        if like is not None and same and like.container is not None:
            like.container.write(temporary, frame, like.frame.notna().to_numpy())
        elif suffix in SEPARATORS or suffix == ".gct":
            _write_text(temporary, path, frame, like, same=same)
        elif suffix == ".xlsx":
            _labelled(frame, like).to_excel(temporary)
        else:
            write_frame(temporary, _labelled(frame, like))


def _write_text(temporary: Path, path: Path, frame: Any, like: Table | None, *, same: bool) -> None:
    """Write text; where the table was text of the same kind and has no new columns, with cells filled in where it lay.

    Raises:
        ValueError: a GCT file has new columns.
    """
    dialect = _dialect(path, like, same=same)
    if same and like is not None and like.cells is not None and like.cells.text and not like.long:
        if frame.shape[1] == like.frame.shape[1]:
            temporary.write_bytes(dialect.encoded(_patched(frame, like), path))
            return
        if suffix_of(path) == ".gct":
            raise ValueError("expected no new columns in GCT files, got some; write a .csv")
    if same and like is not None and like.cells is not None and _whole(like) and frame.shape == like.frame.shape:
        temporary.write_bytes(dialect.encoded(like.cells.text, path))
        return
    header, rows = _long(frame, like) if like is not None and like.long else _wide(frame, like)
    write_cells(temporary, header, rows, dialect, path)


def _whole(like: Table) -> bool:
    """Whether a long table has all entries, and nothing else."""
    assert like.cells is not None
    return (
        like.long is not None and len(like.cells.header) == len(like.long) and bool(like.frame.notna().all(axis=None))
    )


def _patched(frame: Any, like: Table) -> str:
    """The text of a table with what was missing filled in."""
    assert like.cells is not None
    values = frame.to_numpy(dtype=float, na_value=np.nan)
    missing = zip(*like.frame.isna().to_numpy().nonzero(), strict=True)
    return replaced(
        like.cells, {(row, column + 1): text_of(values[row, column], like.decimal) for row, column in missing}
    )


def _dialect(path: Path, like: Table | None, *, same: bool) -> Dialect:
    """That of the table if it is a file of the same kind; else what is usual, in the encoding of the table."""
    usual = Dialect(SEPARATORS.get(suffix_of(path), "\t"))
    if like is None or like.cells is None:
        return usual
    own = like.cells.dialect
    return own if same else replace(usual, encoding=own.encoding, mark=own.mark)


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
        name = "" if like.index is None else like.index.name
        corner = like.cells.header[0] if like.cells is not None else str(name or "")
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
