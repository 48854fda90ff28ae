"""The options of a class, as the signature of its constructor has them."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

__all__ = ["Option", "as_json", "as_typed", "collapsed", "options_of"]


class Option(NamedTuple):
    """An argument of a constructor.

    Attributes:
        name: of the argument, and of the attribute that keeps it.
        default: its default, if it has one.
        required: whether it has none.
        leading: its place among the arguments that may be given without their name, or None.
    """

    name: str
    default: Any
    required: bool
    leading: int | None


_KEPT: dict[type, tuple[Option, ...]] = {}


def options_of(cls: type) -> tuple[Option, ...]:
    """The arguments of a class's constructor; those that stand for any number of them (``*layers``) are left out."""
    options = _KEPT.get(cls)
    if options is None:
        options = _KEPT[cls] = _read(cls)
    return options


def _read(cls: type) -> tuple[Option, ...]:
    counted = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = list(inspect.signature(cls).parameters.values())
    return tuple(
        Option(p.name, p.default, p.default is p.empty, None if p.kind is inspect.Parameter.KEYWORD_ONLY else place)
        for place, p in enumerate(parameters)
        if p.kind not in counted
    )


def collapsed(value: Any) -> Any:
    """(3, 3) as 3, (3, 5) as it is."""
    if not isinstance(value, tuple):
        return value
    return value[0] if len(set(value)) == 1 else value


def as_typed(value: Any) -> str:
    """An option's value as one would type it: numbers with six digits, and ``collapsed``."""
    value = collapsed(value)
    return f"{value:g}" if isinstance(value, float) else repr(value)


def as_json(value: Any) -> Any:
    """An option's value in the types that JSON has."""
    return list(value) if isinstance(value, tuple) else value
