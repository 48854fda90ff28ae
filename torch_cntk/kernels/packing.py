"""Tables written down by their independent entries only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk.covariance.table import Geometry, Table

__all__ = ["pack", "unpack"]


def pack(table: Table) -> Tensor:
    """The independent entries of a table of one channel, [entries]; ``unpack`` gives the others.

    Half of the displacements of a square table, and half of the positions of a reflective one: exchanging the two
    pixels and mirroring all axes leads back to the same displacement u, from position a to p - 1 - a - u.
    """
    geometry = table.geometry
    pieces = []
    for first in range(geometry.box[0]):
        rows = _rows(table.values, geometry, first)
        pieces.append(rows[_independent_positions(geometry, first)[0]] if geometry.reflective else rows.flatten())
    return torch.cat(pieces)


def unpack(entries: Tensor, geometry: Geometry) -> Table:
    """The inverse of ``pack``; entries that are equal by symmetry come back equal to the bit.

    Raises:
        ValueError: the number of entries is not that of the geometry.
    """
    values = entries.new_empty((1, *geometry.box, *geometry.period))
    used = 0
    for first in range(geometry.box[0]):
        rows = _rows(values, geometry, first)
        kept, partner = _independent_positions(geometry, first) if geometry.reflective else (None, None)
        count = rows.numel() if kept is None else int(kept.sum())
        piece = entries[used : used + count]
        if len(piece) < count:
            break
        used += count
        if kept is None or partner is None:
            rows.copy_(piece.view(rows.shape))
        else:
            rows[kept] = piece
            rows.copy_(torch.where(kept, rows, rows.gather(1, partner)))
    if used != len(entries) or first != geometry.box[0] - 1:
        raise ValueError(f"expected the independent entries of {geometry}, got {len(entries)} numbers")
    geometry.complete(values)
    return Table(values, geometry)


def _rows(values: Tensor, geometry: Geometry, first: int) -> Tensor:
    """The independent displacements whose first entry is ``first``, [displacements, positions]; a view."""
    rows = values[0, first]
    if geometry.ndim > 1:
        low, high = geometry.independent(first)
        rows = rows[low:high]
    return rows.reshape(-1, math.prod(geometry.period))


def _independent_positions(geometry: Geometry, first: int) -> tuple[Tensor, Tensor]:
    """Which positions are kept, and where the others are found; both [displacements, positions]."""
    spans = [(first, first + 1), *((0, n) for n in geometry.box[1:])]
    if geometry.ndim > 1:
        spans[1] = geometry.independent(first)
    ndim = geometry.ndim
    partner = torch.zeros((1,) * (2 * ndim), dtype=torch.long)
    for axis, ((low, high), p) in enumerate(zip(spans, geometry.period, strict=True)):
        shape = [1] * (2 * ndim)
        shape[axis], shape[ndim + axis] = high - low, p
        mirrored = (p - 1 - torch.arange(p) - torch.arange(low, high)[:, None]) % p
        partner = partner * p + mirrored.reshape(shape)
    partner = partner.reshape(-1, math.prod(geometry.period))
    return torch.arange(partner.shape[1]) <= partner, partner
