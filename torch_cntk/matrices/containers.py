"""Files of tables that are no plain text: data frames, Excel's sheets, GCT, GCTX and h5ad.

A container says what a file holds, and writes it again with what was missing filled in: all else stays as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from torch_cntk.matrices.delimited import Cells, Dialect, cells_of, read_records

__all__ = ["BINARY", "FRAMES", "AnnData", "Container", "Frame", "Gctx", "Sheet", "needed", "read_gct", "suffix_of"]

Zeros = Literal["missing", "values"]

FRAMES = (".parquet", ".feather", ".arrow")
BINARY = (*FRAMES, ".xlsx", ".gctx", ".h5ad")


class Container(Protocol):
    """What a file was read from, which writes it completed."""

    def write(self, path: Path, frame: Any, known: np.ndarray) -> None:
        """Write a file of the same kind.

        Args:
            path: of it.
            frame: the completed table, with the labels and in the order of what was read.
            known: boolean [rows, columns], where the file had entries.
        """


def suffix_of(path: Path) -> str:
    """What tells the format, in small letters; of compressed files the suffix before the last."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def needed(module: str, what: str) -> Any:
    """Import what a format needs.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} need {module}: pip install {module} ({error})") from error


@contextmanager
def _whole(path: Path, what: str, got: str) -> Iterator[None]:
    """Around a reader of another library, which damage makes raise anything.

    Raises:
        ValueError: the file is damaged; the message names it.
        ImportError: something is not installed.
        MemoryError: there is not enough of it.
    """
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"expected {what} in {path}, got {got}: {error}") from error


@dataclass(frozen=True)
class Frame:
    """A frame of pandas in a file of columns (Parquet, or Arrow's own, also called Feather).

    Attributes:
        original: as the file has it.
        first: place of the first column of values, behind one of labels if there is one.
    """

    original: Any
    first: int

    @classmethod
    def read(cls, path: Path) -> tuple[Any, Frame]:
        """Read a frame whose index, or else whose first column if that is text, holds the labels.

        Raises:
            ImportError: pyarrow is not installed.
            ValueError: the file cannot be read.
        """
        pandas = needed("pandas", "tables")
        needed("pyarrow", "Parquet's and Arrow's files")
        with _whole(path, "a table", "something that pyarrow cannot read"):
            frame = pandas.read_parquet(path) if path.suffix.lower() == ".parquet" else pandas.read_feather(path)
        labelled = isinstance(frame.index, pandas.RangeIndex) and frame.shape[1] and _text(frame.dtypes.iloc[0])
        return (frame.set_index(frame.columns[0]), cls(frame, 1)) if labelled else (frame, cls(frame, 0))

    def write(self, path: Path, frame: Any, known: np.ndarray) -> None:
        """See ``Container.write``; columns that had no gaps keep their types."""
        result = self.original.copy()
        for place in range(known.shape[1]):
            if known[:, place].all():
                continue
            name = result.columns[self.first + place]
            result[name] = _filled(result[name], frame.iloc[:, place].to_numpy(dtype=float), ~known[:, place])
        for place in range(known.shape[1], frame.shape[1]):
            result[frame.columns[place]] = frame.iloc[:, place].to_numpy(dtype=float)
        write_frame(path, result)


def _text(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") not in "biuf"


def _filled(column: Any, values: np.ndarray, missing: np.ndarray) -> Any:
    """A column of pandas with its gaps filled, floating point of its own family if it was one."""
    dtype = str(column.dtype)
    if getattr(column.dtype, "kind", "O") != "f":
        arrow = "pyarrow" in dtype
        column = column.astype("double[pyarrow]" if arrow else "Float64" if dtype[:1] in "IUb" else "float64")
    return column.mask(missing, column.__class__(values, index=column.index).astype(column.dtype))


def write_frame(path: Path, frame: Any) -> None:
    """Write a frame of pandas as Parquet or in Arrow's format."""
    if path.suffix.lower() == ".parquet":
        frame.to_parquet(path)
        return
    needed("pyarrow", "Arrow's files")
    plain = frame.reset_index() if type(frame.index).__name__ != "RangeIndex" else frame
    plain.to_feather(path)


@dataclass(frozen=True)
class Sheet:
    """The first sheet of an Excel workbook.

    Attributes:
        path: of the file.
        cells: the sheet as text.
    """

    path: Path
    cells: Cells

    @classmethod
    def read(cls, path: Path) -> Sheet:
        """Read it.

        Raises:
            ImportError: openpyxl is not installed.
            ValueError: it holds no table.
        """
        pandas = needed("pandas", "tables")
        needed("openpyxl", "Excel's sheets")
        options = {"header": None, "dtype": object, "keep_default_na": False, "na_filter": False}
        with _whole(path, "a table", "something that openpyxl cannot read"):
            sheet = pandas.read_excel(path, engine="openpyxl", **options)
        lines = [(number + 1, [_cell(value) for value in row]) for number, row in enumerate(sheet.to_numpy())]
        return cls(path, cells_of(path, lines, Dialect()))

    def write(self, path: Path, frame: Any, known: np.ndarray) -> None:
        """See ``Container.write``: formats, formulas and other sheets stay."""
        book = needed("openpyxl", "Excel's sheets").load_workbook(self.path)
        sheet = book.worksheets[0]
        # Excel counts from 1; the first of the places is that of the labels.
        columns = [place + 1 for place in self.cells.places[1:]]
        for row, place in zip(*(~known).nonzero(), strict=True):
            sheet.cell(self.cells.lines[row], columns[place]).value = float(frame.iat[row, place])
        last = max(columns)
        for place in range(known.shape[1], frame.shape[1]):
            last += 1
            sheet.cell(_line_of_header(sheet, self.cells), last).value = str(frame.columns[place])
            for row, line in enumerate(self.cells.lines):
                sheet.cell(line, last).value = float(frame.iat[row, place])
        book.save(path)


def _line_of_header(sheet: Any, cells: Cells) -> int:
    """The last line above the first row that is not empty."""
    above = range(cells.lines[0] - 1, 0, -1)
    return next(line for line in above if any(cell.value is not None for cell in sheet[line]))


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def read_gct(path: Path, encoding: str | None = None) -> Cells:
    """Read a GCT file, version 1.2 or 1.3: cells of the matrix, of which the first column holds the rows' names.

    Raises:
        ValueError: it is none.
    """
    records, dialect, text = read_records(path, "\t", encoding)
    try:
        version, sizes, header = records[0][1][0], [int(cell) for cell in records[1][1] if cell], records[2]
        rows, columns = sizes[:2]
        row_meta, column_meta = sizes[2:] if version == "#1.3" else (1, 0)
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"expected a GCT file in {path}, #1.2 or #1.3 and the sizes above a header, got another: {error}"
        ) from error
    body = records[3 + column_meta :]
    first = 1 + row_meta
    if len(body) != rows or len(header[1]) != first + columns or version not in ("#1.2", "#1.3"):
        raise ValueError(
            f"expected {rows} rows and {columns} columns in {path}, as its second line says, got {len(body)} and "
            f"{len(header[1]) - first}; version {version}"
        )
    places = (0, *range(first, first + columns))
    kept = [(line, [cells[place] for place in places]) for line, cells in [header, *body]]
    return replace(cells_of(path, kept, dialect), places=places, text=text)


