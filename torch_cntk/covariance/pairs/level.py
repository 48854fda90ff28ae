"""A level of an expression of pairs: what is computed box by box of displacements, from tables to a node."""

from __future__ import annotations

import math
from collections.abc import Container

from torch import Tensor

from torch_cntk.covariance.lattice.order import parents_first
from torch_cntk.covariance.pairs.block import Block
from torch_cntk.covariance.pairs.displacements import Box, index_in, no_displacement, scaled
from torch_cntk.covariance.pairs.expression import Pairs
from torch_cntk.covariance.pairs.steps import run

__all__ = ["Level", "Tables"]

Tables = dict[Pairs, tuple[Tensor, Box]]
"""Images at all displacements of a box, by the node that they are of."""


class Level:
    """The nodes from the tables before a node to it.

    Attributes:
        end: the last of them.
        nodes: all, parents first.
        pixels: of the largest images on the way.
    """

    def __init__(self, end: Pairs) -> None:
        self.end = end
        self.nodes = parents_first(end, _level_parents)
        self.pixels = max(math.prod(node.size) for node in self.nodes)
        self._scale = {end: (1,) * end.ndim}
        last_reader: dict[Pairs, Pairs] = {}
        for node in reversed(self.nodes):
            for parent in _level_parents(node):
                last_reader.setdefault(parent, node)
                self._scale[parent] = tuple(s * r for s, r in zip(self._scale[node], node.stride, strict=True))
        done: dict[Pairs, list[Pairs]] = {node: [] for node in self.nodes}
        for parent, reader in last_reader.items():
            done[reader].append(parent)
        # What was read from a table may be a part of it.
        self._steps = [(node, done[node], _owns(node, done[node])) for node in self.nodes]

    def run(self, block: Block, box: Box, tables: Tables) -> Tensor:
        """The end's images at some displacements."""
        return self._run(block, box, tables, None)[self.end]

    def find_variances(self, block: Block, tables: Tables, wanted: Container[Pairs]) -> None:
        """Run what the wanted nodes are made from at displacement 0, for the variances that this finds."""
        self._run(block, no_displacement(self.end.ndim), tables, wanted)

    def _run(self, block: Block, box: Box, tables: Tables, wanted: Container[Pairs] | None) -> dict[Pairs, Tensor]:
        results: dict[Pairs, Tensor] = {}
        for node, done, owns in self._steps:
            if wanted is not None and node not in wanted:
                continue
            scale = self._scale[node]
            own = box if scale == self._scale[self.end] else scaled(box, scale)
            if node.reads_table:
                results[node] = _looked_up(node, own, tables)
                continue
            results[node] = run(node, block, [results[parent] for parent in node.parents], own, owns)
            for parent in done:
                results.pop(parent, None)
        return results


def _level_parents(node: Pairs) -> tuple[Pairs, ...]:
    return () if node.reads_table else node.parents


def _owns(node: Pairs, done: list[Pairs]) -> bool:
    """Whether a node may overwrite its first parent: nobody else reads it, and it is no part of a table."""
    return bool(done) and node.parents[0] in done and not node.parents[0].reads_table and len(node.parents) == 1


def _looked_up(node: Pairs, box: Box, tables: Tables) -> Tensor:
    images, stored = tables[node]
    for axis, index in enumerate(index_in(stored, box, node.size)):
        if index is not None:
            images = images.index_select(node.ndim + 3 + axis, index.to(images.device))
    return images
