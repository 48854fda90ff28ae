"""Layers in any order of branching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch_cntk._internal.checks import positive_int
from torch_cntk.layers.base import Layer, from_description
from torch_cntk.layers.joins import JOINS, Join
from torch_cntk.layers.network import Network, Node
from torch_cntk.layers.sequential import Sequential

__all__ = ["Graph", "assemble"]


class Graph(Network):
    """Layers in any order of branching: what ``from_torch`` makes of a module that is no chain.

    Args:
        *nodes: each of the values before it; the last one gives the output.
        in_channels: of the input; needed only where no layer that reads it knows.

    Raises:
        TypeError: a node is no ``Node``, or does nothing that is known.
        ValueError: a node reads what is not there yet, the channels do not chain, weights are shared, branches of a sum
            are correlated, or a layer's rule would not be exact at its place.
    """

    _noun = "node"
    _first = 1

    def __init__(self, *nodes: Node, in_channels: int | None = None) -> None:
        super().__init__()
        if not nodes:
            raise ValueError("expected at least one node, got none")
        self._given = None if in_channels is None else positive_int(in_channels, "in_channels")
        self._wiring: list[tuple[Join | None, tuple[int, ...]]] = []
        for place, node in enumerate(nodes, start=1):
            _check_node(node, place)
            if isinstance(node.does, Layer):
                self.add_module(str(place - 1), node.does)
            self._wiring.append((None if isinstance(node.does, Layer) else node.does, node.inputs))
        self._refresh()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, as given."""
        layers = iter(self.layers)
        return tuple(Node(next(layers) if join is None else join, inputs) for join, inputs in self._wiring)

    def _names(self, nodes: Sequence[Node]) -> list[str]:
        return [str(index) for index in range(len(self._wiring))]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the descriptions of its nodes."""
        nodes = [
            Node(cast("Join", does) if isinstance(does, str) else from_description(does), tuple(inputs))
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


def _check_node(node: object, place: int) -> None:
    """Check a node, of which all values below its place are there.

    Raises:
        TypeError: it is no node, or does nothing that is known.
        ValueError: it reads what is not there.
    """
    if not isinstance(node, Node) or not (isinstance(node.does, Layer) or node.does in JOINS):
        raise TypeError(f"expected a Node of a layer, 'sum' or 'concat', got {node!r} as node {place}")
    if not node.inputs or not all(0 <= k < place for k in node.inputs):
        raise ValueError(f"expected node {place} to read some of the values 0 to {place - 1}, got {node.inputs}")
    if isinstance(node.does, Layer) and len(node.inputs) != 1:
        raise ValueError(f"expected one input of a layer, got {node.inputs} for node {place}")


def assemble(nodes: Sequence[Node], in_channels: int | None) -> Layer:
    """A network of steps: a ``Sequential`` if they are a chain."""
    if all(isinstance(node.does, Layer) and node.inputs == (place,) for place, node in enumerate(nodes)):
        return Sequential(*(node.does for node in nodes if isinstance(node.does, Layer)))
    return Graph(*nodes, in_channels=in_channels)
