"""K @ w for the kernel of a fully connected network, whose entries are computed as they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, refuse_gradients
from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.covariance import Gram
from torch_cntk.operators.base import Operator
from torch_cntk.operators.blocks import Blocks, Place, slices, triangle

if TYPE_CHECKING:
    from torch_cntk.operators.sharded import ShardedGram

__all__ = ["GramOperator"]

_BLOCK_ENTRIES = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Entries of K that exist at a time. On a CPU the block and its temporaries stay in the cache; a GPU wants work."""

_CLOSED_FORM = 100
"""Operations that the closed form of an entry is worth, beside the products of the features."""


class GramOperator(Operator):
    """The kernel between n inputs of a fully connected network; n^2 numbers are never stored.

    Entries are computed in float64 whatever the operator multiplies in: the angle between two similar inputs has
    only half of a number's digits. K is symmetric, so each block is computed once and used twice.

    Args:
        propagate: the network's rule for covariances, ``net.propagate``.
        features: [n, p], one input a row, floating point.
        kind: "ntk" or "nngp".
        white: added to the variance of each input, as by a block of the identity matrix, divided by p, behind the
            features.
        dtype: in which it multiplies; that of the features by default. Images of a wider one are multiplied in theirs,
            so that residuals of an iteration in float32 are those of float64: entries take the time.

    Raises:
        ValueError: the features are not [n, p] with entries, the kind is unknown, or ``white`` is negative.
    """

    def __init__(
        self,
        propagate: Callable[[Gram], Gram],
        features: Tensor,
        *,
        kind: str = "ntk",
        white: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        if features.ndim != 2 or features.numel() == 0:
            raise ValueError(f"expected features of shape [inputs, features], got {tuple(features.shape)}")
        if kind not in ("ntk", "nngp"):
            raise ValueError(f'expected kind "ntk" or "nngp", got {kind!r}')
        count, width = features.shape
        super().__init__(
            (count,),
            dtype or features.dtype,
            features.device,
            cost=count * (width + _CLOSED_FORM),
            entry_dtype=torch.float64,
            entry_cost=2 * (width + _CLOSED_FORM),
        )
        self.kind = kind
        self.white = finite_number(white, "white", minimum=0)
        self._propagate = propagate
        self._features = self._scaled(features.detach())
        self._variance = self._variance_of(self._features)

    @staticmethod
    def _scaled(features: Tensor) -> Tensor:
        # Sigma_0 is a mean over the features, as for images it is one over the channels.
        return features.double() / math.sqrt(features.shape[1])

    def _variance_of(self, scaled: Tensor) -> Tensor:
        return scaled.square().sum(1) + self.white

    def _value(self, gram: Gram) -> Tensor:
        if self.kind == "nngp":
            return gram.sigma
        return torch.zeros_like(gram.sigma) if gram.theta is None else gram.theta

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        x, y = first[0], second[0]
        products = (self._features[x] * self._features[y]).sum(-1)
        sigma = torch.where(x == y, self._variance[x], products)
        same = (x == y).expand(sigma.shape).nonzero(as_tuple=True)
        return self._value(self._propagate(Gram(sigma, None, self._variance[x], self._variance[y], same)))

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [n] in float64."""
        return self._value(self._propagate(Gram.diagonal(self._variance)))

    def select(self, index: Tensor) -> GramOperator:
        """The operator between some of the inputs, by their indices [m]."""
        chosen = copy(self)
        for name in ("diagonal", "mean_diagonal"):
            chosen.__dict__.pop(name, None)
        chosen._features, chosen._variance = self._features[index], self._variance[index]
        chosen.size = (len(index),)
        return chosen

    def divided(self, mesh: Mesh) -> ShardedGram:
        """Each rank computes some blocks of K; see ``Operator.divided``."""
        from torch_cntk.operators.sharded import ShardedGram

        return ShardedGram(self, mesh)

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between the inputs of indices [m] and those of [n], [m, n] in float64.

        Raises:
            OutOfMemoryError: the matrix would not fit.
        """
        self._require_room(len(first), len(second))
        matrix = torch.empty(len(first), len(second), dtype=torch.float64, device=self.device)
        return self.entry_blocks(first, second).fill(matrix)

    def entry_blocks(self, first: Tensor, second: Tensor, *, progress: bool = False) -> Blocks:
        """The blocks of ``entries``."""
        m, n = len(first), len(second)
        symmetric = first is second or torch.equal(first, second)
        rows, columns = self._steps(m, n, symmetric)

        def compute(place: Place) -> Tensor:
            return self._block(first[place[0]], second[place[1]])

        places = partial(triangle, m, rows) if symmetric else partial(_grid, m, n, rows, columns)
        return Blocks((m, n), places, compute, symmetric)

    def dense(self) -> Tensor:
        """All of K, [n, n] in float64.

        Raises:
            OutOfMemoryError: the matrix would not fit.
        """
        every = torch.arange(self.size[0], device=self.device)
        return self.entries(every, every)

    def _require_room(self, m: int, n: int) -> None:
        """Refuse a matrix of entries that would not fit.

        Raises:
            OutOfMemoryError: so it is.
        """
        require_bytes(
            8 * m * n,
            f"the kernel between {m:,} and {n:,} inputs",
            lambda free: "operator @ w and operator.cross_multiply do without it",
            self.device,
        )

    def _steps(self, m: int, n: int, symmetric: bool) -> tuple[int, int]:
        """Rows and columns of a block: wide rather than square, or square where blocks are mirrored."""
        entries = _BLOCK_ENTRIES.get(self.device.type, _BLOCK_ENTRIES["cuda"])
        side = math.isqrt(entries)
        if symmetric:
            return side, side
        rows = max(1, min(m, side))
        return rows, max(1, min(n, entries // rows))

    def _block(self, first: Tensor, second: Tensor) -> Tensor:
        sigma = self._features[first] @ self._features[second].T
        variance, other = self._variance[first, None], self._variance[None, second]
        same: tuple[Tensor, ...] | None = None
        if int(first.max()) >= int(second.min()) and int(second.max()) >= int(first.min()):
            # An input with itself: exactly its variance, which rounding might miss, and with its own white noise.
            equal = first[:, None] == second
            sigma, same = torch.where(equal, variance, sigma), equal.nonzero(as_tuple=True)
        return self._value(self._propagate(Gram(sigma, None, variance, other, same)))

    def _multiply(self, images: Tensor) -> Tensor:
        """K @ w for [k, n]."""
        dtype = torch.promote_types(self.dtype, images.dtype)
        result = torch.zeros(images.shape, dtype=dtype, device=self.device)
        return self.own_blocks().add_product(result, images.to(dtype)).to(images.dtype)

    def own_blocks(self, least: int = 1) -> Blocks:
        """The blocks of K on and above the diagonal.

        Args:
            least: number of rows of blocks that there shall be at least, if there are as many inputs.
        """
        (n,) = self.size
        side = max(1, min(self._steps(n, n, True)[0], -(-n // least)))
        return Blocks((n, n), partial(triangle, n, side), self._slice_block, True)

    def _slice_block(self, place: Place) -> Tensor:
        """A block between neighbouring inputs, without a copy of their features."""
        first, second = place
        sigma = self._features[first] @ self._features[second].T
        same: tuple[Tensor, ...] | None = None
        if first == second:
            sigma.diagonal().copy_(self._variance[first])
            same = (torch.arange(len(sigma), device=sigma.device),) * 2
        variance, other = self._variance[first, None], self._variance[None, second]
        return self._value(self._propagate(Gram(sigma, None, variance, other, same)))

    def cross(self, others: Tensor) -> Tensor:
        """K between inputs that the operator does not hold and those that it does.

        Args:
            others: features of the other inputs, [m, p].

        Returns:
            [m, n] in float64.

        Raises:
            ValueError: the features are not [m, p].
            OutOfMemoryError: the matrix would not fit.
        """
        self._require_room(len(others), *self.size)
        matrix = torch.empty(len(others), *self.size, dtype=torch.float64, device=self.device)
        return self.cross_blocks(others).fill(matrix)

    @property
    def product_dtype(self) -> torch.dtype:
        """In which ``cross_multiply`` adds."""
        return self.dtype

    def cross_multiply(self, others: Tensor, weights: Tensor, *, progress: bool = False) -> Tensor:
        """The regression at inputs that the operator does not hold: sum over x of K(x', x) w(x).

        Args:
            others: features of the other inputs x', [m, p].
            weights: [k, n].
            progress: whether to show a bar.

        Returns:
            [k, m] in float64.

        Raises:
            ValueError: the features are not [m, p].
        """
        result = torch.zeros(len(weights), len(others), dtype=self.dtype, device=self.device)
        return self.cross_blocks(others, progress=progress).add_product(result, weights.to(self.dtype)).double()

    def cross_blocks(self, others: Tensor, *, progress: bool = False) -> Blocks:
        """Blocks of K between other inputs and these.

        Raises:
            ValueError: the features are not [m, p], or require gradients.
        """
        if others.ndim != 2 or others.shape[1] != self._features.shape[1]:
            raise ValueError(
                f"expected features of shape [inputs, {self._features.shape[1]}], got {tuple(others.shape)}"
            )
        refuse_gradients(others)
        scaled = self._scaled(others.detach().to(self.device))
        variance = self._variance_of(scaled)
        m, (n,) = len(others), self.size

        def compute(place: Place) -> Tensor:
            above, beside = place
            sigma = scaled[above] @ self._features[beside].T
            gram = Gram(sigma, None, variance[above, None], self._variance[None, beside])
            return self._value(self._propagate(gram))

        places = partial(_grid, m, n, *self._steps(m, n, False))
        return Blocks((m, n), places, compute, False, ("prediction", "entry") if progress else None)


def _grid(m: int, n: int, rows: int, columns: int) -> Iterator[Place]:
    """All blocks of a matrix [m, n], row by row."""
    for above in slices(0, m, rows):
        for beside in slices(0, n, columns):
            yield above, beside
