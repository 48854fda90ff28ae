"""The computing of an expression of pairs: block by block of pairs, level by level, box by box of displacements.

A level ends at a node of which many displacements are read at once (before a resampling, a pooling or a flattening, and
the last one). Within a level displacements never meet, so a box of them runs through all its nodes while it sits in
the cache.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor

from torch_cntk.covariance.lattice.expression import parents_first
from torch_cntk.covariance.pairs.displacements import Box, chunks, covering, index_in, no_displacement, scaled, whole
from torch_cntk.covariance.pairs.expression import Flattened, Given, Pairs, Pooled, Resampled
from torch_cntk.covariance.pairs.steps import Block, Part, run

__all__ = ["Evaluation", "Images", "Kind"]

Kind = Literal["ntk", "nngp"]
Tables = dict[Pairs, tuple[Part, Box]]

_SLAB_ENTRIES = {"cpu": 1 << 15, "cuda": 1 << 23}
"""Numbers of one covariance that are worked on at once (256 kB of float64): with their temporaries they stay in the
cache of a core; a GPU wants work."""


class Images:
    """A set of images on one side of a kernel, and what is known of each of them by itself.

    Attributes:
        features: [channels, *size, n].
        variances: see ``Block``.
    """

    def __init__(self, features: Tensor, variances: dict[Pairs, Tensor]) -> None:
        self.features = features
        self.variances = variances

    def __len__(self) -> int:
        return self.features.shape[-1]

    def select(self, index: Tensor | slice) -> Images:
        """Some of the images."""
        return Images(self.features[..., index], {node: v[..., index] for node, v in self.variances.items()})


class _Level:
    """The nodes from the tables before a node to it."""

    def __init__(self, end: Pairs) -> None:
        self.end = end
        self.nodes = parents_first(end, _level_parents)
        self.scale = {end: (1,) * end.ndim}
        self.last_reader: dict[Pairs, Pairs] = {}
        for node in reversed(self.nodes):
            for parent in _level_parents(node):
                self.last_reader.setdefault(parent, node)
                self.scale[parent] = tuple(s * r for s, r in zip(self.scale[node], node.stride, strict=True))
        self.sources = [node for node in self.nodes if node.reads_table]
        self.pixels = max(math.prod(node.size) for node in self.nodes)

    def run(self, block: Block, box: Box, tables: Tables) -> Part:
        """The end's images at some displacements."""
        return self._run(block, box, tables, self.nodes)[self.end]

    def find_variances(self, block: Block, tables: Tables, wanted: Container[Pairs]) -> None:
        """Run what the wanted nodes are made from at displacement 0, for the variances that this finds."""
        self._run(block, no_displacement(self.end.ndim), tables, [node for node in self.nodes if node in wanted])

    def _run(self, block: Block, box: Box, tables: Tables, nodes: list[Pairs]) -> dict[Pairs, Part]:
        parts: dict[Pairs, Part] = {}
        for node in nodes:
            own = scaled(box, self.scale[node])
            if node.reads_table:
                parts[node] = _looked_up(node, own, tables)
                continue
            inputs = [parts[parent] for parent in node.parents]
            done = [parent for parent in set(node.parents) if self.last_reader[parent] is node]
            # What was read from a table may be a part of it.
            free = bool(inputs) and node.parents[0] in done and not node.parents[0].reads_table
            free = free and node.parents.count(node.parents[0]) == 1
            parts[node] = run(node, block, inputs, own, free)
            for parent in done:
                del parts[parent]
        return parts


def _level_parents(node: Pairs) -> tuple[Pairs, ...]:
    return () if node.reads_table else node.parents


def _looked_up(node: Pairs, box: Box, tables: Tables) -> Part:
    part, stored = tables[node]
    for axis, index in enumerate(index_in(stored, box, node.size)):
        if index is not None:
            place, axis_of = index.to(part.sigma.device), node.ndim + 2 + axis
            part = part.each(lambda images, i=place, k=axis_of: images.index_select(k, i))  # type: ignore[misc]
    return part


