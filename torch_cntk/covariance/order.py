"""Orders: in which the nodes of an expression are worked on, and that do not matter."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["parents_first", "same_channels"]

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


def same_channels(features: Tensor, others: Tensor) -> bool:
    """Whether both have the same channels, in any order (of many channels: in this order)."""
    if features.shape != others.shape:
        return False
    if len(features) > 8:
        return torch.equal(features, others)
    left = list(others)
    for channel in features:
        match = next((k for k, other in enumerate(left) if torch.equal(channel, other)), None)
        if match is None:
            return False
        del left[match]
    return True
