"""K @ w for the kernel of a network between images, whose entries are computed as they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from functools import cached_property
from typing import Any, cast, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.memory import require_bytes
from torch_cntk.covariance.pairs import Evaluation, Images, Kind, Pairs
from torch_cntk.operators.base import Operator

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

    def entries(self, first: Tensor, second: Tensor, *, progress: bool = False) -> Tensor:
        """K between the images of indices [m] and those of [n], [m, n] in float64."""
        symmetric = first is second or torch.equal(first, second)
        matrix = self._empty(len(first), len(second))
        for rows, columns, block in self._blocks(first, second, symmetric, progress):
            matrix[rows, columns] = block
            if symmetric and rows != columns:
                matrix[columns, rows] = _mirrored(block, len(self.output_size))
        return matrix

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
        images = self._others(others)
        matrix = self._empty(len(images), self.size[0])
        for above, beside, block in self._cross_blocks(images, progress):
            matrix[above, beside] = block
        return matrix

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
        images, given = self._others(others), weights.double()
        result = torch.zeros(len(weights), len(images), dtype=torch.float64, device=self.device)
        for above, beside, block in self._cross_blocks(images, progress):
            result[:, above] += given[:, beside] @ block.double().T
        return result

    def diagonal_of(self, others: Tensor) -> Tensor:
        """K(x', x') of images that the operator does not hold, [m] in float64."""
        return self._evaluation.alone(self._others(others)).double()

    def _empty(self, rows: int, columns: int) -> Tensor:
        shape = (rows, columns, *self.output_size, *self.output_size)
        return torch.empty(shape, dtype=torch.float64, device=self.device)

    def _others(self, others: Tensor) -> Images:
        expected = (self._images.features.shape[0], *self._pixels)
        if others.ndim < 2 or tuple(others.shape[1:]) != expected:
            raise ValueError(
                f"expected images of shape [m, {', '.join(map(str, expected))}], got {tuple(others.shape)}"
            )
        return self._evaluation.images(others.to(self.device))

    def _blocks(
        self, first: Tensor, second: Tensor, symmetric: bool, progress: bool
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Blocks of K between some of the images and others, those on and above the diagonal if it is symmetric."""
        m, n = len(first), len(second)
        rows, columns = self._evaluation.pairs_at_once(self.device)
        # Slices of these are views: numbers are copied once.
        ones, others = self._chosen(first), self._chosen(second)
        total = m * (m + 1) // 2 if symmetric else m * n
        with tqdm(total=total, disable=not progress, desc="kernel", unit="pair", unit_scale=True) as bar:
            for a in range(0, m, rows):
                above, start = slice(a, min(a + rows, m)), 0
                if symmetric:
                    start = above.stop
                    square = torch.cat(
                        [
                            self._block(ones, others, first, second, above, beside)
                            for beside in _slices(a, start, columns)
                        ],
                        1,
                    )
                    # Rounding differs by the order of two images.
                    yield above, above, (square + _mirrored(square, len(self.output_size))) / 2
                    bar.update(len(square) * (len(square) + 1) // 2)
                for beside in _slices(start, n, columns):
                    block = self._block(ones, others, first, second, above, beside)
                    yield above, beside, block
                    bar.update(block.shape[0] * block.shape[1])

    def _chosen(self, index: Tensor) -> Images:
        """Some of the images; themselves, without a copy, if it is all of them."""
        (n,) = self.size
        every = len(index) == n and torch.equal(index, torch.arange(n, device=index.device))
        return self._images if every else self._images.select(index)

    def _block(
        self, ones: Images, others: Images, first: Tensor, second: Tensor, above: slice, beside: slice
    ) -> Tensor:
        """K between some images and others, which may be the same, by their indices."""
        equal = (first[above, None] == second[None, beside]).nonzero(as_tuple=True)
        return self._evaluation.between(ones.select(above), others.select(beside), equal=equal)

    def _cross_blocks(self, others: Images, progress: bool) -> Iterator[tuple[slice, slice, Tensor]]:
        """Blocks of K between other images and these, with their places."""
        (n,) = self.size
        rows, columns = self._evaluation.pairs_at_once(self.device)
        with tqdm(total=len(others) * n, disable=not progress, desc="kernel", unit="pair", unit_scale=True) as bar:
            for a in range(0, len(others), rows):
                above = slice(a, a + rows)
                one = others.select(above)
                for b in range(0, n, columns):
                    beside = slice(b, b + columns)
                    other = self._images.select(beside)
                    yield above, beside, self._evaluation.between(one, other)
                    bar.update(len(one) * len(other))

    def _multiply(self, images: Tensor) -> Tensor:
        """K @ w for [k, n].

        Raises:
            ValueError: the network ends in pixels.
        """
        if self.output_size:
            raise ValueError(f"expected a network that ends in no pixels, got {shape_text(self.output_size)} of them")
        given = images.to(self.dtype)
        result = torch.zeros(images.shape, dtype=self.dtype, device=self.device)
        every = torch.arange(self.size[0], device=self.device)
        for rows, columns, block in self._blocks(every, every, True, False):
            part = block.to(self.dtype)
            result[:, rows].addmm_(given[:, columns], part.T)
            if rows != columns:
                result[:, columns].addmm_(given[:, rows], part)
        return result.to(images.dtype)

    def bytes_needed(self, rows: int, columns: int) -> int:
        """Bytes of a matrix between so many images, and of what it takes to compute it."""
        pixels = math.prod(self.output_size) ** 2
        return rows * columns * pixels * torch.float64.itemsize + self._evaluation.bytes_a_block(self.device)


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    """Cut a range into pieces."""
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def _mirrored(block: Tensor, ndim: int) -> Tensor:
    """K(x', x) of K(x, x'): images and pixels change places."""
    axes = (*range(2 + ndim, 2 + 2 * ndim), *range(2, 2 + ndim))
    return block.permute(1, 0, *axes)


def _rebuilt(
    propagate: Callable[[Pairs], Pairs], images: Tensor, kind: str, dtype: torch.dtype, entry_dtype: torch.dtype
) -> InputsOperator:
    return InputsOperator(propagate, images, kind=kind, dtype=dtype, entry_dtype=entry_dtype)
