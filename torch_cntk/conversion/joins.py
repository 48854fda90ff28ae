"""Sums, products, multiples and concatenations of a traced model's feature maps."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from torch_cntk.conversion.reading import Images, Length, Reader, Result, Value, options_of
from torch_cntk.conversion.tracing import name_of
from torch_cntk.covariance.lengths import Change
from torch_cntk.covariance.lengths import Length as Chain
from torch_cntk.layers import Scale

__all__ = ["JOINS"]

_OFFSET = "a constant offset has no rule: leave it out, or add it to the network's output"
_QUOTIENT = "quotients of feature maps have no rule: take an activation"
_SIZES = (
    "expected feature maps of one size, got some of others: repeating the pixels of one, as "
    "squeeze-and-excitation does, has no rule"
)
_FUNCTIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


def _times(reader: Reader, node: torch.fx.Node, value: Value, factor: float) -> Value:
    """A constant times a feature map."""
    if value.padding is not None:
        raise reader.refuse(node, "padding", "it must be followed by a convolution at once")
    if factor == 1:
        return replace(value, memory=reader.new_memory())
    try:
        return reader.emit(Scale(factor), value)
    except ValueError as error:
        raise reader.refuse(node, name_of(node), str(error)) from None


def _operands(reader: Reader, node: torch.fx.Node) -> tuple[Any, Any]:
    """The two arguments of a call, whatever they are."""
    named = {**dict(node.kwargs), **reader.named(node)}
    given = (*node.args[:2], *(named[name] for name in ("input", "self", "other") if name in named))
    if len(given) < 2:
        raise reader.refuse(node, name_of(node), f"expected two arguments, got {len(given)}")
    return reader.known(given[0]), reader.known(given[1])


def _added(sign: float, *, reversed_: bool = False) -> Callable[[Reader, torch.fx.Node], Result]:
    """The rule of a sum or a difference."""

    def rule(reader: Reader, node: torch.fx.Node) -> Result:
        first, second = _operands(reader, node)
        if reversed_:
            first, second = second, first
        alpha = reader.number(options_of(reader, node, {"other": None, "alpha": 1})["alpha"])
        if alpha is None:
            raise reader.refuse(node, name_of(node), "expected a number as alpha")
        for one, other, factor in ((first, second, 1.0), (second, first, sign * alpha)):
            # As the built-in sum begins.
            if isinstance(one, Value) and reader.number(other) == 0:
                return _times(reader, node, one, factor)
        if (isinstance(first, Value) and reader.is_constant(second)) or reader.is_constant(first):
            raise reader.refuse(node, name_of(node), _OFFSET)
        terms = [reader.feature_map(node, term, index) for index, term in enumerate((first, second))]
        if sign * alpha != 1:
            terms[1] = _times(reader, node, terms[1], sign * alpha)
        return _joined(reader, node, "sum", *terms)

    return rule


def _joined(reader: Reader, node: torch.fx.Node, join: Any, *values: Value, along: int | None = None) -> Value:
    """Feature maps that meet, all of them permuted or none, and of one size but for an axis."""
    if not any(reader.is_row(value) for value in values):
        axes = [axis for axis in range(reader.ndim or 3) if axis != along]
        if len({tuple(value.lengths[axis].scale for axis in axes) for value in values}) > 1:
            raise reader.refuse(node, name_of(node), _SIZES)
    if any(value.padding is not None for value in values) or len({value.channels_last for value in values}) > 1:
        values = tuple(reader.plain(node, value) for value in values)
    return reader.emit(join, *values)


def _multiplied(reader: Reader, node: torch.fx.Node) -> Result:
    first, second = _operands(reader, node)
    for one, other in ((first, second), (second, first)):
        number = reader.number(other)
        if isinstance(one, Length) and isinstance(other, int) and other > 0:
            return Length(one.axis, one.chain.then(Change(other)))
        if isinstance(one, Value) and number is not None:
            return _times(reader, node, one, number)
    if isinstance(first, Value) and isinstance(second, Value):
        return _joined(reader, node, "product", first, second)
    raise reader.refuse(node, name_of(node), _reason(first, second))


def _divided(reader: Reader, node: torch.fx.Node) -> Result:
    first, second = _operands(reader, node)
    number = reader.number(second)
    options = options_of(reader, node, {"other": None, "rounding_mode": None})
    if isinstance(first, Value) and number and options["rounding_mode"] is None:
        return _times(reader, node, first, 1 / number)
    raise reader.refuse(node, name_of(node), _reason(first, second))


def _divided_whole(reader: Reader, node: torch.fx.Node) -> Result:
    first, second = _operands(reader, node)
    if isinstance(first, Length) and isinstance(second, int) and second > 0:
        return Length(first.axis, first.chain.then(Change(1, 0, second)))
    raise reader.refuse(node, name_of(node), "expected the length of an axis over an integer")


def _negated(reader: Reader, node: torch.fx.Node) -> Result:
    return _times(reader, node, reader.value(node), -1.0)


def _reason(first: Any, second: Any) -> str:
    """Why a product or a quotient has no rule."""
    if any(isinstance(part, torch.nn.Parameter) for part in (first, second)):
        return "factors that are trained have no rule: take a constant, or freeze them into a buffer of one number"
    if isinstance(first, Value) and isinstance(second, Value):
        return _QUOTIENT
    if any(isinstance(part, Length | Images) for part in (first, second)):
        return "sizes are known as those of the input alone: to flatten, take x.flatten(1)"
    return "expected a feature map and one number: other factors belong to the data or the weights"


def _concatenated(reader: Reader, node: torch.fx.Node) -> Result:
    """Channels side by side, or images along an axis of pixels."""
    named = dict(node.kwargs)
    parts = node.args[0] if node.args else named.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else named.get("dim", named.get("axis", 0))
    if not isinstance(parts, tuple | list) or not isinstance(dim, int):
        raise reader.refuse(node, "cat", f"expected a list of feature maps and dim=1, got dim={dim}")
    values = [reader.feature_map(node, part, index) for index, part in enumerate(parts)]
    axis = _axis(reader, node, values, dim)
    if len(values) == 1:
        return replace(values[0], memory=reader.new_memory())
    if axis == 1:
        return _joined(reader, node, "concat", *values)
    along = axis - 2
    joined = _joined(reader, node, f"concat:{axis}", *values, along=along)
    lengths = list(joined.lengths)
    lengths[along] = Chain(parts=tuple(value.lengths[along] for value in values))
    return replace(joined, lengths=tuple(lengths))


def _axis(reader: Reader, node: torch.fx.Node, values: list[Value], dim: int) -> int:
    """Of images [batch, channels, *size], the axis that a concatenation goes along.

    Raises:
        NoRuleError: it is that of the batch, there is no such axis, or nobody knows which one it is.
    """
    last = any(value.channels_last for value in values)
    count = 2 if any(reader.is_row(value) for value in values) else reader.ndim and reader.ndim + 2
    if last and dim == -1:
        return 1
    if count is None and (dim < 0 or last):
        raise reader.refuse(
            node,
            "cat",
            f"how many axes there are is not known before the first convolution: expected dim=1, got {dim=}",
        )
    axis = dim + (count or 0) if dim < 0 else dim
    if not 1 <= axis < (count or 5):
        raise reader.refuse(
            node, "cat", f"expected a list of feature maps and dim=1 (channels) or one of pixels, got {dim=}"
        )
    return (1 if axis + 1 == count else axis + 1) if last else axis


JOINS: dict[Any, Callable[[Reader, torch.fx.Node], Result]] = {
    **dict.fromkeys(_FUNCTIONS, _added(1.0)),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_"), _added(-1.0)),
    **dict.fromkeys((torch.rsub, "rsub"), _added(-1.0, reversed_=True)),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"), _multiplied),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_"), _divided),
    **dict.fromkeys((operator.floordiv, operator.ifloordiv), _divided_whole),
    **dict.fromkeys((operator.neg, torch.neg, "neg", "neg_"), _negated),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _concatenated),
}
"""By function, or name of a method."""
