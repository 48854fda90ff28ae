"""Draw calls so that each can be had again by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings

from fuzz.oracle import Outcome, judge
from fuzz.targets import TARGETS

__all__ = ["BATCH", "batch"]

BATCH = 50
"""Calls that are drawn with one seed: to have one again, those before it are drawn, but not made."""
_DRAWING = settings(
    max_examples=BATCH,
    database=None,
    deadline=None,
    derandomize=False,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def batch(
    target: str,
    seed: int,
    number: int,
    begin: Callable[[int, Any], bool],
    end: Callable[[int, Any, Outcome], None],
) -> None:
    """Draw the calls ``number * BATCH`` and following, and make them.

    Args:
        target: a name among ``TARGETS``.
        seed: of all calls.
        number: of the batch.
        begin: is told of each call's number and input; says whether to make it.
        end: is told how it ended.
    """
    made = 0

    @hypothesis.seed(f"{target} {seed} {number}")
    @_DRAWING
    @hypothesis.given(TARGETS[target].cases)
    def each(case: Any) -> None:
        nonlocal made
        place, made = number * BATCH + made, made + 1
        # Each batch begins with the simplest input.
        if made <= BATCH and (made > 1 or number == 0) and begin(place, case):
            ordinary = getattr(case, "ordinary", False)
            end(place, case, judge(lambda: TARGETS[target].check(case), ordinary=ordinary))

    each()
