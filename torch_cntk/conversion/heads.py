"""The heads of classifiers in torch models: pooling over all pixels, and flattening."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from torch_cntk.conversion.reading import Images, Reader, Result, Value, lengths_after, options_of
from torch_cntk.conversion.rule import Call, Place, Rule, Target
from torch_cntk.conversion.tracing import name_of
from torch_cntk.layers import Flatten, GlobalAvgPool, Layer

__all__ = ["HEADS", "RULES"]

_MEAN: dict[str, Any] = {"dim": None, "keepdim": False}


def _read_flattening(given: Mapping[str, Any]) -> Layer:
    if given["start_dim"] != 1 or given["end_dim"] != -1:
        raise ValueError("expected all axes but the first to be flattened: start_dim=1, end_dim=-1")
    return Flatten()


def _read_adaptive(given: Mapping[str, Any]) -> Layer:
    size = given["output_size"]
    if set(size if isinstance(size, tuple | list) else (size,)) != {1}:
        raise ValueError(f"expected pooling to one pixel, got {size}; take average pooling of disjoint blocks")
    return GlobalAvgPool(keepdim=True)


def _read_mean(given: Mapping[str, Any]) -> Layer:
    return GlobalAvgPool(bool(given["keepdim"]))


def _write_mean(layer: GlobalAvgPool, place: Place) -> Target:
    return Call(torch.mean, (tuple(range(2, 2 + place.ndim)), layer.keepdim))


RULES: tuple[Rule, ...] = (
    Rule(
        (Flatten,),
        _read_flattening,
        lambda layer, place: nn.Flatten(),
        (nn.Flatten,),
        (torch.flatten, "flatten"),
        {"start_dim": 0, "end_dim": -1},
    ),
    Rule(
        (),
        _read_adaptive,
        None,
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d),
        {"output_size": None},
    ),
    Rule((GlobalAvgPool,), _read_mean, _write_mean, functions=(torch.mean, "mean"), options=_MEAN),
)


def _mean(reader: Reader, node: torch.fx.Node) -> Value:
    """The mean over all axes of pixels, whose number must be known."""
    options = options_of(reader, node, _MEAN)
    value, dims = reader.plain(node, reader.value(node)), options["dim"]
    if not reader.ndim or value.flat or not isinstance(dims, tuple | list | int):
        raise reader.without_rule(node)
    axes = {d % (reader.ndim + 2) for d in (dims if isinstance(dims, tuple | list) else (dims,))}
    if axes != set(range(2, 2 + reader.ndim)):
        raise reader.refuse(node, name_of(node), "expected the mean over all axes of pixels")
    layer = _read_mean(options)
    return replace(reader.emit(layer, value), flat=layer.flattens, lengths=lengths_after(layer, value.lengths))


def _reshaped(reader: Reader, node: torch.fx.Node) -> Value:
    """A flattening, as ``x.view(x.size(0), -1)``: any other shape mixes images, or axes."""
    named = reader.named(node)
    shape = node.args[1:] or (named.get("shape", named.get("size", ())),)
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    known = reader.known(shape)
    if len(known) != 2 or not isinstance(known[0], Images) or known[1] != -1:
        raise reader.without_rule(node)
    value = reader.plain(node, reader.value(node))
    memory = reader.new_memory(value)
    if value.flat:
        return replace(value, memory=memory)
    return replace(reader.emit(Flatten(), value), flat=True, memory=memory)


HEADS: dict[Any, Callable[[Reader, torch.fx.Node], Result]] = {
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.reshape, "reshape", "view"), _reshaped),
}
"""Functions whose rule needs more than their options."""
