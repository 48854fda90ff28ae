"""Files appear whole or not at all.

What is written goes into a new file beside the old one, is brought to the disk (fsync), and takes the old one's name in
one step (rename). A process that is killed at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_writable", "is_stream", "writing"]

_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
"""Of errors that mean: the disk, the user's share of it or the largest file allowed is full."""
_PROBE = 1 << 16
"""Bytes that a disk takes which is not full."""
_LONGEST_SUFFIX = 16
"""Formats are told by their suffix, which the temporary file keeps; longer ones are of none that is known."""


def check_writable(path: Path) -> None:
    """Find out before long work whether a file could be written there.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder, or not into this file.
        OSError: it is a device on which files are stored, or its name is too long.
    """
    if is_stream(path):
        _check_stream(path)
        return
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write to, got the folder {path}")
    target = _target(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"expected the output's folder to exist, but there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"expected a folder that can be written to, got {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"expected a file that can be replaced, got the read-only {path}")


def is_stream(path: str | Path) -> bool:
    """Whether what is written there goes to a program or device (a pipe, /dev/stdout) and not into a file."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what is written there takes its place if all goes well.

    Links are followed: the file that they point to is replaced. It keeps its permissions, and its owner where the
    system allows that. What is written to a pipe or device goes there once it is complete.

    Raises:
        FileNotFoundError: the folder of ``path`` does not exist.
        IsADirectoryError: ``path`` is a folder.
        PermissionError: nothing may be written there.
        OSError: the disk is full, for example; ``path`` is as it was then.
    """
    path = Path(path)
    check_writable(path)
    if is_stream(path):
        with _temporary(Path(tempfile.gettempdir()) / path.name, 0o600, path) as temporary:
            yield temporary
            with temporary.open("rb") as source, _open_stream(path) as sink:
                shutil.copyfileobj(source, sink)
        return
    target = _target(path)
    old = target.stat() if target.exists() else None
    with _temporary(target, 0o666 if old is None else 0o600, path) as temporary:
        yield temporary
        _synchronise(temporary)
        if old is not None:
            _take_over(temporary, old)
        temporary.replace(target)
    # The new name is in the folder; some systems cannot bring a folder to the disk.
    with suppress(OSError):
        _synchronise(target.parent)


def _target(path: Path) -> Path:
    """The file that links lead to, which need not exist."""
    return Path(os.path.realpath(path))


@contextmanager
def _temporary(beside: Path, mode: int, path: Path) -> Iterator[Path]:
    """Make an empty file in the same folder, and remove it if it is still there in the end.

    Raises:
        OSError: the disk is full.
    """
    # Never none: torch.save takes a hidden name for one that is all suffix.
    suffix = beside.suffix if 0 < len(os.fsencode(beside.suffix)) <= _LONGEST_SUFFIX else ".tmp"
    temporary = beside.parent / f".unfinished-{secrets.token_hex(8)}{suffix}"
    try:
        # Not by tempfile.mkstemp: the system shall apply the user's umask, as it does to any new file.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0), mode))
        yield temporary
    except Exception as error:
        if _is_full(error, temporary):
            raise OSError(errno.ENOSPC, f"no space is left on the disk for {path}, which was not written") from error
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _is_full(error: Exception, temporary: Path) -> bool:
    """Whether an error comes from a full disk: not every library says so."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    try:
        with temporary.open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found.errno in _FULL
    return False


def _take_over(temporary: Path, old: os.stat_result) -> None:
    """Give the new file the permissions of the old one, and its owner and group as far as that is allowed."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def _synchronise(path: Path) -> None:
    """Bring a file or folder to the disk."""
    # Windows brings only what is open for writing to the disk.
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _descriptor(path: str | Path) -> int | None:
    """The number of the open stream that a name such as /dev/stdout or /dev/fd/3 stands for, or None."""
    text = os.fspath(path)
    if text in _STREAMS:
        return _STREAMS[text]
    folder, _, number = text.rpartition("/")
    return int(number) if folder in {"/dev/fd", "/proc/self/fd"} and number.isdecimal() else None


def _check_stream(path: Path) -> None:
    """Refuse what cannot be written to.

    Raises:
        OSError: a disk itself, or a stream that is not open.
        PermissionError: it may not be written to.
    """
    number = _descriptor(path)
    if number is not None:
        os.fstat(number)
    elif stat.S_ISBLK(path.stat().st_mode):
        raise OSError(f"expected a file to write to, got the disk {path}")
    elif not os.access(path, os.W_OK):
        raise PermissionError(f"expected a file that can be written to, got {path}")


@contextmanager
def _open_stream(path: Path) -> Iterator[BinaryIO]:
    number = _descriptor(path)
    # A copy of the open stream, not the file behind it, which others may have written to before.
    with os.fdopen(os.dup(number), "wb") if number is not None else path.open("wb") as sink:
        yield sink
