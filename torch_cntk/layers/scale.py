"""Multiplication by a constant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance.duals import Dual, Tuned
from torch_cntk.covariance.duals.gradients import Gradients, Sensitivities, gradients_of, sensitivities_of
from torch_cntk.layers.base import C, Layer

__all__ = ["Scale"]


@dataclass(frozen=True)
class _Multiple:
    """The dual of u -> c u: c^2 sigma, and a slope of c^2."""

    factor: float

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value (in sigma's memory) and slope."""
        square = self.factor**2
        slope = torch.full_like(sigma, square)
        return sigma.mul_(square), slope


@gradients_of.register
def _of_multiple(dual: _Multiple) -> Gradients:
    """Of value = c^2 sigma and a constant slope."""
    square = dual.factor**2
    return lambda s, v, w, value, slope: (square * value, torch.zeros_like(v), torch.zeros_like(w))


@sensitivities_of.register
def _by_square(dual: _Multiple) -> Sensitivities:
    """By c^2."""
    return lambda s, v, w: [(s, torch.ones_like(s))]


class Scale(Layer):
    """A constant times the features: Sigma' = c^2 Sigma, Theta' = c^2 Theta. ``Residual(ReLU(), conv, Scale(0.1))``.

    Args:
        factor: c, finite and not 0; a tensor of one number passes gradients on.

    Raises:
        TypeError: the factor is no number.
        ValueError: it is not finite, or 0.
    """

    factor = Tunable(but_zero=True)

    def __init__(self, factor: float | Tensor) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Multiply a tensor of any shape."""
        return live(self, "factor") * input

    def propagate(self, covariance: C) -> C:
        """A linear function, by its dual."""
        factor = live(self, "factor")
        dual: Dual = _Multiple(self.factor)
        return covariance.activate(dual if isinstance(factor, float) else Tuned(dual, (factor**2,)))
