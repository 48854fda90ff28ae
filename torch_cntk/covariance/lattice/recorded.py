"""Kernels of pixels with gradients: the same levels and tables, by steps that overwrite nothing.

A level runs once for all displacements of its table, as what autograd keeps has to stay in memory anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add

import torch
from torch import Tensor

from torch_cntk.covariance.duals.gradients import differentiable
from torch_cntk.covariance.lattice.evaluation import Evaluation
from torch_cntk.covariance.lattice.expression import (
    Activated,
    Attended,
    Averaged,
    AveragedInside,
    Dropped,
    Features,
    Lattice,
    Mixed,
    Multiplied,
    Normalised,
    Resampled,
    Stored,
    Subsampled,
)
from torch_cntk.covariance.lattice.program import Program
from torch_cntk.covariance.lattice.shifts import positions_of, repeated, shifted, tiled, unshifted
from torch_cntk.covariance.lattice.step import Pointwise, Step, as_pair, at_zero
from torch_cntk.covariance.lattice.steps import step_of
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.table import Slab, Table
from torch_cntk.covariance.window import Window

__all__ = ["RecordedEvaluation"]

_KEPT = 8
"""Covariances of each node that are held for the gradients, or while they are computed, as measured."""


class RecordedEvaluation(Evaluation):
    """One computing of an expression, whose results have gradients by the prior and the options of the layers."""

    def _peak(self, sizes: dict[Lattice, int], own: int, displacements: Callable[[Lattice], int]) -> int:
        """Bytes that all nodes hold, each for as many displacements as the table that it leads to."""
        needed = 0
        for program in (*self._before, self._last):
            count = sizes.get(program.node, 2 * own) / math.prod(program.node.geometry.period)
            positions = sum(math.prod(i.step.node.geometry.period) for i in program.instructions)
            needed += int(_KEPT * count * positions)
        return needed

    def _program(self, node: Lattice, kind: str, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> Program:
        return Program(node, kind, spare, tables, _recorded_step, reduced=False)

    def _whole_table(
        self, program: Program, dtype: torch.dtype, radius: tuple[int, ...] | None
    ) -> tuple[Table, float | Tensor]:
        geometry = program.node.geometry
        zero, ones = (0,) * geometry.ndim, (1,) * geometry.ndim
        images = program.run(Slab(zero, geometry.box, ones))
        self._count(images)
        far: float | Tensor = 0.0
        if radius is not None:
            far = images[(0, *(r + 1 for r in radius), *zero)]
            images = images - far
        return Table(images.to(dtype), geometry), far

    def _near_table(self, program: Program, window: Window, dtype: torch.dtype) -> Table:
        ndim = window.ndim
        rows: dict[int, Tensor] = {}
        for slab, where in window.pieces(math.prod(window.size)):
            images = program.run(slab)
            images = images.reshape(len(images), -1, *window.period)
            if window.tapered:
                images = images * window.weights()[where].to(images).view(-1, *(1,) * ndim)
            rows[where.start] = images.to(dtype)
            self._count(images)
        values = torch.cat([rows[start] for start in sorted(rows)], 1)
        return Table(values.reshape(len(values), *window.box, *window.period), window)


class _Multiply(Step[Features]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        node, period = self.node, self.node.geometry.period
        tiles = [tiled(channel, period) for channel in node.features.to(node.dtype)]
        products = [unshifted(tile, period, slab) * shifted(tile, period, slab) for tile in tiles]
        sigma: Tensor = reduce(add, products)[None] * (node.weight / len(tiles))
        return sigma


class _Average(Step[Averaged]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        gains = self.node.gains
        mean = self._mean(inputs[0], slab)
        theta = gains.trained_weight * mean[0] + gains.trained_bias
        if not self.node.parent.untrained:
            theta = theta + gains.weight * mean[1]
        return torch.stack([gains.weight * mean[0] + gains.bias, theta])

    def _mean(self, images: Tensor, slab: Slab) -> Tensor:
        node = self.node
        for axis, p in enumerate(node.geometry.period):
            offsets = node.patches.offsets(axis)
            if p > 1 and any(offsets):
                images = reduce(add, [images.roll(-o, axis - node.ndim) for o in offsets]) / len(offsets)
        return images


class _AverageInside(_Average):
    def _mean(self, images: Tensor, slab: Slab) -> Tensor:
        """Over the neighbours of which both pixels, x + d and x' + d, are inside."""
        node = self.node
        images = repeated(images, node.geometry.size)
        for axis, n in enumerate(node.geometry.size):
            offsets, dim = node.patches.offsets(axis), axis - node.ndim
            first = torch.arange(n, device=images.device)
            second = (first + slab.displacements(axis, images.device)[:, None]) % n
            shape = [1] * images.ndim
            shape[1 + axis], shape[dim] = second.shape
            terms = []
            for offset in offsets:
                inside = [(place + offset >= 0) & (place + offset < n) for place in (first, second)]
                terms.append(images.roll(-offset, dim) * (inside[0] & inside[1]).to(images.dtype).view(shape))
            images = reduce(add, terms) / len(offsets)
        return images


class _Activate(Pointwise[Activated]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        pair = as_pair(inputs[0])
        value, slope = differentiable(self.node.dual)(pair[0], *self._variances(pair[0], slab))
        return torch.stack([value, pair[1] * slope])


class _Normalise(Pointwise[Normalised]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        node, pair = self.node, as_pair(inputs[0])
        variance, other = self._variances(pair[0], slab)
        norm = ((variance + node.epsilon) * (other + node.epsilon)).clamp_min(torch.finfo(pair.dtype).tiny).sqrt()
        pair = pair / norm
        return torch.stack([pair[0], pair[1] + pair[0] + 1]) if node.affine else pair


class _Drop(Step[Dropped]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        images = inputs[0].clone()
        if slab.holds_zero:
            at_zero(images, self.node.ndim).div_(self.node.kept)
        return images


class _Mix(Step[Mixed]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        node = self.node
        positions = positions_of(node.geometry.period, slab)
        parts = inputs if node.untrained else [as_pair(images) for images in inputs]
        return reduce(add, [w * repeated(part, positions) for w, part in zip(node.weights, parts, strict=True)])


_STEPS: dict[type[Lattice], type[Step]] = {
    Features: _Multiply,
    Averaged: _Average,
    AveragedInside: _AverageInside,
    Activated: _Activate,
    Normalised: _Normalise,
    Dropped: _Drop,
    Mixed: _Mix,
}
_AS_THEY_ARE = (Stored, Subsampled, Resampled, Attended, Multiplied)
"""Nodes whose steps overwrite nothing of what they are given."""


def _recorded_step(node: Lattice, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> Step:
    if type(node) in _STEPS:
        return _STEPS[type(node)](node, theta_alone, spare, tables)
    if type(node) not in _AS_THEY_ARE:
        raise ValueError(f"expected rules that pass gradients on, got one that does not: {type(node).__name__}")
    return step_of(node, theta_alone, spare, tables)
