"""Models written in torch.nn as networks of torch_cntk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.options import options_of
from torch_cntk.conversion.inert import Source
from torch_cntk.conversion.reading import Reader
from torch_cntk.conversion.scales import Scales
from torch_cntk.conversion.steps import step
from torch_cntk.conversion.tracing import trace
from torch_cntk.covariance.signal import InexactError
from torch_cntk.layers import Activation, ChannelNorm, Layer, MultipleOf, Node, Weighted
from torch_cntk.layers.graph import assemble
from torch_cntk.layers.network import channels_of
from torch_cntk.layers.registry import ACTIVATIONS

__all__ = ["from_torch"]


def from_torch(
    module: torch.nn.Module,
    *,
    bias_std: float = 1.0,
    weights: bool = True,
    ignore: tuple[type[torch.nn.Module], ...] = (),
) -> Layer:
    """Make a network of torch_cntk from a model that torch.fx can trace.

    docs/conversion.md lists what has a rule, and what to write instead of what has none. The kernel is that of
    normalised activations, as everywhere in torch_cntk (one that no weights come behind is taken as it is); if the
    weights are mapped, they make up for it, and the new network's output is the model's.

    The model is taken in the mode that it is in (``train()`` or ``eval()``), and left as it is; so is torch's
    generator, unless new weights are drawn. Weights that are computed (weight norm, parametrisations, pruning) are
    those that the next forward pass would use.

    Args:
        module: the model, of one input image and one output image, or of one vector each (fully connected).
        bias_std: standard deviation of the biases, for the kernel, where the model has any.
        weights: whether the model's weights are mapped, or new ones drawn.
        ignore: types of modules to leave out, as if they were Identity.

    Returns:
        a ``Sequential``, or a ``Graph`` if the model branches; of the model's mode, dtypes and devices. Parameters that
        are frozen in the model are frozen.

    Raises:
        TypeError: ``module`` is no torch.nn.Module.
        ValueError: the model cannot be traced or holds something that has no rule (it is named, with its place), its
            kernel would not be exact, or its weights cannot be mapped.

    Example:
        >>> from torch import nn
        >>> import torch_cntk as tc
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(8, 1, 1))
        >>> tc.from_torch(model).kernel(tc.priors.Uniform(0, 1)).dense((4, 6)).shape
        torch.Size([4, 6, 4, 6])
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(module).__name__}")
    finite_number(bias_std, "bias_std", minimum=0)
    root, graph = trace(module, ignore)
    reader = Reader(root, graph, bias_std, weights, ignore)
    output = reader.read(step)
    if output == 0:
        raise ValueError("expected a model that does something, got one that returns its input")
    return _assembled(reader, output, weights)


def _assembled(reader: Reader, output: int, weights: bool) -> Layer:
    """The network of the steps that the output depends on.

    Raises:
        ValueError: its kernel would not be exact, or its weights cannot be mapped.
    """
    kept = _needed(reader.nodes, output)
    places = {old: new for new, old in enumerate([0, *(place + 1 for place in kept)])}
    nodes = [Node(reader.nodes[k].does, tuple(places[i] for i in reader.nodes[k].inputs)) for k in kept]
    nodes = _as_they_are_at_the_end(_inner_sigmoids(nodes))
    sources, modes = [reader.sources[k] for k in kept], [reader.modes[k] for k in kept]
    origins = [reader.origins[k] for k in kept]
    if reader.multiple > 1:
        # Of images of other sizes the model makes something else.
        nodes = [
            Node(MultipleOf(reader.multiple), (0,)),
            *(Node(n.does, tuple(k + 1 for k in n.inputs)) for n in nodes),
        ]
        sources, modes, origins = [None, *sources], [None, *modes], ["its input", *origins]
    given = _in_channels(nodes)
    try:
        net = assemble(nodes, given)
    except InexactError as error:
        origin = origins[int(error.path[0])] if error.path else "the model"
        raise ValueError(f"from_torch knows no exact rule for {origin}: {error}") from None
    if weights:
        _map_weights(nodes, sources, given)
    _match(net, nodes, sources, modes, reader.training)
    return net


