"""Duals of activations whose options are tensors, through which gradients pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import Dual
from torch_cntk.covariance.duals.piecewise import Rectifier

__all__ = ["Tuned", "rectifier"]


@dataclass(frozen=True, eq=False)
class Tuned:
    """A dual at the present numbers of its options, and the tensors that these are made of.

    Attributes:
        dual: of numbers.
        parameters: what it depends on, tensors []: which they are, the rule in ``gradients`` says.
    """

    dual: Dual
    parameters: tuple[Tensor, ...]

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and slope."""
        return self.dual(sigma, variance, other_variance)


def rectifier(below: float | Tensor, above: float | Tensor = 1.0) -> Dual:
    """The dual of slopes below and above 0; of tensors, the only parameter is ``Rectifier.bend``."""
    numbers = Rectifier(*(s.item() if isinstance(s, torch.Tensor) else s for s in (below, above)))
    if not (isinstance(below, torch.Tensor) or isinstance(above, torch.Tensor)):
        return numbers
    # Squares of very large or small slopes are no numbers.
    unit = math.ldexp(1.0, math.frexp(max(abs(numbers.negative_slope), abs(numbers.positive_slope)))[1])
    low, high = below / unit, above / unit
    bend = torch.as_tensor((high - low) ** 2 / (high**2 + low**2) / math.pi)
    return Tuned(numbers, (bend,))
