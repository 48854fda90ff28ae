"""The forms in which users hold tables, and how numbers are given back in them: tensors, arrays, frames.

Forms describe and hold no table, so that fitted models can be pickled and copied.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "AnnDataForm",
    "ArrayForm",
    "ArrowForm",
    "Form",
    "PandasForm",
    "PolarsForm",
    "TensorForm",
    "is_anndata",
    "is_arrow",
    "is_frame",
    "is_polars",
    "is_series",
]


def _is(table: object, library: str, name: str) -> bool:
    """Whether this is a library's class or one derived from it; the library itself is not needed to tell."""
    classes = type(table).__mro__
    return any(base.__name__ == name and base.__module__.partition(".")[0] == library for base in classes)


def is_frame(table: object) -> bool:
    """Whether this is a pandas DataFrame."""
    return _is(table, "pandas", "DataFrame")


def is_series(table: object) -> bool:
    """Whether this is a pandas Series."""
    return _is(table, "pandas", "Series")


def is_polars(table: object) -> bool:
    """Whether this is a polars DataFrame."""
    return _is(table, "polars", "DataFrame")


def is_arrow(table: object) -> bool:
    """Whether this is a Table of pyarrow."""
    return _is(table, "pyarrow", "Table")


def is_anndata(table: object) -> bool:
    """Whether this is an annotated matrix, an AnnData."""
    return _is(table, "anndata", "AnnData")


class Form(Protocol):
    """Makes what the user holds of numbers and labels."""

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Any:
        """Give numbers back.

        Args:
            values: [rows, columns] in float64.
            rows: labels, or None for numbers from 0.
            columns: likewise.
        """


@dataclass(frozen=True)
class TensorForm:
    """A tensor of torch; numbers that are not floating point come back as float64."""

    dtype: torch.dtype
    device: torch.device

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Tensor:
        """See ``Form.make``; tensors have no labels."""
        return values.to(dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class ArrayForm:
    """An array of numpy, masked or not; of a masked one nothing is masked any more, unless it is NaN."""

    dtype: np.dtype
    masked: bool = False

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> np.ndarray:
        """See ``Form.make``; arrays have no labels."""
        array = values.cpu().numpy().astype(self.dtype)
        return np.ma.masked_invalid(array, copy=False) if self.masked else array


@dataclass(frozen=True)
class PandasForm:
    """A frame of pandas.

    Attributes:
        kind: the class, as geopandas and others have their own.
        dtypes: of the columns as they come back, or one for all of them.
        columns: the labels to which ``dtypes`` belong.
        names: of the axes' levels, rows and columns.
        attrs: what the user noted of the frame.
    """

    kind: type
    dtypes: tuple[Any, ...]
    columns: Any
    names: tuple[tuple[Any, ...], tuple[Any, ...]]
    attrs: dict[Any, Any] = field(default_factory=dict)

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Any:
        """See ``Form.make``; new columns have the dtype that all columns have, or else float64."""
        frame = self.kind(values.cpu().numpy(), index=rows, columns=columns)
        if len(set(self.dtypes)) == 1:
            # Not astype(None): float64 is what it has.
            frame = frame if self.dtypes[0] == np.dtype(np.float64) else frame.astype(self.dtypes[0])
        elif columns is not None and self.columns.equals(frame.columns):
            frame = frame.astype(dict(zip(columns, self.dtypes, strict=True)))
        for axis, names in zip((frame.index, frame.columns), self.names, strict=True):
            if axis.nlevels == len(names) and all(name is None for name in axis.names):
                axis.names = names
        frame.attrs = copy.deepcopy(self.attrs)
        return frame


@dataclass(frozen=True)
class PolarsForm:
    """A frame of polars: its columns have names, and its rows labels if the first column holds text.

    Attributes:
        label: name of the column of labels, if there is one.
        dtypes: of the other columns as they come back, or one for all of them.
        names: of the columns to which they belong.
    """

    label: str | None
    dtypes: tuple[Any, ...]
    names: tuple[str, ...]

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Any:
        """See ``Form.make``."""
        import polars

        array = values.cpu().numpy()
        names = [str(name) for name in (range(array.shape[1]) if columns is None else columns)]
        if len(self.dtypes) == 1 or tuple(names) != self.names:
            dtypes = [self.dtypes[0] if len(self.dtypes) == 1 else polars.Float64] * len(names)
        else:
            dtypes = list(self.dtypes)
        series = [
            polars.Series(name, array[:, place]).cast(dtype)
            for place, (name, dtype) in enumerate(zip(names, dtypes, strict=True))
        ]
        if self.label is not None and rows is not None:
            series.insert(0, polars.Series(self.label, list(rows)))
        return polars.DataFrame(series)


@dataclass(frozen=True)
class ArrowForm:
    """A Table of pyarrow, whose rows have labels if the first column holds text.

    Attributes:
        label: name of the column of labels, if there is one.
        inner: the same as a frame of pandas.
    """

    label: str | None
    inner: PandasForm

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Any:
        """See ``Form.make``."""
        import pyarrow

        frame = self.inner.make(values, rows, columns)
        if self.label is not None:
            frame = frame.rename_axis(index=self.label).reset_index()
        return pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


@dataclass(frozen=True)
class AnnDataForm:
    """An AnnData: its observations are the rows; annotations of rows and columns come back with it, layers do not.

    Attributes:
        dtype: of X as it comes back.
        rows: annotations of the rows, a frame of pandas.
        columns: annotations of the columns.
    """

    dtype: np.dtype
    rows: Any
    columns: Any

    def make(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Any:
        """See ``Form.make``; rows and columns that are new have no annotations."""
        import anndata

        array = values.cpu().numpy().astype(self.dtype)
        sides = [
            side.copy() if labels is None or list(labels) == list(side.index) else side.reindex(list(labels))
            for side, labels in ((self.rows, rows), (self.columns, columns))
        ]
        return anndata.AnnData(array, obs=sides[0], var=sides[1])
