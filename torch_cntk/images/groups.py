"""Groups of similar patches of an image, and what an infinitely wide network makes of each as it learns.

See ``group_flow``, which says what for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_REFERENCES = 64
"""Reference patches that are compared at once: more share what is around, but their distances leave the cache."""
_COMPONENTS = 24
"""Principal components by which patches are compared, where they have more numbers than that: a patch of 9 x 9 pixels
has 81 in grey and 243 in colour. What is left out is mostly the estimate's errors."""
_SAMPLE = 1 << 16
"""Patches of which these are found, about."""
_GROUPS = 256
"""That are solved at once: their patches and matrices stay in the processor's cache."""
_GROUPS_OF_DEVICE = 2048
"""The same on a GPU: they take some 100 MB for colour."""


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
    field = _Field(image, sides, reaches)
    along = round(_REFERENCES ** (1 / len(size)))
    places = [torch.split(_places(n, side, step, image.device), along) for n, side in zip(size, sides, strict=True)]
    # Patches that reach out of the image are further than any other; at its corners there are this many others.
    count = min(members, math.prod(r + 1 for r in reaches))
    seen = None if wanted is None else _box_sums(wanted.to(image.dtype), sides) > 0
    ranks, parts = mesh or Mesh.alone(), list(product(*places))
    own = mine(ranks, [math.prod(map(len, part)) for part in parts])
    found = collected(ranks, {k: field.nearest(parts[k], count, seen) for k in own}, image.device)
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


class _Field:
    """All patches of an image, to compare blocks of them with what is around.

    Of |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b> the first part does not matter, and the products of a block are one of
    matrices.

    Attributes:
        moves: [displacements], by how much each displacement up to the reach changes a pixel's number.
    """

    def __init__(self, image: Tensor, sides: tuple[int, ...], reaches: tuple[int, ...]) -> None:
        self._size, self._reaches = tuple(image.shape[1:]), reaches
        around = [r for r in reversed(reaches) for _ in range(2)]
        windows = torch.nn.functional.pad(image, around)
        for axis, side in enumerate(sides, start=1):
            windows = windows.unfold(axis, side, 1)
        # [*corners, channels, *sides]: a view. The corner k is at the pixel k - reach.
        self._windows = windows.movedim(0, len(sides))
        inside = tuple(slice(r, n - r) for r, n in zip(reaches, self._windows.shape, strict=False))
        self._outside = torch.ones(self._windows.shape[: len(sides)], dtype=torch.bool, device=image.device)
        self._outside[inside] = False
        self._directions = _main_directions(self._windows[inside], len(sides))
        self._strip: tuple[slice, Tensor, Tensor] | None = None
        self.moves = _numbers([torch.arange(-r, r + 1, device=image.device) for r in reaches], _strides(self._size))

    def _seen(self, rows: slice) -> tuple[Tensor, Tensor]:
        """What is compared of all patches whose corners are in some rows, [rows, ..., numbers], and its squares.

        The last ones are kept: blocks lie side by side, and those of the whole image would be many images.
        """
        if self._strip is None or self._strip[0] != rows:
            seen = self._windows[rows].flatten(len(self._size))
            if self._directions is not None:
                seen = seen @ self._directions
            squares = seen.square().sum(-1).masked_fill(self._outside[rows], math.inf)
            self._strip = rows, seen, squares
        return self._strip[1:]

    def nearest(self, places: tuple[Tensor, ...], members: int, wanted: Tensor | None) -> Tensor | None:
        """As ``groups``, of the reference patches of a block of places; None if none is wanted.

        Args:
            places: of their corners along each axis.
            members: of a group.
            wanted: boolean, of all corners; None for all.
        """
        corners = _numbers(places, _strides(self._size))
        starts = [int(place[0]) for place in places]
        sizes = tuple(int(place[-1]) - k + 2 * r + 1 for place, k, r in zip(places, starts, self._reaches, strict=True))
        first = _numbers([place - k for place, k in zip(places, starts, strict=True)], _strides(sizes))
        if wanted is not None:
            kept = wanted[torch.meshgrid(*places, indexing="ij")].flatten()
            if not bool(kept.any()):
                return None
            corners, first = corners[kept], first[kept]
        rows, *others = (slice(k, k + n) for k, n in zip(starts, sizes, strict=True))
        seen, squares = (strip[(slice(None), *others)].flatten(0, len(sizes) - 1) for strip in self._seen(rows))
        steps = _numbers([torch.arange(2 * r + 1, device=corners.device) for r in self._reaches], _strides(sizes))
        itself = len(steps) // 2
        distances = torch.addmm(squares, seen[first + steps[itself]], seen.T, alpha=-2)
        distances = distances.gather(1, first[:, None] + steps)
        distances[:, itself] = -math.inf
        return corners[:, None] + self.moves[distances.topk(members, 1, largest=False).indices]


