"""What a weight layer reads, and how strongly: the two arguments of the verb that stands for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

__all__ = ["Edge", "Gains", "Number", "Patches", "Sharing"]

Edge = Literal["circular", "zeros"]
"""What lies beyond the border of an image: its other side, or zeros."""
Sharing = Literal["all", "group", "channel"]
"""Which channels of the input an output is made from: all, those of its group, or one (a depthwise convolution)."""
Number: TypeAlias = Any
"""A number; where gradients by it are recorded, a tensor [] in its place, which the other forms never see."""


@dataclass(frozen=True)
class Patches:
    """Which pixels of its input each output of a weight layer is made from; an entry an axis.

    Output pixel x reads the input pixels ``x + first + step * k`` for k = 0 .. width - 1. A fully connected layer has
    no axes.

    Attributes:
        width: taps of the filter along the axis.
        first: where the patch begins, from the output pixel on.
        step: pixels from one tap to the next (torch's dilation).
        edge: what lies beyond the border.
        sharing: which channels of the input an output reads. The average over patches is the same for all three; what
            differs is whether an activation may follow (see ``Signal``).

    Raises:
        ValueError: the entries differ in number, a width or step is below 1, or a word is unknown.
    """

    width: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    edge: Edge = "circular"
    sharing: Sharing = "all"

    def __post_init__(self) -> None:
        if not len(self.width) == len(self.first) == len(self.step):
            raise ValueError(f"expected width, first and step of as many axes, got {self}")
        if any(q < 1 for q in (*self.width, *self.step)):
            raise ValueError(f"expected widths and steps of at least 1, got {self}")
        if self.edge not in get_args(Edge) or self.sharing not in get_args(Sharing):
            raise ValueError(f"expected an edge of {get_args(Edge)} and a sharing of {get_args(Sharing)}, got {self}")

    @classmethod
    def centred(cls, width: tuple[int, ...], edge: Edge = "circular") -> Patches:
        """Patches of odd width around each pixel."""
        return cls(width, tuple(-(q // 2) for q in width), (1,) * len(width), edge)

    def offsets(self, axis: int) -> tuple[int, ...]:
        """The offsets of an axis by their distance from the output pixel; of two equal ones the one ahead first."""
        return _sorted_offsets(self.first[axis], self.step[axis], self.width[axis])

    def reach(self, axis: int) -> int:
        """The largest distance of an offset from its output pixel."""
        return abs(self.offsets(axis)[-1])

    def symmetric(self, axis: int) -> bool:
        """Whether mirroring the axis leaves the patches as they are."""
        return 2 * self.first[axis] == -self.step[axis] * (self.width[axis] - 1)

    @property
    def crosses_border(self) -> bool:
        """Whether zeros beyond the border are read."""
        return self.edge == "zeros" and any(self.reach(axis) for axis in range(len(self.width)))


@lru_cache(maxsize=256)
def _sorted_offsets(first: int, step: int, width: int) -> tuple[int, ...]:
    return tuple(sorted((first + step * k for k in range(width)), key=lambda o: (abs(o), -o)))


@dataclass(frozen=True)
class Gains:
    """What a weight layer makes of the average P over its patches.

    Sigma' = weight P[Sigma] + bias, Theta' = weight P[Theta] + trained_weight P[Sigma] + trained_bias. In the NTK
    parameterisation, in which the forward pass scales parameters that are N(0, 1), what training adds to Theta is what
    the layer makes of Sigma: trained_weight = weight and trained_bias = bias.

    Attributes:
        weight: variance of a weight, times the number of inputs of an output.
        bias: variance of the bias, or 0 if there is none.
        trained_weight: squared derivative of an output by its weights, over the mean square of its inputs.
        trained_bias: squared derivative of an output by its bias, or 0.
    """

    weight: Number = 1.0
    bias: Number = 0.0
    trained_weight: Number = 1.0
    trained_bias: Number = 0.0

    @classmethod
    def ntk(cls, weight: Number = 1.0, bias: Number = 0.0) -> Gains:
        """Those of the NTK parameterisation, given the variances."""
        return cls(weight, bias, weight, bias)

    @property
    def like(self) -> bool:
        """Whether a Theta of 0 becomes what Sigma does."""
        return bool(self.weight == self.trained_weight) and bool(self.bias == self.trained_bias)
