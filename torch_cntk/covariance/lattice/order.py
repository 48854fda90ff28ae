"""The order of nodes that are made from others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

__all__ = ["parents_first"]

N = TypeVar("N", bound=Hashable)


def parents_first(last: N, parents: Callable[[N], Iterable[N]]) -> list[N]:
    """All that ``last`` is made from, each once, and ``last`` itself; parents come before what is made from them."""
    found: dict[N, None] = {}
    waiting = [last]
    while waiting:
        node = waiting[-1]
        missing = [parent for parent in parents(node) if parent not in found]
        if missing:
            # The first of them on top: branches are computed in their order.
            waiting.extend(reversed(missing))
        else:
            # A node that waits several times keeps its first place.
            found[waiting.pop()] = None
    return list(found)
