"""Tables of any form as numbers in float64, NaN where something is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from torch_cntk._internal.checks import check_dense
from torch_cntk.matrices.forms import (
    AnnDataForm,
    ArrayForm,
    ArrowForm,
    Form,
    PandasForm,
    PolarsForm,
    TensorForm,
    is_anndata,
    is_arrow,
    is_frame,
    is_polars,
    is_series,
)

__all__ = ["Numbers", "is_missing", "numbers_of"]

_LARGEST_INTEGER = 2**53
"""Above it, float64 leaves integers out."""
_NO_NUMBERS = {"M": "dates", "m": "durations", "c": "complex numbers", "V": "records"}
"""What numpy's kinds of dtypes hold that could be taken for numbers."""


@dataclass(frozen=True)
class Numbers:
    """A table read.

    Attributes:
        values: in float64, NaN where something is missing, on the device where the table is.
        form: in which it came.
        rows: labels of a frame's rows, else None.
        columns: labels of a frame's columns, else None.
    """

    values: Tensor
    form: Form
    rows: Sequence[Any] | None = None
    columns: Sequence[Any] | None = None


def is_missing(value: Any) -> bool:
    """Whether a single value stands for nothing: None, NaN, NaT, pandas' NA, what a mask hides, or no text."""
    if value is None or value is np.ma.masked or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    if isinstance(value, str):
        return not value.strip()
    try:
        return bool(value != value)
    except (TypeError, ValueError, RuntimeError):
        return False


def numbers_of(table: Any, what: str, *, zeros: bool = False) -> Numbers:
    """Read any table.

    Args:
        table: tensor, array, masked or sparse array, nested lists, frame of pandas or polars, Table of pyarrow, or
            AnnData.
        what: what it is, for messages.
        zeros: whether what a sparse array does not store is zero, and may be read so.

    Raises:
        TypeError: it does not hold real numbers.
        ValueError: it holds integers that are not numbers of float64.
    """
    if isinstance(table, torch.Tensor):
        return _of_tensor(table, what, zeros)
    if scipy.sparse.issparse(table):
        _check_zeros(zeros, what)
        return _of_array(table.toarray(), what)
    if is_series(table):
        raise ValueError(f"expected a table of two axes as {what}, got a Series; series.to_frame() makes one")
    if is_frame(table):
        return _of_pandas(table, what)
    if is_polars(table):
        return _of_polars(table, what)
    if is_arrow(table):
        return _of_arrow(table, what)
    if is_anndata(table):
        return _of_anndata(table, what, zeros)
    return _of_array(table, what)


def _check_zeros(zeros: bool, what: str) -> None:
    """Refuse sparse arrays of which nobody has said what is missing.

    Raises:
        TypeError: so it is.
    """
    if not zeros:
        raise TypeError(
            f"expected observed beside {what}, got a sparse array alone: what it does not store may be missing or zero"
        )


def _of_tensor(table: Tensor, what: str, zeros: bool) -> Numbers:
    """Read a tensor.

    Raises:
        TypeError: it does not hold real numbers.
    """
    if table.is_complex() or table.dtype == torch.bool:
        raise TypeError(f"expected real numbers in {what}, got {table.dtype}")
    if table.layout != torch.strided:
        _check_zeros(zeros, what)
        table = table.to_dense()
    check_dense(table, what)
    dtype = table.dtype if table.is_floating_point() else torch.float64
    if table.dtype == torch.int64 and table.numel():
        _check_integers(max(int(table.max()), -int(table.min())), what)
    return Numbers(table.detach().double(), TensorForm(dtype, table.device))


def _check_integers(largest: int, what: str) -> None:
    """Refuse integers that would lose digits.

    Raises:
        ValueError: so it is.
    """
    if largest > _LARGEST_INTEGER:
        raise ValueError(f"expected integers of at most 2^53 in {what}, as float64 holds them, got {largest}")


def _of_array(table: Any, what: str) -> Numbers:
    """Read an array, or what numpy makes one of.

    Raises:
        TypeError: it does not hold real numbers.
    """
    masked = isinstance(table, np.ma.MaskedArray)
    try:
        array = table if masked else np.asarray(table)
    except ValueError as error:
        raise TypeError(f"expected numbers in {what}, got something else: {error}") from error
    values = _floats(np.asarray(array), what)
    if masked:
        values = np.where(np.ma.getmaskarray(table), np.nan, values)
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return Numbers(torch.from_numpy(np.array(values)), ArrayForm(kind, masked))


def _floats(array: np.ndarray, what: str) -> np.ndarray:
    """An array in float64, missing objects as NaN.

    Raises:
        TypeError: it does not hold real numbers.
    """
    if array.dtype.kind in _NO_NUMBERS:
        raise TypeError(f"expected numbers in {what}, got {_NO_NUMBERS[array.dtype.kind]} ({array.dtype})")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and array.size:
        _check_integers(max(int(array.max()), -int(array.min())), what)
    try:
        if array.dtype.kind == "O":
            array = np.array([_float(value) for value in array.ravel()], np.float64).reshape(array.shape)
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected numbers in {what}, got something else: {error}") from error


