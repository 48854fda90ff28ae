"""Bounds that predictions keep to."""

from __future__ import annotations

from torch_cntk._internal.checks import finite_number

__all__ = ["Bounds", "check_bounds"]

Bounds = tuple[float | None, float | None] | None
"""The smallest and the largest value; None is for no bound."""


def check_bounds(bounds: Bounds) -> None:
    """Refuse bounds that are none.

    Raises:
        TypeError: they are not numbers.
        ValueError: there are not two, or the first is above the second.
    """
    if bounds is None:
        return
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"expected clip as a pair (smallest, largest), one of which may be None, got {bounds!r}")
    low, high = (None if bound is None else finite_number(bound, "a bound of clip") for bound in bounds)
    if low is None and high is None:
        raise ValueError("expected at least one bound in clip, got (None, None); clip=None is for no bounds")
    if low is not None and high is not None and low > high:
        raise ValueError(f"expected the smallest value of clip below the largest, got {bounds!r}")
