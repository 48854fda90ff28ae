"""Approximate inverses of K_OO + ridge, cheaper than K @ w."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from torch_cntk.solvers._images import dot, ratio, spread
from torch_cntk.solvers.base import Regression

__all__ = ["NAMES", "Circulant", "Identity", "Jacobi", "Nested", "Preconditioner", "choose", "precondition"]


class Preconditioner(ABC):
    """A symmetric positive definite map on images that are zero at unobserved pixels, perhaps only nearly linear.

    Its numbers are those of the operator's precision; the iteration around it forgives their rounding.
    """

    @abstractmethod
    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """Apply to [n, *size]; ``mask`` is that of the right-hand sides, [n or 1, *size]."""


class Identity(Preconditioner):
    """None at all."""

    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """Return a copy."""
        return residual.clone()


class Jacobi(Preconditioner):
    """The inverse of the diagonal."""

    def __init__(self, regression: Regression) -> None:
        diagonal = regression.operator.diagonal + regression.ridge
        # A pixel whose features are all zero has no variance: it is left alone.
        inverse = torch.where(diagonal > 0, diagonal, diagonal.max()).reciprocal()
        self._inverse = inverse.to(regression.operator.dtype)

    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """Divide by the diagonal."""
        return residual * self._inverse


class Circulant(Preconditioner):
    """The inverse of C + ridge on the full image, restricted to the observed pixels; two FFTs.

    C is the mean of K over positions, a function of the displacement alone.

    Raises:
        ValueError: the operator has no stationary average.
    """

    def __init__(self, regression: Regression) -> None:
        operator = regression.operator
        if operator.stationary is None:
            raise ValueError("expected an operator between pixels of an image, got one without displacements")
        spectrum = torch.fft.rfftn(operator.stationary).real.clamp_min_(0)
        # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
        floor = float(spectrum.max()) * torch.finfo(operator.dtype).eps
        self._size = operator.size
        self._axes = tuple(range(-len(operator.size), 0))
        self._inverse = (spectrum + regression.ridge).clamp_min_(floor).reciprocal_().to(operator.dtype)
        self._forward = (spectrum + regression.ridge).to(operator.dtype)

    def _filter(self, images: Tensor, spectrum: Tensor, mask: Tensor) -> Tensor:
        transform = torch.fft.rfftn(images.to(spectrum.dtype), dim=self._axes).mul_(spectrum)
        filtered: Tensor = torch.fft.irfftn(transform, s=self._size, dim=self._axes)
        return filtered.mul_(mask)

    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """Divide by the spectrum."""
        return self._filter(residual, self._inverse, mask)

    def multiply(self, images: Tensor, mask: Tensor) -> Tensor:
        """(C_OO + ridge) w for w that are zero at unobserved pixels."""
        return self._filter(images, self._forward, mask)


class Nested(Preconditioner):
    """The inverse of C_OO + ridge on the same mask, to a small relative residual, by conjugate gradients with FFTs.

    The mask is what defeats ``Circulant``: a restriction of an inverse is no inverse of the restriction. Here it is
    dealt with where products cost two FFTs, and K only has to be multiplied some 15 to 20 times, whatever the mask.

    Args:
        regression: the equations.
        tolerance: relative residual of the inner iteration.
        max_iterations: of the inner iteration.

    Raises:
        ValueError: the operator has no stationary average.
    """

    def __init__(self, regression: Regression, tolerance: float = 0.2, max_iterations: int = 400) -> None:
        self._circulant = Circulant(regression)
        self._tolerance = tolerance
        self._max_iterations = max_iterations

    def __call__(self, residual: Tensor, mask: Tensor) -> Tensor:
        """Iterate until every right-hand side is within the tolerance."""
        residual = residual.clone()
        goal = dot(residual, residual) * self._tolerance**2
        weights = torch.zeros_like(residual)
        direction = self._circulant(residual, mask)
        product = dot(residual, direction)
        for _ in range(self._max_iterations):
            image = self._circulant.multiply(direction, mask)
            curvature = dot(direction, image)
            length = spread(ratio(product, curvature), weights)
            weights.addcmul_(length, direction)
            residual.addcmul_(length, image, value=-1)
            if bool((dot(residual, residual) <= goal).all()):
                break
            preconditioned = self._circulant(residual, mask)
            before, product = product, dot(residual, preconditioned)
            direction.mul_(spread(ratio(product, before), weights)).add_(preconditioned)
        return weights


_BY_NAME: Mapping[str, Callable[[Regression], Preconditioner]] = {
    "none": lambda regression: Identity(),
    "jacobi": Jacobi,
    "circulant": Circulant,
    "nested": Nested,
}
NAMES = (*_BY_NAME, "auto")


def precondition(name: str, regression: Regression) -> Preconditioner:
    """Make the preconditioner of that name.

    Raises:
        ValueError: it needs the pixels of an image, and the operator has none.
    """
    return _BY_NAME[name](regression)


def choose(regression: Regression) -> str:
    """The preconditioner that is likely to be fastest for this operator.

    An iteration of ``Circulant`` is one K @ w and two FFTs, an inner one of ``Nested`` four FFTs and no K @ w. Inner
    iterations are about twice as many, so that nesting pays where K @ w is the dearer part.
    """
    operator = regression.operator
    if operator.stationary is None:
        return "jacobi"
    transforms = 4 * 2.5 * math.log2(max(math.prod(operator.size), 2))
    return "nested" if operator.operations > transforms else "circulant"
