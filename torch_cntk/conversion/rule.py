"""What a rule of the table of counterparts is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from torch_cntk.layers import Layer

__all__ = ["Call", "Place", "Rule", "Target"]


@dataclass(frozen=True)
class Call:
    """A function of a tensor and of constants behind it."""

    function: Callable[..., Any]
    constants: tuple[Any, ...] = ()


Target = nn.Module | Call
"""What stands for a layer in a torch model."""


@dataclass(frozen=True)
class Place:
    """What a layer's counterpart depends on beside the layer.

    Attributes:
        ndim: number of spatial dimensions of the network.
        channels: of the layer's input, or None if they are not known.
        scale: by which the layer's input differs from that of its counterpart: ours = scale * its.
        factors: what torch's weight and bias are multiplied by to become ours; they broadcast.
    """

    ndim: int = 2
    channels: int | None = None
    scale: float = 1.0
    factors: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Rule:
    """Layers of ours and what torch has for them.

    Attributes:
        layers: classes of ours.
        read: torch's options to our layer; raises a ValueError "expected ..." for options that have no rule.
        write: our layer, at its place, to torch's; None if there is no way back.
        modules: torch.nn's classes.
        functions: torch's functions, and methods of tensors by their names.
        options: of the module, and of the function after its input in this order, with the function's defaults.
    """

    layers: tuple[type[Layer], ...]
    read: Callable[[Mapping[str, Any]], Layer]
    write: Callable[[Any, Place], Target] | None
    modules: tuple[type[nn.Module], ...] = ()
    functions: tuple[Callable[..., Any] | str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def options_of_module(self, module: nn.Module) -> dict[str, Any]:
        """The options of one of ``modules``; ``bias`` says whether there is one."""
        values = {name: getattr(module, name, default) for name, default in self.options.items()}
        if "bias" in values:
            values["bias"] = values["bias"] is not None
        if "training" in values:
            # Of a module it says how the whole model is used at the moment, not what it is.
            values["training"] = self.options["training"]
        return values
