"""Features of tables whose columns hold numbers, categories or text."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.memory import require_bytes
from torch_cntk.matrices.forms import is_frame, is_polars
from torch_cntk.matrices.numbers import is_missing
from torch_cntk.matrices.parameters import Estimator

__all__ = ["TableEncoder"]

_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


Output = Literal["default", "pandas", "polars"]
_OUTPUTS: tuple[Output, ...] = get_args(Output)


class TableEncoder(Estimator):
    """Features of a table whose columns hold numbers, categories or text.

    Numbers are standardised; of categories each is a feature; text is split into words (or into what stands between
    commas or semicolons), and each word is a feature, weighted by how rare it is (log(n / lines with it) + 1). Each
    column then has a mean square length of 1, times its weight. Missing numbers are set to the mean, missing
    categories and text to zeros.

    Args:
        text: names of the columns that hold text; other columns of strings hold categories.
        weights: of columns by their names, 1 by default; 0 leaves a column out.

    Raises:
        TypeError: a weight is no number.
        ValueError: a weight is negative.
    """

    def __init__(self, text: Iterable[str] = (), weights: Mapping[str, float] | None = None) -> None:
        # As they are given, for scikit-learn's clone; what can be read once only is read here.
        self.text = text if isinstance(text, str | Sequence | set | frozenset) else tuple(text)
        self.weights = weights
        for name, weight in (weights or {}).items():
            finite_number(weight, f"the weight of {name}", minimum=0)
        self._rules: dict[_Key, _Rule] = {}
        self._output: Output = "default"

    def set_output(self, *, transform: Output | None = None) -> TableEncoder:
        """Say in which form ``transform`` gives features, as scikit-learn's transformers can be told.

        Args:
            transform: "default" for a tensor, "pandas" or "polars" for a frame with the features' names (that of pandas
                with the labels of the lines, if there are any); None changes nothing.

        Returns:
            itself.

        Raises:
            ValueError: there is no such form.
        """
        if transform is not None and transform not in _OUTPUTS:
            raise ValueError(f"expected transform to be one of {', '.join(_OUTPUTS)}, got {transform!r}")
        self._output = transform or self._output
        return self

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features: of a number that of its column, of a category or word it behind that of its column.

        Args:
            input_features: not needed, as the table has names; there for scikit-learn.

        Raises:
            ValueError: ``fit`` was not called.
        """
        self._check_fitted()
        names = [name for key, rule in self._rules.items() for name in rule.names(key.name)]
        return np.array(names, dtype=object)

    def _check_fitted(self) -> None:
        if not self._rules:
            raise ValueError("expected fit() before transform()")

    def fit(self, table: Mapping[str, Sequence[Any]], y: Any = None) -> TableEncoder:
        """Learn means, categories and words.

        Args:
            table: columns by name: a frame of pandas or polars, or a dict. Of a frame, several columns may have one
                name.
            y: not needed; there for scikit-learn's pipelines.

        Returns:
            itself.

        Raises:
            TypeError: the table has no named columns, or a column holds dates, durations or complex numbers.
            ValueError: the table has no columns, or none of a name in ``text`` or ``weights``; columns differ in
                length; or a number is not finite.
        """
        columns = _columns(table)
        text = {self.text} if isinstance(self.text, str) else set(self.text)
        weights = {str(name): float(weight) for name, weight in (self.weights or {}).items()}
        names = {key.name for key in columns}
        unknown = [name for name in (*sorted(map(str, text)), *weights) if name not in names]
        if unknown or not columns:
            raise ValueError(f"expected columns named {unknown or 'somehow'}, got {sorted(names)}")
        split = {str(name) for name in text}
        self._rules = {
            key: _Rule(column, key.name in split, weights.get(key.name, 1.0))
            for key, column in columns.items()
            if weights.get(key.name, 1.0) > 0
        }
        return self

    def transform(self, table: Mapping[str, Sequence[Any]]) -> Any:
        """Encode a table of the same columns; categories and words that ``fit`` did not see are zeros.

        Args:
            table: columns by name, n entries each.

        Returns:
            [n, features] in float64: a tensor, or what ``set_output`` said.

        Raises:
            TypeError: a column of numbers holds something else.
            ValueError: a column is missing, a number is not finite, or ``fit`` was not called.
            OutOfMemoryError: the features do not fit into memory.
        """
        encoded = self.encode(table)
        if self._output == "default":
            return encoded
        names, values = self.get_feature_names_out(), encoded.numpy()
        if self._output == "pandas":
            import pandas

            labels = getattr(table, "index", None) if is_frame(table) else None
            return pandas.DataFrame(values, index=labels, columns=names)
        import polars

        return polars.DataFrame(values, schema=names.tolist(), orient="row")

    def encode(self, table: Mapping[str, Sequence[Any]]) -> Tensor:
        """``transform``, as a tensor whatever ``set_output`` said.

        Raises:
            ValueError: a column is missing, or ``fit`` was not called.
        """
        self._check_fitted()
        columns = _columns(table)
        missing = [key.name for key in self._rules if key not in columns]
        if missing:
            raise ValueError(f"expected the columns {missing} as well, got {sorted(key.name for key in columns)}")
        lines = len(next(iter(columns.values())).values)
        # The parts, and all of them side by side.
        _check_room(2 * lines, sum(rule.width for rule in self._rules.values()))
        return torch.cat([rule.encode(columns[key]) for key, rule in self._rules.items()], 1)

    def fit_transform(self, table: Mapping[str, Sequence[Any]], y: Any = None) -> Any:
        """``fit`` and ``transform`` of the same table."""
        return self.fit(table).transform(table)


@dataclass(frozen=True)
class _Key:
    """A column: its name, and how many of that name stand before it."""

    name: str
    before: int


