"""What the command owns as a process: signals, warnings and the standard streams. Imports neither torch nor numpy."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType

__all__ = ["complain", "governed", "interrupted", "is_done", "quiet", "rank", "several_ranks"]

Handler = Callable[[int, FrameType | None], None]

_pressed: list[int] = []
"""Numbers of the signals that Ctrl-C sent so far."""


def several_ranks() -> bool:
    """Whether torchrun has started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ


def rank() -> int:
    """The number of this process among those that torchrun has started; 0 without it. Rank 0 tells the user."""
    return int(os.environ["RANK"]) if several_ranks() else 0


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be told but errors; what is told comes from rank 0."""
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def complain(message: str) -> None:
    """Write a line on stderr; what its encoding lacks, in names of files for instance, is escaped."""
    line = f"torch-cntk: {' '.join(message.split())}"
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


@contextmanager
def governed() -> Iterator[None]:
    """Let Ctrl-C end the process in one line whenever it comes, and warnings and odd file names be told in one line."""
    before = signal.getsignal(signal.SIGINT)
    _answer(_leave, _leave)
    _load()
    _answer(_interrupt, _terminate)
    with suppress(AttributeError):  # closed, or replaced by a program that runs this one inside
        # Names of files may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.showwarning = _show
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        # All is told and cleaned up; Ctrl-C shall not add a traceback of Python's own end.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _answer(interrupt: Handler, terminate: Handler) -> None:
    signal.signal(signal.SIGINT, interrupt)
    with suppress(AttributeError, ValueError):  # not on every system
        signal.signal(signal.SIGTERM, terminate)


def interrupted() -> bool:
    """Whether Ctrl-C was pressed: libraries turn its exception into others, such as an ImportError."""
    return bool(_pressed)


@contextmanager
def is_done(what: str) -> Iterator[None]:
    """Say, where the user interrupts further work, what has been done before it.

    Args:
        what: in a clause, such as "out.png is written".

    Raises:
        KeyboardInterrupt: with that clause, after Ctrl-C.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or interrupted():
            raise KeyboardInterrupt(what) from error
        raise


def _load() -> None:
    """Import what takes long, while Ctrl-C may still leave at once."""
    from torch_cntk.cli import app, complete, demo, inpaint, kernels, train  # noqa: F401


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process. During imports an exception might be swallowed or changed by a library; and nothing is open."""
    _say(number)
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let the work clean up behind itself; who presses again does not want to wait for that.

    Raises:
        KeyboardInterrupt: always, at the first time.
    """
    _pressed.append(number)
    if len(_pressed) > 1:
        _leave(number, frame)
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    """What batch systems send before they kill: leave no temporary files behind.

    Raises:
        SystemExit: always.
    """
    _say(number)
    raise SystemExit(128 + number)


def _say(number: int) -> None:
    with suppress(OSError):  # stderr is closed
        os.write(2, b"torch-cntk: interrupted\n" if number == signal.SIGINT else b"torch-cntk: terminated\n")


def _show(message: Warning | str, *_: object, **__: object) -> None:
    text = " ".join(str(message).split())
    if sys.stderr is not None:
        print(f"torch-cntk: warning: {text}", file=sys.stderr)
