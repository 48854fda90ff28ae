"""A finite network that is linear in its weights: the first terms of its Taylor series around those it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from torch_cntk._internal.forward_mode import load_forward_mode
from torch_cntk.finite.functions import sharing_weights

__all__ = ["Linearised", "linearise", "linearize"]


class Linearised(torch.nn.Module):
    """f(w_0, x) + df/dw(w_0, x) (w - w_0) of a network f, as a module with weights w that can be trained.

    Its tangent kernel is that of the network at w_0, and stays so while it is trained: it follows the closed forms of
    ``LinearisedTraining`` and ``TrainingDynamics`` exactly. One pass is one of the network with a product of its
    Jacobian beside it (forward mode), some two to three times as much work.

    Args:
        net: any torch module that gives one tensor; it is copied, and its weights are w_0. Buffers and the mode
            (``train`` or ``eval``) are as they are now, those of the copy.

    Attributes:
        weights: w, in the order of ``net.parameters()``; w_0 at the beginning.

    Raises:
        TypeError: the net is no torch module.
        ValueError: it has no weights.
    """

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        if not isinstance(net, torch.nn.Module):
            raise TypeError(f"expected a network of torch_cntk or a torch module, got {type(net).__name__}")
        if next(net.parameters(), None) is None:
            raise ValueError("expected a network with weights, got one without")
        load_forward_mode()
        # Copied without its weights, which are kept apart, so that only w is found among the parameters.
        self._function = [sharing_weights(net)]
        named = {name: tensor.detach().clone() for name, tensor in net.named_parameters()}
        self._names = list(named)
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(tensor.clone()) for tensor in named.values()])
        for number, tensor in enumerate(named.values()):
            self.register_buffer(f"start_{number}", tensor)
        for number, (_, buffer) in enumerate(net.named_buffers()):
            self.register_buffer(f"buffer_{number}", buffer.detach().clone())
        self._buffers_of_net = [name for name, _ in net.named_buffers()]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for inputs as the network takes them, of the shape of its own.

        Raises:
            TypeError: the network gives something else than a tensor.
        """
        start = {name: getattr(self, f"start_{number}") for number, name in enumerate(self._names)}
        kept = {name: getattr(self, f"buffer_{number}") for number, name in enumerate(self._buffers_of_net)}
        step = {name: weight - start[name] for name, weight in zip(self._names, self.weights, strict=True)}

        def of(weights: dict[str, Tensor]) -> Any:
            return functional_call(self._function[0], {**kept, **weights}, (x,))

        value, change, *_ = jvp(of, (start,), (step,))
        if not isinstance(value, Tensor):
            raise TypeError(f"expected a network that gives one tensor, got {type(value).__name__}")
        return value + torch.as_tensor(change)

    def extra_repr(self) -> str:
        """The network around which it is linear."""
        return repr(self._function[0])


def linearise(net: torch.nn.Module) -> Linearised:
    """The first-order Taylor series of a network around the weights that it has, as a module: see ``Linearised``.

    Args:
        net: any torch module that gives one tensor.

    Returns:
        a module that is linear in its weights, which begin at those of the network.

    Raises:
        TypeError: the net is no torch module.
        ValueError: it has no weights.
    """
    return Linearised(net)


linearize: Callable[[torch.nn.Module], Linearised] = linearise
"""The same in American spelling, as neural-tangents has it."""
