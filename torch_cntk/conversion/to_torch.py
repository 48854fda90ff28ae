"""Networks of torch_cntk as plain torch.nn modules."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.options import options_of
from torch_cntk.conversion.rules import NO_COUNTERPART, Call, Place, Target, rule_for
from torch_cntk.conversion.scales import Scales
from torch_cntk.layers import ChannelNorm, Layer, Node, Weighted, from_description
from torch_cntk.layers.graph import assemble
from torch_cntk.layers.joins import JOINS
from torch_cntk.layers.network import channels_of, flatten
from torch_cntk.layers.spatial import Spatial

__all__ = ["to_torch", "with_width"]


def to_torch(net: Layer, width: int | None = None) -> torch.nn.Module:
    """A plain torch.nn module with the same function, or a wider one of the same shape.

    Args:
        net: the network.
        width: channels of the widest hidden layer of the module, the others in proportion; its weights are drawn anew
            then. By default the network's own channels and weights.

    Returns:
        a ``torch.nn.Sequential`` or, if the network branches, a ``torch.fx.GraphModule``, in the network's mode.
        Nothing of torch_cntk is needed to run it.

    Raises:
        TypeError: the width is no integer.
        ValueError: torch.nn has no such layer, the gain of a normalised activation has no weight layer to go into, or
            the network has forward hooks, such as the batch normalisation that training has added.

    Example:
        >>> import torch_cntk as tc
        >>> tc.to_torch(tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Linear(8, 1)))
        Sequential(
          (0): Linear(in_features=3, out_features=8, bias=False)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=1, bias=False)
        )
    """
    if any(module._forward_hooks for module in net.modules()):
        raise ValueError("expected a network without forward hooks, got some: batch normalisation added by training?")
    net = net if width is None else with_width(net, width)
    nodes = flatten(net)
    channels = channels_of(nodes, net.in_channels)
    scales = Scales(nodes, channels)
    ndim = net.ndim or 2
    modules = [
        None if isinstance(node.does, str) else _module(node.does, place, scales, ndim, channels[node.inputs[0]])
        for place, node in enumerate(nodes)
    ]
    for node, module in zip(nodes, modules, strict=True):
        if isinstance(node.does, Layer) and isinstance(module, torch.nn.Module):
            _take_after(module, node.does)
    chain = [module for module in modules if isinstance(module, torch.nn.Module | None)]
    permuted = any(isinstance(module, torch.nn.LayerNorm) for module in chain)
    if len(chain) == len(nodes) and not permuted and all(n.inputs == (place,) for place, n in enumerate(nodes)):
        whole: torch.nn.Module = torch.nn.Sequential(*(module for module in chain if module is not None))
    else:
        whole = _graph(nodes, modules)
    # Of the whole alone: the layers have modes of their own.
    whole.training = net.training
    return whole


def _take_after(module: torch.nn.Module, layer: Layer) -> None:
    """Give a module the mode of a layer, and freeze what is frozen there."""
    module.train(layer.training)
    for parameter, model in zip(module.parameters(), layer.parameters(), strict=True):
        parameter.requires_grad_(model.requires_grad)


def _module(layer: Layer, place: int, scales: Scales, ndim: int, channels: int | None) -> Target:
    """A module, or a function.

    Raises:
        ValueError: torch.nn has no such layer.
    """
    rule = rule_for(layer)
    if rule is None or rule.write is None:
        reason = NO_COUNTERPART.get(type(layer), "")
        raise ValueError(f"torch.nn has no {layer}" + (f": {reason}" if reason else ""))
    factors = scales.of_weights(place) if isinstance(layer, Weighted) else None
    scale = float(scales.incoming[place]) if isinstance(layer, ChannelNorm) else 1.0
    return rule.write(layer, Place(ndim, channels, scale, factors))


def _graph(nodes: Sequence[Node], modules: Sequence[Target | None]) -> torch.fx.GraphModule:
    graph, root = torch.fx.Graph(), torch.nn.Module()
    values = [graph.placeholder("input")]
    for place, (node, module) in enumerate(zip(nodes, modules, strict=True)):
        given = [values[k] for k in node.inputs]
        name = f"layer{place}"
        if isinstance(node.does, str) and node.does.startswith("concat"):
            axis = int(node.does.partition(":")[2] or 1)
            values.append(graph.call_function(torch.cat, (tuple(given), axis)))
        elif isinstance(node.does, str):
            total = given[0]
            for term in given[1:]:
                total = graph.call_function(operator.add if node.does == "sum" else operator.mul, (total, term))
            values.append(total)
        elif isinstance(module, torch.nn.LayerNorm):
            root.add_module(name, module)
            last = graph.call_method("movedim", (given[0], 1, -1))
            values.append(graph.call_method("movedim", (graph.call_module(name, (last,)), -1, 1)))
        elif isinstance(module, torch.nn.Module):
            root.add_module(name, module)
            values.append(graph.call_module(name, (given[0],)))
        else:
            assert isinstance(module, Call)
            values.append(graph.call_function(module.function, (given[0], *module.constants)))
    graph.output(values[-1])
    graph.lint()
    return torch.fx.GraphModule(root, graph)


def with_width(net: Layer, width: int) -> Layer:
    """The same network with other numbers of hidden channels and weights drawn anew: the kernel is the same.

    Args:
        net: the network.
        width: channels of the widest hidden layer; the others in proportion, rounded, at least 1.

    Raises:
        TypeError: the width is no integer.
        ValueError: it is below 1, or there is no hidden layer.
    """
    width = positive_int(width, "width")
    nodes = flatten(net)
    channels = channels_of(nodes, net.in_channels)
    fixed = _fixed(nodes)
    hidden = [layer.out_channels or 1 for place, layer in _weighted(nodes) if place + 1 not in fixed]
    if not hidden:
        raise ValueError("expected a network with hidden channels, got one that has none")
    factor = width / max(hidden)
    # Groups stay as many as they are, of two channels at the least, and cut all channels that they may meet.
    groups = math.lcm(*(getattr(layer, "groups", 1) for _, layer in _weighted(nodes) if not _depthwise(layer)))
    unit = 1 if groups == 1 else 2 * groups
    new = [net.in_channels]
    rebuilt = []
    origins = _before_flattening(nodes)
    for place, node in enumerate(nodes, start=1):
        given = [new[k] for k in node.inputs]
        does = node.does
        if _depthwise(does):
            does = _deep_as(does, given[0])
        elif isinstance(does, Weighted):
            wanted = max(1, round((channels[place] or 1) * factor / unit)) * unit
            out = channels[place] if place in fixed else wanted
            inside = given[0]
            if inside is None and (before := origins.get(node.inputs[0])) is not None:
                inside = does.fan_in // (channels[before] or 1) * (new[before] or 1)
            does = _of_channels(does, inside, out).to(dtype=does.weight.dtype, device=does.weight.device)
        elif isinstance(does, ChannelNorm) and does.in_channels is not None:
            does = _of_channels(does, given[0])
        if isinstance(does, Layer) and isinstance(node.does, Layer) and does is not node.does:
            _take_after(does, node.does)
        rebuilt.append(Node(does, node.inputs))
        if isinstance(does, str):
            new.append(JOINS[does].channels(given))
        else:
            new.append(None if does.hides_channels else does.out_channels or given[0])
    wide = assemble(rebuilt, net.in_channels)
    wide.training = net.training
    return wide


def _before_flattening(nodes: Sequence[Node]) -> dict[int, int]:
    """For values whose channels have been flattened together with the pixels: the value that was flattened."""
    origins: dict[int, int] = {}
    for place, node in enumerate(nodes, start=1):
        first = node.inputs[0]
        if isinstance(node.does, Layer) and node.does.hides_channels:
            origins[place] = first
        elif first in origins and (isinstance(node.does, str) or node.does.out_channels is None):
            origins[place] = origins[first]
    return origins


def _of_channels(layer: Layer, *channels: int | None) -> Layer:
    """The layer anew with other channels, which its first options are."""
    names = [option.name for option in options_of(type(layer))]
    return from_description(layer.description() | dict(zip(names, channels, strict=False)))


def _weighted(nodes: Sequence[Node]) -> list[tuple[int, Layer]]:
    return [(place, node.does) for place, node in enumerate(nodes) if isinstance(node.does, Weighted)]


def _depthwise(does: Layer | str) -> bool:
    return isinstance(does, Spatial) and does.sharing == "channel"


def _deep_as(layer: Any, channels: int | None) -> Layer:
    """A depthwise convolution of other channels, as many outputs of each."""
    multiplier = layer.out_channels // layer.in_channels
    count = channels or layer.in_channels
    options = {"in_channels": count, "out_channels": count * multiplier, "groups": count}
    return from_description(layer.description() | options).to(dtype=layer.weight.dtype, device=layer.weight.device)


def _fixed(nodes: Sequence[Node]) -> set[int]:
    """The values whose channels are those of the input or the output: no weight layer lies between."""
    fixed = {0, len(nodes)}
    before: set[int] = set()
    while fixed != before:
        before = set(fixed)
        for place, node in enumerate(nodes, start=1):
            if isinstance(node.does, Weighted) and not _depthwise(node.does):
                continue
            ends = {place, *node.inputs}
            # A concatenation is fixed by its output or by all of its inputs.
            known = place in fixed if node.does == "concat" else bool(ends & fixed)
            if known:
                fixed |= ends
            elif node.does == "concat" and set(node.inputs) <= fixed:
                fixed.add(place)
    return fixed
