"""The rule of each node, for a block of pairs and a box of displacements.

A step takes what its parents are, [*size, I, J, *box] for I x J pairs of images, and may overwrite the first of them
where it is told so. Positions are the leading axes: the neighbours of a pixel are whole rows of memory, whatever the
axis, and a mean over them is a few additions of contiguous memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.pairs.displacements import Box, Displaced, at_displaced, positions_in
from torch_cntk.covariance.pairs.expression import Activated, Averaged, Given, Mixed, Normalised, Pairs, Subsampled

__all__ = ["Block", "Part", "run"]


class Part(NamedTuple):
    """Sigma and Theta of a node, [*size, I, J, *box] each; Theta is None where it is 0 or not wanted."""

    sigma: Tensor
    theta: Tensor | None

    def each(self, function: Callable[[Tensor], Tensor]) -> Part:
        """The same function of both."""
        return Part(function(self.sigma), None if self.theta is None else function(self.theta))


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
    _spare: list[Tensor] = field(default_factory=list)
    _displaced: dict[tuple[Pairs, int], Displaced] = field(default_factory=dict)

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
            return images.reshape(*images.shape, *(1,) * len(box)).contiguous()
        whole = self.boxes.get(node, box)
        if self.recorded or len(whole[-1]) == 1:
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
            self.variances[node] = sigma[(..., 0, *zero)].clone()
        variance = self.variances[node]
        other = variance if self.paired else self.other_variances[node]
        if self.equal is not None and (zero := positions_in(box, node.size)) is not None:
            # An input with itself: exactly its variance, which rounding might miss.
            first, second = self.equal
            sigma[(..., first, second, *zero)] = variance[..., first]
        return self.between(node, variance, other, box)

    def spare_like(self, images: Tensor) -> Tensor:
        """Memory of the images' shape: fresh memory costs as much as writing into it."""
        if self._spare and self._spare[-1].shape == images.shape:
            return self._spare.pop()
        self._spare.clear()
        return torch.empty_like(images, memory_format=torch.contiguous_format)

    def keep(self, images: Tensor) -> None:
        """Take memory that nobody reads any more."""
        self._spare.append(images)


def run(node: Pairs, block: Block, inputs: list[Part], box: Box, own: bool) -> Part:
    """Compute a node from its parents.

    Args:
        node: any but those that read tables.
        block: the pairs.
        inputs: the parents, for the displacements that the node reads.
        box: displacements of the node.
        own: whether the first parent may be overwritten.
    """
    if not own and inputs and not block.recorded:
        inputs = [inputs[0].each(Tensor.clone), *inputs[1:]]
    return _STEPS[type(node)](node, block, inputs, box)


def _given(node: Given, block: Block, inputs: list[Part], box: Box) -> Part:
    first, second = block.first, block.second
    if node.flat:
        first, second = first.flatten(0, -2), second.flatten(0, -2)
    channels = len(first)
    if block.paired and all(len(axis) == 1 for axis in box):
        sigma = (first * first).sum(0).div(channels)
        return Part(sigma.reshape(*sigma.shape, *(1,) * (1 + len(box))), None)
    if all(axis == range(1) for axis in box):
        # [pixels, I, channels] @ [pixels, channels, J].
        a = first.reshape(channels, -1, first.shape[-1]).permute(1, 2, 0)
        b = second.reshape(channels, -1, second.shape[-1]).permute(1, 0, 2)
        sigma = torch.bmm(a, b / channels)
        return Part(sigma.reshape(*node.size, *sigma.shape[1:], *(1,) * len(box)), None)
    total: Tensor | None = None
    for place, (one, other) in enumerate(zip(first / channels, second, strict=True)):
        x, y = block.between(node, one, other, box, place)
        total = x * y if total is None else torch.addcmul(total, x, y) if block.recorded else total.addcmul_(x, y)
    assert total is not None
    return Part(total, None)


def _averaged(node: Averaged, block: Block, inputs: list[Part], box: Box) -> Part:
    sigma, theta = inputs[0]
    bias = node.bias_variance
    if theta is not None:
        theta = theta + sigma if block.recorded else theta.add_(sigma)
        theta = _mean(node, block, theta, box)
    sigma = _mean(node, block, sigma, box)
    if bias:
        sigma = sigma + bias if block.recorded else sigma.add_(bias)
        if theta is not None:
            theta = theta + bias if block.recorded else theta.add_(bias)
    if theta is None and block.trained:
        # What training adds to 0 is what the layer makes of Sigma.
        theta = sigma.clone()
    return Part(sigma, theta)


