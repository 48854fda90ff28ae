"""Long computations in processes of their own: they tell how far they are, and can be stopped at any moment.

A thread cannot be stopped from outside, and what it holds in memory stays with the server. A process that is ended
gives all of it back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar, cast

import torch
import tqdm

__all__ = ["CancelledError", "Progress", "Work", "prepare"]

T = TypeVar("T")

_FORKSERVER = "forkserver"
_PRELOADED = ["torch_cntk.app.repair"]
"""What a new process would spend seconds on importing: the server of forks does it once."""
_TICK = 0.5
"""Seconds after which progress is told again where nothing happened, so that the time runs on."""


class CancelledError(Exception):
    """The work was stopped by its user."""


@dataclass(frozen=True)
class Progress:
    """How far a computation is.

    Attributes:
        stage: what it does, in a word or two; empty at the beginning.
        done: steps of this stage that are done.
        total: of its steps; 0 where that is not known.
        seconds: since the beginning of the work.
    """

    stage: str = ""
    done: float = 0
    total: float = 0
    seconds: float = 0.0


class Work(Generic[T]):
    """A function that runs in a process of its own.

    Args:
        function: at the top of a module; its bars (tqdm) become ``Progress``.
        *arguments: of the function; they and its result are pickled.
        threads: of torch in the process; None leaves that to torch.
    """

    def __init__(self, function: Callable[..., T], *arguments: object, threads: int | None = None) -> None:
        context = _context()
        self._receiver, sender = context.Pipe(duplex=False)
        self._cancelled = False
        self._start = time.monotonic()
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_run, args=(sender, pickle.dumps((function, arguments)), threads), daemon=True
        )
        self._process.start()
        sender.close()

    def follow(self) -> Generator[Progress, None, T]:
        """Wait for the result.

        Yields:
            how far it is, at least twice a second.

        Returns:
            what the function returned.

        Raises:
            CancelledError: ``cancel`` was called.
            Exception: of the kind that the function raised.
            MemoryError: the process was ended from outside, as systems do that run out of memory.
        """
        last = Progress()
        try:
            while True:
                kind, value = self._message()
                if kind == "result":
                    return cast("T", value)
                if kind == "error":
                    failure = cast("Exception", value)
                    raise failure
                if kind == "progress":
                    last = cast("Progress", value)
                yield replace(last, seconds=time.monotonic() - self._start)
        finally:
            self.close()

    def _message(self) -> tuple[str, object]:
        """The next one of the process, or one without content after half a second.

        Raises:
            CancelledError: ``cancel`` was called.
            MemoryError: the process was ended from outside.
        """
        try:
            message = self._receiver.recv_bytes() if self._receiver.poll(_TICK) else pickle.dumps(("", None))
        except (EOFError, OSError):
            if self._cancelled:
                raise CancelledError("cancelled") from None
            raise MemoryError("the computation was ended from outside, as happens where memory runs out") from None
        return cast("tuple[str, object]", pickle.loads(message))

    def cancel(self) -> None:
        """Stop it now."""
        self._cancelled = True
        self._process.terminate()

    def close(self) -> None:
        """Stop it if it still runs, and leave nothing behind."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._receiver.close()


def prepare() -> None:
    """Let the first computation begin as soon as all others, where the system can do that."""
    if _FORKSERVER in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver  # not on every system

        _context()
        forkserver.ensure_running()


def _context() -> BaseContext:
    """How processes are made: as copies of one that has imported torch, where the system can do that."""
    if _FORKSERVER not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context(_FORKSERVER)
    context.set_forkserver_preload(_PRELOADED)
    return context


def _run(sender: Connection, task: bytes, threads: int | None) -> None:
    """What the process does."""
    if threads is not None:
        torch.set_num_threads(threads)

    lock = threading.Lock()  # bars move in several threads

    def tell(kind: str, value: object) -> None:
        # Pickled here: what torch would send in its place is a tensor's memory, which ends with this process.
        with lock, contextlib.suppress(BrokenPipeError):  # nobody listens any more
            sender.send_bytes(pickle.dumps((kind, value)))

    def display(bar: Any, *_: object, **__: object) -> bool:
        tell("progress", Progress((bar.desc or "").removesuffix(": "), bar.n, bar.total or 0))
        return True

    # Its lock would be one of the system's, which a process that is ended leaves behind.
    tqdm.tqdm.set_lock(threading.RLock())
    # In this process alone: what a bar would write on the terminal goes to the page.
    tqdm.tqdm.display = display
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - no path of a file
        sys.stderr = nowhere
        try:
            function, arguments = pickle.loads(task)
            tell("result", function(*arguments))
        except Exception as error:
            tell("error", _portable(error))
    sender.close()


def _portable(error: Exception) -> Exception:
    """An error of the same kind that can be pickled whatever it holds."""
    kinds = (MemoryError, ValueError, TypeError, OSError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)
    return kind(str(error) or type(error).__name__)
