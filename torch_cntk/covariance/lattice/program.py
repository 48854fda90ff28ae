"""A level of an expression as a list of steps, compiled once and run for each slab of displacements.

A level ends at one node and begins at given covariances and at resamplings, which read finished tables. Convolutions,
activations and strides never mix displacements, so a slab runs through all steps of the level while it sits in the
cache. A result is overwritten by the last step that reads it; earlier ones get a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.lattice.expression import Lattice, Resampled, parents_first
from torch_cntk.covariance.lattice.shifts import SpareMemory
from torch_cntk.covariance.lattice.steps import Pointwise, Step, as_pair, step_of
from torch_cntk.covariance.table import Slab, Table

__all__ = ["Program"]


class _Instruction(NamedTuple):
    step: Step
    inputs: tuple[int, ...]
    """Instructions whose results the step takes."""
    copies: bool
    """Whether the first of them is still needed, and must be copied before it is overwritten."""
    finished: tuple[int, ...]
    """Results that nobody reads afterwards."""
    scale: int
    """Which of the program's scales the step's slab has."""


class Program:
    """The steps from the tables before a node to its own.

    Attributes:
        node: whose table it computes.
        sources: nodes whose tables it reads.
    """

    def __init__(self, node: Lattice, kind: str, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> None:
        """Compile.

        Args:
            node: the last node.
            kind: "ntk" (Theta), "nngp" (Sigma) or "both".
            spare: memory that slabs take turns in.
            tables: of the sources, from when it first runs on.
        """
        self.node = node
        self._kind = kind
        self._scales: dict[tuple[int, ...], int] = {(1,) * node.ndim: 0}
        wanted = parents_first((node, kind == "ntk" and _theta_alone(node)), _inputs)
        self.sources = tuple(dict.fromkeys(n.parent for n, _ in wanted if isinstance(n, Resampled)))
        self._instructions = self._compile(wanted, spare, tables)
        self._knows_variances = not any(isinstance(i.step, Pointwise) for i in self._instructions)

    def _compile(
        self, wanted: list[tuple[Lattice, bool]], spare: SpareMemory, tables: Mapping[Lattice, Table]
    ) -> list[_Instruction]:
        places = {what: place for place, what in enumerate(wanted)}
        inputs = [tuple(places[what] for what in _inputs(one)) for one in wanted]
        last_reader = {place: reader for reader, read in enumerate(inputs) for place in read}
        instructions = []
        for place, (node, theta_alone) in enumerate(wanted):
            read = inputs[place]
            finished = tuple(dict.fromkeys(k for k in read if last_reader[k] == place))
            copies = bool(read) and (last_reader[read[0]] != place or read[0] in read[1:])
            # The size says how many strides lie between a node and the last one.
            scale = tuple(n // m for n, m in zip(node.geometry.size, self.node.geometry.size, strict=True))
            number = self._scales.setdefault(scale, len(self._scales))
            step = step_of(node, theta_alone, spare, tables)
            instructions.append(_Instruction(step, read, copies, finished, number))
        return instructions

    def run(self, slab: Slab) -> Tensor:
        """Return the images of a slab, [1 or 2 (both), *slab.count, *positions], in memory that may be overwritten."""
        if not self._knows_variances:
            if not slab.holds_zero or slab.band is not None:
                ones = (1,) * self.node.ndim
                self._execute(Slab((0,) * self.node.ndim, ones, ones))
            self._knows_variances = True
        images = self._execute(slab)
        if self.node.untrained:
            images = as_pair(images)
        if self._kind == "both":
            return images
        return images[-1:] if self._kind == "ntk" else images[:1]

    def _execute(self, slab: Slab) -> Tensor:
        slabs = [slab, *(slab.strided(scale) for scale in list(self._scales)[1:])]
        results: list[Tensor | None] = []
        for step, read, copies, finished, scale in self._instructions:
            inputs: list[Tensor] = [results[place] for place in read]  # type: ignore[misc]
            for place in finished:
                results[place] = None
            if copies:
                inputs[0] = inputs[0].clone()
            results.append(step.run(inputs, slabs[scale]))
        result = results[-1]
        assert result is not None
        return result

    def displacements_before(self, largest: tuple[int, ...]) -> dict[Lattice, tuple[int, ...]]:
        """The largest displacement of each source that is read for displacements up to ``largest`` of the node."""
        found: dict[Lattice, tuple[int, ...]] = {}
        scales = list(self._scales)
        for instruction in self._instructions:
            node = instruction.step.node
            if isinstance(node, Resampled):
                own = (u * r for u, r in zip(largest, scales[instruction.scale], strict=True))
                sizes = node.parent.geometry.size
                read = tuple(
                    rule.input_displacement(u, n) for rule, u, n in zip(node.resampling, own, sizes, strict=True)
                )
                found[node.parent] = tuple(map(max, read, found.get(node.parent, read)))
        return found

    def bytes_of_displacement(self) -> int:
        """Bytes that the steps hold at their peak for one displacement."""
        held: list[int] = []
        peak = now = 0
        for step, read, copies, finished, _ in self._instructions:
            one = math.prod(step.node.geometry.period) * torch.float64.itemsize
            held.append(one * (1 if step.theta_alone or step.node.untrained else 2))
            now += held[-1]
            peak = max(peak, now + step.temporaries * one + (held[read[0]] if copies else 0))
            now -= sum(held[place] for place in finished)
        return peak


def _theta_alone(node: Lattice) -> bool:
    """Whether a node that is asked for Theta alone computes no more than that."""
    return node.theta_alone and not node.untrained


def _inputs(wanted: tuple[Lattice, bool]) -> list[tuple[Lattice, bool]]:
    """What the step of a node reads: other nodes, and whether their Theta is enough."""
    node, theta_alone = wanted
    if isinstance(node, Resampled):
        return []
    passes_on = theta_alone and node.passes_theta
    return [(parent, passes_on and _theta_alone(parent)) for parent in node.parents]
