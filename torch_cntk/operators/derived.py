"""Operators made of others: K between some of the inputs, and K with its rows and columns multiplied."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from torch_cntk.operators.base import DenseOperator, Operator
from torch_cntk.operators.gram import GramOperator

__all__ = ["ScaledOperator", "SelectedOperator"]


class SelectedOperator(Operator):
    """The kernel between some of the inputs of another operator; nothing is copied before it multiplies.

    Args:
        operator: K between n inputs, of size (n,).
        index: which of them, [m].
    """

    def __init__(self, operator: Operator, index: Tensor) -> None:
        super().__init__(
            (len(index),),
            operator.dtype,
            operator.device,
            lambda first, second: operator._lookup([index[first[0]]], [index[second[0]]]),
            cost=operator.cost * len(index) / operator.size[0],
            entry_dtype=operator.entry_dtype,
        )
        self._operator = operator
        self._index = index

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [m] in float64."""
        return self._operator.diagonal[self._index]

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        return self._operator.entries(self._index[first], self._index[second])

    @cached_property
    def _own(self) -> Operator:
        if isinstance(self._operator, GramOperator):
            return self._operator.select(self._index)
        return DenseOperator(self._operator.entries(self._index, self._index))

    def _multiply(self, images: Tensor) -> Tensor:
        return self._own @ images


class ScaledOperator(Operator):
    """The kernel s(x) K(x, x') s(x').

    Weighted kernel regression, with an error at x that counts s(x)^2 times, is a plain one with this kernel and with
    targets s(x) y(x); its weights are s(x) times those found.

    Args:
        operator: K.
        scale: s, broadcasts against the operator's size.
    """

    def __init__(self, operator: Operator, scale: Tensor) -> None:
        super().__init__(
            operator.size,
            operator.dtype,
            operator.device,
            self._pairs,
            cost=operator.cost + 2,
            entry_dtype=operator.entry_dtype,
        )
        self._operator = operator
        self._scale = scale.double().expand(operator.size)

    def _pairs(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Lookup``."""
        values = self._operator._lookup(first, second)
        return values * self._scale[tuple(first)] * self._scale[tuple(second)]

    @cached_property
    def diagonal(self) -> Tensor:
        """s^2 K(x, x), [*size] in float64."""
        return self._operator.diagonal * self._scale.square()

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """S K s between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        scale = self._scale.flatten()
        return self._operator.entries(first, second) * scale[first, None] * scale[second]

    def _multiply(self, images: Tensor) -> Tensor:
        scale = self._scale.to(images.dtype)
        return (self._operator @ (images * scale)) * scale
