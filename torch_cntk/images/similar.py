"""Groups of similar patches: for each reference patch of an image, those around it that are most alike."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from torch_cntk._internal.dealing import collected, mine
from torch_cntk._internal.ranks import Mesh

__all__ = ["groups", "narrowed", "strides_of"]

_ENTRIES = 2**20
"""Of the table of distances that is held at once: that of a block whose pixels stay in the processor's cache."""
_FAR = 1e4
"""Stands outside the image, so that no patch reaches out. Values inside are about 1."""


def _places(n: int, side: int, step: int, device: torch.device) -> Tensor:
    """Corners of reference patches along an axis of n pixels: every step-th one, and the last."""
    last = n - side
    return torch.tensor([*range(0, last, step), last], device=device)


def groups(
    image: Tensor,
    sides: tuple[int, ...],
    step: int,
    reach: int,
    members: int,
    wanted: Tensor | None = None,
    mesh: Mesh | None = None,
) -> Tensor:
    """The patches that are most like each reference patch, itself first.

    Args:
        image: [channels, *size].
        sides: of a patch.
        step: between reference patches.
        reach: largest displacement along each axis.
        members: of a group.
        wanted: boolean, [*size]: only patches in which a pixel is wanted are reference patches; by default all.
        mesh: ranks that divide the reference patches.

    Returns:
        numbers of the pixels in the patches' corners, int64 [groups, members]; fewer members in small images.
    """
    size = tuple(image.shape[1:])
    reaches = tuple(min(reach, n - side) for n, side in zip(size, sides, strict=True))
    beside = math.prod(2 * n + 1 for n in reaches)
    block = max(int((_ENTRIES / beside) ** (1 / len(size))), 1)
    places = [torch.split(_places(n, side, step, image.device), block) for n, side in zip(size, sides, strict=True)]
    # Patches that reach out of the image are further than any other.
    count = min(members, beside, math.prod(n - side + 1 for n, side in zip(size, sides, strict=True)))
    ranks, parts = mesh or Mesh.alone(), list(product(*places))
    own = mine(ranks, [math.prod(map(len, part)) for part in parts])
    found = collected(ranks, {k: _groups_of(image, sides, parts[k], reaches, count, wanted) for k in own}, image.device)
    nothing = torch.zeros(0, count, dtype=torch.int64, device=image.device)
    return torch.cat([nothing, *(part for part in found if part is not None)])


def narrowed(members: Tensor, size: tuple[int, ...], wide: tuple[int, ...], narrow: tuple[int, ...]) -> Tensor:
    """The same groups of smaller patches, each inside of the larger one at the same place in a whole group.

    That place is the middle in the middle of the image, and at its edges the edge, so that all pixels stay covered.

    Args:
        members: of ``groups``.
        size: of the image.
        wide: sides of the patches.
        narrow: sides of the smaller ones.

    Returns:
        as ``groups``.
    """
    shift = torch.zeros_like(members[:, 0])
    for n, stride, large, small in zip(size, strides_of(size), wide, narrow, strict=True):
        place = members[:, 0] // stride % n
        shift += (2 * place * (large - small) + n - large) // (2 * max(n - large, 1)) * stride
    return members + shift[:, None]


def _groups_of(
    image: Tensor,
    sides: tuple[int, ...],
    places: tuple[Tensor, ...],
    reaches: tuple[int, ...],
    members: int,
    wanted: Tensor | None,
) -> Tensor | None:
    """As ``groups``, of the reference patches of a block of places; None if none is wanted."""
    size = tuple(image.shape[1:])
    starts = [int(place[0]) for place in places]
    ends = [int(place[-1]) + side for place, side in zip(places, sides, strict=True)]
    here = tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))
    local = [place - start for place, start in zip(places, starts, strict=True)]
    kept = None
    if wanted is not None:
        kept = _box_sums(wanted[here].to(image.dtype), sides, local).flatten().nonzero().flatten()
        if not len(kept):
            return None
    block = image[(slice(None), *here)]
    wide = _around(image, here, reaches)
    moves = list(product(*(range(2 * n + 1) for n in reaches)))
    distances = torch.empty(len(moves), math.prod(len(p) for p in places), device=image.device, dtype=image.dtype)
    for row, move in enumerate(moves):
        window = tuple(slice(k, k + n) for k, n in zip(move, block.shape[1:], strict=True))
        squares = (wide[(slice(None), *window)] - block).square_().sum(0)
        distances[row] = _box_sums(squares, sides, local).flatten()
    distances[len(moves) // 2] = -1  # the patch itself
    columns = distances.T if kept is None else distances.T[kept]
    best = columns.contiguous().topk(members, 1, largest=False).indices
    strides = strides_of(size)
    steps = [sum((k - n) * s for k, n, s in zip(move, reaches, strides, strict=True)) for move in moves]
    corners = torch.zeros((), dtype=torch.int64, device=image.device)
    for place, stride in zip(places, strides, strict=True):
        corners = corners[..., None] + place * stride
    corners = corners.flatten() if kept is None else corners.flatten()[kept]
    return corners[:, None] + torch.tensor(steps, device=image.device)[best]


def strides_of(size: tuple[int, ...]) -> list[int]:
    """By how much a pixel's number grows along each axis."""
    return [math.prod(size[axis + 1 :]) for axis in range(len(size))]


def _around(image: Tensor, here: tuple[slice, ...], reaches: tuple[int, ...]) -> Tensor:
    """A block of an image and what is around it, far off where that is outside of the image."""
    inside, pads = [], []
    for part, reach, n in zip(here, reaches, image.shape[1:], strict=True):
        start, end = part.start - reach, part.stop + reach
        inside.append(slice(max(start, 0), min(end, n)))
        pads.append((max(-start, 0), max(end - n, 0)))
    around = [pad for pair in reversed(pads) for pad in pair]
    return torch.nn.functional.pad(image[(slice(None), *inside)], around, value=_FAR)


def _box_sums(values: Tensor, sides: tuple[int, ...], places: list[Tensor]) -> Tensor:
    """Sums over the patches at each place."""
    for axis, (side, at) in enumerate(zip(sides, places, strict=True)):
        sums = values.index_select(axis, at)
        for k in range(1, side):
            sums += values.index_select(axis, at + k)
        values = sums
    return values
