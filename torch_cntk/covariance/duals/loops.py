"""Square roots and arcsines by whichever loops are fast on this processor, torch's or NumPy's; and constants."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["arcsine_", "constant", "root_"]

_FEW_THREADS = 2
"""Up to so many of torch's are slower than NumPy's one, where NumPy's is taken."""


def root_(numbers: Tensor) -> Tensor:
    """Square roots, in place."""
    if not _numpy_is_faster(numbers):
        return numbers.sqrt_()
    _fill(np.sqrt, numbers)
    return numbers


def arcsine_(numbers: Tensor) -> Tensor:
    """Arcsines, in place; both loops are exact but for the last digit."""
    if not _numpy_is_faster(numbers):
        return numbers.asin_()
    _fill(np.arcsin, numbers)
    return numbers


def constant(value: float, like: Tensor) -> Tensor:
    """A number as a tensor [], which takes as long to make as some thousand additions."""
    return _constant(value, like.dtype, like.device)


@lru_cache(maxsize=64)
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)


def _fill(function: np.ufunc, numbers: Tensor) -> None:
    array = numbers.numpy()
    function(array, out=array)


def _numpy_is_faster(numbers: Tensor) -> bool:
    return (
        numbers.dtype == torch.float64
        and numbers.device.type == "cpu"
        and torch.get_num_threads() <= _FEW_THREADS
        and _slow_library()
    )


@lru_cache(maxsize=1)
def _slow_library() -> bool:
    """Whether torch's loops take those of a library that is slow on this processor.

    torch leaves both functions to Intel's MKL, whose loops on processors of others take 1.6 and 3 times as long as
    those that NumPy's packages for Linux have for AVX-512.
    """
    with_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    if not with_mkl or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    makers = {line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")}
    return bool(makers) and "GenuineIntel" not in makers
