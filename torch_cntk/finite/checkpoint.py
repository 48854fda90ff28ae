"""Checkpoints of training: files that appear whole or not at all, whose damage is noticed.

A checkpoint is a dictionary that ``torch.load(path, weights_only=True)`` reads; nothing in it is executed. Version 2
holds a checksum of everything else in it. Version 1 had none: there, the sums that zip files carry for each member are
checked instead.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.files import writing
from torch_cntk._internal.memory import bytes_text

__all__ = ["VERSION", "checksum", "read", "same_run", "what_differs", "write"]

VERSION = 2
"""Of the checkpoints that are written; those of version 1 are read too."""

_FIELDS = (
    "run",
    "model",
    "optimiser",
    "schedule",
    "random",
    "random_cuda",
    "losses",
    "holdout_losses",
    "psnr",
    "best",
    "best_state",
    "average",
    "weight",
    "seconds",
)
"""What every checkpoint holds, beside its version and checksum."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write everything needed to resume.

    Args:
        path: the file, with any suffix or none; it stays as it was if this fails.
        state: the fields, of tensors, numbers, strings and None in lists, tuples and dictionaries.

    Raises:
        OSError: the file cannot be written, because the disk is full, say.
    """
    whole = {"version": VERSION, **state}
    whole["checksum"] = checksum(whole)
    with writing(path) as temporary, temporary.open("wb") as file:
        try:
            # To an open file: given a name, torch wants one with a suffix.
            torch.save(whole, file)
        except RuntimeError as error:
            # torch's writer hides what the system said: most often that the disk is full.
            left = bytes_text(shutil.disk_usage(path.parent).free)
            raise OSError(f"could not write {path}, {left} are free there: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, all tensors on the CPU.

    Raises:
        ValueError: the file is damaged, no checkpoint, or one of another version.
        OSError: it cannot be read at all.
    """
    damaged = f"expected a checkpoint of torch_cntk, got another or a damaged file: {path}"
    with path.open("rb"):
        pass
    try:
        with warnings.catch_warnings():
            # What torch wonders at in a damaged file: its checksum tells, or it is refused.
            warnings.simplefilter("ignore")
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
        version = int(state["version"])
    except Exception as error:  # damage can make torch's reader and unpickler raise anything
        raise ValueError(damaged) from error
    if version not in (1, VERSION):
        raise ValueError(f"expected a checkpoint of version 1 or {VERSION}, got {version}: {path}")
    missing = [name for name in _FIELDS if name not in state]
    if missing:
        raise ValueError(f"{damaged}; it has no {', '.join(missing)}")
    if not (_zip_is_whole(path) if version == 1 else state.pop("checksum", None) == checksum(state)):
        raise ValueError(f"{damaged}; its checksum does not fit")
    return state


def _zip_is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


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


def same_run(other: str, mine: str) -> bool:
    """Whether two fingerprints say the same: 0 and 0.0 are no difference."""
    try:
        return bool(json.loads(other) == json.loads(mine))
    except (TypeError, ValueError):
        return False


def what_differs(other: str, mine: str) -> str:
    """Which facts of two runs differ, as the end of a message."""
    try:
        theirs, own = json.loads(other), json.loads(mine)
        theirs, own = ({**facts.pop("options"), **facts} for facts in (theirs, own))
    except (AttributeError, KeyError, TypeError, ValueError):
        return "it cannot be read"
    names = sorted(name for name in own if theirs.get(name) != own[name])
    return f"different: {', '.join(names)}"
