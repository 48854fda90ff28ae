"""NumPy arrays of numbers as tensors."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["Given", "given_back", "tensor_of"]

Given = TypeVar("Given", Tensor, np.ndarray)
"""What a caller gives, and gets back."""

_WIDEST = torch.float64.itemsize


def tensor_of(array: Any, *, integers: bool = False) -> Tensor:
    """A copy of an array as a tensor: neither reversed views nor another order of bytes are tensors.

    Args:
        array: of floating point numbers.
        integers: whether it may be of integers, which are made float64.

    Raises:
        TypeError: it has another dtype.
        ValueError: some of it is masked.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError("expected inputs without missing numbers, got a masked array")
    if integers and array.dtype.kind in "iu":
        array = np.asarray(array).astype(np.float64)
    if array.dtype.kind != "f" or array.dtype.itemsize > _WIDEST:
        raise TypeError(f"expected an array of float64 or float32, got {array.dtype}")
    return torch.from_numpy(np.array(np.asarray(array), dtype=array.dtype.newbyteorder("="), order="C"))


def given_back(result: Tensor, given: Given) -> Given:
    """A result as its input came: a tensor for a tensor, else an array."""
    found: Given = result if isinstance(given, torch.Tensor) else result.cpu().numpy()
    return found
