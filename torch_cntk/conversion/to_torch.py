"""Networks of torch_cntk as plain torch.nn modules."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, cast

import torch

from torch_cntk._internal.checks import positive_int
from torch_cntk.conversion.flat import Scales, assemble, channels_of, flatten
from torch_cntk.layers import (
    GELU,
    Abs,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BilinearUp,
    ChannelNorm,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout,
    Elementwise,
    Erf,
    Identity,
    Layer,
    LeakyReLU,
    NearestUp,
    Node,
    ReLU,
    Sigmoid,
    Sin,
    StridedConv1d,
    StridedConv2d,
    StridedConv3d,
    Weighted,
    from_description,
)

__all__ = ["to_torch", "with_width"]

_CONVOLUTIONS = (Conv1d, Conv2d, Conv3d, StridedConv1d, StridedConv2d, StridedConv3d)
_MODULES: dict[int, Any] = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
_POOLS = {1: torch.nn.AvgPool1d, 2: torch.nn.AvgPool2d, 3: torch.nn.AvgPool3d}
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def to_torch(net: Layer, width: int | None = None) -> torch.nn.Module:
    """A plain torch.nn module with the same function, or a wider one of the same shape.

    Args:
        net: the network.
        width: channels of the widest hidden layer of the module, the others in proportion; its weights are drawn anew
            then. By default the network's own channels and weights.

    Returns:
        a ``torch.nn.Sequential`` or, if the network branches, a ``torch.fx.GraphModule``. Nothing of torch_cntk is
        needed to run it.

    Raises:
        TypeError: the width is no integer.
        ValueError: torch.nn has no such layer, the gain of a normalised activation has no weight layer to go into, or
            the network has forward hooks, such as the batch normalisation that training has added.
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
    chain = [module for module in modules if isinstance(module, torch.nn.Module | None)]
    permuted = any(isinstance(module, torch.nn.LayerNorm) for module in chain)
    if len(chain) == len(nodes) and not permuted and all(n.inputs == (place,) for place, n in enumerate(nodes)):
        return torch.nn.Sequential(*(module for module in chain if module is not None))
    return _graph(nodes, modules)


def _module(
    layer: Layer, place: int, scales: Scales, ndim: int, channels: int | None
) -> torch.nn.Module | torch.fx.node.Target:
    """A module, or a function.

    Raises:
        ValueError: torch.nn has no such layer.
    """
    match layer:
        case Weighted() if isinstance(layer, _CONVOLUTIONS):
            return _convolution(layer, place, scales)
        case ReLU():
            return torch.nn.ReLU()
        case LeakyReLU():
            return torch.nn.LeakyReLU(layer.negative_slope)
        case GELU():
            return torch.nn.GELU()
        case Abs():
            return torch.abs
        case Erf():
            return torch.erf
        case Sin():
            return torch.sin
        case Elementwise():
            return cast("torch.fx.node.Target", layer.function)
        case NearestUp():
            return torch.nn.Upsample(scale_factor=layer.scale_factor, mode="nearest")
        case BilinearUp() if layer.align_corners or layer.padding_mode == "border":
            return torch.nn.Upsample(
                scale_factor=layer.scale_factor, mode=_LINEAR[ndim], align_corners=layer.align_corners
            )
        case BilinearUp():
            raise ValueError(f'torch.nn has no circular {layer}: expected one with padding_mode="border" or nearest')
        case AvgPool1d() | AvgPool2d() | AvgPool3d():
            pool: torch.nn.Module = _POOLS[ndim](layer.kernel_size)
            return pool
        case ChannelNorm():
            return _norm(layer, float(scales.incoming[place]), layer.in_channels or channels)
        case Dropout():
            return torch.nn.Dropout(layer.p)
        case Sigmoid():
            return torch.nn.Sigmoid()
        case Identity():
            return torch.nn.Identity()
    raise ValueError(f"torch.nn has no {layer}")


