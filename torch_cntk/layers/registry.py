"""All activations that have a name: their layers, and what torch has for them.

A new activation is entered here and nowhere else: ``MatrixCompletion``, ``hourglass``, the names of kernels and both
conversions read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from torch_cntk.covariance.duals import Dual
from torch_cntk.layers.activation import GELU, ABReLU, Abs, Activation, Erf, LeakyReLU, ReLU, Sign, Sin, Step
from torch_cntk.layers.base import Layer
from torch_cntk.layers.smooth import (
    CELU,
    ELU,
    RBF,
    SELU,
    Exp,
    Gaussian,
    Hardtanh,
    Logistic,
    Mish,
    ReLU6,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
)

__all__ = ["ACTIVATIONS", "NamedActivation", "activation_of"]


@dataclass(frozen=True)
class NamedActivation:
    """An activation layer, and its counterparts in torch: the same function without the gain.

    Attributes:
        layer: the class.
        module: torch.nn's, or None where it has none.
        functions: torch's functions, and methods of tensors by their names; the first one stands in for the module.
        options: names of options that both sides have, in the order of the functions' arguments.
        fixed: options of torch's alone, with the value that is the same function; others have no rule.
        preset: options of the layer that the name stands for.
    """

    layer: type[Activation]
    module: type[torch.nn.Module] | None = None
    functions: tuple[Callable[..., Any] | str, ...] = ()
    options: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    preset: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Activation:
        """The layer that the name stands for."""
        return self.layer(**self.preset)

    @property
    def dual(self) -> Dual:
        """What it does to a covariance."""
        return self()._dual()


_nn = torch.nn
ACTIVATIONS: dict[str, NamedActivation] = {
    "relu": NamedActivation(ReLU, _nn.ReLU, (functional.relu, torch.relu, "relu", "relu_")),
    "leaky_relu": NamedActivation(
        LeakyReLU, _nn.LeakyReLU, (functional.leaky_relu,), ("negative_slope",), preset={"negative_slope": 0.1}
    ),
    "abs": NamedActivation(Abs, None, (torch.abs, "abs")),
    "erf": NamedActivation(Erf, None, (torch.erf, "erf")),
    "gelu": NamedActivation(GELU, _nn.GELU, (functional.gelu,), fixed={"approximate": "none"}),
    "sin": NamedActivation(Sin, None, (torch.sin, "sin")),
    "tanh": NamedActivation(Tanh, _nn.Tanh, (torch.tanh, functional.tanh, "tanh")),
    "logistic": NamedActivation(Logistic),
    "softsign": NamedActivation(Softsign, _nn.Softsign, (functional.softsign,)),
    "silu": NamedActivation(SiLU, _nn.SiLU, (functional.silu,)),
    "mish": NamedActivation(Mish, _nn.Mish, (functional.mish,)),
    "softplus": NamedActivation(Softplus, _nn.Softplus, (functional.softplus,), ("beta",), fixed={"threshold": 20}),
    "elu": NamedActivation(ELU, _nn.ELU, (functional.elu,), ("alpha",)),
    "celu": NamedActivation(CELU, _nn.CELU, (functional.celu,), ("alpha",)),
    "selu": NamedActivation(SELU, _nn.SELU, (functional.selu,)),
    "hardtanh": NamedActivation(Hardtanh, _nn.Hardtanh, (functional.hardtanh,), ("min_val", "max_val")),
    "relu6": NamedActivation(ReLU6, _nn.ReLU6, (functional.relu6,)),
    "abrelu": NamedActivation(ABReLU, preset={"negative_slope": -0.5}),
    "sign": NamedActivation(Sign, None, (torch.sign, "sign")),
    "step": NamedActivation(Step),
    "rbf": NamedActivation(RBF),
    "exp": NamedActivation(Exp, None, (torch.exp, "exp")),
    "gaussian": NamedActivation(Gaussian),
}
"""By name."""


def activation_of(given: str | Layer) -> Layer:
    """An activation by its name, or the layer that is given instead.

    Raises:
        TypeError: it is neither a name nor a layer.
        ValueError: the name is unknown.
    """
    if isinstance(given, str):
        if given not in ACTIVATIONS:
            raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {given!r}")
        return ACTIVATIONS[given]()
    if not isinstance(given, Layer):
        raise TypeError(f"expected the activation as a name or a layer, got {type(given).__name__}")
    return given
