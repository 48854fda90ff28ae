"""Checkpoints of long work: files that appear whole or not at all, whose damage is noticed.

A checkpoint is a dictionary that ``torch.load(path, weights_only=True)`` reads; nothing in it is executed. It holds a
checksum of everything else in it.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.files import writing
from torch_cntk._internal.memory import bytes_text

__all__ = ["checksum", "damaged", "is_whole", "load", "write"]


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, sealed with its checksum.

    Args:
        path: the file, with any suffix or none; it stays as it was if this fails.
        state: the fields, of tensors, numbers, strings and None in lists, tuples and dictionaries.

    Raises:
        OSError: the file cannot be written, because the disk is full, say.
    """
    whole = {**state, "checksum": checksum(state)}
    with writing(path) as temporary, temporary.open("wb") as file:
        try:
            # To an open file: given a name, torch wants one with a suffix.
            torch.save(whole, file)
        except RuntimeError as error:
            # torch's writer hides what the system said: most often that the disk is full.
            left = bytes_text(shutil.disk_usage(path.parent).free)
            raise OSError(f"could not write {path}, {left} are free there: {error}") from error


def load(path: Path) -> dict[str, Any]:
    """The fields of a file that has a "version", all tensors on the CPU; whether it is whole, ``is_whole`` says.

    Raises:
        ValueError: the file is damaged or no checkpoint.
        OSError: it cannot be read at all.
    """
    with path.open("rb"):
        pass
    try:
        with warnings.catch_warnings():
            # What torch wonders at in a damaged file: its checksum tells, or it is refused.
            warnings.simplefilter("ignore")
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
        state["version"] = int(state["version"])
    except Exception as error:  # damage can make torch's reader and unpickler raise anything
        raise ValueError(damaged(path)) from error
    return state


def damaged(path: Path) -> str:
    """What to say of a file that is no checkpoint, or a broken one."""
    return f"expected a checkpoint of torch_cntk, got another or a damaged file: {path}"


def is_whole(state: dict[str, Any]) -> bool:
    """Take the checksum out of a state that was loaded; whether it fits the rest."""
    return bool(state.pop("checksum", None) == checksum(state))


def checksum(value: object) -> str:
    """BLAKE2 of a value that a checkpoint can hold: equal for equal types, shapes and bits, wherever they are stored.

    Of objects other than tensors, numbers, strings, None and collections of them, only the type counts.
    """
    total = hashlib.blake2b(digest_size=32)
    _feed(total, value)
    return total.hexdigest()


def _feed(total: hashlib.blake2b, value: object) -> None:
    if isinstance(value, Tensor):
        total.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        # As bytes, which numpy knows for every dtype.
        numbers = value.detach().cpu().contiguous().reshape(-1)
        total.update(numbers.view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        total.update(f"mapping {len(value)};".encode())
        for key, item in value.items():
            _feed(total, key)
            _feed(total, item)
    elif isinstance(value, list | tuple):
        total.update(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)};".encode())
        for item in value:
            _feed(total, item)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        total.update(f"{type(value).__name__} {value!r};".encode())
    else:
        total.update(f"{type(value).__name__};".encode())