@dataclass(frozen=True)
class Gctx:
    """A GCTX file of the Connectivity Map: HDF5, in which a line holds a column of the matrix.

    Attributes:
        path: of the file.
    """

    path: Path

    @classmethod
    def read(cls, path: Path) -> tuple[Any, Gctx]:
        """Read the matrix with its names.

        Raises:
            ImportError: h5py is not installed.
            ValueError: it is no such file.
        """
        pandas, h5py = needed("pandas", "tables"), needed("h5py", "GCTX files")
        with _whole(path, "a GCTX file", "something else"), h5py.File(path) as file:
            values = file["0/DATA/0/matrix"][()].T
            rows, columns = (file[f"0/META/{side}/id"].asstr()[()] for side in ("ROW", "COL"))
        strip = [[name.strip() for name in names] for names in (rows, columns)]
        return pandas.DataFrame(values, index=strip[0], columns=strip[1]), cls(path)

    def write(self, path: Path, frame: Any, known: np.ndarray) -> None:
        """See ``Container.write``.

        Raises:
            ValueError: there are new columns.
        """
        _check_no_more(frame, known, "GCTX files")
        shutil.copyfile(self.path, path)
        with needed("h5py", "GCTX files").File(path, "r+") as file:
            matrix = file["0/DATA/0/matrix"]
            matrix[...] = np.where(known, matrix[()].T, frame.to_numpy(dtype=float)).T


@dataclass(frozen=True)
class AnnData:
    """An annotated matrix (AnnData) in an h5ad file; its observations are the rows.

    Attributes:
        path: of the file.
    """

    path: Path

    @classmethod
    def read(cls, path: Path, zeros: Zeros | None) -> tuple[Any, AnnData]:
        """Read the matrix X.

        Args:
            path: of the file.
            zeros: what entries mean that a sparse matrix does not store.

        Raises:
            ImportError: anndata is not installed.
            ValueError: it holds no matrix, or a sparse one of which nothing was said.
        """
        pandas, anndata = needed("pandas", "tables"), needed("anndata", "h5ad files")
        with _whole(path, "an h5ad file", "something else"):
            held = anndata.read_h5ad(path)
        if held.X is None:
            raise ValueError(f"expected a matrix X in {path}, got none")
        values = dense(held.X, zeros, str(path))
        return pandas.DataFrame(values, index=list(held.obs_names), columns=list(held.var_names)), cls(path)

    def write(self, path: Path, frame: Any, known: np.ndarray) -> None:
        """See ``Container.write``; a sparse matrix comes back dense unless it was complete.

        Raises:
            ValueError: there are new columns.
        """
        _check_no_more(frame, known, "h5ad files")
        held = needed("anndata", "h5ad files").read_h5ad(self.path)
        if not known.all():
            before = held.X.toarray() if hasattr(held.X, "toarray") else held.X
            kind = before.dtype if before.dtype.kind == "f" else np.float64
            held.X = np.where(known, before, frame.to_numpy(dtype=float)).astype(kind)
        held.write_h5ad(path)


def dense(matrix: Any, zeros: Zeros | None, what: str) -> np.ndarray:
    """A matrix as an array, of which a sparse one is told what it does not store.

    Raises:
        ValueError: it is sparse, and nothing was said.
    """
    if not hasattr(matrix, "toarray"):
        return np.asarray(matrix)
    if zeros is None:
        raise ValueError(
            f"expected to be told what the zeros of the sparse matrix in {what} mean, missing entries or values; say "
            "--zeros missing or --zeros values"
        )
    values: np.ndarray = matrix.toarray()
    return np.where(values == 0, np.nan, values) if zeros == "missing" else values


def _check_no_more(frame: Any, known: np.ndarray, what: str) -> None:
    """Refuse new columns, of which a container could not say more than their names.

    Raises:
        ValueError: there are some.
    """
    if frame.shape[1] > known.shape[1]:
        raise ValueError(f"expected no new columns in {what}, got {frame.shape[1] - known.shape[1]}; write a .csv")
