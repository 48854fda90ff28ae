"""The scales by which the feature maps of a network differ from those of torch.nn's."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_cntk.layers import (
    Abs,
    Activation,
    ChannelNorm,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    LeakyReLU,
    Node,
    ReLU,
    Sigmoid,
    Weighted,
)

__all__ = ["Scales"]

_HOMOGENEOUS = (ReLU, LeakyReLU, Abs)


@dataclass
class Scales:
    """By which each feature map differs from that of the torch.nn network with the same function: ours = scale * its.

    Activations are normalised here, not there. Weight layers set the difference right: their weights are
    ``outgoing / incoming`` times torch's, an entry a channel. Everywhere else scales pass through.

    Attributes:
        nodes: the steps of our network.
        channels: of each value.
        incoming: scale of the input of each weight layer and normalisation, by its place among the nodes.
        outgoing: scale of the output of each weight layer.
    """

    nodes: Sequence[Node]
    channels: Sequence[int | None]
    incoming: dict[int, Tensor] = field(default_factory=dict)
    outgoing: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._readers = Counter(k for node in self.nodes for k in node.inputs)
        self._values = [torch.ones((), dtype=torch.float64)]
        for place, node in enumerate(self.nodes):
            self._values.append(self._after(place, node))
        self._require_one(len(self.nodes), "the output")

    def _after(self, place: int, node: Node) -> Tensor:
        given = [self._values[k] for k in node.inputs]
        does = node.does
        if isinstance(does, str):
            if does == "product":
                return functools.reduce(operator.mul, given)
            return self._side_by_side(node) if does == "concat" else self._summed(node)
        if isinstance(does, Weighted):
            self.incoming[place] = given[0]
            self.outgoing[place] = torch.ones((), dtype=torch.float64)
            return self.outgoing[place]
        if isinstance(does, ChannelNorm):
            if not bool((given[0] == given[0].flatten()[0]).all()):
                self._require_one(node.inputs[0], str(does))
                given[0] = torch.ones((), dtype=torch.float64)
            self.incoming[place] = given[0].flatten()[0]
            return torch.ones((), dtype=torch.float64)
        if isinstance(does, _HOMOGENEOUS):
            return given[0] * does.gain
        if does.hides_channels and given[0].ndim:
            # How many features each channel becomes is known from the size of an image alone.
            self._require_one(node.inputs[0], str(does))
            return torch.ones((), dtype=torch.float64)
        if isinstance(does, Activation | Sigmoid):
            self._require_one(node.inputs[0], str(does))
            return torch.tensor(does.gain if isinstance(does, Activation) else 1.0, dtype=torch.float64)
        return given[0]

    def _side_by_side(self, node: Node) -> Tensor:
        scales = [self._values[k] for k in node.inputs]
        if all(torch.equal(scale, scales[0]) and scale.ndim == 0 for scale in scales):
            return scales[0]
        return torch.cat([scale.expand(self.channels[k] or 1) for k, scale in zip(node.inputs, scales, strict=True)])

    def _summed(self, node: Node) -> Tensor:
        fixed = [k for k in node.inputs if not self._absorbs(k)]
        target = self._values[fixed[0] if fixed else node.inputs[0]]
        for k in node.inputs:
            if not _equal(self._values[k], target):
                self._rescale(k, target, "a sum of branches whose activations are scaled differently")
        return target

    def _require_one(self, value: int, what: str) -> None:
        one = torch.ones((), dtype=torch.float64)
        if not _equal(self._values[value], one):
            self._rescale(value, one, what)

    def _rescale(self, value: int, target: Tensor, what: str) -> None:
        if not self._absorbs(value):
            raise ValueError(
                f"the weights cannot be mapped: expected a weight layer before {what}, to take in the gain of a "
                "normalised activation, got none that nothing else reads; convert without the weights"
            )
        self._absorb(value, target / self._values[value])
        self._values[value] = target

    def _absorbs(self, value: int) -> bool:
        """Whether a weight layer can change the scale of this value and of nothing else."""
        if value == 0 or self._readers[value] > 1:
            return False
        node = self.nodes[value - 1]
        if isinstance(node.does, str):
            return all(self._absorbs(k) for k in (node.inputs[:1] if node.does == "product" else node.inputs))
        if isinstance(node.does, Weighted):
            return True
        passes = isinstance(node.does, _HOMOGENEOUS) or not isinstance(node.does, Activation | ChannelNorm | Sigmoid)
        return passes and self._absorbs(node.inputs[0])

    def _absorb(self, value: int, factor: Tensor) -> None:
        node = self.nodes[value - 1]
        if isinstance(node.does, Weighted):
            self.outgoing[value - 1] = self.outgoing[value - 1] * factor
            return
        inputs = node.inputs[:1] if node.does == "product" else node.inputs
        parts = [factor] * len(inputs)
        if node.does == "concat" and factor.ndim:
            parts = list(torch.split(factor, [self.channels[k] or 1 for k in node.inputs]))
        for k, part in zip(inputs, parts, strict=True):
            self._absorb(k, part)

    def of_weights(self, place: int) -> tuple[Tensor, Tensor]:
        """What torch's weight and bias [out] are multiplied by to become ours, at a weight layer; they broadcast.

        The weight is [out, in of a group, *size], or of a transposed convolution [in, out of a group, *size].
        """
        layer: Any = self.nodes[place].does
        outgoing, incoming = self.outgoing[place], self.incoming[place]
        groups, tail = getattr(layer, "groups", 1), (1,) * layer.ndim
        if incoming.ndim == outgoing.ndim == 0:
            return (outgoing / incoming).reshape(1, 1, *tail), outgoing
        after = outgoing.expand(layer.out_channels).reshape(groups, -1, 1)
        factors = after / incoming.expand(layer.in_channels).reshape(groups, 1, -1)
        if isinstance(layer, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d):
            factors = factors.transpose(1, 2)
        return factors.reshape(-1, factors.shape[2], *tail), outgoing


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool(torch.isclose(first, second, rtol=1e-12, atol=0).all())
