"""Networks that branch: sums, skip connections, concatenations, and any graph of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.covariance.signal import Signal
from torch_cntk.layers.base import C, Layer, from_description
from torch_cntk.layers.plain import Identity
from torch_cntk.layers.sequential import Sequential, check_distinct_weights

__all__ = ["Concat", "Graph", "Node", "Residual", "Sum"]


class _Branches(Layer):
    """Layers that get the same input, and whose outputs are joined."""

    _join: str

    def __init__(self, *branches: Layer, in_channels: int | None = None) -> None:
        super().__init__()
        if not branches:
            raise ValueError("expected at least one branch, got none")
        for place, branch in enumerate(branches):
            if not isinstance(branch, Layer):
                raise TypeError(f"expected layers of torch_cntk, got {type(branch).__name__} as branch {place}")
            self.add_module(str(place), branch)
        self._given = None if in_channels is None else positive_int(in_channels, "in_channels")
        self._chain()
        self.trace(Signal())

    def _chain(self) -> None:
        """Check that the branches fit each other, and find the channels.

        Raises:
            ValueError: they do not fit.
        """
        check_distinct_weights(self.branches)
        self.ndim = _agreed([branch.ndim for branch in self.branches], "the same number of spatial dimensions")
        needed = [branch.in_channels for branch in self.branches]
        self.in_channels = _agreed([self._given, *needed], "the same number of input channels")
        outputs = [branch.out_channels or self.in_channels for branch in self.branches]
        self.out_channels = _JOINS[self._join].channels(outputs)

    @property
    def branches(self) -> list[Layer]:
        """The branches."""
        # Not children(), which leaves out a layer without weights that is used twice.
        return [branch for branch in self._modules.values() if isinstance(branch, Layer)]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Join what the branches make of [batch, channels, *size].

        Raises:
            ValueError: their outputs differ in shape.
        """
        return _JOINS[self._join].tensors([branch(input) for branch in self.branches])

    def propagate(self, covariance: C) -> C:
        """Each branch by its own rules, then joined."""
        self._chain()
        shared = covariance.share()
        channels = [branch.out_channels or self.in_channels for branch in self.branches]
        joined: C = _JOINS[self._join].covariances([branch.propagate(shared) for branch in self.branches], channels)
        return joined

    def trace(self, signal: Signal) -> Signal:
        """Each branch, then joined.

        Raises:
            ValueError: the kernel would not be exact.
        """
        return _JOINS[self._join].signals([branch.trace(signal) for branch in self.branches])

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the descriptions of its branches."""
        branches = [from_description(branch) for branch in options["branches"]]
        return cls(*branches, in_channels=options.get("in_channels"))

    def description(self) -> dict[str, Any]:
        """The branches' descriptions, in order."""
        options = {} if self._given is None else {"in_channels": self._given}
        branches = [branch.description() for branch in self.branches]
        return {"layer": type(self).__name__, "branches": branches, **options}

    def extra_repr(self) -> str:
        """The input's channels, where they were given."""
        return "" if self._given is None else f"in_channels={self._given}"


class Sum(_Branches):
    """The sum of branches that get the same input: Sigma' and Theta' are sums as well.

    That needs uncorrelated branches: all but one must end in weights of their own (a convolution, and nothing but
    resampling after it). If an activation follows, the output must be Gaussian: a branch that is the output of an
    activation needs a convolution between the sum and the next activation.

    Args:
        *branches: layers whose outputs have the same channels and size.
        in_channels: of the input; needed only where no branch knows it.

    Raises:
        TypeError: a branch is not a layer of torch_cntk.
        ValueError: there is no branch, or the branches do not fit each other, share weights or are correlated.
    """

    _join = "sum"


class Residual(Sum):
    """The input plus what layers make of it.

    Args:
        *layers: one after another, the last one with weights: ``Residual(ReLU(), Conv2d(64, 64, 3))``.

    Raises:
        TypeError: something is not a layer of torch_cntk.
        ValueError: the layers do not fit each other, or do not end in a weight layer.
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(Identity(), layers[0] if len(layers) == 1 else Sequential(*layers))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the description of its branch."""
        return cls(from_description(options["branches"][1]))


