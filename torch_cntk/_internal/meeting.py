"""How processes that were started again find each other, and not what those before them have left.

``torchrun`` gives all its groups, one restart after the other, the same store (pytorch issue 135712): a process that
asks it for the addresses of the others may get those of processes that were killed. Here every process says who it is,
by a word that it draws, and the group goes on in a part of the store whose name only its members know.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["fresh"]

_PLACE = "torch_cntk/meeting"
_POLL = 0.02
"""Seconds between two looks at who has come."""


def fresh(store: Store, rank: int, size: int, timeout: float) -> Store:
    """The part of a store that belongs to the processes that call this now, and to none before them.

    Args:
        store: that all processes have in common.
        rank: of this process.
        size: number of processes.
        timeout: seconds for which the others are waited for.

    Returns:
        an empty store of all of them.

    Raises:
        RuntimeError: some have not come in time.
    """
    from torch._C._distributed_c10d import PrefixStore  # which not every build of torch has

    own = secrets.token_hex(8)
    store.set(f"{_PLACE}/hello/{rank}", own)
    until = time.monotonic() + timeout
    name = _gather(store, own, size, until) if rank == 0 else _join(store, own, rank, until)
    return PrefixStore(f"{_PLACE}/{name}", store)


def _gather(store: Store, own: str, size: int, until: float) -> str:
    """What the first process does: say who is here, again and again, until each of the others has seen itself.

    Raises:
        RuntimeError: some have not come in time.
    """
    missing = list(range(1, size))
    words = [own] + [""] * (size - 1)
    while True:
        for rank in missing:
            words[rank] = _read(store, f"hello/{rank}")
        store.set(f"{_PLACE}/here", json.dumps(words))
        missing = [rank for rank in missing if _read(store, f"seen/{rank}") != own]
        if not missing:
            return own
        if time.monotonic() > until:
            many = f"ranks {', '.join(map(str, missing))}" if len(missing) > 1 else f"rank {missing[0]}"
            raise RuntimeError(f"{many} did not come")
        time.sleep(_POLL)


def _join(store: Store, own: str, rank: int, until: float) -> str:
    """What the others do: wait to be named, which no first process of an earlier group can do.

    Raises:
        RuntimeError: the first process has not come in time.
    """
    while True:
        words = json.loads(_read(store, "here") or "[]")
        if own in words:
            store.set(f"{_PLACE}/seen/{rank}", words[0])
            return str(words[0])
        if time.monotonic() > until:
            raise RuntimeError("rank 0 did not come")
        time.sleep(_POLL)


def _read(store: Store, key: str) -> str:
    """What stands there; nothing if nobody has written yet."""
    name = f"{_PLACE}/{key}"
    return store.get(name).decode() if store.check([name]) else ""
