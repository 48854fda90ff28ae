"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["check_writable", "writing"]


def check_writable(path: Path) -> None:
    """Find out before long work whether a file could be written there.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write to, got the folder {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected the output's folder to exist, but there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"expected a folder that can be written to, got {path.parent}")


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; what is written there takes its place if all goes well.

    Raises:
        FileNotFoundError: the folder of ``path`` does not exist.
        IsADirectoryError: ``path`` is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected the output's folder to exist, but there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write to, got the folder {path}")
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files for the user alone; give the permissions that a plain open() would have given.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
