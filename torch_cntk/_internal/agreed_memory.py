"""Free memory that all ranks count on.

What is chosen by free memory (a factorisation or an iteration, a stored kernel or none) must be the same on all ranks:
they would wait for each other in different works.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from torch_cntk._internal.dealing import exchanged
from torch_cntk._internal.memory import agreed, available_bytes, is_agreed
from torch_cntk._internal.ranks import Mesh

__all__ = ["OnRanks", "agreed_memory", "on_ranks", "ranks_of"]

P = ParamSpec("P")
R = TypeVar("R")


class OnRanks(Protocol):
    """Something whose work ranks may divide."""

    @property
    def _ranks(self) -> Mesh: ...


S = TypeVar("S", bound=OnRanks)


def ranks_of(mesh: Mesh | None) -> Mesh:
    """The mesh; one of this process alone for None.

    Raises:
        TypeError: it is something else.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"expected mesh to be one of torch_cntk.distributed.mesh(), or None, got {mesh!r}")
    return mesh or Mesh.alone()


@contextmanager
def agreed_memory(mesh: Mesh) -> Iterator[None]:
    """While this lasts, as many bytes are free, for all ranks, as the one with least has now.

    Ranks on one machine share its memory evenly. A rank on a GPU has that one for itself.
    """
    if mesh.size == 1 or is_agreed():
        yield
        return
    with mesh.together("a look for free memory"):
        host = socket.gethostname()
        own = available_bytes("cpu")
        on_gpu = available_bytes(mesh.device) if mesh.device.type != "cpu" else None
    answers = exchanged(mesh, (host, own, on_gpu))
    hosts = [name for name, _, _ in answers]
    shares = [None if free is None else free // hosts.count(name) for name, free, _ in answers]
    least = {"cpu": _least(shares)}
    if mesh.device.type != "cpu":
        least[mesh.device.type] = _least([free for _, _, free in answers])
    with agreed(least):
        yield


def _least(answers: list[int | None]) -> int | None:
    """The smallest of them; None where somebody cannot tell."""
    known = [answer for answer in answers if answer is not None]
    return min(known) if len(known) == len(answers) else None


def on_ranks(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method count on memory that all ranks have; see ``agreed_memory``."""

    @functools.wraps(method)
    def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        with agreed_memory(self._ranks):
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[S, P], R]", wrapped)
