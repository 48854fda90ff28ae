"""How much memory is free, asked before long work rather than found out during it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["OutOfMemoryError", "available_bytes", "bytes_text", "require_bytes"]

_CGROUP = Path("/sys/fs/cgroup")
_SMALL = 1 << 24
"""Bytes that are not worth a question to the operating system."""
_MEMINFO = Path("/proc/meminfo")


class OutOfMemoryError(MemoryError):
    """Something would not fit; raised before it is begun, with the bytes needed and free."""


def _cgroup_bytes() -> int | None:
    """What a container's limit leaves, where there is one (file cache counts as free: it can be dropped)."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(limit) - used + int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def available_bytes(device: torch.device | str = "cpu") -> int | None:
    """Bytes that can be allocated on ``device`` now, or None where nobody can tell."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [limit for limit in (_cgroup_bytes(),) if limit is not None]
    try:
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    return min(limits, default=None)


def bytes_text(count: float) -> str:
    """``1234567`` as ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def require_bytes(needed: int, what: str, hint: Callable[[int], str], device: torch.device | str = "cpu") -> None:
    """Refuse work that would not fit.

    Args:
        needed: bytes that the work allocates at its peak.
        what: what needs them, as the subject of the message.
        hint: what the user can do instead, given the bytes that are free.
        device: where they are allocated.

    Raises:
        OutOfMemoryError: fewer bytes are free than needed.
    """
    if needed < _SMALL:
        return
    free = available_bytes(device)
    if free is not None and needed > free:
        raise OutOfMemoryError(f"{what} needs {bytes_text(needed)}, but {bytes_text(free)} are free; {hint(free)}")
