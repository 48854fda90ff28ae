"""Work that takes turns with neural-tangents', which another Python runs; and bytes moved, against a copy."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_cntk.covariance.duals import loops

CACHED, UNCACHED = 1 << 16, 1 << 25
"""Numbers of float64 of a copy that stays in the caches of a core, and of one that does not."""


class NeuralTangents:
    """Its kernels, run by a Python that has it; see ``benchmarks.stax_kernels`` for the arguments."""

    def __init__(self, python: str, head: str, side: int, count: int = 1) -> None:
        script = Path(__file__).with_name("stax_kernels.py")
        command = [python, str(script), head, str(side), str(count)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._expect("ready")

    def _expect(self, word: str | None = None) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (word is not None and line != word):
            raise RuntimeError("expected a Python that has neural-tangents and a jax that it works with, got none")
        return line

    def seconds(self) -> float:
        """Processor seconds of one more run."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._expect())

    def __enter__(self) -> NeuralTangents:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


def processor_seconds(work: Callable[[], object]) -> float:
    """Of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(work: Callable[[], object], other: NeuralTangents | None, repeats: int) -> tuple[float, float | None]:
    """Median processor seconds of both, each after a run that is not counted."""
    work()
    own, others = [], []
    for _ in range(repeats):
        own.append(processor_seconds(work))
        if other is not None:
            others.append(other.seconds())
    return statistics.median(own), statistics.median(others) if others else None


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all numbers that operations read and write; numbers that a view repeats count once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            name = func.overloadpacket.__name__
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(map(_bytes_of, tensors))
            if name.endswith("_") and name not in ("copy_", "zero_", "fill_"):
                # Read, and written.
                self.bytes += _bytes_of(args[0])
            elif not name.endswith("_") and not (kwargs and kwargs.get("out") is not None) and "empty" not in name:
                self.bytes += sum(_bytes_of(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result


def _bytes_of(tensor: torch.Tensor) -> int:
    span = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return max(0, min(tensor.numel(), span)) * tensor.itemsize


def bytes_moved(work: Callable[[], object]) -> int:
    """Bytes that all operations of some work read and write, wherever the numbers are."""
    # NumPy's loops, which are not seen here, move as many as torch's.
    with mock.patch.object(loops, "_slow_library", lambda: False), _Counted() as counted:
        work()
    found: int = counted.bytes
    return found


def copy_rate(numbers: int) -> float:
    """Bytes a second, read and written, of ``Tensor.copy_`` (float64, one thread)."""
    source, target = torch.rand(2, numbers, dtype=torch.float64)
    repeats = max(1, (1 << 24) // numbers)

    def copies() -> None:
        for _ in range(repeats):
            target.copy_(source)

    seconds = statistics.median(processor_seconds(copies) for _ in range(7))
    return 16 * numbers * repeats / seconds
