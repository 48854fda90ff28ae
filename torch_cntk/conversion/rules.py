"""What torch.nn has for each of our layers: one table, read both ways.

From torch, a rule reads the options of a module or of a call and gives our layer, or says what it expects. To torch, it
writes a module, or a call of a function where torch.nn has none. Whoever reads a model looks after what is not a matter
of one layer: padding that was put around the image before, permuted axes, weights, layers that stand in two places.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import parametrize

from torch_cntk.conversion import heads
from torch_cntk.conversion.filters import FILTERS, blank, with_weights
from torch_cntk.conversion.rule import Call, Place, Rule, Target
from torch_cntk.layers import (
    RBF,
    ABReLU,
    Activation,
    BilinearUp,
    ChannelNorm,
    Concat,
    Dropout,
    Elementwise,
    Gaussian,
    GaussianBlur,
    Graph,
    Identity,
    LanczosDown,
    Layer,
    Linear,
    Logistic,
    MultipleOf,
    NearestUp,
    Product,
    Residual,
    Scale,
    SelfAttention,
    Sequential,
    Sigmoid,
    Step,
    Sum,
    SumPool1d,
)
from torch_cntk.layers.registry import ACTIVATIONS, NamedActivation

__all__ = [
    "NO_COUNTERPART",
    "RULES",
    "Call",
    "Place",
    "Rule",
    "Target",
    "rule_for",
    "rule_of_function",
    "rule_of_module",
]

_nn = torch.nn

# Fully connected layers.

_LINEAR: dict[str, Any] = {"in_features": None, "out_features": None, "bias": True, "bias_std": 1.0}


def _read_linear(given: Mapping[str, Any]) -> Layer:
    return Linear(given["in_features"], given["out_features"], bias=given["bias"], bias_std=given["bias_std"])


def _write_linear(layer: Linear, place: Place) -> Target:
    module = blank(_nn.Linear, layer.in_features, layer.out_features, bias=layer.bias is not None)
    return with_weights(module, layer, place)


# Activations.


def _activation(entry: NamedActivation) -> Rule:
    def read(given: Mapping[str, Any]) -> Layer:
        for name, value in entry.fixed.items():
            if given[name] != value:
                raise ValueError(f"expected {name}={value!r}, got {given[name]!r}")
        return entry.layer(**{name: given[name] for name in entry.options})

    def write(layer: Activation, place: Place) -> Target:
        options = {name: getattr(layer, name) for name in entry.options}
        # What the description says beyond the default has to have a counterpart; the gain goes into the weights.
        if others := layer.description().keys() - {"layer", "normalise", *entry.options}:
            raise ValueError(f"torch.nn has no {layer}: expected the default of {', '.join(sorted(others))}")
        if entry.module is not None:
            return entry.module(**options)
        function = entry.functions[0]
        assert callable(function)
        return Call(function)

    if entry.module is None:
        return Rule((entry.layer,), read, write, (), entry.functions)
    parameters = inspect.signature(entry.module).parameters
    defaults = {name: parameters[name].default for name in (*entry.options, *entry.fixed)}
    return Rule((entry.layer,), read, write, (entry.module,), entry.functions, defaults)


# Everything else.


def _read_upsampling(given: Mapping[str, Any]) -> Layer:
    factor, mode = given["scale_factor"], given["mode"]
    factors = set(factor) if isinstance(factor, tuple | list) else {factor}
    if given["size"] is not None or None in factors:
        raise ValueError("expected scale_factor, as a kernel may serve many sizes, got size")
    (scale, *others) = factors
    if others or int(scale) != scale:
        raise ValueError(f"expected one integer as scale_factor, got {factor}")
    if given["antialias"]:
        raise ValueError("expected antialias=False")
    if mode in ("nearest", "nearest-exact"):
        return NearestUp(int(scale))
    if mode not in ("linear", "bilinear", "trilinear"):
        raise ValueError(f"mode={mode!r}: take nearest or bilinear")
    return (
        BilinearUp(int(scale), align_corners=True)
        if given["align_corners"]
        else BilinearUp(int(scale), padding_mode="border")
    )


def _write_upsampling(layer: NearestUp | BilinearUp, place: Place) -> Target:
    if isinstance(layer, NearestUp):
        return _nn.Upsample(scale_factor=layer.scale_factor, mode="nearest")
    if not layer.align_corners and layer.padding_mode == "circular":
        raise ValueError(f'torch.nn has no circular {layer}: expected one with padding_mode="border" or nearest')
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[place.ndim]
    return _nn.Upsample(scale_factor=layer.scale_factor, mode=mode, align_corners=layer.align_corners)


def _read_norm(given: Mapping[str, Any]) -> Layer:
    if len(given["normalized_shape"]) != 1:
        raise ValueError("expected one over channels, of images permuted to [batch, *size, channels]")
    if given["elementwise_affine"] and not given["bias"]:
        raise ValueError("expected scale and offset, or neither")
    (channels,) = given["normalized_shape"]
    return ChannelNorm(channels, eps=given["eps"], affine=given["elementwise_affine"])


def _write_norm(layer: ChannelNorm, place: Place) -> Target:
    channels = layer.in_channels or place.channels
    if channels is None:
        raise ValueError(f"expected the channels of {layer} to be known: give them, or put it behind a convolution")
    # sqrt((scale x)^2 + eps) = scale sqrt(x^2 + eps / scale^2).
    norm = _nn.LayerNorm(channels, eps=layer.eps / place.scale**2, elementwise_affine=layer.affine)
    if layer.scale is not None and layer.offset is not None:
        norm = norm.to(dtype=layer.scale.dtype, device=layer.scale.device)
        with torch.no_grad():
            norm.weight.copy_(layer.scale)
            norm.bias.copy_(layer.offset)
    return norm


_UPSAMPLE: dict[str, Any] = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": None}
_UPSAMPLE |= {"recompute_scale_factor": None, "antialias": False}
_NORM: dict[str, Any] = {"normalized_shape": None, "eps": 1e-5, "elementwise_affine": True, "bias": True}


_DROPOUT = Rule(
    (Dropout,),
    lambda given: Dropout(given["p"]) if given["training"] else Identity(),
    lambda layer, place: _of_channels[place.ndim](layer.p) if layer.channels else _nn.Dropout(layer.p),
    (_nn.Dropout,),
    (functional.dropout,),
    {"p": 0.5, "training": True},
)
_of_channels: dict[int, Any] = {1: _nn.Dropout1d, 2: _nn.Dropout2d, 3: _nn.Dropout3d}


def _dropout_of_channels(module: type[_nn.Module]) -> Rule:
    return Rule((), lambda given: Dropout(given["p"], channels=True), None, (module,), options={"p": 0.5})


RULES: tuple[Rule, ...] = (
    *heads.RULES,
    *FILTERS,
    Rule((Linear,), _read_linear, _write_linear, (_nn.Linear,), options=_LINEAR),
    *(_activation(entry) for entry in ACTIVATIONS.values() if entry.module or entry.functions),
    # Of two rules for one module the first one holds.
    Rule((Elementwise,), lambda given: Elementwise(given["function"]), lambda layer, place: Call(layer.function)),
    Rule(
        (NearestUp, BilinearUp),
        _read_upsampling,
        _write_upsampling,
        (_nn.Upsample, _nn.UpsamplingNearest2d, _nn.UpsamplingBilinear2d),
        (functional.interpolate,),
        _UPSAMPLE,
    ),
    Rule((ChannelNorm,), _read_norm, _write_norm, (_nn.LayerNorm,), options=_NORM),
    _DROPOUT,
    *(_dropout_of_channels(module) for module in (_nn.Dropout1d, _nn.Dropout2d, _nn.Dropout3d)),
    # Smooth functions without a layer of their own.
    *(
        Rule((), lambda given, f=function: Elementwise(f), None, (module,), (function,))  # type: ignore[misc]
        for module, function in (
            (_nn.LogSigmoid, functional.logsigmoid),
            (_nn.Tanhshrink, functional.tanhshrink),
        )
    ),
    # A head, as it stands; whoever reads the whole model makes an activation of those that are none.
    Rule(
        (Sigmoid, Logistic),
        lambda given: Sigmoid(),
        lambda layer, place: _nn.Sigmoid(),
        (_nn.Sigmoid,),
        (torch.sigmoid, functional.sigmoid, "sigmoid"),
    ),
    Rule(
        (Scale,),
        lambda given: Scale(given["other"]),
        lambda layer, place: Call(operator.mul, (layer.factor,)),
        functions=(operator.mul, torch.mul, "mul"),
        options={"other": None},
    ),
    # What is refused here is not in torch's network.
    Rule((Identity, MultipleOf), lambda given: Identity(), lambda layer, place: _nn.Identity(), (_nn.Identity,)),
)
NO_COUNTERPART: Mapping[type[Layer], str] = {
    ABReLU: "torch.nn has no rectifier of two slopes: take LeakyReLU",
    RBF: "torch.nn has no cosine features: take Sin",
    Gaussian: "torch.nn has no Gaussian function: take Tanh",
    SumPool1d: "torch.nn.AvgPool1d has no divisor_override: take AvgPool1d and Scale",
    SelfAttention: "torch.nn.MultiheadAttention divides by the root of d and does not tie queries to keys",
    Step: "torch.nn has no step: take Sign",
    GaussianBlur: "torch.nn has no layer with a fixed filter",
    LanczosDown: "torch.nn has no layer with a fixed filter",
    Sequential: "its nodes are converted one by one",
    Sum: "its nodes are converted one by one",
    Product: "its nodes are converted one by one",
    Residual: "its nodes are converted one by one",
    Concat: "its nodes are converted one by one",
    Graph: "its nodes are converted one by one",
}
"""Why other layers have no rule."""

_BY_LAYER = {layer: rule for rule in RULES for layer in rule.layers}
_BY_MODULE = {module: rule for rule in reversed(RULES) for module in rule.modules}
_BY_FUNCTION = {function: rule for rule in reversed(RULES) for function in rule.functions}


def rule_for(layer: Layer) -> Rule | None:
    """The rule of a layer of ours, or of the class that it refines."""
    return next((_BY_LAYER[cls] for cls in type(layer).__mro__ if cls in _BY_LAYER), None)


def rule_of_module(module: _nn.Module) -> Rule | None:
    """The rule of a module of torch.nn; of a class of its own there is none."""
    return _BY_MODULE.get(parametrize.type_before_parametrizations(module))


def rule_of_function(function: Callable[..., Any] | str) -> Rule | None:
    """The rule of a function of torch's, or of a method of tensors by its name."""
    return _BY_FUNCTION.get(function)