def _float(value: Any) -> float:
    """A single object as a number.

    Raises:
        TypeError: it is none.
        ValueError: it is text that is none.
    """
    if isinstance(value, str) and value.strip():
        return float(value)
    if is_missing(value):
        return np.nan
    if isinstance(value, np.datetime64 | np.timedelta64 | complex | np.complexfloating):
        raise TypeError(f"{type(value).__name__} is no real number")
    return float(value)


def _of_pandas(table: Any, what: str) -> Numbers:
    """Read a frame, column by column where dtypes are not numpy's."""
    if all(isinstance(dtype, np.dtype) and dtype.kind in "bf" for dtype in table.dtypes):
        values = table.to_numpy(dtype=np.float64)
    else:
        columns = [_of_series(table.iloc[:, place], what) for place in range(table.shape[1])]
        values = np.stack(columns, 1) if columns else np.empty(table.shape)
    dtypes = tuple(_restored(dtype) for dtype in table.dtypes)
    names = (tuple(table.index.names), tuple(table.columns.names))
    form = PandasForm(
        type(table), dtypes if len(set(dtypes)) > 1 else dtypes[:1], table.columns, names, dict(table.attrs)
    )
    return Numbers(torch.from_numpy(np.array(values)), form, table.index, table.columns)


def _of_series(series: Any, what: str) -> np.ndarray:
    """A column of a pandas frame in float64.

    Raises:
        TypeError: it does not hold real numbers.
    """
    where = f"{what}, column {series.name!r}"
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _floats(series.to_numpy(), where)
    if type(dtype).__name__ == "CategoricalDtype":
        # As objects: categories have no arithmetic, but may be numbers.
        return _floats(series.to_numpy(dtype=object), where)
    if dtype.kind in _NO_NUMBERS or type(dtype).__name__ in {"DatetimeTZDtype", "PeriodDtype", "IntervalDtype"}:
        raise TypeError(f"expected numbers in {where}, got {_NO_NUMBERS.get(dtype.kind, 'something else')} ({dtype})")
    if dtype.kind in "iu" and len(series):
        largest = series.abs().max()
        _check_integers(0 if is_missing(largest) else int(largest), where)
    if dtype.kind in "biuf":
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return _floats(series.to_numpy(dtype=object), where)


def _restored(dtype: Any) -> Any:
    """The dtype in which completed numbers come back: floating point of the same family."""
    name = type(dtype).__name__
    if name == "CategoricalDtype":
        return _restored(dtype.categories.dtype)
    if name == "SparseDtype":
        return _restored(dtype.subtype)
    if isinstance(dtype, np.dtype):
        return dtype if dtype.kind == "f" else np.dtype(np.float64)
    if name == "ArrowDtype":
        return dtype if dtype.kind == "f" else "double[pyarrow]"
    if dtype.kind == "f":
        return dtype
    return "Float64" if dtype.kind in "biu" else np.dtype(np.float64)


def _of_polars(table: Any, what: str) -> Numbers:
    """Read a frame of polars; a first column of text holds the labels of its rows.

    Raises:
        TypeError: another column does not hold numbers.
    """
    import polars

    names, rows, label = list(table.columns), None, None
    if names and table.dtypes[0] in (polars.String, polars.Categorical, polars.Enum):
        label, rows = names[0], table[names[0]].to_list()
        names = names[1:]
    columns, dtypes = [], []
    for name in names:
        series = table[name]
        if not (series.dtype.is_numeric() or series.dtype in (polars.Boolean, polars.Null)):
            raise TypeError(f"expected numbers in {what}, column {name!r}, got {series.dtype}")
        if series.dtype.is_integer() and len(series) - series.null_count():
            _check_integers(max(int(series.max()), -int(series.min())), f"{what}, column {name!r}")
        columns.append(series.cast(polars.Float64).fill_null(float("nan")).to_numpy())
        dtypes.append(series.dtype if series.dtype.is_float() else polars.Float64())
    values = np.stack(columns, 1) if columns else np.empty((len(table), 0))
    found = tuple(dtypes) if len(set(dtypes)) > 1 else tuple(dtypes[:1])
    return Numbers(torch.from_numpy(np.array(values)), PolarsForm(label, found, tuple(names)), rows, names)


def _of_arrow(table: Any, what: str) -> Numbers:
    """Read a Table of pyarrow, by way of pandas with pyarrow's types; a first column of text holds labels."""
    import pandas

    frame, label = table.to_pandas(types_mapper=pandas.ArrowDtype), None
    if frame.shape[1] and str(frame.dtypes.iloc[0]).startswith(("string", "large_string", "dictionary")):
        label = str(frame.columns[0])
        frame = frame.set_index(label)
        frame.index = frame.index.astype(object)
    read = _of_pandas(frame, what)
    assert isinstance(read.form, PandasForm)
    return Numbers(read.values, ArrowForm(label, read.form), None if label is None else read.rows, read.columns)


def _of_anndata(table: Any, what: str, zeros: bool) -> Numbers:
    """Read the matrix X of an AnnData.

    Raises:
        TypeError: there is none, or a sparse one of which nobody has said what is missing.
    """
    if table.X is None:
        raise TypeError(f"expected a matrix X in {what}, got none")
    read = numbers_of(table.X, what, zeros=zeros)
    kind = read.form.dtype if isinstance(read.form, ArrayForm) else np.dtype(np.float64)
    form = AnnDataForm(kind, table.obs.copy(), table.var.copy())
    return Numbers(read.values, form, list(table.obs_names), list(table.var_names))
