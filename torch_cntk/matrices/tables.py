"""Matrices and features as users hold them, checked: with NaN or a mask for what is missing, and labels that match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import as_device, check_dense
from torch_cntk.matrices.forms import Form, is_frame, is_polars, is_series
from torch_cntk.matrices.numbers import Numbers, numbers_of

__all__ = ["Features", "Matrix", "aligned", "different", "name_of", "read_features", "read_matrix"]


@dataclass(frozen=True)
class Matrix:
    """A table read.

    Attributes:
        values: [rows, columns] in float64; what it holds at missing entries does not matter.
        observed: boolean [rows, columns], True = known.
        rows: labels of a frame's rows, else None.
        columns: labels of a frame's columns, else None.
        form: in which the user holds it.
    """

    values: Tensor
    observed: Tensor
    rows: Sequence[Any] | None
    columns: Sequence[Any] | None
    form: Form

    def restore(self, values: Tensor, rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Any:
        """What the user holds, of [rows, columns] in float64 and labels (None: numbers from 0)."""
        return self.form.make(values, rows, columns)


@dataclass(frozen=True)
class Features:
    """Features read.

    Attributes:
        values: [n, p] in float64.
        labels: of the n lines, or None.
        names: of the p features, of a frame, or None.
    """

    values: Tensor
    labels: Sequence[Any] | None
    names: Sequence[Any] | None


def name_of(labels: Sequence[Any] | None, place: int) -> str:
    """How a row or column is called in a message."""
    return str(place) if labels is None else f"{place} ({labels[place]!r})"


def different(first: Sequence[Any] | None, second: Sequence[Any] | None) -> bool:
    """Whether both have labels, and not the same."""
    return first is not None and second is not None and list(first) != list(second)


def _twice(labels: Sequence[Any]) -> list[Any]:
    """Labels that stand more than once."""
    seen: set[Any] = set()
    return list(dict.fromkeys(label for label in labels if label in seen or seen.add(label)))  # type: ignore[func-returns-value]


def _check_unique(labels: Sequence[Any], what: str) -> None:
    """Refuse labels that stand more than once.

    Raises:
        ValueError: so it is.
    """
    repeated = _twice(list(labels))
    if repeated:
        raise ValueError(f"expected different labels for all {what}, got some twice: {_listed(repeated)}")


def _listed(labels: Sequence[Any], most: int = 5) -> str:
    return f"{', '.join(map(repr, labels[:most]))}{', ...' if len(labels) > most else ''}"


def _places(labels: Sequence[Any], wanted: Sequence[Any]) -> list[int | None]:
    """Where each wanted label stands, or None."""
    where = {label: place for place, label in enumerate(labels)}
    return [where.get(label) for label in wanted]


def aligned(given: Any, labels: Sequence[Any] | None, what: str) -> Any:
    """A Series of pandas in the order of a frame's labels; anything else as it is.

    Raises:
        ValueError: a label is missing.
    """
    if not is_series(given):
        return given
    if labels is not None:
        places = _places(given.index, labels)
        lost = [label for label, place in zip(labels, places, strict=True) if place is None]
        if lost:
            raise ValueError(f"expected {what} for each label, got none for {_listed(lost)}")
        given = given.iloc[places]
    return given.to_numpy(dtype=np.float64)


def read_matrix(table: Any, observed: Any = None, device: str | None = None) -> Matrix:
    """Read a matrix to complete.

    Args:
        table: [rows, columns], numbers; what is missing (NaN, None, NA, masked) is, unless ``observed`` is given.
        observed: boolean, of the same shape, True = known.
        device: where its parts shall be; where the table is by default.

    Returns:
        its parts.

    Raises:
        TypeError: the table does not hold numbers, or the mask is not boolean.
        ValueError: a shape is wrong, labels are not unique, or an observed entry is not finite.
    """
    read = numbers_of(table, "the matrix", zeros=observed is not None)
    values = read.values if device is None else read.values.to(as_device(device))
    rows, columns = read.rows, read.columns
    for labels, what in ((rows, "rows"), (columns, "columns")):
        if labels is not None:
            _check_unique(labels, what)
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"expected a matrix [rows, columns] with entries, got shape {tuple(values.shape)}")
    if observed is None:
        mask = ~torch.isnan(values)
    else:
        mask = _mask(observed, tuple(values.shape), rows, columns).to(values.device)
    bad = mask & ~torch.isfinite(values)
    if bool(bad.any()):
        row, column = (int(place) for place in bad.nonzero()[0])
        raise ValueError(
            f"expected finite numbers at observed entries, got {float(values[row, column])} in row "
            f"{name_of(rows, row)}, column {name_of(columns, column)}, among {int(bad.sum())} such"
        )
    return Matrix(values, mask, rows, columns, read.form)


def _mask(observed: Any, shape: tuple[int, ...], rows: Sequence[Any] | None, columns: Sequence[Any] | None) -> Tensor:
    """Read a mask; that of a frame by its labels.

    Raises:
        TypeError: it is not boolean.
        ValueError: it is of another shape, or has other labels.
    """
    if is_frame(observed) and rows is not None and columns is not None:
        order = [_places(observed.index, rows), _places(observed.columns, columns)]
        if any(place is None for places in order for place in places):
            raise ValueError("expected observed with the rows' and columns' labels of the matrix, got others")
        observed = observed.iloc[order[0], order[1]]
    if is_frame(observed) or is_polars(observed):
        observed = observed.to_numpy()
        if observed.dtype == object and all(isinstance(value, bool | np.bool_) for value in observed.ravel()):
            observed = observed.astype(bool)
    elif hasattr(observed, "toarray"):
        observed = observed.toarray()
    mask = observed if isinstance(observed, torch.Tensor) else _boolean(observed)
    if mask.layout is not torch.strided:
        mask = mask.to_dense()  # what a sparse mask does not store is False
    check_dense(mask, "observed")
    if mask.dtype != torch.bool:
        raise TypeError(f"expected observed to be boolean, True = known, got {mask.dtype}")
    if tuple(mask.shape) != shape:
        raise ValueError(f"expected observed of the matrix' shape {shape}, got {tuple(mask.shape)}")
    return mask


def _boolean(observed: Any) -> Tensor:
    """An array as a tensor.

    Raises:
        TypeError: torch has no such dtype, as of strings or objects.
    """
    try:
        array = np.array(np.ma.filled(observed, False) if isinstance(observed, np.ma.MaskedArray) else observed)
    except ValueError as error:
        raise TypeError(f"expected observed as an array of booleans, got ragged lists: {error}") from error
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(f"expected observed to be boolean, True = known, got {array.dtype}") from error


def read_features(
    features: Any,
    what: Literal["column", "row"],
    labels: Sequence[Any] | None = None,
    count: int | None = None,
    *,
    gaps: bool = False,
) -> Features:
    """Read the features of a matrix' columns or rows.

    Args:
        features: [n, p], a line a column (or row). Lines of a frame are looked up by label if there are labels.
        what: "column" or "row".
        labels: of the matrix, if it is a frame.
        count: n, if it is known.
        gaps: whether features may be missing (NaN), and lines of some labels.

    Returns:
        them, with ``labels`` or, if there are none, those of a frame's lines.

    Raises:
        TypeError: the features are not numbers.
        ValueError: they are not n lines, labels are missing or doubled, or an entry is not finite.
    """
    if is_series(features):
        features = features.to_frame()
    if is_frame(features):
        _check_dtypes(features, what)
    subject = f"the features of the {what}s"
    read = features if isinstance(features, Numbers) else numbers_of(features, subject, zeros=True)
    numbers, found = read.values, labels
    if numbers.ndim != 2 or numbers.numel() == 0:
        raise ValueError(f"expected features [{what}s, p] with entries, got shape {tuple(numbers.shape)}")
    if read.rows is not None:
        _check_unique(read.rows, f"lines of the {what}s' features")
        if labels is None:
            found = read.rows
        else:
            numbers = _looked_up(numbers, _lines(read.rows, labels, what, gaps=gaps))
    if count is not None and len(numbers) != count:
        hint = "; pass their transpose" if numbers.shape[1] == count else ""
        raise ValueError(f"expected features of {count} {what}s, a line each, got {len(numbers)} lines{hint}")
    _check_finite(numbers, what, found, gaps=gaps)
    return Features(numbers, found, read.columns)


def _looked_up(numbers: Tensor, lines: list[int | None]) -> Tensor:
    """Lines of [n, p] by their places; NaN where there is none."""
    if not any(line is None for line in lines):
        # Columns of frames lie together in memory, before and after.
        return numbers.T[:, lines].T
    found = numbers[[0 if line is None else line for line in lines]]
    found[[place for place, line in enumerate(lines) if line is None]] = torch.nan
    return found


def _check_finite(numbers: Tensor, what: str, labels: Sequence[Any] | None, *, gaps: bool) -> None:
    """Refuse infinities, and NaN unless there may be gaps beside numbers.

    Raises:
        ValueError: so it is.
    """
    known = ~torch.isnan(numbers)
    allowed = gaps and bool(known.any(0).all())
    bad = (known & ~torch.isfinite(numbers)).any(1) if allowed else ~torch.isfinite(numbers).all(1)
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise ValueError(
            f"expected finite features, got NaN or infinity for {int(bad.sum())} {what}s, "
            f"the first of them {what} {name_of(labels, place)}"
        )


def _check_dtypes(features: Any, what: str) -> None:
    """Refuse frames of features that hold something else than numbers.

    Raises:
        TypeError: so it is; the message names the column.
    """
    for name, dtype in zip(features.columns, features.dtypes, strict=True):
        if dtype.kind not in "biuf":
            raise TypeError(
                f"expected numbers as features of the {what}s, got {dtype} in column {name!r}; "
                "torch_cntk.matrices.features.TableEncoder makes numbers of categories and text"
            )


def _lines(found: Sequence[Any], labels: Sequence[Any], what: str, *, gaps: bool) -> list[int | None]:
    """Where the line of each label stands; with gaps, None where there is none.

    Raises:
        ValueError: a label has none; with gaps: none of them has one, or one has it under another type.
    """
    places = _places(found, labels)
    lost = [label for label, place in zip(labels, places, strict=True) if place is None]
    alike = set(map(str, found)) & set(map(str, lost))
    if lost and (alike or not gaps or len(lost) == len(places)):
        hint = f"; {min(alike)} is text in one table and a number in the other" if alike else ""
        raise ValueError(
            f"expected a line of features for each {what}, got none for {len(lost)} of {len(labels)}: "
            f"{_listed(lost)}{hint}"
        )
    return places
