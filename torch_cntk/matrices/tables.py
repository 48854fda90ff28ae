"""Matrices as users hold them: tensors, arrays or pandas frames, with NaN or a mask for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Matrix", "is_frame", "name_of", "read_features", "read_matrix"]


@dataclass(frozen=True)
class Matrix:
    """A table read.

    Attributes:
        values: [rows, columns] in float64; what it holds at missing entries does not matter.
        observed: boolean [rows, columns], True = known.
        rows: labels of a frame's rows, else None.
        columns: labels of a frame's columns, else None.
        restore: makes what the user holds of [rows, columns] in float64 and labels (None: numbers from 0).
    """

    values: Tensor
    observed: Tensor
    rows: Sequence[Any] | None
    columns: Sequence[Any] | None
    restore: Callable[[Tensor, Sequence[Any] | None, Sequence[Any] | None], Any]


def is_frame(table: object) -> bool:
    """Whether this is a pandas DataFrame; pandas itself is not needed to tell."""
    return type(table).__module__.partition(".")[0] == "pandas" and hasattr(table, "columns")


def name_of(labels: Sequence[Any] | None, place: int) -> str:
    """How a row or column is called in a message."""
    return str(place) if labels is None else f"{place} ({labels[place]!r})"


def read_matrix(table: Any, observed: Any = None, device: str | None = None) -> Matrix:
    """Read a matrix to complete.

    Args:
        table: [rows, columns], numbers; NaN is missing unless ``observed`` is given.
        observed: boolean, of the same shape, True = known.
        device: where its parts shall be; where the table is by default.

    Returns:
        its parts.

    Raises:
        TypeError: the table does not hold numbers, or the mask is not boolean.
        ValueError: a shape is wrong, labels are not unique, or an observed entry is not finite.
    """
    rows = columns = None
    if is_frame(table):
        rows, columns = list(table.index), list(table.columns)
        for labels, what in ((rows, "rows"), (columns, "columns")):
            if len(set(labels)) < len(labels):
                raise ValueError(f"expected different labels for all {what}, got some twice")
    values = _numbers(table, "the matrix").to(device)
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"expected a matrix [rows, columns] with entries, got shape {tuple(values.shape)}")
    mask = ~torch.isnan(values) if observed is None else _mask(observed, tuple(values.shape)).to(values.device)
    bad = mask & ~torch.isfinite(values)
    if bool(bad.any()):
        row, column = (int(place) for place in bad.nonzero()[0])
        raise ValueError(
            f"expected finite numbers at observed entries, got {float(values[row, column])} in row "
            f"{name_of(rows, row)}, column {name_of(columns, column)}, among {int(bad.sum())} such"
        )
    return Matrix(values, mask, rows, columns, _restorer(table))


def _numbers(table: Any, what: str) -> Tensor:
    """Any table as float64, on the device where it is.

    Raises:
        TypeError: it does not hold real numbers.
    """
    if isinstance(table, torch.Tensor):
        if table.is_complex() or table.dtype == torch.bool:
            raise TypeError(f"expected real numbers in {what}, got {table.dtype}")
        return table.detach().double()
    try:
        array = table.to_numpy(dtype=np.float64, na_value=np.nan) if is_frame(table) else np.asarray(table, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected numbers in {what}, got something else: {error}") from error
    return torch.from_numpy(np.array(array))


def _mask(observed: Any, shape: tuple[int, ...]) -> Tensor:
    mask = observed if isinstance(observed, torch.Tensor) else torch.from_numpy(np.array(observed))
    if mask.dtype != torch.bool:
        raise TypeError(f"expected observed to be boolean, True = known, got {mask.dtype}")
    if tuple(mask.shape) != shape:
        raise ValueError(f"expected observed of the matrix' shape {shape}, got {tuple(mask.shape)}")
    return mask


def _restorer(table: Any) -> Callable[[Tensor, Sequence[Any] | None, Sequence[Any] | None], Any]:
    if isinstance(table, torch.Tensor):
        dtype = table.dtype if table.is_floating_point() else torch.float64
        return lambda values, rows, columns: values.to(dtype=dtype, device=table.device)
    if is_frame(table):
        make = type(table)
        return lambda values, rows, columns: make(values.cpu().numpy(), index=rows, columns=columns)
    array = np.asarray(table)
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return lambda values, rows, columns: values.cpu().numpy().astype(kind)


def read_features(
    features: Any, what: str, labels: Sequence[Any] | None = None, count: int | None = None
) -> tuple[Tensor, Sequence[Any] | None]:
    """Read the features of a matrix' columns or rows.

    Args:
        features: [n, p], a line a column (or row). Lines of a frame are looked up by label if there are labels.
        what: "column" or "row".
        labels: of the matrix, if it is a frame.
        count: n, if it is known.

    Returns:
        [n, p] in float64, and the labels of a frame's lines if they were not given.

    Raises:
        TypeError: the features are not numbers.
        ValueError: they are not n lines, labels are missing or doubled, or an entry is not finite.
    """
    found = labels
    if is_frame(features):
        found = list(features.index)
        if len(set(found)) < len(found):
            raise ValueError(f"expected different labels for all lines of the {what}s' features, got some twice")
        if labels is not None:
            known = set(found)
            lost = [label for label in labels if label not in known]
            if lost:
                raise ValueError(
                    f"expected a line of features for each {what}, got none for {len(lost)} of {len(labels)}: "
                    f"{', '.join(map(repr, lost[:5]))}{', ...' if len(lost) > 5 else ''}"
                )
            features, found = features.loc[labels], labels
        if not all(dtype.kind in "biuf" for dtype in features.dtypes):
            raise TypeError(
                f"expected numbers as features of the {what}s, got strings or objects among them; "
                "torch_cntk.matrices.features.TableEncoder makes numbers of categories and text"
            )
    numbers = _numbers(features, f"the features of the {what}s")
    if numbers.ndim != 2 or numbers.numel() == 0:
        raise ValueError(f"expected features [{what}s, p] with entries, got shape {tuple(numbers.shape)}")
    if count is not None and len(numbers) != count:
        hint = "; pass their transpose" if numbers.shape[1] == count else ""
        raise ValueError(f"expected features of {count} {what}s, a line each, got {len(numbers)} lines{hint}")
    bad = ~torch.isfinite(numbers).all(1)
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise ValueError(
            f"expected finite features, got NaN or infinity for {int(bad.sum())} {what}s, "
            f"the first of them {what} {name_of(found, place)}"
        )
    return numbers, found
