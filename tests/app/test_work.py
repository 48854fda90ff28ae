"""Functions in processes of their own: their results, errors, progress and end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest
import torch
import tqdm

from torch_cntk.app.work import CancelledError, Progress, Work


def counted(steps: int, pause: float = 0.0) -> tuple[int, int]:
    for _ in tqdm.tqdm(range(steps), desc="counting", mininterval=0):
        time.sleep(pause)
    return steps, torch.get_num_threads()


def failing(kind: str) -> None:
    raise {"value": ValueError("no"), "memory": MemoryError("no"), "odd": OddError("n", "o")}[kind]


def ended() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def finished(follow: Generator[Progress, None, Any]) -> tuple[list[Progress], Any]:
    told: list[Progress] = []
    while True:
        try:
            told.append(next(follow))
        except StopIteration as end:
            return told, end.value


def test_result_threads_and_progress() -> None:
    told, result = finished(Work(counted, 5, 0.01, threads=1).follow())
    assert result == (5, 1)
    bars = [progress for progress in told if progress.stage]
    assert {progress.stage for progress in bars} == {"counting"} and bars[-1].total == 5
    assert [progress.done for progress in bars] == sorted(progress.done for progress in bars)
    assert told[-1].seconds > 0


@pytest.mark.parametrize(("name", "kind"), [("value", ValueError), ("memory", MemoryError), ("odd", RuntimeError)])
def test_errors_come_back_as_sentences(name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^no$"):
        finished(Work(failing, name).follow())


def test_a_process_that_the_system_ends_is_an_error() -> None:
    with pytest.raises(MemoryError, match="memory"):
        finished(Work(ended).follow())


def test_cancelled_from_another_thread() -> None:
    work = Work(counted, 1000, 0.1)
    follow = work.follow()
    next(follow)
    threading.Timer(0.1, work.cancel).start()
    with pytest.raises(CancelledError):
        finished(follow)


def test_who_stops_following_stops_it() -> None:
    work = Work(counted, 1000, 0.1)
    follow = work.follow()
    next(follow)
    follow.close()
    assert work._process.exitcode is not None
