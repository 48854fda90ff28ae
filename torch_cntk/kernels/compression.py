"""Lossless compression of smooth sequences of floating point numbers."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

__all__ = ["compress", "decompress"]

_LEVEL = 9


def compress(numbers: Tensor) -> Tensor:
    """Compress [n] floating point numbers to bytes: differences of neighbours, byte by byte, deflated."""
    values = numbers.detach().cpu().contiguous().numpy()
    bits = values.view(np.dtype(f"<u{values.itemsize}"))
    difference = np.diff(bits, prepend=bits.dtype.type(0))
    # Small negative differences become small numbers too, the sign in the last bit.
    sign = (difference >> bits.dtype.type(8 * values.itemsize - 1)) * bits.dtype.type(np.iinfo(bits.dtype).max)
    folded = (difference << bits.dtype.type(1)) ^ sign
    # The leading bytes of all numbers first: they are nearly all zero.
    planes = np.ascontiguousarray(folded.view(np.uint8).reshape(-1, values.itemsize).T)
    return torch.frombuffer(bytearray(zlib.compress(planes.tobytes(), _LEVEL)), dtype=torch.uint8)


def decompress(data: Tensor, dtype: torch.dtype, most: int) -> Tensor:
    """The inverse of ``compress``.

    Args:
        data: what ``compress`` gave.
        dtype: of the numbers.
        most: bytes of the numbers; no more are ever made.

    Raises:
        ValueError: the bytes are damaged, or hold more numbers.
    """
    size = dtype.itemsize
    inflate = zlib.decompressobj()
    try:
        planes = inflate.decompress(data.numpy().data, most + 1)
    except zlib.error as error:
        raise ValueError(f"damaged data: {error}") from error
    if len(planes) > most:
        raise ValueError(f"damaged data: expected at most {most:,} bytes, got more")
    if not inflate.eof or inflate.unused_data:
        raise ValueError("damaged data: the compressed bytes end too early or too late")
    unsigned = np.dtype(f"<u{size}")
    if len(planes) % size:
        raise ValueError(f"damaged data: {len(planes)} bytes are no whole numbers of {size} bytes")
    folded = np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(size, -1).T).view(unsigned)[:, 0]
    sign = (folded & unsigned.type(1)) * unsigned.type(np.iinfo(unsigned).max)
    bits = np.cumsum((folded >> unsigned.type(1)) ^ sign, dtype=unsigned)
    return torch.from_numpy(bits.view(np.dtype(f"<f{size}"))).to(dtype)
