"""The computing of an expression of pairs: block by block of pairs, level by level, box by box of displacements.

A level ends at a node of which many displacements are read at once (before a resampling, an attention or a head, and
the last one). Within a level displacements never meet, so a box of them runs through all its nodes while it sits in
the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import Tensor

from torch_cntk.covariance.lattice.order import parents_first
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.pairs.attend import attend
from torch_cntk.covariance.pairs.block import Block
from torch_cntk.covariance.pairs.displacements import Box, chunks, covering, no_displacement, whole
from torch_cntk.covariance.pairs.expression import Attended, Flattened, Given, Pairs, Pooled, Resampled
from torch_cntk.covariance.pairs.level import Level, Tables

__all__ = ["Evaluation", "Images", "Kind"]

Kind = Literal["ntk", "nngp"]

_SLAB_ENTRIES = {"cpu": 1 << 16, "cuda": 1 << 23}
"""Numbers of float64 of one covariance that are worked on at once, on each thread of a CPU (512 kB), and as many once
more: Sigma, Theta and as much again stay in what a core has of the second and the third cache (2 MB; a thread that is
alone has more), while calls take ten times as long as their beginnings. A GPU wants work."""

_HELD: dict[type[Pairs], int] = {Resampled: 4, Attended: 12}
"""Numbers for each that is read of the parent, while a table is made: Sigma and Theta, their copies and products."""

_LONG_LOOP = 64
"""Numbers in the innermost loops, from which on their beginnings no longer count."""


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


class Evaluation:
    """Computes one expression for any number of pairs.

    Args:
        expression: of the network's output.
        kind: "ntk" (Theta) or "nngp" (Sigma).
        dtype: of the computation.
        recorded: whether gradients are to be recorded, by the images and the options of the layers.
    """

    def __init__(
        self,
        expression: Pairs,
        kind: Kind = "ntk",
        dtype: torch.dtype = torch.float64,
        *,
        recorded: bool = False,
    ) -> None:
        self.kind, self.dtype, self.recorded = kind, dtype, recorded
        self._last = expression
        self._nodes = parents_first(expression, attrgetter("parents"))
        self._tables_of = [node for node in self._nodes if node.reads_table]
        ends = dict.fromkeys([*(node.parents[0] for node in self._tables_of), expression])
        self._levels = {end: Level(end) for end in ends}
        self._pointwise = [node for node in self._nodes if node.needs_variances]
        (self._given,) = (node for node in self._nodes if isinstance(node, Given))
        self._wanted = self._boxes({expression: whole(expression.size)})
        self._wanted_alone = self._boxes({node: no_displacement(node.ndim) for node in self._pointwise})
        self._readers: dict[Pairs, list[Pairs]] = {node: [] for node in self._nodes}
        for node in self._nodes:
            for parent in dict.fromkeys(node.parents):
                self._readers[parent].append(node)
        self._only_reader = {node: readers[0] for node, readers in self._readers.items() if len(readers) == 1}
        self._theta_alone = self._with_theta_alone() if kind == "ntk" else frozenset()
        self._idle: dict[bool, list[SpareMemory]] = {False: [], True: []}

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

    def _with_theta_alone(self) -> frozenset[Pairs]:
        """The nodes whose Sigma nobody reads: the last one, and before it those that a sum of Theta is made from."""
        found = {self._last}
        for node in reversed(self._nodes):
            readers = self._readers[node]
            if readers and all(reader in found and isinstance(reader, Flattened | Pooled) for reader in readers):
                found.add(node)
        return frozenset(found)

    # Sizes of work.

    def pairs_at_once(self, device: torch.device) -> tuple[int, int]:
        """Images of either side in a block, so that its inner loops are long: over displacements, or images of B."""
        pairs = max(1, _slab_entries(device, self.dtype) // self._entries(self._wanted))
        if any(len(axis) > 1 for box in self._wanted.values() for axis in box):
            return pairs, 1
        side = math.isqrt(pairs)
        columns = side if self._given.flat else min(pairs, max(side, _LONG_LOOP))
        return pairs // columns, columns

    def _entries(self, boxes: dict[Pairs, Box]) -> int:
        """The most numbers that a node takes for each pair."""
        return max(math.prod(node.size) * math.prod(map(len, box)) for node, box in boxes.items())

    def bytes_an_image(self) -> int:
        """What is kept of each image."""
        numbers = math.prod(self._given.pixels) + sum(node.kept for node in self._pointwise)
        return numbers * self.dtype.itemsize

    def bytes_a_block(self, device: torch.device) -> int:
        """What a block takes beyond its result: tables, and a slab with some temporaries."""
        rows, columns = self.pairs_at_once(device)
        boxes = self._wanted
        entries = [math.prod(n.size) * math.prod(map(len, box)) for n, box in boxes.items() if n.reads_table]
        tables = rows * columns * 2 * sum(entries)
        read = [
            _HELD[type(n)] * math.prod(n.parents[0].size) * math.prod(map(len, n.read(boxes[n], n.parents[0])))
            for n in self._tables_of
            if type(n) in _HELD and n in boxes
        ]
        pixels = math.prod(self.size) ** 2 if self.size else 0
        slab = 12 * max(_slab_entries(device, self.dtype), *(level.pixels for level in self._levels.values()))
        return (tables + rows * columns * (max(read, default=0) + 2 * pixels) + slab) * self.dtype.itemsize

    # Readings.

    def images(self, features: Tensor) -> Images:
        """Take images, [n, channels, *pixels], in; their variances are computed."""
        last = features.to(self.dtype).movedim(0, -1).contiguous()
        entries = self._entries(self._wanted_alone) if self._wanted_alone else 1
        most = max(1, _slab_entries(last.device, self.dtype) // entries)
        found: dict[Pairs, list[Tensor]] = {node: [] for node in self._pointwise}
        for some in torch.split(last, most, dim=-1):
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
        with self._memory(first.features.device) as memory:
            block = Block(
                first.features,
                second.features,
                first.variances,
                second.variances,
                self.kind == "ntk",
                equal=equal if equal is not None and len(equal[0]) else None,
                recorded=self.recorded,
                boxes=self._wanted,
                memory=memory,
                theta_alone=self._theta_alone,
                only_reader=self._only_reader,
            )
            return self._result(block)

    @contextmanager
    def _memory(self, device: torch.device) -> Iterator[SpareMemory]:
        """That of an earlier block, which nobody else has: fresh memory takes a tenth of the time of a CPU.

        What was made in inference mode can be overwritten there alone. Of a GPU torch keeps the memory itself.
        """
        idle = self._idle[torch.is_inference_mode_enabled()]
        try:
            memory = idle.pop()
        except IndexError:
            memory = SpareMemory()
        yield memory
        if device.type == "cpu":
            idle.append(memory)

    def alone(self, images: Images) -> Tensor:
        """K between each image and itself: [n], or [n, *size, *size]."""
        values = []
        most = max(1, _slab_entries(images.features.device, self.dtype) // self._entries(self._wanted))
        for start in range(0, len(images), most):
            block = self._alone(images.select(slice(start, start + most)).features)
            self._complete_variances(block)
            values.append(self._result(block)[:, 0])
        return torch.cat(values)

    def _alone(self, features: Tensor) -> Block:
        return Block(features, features, {}, {}, self.kind == "ntk", paired=True, recorded=self.recorded)

    def _complete_variances(self, block: Block) -> None:
        """Compute the variances of all nodes of a block of images that meet themselves."""
        tables: Tables = {}
        for node in self._tables_of:
            self._run_zero(self._levels[node.parents[0]], block, tables)
            if node in self._wanted_alone:
                tables[node] = self._table(node, self._wanted_alone[node], block, tables)
        self._run_zero(self._levels[self._last], block, tables)

    def _run_zero(self, level: Level, block: Block, tables: Tables) -> None:
        """Find the variances of a level: displacement 0 of all its nodes."""
        if any(node.needs_variances and node not in block.variances for node in level.nodes):
            level.find_variances(block, tables, self._wanted_alone)

    def _result(self, block: Block) -> Tensor:
        tables: Tables = {}
        for node in self._tables_of:
            if node in self._wanted:
                tables[node] = self._table(node, self._wanted[node], block, tables)
        box = self._wanted[self._last]
        images = self._whole(self._last, box, block, tables)
        if self.kind == "nngp":
            return _between_pixels(images[0], self.size)
        return _between_pixels(images[1] if len(images) > 1 else torch.zeros_like(images[0]), self.size)

    # Tables.

    def _parts(self, end: Pairs, box: Box, block: Block, tables: Tables) -> Iterator[tuple[Box, Tensor]]:
        """An end's images, some displacements at a time, in memory that the next ones take."""
        level = self._levels[end]
        most = max(1, _slab_entries(block.first.device, self.dtype) // (level.pixels * block.pairs))
        for some in chunks(box, most):
            part = level.run(block, some, tables)
            yield some, part
            if not end.reads_table:
                block.keep(part)

    def _whole(self, end: Pairs, box: Box, block: Block, tables: Tables) -> Tensor:
        """An end's images at all displacements of a box."""
        images: Tensor | None = None
        for some, part in self._parts(end, box, block, tables):
            if some == box:
                return part
            if images is None:
                images = part.new_empty((*part.shape[: end.ndim + 3], *map(len, box)))
            starts = [(u[0] - own[0]) // own.step for u, own in zip(some, box, strict=True)]
            where: tuple[Any, ...] = tuple(slice(start, start + len(u)) for start, u in zip(starts, some, strict=True))
            images[..., *where] = part
        assert images is not None
        return images

    def _table(self, node: Pairs, box: Box, block: Block, tables: Tables) -> tuple[Tensor, Box]:
        """What a node that reads many displacements of its parent makes of them."""
        (parent,) = node.parents
        read = node.read(box, parent)
        if isinstance(node, Resampled):
            return _resampled(self._whole(parent, read, block, tables), node, read, box), box
        if isinstance(node, Attended):
            return attend(self._whole(parent, read, block, tables), node, block, box), box
        assert isinstance(node, Flattened | Pooled)
        total: Tensor | None = None
        flat = isinstance(node, Flattened)
        for _, images in self._parts(parent, read, block, tables):
            part = _total(images, parent.ndim, keep=not flat)
            total = part if total is None else total + part
        assert total is not None
        return total * math.prod(parent.size) ** (-1.0 if flat else -2.0), no_displacement(node.ndim)


def _slab_entries(device: torch.device, dtype: torch.dtype) -> int:
    if device.type != "cpu":
        return _SLAB_ENTRIES["cuda"]
    return _SLAB_ENTRIES["cpu"] * (1 + torch.get_num_threads()) * torch.float64.itemsize // dtype.itemsize


def _total(images: Tensor, ndim: int, *, keep: bool) -> Tensor:
    """The sum over positions and displacements, [c, *size, I, J, *box] to [c, I, J], or to [c, 1, .., I, J, 1, ..]."""
    return images.sum((*range(1, 1 + ndim), *range(ndim + 3, 2 * ndim + 3)), keepdim=keep)


def _resampled(images: Tensor, node: Resampled, read: Box, box: Box) -> Tensor:
    """T'[u][b] = sum over taps s of b and t of b + u of w_s w_t T[p_t - p_s][p_s], along one axis."""
    axis, ndim = node.axis, node.ndim
    n, own = node.parent.size[axis], read[axis]
    positions, weights = (taps.to(images.device) for taps in node.rule.taps(n))
    outputs = positions.shape[1]
    moved_on = torch.tensor(list(box[axis]), device=images.device)
    second = (torch.arange(outputs, device=images.device)[:, None] + moved_on) % outputs
    axes = (1 + axis, ndim + 3 + axis)
    rows = images.movedim(axes, (0, 1))
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
    return total.reshape(outputs, len(moved_on), *rest).movedim((0, 1), axes).contiguous()


def _between_pixels(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """T[u][a], [*size, I, J, *size], as K(a, a'), [I, J, *size, *size]."""
    ndim = len(size)
    for axis, n in enumerate(size):
        first = torch.arange(n, device=images.device)[:, None]
        apart = (torch.arange(n, device=images.device) - first) % n
        pair = images.movedim((axis, ndim + 2 + axis), (0, 1))
        images = pair[first, apart].movedim((0, 1), (axis, ndim + 2 + axis))
    return images.movedim((ndim, ndim + 1), (0, 1)).contiguous()
