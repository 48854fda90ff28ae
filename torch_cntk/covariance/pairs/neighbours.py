"""Sums over the neighbours of each pixel along an axis that are inside of the image, from one memory into another.

Images are [c, *size, I, J, *box]: the neighbours of a pixel are whole rows of memory, whatever the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from torch_cntk.covariance.pairs.displacements import Box

__all__ = ["inside_along", "sum_inside"]


def sum_inside(images: Tensor, offsets: tuple[int, ...], axis: int, box: Box, total: Tensor) -> None:
    """Write the sum of the neighbours along an axis of which both pixels, a + d and a + u + d, are inside.

    Args:
        images: [c, *size, I, J, *box].
        offsets: where the neighbours are.
        axis: of the pixels.
        box: the displacements u.
        total: memory of the images' shape.
    """
    n, dim = images.shape[1 + axis], 1 + axis
    if 0 in offsets:
        total.copy_(images)
    else:
        total.zero_()
    shape = [1] * images.ndim
    shape[dim + len(box) + 2] = len(box[axis])
    for offset in offsets:
        shape[dim] = rest = n - abs(offset)
        if offset == 0 or rest <= 0:
            continue
        start = max(0, -offset)
        target, source = total.narrow(dim, start, rest), images.narrow(dim, start + offset, rest)
        if box[axis] == range(1):
            target.add_(source)
        else:
            target.addcmul_(source, _known_inside(n, box[axis], offset, images.dtype, images.device).view(shape))


@lru_cache(maxsize=4096)
def _known_inside(n: int, displacements: range, offset: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The rows of ``inside_along`` for which a + d is inside: [n - |d|, displacements]."""
    with torch.inference_mode(False):
        first = torch.arange(max(0, -offset), min(n, n - offset))[:, None]
        second = (first + torch.tensor(list(displacements))) % n + offset
        return ((second >= 0) & (second < n)).to(device, dtype)


def inside_along(images: Tensor, axis: int, box: Box) -> Callable[[int], Tensor]:
    """Whether a + d and a + u + d are inside along an axis, 1 or 0, to broadcast against images [*size, I, J, *box]."""
    n, ndim = images.shape[axis], len(box)
    first = torch.arange(n, device=images.device)[:, None]
    second = (first + torch.tensor(list(box[axis]), device=images.device)) % n
    shape = [1] * images.ndim
    shape[axis], shape[ndim + 2 + axis] = n, len(box[axis])

    def inside(offset: int) -> Tensor:
        places = (first + offset, second + offset)
        both = torch.stack([((place >= 0) & (place < n)).expand(second.shape) for place in places]).all(0)
        return both.to(images.dtype).view(shape)

    return inside