class Concat(_Branches):
    """The channels of all branches, one after another: Sigma' and Theta' are means, weighted by the branches' channels.

    The channels differ in variance afterwards: an activation must be put into each branch, not behind the
    concatenation. Otherwise every layer may follow.

    Args:
        *branches: layers whose outputs have the same size; ``Identity()`` passes the input on.
        in_channels: of the input; needed only where no branch knows it.

    Raises:
        TypeError: a branch is not a layer of torch_cntk.
        ValueError: there is no branch, the branches do not fit each other or share weights, or a number of channels is
            not known.
    """

    _join = "concat"


def _agreed(values: Sequence[int | None], what: str) -> int | None:
    known = {value for value in values if value is not None}
    if len(known) > 1:
        raise ValueError(f"expected branches of {what}, got {sorted(known)}")
    return next(iter(known), None)


def _summed_channels(channels: Sequence[int | None]) -> int | None:
    return _agreed(channels, "the same number of output channels")


def _concatenated_channels(channels: Sequence[int | None]) -> int:
    known = [count for count in channels if count is not None]
    if len(known) < len(channels):
        raise ValueError("expected branches of known channels, got one that takes any: give in_channels")
    return sum(known)


def _check_shapes(tensors: Sequence[Tensor], *, channels: bool) -> None:
    shapes = [tuple(tensor.shape) if channels else (tensor.shape[0], *tensor.shape[2:]) for tensor in tensors]
    if len(set(shapes)) > 1:
        what = "shape" if channels else "batch and size"
        raise ValueError(f"expected branches with outputs of one {what}, got {' and '.join(map(str, shapes))}")


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    _check_shapes(tensors, channels=True)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    _check_shapes(tensors, channels=False)
    return torch.cat(tuple(tensors), 1)


def _mixed(covariances: Sequence[C], weights: Sequence[float]) -> C:
    return covariances[0].mix(tuple(weights), tuple(covariances[1:])) if len(covariances) > 1 else covariances[0]


def _summed(covariances: Sequence[C], channels: Sequence[int | None]) -> C:
    return _mixed(covariances, [1.0] * len(covariances))


def _shares(covariances: Sequence[C], channels: Sequence[int | None]) -> C:
    total = _concatenated_channels(channels)
    return _mixed(covariances, [(count or 0) / total for count in channels])


@dataclass(frozen=True)
class _Join:
    """The readings of a place where branches meet."""

    channels: Callable[[Sequence[int | None]], int | None]
    tensors: Callable[[Sequence[Tensor]], Tensor]
    covariances: Callable[[Sequence[Any], Sequence[int | None]], Any]
    signals: Callable[[Sequence[Signal]], Signal]


_JOINS = {
    "sum": _Join(_summed_channels, _sum, _summed, Signal.summed),
    "concat": _Join(_concatenated_channels, _concatenate, _shares, Signal.concatenated),
}


@dataclass(frozen=True)
class Node:
    """A step of a ``Graph``.

    Attributes:
        does: a layer, "sum" or "concat".
        inputs: the values that it gets: 0 is the network's input, k what the k-th node gives. One for a layer.
    """

    does: Layer | str
    inputs: tuple[int, ...]


