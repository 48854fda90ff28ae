"""Modules of torch.nn at rest: the weights that their forward pass would use, without any of its side effects."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = ["Source", "inert", "reweights", "source_of_module", "source_of_tensors"]

_REWEIGHTING = (WeightNorm, SpectralNorm, prune.BasePruningMethod)
"""Hooks that set a module's weights before its forward pass, and do nothing else."""


def reweights(hook: Any) -> bool:
    """Whether a hook before the forward pass is there to set the module's weights."""
    return isinstance(hook, _REWEIGHTING)


def inert(module: torch.nn.Module) -> torch.nn.Module:
    """A module with the same weights and options, in which what its forward pass would change is a copy.

    Weights that are computed before each forward pass have been computed.
    """
    # Not copy.copy(), which parametrised modules refuse.
    still = object.__new__(type(module))
    vars(still).update(vars(module))
    still._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in module._buffers.items()}
    still._modules = dict(module._modules)
    if parametrize.is_parametrized(module):
        still._modules["parametrizations"] = copy.deepcopy(module._modules["parametrizations"])
    with torch.no_grad():
        for hook in module._forward_pre_hooks.values():
            if reweights(hook):
                hook(still, ())
    return still


@dataclass(frozen=True)
class Source:
    """Weight and bias of a layer as a model has them.

    Attributes:
        weight: in the shape of our layer's.
        bias: likewise, or None.
        trains: whether each of the two is trained.
        training: the mode of the module that they belong to; None if that is the model itself.
    """

    weight: Tensor
    bias: Tensor | None
    trains: tuple[bool, bool]
    training: bool | None = None


def source_of_module(
    module: torch.nn.Module, reshape: Callable[[Tensor], Tensor] = lambda weight: weight
) -> tuple[Source, torch.nn.Module]:
    """The weights of a module, and the module at rest.

    Args:
        module: with a weight, and a bias or None.
        reshape: its weight to that of our layer.

    Raises:
        ValueError: the weights change from one forward pass to the next.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        still = inert(module)
        weight, bias = _read(still)
        if parametrize.is_parametrized(module) or any(reweights(h) for h in module._forward_pre_hooks.values()):
            # A step further: what spectral normalisation in training mode, or a random parametrisation, would do.
            for hook in module._forward_pre_hooks.values():
                hook(still, ())
            if not all(_same(a, b) for a, b in zip((weight, bias), _read(still), strict=True)):
                raise ValueError("its weights change from one forward pass to the next: call eval() first")
    trains = (_trains(module, "weight"), bias is not None and _trains(module, "bias"))
    return Source(reshape(weight), bias, trains, module.training), still


def source_of_tensors(weight: Tensor, bias: Tensor | None) -> Source:
    """The weights of a call of a function."""
    trains = (weight.requires_grad, bias is not None and bias.requires_grad)
    return Source(weight.detach(), None if bias is None else bias.detach(), trains)


def _read(module: Any) -> tuple[Tensor, Tensor | None]:
    bias = module.bias
    return module.weight.detach().clone(), None if bias is None else bias.detach().clone()


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two tensors are equal to rounding; on the meta device there is nothing to compare."""
    if first is None or second is None or first.is_meta:
        return first is second or (first is not None and first.is_meta)
    # Rounding of a norm is that of the square root of as many terms, some times over.
    tolerance = 4 * torch.finfo(first.dtype).eps * math.sqrt(max(first.numel(), 1))
    return bool((first - second).abs().max() <= tolerance * first.abs().max())


def _trains(module: torch.nn.Module, name: str) -> bool:
    """Whether training would change a weight, by whatever it is computed from."""
    if name in module._parameters:
        parameter = module._parameters[name]
        return parameter is not None and parameter.requires_grad
    if parametrize.is_parametrized(module, name):
        parts: Any = module.parametrizations
        return any(parameter.requires_grad for parameter in parts[name].parameters())
    return any(p.requires_grad for key, p in module._parameters.items() if p is not None and key.startswith(f"{name}_"))
