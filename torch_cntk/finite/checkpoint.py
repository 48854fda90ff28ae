"""Checkpoints of training: files that appear whole or not at all, whose damage is noticed.

A checkpoint is a dictionary that ``torch.load(path, weights_only=True)`` reads; nothing in it is executed. Version 2
holds a checksum of everything else in it. Version 1 had none: there, the sums that zip files carry for each member are
checked instead.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_cntk._internal import checkpoints
from torch_cntk._internal.checkpoints import checksum

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
    """Write everything needed to resume; see ``torch_cntk._internal.checkpoints.write``.

    Raises:
        OSError: the file cannot be written, because the disk is full, say.
    """
    checkpoints.write(path, {"version": VERSION, **state})


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, all tensors on the CPU.

    Raises:
        ValueError: the file is damaged, no checkpoint, or one of another version.
        OSError: it cannot be read at all.
    """
    state = checkpoints.load(path)
    version = state["version"]
    if version not in (1, VERSION):
        raise ValueError(f"expected a checkpoint of version 1 or {VERSION}, got {version}: {path}")
    missing = [name for name in _FIELDS if name not in state]
    if missing:
        raise ValueError(f"{checkpoints.damaged(path)}; it has no {', '.join(missing)}")
    if not (_zip_is_whole(path) if version == 1 else checkpoints.is_whole(state)):
        raise ValueError(f"{checkpoints.damaged(path)}; its checksum does not fit")
    return state


def _zip_is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


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