def _norm(layer: ChannelNorm, scale: float, channels: int | None) -> torch.nn.LayerNorm:
    """Over the last axis; ``_graph`` permutes the others.

    Raises:
        ValueError: the number of channels is not known.
    """
    if channels is None:
        raise ValueError(f"expected the channels of {layer} to be known: give them, or put it behind a convolution")
    # sqrt((scale x)^2 + eps) = scale sqrt(x^2 + eps / scale^2).
    norm = torch.nn.LayerNorm(channels, eps=layer.eps / scale**2, elementwise_affine=layer.affine)
    if layer.scale is not None and layer.offset is not None:
        norm = norm.to(dtype=layer.scale.dtype, device=layer.scale.device)
        with torch.no_grad():
            norm.weight.copy_(layer.scale)
            norm.bias.copy_(layer.offset)
    return norm


def _convolution(layer: Weighted, place: int, scales: Scales) -> torch.nn.Module:
    assert isinstance(layer, _CONVOLUTIONS)
    module: torch.nn.Conv2d = _MODULES[layer.ndim](
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        padding=tuple(q // 2 for q in layer.kernel_size),
        padding_mode=layer.padding_mode,
        bias=layer.bias is not None,
    )
    module = module.to(dtype=layer.weight.dtype, device=layer.weight.device)
    weight, bias = layer.effective()
    factor, bias_factor = (f.to(weight.device) for f in scales.of_weights(place, layer.ndim))
    with torch.no_grad():
        module.weight.copy_(weight / factor)
        if bias is not None and module.bias is not None:
            module.bias.copy_(bias / bias_factor)
    return module


def _graph(
    nodes: Sequence[Node], modules: Sequence[torch.nn.Module | torch.fx.node.Target | None]
) -> torch.fx.GraphModule:
    graph, root = torch.fx.Graph(), torch.nn.Module()
    values = [graph.placeholder("input")]
    for place, (node, module) in enumerate(zip(nodes, modules, strict=True)):
        given = [values[k] for k in node.inputs]
        name = f"layer{place}"
        if node.does == "concat":
            values.append(graph.call_function(torch.cat, (tuple(given), 1)))
        elif node.does == "sum":
            total = given[0]
            for term in given[1:]:
                total = graph.call_function(operator.add, (total, term))
            values.append(total)
        elif isinstance(module, torch.nn.LayerNorm):
            root.add_module(name, module)
            last = graph.call_method("movedim", (given[0], 1, -1))
            values.append(graph.call_method("movedim", (graph.call_module(name, (last,)), -1, 1)))
        elif isinstance(module, torch.nn.Module):
            root.add_module(name, module)
            values.append(graph.call_module(name, (given[0],)))
        else:
            assert callable(module)
            values.append(graph.call_function(module, (given[0],)))
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
    new = [net.in_channels]
    rebuilt = []
    for place, node in enumerate(nodes, start=1):
        given = [new[k] for k in node.inputs]
        does = node.does
        if isinstance(does, Weighted):
            out = channels[place] if place in fixed else max(1, round((channels[place] or 1) * factor))
            options = does.description() | {"in_channels": given[0], "out_channels": out}
            does = from_description(options).to(dtype=does.weight.dtype, device=does.weight.device)
        elif isinstance(does, ChannelNorm) and does.in_channels is not None:
            does = from_description(does.description() | {"channels": given[0]})
        rebuilt.append(Node(does, node.inputs))
        new = channels_of(rebuilt, net.in_channels)
    return assemble(rebuilt, net.in_channels)


def _weighted(nodes: Sequence[Node]) -> list[tuple[int, Layer]]:
    return [(place, node.does) for place, node in enumerate(nodes) if isinstance(node.does, Weighted)]


def _fixed(nodes: Sequence[Node]) -> set[int]:
    """The values whose channels are those of the input or the output: no weight layer lies between."""
    fixed = {0, len(nodes)}
    before: set[int] = set()
    while fixed != before:
        before = set(fixed)
        for place, node in enumerate(nodes, start=1):
            if isinstance(node.does, Weighted):
                continue
            ends = {place, *node.inputs}
            # A concatenation is fixed by its output or by all of its inputs.
            known = place in fixed if node.does == "concat" else bool(ends & fixed)
            if known:
                fixed |= ends
            elif node.does == "concat" and set(node.inputs) <= fixed:
                fixed.add(place)
    return fixed
