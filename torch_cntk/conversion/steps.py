"""What each step of a traced model becomes: modules and functions of one feature map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_cntk.conversion.heads import HEADS
from torch_cntk.conversion.inert import inert
from torch_cntk.conversion.joins import JOINS
from torch_cntk.conversion.reading import Reader, Result, Value, lengths_after, options_of
from torch_cntk.conversion.rules import Rule, rule_of_function, rule_of_module
from torch_cntk.conversion.shapes import SHAPES, resized
from torch_cntk.conversion.tracing import drops_always, name_of, place_of, type_of
from torch_cntk.conversion.weighted import (
    WEIGHT_FUNCTIONS,
    layer_of,
    pointwise_linear,
    source_of,
    weighted,
)
from torch_cntk.layers import (
    Activation,
    BilinearUp,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout,
    Hardtanh,
    Identity,
    Layer,
    LeakyReLU,
    NearestUp,
    ReLU,
    Scale,
)

__all__ = ["step"]

_nn = torch.nn
_POINTWISE = (Activation, Dropout, Identity, Scale)
_CONVOLUTIONS: Mapping[int, Any] = {1: Conv1d, 2: Conv2d, 3: Conv3d}


def step(reader: Reader, node: torch.fx.Node) -> Result:
    """What a node of the graph gives.

    Raises:
        ValueError: it has no rule.
    """
    if node.op == "call_module":
        return _module(reader, node)
    if node.op == "get_attr":
        return _attribute(reader.root, str(node.target))
    function = _not_in_place(node.target)
    special = _FUNCTIONS.get(function) or HEADS.get(function) or JOINS.get(function) or SHAPES.get(function)
    if special is not None:
        return special(reader, node)
    rule = rule_of_function(function)
    if rule is None:
        raise reader.without_rule(node)
    value, options = reader.value(node), options_of(reader, node, rule.options)
    layer = layer_of(reader, node, name_of(node), rule, options)
    if isinstance(layer, Dropout) and (not reader.training or drops_always(reader.model, reader.ignore)):
        raise reader.refuse(node, "dropout", "it drops in eval mode as well: pass training=self.training")
    return emit(reader, node, value, layer)


def _not_in_place(function: Any) -> Any:
    """The function that gives what one in place does: relu for relu_."""
    name = function if isinstance(function, str) else getattr(function, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return function
    if isinstance(function, str):
        return name[:-1]
    return getattr(functional, name[:-1], None) or getattr(torch, name[:-1], function)


def _attribute(root: torch.nn.Module, name: str) -> Tensor:
    found: Any = root
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, Tensor)
    return found


def emit(reader: Reader, node: torch.fx.Node, value: Value, layer: Layer, training: bool | None = None) -> Value:
    """A layer without weights, on a value that nothing is pending for; pointwise ones may see permuted axes."""
    pointwise = isinstance(layer, _POINTWISE) and not getattr(layer, "channels", False)
    checked = value if pointwise and value.padding is None else reader.plain(node, value)
    if type(layer) is Identity:
        return checked
    flat = checked.flat or layer.flattens
    lengths = checked.lengths if pointwise or flat else lengths_after(layer, checked.lengths)
    after = replace(reader.emit(layer, checked, training=training), lengths=lengths, flat=flat)
    # In eval mode torch's dropout gives the tensor itself.
    return replace(after, memory=reader.new_memory(value)) if isinstance(layer, Dropout) else after


# Modules.


def _module(reader: Reader, node: torch.fx.Node) -> Value:
    module = reader.modules[str(node.target)]
    value = reader.value(node)
    if isinstance(module, reader.ignore):
        return value
    special = _MODULES.get(type_of(module))
    if special is not None:
        return special(reader, node, module, value)
    rule = rule_of_module(module)
    if rule is None:
        raise reader.without_rule(node)
    name = type_of(module).__name__
    options = rule.options_of_module(inert(module)) | (
        {"bias_std": reader.bias_std} if "bias_std" in rule.options else {}
    )
    if isinstance(module, _nn.Upsample):
        return upsampled(reader, node, value, rule, options)
    if "bias_std" not in rule.options:
        return emit(reader, node, value, layer_of(reader, node, name, rule, options), module.training)
    own = place_of(str(node.target))
    reader.own(node, name, own, *module.parameters())
    if isinstance(module, _nn.Linear) and value.channels_last:
        return pointwise_linear(reader, node, module, value)
    source = source_of(reader, node, module)
    return weighted(reader, node, name, rule, options, value, source)


def _batch_norm(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    """In eval mode an affine map of each channel: exact where all channels get the same factor and no offset."""
    name = type(module).__name__
    leave = f"leave it out (ignore=(torch.nn.{name},)), or normalise over channels"
    if module.training or module.running_mean is None:
        raise reader.refuse(node, name, f"statistics over the batch have no rule: {leave}")
    if any(parameter.requires_grad for parameter in module.parameters()):
        raise reader.refuse(node, name, f"its factors and offsets are trained: {leave}; or freeze them")
    if module.running_var.is_meta:
        raise reader.refuse(node, name, "expected its numbers, got the meta device")
    factor = (module.running_var.double() + module.eps).rsqrt()
    offset = torch.zeros_like(factor)
    if module.affine:
        factor, offset = factor * module.weight.detach(), module.bias.detach()
    offset = offset - module.running_mean * factor
    first = float(factor[0])
    if bool((factor - first).abs().max() > 1e-12 * abs(first)) or bool((offset != 0).any()) or first == 0:
        raise reader.refuse(
            node, name, f"its channels get different factors, or offsets, which the infinite width has not: {leave}"
        )
    return emit(reader, node, value, Scale(first))


def _norm(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    """LayerNorm over the channels of permuted images, or of a fully connected network."""
    if len(module.normalized_shape) != 1 or not (value.channels_last or reader.is_row(value)):
        raise reader.refuse(
            node, "LayerNorm", "expected one over channels, of images permuted to [batch, *size, channels]"
        )
    rule = rule_of_module(module)
    assert rule is not None
    still: Any = inert(module)
    reader.own(node, "LayerNorm", place_of(str(node.target)), *module.parameters())
    layer = layer_of(reader, node, "LayerNorm", rule, rule.options_of_module(still))
    source = source_of(reader, node, module) if module.elementwise_affine else None
    return reader.emit(layer, value, source=source, training=module.training)


def _prelu(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    if module.num_parameters != 1 or module.weight.requires_grad or module.weight.is_meta:
        raise reader.without_rule(node)
    try:
        return emit(reader, node, value, LeakyReLU(float(module.weight)))
    except ValueError as error:
        raise reader.refuse(node, "PReLU", str(error)) from None


def _rrelu(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    if module.training:
        raise reader.without_rule(node)
    return emit(reader, node, value, LeakyReLU((module.lower + module.upper) / 2))


def _random_in_training(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    if module.training and module.p > 0:
        raise reader.without_rule(node)
    return replace(value, memory=reader.new_memory(value))


def _threshold(reader: Reader, node: torch.fx.Node, module: Any, value: Value) -> Value:
    if module.threshold != 0 or module.value != 0:
        raise reader.without_rule(node)
    return emit(reader, node, value, ReLU())


def _clamped(reader: Reader, node: torch.fx.Node) -> Value:
    """Bounds on both sides of 0, or 0 as the lower one alone."""
    low, high = options_of(reader, node, {"min": None, "max": None}).values()
    if low == 0 and high is None:
        return emit(reader, node, reader.value(node), ReLU())
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise reader.refuse(node, name_of(node), "expected bounds on both sides of 0, or min=0")
    try:
        return emit(reader, node, reader.value(node), Hardtanh(low, high))
    except ValueError as error:
        raise reader.refuse(node, name_of(node), str(error)) from None


def _pad(reader: Reader, node: torch.fx.Node, mode: str, amounts: Sequence[int], value: Value) -> Value:
    """Pixels around the image, last axis first as torch has them, for the convolution that follows."""
    pairs = [tuple(amounts[k : k + 2]) for k in range(0, len(amounts), 2)]
    if any(before != after for before, after in pairs):
        raise reader.refuse(node, "padding", f"expected the same on both sides, got {tuple(amounts)}")
    plain = reader.plain(node, value)
    return replace(plain, padding=(mode, tuple(pair[0] for pair in reversed(pairs))), memory=reader.new_memory())


def upsampled(reader: Reader, node: torch.fx.Node, value: Value, rule: Rule, options: dict[str, Any]) -> Value:
    """Upsample and F.interpolate, also to the size of another feature map."""
    name = name_of(node) if node.op != "call_module" else "Upsample"
    if options["size"] is not None:
        options["size"], options["scale_factor"] = resized(reader, node, options["size"], value)
    layer = layer_of(reader, node, name, rule, options)
    if isinstance(layer, NearestUp | BilinearUp) and layer.scale_factor == 1:
        return replace(reader.plain(node, value), memory=reader.new_memory())
    return emit(reader, node, value, layer)


def _interpolate(reader: Reader, node: torch.fx.Node) -> Value:
    rule = rule_of_function(functional.interpolate)
    assert rule is not None
    return upsampled(reader, node, reader.value(node), rule, options_of(reader, node, rule.options))


def _functional_pad(reader: Reader, node: torch.fx.Node) -> Value:
    options = options_of(reader, node, {"pad": (), "mode": "constant", "value": None})
    modes = {"circular": "circular", "constant": "zeros"}
    if options["mode"] not in modes or options["value"] not in (None, 0):
        raise reader.refuse(node, f"pad with mode={options['mode']!r}", "pad circularly or with zeros")
    return _pad(reader, node, modes[options["mode"]], options["pad"], reader.value(node))


def _functional_dropout(reader: Reader, node: torch.fx.Node) -> Value:
    """Dropout of channels, or that of SELU: out of training nothing happens."""
    options = options_of(reader, node, {"p": 0.5, "training": _TRAINING_DEFAULT[name_of(node)]})
    value = reader.value(node)
    if not options["training"] or options["p"] == 0:
        return replace(value, memory=reader.new_memory(value))
    raise reader.without_rule(node)


_TRAINING_DEFAULT = {"dropout1d": True, "dropout2d": True, "dropout3d": True}
_TRAINING_DEFAULT |= {"alpha_dropout": False, "feature_alpha_dropout": False}


def _padding_module(mode: str) -> Callable[[Reader, torch.fx.Node, Any, Value], Value]:
    return lambda reader, node, module, value: _pad(reader, node, mode, module.padding, value)


_MODULES: dict[type, Callable[[Reader, torch.fx.Node, Any, Value], Value]] = {
    **{getattr(_nn, f"CircularPad{ndim}d"): _padding_module("circular") for ndim in (1, 2, 3)},
    **{getattr(_nn, f"ZeroPad{ndim}d"): _padding_module("zeros") for ndim in (1, 2, 3)},
    **{getattr(_nn, f"BatchNorm{ndim}d"): _batch_norm for ndim in (1, 2, 3)},
    _nn.LayerNorm: _norm,
    _nn.PReLU: _prelu,
    _nn.RReLU: _rrelu,
    _nn.Threshold: _threshold,
    **dict.fromkeys((_nn.AlphaDropout, _nn.FeatureAlphaDropout), _random_in_training),
}
"""Modules whose rule needs more than their options."""
_FUNCTIONS: dict[Any, Callable[[Reader, torch.fx.Node], Result]] = {
    functional.interpolate: _interpolate,
    functional.pad: _functional_pad,
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip"), _clamped),
    **{getattr(functional, name): _functional_dropout for name in _TRAINING_DEFAULT},
    **WEIGHT_FUNCTIONS,
}
