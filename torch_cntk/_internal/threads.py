"""Parts of the work side by side, each on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

from torch_cntk._internal.contexts import plain

__all__ = ["side_by_side"]

P = TypeVar("P")
R = TypeVar("R")

_lock = Lock()
_users = 0
_threads_before = 1


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Let each of torch's operations take one thread; gives how many they took before.

    The number is one of the whole process. Where several calls overlap, the last one to end puts it back.
    """
    global _users, _threads_before
    with _lock:
        if _users == 0:
            _threads_before = torch.get_num_threads()
            torch.set_num_threads(1)
        _users += 1
        threads = _threads_before
    try:
        yield threads
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_num_threads(_threads_before)


def side_by_side(work: Callable[[P], R], parts: Iterable[P], most: int | None = None) -> Iterator[R]:
    """The results of some work on each of the parts, in their order.

    As many parts are worked on at a time as torch takes threads for one operation, and each operation takes one. The
    numbers are the same whatever that is. No gradients are recorded.

    Args:
        work: what to do with a part; it may be called from any thread.
        parts: what to do it with.
        most: of the parts at a time; None for as many as there are threads.
    """

    def undisturbed(part: P) -> R:
        with plain():
            return work(part)

    with _one_thread_each() as threads:
        workers = threads if most is None else max(min(threads, most), 1)
        if workers == 1:
            yield from map(undisturbed, parts)
            return
        pool = ThreadPoolExecutor(workers)
        try:
            yield from pool.map(undisturbed, parts)
        finally:
            # What has not begun need not begin once the caller has had enough, or one part has failed.
            pool.shutdown(cancel_futures=True)
