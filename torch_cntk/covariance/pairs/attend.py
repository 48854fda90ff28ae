"""Self-attention between two images: products of matrices of their pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk.covariance.attention import attended, places
from torch_cntk.covariance.pairs.block import Block
from torch_cntk.covariance.pairs.displacements import Box
from torch_cntk.covariance.pairs.expression import Attended

__all__ = ["attend"]


def attend(images: Tensor, node: Attended, block: Block, box: Box) -> Tensor:
    """The node at some displacements, [c, *size, I, J, *box].

    Args:
        images: the parent at all displacements, [c, *size, I, J, *size].
        node: whose weights of each image are in the block, or are put there where each image meets itself.
        block: of pairs.
        box: the displacements.
    """
    matrices = _by_pixels(images, node.size)
    if block.paired and node not in block.variances:
        block.variances[node] = node.attention.weights(matrices[0, :, 0]).movedim(0, -1)
    first = block.variances[node].movedim(-1, 0)[:, None]
    second = first if block.paired else block.other_variances[node].movedim(-1, 0)[None]
    return _by_displacements(attended(matrices, first, second), node.size, box)


def _by_pixels(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """T[u][a], [c, *size, I, J, *size], as K(a, a'), [c, I, J, pixels, pixels]."""
    ndim, pixels = len(size), math.prod(size)
    pairs = images.shape[1 + ndim : 3 + ndim]
    rows = images.movedim((1 + ndim, 2 + ndim), (1, 2)).reshape(len(images), *pairs, pixels, pixels)
    every = [torch.arange(n, device=images.device) for n in size]
    return rows.gather(-1, places(size, every, every, -1).expand(rows.shape))


def _by_displacements(matrices: Tensor, size: tuple[int, ...], box: Box) -> Tensor:
    """K(a, a') as T[u][a] at the displacements of a box, [c, *size, I, J, *box]."""
    ndim = len(size)
    every, wanted = (
        [torch.tensor(list(axis), device=matrices.device) for axis in axes] for axes in (map(range, size), box)
    )
    index = places(size, every, wanted)
    images = matrices.gather(-1, index.expand(*matrices.shape[:-2], *index.shape))
    images = images.view(*matrices.shape[:-2], *size, *map(len, box))
    return images.movedim((1, 2), (1 + ndim, 2 + ndim)).contiguous()
