"""Operators made of others: sums and multiples, K between some inputs, and K with its rows and columns multiplied."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, shape_text
from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators.base import Operator

__all__ = ["MultipleOperator", "ScaledOperator", "SelectedOperator", "SumOperator"]


class SumOperator(Operator):
    """The kernel A + B.

    Args:
        first: A.
        second: B.

    Raises:
        ValueError: they differ in size or device.
    """

    def __init__(self, first: Operator, second: Operator) -> None:
        if (first.size, first.device) != (second.size, second.device):
            raise ValueError(
                "expected two operators of one size and device, got "
                f"{shape_text(first.size)} on {first.device} and {shape_text(second.size)} on {second.device}"
            )
        # The sum is known as well as the worse of the two.
        worse = max((first, second), key=lambda operator: torch.finfo(operator.entry_dtype).eps)
        known = first.stationary is not None and second.stationary is not None
        bounded = first.iterations is not None and second.iterations is not None
        super().__init__(
            first.size,
            torch.promote_types(first.dtype, second.dtype),
            first.device,
            stationary=first.stationary + second.stationary if known else None,  # type: ignore[operator]
            cost=first.cost + second.cost + 1,
            entry_dtype=worse.entry_dtype,
            entry_cost=first.entry_cost + second.entry_cost + 1,
            traffic=first.traffic + second.traffic,
            iterations=max(first.iterations, second.iterations) if bounded else None,  # type: ignore[type-var]
        )
        self._first, self._second = first, second
        self.mesh = first.mesh or second.mesh

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        return self._first.lookup(first, second).double() + self._second.lookup(first, second)

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        return self._first.diagonal + self._second.diagonal

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        return self._first.entries(first, second) + self._second.entries(first, second)

    def select(self, index: Tensor) -> Operator:
        """See ``Operator.select``."""
        return SumOperator(self._first.select(index), self._second.select(index))

    def divided(self, mesh: Mesh) -> Operator:
        """See ``Operator.divided``."""
        return SumOperator(self._first.divided(mesh), self._second.divided(mesh))

    def undivided(self) -> Operator:
        """See ``Operator.undivided``."""
        return SumOperator(self._first.undivided(), self._second.undivided())

    def _multiply(self, images: Tensor) -> Tensor:
        return self._first.multiply(images).add_(self._second.multiply(images))


class MultipleOperator(Operator):
    """The kernel c A for a number c.

    Args:
        operator: A.
        factor: c.

    Raises:
        TypeError: c is no number.
        ValueError: c is not positive and finite: the multiple would not be a kernel.
    """

    def __init__(self, operator: Operator, factor: float) -> None:
        if not finite_number(factor, "the multiple of an operator") > 0:
            raise ValueError(f"expected a positive multiple of an operator, got {factor}")
        super().__init__(
            operator.size,
            operator.dtype,
            operator.device,
            stationary=None if operator.stationary is None else float(factor) * operator.stationary,
            cost=operator.cost + 1,
            entry_dtype=operator.entry_dtype,
            entry_cost=operator.entry_cost + 1,
            traffic=operator.traffic,
            iterations=operator.iterations,
        )
        self._operator, self._factor = operator, float(factor)
        self.mesh = operator.mesh

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        return self._operator.lookup(first, second).double() * self._factor

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        return self._operator.diagonal * self._factor

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        return self._operator.entries(first, second) * self._factor

    def select(self, index: Tensor) -> Operator:
        """See ``Operator.select``."""
        return MultipleOperator(self._operator.select(index), self._factor)

    def divided(self, mesh: Mesh) -> Operator:
        """See ``Operator.divided``."""
        return MultipleOperator(self._operator.divided(mesh), self._factor)

    def undivided(self) -> Operator:
        """See ``Operator.undivided``."""
        return MultipleOperator(self._operator.undivided(), self._factor)

    def _multiply(self, images: Tensor) -> Tensor:
        return self._operator.multiply(images).mul_(self._factor)


class SelectedOperator(Operator):
    """The kernel between some of the inputs of another operator; nothing is copied before it multiplies.

    Args:
        operator: K between n inputs, of size (n,).
        index: which of them, [m].
    """

    def __init__(self, operator: Operator, index: Tensor) -> None:
        share = len(index) / operator.size[0]
        super().__init__(
            (len(index),),
            operator.dtype,
            operator.device,
            cost=operator.cost * share,
            entry_dtype=operator.entry_dtype,
            entry_cost=operator.entry_cost,
            traffic=operator.traffic * share,
        )
        self._operator = operator
        self._index = index
        self.mesh = operator.mesh

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        return self._operator.lookup([self._index[first[0]]], [self._index[second[0]]])

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [m] in float64."""
        return self._operator.diagonal[self._index]

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        return self._operator.entries(self._index[first], self._index[second])

    @cached_property
    def _own(self) -> Operator:
        return self._operator.select(self._index)

    def divided(self, mesh: Mesh) -> Operator:
        """See ``Operator.divided``."""
        return SelectedOperator(self._operator.divided(mesh), self._index)

    def undivided(self) -> Operator:
        """See ``Operator.undivided``."""
        return SelectedOperator(self._operator.undivided(), self._index)

    def _multiply(self, images: Tensor) -> Tensor:
        return self._own.multiply(images)


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
            cost=operator.cost + 2,
            entry_dtype=operator.entry_dtype,
            entry_cost=operator.entry_cost + 2,
            traffic=operator.traffic,
        )
        self._operator = operator
        self.mesh = operator.mesh
        self._scale = scale.double().expand(operator.size)

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        values = self._operator.lookup(first, second)
        return values * self._scale[tuple(first)] * self._scale[tuple(second)]

    @cached_property
    def diagonal(self) -> Tensor:
        """s^2 K(x, x), [*size] in float64."""
        return self._operator.diagonal * self._scale.square()

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """S K s between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        scale = self._scale.flatten()
        return self._operator.entries(first, second) * scale[first, None] * scale[second]

    def divided(self, mesh: Mesh) -> Operator:
        """See ``Operator.divided``."""
        return ScaledOperator(self._operator.divided(mesh), self._scale)

    def undivided(self) -> Operator:
        """See ``Operator.undivided``."""
        return ScaledOperator(self._operator.undivided(), self._scale)

    def _multiply(self, images: Tensor) -> Tensor:
        scale = self._scale.to(images.dtype)
        return self._operator.multiply(images * scale) * scale
