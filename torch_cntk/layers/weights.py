"""Weight layers in two parameterisations that compute the same function and train differently."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.options import Option
from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance import Gains
from torch_cntk.layers.base import Layer

__all__ = ["Parameterisation", "Weighted", "biased", "checked_parameterisation", "reparameterise"]

Parameterisation = Literal["ntk", "standard"]

_KEY = "standard_parameterisation"
"""In a state dict, beside weights that are those of the standard parameterisation."""

L = TypeVar("L", bound=Layer)


def checked_parameterisation(parameterisation: str) -> Parameterisation:
    """Return it if there is such a parameterisation.

    Raises:
        ValueError: there is not.
    """
    if parameterisation not in ("ntk", "standard"):
        raise ValueError(f'expected parameterisation "ntk" or "standard", got {parameterisation!r}')
    return cast("Parameterisation", parameterisation)


def biased(bias: bool | None, bias_std: float | Tensor | None) -> tuple[bool, float | Tensor]:
    """Whether there is a bias, and its standard deviation.

    Args:
        bias: None for one where a standard deviation is given.
        bias_std: None for 1.

    Raises:
        TypeError: ``bias`` is neither a boolean nor None.
    """
    if bias is not None and not isinstance(bias, bool | np.bool_):
        raise TypeError(f"expected bias to be True, False or None, got {bias!r}")
    return bias_std is not None if bias is None else bool(bias), 1.0 if bias_std is None else bias_std


class Weighted(Layer, abstract=True):
    """A layer with ``weight``, ``bias`` (or None), ``weight_std`` and ``bias_std``, both of which may be tensors.

    The function is the same in both parameterisations: effective weights are N(0, weight_std^2 / fan_in), the effective
    bias is N(0, bias_std^2), and so are the NNGP kernels. What differs is how training moves it, and with that the NTK.

    *NTK parameterisation.* Parameters are N(0, 1), and the forward pass scales them: weights by weight_std /
    sqrt(fan_in), the bias by bias_std. With w = weight_std^2 and b = bias_std^2, Theta' = w P[Theta] + w P[Sigma] + b.

    *Standard parameterisation* (torch's). The parameters carry the scale, so that the gradient of an output by them is
    sqrt(fan_in) / weight_std times as large: Theta' = w P[Theta] + fan_in P[Sigma] + 1, of which the last term is there
    if there is a bias. This kernel depends on the widths that the layers have, and grows with them: it is that of wide
    networks of these widths, trained with one learning rate for all parameters, and what neural-tangents computes with
    ``parameterization="standard"`` (Sohl-Dickstein, Novak, Schoenholz, Lee, arXiv 2001.07301).
    """

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter | None
    weight_std = Tunable(minimum=0, above=True)
    bias_std = Tunable(minimum=0)
    parameterisation: Parameterisation = "ntk"

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """Inputs of each output."""

    def _value_of(self, option: Option) -> Any:
        # Of the bias, whether there is one.
        return self.bias is not None if option.name == "bias" else getattr(self, option.name)

    def _shows(self, option: Option, value: Any) -> bool:
        return self.bias is not None if option.name in ("bias", "bias_std") else super()._shows(option, value)

    def _describes(self, option: Option, value: Any) -> bool:
        # What is not told has its default, so that files of versions with fewer options are understood.
        return self._shows(option, value)

    def _scales(self) -> tuple[float | Tensor, float | Tensor]:
        """What parameters that are N(0, 1) are multiplied by: weight and bias."""
        return live(self, "weight_std") / math.sqrt(self.fan_in), live(self, "bias_std")

    @property
    def gains(self) -> Gains:
        """What the layer makes of the average over its patches, on the way of a covariance."""
        weight = live(self, "weight_std") ** 2
        bias = 0.0 if self.bias is None else live(self, "bias_std") ** 2
        if self.parameterisation == "ntk":
            return Gains.ntk(weight, bias)
        return Gains(weight, bias, float(self.fan_in), 0.0 if self.bias is None else 1.0)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and biases from N(0, 1), scaled in the standard parameterisation; none on the meta device."""
        with torch.no_grad():
            scales = (1.0, 1.0) if self.parameterisation == "ntk" else self._scales()
            for parameter, scale in zip((self.weight, self.bias), scales, strict=True):
                if parameter is not None and not parameter.is_meta:
                    parameter.normal_(generator=generator)
                    if scale != 1:
                        parameter.mul_(scale)

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the forward pass applies them."""
        if self.parameterisation == "standard":
            return self.weight, self.bias
        scale, bias_scale = self._scales()
        return self.weight * scale, None if self.bias is None else self.bias * bias_scale

    def set_effective(self, weight: Tensor, bias: Tensor | None) -> None:
        """Choose the parameters so that ``effective`` gives these, as far as a bias_std of 0 allows.

        Raises:
            ValueError: shapes differ, or a bias is given to a layer that has none or a bias_std of 0.
        """
        if weight.shape != self.weight.shape:
            raise ValueError(f"expected weights of shape {tuple(self.weight.shape)}, got {tuple(weight.shape)}")
        with torch.no_grad():
            scales = (1.0, 1.0) if self.parameterisation == "standard" else self._scales()
            self.weight.copy_(weight / scales[0])
            if bias is not None and bool((bias != 0).any()):
                if self.bias is None or scales[1] == 0:
                    raise ValueError(f"expected no bias for {self}, which cannot hold one, got {len(bias)} numbers")
                self.bias.copy_(bias / scales[1])
            elif self.bias is not None:
                self.bias.zero_()

    def _convert(self, parameterisation: Parameterisation) -> None:
        if parameterisation == self.parameterisation:
            return
        with torch.no_grad():
            weight, bias = (None if tensor is None else tensor.clone() for tensor in self.effective())
            if parameterisation == "ntk" and bias is not None and self.bias_std == 0:
                bias.zero_()
            self.parameterisation = parameterisation
            assert weight is not None
            self.set_effective(weight, bias)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.parameterisation == "standard":
            destination[prefix + _KEY] = torch.ones((), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any, **options: Any) -> None:
        """Weights of the other parameterisation are converted."""
        stored: Parameterisation = "standard" if state_dict.pop(prefix + _KEY, None) is not None else "ntk"
        wanted, self.parameterisation = self.parameterisation, stored
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)
        self._convert(wanted)


def reparameterise(net: L, parameterisation: Parameterisation) -> L:
    """A copy of a network that computes the same function in another parameterisation.

    Args:
        net: a layer or network.
        parameterisation: "ntk" (parameters N(0, 1), scaled by the forward pass) or "standard" (as torch.nn).

    Returns:
        the copy, whose state dict can be loaded into networks of either parameterisation.

    Raises:
        ValueError: the parameterisation is unknown.
    """
    checked_parameterisation(parameterisation)
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, Weighted):
            module._convert(parameterisation)
    return net
