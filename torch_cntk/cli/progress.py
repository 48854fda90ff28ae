"""Progress where there is no terminal: a line every ten seconds in place of a bar."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["lines_for_bars"]

_SECONDS = 10.0
"""Between two lines: often enough to see that it goes on, seldom enough for the log of a night."""
_MOVES = re.compile(r"(\r|\n|\x1b\[A)*")
"""What bars write to place themselves."""


class _Lines:
    """A stream in which what bars write becomes a line now and then; all else passes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._due = time.monotonic() + _SECONDS
        self._open = False  # whether the last text has not ended its line

    def write(self, text: str) -> int:
        if text.startswith("\r"):
            self._note(text.strip())
        elif self._open or not _MOVES.fullmatch(text):
            self._stream.write(text)
            self._open = not text.endswith("\n")
        return len(text)

    def _note(self, bar: str) -> None:
        if bar and time.monotonic() >= self._due:
            self._stream.write(f"torch-cntk: {bar}\n")
            self._stream.flush()
            self._due = time.monotonic() + _SECONDS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lines_for_bars() -> Iterator[None]:
    """Let bars be lines where stderr is no terminal."""
    if sys.stderr is None or sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stderr(_Lines(sys.stderr)):
        yield
