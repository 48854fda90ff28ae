"""Limits on memory that Linux sets to groups of processes: containers, systemd and batch systems use them.

A process belongs to one group of each hierarchy, and is bound by the limits of that group and of all above it. Both
versions of the interface are read (Linux' Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["group_bytes"]

_PROCESS = Path("/proc/self")
_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2^63 where there is no limit."""


@dataclass(frozen=True)
class _Interface:
    """Names of the files of a version: limits, use, and the share of use that is file cache on its way out."""

    limits: tuple[str, ...]
    used: str
    cache: str


_VERSIONS = {
    1: _Interface(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    # Above memory.high nobody is killed, but the group is slowed down until it is as good as dead.
    2: _Interface(("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


def group_bytes() -> int | None:
    """Bytes that the tightest limit on this process leaves, or None where no group has one."""
    free = []
    for folder, version in _groups():
        left = _left(folder, _VERSIONS[version])
        if left is not None:
            free.append(left)
    return min(free, default=None)


def _left(folder: Path, files: _Interface) -> int | None:
    """What a group's own limit leaves; file cache that is not in use counts as free, as it can be dropped."""
    statistics = _statistics(folder)
    limits = [_number(folder / name) for name in files.limits]
    # Version 1 tells of the limits above as well, which a container cannot see otherwise.
    limits.append(statistics.get("hierarchical_memory_limit"))
    used = _number(folder / files.used)
    least = min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)
    if least is None or used is None:
        return None
    return max(least - used + statistics.get(files.cache, 0), 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max", or a file that this group lacks
        return None


def _statistics(folder: Path) -> Mapping[str, int]:
    try:
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        return {entry[0]: int(entry[1]) for entry in lines}
    except (OSError, ValueError, IndexError):
        return {}


def _groups() -> Iterator[tuple[Path, int]]:
    """The folder of each group that this process is in, innermost first, and its version."""
    try:
        own = [line.split(":", 2) for line in (_PROCESS / "cgroup").read_text().splitlines()]
        mounts = list(_mounts((_PROCESS / "mountinfo").read_text()))
    except (OSError, ValueError):
        return
    for entry in own:
        if len(entry) != 3:
            continue
        version = 2 if entry[1] == "" else 1
        if version == 1 and "memory" not in entry[1].split(","):
            continue
        for root, point in (mount[:2] for mount in mounts if mount[2] == version):
            yield from ((folder, version) for folder in _upwards(point, _relative(entry[2], root)))


def _mounts(text: str) -> Iterator[tuple[str, Path, int]]:
    """Root, place and version of the hierarchies of memory that are mounted (format: proc_pid_mountinfo(5))."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        root, point = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
        if kind[0] == "cgroup2":
            yield root, Path(point), 2
        elif kind[0] == "cgroup" and "memory" in kind[-1].split(","):
            yield root, Path(point), 1


def _relative(group: str, root: str) -> PurePosixPath:
    """Path of a group below the root that is mounted; that root itself where the group lies outside of it."""
    path = PurePosixPath(group)
    if ".." in path.parts or not path.is_relative_to(root):
        return PurePosixPath()
    return path.relative_to(root)


def _upwards(point: Path, below: PurePosixPath) -> Iterator[Path]:
    yield from (point / part for part in (below, *below.parents) if part != PurePosixPath())
    yield point
