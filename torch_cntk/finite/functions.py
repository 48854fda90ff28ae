"""A finite network as a function of its weights, for any inputs: images, batches of them, or rows of numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from torch_cntk._internal.arrays import tensor_of
from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.memory import failed_allocation
from torch_cntk.layers import (
    Activation,
    ChannelNorm,
    Dropout,
    Identity,
    Layer,
    Sequential,
    Sigmoid,
    Weighted,
    reparameterise,
)
from torch_cntk.layers.graph import assemble
from torch_cntk.layers.network import flatten

__all__ = ["Function", "Kind", "Parameters", "Side", "sharing_weights"]

Kind: TypeAlias = Literal["ntk", "nngp"]
Parameters: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Side:
    """The inputs of one side of a kernel, and what the network makes of each.

    Attributes:
        inputs: [n, *shape].
        single: whether the user gave one input without a batch axis.
        outputs: channels, or classes.
        size: of each output, () where it has no pixels.
    """

    inputs: Tensor
    single: bool
    outputs: int
    size: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Of each output; 1 where it has none."""
        return math.prod(self.size)

    @property
    def rows(self) -> int:
        """Of the kernel: pixels of all inputs."""
        return len(self.inputs) * self.pixels

    @property
    def axes(self) -> tuple[int, ...]:
        """Of the kernel on this side."""
        return self.size if self.single else (len(self.inputs), *self.size)

    @property
    def text(self) -> str:
        """For messages."""
        pixels = f"{shape_text(self.size)} pixels" if self.size else "a number each"
        return pixels if self.single else f"{len(self.inputs):,} inputs of {pixels}"


