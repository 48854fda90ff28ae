"""The rule of each node, for a block of pairs and a box of displacements.

A step takes what its parents are, [2, *size, I, J, *box] for I x J pairs of images (Sigma and Theta; [1, ...] for Sigma
alone, where Theta is 0 or not wanted), and may overwrite the first of them where it is told so. Positions come before
pairs and displacements: the neighbours of a pixel are whole rows of memory, whatever the axis, and a mean over them is
a few operations on contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_cntk.covariance.duals import Rectifier
from torch_cntk.covariance.duals.gradients import differentiable
from torch_cntk.covariance.pairs.block import Block
from torch_cntk.covariance.pairs.displacements import Box, positions_in
from torch_cntk.covariance.pairs.expression import (
    Activated,
    Averaged,
    Dropped,
    Given,
    Mixed,
    Multiplied,
    Normalised,
    Pairs,
    Subsampled,
)
from torch_cntk.covariance.pairs.neighbours import inside_along, sum_inside
from torch_cntk.covariance.patches import Gains, Number
from torch_cntk.covariance.products import product_of

__all__ = ["run"]


_FEW_CHANNELS = 16
"""Up to so many are multiplied and added one by one: a matrix product for each pixel takes longer to begin."""


def run(node: Pairs, block: Block, inputs: list[Tensor], box: Box, own: bool) -> Tensor:
    """Compute a node from its parents.

    Args:
        node: any but those that read tables.
        block: the pairs.
        inputs: the parents, for the displacements that the node reads.
        box: displacements of the node.
        own: whether the first parent may be overwritten.
    """
    if not own and inputs and not block.recorded:
        inputs = [inputs[0].clone(), *inputs[1:]]
    return _STEPS[type(node)](node, block, inputs, box)


def _given(node: Given, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    first, second = block.first, block.second
    if node.flat:
        first, second = first.flatten(0, -2), second.flatten(0, -2)
    channels = len(first)
    if block.paired and all(axis == range(1) for axis in box):
        sigma = (first * first).sum(0).div(channels)
        return sigma.reshape(1, *sigma.shape, *(1,) * (1 + len(box)))
    if all(axis == range(1) for axis in box) and (channels > _FEW_CHANNELS or not box):
        # [pixels, I, channels] @ [pixels, channels, J].
        a = first.reshape(channels, -1, first.shape[-1]).permute(1, 2, 0)
        b = second.reshape(channels, -1, second.shape[-1]).permute(1, 0, 2)
        sigma = torch.bmm(a, b / channels)
        return sigma.reshape(1, *node.size, *sigma.shape[1:], *(1,) * len(box))
    ones, others = block.between(node, "features", box, lambda: (first / channels, second))
    if block.recorded:
        return torch.stack([x * y for x, y in zip(ones, others, strict=True)]).sum(0)[None]
    total = block.spare(torch.Size((1, *map(max, ones[0].shape, others[0].shape))))
    torch.mul(ones[0], others[0], out=total[0])
    for x, y in zip(ones[1:], others[1:], strict=True):
        total[0].addcmul_(x, y)
    return total


def _averaged(node: Averaged, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    (images,) = inputs
    gains = node.gains
    if block.recorded:
        return _averaged_recorded(node, block, images, box)
    if len(images) > 1:
        if gains.weight == gains.trained_weight:
            images[1].add_(images[0])
            return _plus(_mean(node, block, images, box, gains.weight), gains.bias, gains.trained_bias)
        images = _with_what_is_trained(gains, images)
        return _plus(_mean(node, block, images, box), gains.bias, gains.trained_bias)
    if not block.trained:
        return _plus(_mean(node, block, images, box, gains.weight), gains.bias)
    # What training adds to 0 is made of Sigma.
    if gains.like:
        alike = _plus(_mean(node, block, images, box, gains.weight), gains.bias)
        return alike if _is_rectified(block.only_reader.get(node), block) else _twice(block, alike)
    mean = _mean(node, block, images, box)
    both = torch.cat((mean * gains.weight, mean * gains.trained_weight))
    return _plus(both, gains.bias, gains.trained_bias)


def _with_what_is_trained(gains: Gains, images: Tensor) -> Tensor:
    """W Sigma and w Theta + r Sigma."""
    if gains.weight != 1:
        images[1].mul_(gains.weight)
    images[1].add_(images[0], alpha=gains.trained_weight)
    if gains.weight != 1:
        images[0].mul_(gains.weight)
    return images


def _plus(images: Tensor, *biases: Number) -> Tensor:
    """Add a number to each of Sigma and Theta, or to what there is of them."""
    if not any(biases):
        return images
    return images.add_(images.new_tensor(biases).view(-1, *(1,) * (images.ndim - 1)))


def _twice(block: Block, images: Tensor) -> Tensor:
    """Sigma as Theta as well."""
    both = block.spare(torch.Size((2, *images.shape[1:])))
    both.copy_(images.expand_as(both))
    block.keep(images)
    return both


def _mean(node: Averaged, block: Block, images: Tensor, box: Box, factor: Number = 1.0) -> Tensor:
    """The mean over patches times a factor, axis by axis; sums of those inside are divided once."""
    for axis, offsets in _axes(node):
        total = block.spare(images.shape)
        if node.inside:
            sum_inside(images, offsets, axis, box, total)
            factor = factor / len(offsets)
        else:
            block.means.around(images, offsets, 1 + axis, total)
        block.keep(images)
        images = total
    return images if factor == 1 else images.mul_(factor)


def _axes(node: Averaged) -> list[tuple[int, tuple[int, ...]]]:
    """The axes along which neighbours are read, and where these are."""
    steps = [(axis, node.patches.offsets(axis)) for axis in range(node.ndim)]
    return [(axis, offsets) for axis, offsets in steps if any(offsets) and (node.size[axis] > 1 or node.inside)]


def _averaged_recorded(node: Averaged, block: Block, images: Tensor, box: Box) -> Tensor:
    """The layer without overwriting anything; its gains may be tensors, so that those of 1 and 0 count as well."""
    gains = node.gains
    mean = images
    for axis, offsets in _axes(node):
        mean = _mean_recorded(node, mean, offsets, axis, box)
    sigma: Tensor = gains.weight * mean[0] + gains.bias
    if not block.trained:
        return sigma[None]
    theta = gains.trained_weight * mean[0] + gains.trained_bias
    return torch.stack([sigma, theta + gains.weight * mean[1] if len(mean) > 1 else theta])


def _mean_recorded(node: Averaged, images: Tensor, offsets: Sequence[int], axis: int, box: Box) -> Tensor:
    """Either mean without overwriting anything."""
    inside = inside_along(images[0], axis, box)
    terms = []
    for offset in offsets:
        neighbours = images.roll(-offset, 1 + axis)
        terms.append(neighbours * inside(offset) if node.inside else neighbours)
    return torch.stack(terms).mean(0)


def _activated(node: Activated, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    (images,) = inputs
    if block.recorded:
        images = images.clone()
    sigma = images[0]
    if _is_rectified(node, block):
        assert isinstance(node.dual, Rectifier)
        return _rectified(node, node.dual, block, images, box)
    variances = block.variances_of(node, sigma, box)
    if block.recorded:
        value, slope = differentiable(node.dual)(sigma, *variances)
        return torch.stack([value, *(images[1:] * slope)])
    value, slope = node.dual(sigma, *variances)
    # Before the value is put into its place, where some duals leave the slope.
    images[1:].mul_(slope)
    if value.data_ptr() != sigma.data_ptr():
        sigma.copy_(value)
    return images


def _is_rectified(node: Pairs | None, block: Block) -> bool:
    """Whether it takes the formula that is fast, and Sigma alone where Theta is the same."""
    if not isinstance(node, Activated) or not isinstance(node.dual, Rectifier):
        return False
    return not block.paired and not block.recorded and block.plain(node)


def _rectified(node: Activated, dual: Rectifier, block: Block, images: Tensor, box: Box) -> Tensor:
    block.set_equal(node, images[0], box)
    # As large as both of them together: the memory that a mean takes as well.
    spare = [block.spare(images.shape) for _ in range(3 - len(images))]
    cosine, sine = (part for some in spare for part in some)
    wanted = None if node in block.theta_alone and len(images) > 1 else sine
    # Of the weight layer before, which may leave Theta to us.
    alike = block.trained and len(images) == 1 and isinstance(node.parent, Averaged)
    both = block.spare(torch.Size((2, *images.shape[1:]))) if alike else images
    dual.by_arcsine(images, *block.lengths_of(node, box, dual.lengths), cosine, wanted, both)
    block.keep(*spare, *([images] if alike else []))
    return both


def _normalised(node: Normalised, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    (images,) = inputs
    if block.recorded:
        images = images.clone()
    variance, other = block.variances_of(node, images[0], box)
    norm = ((variance + node.epsilon) * (other + node.epsilon)).sqrt()
    # Features that vanish stay so: 0 / 0 is 0.
    images = images / torch.clamp_min(norm, torch.finfo(norm.dtype).tiny)
    if not (node.affine and block.trained):
        return images
    sigma = images[0]
    return torch.stack([sigma, sigma + 1 if len(images) == 1 else images[1] + sigma + 1])


def _dropped(node: Dropped, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    """Over the share that is kept, where both pixels have the same mask."""
    (images,) = inputs
    zero = positions_in(box, node.size)
    if not (block.paired or block.equal) or (zero is None and not node.channels):
        return images
    if block.recorded:
        images = images.clone()
    displaced = (slice(None),) * len(box) if node.channels else zero or ()
    pairs = (slice(None),) * 2 if block.paired or block.equal is None else block.equal
    images[(..., *pairs, *displaced)] /= node.probability
    return images


def _mixed(node: Mixed, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    trained = max(map(len, inputs))
    parts = [part if len(part) == trained else torch.cat((part, torch.zeros_like(part))) for part in inputs]
    total: Tensor = parts[0] * node.weights[0]
    for weight, part in zip(node.weights[1:], parts[1:], strict=True):
        total = torch.add(total, part, alpha=weight)
    return total


def _multiplied(node: Multiplied, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    return product_of(inputs)


def _subsampled(node: Subsampled, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    """T'[u][a] = T[r u][r a]; the parent holds the displacements r u."""
    kept = tuple(slice(None, None, r) for r in node.steps)
    return inputs[0][(slice(None), *kept)].contiguous()


_STEPS: dict[type[Pairs], Callable[[Any, Block, list[Tensor], Box], Tensor]] = {
    Given: _given,
    Averaged: _averaged,
    Activated: _activated,
    Normalised: _normalised,
    Dropped: _dropped,
    Mixed: _mixed,
    Multiplied: _multiplied,
    Subsampled: _subsampled,
}
