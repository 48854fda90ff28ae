"""K @ w for the kernel of a network between images, whose entries are computed as they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor

from torch_cntk._internal.checks import refuse_gradients, shape_text
from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.covariance.pairs import Evaluation, Images, Kind, Pairs
from torch_cntk.operators.base import Operator
from torch_cntk.operators.blocks import Blocks, Place, mirrored, slices

if TYPE_CHECKING:
    from torch_cntk.operators.sharded import ShardedGram

__all__ = ["InputsOperator"]

_CLOSED_FORM = 100
"""Operations of a large matrix product in float32 that take as long as a layer's rule for one number in float64."""


class InputsOperator(Operator):
    """The kernel between n images of a network that ends in no pixels; n^2 numbers are never stored.

    K is symmetric, so each block is computed once and used twice.

    Args:
        propagate: the network's rule for covariances, ``net.propagate``.
        images: [n, channels, *size], floating point.
        kind: "ntk" or "nngp".
        dtype: in which it multiplies; that of the images by default.
        entry_dtype: in which entries are computed.
        recorded: whether entries are to have gradients by the images and the options of the layers.

    Raises:
        ValueError: the images do not fit the network, or the kind is unknown.
    """

    def __init__(
        self,
        propagate: Callable[[Pairs], Pairs],
        images: Tensor,
        *,
        kind: str = "ntk",
        dtype: torch.dtype | None = None,
        entry_dtype: torch.dtype = torch.float64,
        recorded: bool = False,
    ) -> None:
        if images.ndim < 2 or images.numel() == 0:
            raise ValueError(
                f"expected images of shape [n, channels, *size], or rows [n, features], got {tuple(images.shape)}"
            )
        if kind not in get_args(Kind):
            raise ValueError(f'expected kind "ntk" or "nngp", got {kind!r}')
        self._propagate = propagate
        self._pixels = tuple(images.shape[2:])
        expression = propagate(Pairs.of_images(self._pixels))
        self._evaluation = Evaluation(expression, cast("Kind", kind), entry_dtype, recorded=recorded)
        work = _CLOSED_FORM * self._evaluation.numbers_a_pair
        super().__init__(
            (len(images),),
            dtype or images.dtype,
            images.device,
            cost=len(images) * work,
            entry_dtype=entry_dtype,
            entry_cost=2 * work,
        )
        self.kind = kind
        require_bytes(
            2 * len(images) * self._evaluation.bytes_an_image() + self._evaluation.bytes_a_block(images.device),
            f"the variances of {len(images):,} images at all layers",
            lambda free: "take fewer images at a time",
            images.device,
        )
        self._images = self._evaluation.images(images)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rule and the images: variances are computed again."""
        images = self._images.features.movedim(-1, 0).reshape(self.size[0], -1, *self._pixels)
        return _rebuilt, (self._propagate, images, self.kind, self.dtype, self.entry_dtype)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Pixels of the network's output; none where it gives one row of features an image."""
        return self._evaluation.size

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        x, y = first[0] + 0 * second[0], second[0] + 0 * first[0]
        rows, row = torch.unique(x, return_inverse=True)
        columns, column = torch.unique(y, return_inverse=True)
        return self.entries(rows, columns)[row, column]

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [n] in float64."""
        return self._evaluation.alone(self._images).double()

    def select(self, index: Tensor) -> InputsOperator:
        """The operator between some of the images, by their indices [m]."""
        chosen = copy(self)
        for name in ("diagonal", "mean_diagonal"):
            chosen.__dict__.pop(name, None)
        chosen._images = self._images.select(index)
        chosen.size = (len(index),)
        return chosen

    def __copy__(self) -> InputsOperator:
        """The same numbers: ``copy`` would compute them again by ``__reduce__``."""
        other = InputsOperator.__new__(InputsOperator)
        other.__dict__.update(self.__dict__)
        return other

    def divided(self, mesh: Mesh) -> ShardedGram:
        """Each rank computes some blocks of K; see ``Operator.divided``."""
        from torch_cntk.operators.sharded import ShardedGram

        return ShardedGram(self, mesh)

    def entries(self, first: Tensor, second: Tensor, *, progress: bool = False) -> Tensor:
        """K between the images of indices [m] and those of [n], [m, n] in float64."""
        blocks = self.entry_blocks(first, second, progress=progress)
        return blocks.fill(self.empty(len(first), len(second)))

    def dense(self, *, progress: bool = False) -> Tensor:
        """All of K, [n, n] in float64; between pixels [n, n, *size, *size]."""
        every = torch.arange(self.size[0], device=self.device)
        return self.entries(every, every, progress=progress)

    def cross(self, others: Tensor, *, progress: bool = False) -> Tensor:
        """K between images that the operator does not hold and those that it does.

        Args:
            others: the other images, [m, channels, *size].
            progress: whether to show a bar.

        Returns:
            [m, n] in float64; between pixels [m, n, *size, *size].

        Raises:
            ValueError: the images are not of this shape.
        """
        return self.cross_blocks(others, progress=progress).fill(self.empty(len(others), self.size[0]))

    @property
    def product_dtype(self) -> torch.dtype:
        """In which ``cross_multiply`` adds."""
        return torch.float64

    def cross_multiply(self, others: Tensor, weights: Tensor, *, progress: bool = False) -> Tensor:
        """The regression at images that the operator does not hold: sum over x of K(x', x) w(x).

        Args:
            others: the other images x', [m, channels, *size].
            weights: [k, n].
            progress: whether to show a bar.

        Returns:
            [k, m] in float64.

        Raises:
            ValueError: the images are not of this shape.
        """
        result = torch.zeros(len(weights), len(others), dtype=torch.float64, device=self.device)
        return self.cross_blocks(others, progress=progress).add_product(result, weights.double())

    def diagonal_of(self, others: Tensor) -> Tensor:
        """K(x', x') of images that the operator does not hold, [m] in float64."""
        return self._evaluation.alone(self._others(others)).double()

    def empty(self, rows: int, columns: int) -> Tensor:
        """A matrix of K without numbers in it."""
        shape = (rows, columns, *self.output_size, *self.output_size)
        return torch.empty(shape, dtype=torch.float64, device=self.device)

    def _others(self, others: Tensor) -> Images:
        expected = (self._images.features.shape[0], *self._pixels)
        if others.ndim < 2 or tuple(others.shape[1:]) != expected:
            raise ValueError(
                f"expected images of shape [m, {', '.join(map(str, expected))}], got {tuple(others.shape)}"
            )
        if not self._evaluation.recorded:
            refuse_gradients(others)
        return self._evaluation.images(others.to(self.device))

    def entry_blocks(self, first: Tensor, second: Tensor, *, progress: bool = False) -> Blocks:
        """The blocks of ``entries``."""
        m, n = len(first), len(second)
        symmetric = first is second or torch.equal(first, second)
        steps = self._evaluation.pairs_at_once(self.device)
        # Slices of these are views: numbers are copied once.
        ones, others = self._chosen(first), self._chosen(second)

        def block(place: Place) -> Tensor:
            above, beside = place
            equal = (first[above, None] == second[None, beside]).nonzero(as_tuple=True)
            return self._evaluation.between(ones.select(above), others.select(beside), equal=equal)

        def compute(place: Place) -> Tensor:
            above, beside = place
            if not symmetric or above != beside:
                return block(place)
            square = torch.cat([block((above, some)) for some in slices(above.start, above.stop, steps[1])], 1)
            # Rounding differs by the order of two images.
            return (square + mirrored(square)) / 2

        places = partial(_places, m, n, steps, symmetric)
        return Blocks((m, n), places, compute, symmetric, ("kernel", "pair") if progress else None)

    def _chosen(self, index: Tensor) -> Images:
        """Some of the images; themselves, without a copy, if it is all of them."""
        (n,) = self.size
        every = len(index) == n and torch.equal(index, torch.arange(n, device=index.device))
        return self._images if every else self._images.select(index)

    def cross_blocks(self, others: Tensor, *, progress: bool = False) -> Blocks:
        """Blocks of K between other images and these.

        Raises:
            ValueError: the images are not of this shape.
        """
        images = self._others(others)
        m, (n,) = len(images), self.size

        def compute(place: Place) -> Tensor:
            return self._evaluation.between(images.select(place[0]), self._images.select(place[1]))

        places = partial(_places, m, n, self._evaluation.pairs_at_once(self.device), False)
        return Blocks((m, n), places, compute, False, ("kernel", "pair") if progress else None)

    def _multiply(self, images: Tensor) -> Tensor:
        """K @ w for [k, n].

        Raises:
            ValueError: the network ends in pixels.
        """
        blocks = self.own_blocks()
        dtype = torch.promote_types(self.dtype, images.dtype)
        result = torch.zeros(images.shape, dtype=dtype, device=self.device)
        return blocks.add_product(result, images.to(dtype)).to(images.dtype)

    def own_blocks(self, least: int = 1) -> Blocks:
        """The blocks of K on and above the diagonal.

        Args:
            least: number of rows of blocks that would be welcome; blocks between images are small in any case.

        Raises:
            ValueError: the network ends in pixels.
        """
        if self.output_size:
            raise ValueError(f"expected a network that ends in no pixels, got {shape_text(self.output_size)} of them")
        every = torch.arange(self.size[0], device=self.device)
        return self.entry_blocks(every, every)

    def bytes_needed(self, rows: int, columns: int) -> int:
        """Bytes of a matrix between so many images, and of what it takes to compute it."""
        pixels = math.prod(self.output_size) ** 2
        return rows * columns * pixels * torch.float64.itemsize + self._evaluation.bytes_a_block(self.device)


def _places(m: int, n: int, steps: tuple[int, int], symmetric: bool) -> Iterator[Place]:
    """Blocks of a matrix [m, n], row by row; of a symmetric one those on and above the diagonal."""
    rows, columns = steps
    for above in slices(0, m, rows):
        if symmetric:
            yield above, above
        for beside in slices(above.stop if symmetric else 0, n, columns):
            yield above, beside


def _rebuilt(
    propagate: Callable[[Pairs], Pairs], images: Tensor, kind: str, dtype: torch.dtype, entry_dtype: torch.dtype
) -> InputsOperator:
    return InputsOperator(propagate, images, kind=kind, dtype=dtype, entry_dtype=entry_dtype)