class Function:
    """A network as a function of some of its weights.

    The network given is not touched: the mode is set on a copy that shares the weights.

    Args:
        net: a network of torch_cntk, whose sigmoid is left out, or a torch module.
        kind: "ntk" is a function of all weights, "nngp" of those of the layers that give the output.

    Attributes:
        parameters: the weights that it is a function of.
        weights: their number.

    Raises:
        TypeError: ``net`` is no torch module.
        ValueError: there are no weights, or those that give the output cannot be told from others.
    """

    def __init__(self, net: torch.nn.Module, kind: Kind) -> None:
        if not isinstance(net, torch.nn.Module):
            raise TypeError(f"expected a network of torch_cntk or a torch module, got {type(net).__name__}")
        if kind not in ("ntk", "nngp"):
            raise ValueError(f'expected kind "ntk" or "nngp", got {kind!r}')
        if next(net.parameters(), None) is None:
            raise ValueError("expected a network with weights, got one without")
        if any(isinstance(module, Dropout) and module.in_kernel for module in net.modules()):
            raise ValueError("expected a network whose kernel is that of eval mode, got Dropout(in_kernel=True)")
        if isinstance(net, Layer):
            net = headless(reparameterise(net, "ntk") if kind == "nngp" else net)
        chosen = None if kind == "ntk" else _last_weights(net)
        self._net = sharing_weights(net).eval()
        own = {name: parameter.detach() for name, parameter in net.named_parameters()}
        self.parameters = {name: tensor for name, tensor in own.items() if chosen is None or id_of(net, name) in chosen}
        self._others = {name: tensor for name, tensor in own.items() if name not in self.parameters}
        self.weights: int = sum(tensor.numel() for tensor in self.parameters.values())
        self.sample = next(iter(own.values()))
        self.input_ndim = _input_ndim(net)

    def tensors(self, *given: Any) -> Any:
        """Arrays as tensors of the weights' dtype and device; tensors and None as they are.

        Raises:
            TypeError: an array has no floating point numbers.
            ValueError: some of it is masked.
        """
        return tuple(
            tensor_of(one).to(self.sample) if isinstance(one, np.ndarray) and one.dtype.kind == "f" else one
            for one in given
        )

    def side(self, z: Tensor, name: str) -> Side:
        """Check inputs and find what the network makes of them.

        Raises:
            ValueError: they do not fit the network.
        """
        sample = self.sample
        if not isinstance(z, torch.Tensor) or z.dtype != sample.dtype or z.device != sample.device:
            got = (z.dtype, z.device) if isinstance(z, torch.Tensor) else type(z).__name__
            raise ValueError(
                f"expected {name} as a tensor in {sample.dtype} on {sample.device}, as the weights, got {got}"
            )
        single = self._is_single(z, name)
        inputs = z.detach()[None] if single else z.detach()
        if not len(inputs):
            raise ValueError(f"expected at least one input in {name}, got none")
        output = self._first(inputs[0], name)
        return Side(inputs, single, len(output), tuple(output.shape[1:]))

    def _first(self, x: Tensor, name: str) -> Tensor:
        """Output of the first input.

        Raises:
            ValueError: the network cannot take it.
            RuntimeError: memory was not enough.
        """
        try:
            with torch.no_grad():
                return self._apply(self.parameters, x)
        except RuntimeError as error:
            if failed_allocation(error):
                raise
            reason: Exception = error
        except (IndexError, ValueError) as error:
            reason = error
        raise ValueError(f"the network cannot take an input of {name}, {tuple(x.shape)}: {reason}") from reason

    def _is_single(self, z: Tensor, name: str) -> bool:
        """Whether there is no batch axis.

        Raises:
            ValueError: the number of axes fits neither one input nor a batch.
        """
        ndim = self.input_ndim
        if ndim is None:
            if z.ndim < 2:
                raise ValueError(f"expected {name} as [n, ...], one input a row, got {tuple(z.shape)}")
            return False
        if ndim < 0 or z.ndim == ndim:
            return True
        if z.ndim != ndim + 1:
            one = "[features]" if ndim == 1 else f"[channels, *size] with {ndim - 1} spatial dimensions"
            raise ValueError(
                f"expected {name} as one input, {one}, or as several along a first axis, got {z.ndim} axes"
            )
        return False

    def _apply(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Output of one input, which passes through the network alone: [outputs, *size].

        Raises:
            TypeError: the network gives something else than a tensor.
        """
        result = functional_call(self._net, {**self._others, **parameters}, (x[None],))
        if not isinstance(result, torch.Tensor):
            raise TypeError(f"expected a network that gives one tensor, got {type(result).__name__}")
        one = result[0]
        return one if one.ndim else one[None]

    def of_one(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Output of one input, [outputs, pixels]."""
        one = self._apply(parameters, x)
        return one.flatten(1) if one.ndim > 1 else one[:, None]

    def of_several(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Outputs of inputs that do not see each other, [n, outputs, pixels]."""
        if len(inputs) == 1:
            return self.of_one(parameters, inputs[0])[None]
        result: Tensor = vmap(partial(self.of_one, parameters))(inputs)
        return result

    def saved_numbers(self, side: Side, inputs: int = 1) -> int:
        """Numbers that a pass of so many inputs holds for the way back."""
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
            self._net(side.inputs[:inputs])
        return count


def sharing_weights(net: torch.nn.Module) -> torch.nn.Module:
    """A copy of a network that shares its weights and buffers, so that its mode can be changed without being seen."""
    return copy.deepcopy(net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})


def headless(net: Layer) -> Layer:
    """The network without the sigmoid at its end; the same weights."""
    nodes = flatten(net)
    if not any(isinstance(node.does, Sigmoid) for node in nodes):
        return net
    rest = nodes[:-1]
    return assemble(rest, net.in_channels) if rest else Sequential(Identity())


def id_of(net: torch.nn.Module, name: str) -> int:
    """Identity of the module that a parameter belongs to."""
    return id(net.get_submodule(name.rpartition(".")[0]))


def _input_ndim(net: torch.nn.Module) -> int | None:
    """Axes of one input: as the first weight layer has it; None where inputs come as a batch, -1 where they do not.

    A fully connected layer of torch's before the first convolution takes rows of numbers, or flattens something whose
    shape nobody knows. Of networks of ours, attention and heads alone take images of any number of dimensions.
    """
    for module in net.modules():
        if isinstance(module, Layer) and (ndim := _ndim_of_layer(module)) != -1:
            return ndim
        if isinstance(module, torch.nn.modules.conv._ConvNd):
            return module.weight.ndim - 1
        if isinstance(module, torch.nn.Linear):
            return None
    return -1 if isinstance(net, Layer) else None


def _ndim_of_layer(net: Layer) -> int | None:
    """As ``_input_ndim``, of a network of ours."""
    layers = [module for module in net.modules() if isinstance(module, Layer)]
    ndim = net.ndim if net.ndim is not None else next((layer.ndim for layer in layers if layer.ndim), None)
    if ndim is not None:
        return ndim + 1
    # A fully connected layer within a network that itself is none: behind a head, or a part of attention.
    return None if any(layer.ndim == 0 or layer.flattens for layer in layers) else -1


def _last_weights(net: torch.nn.Module) -> set[int]:
    """Identities of the weight layers that give the output, behind which everything is linear.

    Raises:
        ValueError: the network is no such one, or not of torch_cntk.
    """
    if not isinstance(net, Layer):
        raise ValueError(
            'expected a network of torch_cntk for kind="nngp", whose last weight layers are known, got '
            f"{type(net).__name__}; see from_torch, or expected_kernel, which draws the weights of any"
        )
    nodes = flatten(net)
    found: set[int] = set()
    reached = {len(nodes)}
    for place in range(len(nodes), 0, -1):
        does = nodes[place - 1].does
        if place not in reached:
            continue
        if isinstance(does, Weighted):
            found.add(id(does))
        elif isinstance(does, Activation | ChannelNorm):
            raise ValueError(f'expected a weight layer behind the last {does} for kind="nngp"; see expected_kernel')
        else:
            reached.update(nodes[place - 1].inputs)
    if 0 in reached:
        raise ValueError('expected a weight layer between input and output for kind="nngp"; see expected_kernel')
    return found
