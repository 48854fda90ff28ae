"""All users of the page, and the files that belong to none of them."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from torch_cntk.app.session import Machine, Session

__all__ = ["Sessions"]

_KEPT = 60.0
"""Seconds for which uploaded files lie about: they are read as soon as they are there."""


class Sessions:
    """Those of all users, by a key, and the folder that all of their files lie in.

    The server puts what is uploaded into the same folder. It is read at once; files that lie there for longer than a
    minute are removed, those of a session when it ends, and the folder with all that is in it by ``close``.

    Args:
        machine: what each of them may use.
        folder: exists, and is for nothing else; by default a new one.
    """

    def __init__(self, machine: Machine, folder: Path | None = None) -> None:
        self.machine = machine
        self.folder = Path(tempfile.mkdtemp(prefix="torch-cntk-")) if folder is None else folder
        self._own = Path(tempfile.mkdtemp(dir=self.folder))
        self._lock = threading.Lock()
        self._all: dict[str, Session] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._sweep_on, daemon=True).start()

    def of(self, key: str) -> Session:
        """The session of this key; a new one where there is none."""
        with self._lock:
            if key not in self._all:
                self._all[key] = Session(Path(tempfile.mkdtemp(dir=self._own)), self.machine)
            return self._all[key]

    def end(self, key: str) -> None:
        """Close the session of this key, if there is one."""
        with self._lock:
            session = self._all.pop(key, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        """Close all of them, and remove the folder."""
        self._ended.set()
        for key in list(self._all):
            self.end(key)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self, age: float = _KEPT) -> None:
        """Remove uploaded files that are older than ``age`` seconds."""
        latest = time.time() - age
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # removed by somebody else, or a folder that is not empty
                if self._own in (path, *path.parents):
                    continue
                if path.is_dir():
                    path.rmdir()
                elif path.stat().st_mtime < latest:
                    path.unlink()

    def _sweep_on(self) -> None:
        while not self._ended.wait(_KEPT / 2):
            self.sweep()
