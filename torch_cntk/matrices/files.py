"""Tables in files, read and written by pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_cntk._internal.files import check_writable, writing
from torch_cntk.matrices.features import TableEncoder

__all__ = ["check_table_output", "encode_tables", "read_table", "write_table"]

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def _pandas() -> Any:
    """Import pandas, which not every installation has.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"tables need pandas: pip install 'torch-cntk[tables]' ({error})") from error
    return pandas


def _check_suffix(path: Path) -> None:
    """Refuse formats that are not known.

    Raises:
        ValueError: this is one.
    """
    if path.suffix.lower() not in (*_SEPARATORS, ".parquet"):
        raise ValueError(f"expected a table in .csv, .tsv or .parquet, got {path.name}")


def check_table_output(path: Path) -> None:
    """Find out before long work whether a table can be written.

    Raises:
        ImportError: pandas is not installed.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
        ValueError: it is of no known format.
    """
    _pandas()
    check_writable(path)
    _check_suffix(path)


def read_table(path: Path) -> Any:
    """Read a frame; the first column holds the labels of its lines.

    Raises:
        ImportError: pandas is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is of no known format, or cannot be read.
    """
    pandas = _pandas()
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix.lower() == ".parquet":
        frame = pandas.read_parquet(path)
    else:
        frame = pandas.read_csv(path, sep=_SEPARATORS[path.suffix.lower()], index_col=0)
    frame.index = frame.index.map(str)
    frame.columns = frame.columns.map(str)
    return frame


def write_table(path: Path, frame: Any) -> None:
    """Write a frame, whole or not at all."""
    with writing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            frame.to_parquet(temporary)
        else:
            frame.to_csv(temporary, sep=_SEPARATORS[path.suffix.lower()])


def encode_tables(tables: Mapping[str, Any], text: Sequence[str]) -> dict[str, Any]:
    """Frames of numbers, of frames that hold categories and text as well; see ``features.TableEncoder``.

    Raises:
        ValueError: no table has a column that is named in ``text``.
    """
    pandas = _pandas()
    unknown = [name for name in text if not any(name in table.columns for table in tables.values())]
    if unknown:
        raise ValueError(f"expected text in columns of the features, got no column {', '.join(unknown)}")
    return {
        key: pandas.DataFrame(
            TableEncoder([name for name in text if name in table.columns]).fit_transform(table).numpy(),
            index=table.index,
        )
        for key, table in tables.items()
    }
