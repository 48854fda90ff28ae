"""Groups of similar patches of an image, and what an infinitely wide network makes of each as it learns.

See ``group_flow``, which says what for.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from torch_cntk._internal.dealing import collected, mine
from torch_cntk._internal.ranks import Mesh
from torch_cntk.layers.base import Layer

__all__ = ["flow_in_groups", "groups", "narrowed"]

_NUMBERS = 49
"""Of a patch, for which the levels below were chosen; K is taken per number and times this."""
_LOG2_EULER = 3
"""Eight steps of the Euler method: more make no difference to the picture."""
_ENTRIES = 2**20
"""Of the table of distances that is held at once: that of a block whose pixels stay in the processor's cache."""
_GROUPS = 2048
"""That are solved at once: their patches and matrices take some 100 MB for colour."""
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
    for n, stride, large, small in zip(size, _strides(size), wide, narrow, strict=True):
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
    strides = _strides(size)
    steps = [sum((k - n) * s for k, n, s in zip(move, reaches, strides, strict=True)) for move in moves]
    corners = torch.zeros((), dtype=torch.int64, device=image.device)
    for place, stride in zip(places, strides, strict=True):
        corners = corners[..., None] + place * stride
    corners = corners.flatten() if kept is None else corners.flatten()[kept]
    return corners[:, None] + torch.tensor(steps, device=image.device)[best]


def _strides(size: tuple[int, ...]) -> list[int]:
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


def flow_in_groups(
    image: Tensor,
    members: Tensor,
    sides: tuple[int, ...],
    level: float,
    network: Layer | None = None,
    mesh: Mesh | None = None,
) -> Tensor:
    """Let each group flow for a while, and put the patches back.

    Where patches overlap they are averaged with weights 1 / (|F|^2 + 1/2): groups in which much has faded, and noise
    with it, count more.

    Args:
        image: [channels, *size].
        members: of ``groups``.
        sides: of a patch.
        level: see ``GroupFlow``.
        network: whose kernel K is.
        mesh: ranks that divide the groups.

    Returns:
        [channels, *size]; what is in no group stays as it is.
    """
    if not len(members):
        return image
    channels, size = image.shape[0], tuple(image.shape[1:])
    strides = _strides(size)
    cell = torch.zeros((), dtype=torch.int64, device=image.device)
    for side, stride in zip(sides, strides, strict=True):
        cell = cell[..., None] + torch.arange(side, device=image.device) * stride
    flat, cell = image.reshape(channels, -1), cell.flatten()
    total, weight = torch.zeros_like(flat), torch.zeros_like(flat[0])
    ranks = mesh or Mesh.alone()
    for part in torch.split(members[ranks.share(len(members))], _GROUPS):
        place = part[:, :, None] + cell
        patches = flat[:, place].permute(1, 2, 0, 3).flatten(2)  # [groups, members, channels * pixels]
        kernel = _kernel(patches, network) * (_NUMBERS / patches.shape[2])
        share = _learnt(kernel, level)
        own = 1 / (share.square().sum((1, 2)) + 0.5)
        learnt = (share @ patches * own[:, None, None]).reshape(*part.shape, channels, -1).permute(2, 0, 1, 3)
        total.index_add_(1, place.flatten(), learnt.reshape(channels, -1))
        weight.index_add_(0, place.flatten(), own[:, None, None].expand(place.shape).flatten())
    total, weight = ranks.sum(total), ranks.sum(weight)
    return torch.where(weight > 0, total / weight, flat).reshape(image.shape)


def _learnt(kernel: Tensor, level: float) -> Tensor:
    """F = I - (I + K / (N level^2))^-N of each group, N a power of 2."""
    eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    factor = torch.linalg.cholesky(eye + kernel / (level**2 * 2**_LOG2_EULER))
    rest = torch.cholesky_inverse(factor)
    for _ in range(_LOG2_EULER):
        rest = rest @ rest
    return eye - rest


def _kernel(patches: Tensor, network: Layer | None) -> Tensor:
    """K of each group [groups, members, members]."""
    if network is None:
        return patches @ patches.mT
    # A network's kernel is of the mean over inputs; that of the linear one is to be the sum.
    return torch.stack([network.gram(group) for group in patches]).to(patches) * patches.shape[2]
