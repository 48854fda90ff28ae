"""What is trained: a copy of the network, with normalisations, a head and masks of dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_cntk.finite.draws import Draws
from torch_cntk.finite.options import Training
from torch_cntk.layers import Dropout, Layer, Sigmoid, Weighted, reparameterise
from torch_cntk.layers.network import flatten

__all__ = ["Masks", "Model", "has_sigmoid"]


def has_sigmoid(net: Layer, training: Training) -> bool:
    """Whether the trained model can only give values in (0, 1)."""
    return training.head == "sigmoid" or any(isinstance(module, Sigmoid) for module in net.modules())


class _BatchNorm(torch.nn.Module):
    """Batch normalisation in any number of dimensions, by the batch alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(channels))
        self.offset = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.batch_norm(images, None, None, self.scale, self.offset, training=True)


class _Hook:
    """Puts a normalisation behind a layer."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        normed: Tensor = self.norm(output)
        return normed


class Model(torch.nn.Module):
    """A copy of a network with what training adds: normalisations and a head.

    ``Model(net, training).load_state_dict(result.model.state_dict())`` is the trained one again.

    Args:
        net: the network.
        training: how it is, or was, trained.
    """

    def __init__(self, net: Layer, training: Training) -> None:
        super().__init__()
        self.net = reparameterise(net, training.parameterisation)
        has_head = any(isinstance(module, Sigmoid) for module in net.modules())
        self.head = Sigmoid() if training.head == "sigmoid" and not has_head else torch.nn.Identity()
        self.norms = torch.nn.ModuleList()
        if training.batch_norm:
            for layer in _inner_weights(self.net):
                norm = _BatchNorm(layer.out_channels or 1)
                self.norms.append(norm)
                layer.register_forward_hook(_Hook(norm))

    def forward(self, images: Tensor) -> Tensor:
        """Output for [batch, channels, *size]."""
        result: Tensor = self.head(self.net(images))
        return result


def _inner_weights(net: Layer) -> list[Weighted]:
    """Weight layers that do not give the network's output."""
    nodes = flatten(net)
    outer = {len(nodes)}
    for place in range(len(nodes), 0, -1):
        if place in outer and not isinstance(nodes[place - 1].does, Weighted):
            outer.update(nodes[place - 1].inputs)
    steps = enumerate(nodes, start=1)
    return [node.does for place, node in steps if isinstance(node.does, Weighted) and place not in outer]


class Masks:
    """Dropout from a generator of one's own; torch's dropout knows the global one only.

    While this is in charge, the model's ``Dropout`` layers let everything through and a hook behind each of them
    multiplies by a mask. All masks are drawn before a pass, in the order in which the pass needs them, so that the
    pass itself can be compiled. The numbers are those that torch's dropout would draw (on CUDA, where torch has a
    fused one, others).

    Args:
        model: in training mode.
        forward: runs the model once, so that the shapes of the masks are known.
    """

    def __init__(self, model: torch.nn.Module, forward: Callable[[], object]) -> None:
        layers = [m for m in model.modules() if isinstance(m, Dropout) and m.p and m.training]
        hooks = [_Mask(layer.p) for layer in layers]
        self._handles = [layer.eval().register_forward_hook(hook) for layer, hook in zip(layers, hooks, strict=True)]
        self._order: list[tuple[_Mask, Tensor]] = []
        if hooks:
            for hook in hooks:
                hook.record = self._order
            with torch.no_grad():
                forward()
            for hook in hooks:
                hook.record = None

    def draw(self, draws: Draws) -> None:
        """New masks for the next pass."""
        for hook, mask in self._order:
            draws.kept_(mask, 1 - hook.p)

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


class _Mask:
    """Multiplies what a layer gives by masks, one for each time that a pass comes by."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.masks: list[Tensor] = []
        self.turn = 0
        self.record: list[tuple[_Mask, Tensor]] | None = None

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if self.record is not None:
            mask = torch.empty_like(output)
            self.masks.append(mask)
            self.record.append((self, mask))
            return output
        mask = self.masks[self.turn]
        self.turn = (self.turn + 1) % len(self.masks)
        return output * mask
