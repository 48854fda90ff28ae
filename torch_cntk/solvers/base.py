"""What all solvers share: the problem, and the answer with its quality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from torch_cntk._checks import finite_number
from torch_cntk.operators import Operator

__all__ = ["Regression", "Solution", "Solver", "Status"]


class Status(Enum):
    """How a solve ended; the value tells the user what to do."""

    CONVERGED = "converged to the tolerance"
    ITERATIONS = "out of iterations before the tolerance was reached; raise max_iterations, the ridge or the tolerance"
    STAGNATED = (
        "the residual stopped falling: the kernel is singular or its condition is beyond this precision, so the "
        "observed pixels cannot be met exactly; raise the ridge, use float64, or end the network in a convolution and "
        "an activation at full resolution"
    )


@dataclass(frozen=True)
class Solution:
    """Weights of a kernel regression.

    Attributes:
        weights: [..., *size], zero at unobserved pixels.
        residual: [...], the true relative residual |y - (K_OO + ridge) w| / |y| of each right-hand side.
        iterations: taken by the slowest right-hand side.
        status: how it ended.
    """

    weights: Tensor
    residual: Tensor
    iterations: int
    status: Status


class Regression:
    """The equations (K_OO + ridge * mean(diag K) I) w = y_O on the observed pixels O, as maps on whole images.

    Weights and residuals are float64, whatever the operator multiplies in: rounded weights would put an error into the
    sum over the image that meets K's largest eigenvalue, some 10^5 times the smallest ones.

    Args:
        operator: K on the whole image.
        observed: boolean, True = known, broadcasts against the right-hand sides [..., *size].
        ridge: relative to the mean of K's diagonal, at least 0.

    Raises:
        TypeError: the ridge is no number.
        ValueError: the ridge is negative or not finite.
    """

    def __init__(self, operator: Operator, observed: Tensor, ridge: float) -> None:
        self.operator = operator
        self.observed = observed
        self.ridge = finite_number(ridge, "ridge", minimum=0) * operator.mean_diagonal
        self._mask = observed.to(torch.float64)
        spectrum = operator.spectrum()
        # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
        floor = spectrum.max() * torch.finfo(operator.dtype).eps
        self._inverse = (spectrum + self.ridge).clamp_min_(float(floor)).reciprocal_()

    def flattened(self, shape: tuple[int, ...]) -> Regression:
        """The same equations for right-hand sides [n, *size], n the product of ``shape``."""
        flat = copy(self)
        size = self.operator.size
        if self.observed.ndim > len(size):
            flat.observed = self.observed.expand(*shape, *size).reshape(-1, *size)
            flat._mask = flat.observed.to(self._mask.dtype)
        return flat

    def multiply(self, weights: Tensor) -> Tensor:
        """Left-hand side, for weights that are zero at unobserved pixels."""
        return (self.operator @ weights).mul_(self._mask).add_(weights, alpha=self.ridge)

    def precondition(self, residual: Tensor) -> Tensor:
        """The inverse of the stationary average of K on the full image, restricted to the observed pixels."""
        size = self.operator.size
        axes = tuple(range(-len(size), 0))
        transform = torch.fft.rfftn(residual.to(self.operator.dtype), dim=axes).mul_(self._inverse)
        image: Tensor = torch.fft.irfftn(transform, s=size, dim=axes)
        return image * self._mask


class Solver(ABC):
    """An immutable set of options; ``solve`` does the work."""

    @abstractmethod
    def solve(self, regression: Regression, targets: Tensor, progress: bool = False) -> Solution:
        """Solve for right-hand sides [..., *size], which are zero at unobserved pixels."""