def _mean(node: Averaged, block: Block, images: Tensor, box: Box) -> Tensor:
    """The mean over patches, axis by axis."""
    for axis, width in enumerate(node.kernel_size):
        offsets = range(-(width // 2), width // 2 + 1)
        if width == 1 or (node.size[axis] == 1 and not node.inside):
            continue
        if block.recorded:
            images = _mean_recorded(node, images, offsets, axis, box)
            continue
        mean = block.spare_like(images)
        if node.inside:
            _mean_inside(images, offsets, axis, box, mean)
        else:
            _mean_around(images, offsets, axis, mean)
        block.keep(images)
        images = mean
    return images


def _mean_around(images: Tensor, offsets: range, axis: int, mean: Tensor) -> None:
    """Write the mean of the neighbours along an axis, around the edge, into ``mean``."""
    n = images.shape[axis]
    counts = Counter(offset % n for offset in offsets)
    if offsets == range(-1, 2) and n >= 3:
        # Means of two are half as many passes as a multiplication and two additions: first of the outer neighbours.
        torch.lerp(images.narrow(axis, 0, n - 2), images.narrow(axis, 2, n - 2), 0.5, out=mean.narrow(axis, 1, n - 2))
        for edge in (0, n - 1):
            left, right = images.select(axis, edge - 1), images.select(axis, (edge + 1) % n)
            torch.lerp(left, right, 0.5, out=mean.select(axis, edge))
        torch.lerp(mean, images, 1 / 3, out=mean)
        return
    torch.mul(images, counts.pop(0, 0) / len(offsets), out=mean)
    for shift, count in counts.items():
        rest, weight = n - shift, count / len(offsets)
        mean.narrow(axis, 0, rest).add_(images.narrow(axis, shift, rest), alpha=weight)
        mean.narrow(axis, rest, shift).add_(images.narrow(axis, 0, shift), alpha=weight)


def _mean_inside(images: Tensor, offsets: range, axis: int, box: Box, mean: Tensor) -> None:
    """The same over the neighbours of which both pixels, a + d and a + u + d, are inside."""
    n, weight = images.shape[axis], 1 / len(offsets)
    inside = _inside(images, offsets, axis, box)
    torch.mul(images, weight, out=mean)
    for offset in offsets:
        rest = n - abs(offset)
        if offset == 0 or rest <= 0:
            continue
        start = max(0, -offset)
        target, source = mean.narrow(axis, start, rest), images.narrow(axis, start + offset, rest)
        if len(box[axis]) == 1 and box[axis][0] == 0:
            target.add_(source, alpha=weight)
        else:
            target.addcmul_(source, inside(offset).narrow(axis, start, rest), value=weight)


def _inside(images: Tensor, offsets: range, axis: int, box: Box) -> Callable[[int], Tensor]:
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


def _mean_recorded(node: Averaged, images: Tensor, offsets: range, axis: int, box: Box) -> Tensor:
    """Either mean without overwriting anything."""
    inside = _inside(images, offsets, axis, box)
    terms = []
    for offset in offsets:
        neighbours = images.roll(-offset, axis)
        terms.append(neighbours * inside(offset) if node.inside else neighbours)
    return torch.stack(terms).mean(0)


def _activated(node: Activated, block: Block, inputs: list[Part], box: Box) -> Part:
    sigma, theta = inputs[0]
    if block.recorded:
        sigma = sigma.clone()
    variances = block.variances_of(node, sigma, box)
    value, slope = node.dual(sigma, *variances)
    if theta is not None:
        theta = theta * slope if block.recorded else theta.mul_(slope)
    return Part(value, theta)


def _normalised(node: Normalised, block: Block, inputs: list[Part], box: Box) -> Part:
    sigma, theta = inputs[0]
    if block.recorded:
        sigma = sigma.clone()
    variance, other = block.variances_of(node, sigma, box)
    norm = ((variance + node.epsilon) * (other + node.epsilon)).sqrt()
    # Features that vanish stay so: 0 / 0 is 0.
    norm = norm.clamp_min(torch.finfo(norm.dtype).tiny)
    sigma = sigma / norm
    theta = None if theta is None else theta / norm
    if node.affine and block.trained:
        theta = sigma + 1 if theta is None else theta + sigma + 1
    return Part(sigma, theta)


def _mixed(node: Mixed, block: Block, inputs: list[Part], box: Box) -> Part:
    sigma = _weighted_sum(node.weights, [part.sigma for part in inputs])
    trained = [(w, part.theta) for w, part in zip(node.weights, inputs, strict=True) if part.theta is not None]
    theta = _weighted_sum([w for w, _ in trained], [theta for _, theta in trained]) if trained else None
    return Part(sigma, theta)


def _weighted_sum(weights: tuple[float, ...] | list[float], parts: list[Tensor]) -> Tensor:
    total = parts[0] * weights[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        total = torch.add(total, part, alpha=weight)
    return total


def _subsampled(node: Subsampled, block: Block, inputs: list[Part], box: Box) -> Part:
    """T'[u][a] = T[r u][r a]; the parent holds the displacements r u."""
    kept = tuple(slice(None, None, r) for r in node.steps)
    return inputs[0].each(lambda images: images[kept].contiguous())


_STEPS: dict[type[Pairs], Callable[[Any, Block, list[Part], Box], Part]] = {
    Given: _given,
    Averaged: _averaged,
    Activated: _activated,
    Normalised: _normalised,
    Mixed: _mixed,
    Subsampled: _subsampled,
}