class Graph(Layer):
    """Layers in any order of branching: what ``from_torch`` makes of a module that is no chain.

    Args:
        *nodes: each of the values before it; the last one gives the output.
        in_channels: of the input; needed only where no layer that reads it knows.

    Raises:
        TypeError: a node is no ``Node``, or does nothing that is known.
        ValueError: a node reads what is not there yet, the channels do not chain, weights are shared, branches of a sum
            are correlated, or a layer's rule would not be exact at its place.
    """

    def __init__(self, *nodes: Node, in_channels: int | None = None) -> None:
        super().__init__()
        if not nodes:
            raise ValueError("expected at least one node, got none")
        self._given = None if in_channels is None else positive_int(in_channels, "in_channels")
        self.nodes = nodes
        for place, node in enumerate(nodes, start=1):
            if not isinstance(node, Node) or not (isinstance(node.does, Layer) or node.does in _JOINS):
                raise TypeError(f"expected a Node of a layer, 'sum' or 'concat', got {node!r} as node {place}")
            if not node.inputs or not all(0 <= k < place for k in node.inputs):
                raise ValueError(
                    f"expected node {place} to read some of the values 0 to {place - 1}, got {node.inputs}"
                )
            if isinstance(node.does, Layer):
                if len(node.inputs) != 1:
                    raise ValueError(f"expected one input of a layer, got {node.inputs} for node {place}")
                self.add_module(str(place - 1), node.does)
        self._chain()
        self.trace(Signal())

    @property
    def layers(self) -> list[Layer]:
        """The layers of the nodes, in order."""
        return [node.does for node in self.nodes if isinstance(node.does, Layer)]

    def _chain(self) -> None:
        """Check that the nodes fit each other, and find the channels of every value.

        Raises:
            ValueError: they do not fit.
        """
        check_distinct_weights(self.layers)
        self.ndim = _agreed([layer.ndim for layer in self.layers], "the same number of spatial dimensions")
        first = [node.does for node in self.nodes if isinstance(node.does, Layer) and node.inputs == (0,)]
        known = [self._given, *(layer.in_channels for layer in first)]
        self.in_channels = _agreed(known, "the same number of input channels")
        self.channels: list[int | None] = [self.in_channels]
        for place, node in enumerate(self.nodes, start=1):
            given = [self.channels[k] for k in node.inputs]
            if isinstance(node.does, str):
                self.channels.append(_JOINS[node.does].channels(given))
                continue
            if node.does.in_channels is not None and given[0] not in (None, node.does.in_channels):
                raise ValueError(
                    f"node {place}, {node.does}, needs {node.does.in_channels} channels, but gets {given[0]}"
                )
            self.channels.append(node.does.out_channels or given[0])
        self.out_channels = self.channels[-1]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Through all nodes, for [batch, channels, *size].

        Raises:
            ValueError: the outputs of branches that meet differ in shape.
        """
        values = [input]
        for node in self.nodes:
            given = [values[k] for k in node.inputs]
            values.append(_JOINS[node.does].tensors(given) if isinstance(node.does, str) else node.does(given[0]))
        return values[-1]

    def propagate(self, covariance: C) -> C:
        """Each node by its own rule."""
        readers = Counter(k for node in self.nodes for k in node.inputs)
        values = [covariance.share() if readers[0] > 1 else covariance]
        for place, node in enumerate(self.nodes, start=1):
            given = [values[k] for k in node.inputs]
            if isinstance(node.does, str):
                value = _JOINS[node.does].covariances(given, [self.channels[k] for k in node.inputs])
            else:
                value = node.does.propagate(given[0])
            values.append(value.share() if readers[place] > 1 else value)
        return values[-1]

    def trace(self, signal: Signal) -> Signal:
        """Each node.

        Raises:
            ValueError: the kernel would not be exact.
        """
        values = [signal]
        for place, node in enumerate(self.nodes, start=1):
            given = [values[k] for k in node.inputs]
            head = next((value.head for value in given if value.head), None)
            if head is not None:
                raise ValueError(f"expected {head} as the last layer, got {node.does} after it as node {place}")
            value = _JOINS[node.does].signals(given) if isinstance(node.does, str) else node.does.trace(given[0])
            values.append(value)
        return values[-1]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the descriptions of its nodes."""
        nodes = [
            Node(does if isinstance(does, str) else from_description(does), tuple(inputs))
            for does, inputs in options["nodes"]
        ]
        return cls(*nodes, in_channels=options.get("in_channels"))

    def description(self) -> dict[str, Any]:
        """What each node does, and what it reads."""
        nodes = [
            [node.does if isinstance(node.does, str) else node.does.description(), list(node.inputs)]
            for node in self.nodes
        ]
        return {"layer": "Graph", "nodes": nodes} | ({} if self._given is None else {"in_channels": self._given})

    def extra_repr(self) -> str:
        """What each node reads."""
        names = [node.does if isinstance(node.does, str) else type(node.does).__name__ for node in self.nodes]
        lines = zip(names, self.nodes, strict=True)
        return "\n".join(f"{name} of {', '.join(map(str, node.inputs))}" for name, node in lines)
