"""Checkpoints of a solve: what an iteration holds is written now and then, so that it goes on after a fault.

An iteration that is killed and begun again with the same problem goes on from the file, to the same bits as one that
was never killed. The file goes when the solve ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from torch_cntk._internal import checkpoints
from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.files import check_writable, is_stream
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.operators.base import Operator
from torch_cntk.solvers.base import Regression

__all__ = ["Checkpointed", "Keeper", "check_checkpoint", "mesh_of", "restored", "without_checkpoint"]

VERSION = 1
"""Of the files that are written."""
_ROUNDING = 1e4
"""Two products with one kernel differ by less than so many roundings, on whatever number of threads they were made."""
_WORDS = {
    "size": "the number of pixels or inputs",
    "dtype": "the precision",
    "solver": "the solver's options",
    "ridge": "the ridge",
    "observed": "which targets are observed",
    "guess": "the weights to begin with",
    "targets": "the targets",
    "kernel": "the kernel",
}
"""What each fact of a problem is called in messages."""


class Checkpointed(Protocol):
    """A solver's options with a checkpoint among them."""

    @property
    def checkpoint(self) -> str | Path | None:
        """The file, or None for no checkpoints."""

    @property
    def checkpoint_seconds(self) -> float:
        """Between two of them."""


def check_checkpoint(path: object, seconds: float) -> None:
    """Refuse what is no place for a checkpoint, or no time between two.

    Raises:
        TypeError: the path is none, or the seconds no number.
        ValueError: the path is one of a stream, or the seconds are negative.
    """
    if path is not None and not isinstance(path, str | Path):
        raise TypeError(f"expected checkpoint to be the path of a file, got {type(path).__name__}")
    if path is not None and is_stream(path):
        raise ValueError(f"expected checkpoint to be the path of a file, got the stream {path}")
    finite_number(seconds, "checkpoint_seconds", minimum=0)


def without_checkpoint(solver: Any) -> Any:
    """The same solver for further solves, which must not meet the file of the first one."""
    return replace(solver, checkpoint=None) if getattr(solver, "checkpoint", None) is not None else solver


def mesh_of(operator: Operator) -> Mesh:
    """The ranks that an operator's products are divided among; one where they are not divided."""
    return operator.mesh or Mesh.alone(operator.device)


def restored(value: Any, device: torch.device) -> Any:
    """What a checkpoint holds, its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    return {name: restored(item, device) for name, item in value.items()} if isinstance(value, dict) else value


class Keeper:
    """Keeps the state of one solve in a file, from its begin to its end; does nothing where no file is wanted.

    On several ranks the first one reads and writes; it sends the others what it read.

    Args:
        options: of the solver.
        regression: the equations.
        targets: right-hand sides, [k, *size].
        guess: weights to begin with, or None.

    Raises:
        OSError: the file's folder does not exist, or the path is a folder.
    """

    def __init__(self, options: Checkpointed, regression: Regression, targets: Tensor, guess: Tensor | None) -> None:
        self._path = None if options.checkpoint is None else Path(options.checkpoint)
        self._seconds = options.checkpoint_seconds
        self._device = regression.operator.device
        self._mesh = mesh_of(regression.operator)
        self._writes = self._mesh.rank == 0
        self._last = time.monotonic()
        self._warned = False
        if self._path is not None:
            self._together(partial(self._check_place, self._path))
            self._facts = _facts(options, regression, targets, guess)

    def _together(self, work: Callable[[], Any]) -> Any:
        """Do what the first rank does alone; where that fails, it fails on all ranks alike."""
        found = None
        with self._mesh.together():
            if self._writes:
                found = work()
        return self._mesh.broadcast(found)

    def _check_place(self, path: Path) -> None:
        try:
            check_writable(path)
        except PermissionError as error:
            self._warn(error)

    def resumed(self) -> dict[str, Any] | None:
        """The state that an earlier run of this solve has left, its tensors on the operator's device.

        Raises:
            ValueError: the file is damaged, or of another problem, version or number of ranks.
            OSError: it cannot be read.
        """
        if self._path is None:
            return None
        state = self._together(partial(self._read, self._path))
        return None if state is None else restored(state, self._device)

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        found = checkpoints.load(path)
        if found.get("kind") != "solve" or not checkpoints.is_whole(found):
            raise ValueError(f"{checkpoints.damaged(path)}; remove it to solve from the beginning")
        if found["version"] != VERSION:
            raise ValueError(f"expected a checkpoint of version {VERSION}, got {found['version']}: {path}")
        _refuse_another(found["facts"], self._facts, path)
        state: dict[str, Any] = found["state"]
        return state

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Write a state if it is time to; where that fails, warn once and let the solve go on."""
        if self._path is None or not self._writes or time.monotonic() - self._last < self._seconds:
            return
        try:
            checkpoints.write(
                self._path, {"kind": "solve", "version": VERSION, "facts": self._facts, "state": dict(state())}
            )
            self._warned = False
        except OSError as error:
            self._warn(error)
        self._last = time.monotonic()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            warn_user(f"the checkpoint was not written, the solve goes on without it: {error}")
        self._warned = True

    def done(self) -> None:
        """Remove the file: the solve has ended."""
        if self._path is None or not self._writes:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            warn_user(f"the checkpoint of a solve that has ended was not removed: {error}")


