"""Fully connected layers, in the NTK parameterisation."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.covariance import Patches
from torch_cntk.layers.base import C
from torch_cntk.layers.weights import Parameterisation, Weighted, biased, checked_parameterisation

__all__ = ["Linear"]


class Linear(Weighted):
    """A fully connected layer on the last axis: weight_std W x / sqrt(in_features) + bias_std b.

    W and b are N(0, 1), each entry of them.

    Args:
        in_features: length of the input's last axis.
        out_features: length of the output's.
        bias: whether there is one; by default where ``bias_std`` is given.
        bias_std: factor of the bias, 1 by default.
        weight_std: factor of the weights, above 0.
        parameterisation: of the parameters, "ntk" or "standard", which have different NTKs: see
            ``torch_cntk.layers.Weighted``.

    Raises:
        TypeError: a size is no integer, or a standard deviation no number.
        ValueError: a size is below 1, a standard deviation out of range, or the parameterisation unknown.
    """

    ndim = 0
    _unnamed = 2
    in_channels: int
    out_channels: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool | None = None,
        bias_std: float | Tensor | None = None,
        weight_std: float | Tensor = 1.0,
        parameterisation: Parameterisation = "ntk",
    ) -> None:
        super().__init__()
        self.in_channels = positive_int(in_features, "in_features")
        self.out_channels = positive_int(out_features, "out_features")
        has_bias, self.bias_std = biased(bias, bias_std)
        self.weight_std = weight_std
        self.parameterisation = checked_parameterisation(parameterisation)
        self.weight = torch.nn.Parameter(torch.empty(out_features, in_features))
        self.bias = torch.nn.Parameter(torch.empty(out_features)) if has_bias else None
        self.reset_parameters()

    @property
    def in_features(self) -> int:
        """Length of the input's last axis, by the name that ``torch.nn.Linear`` has for it."""
        return self.in_channels

    @property
    def out_features(self) -> int:
        """Length of the output's last axis."""
        return self.out_channels

    @property
    def fan_in(self) -> int:
        """Inputs of each output."""
        return self.in_channels

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Map [..., in_features] to [..., out_features].

        Raises:
            ValueError: the last axis has another length.
        """
        if input.ndim < 1 or input.shape[-1] != self.in_features:
            raise ValueError(f"expected input of shape [..., {self.in_features}], got {tuple(input.shape)}")
        return torch.nn.functional.linear(input, *self.effective())

    def propagate(self, covariance: C) -> C:
        """A weight layer without pixels."""
        return covariance.average_patches(Patches(), self.gains)