@dataclass(frozen=True)
class _Column:
    """Entries of one column, None where missing, and what its lines are called."""

    name: str
    values: list[Any]
    labels: Sequence[Any] | None

    def refusal(self, place: int, expected: str) -> str:
        """Why an entry is refused."""
        line = str(place) if self.labels is None else f"{place} ({self.labels[place]!r})"
        return f"expected {expected} in column {self.name!r} of the features, got {self.values[place]} in line {line}"


def _columns(table: Any) -> dict[_Key, _Column]:
    """The columns of a table.

    Raises:
        TypeError: it has none with names, or one holds what is neither numbers nor words.
        ValueError: they differ in length.
    """
    if is_polars(table):
        pairs, labels = [(series.name, series) for series in table.get_columns()], None
    elif hasattr(table, "items"):
        pairs, labels = list(table.items()), list(table.index) if is_frame(table) else None
    else:
        raise TypeError(f"expected a table of columns by name, a frame or a dict, got {type(table).__name__}")
    seen: Counter[str] = Counter()
    columns = {}
    for name, values in pairs:
        key = _Key(str(name), seen[str(name)])
        seen[str(name)] += 1
        columns[key] = _Column(key.name, _entries(key.name, values), labels)
    lengths = {len(column.values) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"expected columns of the same length, got {sorted(lengths)}")
    return columns


def _entries(name: str, values: Any) -> list[Any]:
    """Entries of a column, None where missing.

    Raises:
        TypeError: an entry is neither a number nor a word.
        ValueError: the column has several entries a line.
    """
    if len(getattr(values, "shape", (0,))) != 1:
        raise ValueError(f"expected one entry a line in column {name!r}, got shape {tuple(values.shape)}")
    # Tensors would be listed as tensors, which are no numbers.
    listed = values.tolist() if isinstance(values, torch.Tensor) else list(values)
    listed = [None if is_missing(value) else value for value in listed]
    for value in listed:
        if isinstance(value, _TIMES) or type(value).__name__ in {"Period", "Interval"}:
            raise TypeError(
                f"expected numbers, categories or text in column {name!r}, got {type(value).__name__} ({value}); "
                "make numbers of dates and durations, such as days since the first"
            )
        if isinstance(value, complex | np.complexfloating):
            raise TypeError(f"expected real numbers in column {name!r}, got {value}")
    return listed


def _check_room(lines: int, width: int) -> None:
    """Refuse features that do not fit into memory.

    Raises:
        OutOfMemoryError: so it is.
    """
    require_bytes(
        8 * lines * width,
        f"encoding {lines:,} lines with {width:,} features",
        lambda free: "leave columns out with weights={name: 0}: one in which each line has a category of its own?",
    )


class _Rule:
    """How one column becomes features."""

    def __init__(self, column: _Column, text: bool, weight: float) -> None:
        values = column.values
        present = [value for value in values if value is not None]
        self._split = text
        self._numeric = not text and all(_is_number(value) for value in present)
        if self._numeric:
            _check_finite(column)
            numbers = np.array(present, dtype=np.float64)
            self._mean = float(numbers.mean()) if present else 0.0
            deviation = float(numbers.std()) if present else 0.0
            if not math.isfinite(deviation):
                raise ValueError(
                    f"expected numbers whose squares are finite in column {column.name!r}, got larger ones"
                )
            self._scale = weight / deviation if deviation > 0 else 0.0
            return
        lines = Counter(word for value in present for word in set(self._words(value)))
        rare = {word: math.log(len(values) / count) + 1 if text else 1.0 for word, count in lines.items()}
        self._places = {word: place for place, word in enumerate(sorted(rare))}
        self._weight = torch.tensor([rare[word] for word in self._places], dtype=torch.float64)
        _check_room(len(values), len(lines))
        length = float(self._raw(values).square().sum(1).mean()) if lines else 0.0
        self._weight *= weight / math.sqrt(length) if length > 0 else 0.0

    @property
    def width(self) -> int:
        """How many features the column becomes."""
        return 1 if self._numeric else len(self._places)

    def names(self, column: str) -> list[str]:
        """What the features of a column of this name are called."""
        return [column] if self._numeric else [f"{column}_{word}" for word in self._places]

    def _words(self, value: Any) -> list[str]:
        if not self._split:
            return [str(value)]
        pieces = re.split(r"[,;|]" if re.search(r"[,;|]", str(value)) else r"\s+", str(value).lower())
        return [piece.strip() for piece in pieces if piece.strip()]

    def _raw(self, values: list[Any]) -> Tensor:
        result = torch.zeros(len(values), len(self._places), dtype=torch.float64)
        for line, value in enumerate(values):
            for word in [] if value is None else self._words(value):
                place = self._places.get(word)
                if place is not None:
                    result[line, place] = self._weight[place]
        return result

    def encode(self, column: _Column) -> Tensor:
        """Features of one column, [n, some].

        Raises:
            TypeError: numbers are expected, and something else is there.
            ValueError: a number is not finite.
        """
        values = column.values
        if not self._numeric:
            return self._raw(values)
        for place, value in enumerate(values):
            if value is not None and not _is_number(value):
                raise TypeError(column.refusal(place, "numbers, as in fit(),"))
        _check_finite(column)
        numbers = torch.tensor([self._mean if v is None else float(v) for v in values], dtype=torch.float64)
        return ((numbers - self._mean) * self._scale)[:, None]


def _check_finite(column: _Column) -> None:
    """Refuse infinities.

    Raises:
        ValueError: there is one.
    """
    for place, value in enumerate(column.values):
        if value is not None and not math.isfinite(value):
            raise ValueError(column.refusal(place, "finite numbers"))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | Decimal | np.bool_)
