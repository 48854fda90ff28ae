"""Kernels between inputs whose blocks several ranks compute.

All ranks hold the same inputs and the same vectors, and ask for the same products in the same order. Each block of the
matrix is computed by one of them.
"""

from __future__ import annotations

import itertools
import math
from functools import cached_property

import torch
from torch import Tensor

from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators.base import Operator
from torch_cntk.operators.blocks import Blocks, Place
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.inputs import InputsOperator

__all__ = ["ShardedGram"]

_BLOCKS_A_RANK = 8
"""Of a product, at least: ranks take equal numbers of blocks, so that none has more than an eighth beyond its share."""
_EXCHANGED = 1 << 21
"""Numbers (16 MB) that each rank computes before blocks are exchanged: beside the matrix little memory is needed."""


class ShardedGram(Operator):
    """The kernel of a network between n inputs, whose products and entries some ranks compute together.

    In a product each rank takes an equal number of the blocks on and above the diagonal, and uses each of them twice;
    the ranks' sums are added, in their order. A rank computes about n^2 / (2 ranks) entries, holds O(n) numbers, and
    sends 2 (ranks - 1) / ranks times the product. To gather rows that each rank computes for itself would take half of
    the traffic and twice the entries, which are what takes the time.

    All ranks get the same bits. Those of products depend on the number of ranks, to rounding, as the order of additions
    does. Those of entries, and of predictions for other inputs, do not: they are those of one process, since blocks are
    the same, and each is computed whole by one rank.

    Every rank must call the same methods in the same order with the same arguments; what differs in products, and an
    error on any rank, ends in a sentence on all of them.

    Args:
        operator: the kernel, the same on all ranks.
        mesh: the ranks.

    Raises:
        ValueError: the operator has another kind of device than the mesh.
    """

    def __init__(self, operator: GramOperator | InputsOperator, mesh: Mesh) -> None:
        if operator.device.type != mesh.device.type:
            raise ValueError(f"expected inputs on {mesh.device.type}, as the mesh is, got {operator.device}")
        super().__init__(
            operator.size,
            operator.dtype,
            operator.device,
            cost=operator.cost,
            entry_dtype=operator.entry_dtype,
            entry_cost=operator.entry_cost,
        )
        self.operator = operator
        self.mesh: Mesh = mesh
        self.kind = operator.kind

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``; each rank finds all of them."""
        return self.operator.lookup(first, second)

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [n] in float64; each rank finds all of it."""
        return self.operator.diagonal

    def undivided(self) -> Operator:
        """See ``Operator.undivided``."""
        return self.operator

    def select(self, index: Tensor) -> ShardedGram:
        """The operator between some of the inputs, by their indices [m]."""
        return ShardedGram(self.operator.select(index), self.mesh)

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between the inputs of indices [m] and those of [n], [m, n] in float64, on every rank.

        Raises:
            OutOfMemoryError: the matrix would not fit.
        """
        matrix = self._matrix(self.operator.entry_blocks(first, second), False)
        assert matrix is not None
        return matrix

    def dense(self) -> Tensor:
        """All of K, [n, n] in float64, on every rank.

        Raises:
            OutOfMemoryError: the matrix would not fit.
        """
        every = torch.arange(self.size[0], device=self.device)
        return self.entries(every, every)

    def cross(self, others: Tensor) -> Tensor:
        """K between inputs that the operator does not hold, [m, ...], and those that it does: [m, n], on every rank.

        Raises:
            ValueError: the inputs have another shape than the operator's.
            OutOfMemoryError: the matrix would not fit.
        """
        matrix = self._matrix(self.operator.cross_blocks(others), False)
        assert matrix is not None
        return matrix

    def gathered(self, others: Tensor | None, *, first: bool, progress: bool = False) -> Tensor | None:
        """All of K, or K between other inputs and these.

        Args:
            others: the other inputs, [m, ...], or None.
            first: whether rank 0 alone gets it.
            progress: whether to show a bar.

        Returns:
            [n, n] or [m, n] in float64; None on other ranks than 0 if ``first``.

        Raises:
            ValueError: the inputs have another shape than the operator's.
            OutOfMemoryError: the matrix would not fit.
        """
        if others is not None:
            return self._matrix(self.operator.cross_blocks(others, progress=progress), first)
        every = torch.arange(self.size[0], device=self.device)
        return self._matrix(self.operator.entry_blocks(every, every, progress=progress), first)

    def cross_multiply(self, others: Tensor, weights: Tensor, *, progress: bool = False) -> Tensor:
        """The regression at inputs that the operator does not hold: sum over x of K(x', x) w(x).

        Each rank takes some of the other inputs.

        Args:
            others: the other inputs x', [m, ...].
            weights: [k, n].
            progress: whether to show a bar.

        Returns:
            [k, m] in float64, on every rank.

        Raises:
            ValueError: the inputs have another shape than the operator's.
        """
        dtype = self.operator.product_dtype
        blocks = self.operator.cross_blocks(others, progress=progress)
        rows = list(dict.fromkeys((above.start, above.stop) for above, _ in blocks.places()))
        counts = [sum(stop - start for start, stop in rows[self.mesh.shares(len(rows))[r]]) for r in self._ranks]
        mine = set(rows[self.mesh.share(len(rows))])
        chosen = blocks.chosen(lambda place: (place[0].start, place[0].stop) in mine)
        with self.mesh.together("a prediction", weights):
            result = torch.zeros(len(weights), len(others), dtype=dtype, device=self.device)
            chosen.add_product(result, weights.to(dtype))
            start = sum(counts[: self.mesh.rank])
            own = result[:, start : start + counts[self.mesh.rank]].T.contiguous().flatten()
        parts = self.mesh.exchange(own, [count * len(weights) for count in counts])
        assert parts is not None
        return torch.cat([part.reshape(-1, len(weights)) for part in parts]).T.double().contiguous()

    @property
    def _ranks(self) -> range:
        return range(self.mesh.size)

    def _multiply(self, images: Tensor) -> Tensor:
        """K @ w for [k, n]."""
        size = self.mesh.size
        least = 1 if size == 1 else math.isqrt(2 * _BLOCKS_A_RANK * size)
        with self.mesh.together("a product", images):
            dtype = torch.promote_types(self.dtype, images.dtype)
            result = torch.zeros(images.shape, dtype=dtype, device=self.device)
            own = self.operator.own_blocks(least).dealt(self.mesh.rank, size)
            own.add_product(result, images.to(dtype))
        return self.mesh.sum(result).to(images.dtype)

    def _matrix(self, blocks: Blocks, first: bool) -> Tensor | None:
        """The matrix of these blocks, each of which is computed by one rank.

        Raises:
            OutOfMemoryError: it would not fit.
        """
        wanted = not first or self.mesh.rank == 0
        with self.mesh.together("the room for a matrix"):
            if wanted:
                matrix = self._empty(*blocks.shape)
        places = blocks.places()
        while batch := list(itertools.islice(places, self._blocks_a_round(blocks))):
            found = self._round(blocks, batch, first)
            for place, block in found:
                blocks.write(matrix, place, block)
        return matrix if wanted else None

    def _blocks_a_round(self, blocks: Blocks) -> int:
        """How many blocks all ranks compute before they exchange them."""
        rows, columns = next(blocks.places(), (slice(0, 1), slice(0, 1)))
        numbers = (rows.stop - rows.start) * (columns.stop - columns.start) * self._pixels
        return self.mesh.size * max(_EXCHANGED // max(numbers, 1), 1)

    def _round(self, blocks: Blocks, batch: list[Place], first: bool) -> list[tuple[Place, Tensor]]:
        """Compute some blocks, each on one rank; all of them, or nothing on ranks that do not want them."""
        size, rank = self.mesh.size, self.mesh.rank
        with self.mesh.together("entries"):
            own = [blocks.compute(place) for place in batch[rank::size]]
            flat = torch.cat([block.double().flatten() for block in own]) if own else self._empty(0, 0).flatten()
        numbers = [[_numbers(place) * self._pixels for place in batch[r::size]] for r in self._ranks]
        parts = self.mesh.exchange(flat, [sum(of_rank) for of_rank in numbers], first=first)
        found: list[tuple[Place, Tensor]] = []
        for r, part in enumerate(parts or ()):
            for place, block in zip(batch[r::size], torch.split(part, numbers[r]), strict=True):
                found.append((place, block.reshape(_shape(place) + self._output)))
        return found

    @property
    def _output(self) -> tuple[int, ...]:
        """Pixels of an entry's block; none for one number a pair."""
        return 2 * self.operator.output_size if isinstance(self.operator, InputsOperator) else ()

    @property
    def _pixels(self) -> int:
        return math.prod(self._output)

    def _empty(self, rows: int, columns: int) -> Tensor:
        require_bytes(
            8 * rows * columns * self._pixels,
            f"the kernel between {rows:,} and {columns:,} inputs",
            lambda free: "operator @ w and operator.cross_multiply do without it",
            self.device,
        )
        return torch.empty((rows, columns, *self._output), dtype=torch.float64, device=self.device)


def _shape(place: Place) -> tuple[int, int]:
    return place[0].stop - place[0].start, place[1].stop - place[1].start


def _numbers(place: Place) -> int:
    return math.prod(_shape(place))
