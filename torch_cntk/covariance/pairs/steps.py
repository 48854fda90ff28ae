"""The rule of each node, for a block of pairs and a box of displacements.

A step takes what its parents are, [2, *size, I, J, *box] for I x J pairs of images (Sigma and Theta; [1, ...] for Sigma
alone, where Theta is 0 or not wanted), and may overwrite the first of them where it is told so. Positions come before
pairs and displacements: the neighbours of a pixel are whole rows of memory, whatever the axis, and a mean over them is
a few operations on contiguous memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_cntk.covariance.duals import Rectifier
from torch_cntk.covariance.duals.base import extremes, ordinary
from torch_cntk.covariance.duals.gradients import differentiable
from torch_cntk.covariance.pairs.displacements import Box, Displaced, at_displaced, positions_in
from torch_cntk.covariance.pairs.expression import Activated, Averaged, Given, Mixed, Normalised, Pairs, Subsampled
from torch_cntk.covariance.patches import Gains, Number

__all__ = ["Block", "run"]


_FEW_CHANNELS = 16
"""Up to so many are multiplied and added one by one: a matrix product for each pixel takes longer to begin."""


@dataclass
class Block:
    """Pairs of images that are worked on at once: each of one set with each of another, or each with itself.

    Attributes:
        first: features of the images A, [channels, *size, I].
        second: those of the images B, [channels, *size, J].
        variances: Sigma(A at a, A at a) by the node that needs it, [*size, I].
        other_variances: those of B, [*size, J].
        trained: whether Theta is wanted.
        paired: whether each image meets itself alone: J is 1, and B the same images as A.
        equal: pairs that are an image with itself, as their places in A and in B, [k] both.
        recorded: whether gradients will be taken, so that nothing may be overwritten.
        boxes: all displacements that will be asked of a node.
    """

    first: Tensor
    second: Tensor
    variances: dict[Pairs, Tensor]
    other_variances: dict[Pairs, Tensor]
    trained: bool
    paired: bool = False
    equal: tuple[Tensor, ...] | None = None
    recorded: bool = False
    boxes: Mapping[Pairs, Box] = field(default_factory=dict)
    _spare: dict[torch.Size, list[Tensor]] = field(default_factory=dict)
    _displaced: dict[tuple[Pairs, int], Displaced] = field(default_factory=dict)
    _lengths: dict[Pairs, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        """How many there are."""
        return self.first.shape[-1] * (1 if self.paired else self.second.shape[-1])

    def between(self, node: Pairs, first: Tensor, second: Tensor, box: Box, place: int = 0) -> tuple[Tensor, Tensor]:
        """Images [*size, I] of A and [*size, J] of B displaced, to broadcast to [*size, I, J, *box].

        Args:
            node: that needs them.
            first: the images of A.
            second: those of B.
            box: the displacements.
            place: which one it is of several images that the node needs.
        """
        ndim = len(box)
        moved = self._moved(node, second, box, place)
        # The axis of the images of B, or of A where each meets itself.
        moved = moved.unsqueeze(ndim + 1 if self.paired else ndim)
        return first.reshape(*first.shape, *(1,) * (1 + ndim)), moved

    def _moved(self, node: Pairs, images: Tensor, box: Box, place: int) -> Tensor:
        """Images [*size, J] displaced, [*size, J, *box]."""
        if all(axis == range(1) for axis in box):
            return images[(..., *(None,) * len(box))]
        whole = self.boxes.get(node)
        if self.recorded or whole is None or whole == box or len(whole[-1]) == 1:
            return at_displaced(images, box).contiguous()
        known = self._displaced.get((node, place))
        if known is None:
            known = self._displaced[node, place] = Displaced(images, whole)
        part = known.part(box)
        return at_displaced(images, box).contiguous() if part is None else part

    def variances_of(self, node: Pairs, sigma: Tensor, box: Box) -> tuple[Tensor, Tensor]:
        """Sigma(A at a, A at a) and Sigma(B at a + u, B at a + u), given the node's parent."""
        if self.paired and node not in self.variances:
            zero = positions_in(box, node.size)
            assert zero is not None, "displacement 0 is computed first"
            here: tuple[Any, ...] = (..., 0, *zero)
            self.variances[node] = sigma[here].clone()
        self.set_equal(node, sigma, box)
        return self.between(node, *self._both_variances(node), box)

    def set_equal(self, node: Pairs, sigma: Tensor, box: Box) -> None:
        """Make Sigma of an input with itself exactly its variance, which rounding might miss."""
        if self.equal is not None and (zero := positions_in(box, node.size)) is not None:
            first, second = self.equal
            same: tuple[Any, ...] = (..., first, second, *zero)
            sigma[same] = self.variances[node][..., first]

    def _both_variances(self, node: Pairs) -> tuple[Tensor, Tensor]:
        variance = self.variances[node]
        return variance, variance if self.paired else self.other_variances[node]

    def plain(self, node: Pairs) -> bool:
        """Whether no variance is 0, or so large or small that products of two would be."""
        variance, other = self._both_variances(node)
        return ordinary(variance) and ordinary(other) and not extremes(variance, other).vanish

    def lengths_of(self, node: Pairs, box: Box) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """1 / sqrt(v) and sqrt(v) of A, and of B displaced: of the images, as roots take longer than products."""
        if node not in self._lengths:
            first, other = self._both_variances(node)
            self._lengths[node] = (first.rsqrt(), other.rsqrt()), (first.sqrt(), other.sqrt())
        inverse, root = self._lengths[node]
        (one, other), (length, other_length) = (
            self.between(node, *pair, box, place) for place, pair in ((1, inverse), (2, root))
        )
        return (one, length), (other, other_length)

    def spare(self, shape: torch.Size) -> Tensor:
        """Memory of a shape: fresh memory costs as much as writing into it."""
        kept = self._spare.get(shape)
        return kept.pop() if kept else self.first.new_empty(shape)

    def keep(self, *images: Tensor) -> None:
        """Take memory that nobody reads any more."""
        if not self.recorded:
            for some in images:
                self._spare.setdefault(some.shape, []).append(some)


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
    total: Tensor | None = None
    for place, (one, other) in enumerate(zip(first / channels, second, strict=True)):
        x, y = block.between(node, one, other, box, place)
        if block.recorded:
            total = x * y if total is None else torch.addcmul(total, x, y)
        elif total is None:
            both = block.spare(torch.Size((1, *map(max, x.shape, y.shape))))
            total = torch.mul(x, y, out=both[0])
        else:
            total.addcmul_(x, y)
    assert total is not None
    return total[None] if block.recorded else both


