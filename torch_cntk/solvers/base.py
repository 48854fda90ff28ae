"""What all solvers share: the problem, the way to a solution, and the solution with its quality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from torch_cntk._checks import finite_number
from torch_cntk.operators import Operator

__all__ = ["Factorisation", "Regression", "Solution", "Solver", "Status"]


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
        seconds: wall time of this solve, without that of the factorisation.
        status: how it ended.
        solver: what solved it, with the choices that were made for the user.
    """

    weights: Tensor
    residual: Tensor
    iterations: int
    seconds: float
    status: Status
    solver: str


class Regression:
    """The equations (K_OO + ridge * mean(diag K) I) w = y_O on the observed pixels O, as maps on whole images.

    Args:
        operator: K on the whole image.
        observed: boolean, True = known, broadcasts against the right-hand sides [..., *size].
        ridge: relative to the mean of K's diagonal, at least 0.

    Attributes:
        ridge: the number that is added to K's diagonal.
        mask: ``observed`` as numbers of the operator's dtype.

    Raises:
        TypeError: the ridge is no number.
        ValueError: the ridge is negative or not finite.
    """

    def __init__(self, operator: Operator, observed: Tensor, ridge: float) -> None:
        self.operator = operator
        self.observed = observed
        self.relative_ridge = finite_number(ridge, "ridge", minimum=0)
        self.ridge = self.relative_ridge * operator.mean_diagonal
        self.mask = observed.to(operator.dtype)

    def flattened(self, shape: tuple[int, ...]) -> Regression:
        """The same equations for right-hand sides [n, *size], n the product of ``shape``."""
        size = self.operator.size
        observed = self.observed
        if observed.ndim > len(size):
            observed = observed.expand(*shape, *size)
        return self._with(observed.reshape(-1, *size))

    def select(self, index: Tensor) -> Regression:
        """The equations of some right-hand sides, after ``flattened``."""
        return self if len(self.observed) == 1 else self._with(self.observed[index])

    def _with(self, observed: Tensor) -> Regression:
        other = copy(self)
        other.observed = observed
        other.mask = observed.to(self.mask.dtype)
        return other

    def multiply(self, weights: Tensor) -> Tensor:
        """Left-hand side, for weights that are zero at unobserved pixels."""
        return (self.operator @ weights).mul_(self.mask).add_(weights, alpha=self.ridge)


class Factorisation(ABC):
    """What can be done before the right-hand sides are known; serves any number of them under the same mask."""

    @abstractmethod
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """Solve for further right-hand sides.

        Args:
            targets: y, [..., *size], zero at unobserved pixels.
            guess: weights to begin with, [..., *size], zero at unobserved pixels; direct solvers need none.
            progress: whether to show a bar.

        Returns:
            the weights and their quality.
        """


class Solver(ABC):
    """An immutable set of options, checked when it is built."""

    @abstractmethod
    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Do what does not depend on the right-hand sides."""

    def solve(self, regression: Regression, targets: Tensor, *, progress: bool = False) -> Solution:
        """Factorise and solve for right-hand sides [..., *size], which are zero at unobserved pixels."""
        return self.factorise(regression, progress=progress).solve(targets, progress=progress)
