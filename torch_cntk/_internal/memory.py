"""How much memory is free, asked before long work rather than found out during it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from torch_cntk._internal.cgroups import group_bytes

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = [
    "OutOfMemoryError",
    "agreed",
    "allocating",
    "available_bytes",
    "bytes_text",
    "failed_allocation",
    "is_agreed",
    "require_bytes",
]

_SMALL = 1 << 24
"""Bytes that are not worth a question to the operating system."""
_agreed: dict[str, int | None] = {}
"""What all of several processes count on; one of this process, as its decisions are those of all its threads."""
_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


class OutOfMemoryError(MemoryError):
    """Something does not fit into memory; the message says how many bytes are needed and free."""


def available_bytes(device: torch.device | str = "cpu") -> int | None:
    """Bytes that can be allocated on ``device`` now, or None where nobody can tell.

    For the CPU it is the tightest of: what the system has, what the groups of this process may still take (containers,
    batch systems), the process's own limits (``ulimit -v`` and ``-d``), and what Slurm has promised to the job.
    """
    device = torch.device(device)
    if device.type in _agreed:
        return _agreed[device.type]
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    answers = (_system_bytes(), group_bytes(), *_process_bytes(), _slurm_bytes())
    return min((answer for answer in answers if answer is not None), default=None)


@contextmanager
def agreed(free: Mapping[str, int | None]) -> Iterator[None]:
    """While this lasts, answer these numbers of free bytes, by kind of device, whatever is free."""
    global _agreed
    before, _agreed = _agreed, dict(free)
    try:
        yield
    finally:
        _agreed = before


def is_agreed() -> bool:
    """Whether ``agreed`` holds."""
    return bool(_agreed)


def _fields(path: Path) -> Mapping[str, int]:
    """Bytes by name from a file whose lines are ``Name:   123 kB``."""
    sizes = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return {}
    for line in lines:
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            sizes[name] = int(value.split()[0]) * 1024
    return sizes


def _system_bytes() -> int | None:
    """What the whole system can still give without swapping."""
    free = _fields(_MEMINFO).get("MemAvailable")
    return _psutil_bytes() if free is None else free


def _psutil_bytes() -> int | None:
    """The same on macOS, Windows and others."""
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except (ImportError, OSError, RuntimeError):
        return None


def _process_bytes() -> Iterator[int]:
    """What the limits on this process's own address space leave."""
    if resource is None:
        return
    for limit, field in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        number = getattr(resource, limit, None)
        if number is None:
            continue
        most = resource.getrlimit(number)[0]
        used = _fields(_STATUS).get(field) if most != resource.RLIM_INFINITY else None
        if used is not None:
            yield max(most - used, 0)


def _slurm_bytes() -> int | None:
    """What is left of the memory that Slurm gave to this job; without groups it kills jobs that exceed it."""
    try:
        promised = int(os.environ.get("SLURM_MEM_PER_NODE", 0))
        if not promised:
            promised = int(os.environ.get("SLURM_MEM_PER_CPU", 0)) * int(os.environ.get("SLURM_CPUS_ON_NODE", 0))
    except ValueError:
        return None
    used = _fields(_STATUS).get("VmRSS")
    # In megabytes of 2^20; 0 stands for all that the node has.
    return max(promised * 2**20 - used, 0) if promised and used is not None else None


def bytes_text(count: float) -> str:
    """``1234567`` as ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 1000 else f"{count:,.0f} TB"


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


_FAILED = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad[_ ]alloc|unable to allocate|"
    r"Storage size calculation overflowed|numel: integer multiplication overflow|ALLOC_FAILED|"
    r"Cannot allocate memory|could not create a (memory object|primitive)",
    re.IGNORECASE,
)
"""What torch, its libraries and numpy write where memory is too small, on the CPU and on other devices."""
_SIZE = re.compile(r"allocate (?P<number>[\d.]+) (?P<unit>bytes|[KMGTPE]iB)\b", re.IGNORECASE)
_UNITS = {"by": 1} | {f"{letter}i": 1024 ** (k + 1) for k, letter in enumerate("kmgtpe")}
"""Bytes in a unit, by its first two letters."""


def failed_allocation(error: BaseException) -> bool:
    """Whether an error says that memory was not enough: torch raises a RuntimeError like any other."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and _FAILED.search(str(error)) is not None


@contextmanager
def allocating(
    what: str, device: torch.device | str | None = None, hint: Callable[[], str] | None = None
) -> Iterator[None]:
    """Turn failures to allocate memory, which torch raises as RuntimeError, into ``OutOfMemoryError``.

    For what no estimate has foreseen. It serves as a decorator as well: ``@allocating("the training")``.

    Args:
        what: what needs the memory, as the subject of the message.
        device: on which it was to be allocated; by default a GPU if the error is one of a GPU, else the CPU.
        hint: says what the user can do instead.

    Raises:
        OutOfMemoryError: memory could not be allocated; the message says how much at once and how much is free.
        RuntimeError: another one, as it came.
        MemoryError: an ``OutOfMemoryError`` of the work, as it came.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not failed_allocation(error):
            raise
        advice = "" if hint is None else f"; {hint()}"
        raise OutOfMemoryError(f"{_failure(what, error, device)}{advice}") from error


def _failure(what: str, error: Exception, device: torch.device | str | None) -> str:
    text = " ".join(str(error).split())
    on_gpu = isinstance(error, torch.OutOfMemoryError) and torch.cuda.is_available()
    free = available_bytes(device or ("cuda" if on_gpu else "cpu"))
    left = "" if free is None else f"{bytes_text(free)} are free"
    size = _SIZE.search(text)
    if size is None:
        reason = "; ".join(part for part in (left, text) if part)
        return f"{what} needs more memory than there is{f' ({reason})' if reason else ''}"
    asked = float(size["number"]) * _UNITS[size["unit"].lower()[:2]]
    return f"{what} could not get another {bytes_text(asked)} of memory{'; ' if left else ''}{left}"
