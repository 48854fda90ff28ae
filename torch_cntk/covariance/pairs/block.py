"""Pairs of images that are worked on at once: what is known of the images, and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import plain
from torch_cntk.covariance.means import Means, SpareMemory
from torch_cntk.covariance.pairs.displacements import Box, Displaced, at_displaced, positions_in
from torch_cntk.covariance.pairs.expression import Pairs

__all__ = ["Block"]

Views = tuple[Tensor, ...]


@dataclass
class Block:
    """Pairs of images that are worked on at once: each of one set with each of another, or each with itself.

    Attributes:
        first: features of the images A, [channels, *size, I].
        second: those of the images B, [channels, *size, J].
        variances: Sigma(A at a, A at a) by the node that needs it, [*size, I]; of an attention the weights of A,
            [pixels, pixels, I].
        other_variances: those of B, [*size, J].
        trained: whether Theta is wanted.
        paired: whether each image meets itself alone: J is 1, and B the same images as A.
        equal: pairs that are an image with itself, as their places in A and in B, [k] both.
        recorded: whether gradients will be taken, so that nothing may be overwritten.
        boxes: all displacements that will be asked of a node.
        memory: of images that are done with, perhaps those of another block.
        theta_alone: nodes whose Sigma nobody reads.
        only_reader: of the nodes that one node reads.
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
    memory: SpareMemory = field(default_factory=SpareMemory)
    theta_alone: frozenset[Pairs] = frozenset()
    only_reader: Mapping[Pairs, Pairs] = field(default_factory=dict)
    _sides: dict[tuple[Pairs, str], _Sides] = field(default_factory=dict)
    _plain: dict[Pairs, bool] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        """How many there are."""
        return self.first.shape[-1] * (1 if self.paired else self.second.shape[-1])

    def between(
        self, node: Pairs, name: str, box: Box, images: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Views, Views]:
        """Some images of A, and of B displaced, to broadcast to [*size, I, J, *box].

        Args:
            node: that needs them.
            name: what they are, for the next time.
            box: the displacements.
            images: gives those of A, [k, *size, I], and of B, [k, *size, J], once.

        Returns:
            k of both.
        """
        sides = self._sides.get((node, name))
        if sides is None:
            sides = self._sides[node, name] = _Sides(*images(), len(box))
        whole = None if self.recorded else self.boxes.get(node)
        # The axis of the images of B, or of A where each meets itself.
        return sides.first, sides.displaced(box, whole).unsqueeze(len(box) + (2 if self.paired else 1)).unbind()

    def variances_of(self, node: Pairs, sigma: Tensor, box: Box) -> tuple[Tensor, Tensor]:
        """Sigma(A at a, A at a) and Sigma(B at a + u, B at a + u), given the node's parent."""
        if self.paired and node not in self.variances:
            zero = positions_in(box, node.size)
            assert zero is not None, "displacement 0 is computed first"
            here: tuple[Any, ...] = (..., 0, *zero)
            self.variances[node] = sigma[here].clone()
        self.set_equal(node, sigma, box)
        variance, other = self._both_variances(node)
        (first,), (second,) = self.between(node, "variances", box, lambda: (variance[None], other[None]))
        return first, second

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
        if node not in self._plain:
            self._plain[node] = plain(*self._both_variances(node))
        return self._plain[node]

    def lengths_of(
        self, node: Pairs, box: Box, lengths: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Views, Views]:
        """Two functions of the variances of A, and of those of B displaced, computed once for each image."""

        def both() -> tuple[Tensor, Tensor]:
            variance, other = self._both_variances(node)
            return torch.stack(lengths(variance)), torch.stack(lengths(other))

        return self.between(node, "lengths", box, both)

    @property
    def means(self) -> Means:
        """Over neighbours."""
        return self.memory.means

    def spare(self, shape: torch.Size) -> Tensor:
        """Memory of a shape, whatever is in it."""
        return self.memory.like(self.first, shape)

    def keep(self, *images: Tensor) -> None:
        """Take memory that nobody reads any more."""
        if not self.recorded:
            self.memory.keep(*images)


class _Sides:
    """Images of both sides, [k, *size, I] and [k, *size, J], of which those of one are read at displaced pixels."""

    def __init__(self, first: Tensor, second: Tensor, ndim: int) -> None:
        self.first = first.reshape(*first.shape, *(1,) * (1 + ndim)).unbind()
        self._second = second
        self._tiles: Displaced | None = None

    def displaced(self, box: Box, whole: Box | None) -> Tensor:
        """[k, *size, J, *box], for displacements that are some of all that will be asked for, if those are known."""
        if all(axis == range(1) for axis in box):
            return self._second[(..., *(None,) * len(box))]
        if whole is None or whole == box:
            return at_displaced(self._second, box).contiguous()
        if self._tiles is None:
            self._tiles = Displaced(self._second, whole)
        part = self._tiles.part(box)
        return at_displaced(self._second, box).contiguous() if part is None else part
