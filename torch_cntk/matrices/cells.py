"""Cells of text as numbers, and numbers as cells."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Decimal", "Reading", "decimal_mark", "holds_dates", "number_of", "repeated", "text_of"]

Decimal = Literal[".", ","]

_MISSING = frozenset({"", "na", "n/a", "#n/a", "#na", "nan", "-nan", "null", "none", "<na>"})
"""What programs write where a number is missing, in small letters."""
_EMPTY = frozenset({"", "#n/a", "nan", "<na>", "null"})
"""Likewise where a word is missing: NA and None may be words, as the code of a country or a stage."""
_WITH_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""As 1,234, which is 1.234 to some and 1234 to others."""
_WITH_POINT = re.compile(r"[+-]?\d*\.\d*([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?")


@dataclass(frozen=True)
class Reading:
    """How the user says that files are to be read; None is for what is found.

    Attributes:
        missing: further texts that stand for a missing entry, such as -666; numbers are compared as numbers.
        separator: between cells.
        decimal: mark of decimals.
        encoding: of the text.
        zeros: what entries mean that a sparse matrix does not store.
    """

    missing: tuple[str, ...] = ()
    separator: str | None = None
    decimal: Decimal | None = None
    encoding: str | None = None
    zeros: Literal["missing", "values"] | None = None

    @property
    def codes(self) -> frozenset[float]:
        """Those of ``missing`` that are numbers."""
        found = (number_of(text.replace(",", "."), ".") for text in self.missing)
        return frozenset(number for number in found if number is not None)

    def hides(self, words: bool = False) -> Callable[[str], bool]:
        """A test whether a cell is missing; in a column of ``words`` fewer of the usual signs count."""
        usual, own = _EMPTY if words else _MISSING, frozenset(self.missing)
        return lambda cell: cell.strip().lower() in usual or cell.strip() in own


def number_of(cell: str, decimal: Decimal) -> float | None:
    """A cell as a number, or None if it is none."""
    if decimal == ",":
        # With a decimal comma, a point groups digits, if anything.
        if "." in cell:
            return None
        cell = cell.replace(",", ".")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def text_of(number: float, decimal: Decimal) -> str:
    """A number as a cell, with all its digits; nothing if it is NaN."""
    if math.isnan(number):
        return ""
    return repr(float(number)).replace(".", decimal)


def decimal_mark(cells: Iterable[str], path: object) -> Decimal:
    """Which mark decimals have: a comma, if there are numbers with one that can be read in no other way, else a point.

    Raises:
        ValueError: there are numbers of both kinds, or the comma may as well group thousands.
    """
    comma = grouped = point = None
    for cell in cells:
        stripped = cell.strip()
        if "," in stripped and _WITH_COMMA.fullmatch(stripped):
            if _GROUPED.fullmatch(stripped):
                grouped = grouped or stripped
            else:
                comma = comma or stripped
        elif "." in stripped and _WITH_POINT.fullmatch(stripped):
            point = point or stripped
    if comma and point:
        raise ValueError(
            f"expected one mark of decimals in {path}, got numbers such as {comma} and {point}; tell the decimal mark"
        )
    if grouped and not comma:
        raise ValueError(
            f"expected to tell decimals from thousands in {path}, got {grouped}; tell the decimal mark, or take the "
            "commas out"
        )
    return "," if comma else "."


def holds_dates(cells: Sequence[str]) -> bool:
    """Whether all cells are dates, as 2020-01-31, 31/1/2020 or 31.1.2020."""
    return bool(cells) and all(_DATE.fullmatch(cell.strip()) for cell in cells)


def repeated(labels: Iterable[str]) -> list[str]:
    """Labels that stand more than once."""
    return [label for label, count in Counter(labels).items() if count > 1]
