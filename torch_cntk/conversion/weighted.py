"""Layers with weights, as a traced model has them: modules, and functions of parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_cntk.conversion.inert import Source, source_of_module, source_of_tensors
from torch_cntk.conversion.reading import Reader, Value, options_of
from torch_cntk.conversion.rules import Rule, rule_of_module
from torch_cntk.conversion.tracing import name_of, place_of, type_of
from torch_cntk.layers import BilinearUp, Conv1d, Conv2d, Conv3d, Layer, NearestUp, Weighted

__all__ = ["WEIGHT_FUNCTIONS", "layer_of", "pointwise_linear", "scale_after", "source_of", "transposed", "weighted"]

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


def scale_after(layer: Layer, scale: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """The lengths of axes over those of the model's input, behind a layer."""
    if isinstance(layer, NearestUp | BilinearUp):
        return tuple(s * layer.scale_factor for s in scale)
    stride: Any = getattr(layer, "stride", None)
    if stride is None and layer.ndim and not isinstance(layer, Weighted):
        stride = (getattr(layer, "kernel_size", 1),) * layer.ndim
    return tuple(s / r for s, r in zip(scale, (*(stride or ()), 1, 1, 1), strict=False))


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
    if value.padding is not None and "padding" in options:
        padding = options["padding"]
        if padding != "valid" and (isinstance(padding, str) or any(_several(padding))):
            raise reader.refuse(node, name, "padded twice")
        mode, amounts = value.padding
        # What is padded are the last axes.
        missing = (0,) * ((rule.layers[0].ndim or 0) - len(amounts))
        options["padding_mode"], options["padding"] = mode, missing + amounts
        value = replace(value, padding=None)
    if rule.layers[0].ndim == 0 and reader.ndim and not value.flat:
        raise reader.refuse(
            node, name, "expected images permuted to [batch, *size, channels], or flattened (torch.nn.Flatten) before"
        )
    layer = layer_of(reader, node, name, rule, options)
    after = reader.emit(layer, reader.plain(node, value), source=source)
    return replace(after, scale=scale_after(layer, value.scale))


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


def transposed(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    """A transposed convolution of stride 1 is one with flipped filters."""
    name, half = type(module).__name__, tuple(q // 2 for q in module.kernel_size)
    if (
        any(r != 1 for r in module.stride)
        or module.padding != half
        or any(q % 2 == 0 for q in module.kernel_size)
        or any(d != 1 for d in module.dilation)
        or any(module.output_padding)
        or module.groups != 1
    ):
        raise reader.refuse(
            node, name, "upsample, then convolve (exact is only stride 1 with padding by half of an odd width)"
        )
    ndim = len(half)
    reader.own(node, name, place_of(str(node.target)), *module.parameters())
    source = source_of(reader, node, module, lambda weight: weight.transpose(0, 1).flip(tuple(range(2, ndim + 2))))
    rule = rule_of_module(getattr(_nn, f"Conv{ndim}d")(1, 1, 1, device="meta"))
    assert rule is not None
    given = {"in_channels": module.in_channels, "out_channels": module.out_channels, "padding": half}
    given |= {"kernel_size": module.kernel_size, "bias": source.bias is not None, "bias_std": reader.bias_std}
    return weighted(reader, node, name, rule, {**rule.options, **given}, value, source)


def _functional_weights(ndim: int) -> Callable[[Reader, torch.fx.Node], Value]:
    """A convolution, or a linear map, of parameters of the model's own."""
    kind: Any = getattr(_nn, f"Conv{ndim}d") if ndim else _nn.Linear
    names = ("weight", "bias", "stride", "padding", "dilation", "groups")

    def rule_step(reader: Reader, node: torch.fx.Node) -> Value:
        defaults = (None, None, 1, 0, 1, 1)
        given = options_of(reader, node, dict(zip(names[: 6 if ndim else 2], defaults, strict=False)))
        weight, bias = given.pop("weight"), given.pop("bias")
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None):
            raise reader.refuse(node, name_of(node), "expected its weights to be parameters of the model")
        reader.own(node, name_of(node), repr(node.name), weight, *(() if bias is None else (bias,)))
        rule = rule_of_module(kind(1, 1, 1, device="meta") if ndim else kind(1, 1, device="meta"))
        assert rule is not None
        out, inside, *widths = weight.shape
        sizes = {"in_channels": inside * given.get("groups", 1), "out_channels": out, "kernel_size": tuple(widths)}
        given |= sizes if ndim else {"in_features": inside, "out_features": out}
        given |= {"bias": bias is not None, "bias_std": reader.bias_std}
        value, source = reader.value(node), source_of_tensors(weight, bias)
        return weighted(reader, node, name_of(node), rule, {**rule.options, **given}, value, source)

    return rule_step


WEIGHT_FUNCTIONS: dict[Any, Callable[[Reader, torch.fx.Node], Value]] = {
    **{getattr(functional, f"conv{n}d"): _functional_weights(n) for n in (1, 2, 3)},
    **{getattr(torch, f"conv{n}d"): _functional_weights(n) for n in (1, 2, 3)},
    functional.linear: _functional_weights(0),
}
"""By function."""
