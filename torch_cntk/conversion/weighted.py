"""Layers with weights, as a traced model has them: modules, and functions of parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_cntk.conversion.inert import Source, source_of_module, source_of_tensors
from torch_cntk.conversion.reading import Reader, Value, lengths_after, options_of
from torch_cntk.conversion.rules import Rule, rule_of_module
from torch_cntk.conversion.tracing import name_of, type_of
from torch_cntk.layers import Conv1d, Conv2d, Conv3d, Layer

__all__ = ["WEIGHT_FUNCTIONS", "layer_of", "pointwise_linear", "source_of", "weighted"]

_nn = torch.nn
_CONVOLUTIONS: Mapping[int, Any] = {1: Conv1d, 2: Conv2d, 3: Conv3d}


def layer_of(reader: Reader, node: torch.fx.Node, name: str, rule: Rule, options: Mapping[str, Any]) -> Layer:
    """The layer by a rule of the table.

    Raises:
        ValueError: the options have no rule.
    """
    # Fresh weights would be drawn from the global generator, for nothing if the model's are mapped.
    with torch.device("meta") if reader.weights and "bias_std" in rule.options else nullcontext():
        try:
            return rule.read(options)
        except (TypeError, ValueError) as error:
            raise reader.refuse(node, name, str(error)) from None


def source_of(
    reader: Reader, node: torch.fx.Node, module: Any, reshape: Callable[[Tensor], Tensor] | None = None
) -> Source:
    """The weights of a module.

    Args:
        reader: of the model.
        node: that calls it.
        module: with a weight, and a bias or None.
        reshape: its weight to that of our layer.

    Raises:
        NoRuleError: they change from one forward pass to the next.
    """
    try:
        return (source_of_module(module) if reshape is None else source_of_module(module, reshape))[0]
    except ValueError as error:
        raise reader.refuse(node, type_of(module).__name__, str(error)) from None


def weighted(
    reader: Reader,
    node: torch.fx.Node,
    name: str,
    rule: Rule,
    options: dict[str, Any],
    value: Value,
    source: Source,
) -> Value:
    """A layer with weights, with what was padded before it."""
    if value.padding is not None and "output_padding" in options:
        raise reader.refuse(node, name, "expected no padding before a transposed convolution: leave it out")
    if value.padding is not None and "padding" in options:
        options |= _padded(reader, node, name, rule.layers[0].ndim or 0, value.padding, options)
        value = replace(value, padding=None)
    if rule.layers[0].ndim == 0 and reader.ndim and not value.flat:
        raise reader.refuse(
            node, name, "expected images permuted to [batch, *size, channels], or flattened (torch.nn.Flatten) before"
        )
    layer = layer_of(reader, node, name, rule, options)
    after = reader.emit(layer, reader.plain(node, value), source=source)
    return after if layer.ndim == 0 else replace(after, lengths=lengths_after(layer, value.lengths))


def _padded(
    reader: Reader,
    node: torch.fx.Node,
    name: str,
    ndim: int,
    before: tuple[str, tuple[int, ...]],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The padding of a convolution together with what was padded before: zeros and zeros are more zeros."""
    mode, amounts = before
    # What is padded are the last axes.
    amounts = (0,) * (ndim - len(amounts)) + amounts
    own = options["padding"]
    own = (0,) * ndim if own == "valid" else own
    if isinstance(own, str) or (any(_several(own)) and not mode == options["padding_mode"] == "zeros"):
        raise reader.refuse(node, name, "padded twice")
    own = _several(own) * (ndim if len(_several(own)) == 1 else 1)
    return {"padding_mode": mode, "padding": tuple(a + b for a, b in zip(amounts, own, strict=True))}


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def pointwise_linear(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    """A linear map of the channels of permuted images: a convolution of width 1."""
    if reader.ndim is None:
        raise reader.refuse(node, "Linear", "expected a convolution before it, which tells the number of axes")
    ones = (1,) * reader.ndim
    source = source_of(reader, node, module, lambda weight: weight.reshape(*weight.shape, *ones))
    with torch.device("meta") if reader.weights else nullcontext():
        layer = _CONVOLUTIONS[reader.ndim](
            module.in_features, module.out_features, 1, bias=source.bias is not None, bias_std=reader.bias_std
        )
    return reader.emit(layer, value, source=source)


def _functional_weights(kind: str, ndim: int) -> Callable[[Reader, torch.fx.Node], Value]:
    """A convolution, a transposed one or a linear map, of parameters of the model's own."""
    module: Any = getattr(_nn, f"{kind}{ndim}d") if ndim else _nn.Linear
    defaults = {"weight": None, "bias": None} | (_OPTIONS[kind] if ndim else {})

    def rule_step(reader: Reader, node: torch.fx.Node) -> Value:
        given = options_of(reader, node, defaults)
        weight, bias = given.pop("weight"), given.pop("bias")
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
            raise reader.refuse(node, name_of(node), "expected its weights to be parameters of the model")
        reader.own(node, name_of(node), repr(node.name), weight, *(() if bias is None else (bias,)))
        rule = rule_of_module(module(1, 1, 1, device="meta") if ndim else module(1, 1, device="meta"))
        assert rule is not None
        first, second, *widths = weight.shape
        second *= given.get("groups", 1)
        out, inside = (second, first) if kind == "ConvTranspose" else (first, second)
        sizes = {"in_channels": inside, "out_channels": out, "kernel_size": tuple(widths)}
        given |= sizes if ndim else {"in_features": inside, "out_features": out}
        given |= {"bias": bias is not None, "bias_std": reader.bias_std}
        value, source = reader.value(node), source_of_tensors(weight, bias)
        return weighted(reader, node, name_of(node), rule, {**rule.options, **given}, value, source)

    return rule_step


_OPTIONS: dict[str, dict[str, Any]] = {
    "Conv": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    "ConvTranspose": {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1},
}
WEIGHT_FUNCTIONS: dict[Any, Callable[[Reader, torch.fx.Node], Value]] = {
    **{getattr(space, f"conv{n}d"): _functional_weights("Conv", n) for n in (1, 2, 3) for space in (functional, torch)},
    **{
        getattr(space, f"conv_transpose{n}d"): _functional_weights("ConvTranspose", n)
        for n in (1, 2, 3)
        for space in (functional, torch)
    },
    functional.linear: _functional_weights("Linear", 0),
}
"""By function."""
