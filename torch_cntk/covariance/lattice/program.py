"""A level of an expression as a list of steps, compiled once and run for each slab of displacements.

A level ends at one node and begins at given covariances and at resamplings, which read finished tables. Convolutions,
activations and strides never mix displacements, so a slab runs through all steps of the level while it sits in the
cache. A result is overwritten by the last step that reads it; earlier ones get a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from torch_cntk.covariance.lattice.expression import Attended, Averaged, Lattice, Mixed, Resampled
from torch_cntk.covariance.lattice.order import parents_first
from torch_cntk.covariance.lattice.step import Step, as_pair
from torch_cntk.covariance.lattice.steps import step_of
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.table import Slab, Table

__all__ = ["Program", "StepOf"]

StepOf = Callable[[Lattice, bool, SpareMemory, Mapping[Lattice, Table]], Step]
"""Gives the step that computes a node: see ``step_of``."""


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
        instructions: its steps.
    """

    def __init__(
        self,
        node: Lattice,
        kind: str,
        spare: SpareMemory,
        tables: Mapping[Lattice, Table],
        step: StepOf = step_of,
        *,
        reduced: bool = True,
    ) -> None:
        """Compile.

        Args:
            node: the last node.
            kind: "ntk" (Theta), "nngp" (Sigma) or "both".
            spare: memory that slabs take turns in.
            tables: of the sources, from when it first runs on.
            step: gives each node's.
            reduced: whether steps of which Theta is all that is read compute nothing else.
        """
        self.node = node
        self._kind, self._step_of, self._reduced, self._spare = kind, step, reduced, spare
        self._scales: dict[tuple[int, ...], int] = {(1,) * node.ndim: 0}
        nodes = parents_first(node, attrgetter("level"))
        # What is read by a resampling is no part of the level.
        self.sources = tuple(dict.fromkeys([p for n in nodes if n.level is not n.parents for p in n.parents]))
        self.instructions = self._compile(nodes, spare, tables)
        self._knows_variances = not any(i.step.needs_variances for i in self.instructions)

    def _compile(self, nodes: list[Lattice], spare: SpareMemory, tables: Mapping[Lattice, Table]) -> list[_Instruction]:
        places = {node: place for place, node in enumerate(nodes)}
        inputs = [tuple([places[parent] for parent in node.level]) for node in nodes]
        last_reader = {place: reader for reader, read in enumerate(inputs) for place in read}
        theta_alone = self._with_theta_alone(nodes)
        instructions = []
        for place, (node, read) in enumerate(zip(nodes, inputs, strict=True)):
            finished = tuple([k for k in set(read) if last_reader[k] == place])
            copies = bool(read) and (read[0] not in finished or read[0] in read[1:])
            step = self._step_of(node, node in theta_alone, spare, tables)
            instructions.append(_Instruction(step, read, copies, finished, self._scale_of(node)))
        return instructions

    def _with_theta_alone(self, nodes: list[Lattice]) -> set[Lattice]:
        """The nodes of which Theta is all that is read."""
        if not self._reduced or self._kind != "ntk" or not _can_give_theta(self.node):
            return set()
        alone, both = {self.node}, set[Lattice]()
        if isinstance(self.node, Mixed):
            # Whatever reads a node comes after it.
            for node in reversed(nodes):
                passes = node in alone and isinstance(node, Mixed)
                for parent in node.parents:
                    if passes and _can_give_theta(parent) and parent not in both:
                        alone.add(parent)
                    else:
                        both.add(parent)
                        alone.discard(parent)
        return alone

    def _scale_of(self, node: Lattice) -> int:
        """The size says how many strides lie between a node and the last one."""
        own, last = node.geometry.size, self.node.geometry.size
        if own == last:
            return 0
        return self._scales.setdefault(tuple(n // m for n, m in zip(own, last, strict=True)), len(self._scales))

    def run(self, slab: Slab) -> Tensor:
        """Return the images of a slab, [1 or 2 (both), *slab.count, *positions], in memory that may be overwritten."""
        if not self._knows_variances and (slab.band is not None or not slab.holds_zero):
            ones = (1,) * self.node.ndim
            self._execute(Slab((0,) * self.node.ndim, ones, ones))
        images = self._execute(slab)
        self._knows_variances = True
        if self.node.untrained:
            images = as_pair(images)
        if self._kind == "both":
            return images
        return images[-1:] if self._kind == "ntk" else images[:1]

    def reuse(self, images: Tensor) -> None:
        """Take the memory of images that ``run`` returned, when nobody reads them any more."""
        whole = images._base
        self._spare.keep(images if whole is None else whole)

    def _execute(self, slab: Slab) -> Tensor:
        slabs = [slab, *(slab.strided(scale) for scale in list(self._scales)[1:])]
        results: list[Tensor | None] = []
        for step, read, copies, finished, scale in self.instructions:
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
        for instruction in self.instructions:
            node = instruction.step.node
            if isinstance(node, Attended):
                found[node.parent] = tuple(n // 2 for n in node.parent.geometry.size)
            if isinstance(node, Resampled):
                own = (u * r for u, r in zip(largest, scales[instruction.scale], strict=True))
                sizes = node.parent.geometry.size
                read = tuple(
                    rule.input_displacement(u, n) for rule, u, n in zip(node.resampling, own, sizes, strict=True)
                )
                found[node.parent] = tuple(map(max, read, found.get(node.parent, read)))
        return found

    def bytes_needed(self, displacements: int) -> int:
        """Bytes that the steps hold at their peak, for slabs of so many displacements."""
        held: list[int] = []
        peak = now = kept = 0
        for step, read, copies, finished, _ in self.instructions:
            one = displacements * math.prod(step.node.geometry.period) * torch.float64.itemsize
            held.append(one if step.theta_alone or step.node.untrained else 2 * one)
            now += held[-1]
            peak = max(peak, now + step.temporaries * one + (held[read[0]] if copies else 0))
            now -= sum(held[place] for place in finished)
            kept += step.kept_bytes()
        return peak + kept


def _can_give_theta(node: Lattice) -> bool:
    """Whether Theta alone takes less work than both."""
    return isinstance(node, Averaged | Mixed) and not node.untrained