def _facts(
    options: Checkpointed, regression: Regression, targets: Tensor, guess: Tensor | None
) -> dict[str, int | str | Tensor]:
    """What a state is worth nothing without: the versions, the ranks and the problem.

    Numbers that a sum of many others has made are told by what random numbers make of them, which tells them apart to
    rounding; K itself, which may exist nowhere, by a product with a random vector.
    """
    import torch_cntk

    operator = regression.operator
    probe = torch.randn(operator.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probe = probe.to(operator.device)
    own: Any = without_checkpoint(options)
    return {
        "torch_cntk": torch_cntk.__version__,
        "torch": str(torch.__version__),
        "ranks": mesh_of(operator).size,
        "solver": repr(own),
        "size": str(tuple(operator.size)),
        "dtype": str(operator.dtype),
        "ridge": repr(regression.relative_ridge),
        "observed": checkpoints.checksum(regression.observed),
        "guess": torch.zeros(1) if guess is None else _sketch(guess, probe),
        "targets": _sketch(targets, probe),
        "kernel": operator.multiply(probe[None].to(operator.dtype))[0],
    }


def _sketch(images: Tensor, probe: Tensor) -> Tensor:
    """A random combination of the numbers of each image, and its norm, [2, k]."""
    flat = images.double().reshape(-1, probe.numel())
    return torch.stack((flat @ probe.flatten(), flat.norm(dim=1)))


def _refuse_another(theirs: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
    """Refuse a state of other versions, ranks or problems.

    Raises:
        ValueError: so it is.
    """
    for name in ("torch_cntk", "torch"):
        if theirs.get(name) != own[name]:
            raise ValueError(
                f"expected a checkpoint that {name} {own[name]} wrote, got one of {name} {theirs.get(name)}: {path}; "
                "remove it to solve from the beginning"
            )
    if theirs.get("ranks") != own["ranks"]:
        raise ValueError(
            f"expected a checkpoint of a solve on {own['ranks']} ranks, got one of {theirs.get('ranks')}: {path}; "
            f"start {theirs.get('ranks')} to go on from it, or remove it"
        )
    other = [word for name, word in _WORDS.items() if not _same(theirs.get(name), own[name])]
    if other:
        raise ValueError(
            f"expected a checkpoint of this solve, got one of another: {path}; different: {', '.join(other)}; remove "
            "it, or give this solve a file of its own"
        )


def _same(theirs: object, own: object) -> bool:
    if not isinstance(theirs, Tensor) or not isinstance(own, Tensor):
        return type(theirs) is type(own) and theirs == own
    if (theirs.shape, theirs.dtype) != (own.shape, own.dtype):
        return False
    difference = (theirs - own.cpu()).double().abs().max()
    typical = own.double().square().mean().sqrt()
    return bool(difference <= _ROUNDING * torch.finfo(own.dtype).eps * typical)
