"""Whether processes have the same values: what each tells of its own, and one sentence on what differs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["checksum", "differences", "listed", "told", "told_each"]

_LONGEST = 60
"""Characters of a value that are told."""
_FACTOR = 0x5851F42D4C957F2D
"""Spreads places over all factors that a byte may be multiplied by; of Knuth's random numbers (MMIX)."""
_PART = 1 << 18
"""Words that are multiplied at a time, in the cache."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def told(value: object) -> str:
    """What a process tells of a value, in a line: equal values give equal texts, others other ones.

    Tensors and arrays are told by shape, dtype and a checksum, sequences and mappings entry by entry, and other things
    by their representation without addresses. Of a long text the beginning is told, and a checksum of the whole.
    """
    text = _whole(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}... ({hashlib.blake2b(text.encode(), digest_size=4).hexdigest()})"


def told_each(values: Mapping[str, object]) -> dict[str, str]:
    """What a process tells of each of some values; of options, each under its own name, so that one is told in full."""
    told_of: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            told_of |= {f"{key} ({name})": told(entry) for key, entry in value.items()}
        else:
            told_of[name] = told(value)
    return told_of


def _whole(value: object) -> str:
    """See ``told``; of any length."""
    if isinstance(value, Tensor):
        return _array_text(str(value.dtype), tuple(value.shape), _bytes_of(value).cpu().numpy())
    if isinstance(value, np.ndarray) and value.dtype != object:
        numbers = np.ascontiguousarray(value).reshape(-1)
        return _array_text(str(value.dtype), value.shape, numbers.view(np.uint8))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_whole(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_whole, value)) + "]"
    return _ADDRESS.sub("", repr(value))


def checksum(tensor: Tensor) -> int:
    """A number that hardly ever is the same for tensors with other bits; of 63 bits, found where the tensor lies."""
    stored = _bytes_of(tensor)
    words = stored.long() if len(stored) % 8 else stored.view(torch.int64)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for start in range(0, len(words), _PART):
        part = words[start : start + _PART]
        # Odd factors: a change of one word always shows.
        factors = torch.arange(start, start + len(part), device=words.device).mul_(_FACTOR).bitwise_or_(1)
        total += factors.mul_(part).sum()
    return int(total) & ((1 << 63) - 1)


def _bytes_of(tensor: Tensor) -> Tensor:
    """What is stored of each number, one byte after the other."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _array_text(dtype: str, shape: tuple[int, ...], numbers: np.ndarray) -> str:
    checksum = hashlib.blake2b(numbers.data, digest_size=4).hexdigest()
    return f"{dtype.removeprefix('torch.')} {list(shape)} with checksum {checksum}"


def differences(told_by: Sequence[Mapping[str, str]]) -> str | None:
    """One sentence on the first name of which ranks tell different things, or None.

    Args:
        told_by: what each rank tells, by name.
    """
    names = dict.fromkeys(name for entry in told_by for name in entry)
    for name in names:
        ranks: dict[str | None, list[int]] = {}
        for rank, entry in enumerate(told_by):
            ranks.setdefault(entry.get(name), []).append(rank)
        if len(ranks) > 1:
            got = "; ".join(f"{'nothing' if text is None else text} on {listed(of)}" for text, of in ranks.items())
            return f"expected the same {name.replace('_', ' ')} on all ranks, got {got}"
    return None


def listed(ranks: Sequence[int]) -> str:
    """``[0, 1, 3]`` as ``ranks 0, 1 and 3``."""
    *others, last = map(str, ranks)
    return f"ranks {', '.join(others)} and {last}" if others else f"rank {last}"