def _needed(nodes: Sequence[Node], output: int) -> list[int]:
    """The steps that a value depends on, which is that of the last of them."""
    needed = {output}
    for place in range(output, 0, -1):
        if place in needed:
            needed.update(nodes[place - 1].inputs)
    return [place - 1 for place in sorted(needed) if place]


def _inner_sigmoids(nodes: Sequence[Node]) -> list[Node]:
    """A sigmoid is a head at the end, which the kernel does not see, and an activation elsewhere."""
    activation = ACTIVATIONS.get("logistic")
    if activation is None:
        return list(nodes)
    inner = [isinstance(node.does, Layer) and node.does.ends_in is not None for node in nodes[:-1]]
    return [Node(activation(), node.inputs) if k else node for k, node in zip(inner, nodes, strict=False)] + [nodes[-1]]


def _as_they_are_at_the_end(nodes: Sequence[Node]) -> list[Node]:
    """Activations that no weights come behind, without a gain that those could make up for."""
    reached, last = {len(nodes)}, list(nodes)
    for place in range(len(nodes), 0, -1):
        does, inputs = nodes[place - 1]
        if place not in reached or isinstance(does, Weighted | ChannelNorm):
            continue
        reached.update(inputs)
        if isinstance(does, Activation) and getattr(does, "normalise", False):
            options = {option.name: getattr(does, option.name) for option in options_of(type(does))}
            again: Any = type(does)
            last[place - 1] = Node(again(**options | {"normalise": False}), inputs)
    return last


def _in_channels(nodes: Sequence[Node]) -> int | None:
    """What the first weight layers on the way need."""
    reaches = {0}
    for place, node in enumerate(nodes, start=1):
        if not reaches & set(node.inputs):
            continue
        if isinstance(node.does, Layer) and node.does.in_channels is not None:
            return node.does.in_channels
        if node.does != "concat":
            reaches.add(place)
    return None


def _map_weights(nodes: Sequence[Node], sources: Sequence[Source | None], in_channels: int | None) -> None:
    """Copy the model's weights, multiplied by what makes up for normalised activations.

    Raises:
        ValueError: some gain cannot be made up for.
    """
    scales = Scales(nodes, channels_of(nodes, in_channels))
    for place, (node, source) in enumerate(zip(nodes, sources, strict=True)):
        layer = node.does
        if isinstance(layer, ChannelNorm):
            layer.eps *= float(scales.incoming[place]) ** 2
        if source is None or not isinstance(layer, Layer):
            continue
        layer.to(dtype=source.weight.dtype).to_empty(device=source.weight.device)
        if source.weight.is_meta:
            continue
        if isinstance(layer, Weighted):
            factor, bias_factor = (f.to(source.weight.device) for f in scales.of_weights(place))
            bias = None if source.bias is None else (source.bias * bias_factor).to(source.bias.dtype)
            layer.set_effective((source.weight * factor).to(source.weight.dtype), bias)
        elif isinstance(layer, ChannelNorm) and layer.scale is not None and layer.offset is not None:
            with torch.no_grad():
                layer.scale.copy_(source.weight)
                layer.offset.copy_(source.weight.new_zeros(()) if source.bias is None else source.bias)


def _match(
    net: Layer,
    nodes: Sequence[Node],
    sources: Sequence[Source | None],
    modes: Sequence[bool | None],
    training: bool,
) -> None:
    """Give each layer dtype, device and mode of what it came from, and freeze what was frozen."""
    net.train(training)
    for node, source, mode in zip(nodes, sources, modes, strict=True):
        if not isinstance(node.does, Layer):
            continue
        if mode is not None:
            node.does.train(mode)
        if source is not None:
            node.does.to(dtype=source.weight.dtype, device=source.weight.device)
            # Weight and bias, scale and offset.
            for parameter, trains in zip(node.does.parameters(), source.trains, strict=False):
                parameter.requires_grad_(trains)
