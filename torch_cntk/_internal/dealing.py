"""Work that falls into parts, which ranks divide: files, folds, windows, networks.

Nobody talks until all parts are done; then every rank gets all results. A result does not depend on who made it, so
that its bits do not depend on the number of ranks.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

from torch_cntk._internal.ranks import Mesh

__all__ = ["by_rank", "collected", "exchanged", "mine"]

P = TypeVar("P")
R = TypeVar("R")


def by_rank(mesh: Mesh, work: Callable[[P], R], parts: Sequence[P], device: torch.device | None = None) -> list[R]:
    """The results of some work on each of the parts, in their order, on every rank.

    Each part is worked on by one rank: the next one by whoever has nothing to do. For parts that take long, of which
    nobody knows how long.

    Args:
        mesh: the ranks, all of which call this with equal parts.
        work: what to do with a part, on one rank and without the others; its results can be pickled.
        parts: what to do it with.
        device: of the tensors in the results of other ranks; see ``exchanged``.

    Raises:
        Exception: what a part has raised, on all ranks.
    """
    if mesh.size == 1:
        return [work(part) for part in parts]
    with mesh.together():
        own = {place: work(parts[place]) for place in mesh.dealt(len(parts))}
    return collected(mesh, own, device)


def mine(mesh: Mesh, costs: Sequence[float]) -> list[int]:
    """The parts of this rank, of which is known how long they take: the same in every run.

    The largest first, each to the rank that has least to do.

    Args:
        mesh: the ranks.
        costs: of all parts.

    Returns:
        the places of the rank's parts, in their order.
    """
    loads, owners = [0.0] * mesh.size, [0] * len(costs)
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        owners[place] = loads.index(min(loads))
        loads[owners[place]] += costs[place]
    return [place for place, owner in enumerate(owners) if owner == mesh.rank]


def collected(mesh: Mesh, own: Mapping[int, R], device: torch.device | None = None) -> list[R]:
    """The results of all ranks, in the order of their places, on every rank.

    Args:
        mesh: the ranks.
        own: this rank's results by place; every place is one rank's.
        device: of the tensors in the results of other ranks; see ``exchanged``.
    """
    found: dict[int, R] = {}
    for part in exchanged(mesh, dict(own), device):
        found |= part
    return [found[place] for place in sorted(found)]


def exchanged(mesh: Mesh, value: R, device: torch.device | None = None) -> list[R]:
    """The objects of all ranks, on every rank. They can be pickled.

    Args:
        mesh: the ranks.
        value: this rank's.
        device: where the tensors in them are to be; that of the mesh by default.
    """
    if mesh.size == 1:
        return [value]
    stream = io.BytesIO()
    torch.save(value, stream)
    own = torch.frombuffer(bytearray(stream.getbuffer()), dtype=torch.uint8)
    lengths = mesh.gather(torch.tensor([len(own)]), mesh.size).tolist()
    rows = mesh.gather(torch.nn.functional.pad(own, (0, max(lengths) - len(own)))[None], mesh.size)
    return [
        torch.load(io.BytesIO(row[:length].numpy().tobytes()), map_location=device or mesh.device, weights_only=False)
        for row, length in zip(rows, lengths, strict=True)
    ]
