"""Which ranks are still there, once one has failed: each says so in the store that all of them share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["announce", "missing"]

_GRACE = 2.0
"""Seconds in which the other ranks are waited for, after one has failed, to say that they are still there."""
_POLL = 0.05
"""Seconds between two looks at who has answered."""


def announce(store: Store | None, rank: int) -> None:
    """Tell the others that this rank is still there."""
    if store is None:
        return
    try:
        store.set(_key(rank), "")
    except RuntimeError:  # whoever keeps the store has ended as well
        return


def missing(store: Store | None, size: int) -> list[int]:
    """Ranks that do not say within a short time that they are still there; none where nobody can tell."""
    if store is None:
        return []
    until = time.monotonic() + _GRACE
    absent = list(range(size))
    try:
        while absent and time.monotonic() < until:
            absent = [rank for rank in absent if not store.check([_key(rank)])]
            time.sleep(_POLL)
    except RuntimeError:
        return []
    return absent


def _key(rank: int) -> str:
    return f"torch_cntk/here/{rank}"