class Evaluation:
    """Computes one expression for any number of pairs.

    Args:
        expression: of the network's output.
        kind: "ntk" (Theta) or "nngp" (Sigma).
        dtype: of the computation.
    """

    def __init__(self, expression: Pairs, kind: Kind = "ntk", dtype: torch.dtype = torch.float64) -> None:
        self.kind, self.dtype = kind, dtype
        self._last = expression
        self._nodes = parents_first(expression, attrgetter("parents"))
        self._tables_of = [node for node in self._nodes if node.reads_table]
        ends = dict.fromkeys([*(node.parents[0] for node in self._tables_of), expression])
        self._levels = {end: _Level(end) for end in ends}
        self._pointwise = [node for node in self._nodes if node.needs_variances]
        (self._given,) = (node for node in self._nodes if isinstance(node, Given))
        self._wanted = self._boxes({expression: whole(expression.size)})
        self._wanted_alone = self._boxes({node: no_displacement(node.ndim) for node in self._pointwise})

    @property
    def numbers_a_pair(self) -> int:
        """How many numbers all nodes have together for each pair."""
        return sum(math.prod(node.size) * math.prod(map(len, box)) for node, box in self._wanted.items())

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels of the output; none for one number a pair."""
        return self._last.size

    def _boxes(self, wanted: dict[Pairs, Box]) -> dict[Pairs, Box]:
        """The displacements of each node that are read, given those that are wanted of some; none of other nodes."""
        boxes = dict(wanted)
        for node in reversed(self._nodes):
            if node not in boxes:
                continue
            for parent in node.parents:
                needed = node.read(boxes[node], parent)
                boxes[parent] = covering(boxes[parent], needed, parent.size) if parent in boxes else needed
        return boxes

    # Sizes of work.

    def pairs_at_once(self, device: torch.device) -> tuple[int, int]:
        """Images of either side in a block."""
        pairs = max(1, _slab_entries(device) // self._entries(self._wanted))
        rows = math.isqrt(pairs)
        return rows, pairs // rows

    def _entries(self, boxes: dict[Pairs, Box]) -> int:
        """The most numbers that a node takes for each pair."""
        return max(math.prod(node.size) * math.prod(map(len, box)) for node, box in boxes.items())

    def bytes_an_image(self) -> int:
        """What is kept of each image."""
        numbers = math.prod(self._given.pixels) + sum(math.prod(node.size) for node in self._pointwise)
        return numbers * self.dtype.itemsize

    def bytes_a_block(self, device: torch.device) -> int:
        """What a block takes beyond its result: tables, and a slab with some temporaries."""
        rows, columns = self.pairs_at_once(device)
        boxes = self._wanted
        entries = [math.prod(n.size) * math.prod(map(len, box)) for n, box in boxes.items() if n.reads_table]
        tables = rows * columns * 2 * sum(entries)
        read = [
            math.prod(n.parents[0].size) * math.prod(map(len, n.read(boxes[n], n.parents[0])))
            for n in self._tables_of
            if isinstance(n, Resampled)
        ]
        pixels = math.prod(self.size) ** 2 if self.size else 0
        slab = 12 * max(_slab_entries(device), *(level.pixels for level in self._levels.values()))
        return (tables + rows * columns * (4 * max(read, default=0) + 2 * pixels) + slab) * self.dtype.itemsize

    # Readings.

    def images(self, features: Tensor) -> Images:
        """Take images, [n, channels, *pixels], in; their variances are computed."""
        last = features.to(self.dtype).movedim(0, -1).contiguous()
        entries = self._entries(self._wanted_alone) if self._wanted_alone else 1
        most = max(1, _slab_entries(last.device) // entries)
        found: dict[Pairs, list[Tensor]] = {node: [] for node in self._pointwise}
        for some in last.split(most, dim=-1):
            block = self._alone(some)
            self._complete_variances(block)
            for node, variance in block.variances.items():
                found[node].append(variance)
        return Images(last, {node: torch.cat(parts, -1) for node, parts in found.items()})

    def between(self, first: Images, second: Images, *, equal: tuple[Tensor, ...] | None = None) -> Tensor:
        """K between each image of one set and each of another: [I, J], or [I, J, *size, *size] where there are pixels.

        Args:
            first: one set, at most about ``pairs_at_once`` of them.
            second: the other.
            equal: indices of pairs (A, B) that are the same image: how many of each set, [k] both.
        """
        block = Block(
            first.features,
            second.features,
            first.variances,
            second.variances,
            self.kind == "ntk",
            equal=equal if equal is not None and len(equal[0]) else None,
            recorded=_recorded(first.features, second.features),
            boxes=self._wanted,
        )
        return self._result(block)

    def alone(self, images: Images) -> Tensor:
        """K between each image and itself: [n], or [n, *size, *size]."""
        values = []
        most = max(1, _slab_entries(images.features.device) // self._entries(self._wanted))
        for start in range(0, len(images), most):
            block = self._alone(images.select(slice(start, start + most)).features)
            self._complete_variances(block)
            values.append(self._result(block)[:, 0])
        return torch.cat(values)

    def _alone(self, features: Tensor) -> Block:
        recorded = _recorded(features)
        return Block(features, features, {}, {}, self.kind == "ntk", paired=True, recorded=recorded)

    def _complete_variances(self, block: Block) -> None:
        """Compute the variances of all nodes of a block of images that meet themselves."""
        tables: Tables = {}
        for node in self._tables_of:
            self._run_zero(self._levels[node.parents[0]], block, tables)
            if node in self._wanted_alone:
                tables[node] = self._table(node, self._wanted_alone[node], block, tables)
        self._run_zero(self._levels[self._last], block, tables)

    def _run_zero(self, level: _Level, block: Block, tables: Tables) -> None:
        """Find the variances of a level: displacement 0 of all its nodes."""
        if any(node.needs_variances and node not in block.variances for node in level.nodes):
            level.find_variances(block, tables, self._wanted_alone)

    def _result(self, block: Block) -> Tensor:
        tables: Tables = {}
        for node in self._tables_of:
            if node in self._wanted:
                tables[node] = self._table(node, self._wanted[node], block, tables)
        box = self._wanted[self._last]
        part = self._whole(self._last, box, block, tables)
        values = part.sigma if self.kind == "nngp" else part.theta
        if values is None:
            values = torch.zeros_like(part.sigma)
        return _between_pixels(values, self.size)

    # Tables.

    def _parts(self, end: Pairs, box: Box, block: Block, tables: Tables) -> Iterator[tuple[Box, Part]]:
        """An end's images, some displacements at a time."""
        level = self._levels[end]
        most = max(1, _slab_entries(block.first.device) // (level.pixels * block.pairs))
        for some in chunks(box, most):
            yield some, level.run(block, some, tables)

    def _whole(self, end: Pairs, box: Box, block: Block, tables: Tables) -> Part:
        """An end's images at all displacements of a box."""
        whole_part: Part | None = None
        for some, part in self._parts(end, box, block, tables):
            if some == box:
                return part
            if whole_part is None:
                shape = (*part.sigma.shape[: end.ndim + 2], *map(len, box))
                whole_part = part.each(lambda images, s=shape: images.new_empty(s))  # type: ignore[misc]
            where = tuple(
                slice((u.start - own.start) // own.step, (u.start - own.start) // own.step + len(u))
                for u, own in zip(some, box, strict=True)
            )
            for target, source in zip(whole_part, part, strict=True):
                if target is not None:
                    target[(..., *where)] = source
        assert whole_part is not None
        return whole_part

    def _table(self, node: Pairs, box: Box, block: Block, tables: Tables) -> tuple[Part, Box]:
        """What a node that reads many displacements of its parent makes of them."""
        (parent,) = node.parents
        read = node.read(box, parent)
        if isinstance(node, Resampled):
            part = self._whole(parent, read, block, tables)
            return part.each(lambda images: _resampled(images, node, read, box)), box
        total: Part | None = None
        flat = isinstance(node, Flattened)
        for _, part in self._parts(parent, read, block, tables):
            part = part.each(lambda images: _total(images, parent.ndim, keep=not flat))
            total = part if total is None else Part(*(_added(a, b) for a, b in zip(total, part, strict=True)))
        assert total is not None and isinstance(node, Flattened | Pooled)
        share = math.prod(parent.size) ** (-1.0 if flat else -2.0)
        return total.each(lambda images: images * share), no_displacement(node.ndim)


def _recorded(*features: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in features)


def _slab_entries(device: torch.device) -> int:
    return _SLAB_ENTRIES.get(device.type, _SLAB_ENTRIES["cuda"])


def _added(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else first + second


def _total(images: Tensor, ndim: int, *, keep: bool) -> Tensor:
    """The sum over positions and displacements, [*size, I, J, *box] to [I, J], or to [1, .., I, J, 1, ..]."""
    axes = (*range(ndim), *range(ndim + 2, 2 * ndim + 2))
    return images.sum(axes, keepdim=keep) if axes else images


def _resampled(images: Tensor, node: Resampled, read: Box, box: Box) -> Tensor:
    """T'[u][b] = sum over taps s of b and t of b + u of w_s w_t T[p_t - p_s][p_s], along one axis."""
    axis, ndim = node.axis, node.ndim
    n, own = node.parent.size[axis], read[axis]
    positions, weights = (taps.to(images.device) for taps in node.rule.taps(n))
    outputs = positions.shape[1]
    moved_on = torch.tensor(list(box[axis]), device=images.device)
    second = (torch.arange(outputs, device=images.device)[:, None] + moved_on) % outputs
    displacement = ndim + 2 + axis
    rows = images.movedim((axis, displacement), (0, 1))
    rest = rows.shape[2:]
    rows = rows.reshape(n * len(own), -1)
    total: Tensor | None = None
    for p, w in zip(positions, weights.to(images.dtype), strict=True):
        for q, v in zip(positions, weights.to(images.dtype), strict=True):
            apart = torch.remainder(q[second] - p[:, None] - own.start, n).div(own.step, rounding_mode="floor")
            index = (p[:, None] * len(own) + apart).flatten()
            term = rows.index_select(0, index) * (w[:, None] * v[second]).reshape(-1, 1)
            total = term if total is None else total + term
    assert total is not None
    return total.reshape(outputs, len(moved_on), *rest).movedim((0, 1), (axis, displacement)).contiguous()


def _between_pixels(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """T[u][a], [*size, I, J, *size], as K(a, a'), [I, J, *size, *size]."""
    ndim = len(size)
    for axis, n in enumerate(size):
        first = torch.arange(n, device=images.device)[:, None]
        apart = (torch.arange(n, device=images.device) - first) % n
        pair = images.movedim((axis, ndim + 2 + axis), (0, 1))
        images = pair[first, apart].movedim((0, 1), (axis, ndim + 2 + axis))
    return images.movedim((ndim, ndim + 1), (0, 1)).contiguous()
