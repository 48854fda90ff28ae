"""No file that a command writes takes the place of another one that it reads or writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch_cntk._internal.files import is_stream

__all__ = ["check_apart"]


def check_apart(
    read: Mapping[str, Path | None], written: Mapping[str, Path | None], replaced: tuple[str, str] | None = None
) -> None:
    """Refuse to write one file over another, by whatever name, link or hard link. Pipes and devices may be the same.

    Args:
        read: files by what they are called in messages; None for those that there are not.
        written: likewise.
        replaced: one that is written and the one that is read whose place it may take.

    Raises:
        ValueError: two of them are one file.
    """
    places = {name: path for name, path in read.items() if path is not None}
    for name, path in written.items():
        if path is None:
            continue
        for other, place in places.items():
            if (name, other) != replaced and _same(path, place):
                raise ValueError(f"expected another file for {name} than for {other}, got {path}")
        places[name] = path


def _same(path: Path, other: Path) -> bool:
    if is_stream(path) or is_stream(other):
        return False
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()