def _averaged(node: Averaged, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    (images,) = inputs
    gains = node.gains
    if block.recorded:
        return _averaged_recorded(node, block, images, box)
    if len(images) > 1:
        images = _with_what_is_trained(gains, block, images)
        return _plus(_mean(node, block, images, box), gains.bias, gains.trained_bias)
    mean = _mean(node, block, images, box)
    if not block.trained:
        return _plus(mean if gains.weight == 1 else mean * gains.weight, gains.bias)
    # What training adds to 0 is made of Sigma.
    if gains.like:
        return _twice(block, _plus(mean if gains.weight == 1 else mean * gains.weight, gains.bias))
    both = torch.cat((mean * gains.weight, mean * gains.trained_weight))
    return _plus(both, gains.bias, gains.trained_bias)


def _with_what_is_trained(gains: Gains, block: Block, images: Tensor) -> Tensor:
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


def _mean(node: Averaged, block: Block, images: Tensor, box: Box) -> Tensor:
    """The mean over patches, axis by axis: of sums, which are divided once."""
    steps = [(axis, node.patches.offsets(axis)) for axis in range(node.ndim)]
    steps = [(axis, offsets) for axis, offsets in steps if any(offsets) and (node.size[axis] > 1 or node.inside)]
    if block.recorded:
        for axis, offsets in steps:
            images = _mean_recorded(node, images, offsets, axis, box)
        return images
    for axis, offsets in steps:
        total = block.spare(images.shape)
        if node.inside:
            _sum_inside(images, offsets, axis, box, total)
        else:
            _sum_around(images, offsets, 1 + axis, total)
        block.keep(images)
        images = total
    return images.mul_(1 / math.prod(len(offsets) for _, offsets in steps)) if steps else images


def _sum_around(images: Tensor, offsets: Sequence[int], axis: int, total: Tensor) -> None:
    """Write the sum of the neighbours along an axis, around the edge, into ``total``."""
    n = images.shape[axis]
    if sorted(offsets) == [-1, 0, 1] and n > 2:
        # Two passes over all, and what the two ends share.
        rest = n - 1
        torch.add(images.narrow(axis, 0, rest), images.narrow(axis, 1, rest), out=total.narrow(axis, 0, rest))
        total.narrow(axis, 1, rest - 1).add_(images.narrow(axis, 0, rest - 1))
        ends = images.select(axis, 0) + images.select(axis, rest)
        torch.add(ends, images.select(axis, 1), out=total.select(axis, 0))
        torch.add(ends, images.select(axis, rest - 1), out=total.select(axis, rest))
        return
    counts = Counter(offset % n for offset in offsets)
    torch.mul(images, counts.pop(0, 0), out=total)
    for shift, count in counts.items():
        rest = n - shift
        total.narrow(axis, 0, rest).add_(images.narrow(axis, shift, rest), alpha=count)
        total.narrow(axis, rest, shift).add_(images.narrow(axis, 0, shift), alpha=count)


def _sum_inside(images: Tensor, offsets: Sequence[int], axis: int, box: Box, total: Tensor) -> None:
    """The same over the neighbours of which both pixels, a + d and a + u + d, are inside."""
    n, dim = images.shape[1 + axis], 1 + axis
    inside = _inside(images[0], axis, box)
    torch.mul(images, 1.0 if 0 in offsets else 0.0, out=total)
    for offset in offsets:
        rest = n - abs(offset)
        if offset == 0 or rest <= 0:
            continue
        start = max(0, -offset)
        target, source = total.narrow(dim, start, rest), images.narrow(dim, start + offset, rest)
        if box[axis] == range(1):
            target.add_(source)
        else:
            target.addcmul_(source, inside(offset).narrow(axis, start, rest))


def _inside(images: Tensor, axis: int, box: Box) -> Callable[[int], Tensor]:
    """Whether a + d and a + u + d are inside along an axis, 1 or 0, to broadcast against the images."""
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


def _averaged_recorded(node: Averaged, block: Block, images: Tensor, box: Box) -> Tensor:
    """The layer without overwriting anything; its gains may be tensors, so that those of 1 and 0 count as well."""
    gains = node.gains
    mean = _mean(node, block, images, box)
    sigma = gains.weight * mean[0] + gains.bias
    if not block.trained:
        return sigma[None]
    theta = gains.trained_weight * mean[0] + gains.trained_bias
    return torch.stack([sigma, theta + gains.weight * mean[1] if len(mean) > 1 else theta])


def _mean_recorded(node: Averaged, images: Tensor, offsets: Sequence[int], axis: int, box: Box) -> Tensor:
    """Either mean without overwriting anything."""
    inside = _inside(images[0], axis, box)
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
    if isinstance(node.dual, Rectifier) and not block.paired and not block.recorded and block.plain(node):
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


def _rectified(node: Activated, dual: Rectifier, block: Block, images: Tensor, box: Box) -> Tensor:
    sigma, *theta = images
    block.set_equal(node, sigma, box)
    # As large as both, as what a mean takes: the same memory.
    spare = [block.spare(images.shape) for _ in range(3 - len(images))]
    cosine, sine = (part for some in spare for part in some)
    slope = dual.by_arcsine(sigma, *block.lengths_of(node, box), cosine, sine)
    for some in theta:
        some.mul_(slope)
    block.keep(*spare)
    return images


def _normalised(node: Normalised, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    (images,) = inputs
    if block.recorded:
        images = images.clone()
    variance, other = block.variances_of(node, images[0], box)
    norm = ((variance + node.epsilon) * (other + node.epsilon)).sqrt()
    # Features that vanish stay so: 0 / 0 is 0.
    images = images / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    if not (node.affine and block.trained):
        return images
    sigma = images[0]
    return torch.stack([sigma, sigma + 1 if len(images) == 1 else images[1] + sigma + 1])


def _mixed(node: Mixed, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    trained = max(map(len, inputs))
    parts = [part if len(part) == trained else torch.cat((part, torch.zeros_like(part))) for part in inputs]
    total = parts[0] * node.weights[0]
    for weight, part in zip(node.weights[1:], parts[1:], strict=True):
        total = torch.add(total, part, alpha=weight)
    return total


def _subsampled(node: Subsampled, block: Block, inputs: list[Tensor], box: Box) -> Tensor:
    """T'[u][a] = T[r u][r a]; the parent holds the displacements r u."""
    kept = tuple(slice(None, None, r) for r in node.steps)
    return inputs[0][(slice(None), *kept)].contiguous()


_STEPS: dict[type[Pairs], Callable[[Any, Block, list[Tensor], Box], Tensor]] = {
    Given: _given,
    Averaged: _averaged,
    Activated: _activated,
    Normalised: _normalised,
    Mixed: _mixed,
    Subsampled: _subsampled,
}
