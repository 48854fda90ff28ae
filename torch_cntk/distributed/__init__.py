"""One problem on several processes, machines or GPUs, started by ``torchrun``.

The same script runs alone and on many: ``mesh = tc.distributed.mesh()`` is the group of all processes that ``torchrun``
has started, or a group of one without it.
"""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.meeting import fresh
from torch_cntk._internal.ranks import Mesh, joined

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["Mesh", "mesh"]

_TIMEOUT = 600.0
"""Seconds: ranks wait for the slowest of them, whose disk may be busy or whose share may be the largest."""
_store: Store | None = None
"""By which the processes have found each other."""
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells its processes, by environment variables."""


def mesh(timeout: float = _TIMEOUT, backend: Literal["gloo", "nccl"] | None = None) -> Mesh:
    """The group of all processes that ``torchrun`` has started, or of this one alone.

    The first call connects the processes; later ones with the same arguments return the same mesh. Each rank computes
    on one device: on GPU number LOCAL_RANK, or on the CPU, with as many threads as torch has (torchrun sets one a
    process unless OMP_NUM_THREADS says otherwise). A process group that exists already is used.

    Args:
        timeout: seconds for which a rank waits for the others, at most; whatever it waits for then ends in a
            RuntimeError. It must exceed the time by which the slowest rank is later than the fastest.
        backend: "gloo" for CPUs, "nccl" for GPUs; by default GPUs where each process of this machine can have one.

    Raises:
        TypeError: the timeout is no number.
        ValueError: the timeout is not positive; the backend is unknown; this machine has fewer GPUs than processes; or
            versions of torch or of this package, processors or numbers of threads differ between ranks.
        RuntimeError: not all ranks have come within the timeout.
    """
    if not finite_number(timeout, "timeout") > 0:
        raise ValueError(f"expected timeout to be above 0 seconds, got {timeout:g}")
    if backend not in (None, "gloo", "nccl"):
        raise ValueError(f'expected backend "gloo", "nccl" or None, got {backend!r}')
    device = _device(backend)
    if not dist.is_initialized() and _number("WORLD_SIZE", 1) == 1:
        return Mesh.alone(device)
    _connect(device, float(timeout))
    try:
        found = joined(device, float(timeout), _store)
    except RuntimeError as error:
        raise RuntimeError(_not_met(timeout, error)) from error
    found.agree(**_versions(device), kind_of_device=device.type, timeout=float(timeout))
    return found


def _number(name: str, default: int) -> int:
    """A number in the environment.

    Raises:
        ValueError: there is something else.
    """
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ValueError(f"expected a number in the environment variable {name}, as torchrun sets it, got {text!r}")
    return int(text)


def _device(backend: str | None) -> torch.device:
    """Where this process computes.

    Raises:
        ValueError: it should have a GPU, and there is none for it.
    """
    local, beside = _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if backend == "nccl" and local >= count:
        raise ValueError(f"expected a GPU for each process of this machine, got {count} for process {local}")
    if backend == "nccl" or (backend is None and count >= beside and count > 0):
        return torch.device("cuda", local)
    return torch.device("cpu")


def _connect(device: torch.device, timeout: float) -> None:
    """Make the default process group unless there is one.

    Raises:
        ValueError: torchrun's variables are incomplete.
        RuntimeError: not all ranks have come within the timeout.
    """
    global _store
    if dist.is_initialized():
        return
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise ValueError(
            f"expected {', '.join(_NEEDED)} in the environment, as torchrun sets them; got no {', no '.join(missing)}"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # Without it a rank goes on, and finds out from another thread, which ends the process, that others are gone.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    wait = timedelta(seconds=timeout)
    try:
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=wait)))  # type: ignore[attr-defined]
        _store = fresh(store, rank, size, timeout)
        backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
        dist.init_process_group(backend, store=_store, rank=rank, world_size=size, timeout=wait)
    except RuntimeError as error:
        raise RuntimeError(_not_met(timeout, error)) from error
    atexit.register(_disconnect)


def _not_met(timeout: float, error: RuntimeError) -> str:
    """Say that ranks are missing."""
    rank, size = (os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE"))
    reason = str(error).split("\n")[0]
    return f"rank {rank} could not meet all {size} ranks within {timeout:g} s: {reason}"


def _disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _versions(device: torch.device) -> dict[str, object]:
    """What must be alike on all ranks: others would compute other bits from the same numbers."""
    import torch_cntk

    gpu = device.type == "cuda"
    return {
        "version_of_torch_cntk": torch_cntk.__version__,
        "version_of_torch": torch.__version__,
        "number_of_threads": torch.get_num_threads(),
        "kind_of_processor": torch.backends.cpu.get_cpu_capability(),
        "kind_of_GPU": torch.cuda.get_device_name(device) if gpu else None,
    }