def _main_directions(windows: Tensor, ndim: int) -> Tensor | None:
    """Those in which patches have the most energy, [numbers, ``_COMPONENTS``]; None where they have no more numbers.

    Args:
        windows: the patches, [*corners, channels, *sides]; some of them are looked at.
        ndim: number of the corners' axes.
    """
    numbers = math.prod(windows.shape[ndim:])
    if numbers <= _COMPONENTS:
        return None
    every = max(math.prod(windows.shape[:ndim]) // _SAMPLE, 1)
    rows = windows[::every].reshape(-1, numbers)
    _, directions = torch.linalg.eigh((rows.mT @ rows).double())
    main: Tensor = directions[:, -_COMPONENTS:].to(windows)
    return main


def _numbers(places: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Numbers of the pixels at all combinations of places along the axes, flattened."""
    numbers = torch.zeros((), dtype=torch.int64, device=places[0].device)
    for place, stride in zip(places, strides, strict=True):
        numbers = numbers[..., None] + place * stride
    return numbers.flatten()


def _strides(size: tuple[int, ...]) -> list[int]:
    """By how much a pixel's number grows along each axis."""
    return [math.prod(size[axis + 1 :]) for axis in range(len(size))]


def _box_sums(values: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Sums over the patches at all corners."""
    for axis, side in enumerate(sides):
        count = values.shape[axis] - side + 1
        sums = values.narrow(axis, 0, count).clone()
        for k in range(1, side):
            sums += values.narrow(axis, k, count)
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
    flat = image.reshape(channels, -1)
    cell = _numbers([torch.arange(side, device=image.device) for side in sides], _strides(size))
    total, corners = torch.zeros_like(flat), torch.zeros_like(flat[0])
    ranks = mesh or Mesh.alone()
    at_once = _GROUPS if image.device.type == "cpu" else _GROUPS_OF_DEVICE
    for part in torch.split(members[ranks.share(len(members))], at_once):
        place = (part[:, :, None] + cell).flatten()
        # One channel at a time is several times as fast as all together.
        seen = torch.stack([channel.index_select(0, place) for channel in flat]).view(channels, *part.shape, -1)
        learnt, own = _flowed(seen.permute(1, 2, 0, 3).flatten(2), level, network)
        back = learnt.reshape(*part.shape, channels, -1).permute(2, 0, 1, 3).reshape(channels, -1)
        for sums, values in zip(total, back, strict=True):
            sums.scatter_add_(0, place, values)
        corners.scatter_add_(0, part.flatten(), own[:, None].expand(part.shape).flatten())
    total, corners = ranks.sum(total), ranks.sum(corners)
    # Each pixel of a patch has the weight of its corner.
    around = [n for side in reversed(sides) for n in (side - 1, 0)]
    weight = _box_sums(torch.nn.functional.pad(corners.view(size), around), sides).flatten()
    return torch.where(weight > 0, total / weight, flat).reshape(image.shape)


def _flowed(patches: Tensor, level: float, network: Layer | None) -> tuple[Tensor, Tensor]:
    """F A of each group A, [groups, members, channels * pixels], times its weight; and the weights [groups]."""
    numbers = patches.shape[2]
    level *= math.sqrt(numbers / _NUMBERS)
    # F(A A^T) A = A F(A^T A), and both F have the same norm: the smaller one takes less time.
    transposed = network is None and numbers < patches.shape[1]
    share = _learnt(patches.mT @ patches if transposed else _kernel(patches, network), level)
    own = 1 / (share.square().sum((1, 2)) + 0.5)
    share *= own[:, None, None]
    return patches @ share if transposed else share @ patches, own


def _learnt(kernel: Tensor, level: float) -> Tensor:
    """F = I - (I + K / (N level^2))^-N of each group, N a power of 2."""
    eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
    factor = torch.linalg.cholesky(torch.add(eye, kernel, alpha=1 / (level**2 * 2**_LOG2_EULER)))
    rest = torch.cholesky_inverse(factor)
    for _ in range(_LOG2_EULER):
        rest = rest @ rest
    return torch.sub(eye, rest, out=rest)


def _kernel(patches: Tensor, network: Layer | None) -> Tensor:
    """K of each group [groups, members, members]."""
    if network is None:
        return patches @ patches.mT
    # A network's kernel is of the mean over inputs; that of the linear one is to be the sum.
    return torch.stack([network.gram(group) for group in patches]).to(patches) * patches.shape[2]
