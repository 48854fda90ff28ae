"""Activations, normalised so that E[phi(u)^2] = 1 for u ~ N(0, 1)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from torch_cntk._checks import finite_number
from torch_cntk.duals import Rectifier
from torch_cntk.layers.base import C, Layer

__all__ = ["LeakyReLU", "ReLU"]


class LeakyReLU(Layer):
    """sqrt(2 / (1 + a^2)) times the leaky rectifier of negative slope a.

    Args:
        negative_slope: a, finite, not negative.

    Raises:
        TypeError: the slope is no number.
        ValueError: the slope is negative or not finite.
    """

    _options = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = finite_number(negative_slope, "negative_slope", minimum=0)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Rectify a tensor of any shape."""
        gain = math.sqrt(2 / (1 + self.negative_slope**2))
        return gain * functional.leaky_relu(input, self.negative_slope)

    def propagate(self, covariance: C) -> C:
        """The arc-cosine kernel."""
        return covariance.activate(Rectifier(self.negative_slope))

    def extra_repr(self) -> str:
        """The slope."""
        return f"{self.negative_slope:g}"


class ReLU(Layer):
    """sqrt(2) times the rectifier."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Rectify a tensor of any shape."""
        return math.sqrt(2) * functional.relu(input)

    def propagate(self, covariance: C) -> C:
        """The arc-cosine kernel."""
        return covariance.activate(Rectifier())
