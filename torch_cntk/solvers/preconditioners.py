"""Approximate inverses of K_OO + ridge, cheaper than K @ w."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from torch_cntk.solvers._images import answers_at_once, dot, ratio, spread
from torch_cntk.solvers.base import Regression

__all__ = ["NAMES", "Circulant", "Identity", "Jacobi", "Map", "Nested", "Preconditioner", "choose", "precondition"]

Map = Callable[[Tensor], Tensor]
"""Of images, [n, *size]."""


class Preconditioner(ABC):
    """A symmetric positive definite map on images that are zero at unobserved pixels, perhaps only nearly linear.

    Its numbers are those of the operator's precision; the iteration around it forgives their rounding.
    """

    @abstractmethod
    def restricted(self, mask: Tensor) -> Map:
        """The map of [n, *size] for the right-hand sides' masks, [n or 1, *size]."""


class Identity(Preconditioner):
    """None at all."""

    def restricted(self, mask: Tensor) -> Map:
        """Copy."""
        return torch.clone


class Jacobi(Preconditioner):
    """The inverse of the diagonal."""

    def __init__(self, regression: Regression) -> None:
        diagonal = regression.operator.diagonal + regression.ridge
        # A pixel whose features are all zero has no variance: it is left alone.
        inverse = torch.where(diagonal > 0, diagonal, diagonal.max()).reciprocal()
        self._inverse = inverse.to(regression.operator.dtype)

    def restricted(self, mask: Tensor) -> Map:
        """Divide by the diagonal."""
        return self._inverse.mul


class Circulant(Preconditioner):
    """The inverse of C + ridge on the full image, restricted to the observed pixels; two FFTs.

    C is the mean of K over positions, a function of the displacement alone. All pixels of a deep kernel have much in
    common: the eigenvalue of the constant image is larger than all others by the number of pixels. A restriction would
    mix it with the smallest ones, and conjugate gradients would lose to rounding what they know of it, again and
    again. It is therefore dealt with on the mask itself: with C = N + f 1 1^T and u = N^-1 1 on the observed pixels,
    the inverse is that of N, restricted, less u u^T / (1 / f + 1^T u).

    Raises:
        ValueError: the operator has no stationary average.
    """

    def __init__(self, regression: Regression) -> None:
        operator = regression.operator
        if operator.stationary is None:
            raise ValueError("expected an operator between pixels of an image, got one without displacements")
        spectrum = torch.fft.rfftn(operator.stationary).real.clamp_min(0)
        self._size = operator.size
        self._axes = tuple(range(-len(operator.size), 0))
        # Products of complex and real numbers take twice as long as those of complex ones.
        dtype = torch.promote_types(operator.dtype, torch.complex32)
        self._forward = (spectrum + regression.ridge).to(dtype)
        origin = (0,) * len(operator.size)
        constant = float(spectrum[origin])
        spectrum[origin] = 0
        largest = float(spectrum.max()) or constant
        self._common = max(constant - largest, 0) / math.prod(operator.size)
        spectrum[origin] = min(constant, largest)
        # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
        floor = largest * torch.finfo(operator.dtype).eps
        self._inverse = (spectrum + regression.ridge).clamp_min_(floor).reciprocal_().to(dtype)

    def _filter(self, images: Tensor, spectrum: Tensor, mask: Tensor) -> Tensor:
        transform = torch.fft.rfftn(images, dim=self._axes).mul_(spectrum)
        filtered: Tensor = torch.fft.irfftn(transform, s=self._size, dim=self._axes)
        return filtered.mul_(mask)

    def restricted(self, mask: Tensor) -> Map:
        """Divide by the spectrum, and by that of the constant on its own."""
        if self._common == 0:
            return lambda residual: self._filter(residual, self._inverse, mask)
        along = self._filter(mask, self._inverse, mask)
        along.div_(spread(dot(mask, along).add_(1 / self._common).sqrt_(), along))

        def divide(residual: Tensor) -> Tensor:
            divided = self._filter(residual, self._inverse, mask)
            return divided.addcmul_(spread(dot(along, residual), divided), along, value=-1)

        return divide

    def multiplied(self, mask: Tensor) -> Map:
        """The map (C_OO + ridge) w for w that are zero at unobserved pixels."""
        return lambda images: self._filter(images, self._forward, mask)


class Nested(Preconditioner):
    """The inverse of C_OO + ridge on the same mask, inexactly, by conjugate gradients with FFTs.

    The mask is what defeats ``Circulant``: a restriction of an inverse is no inverse of the restriction. Here it is
    dealt with where products cost two FFTs, and K only has to be multiplied some 10 to 17 times, whatever the mask.

    Args:
        regression: the equations.
        tolerance: of the inner iteration: the norm of its residual, relative, as its own preconditioner measures it.
            That is nearly the energy of the error, which the outer iteration feels; the plain residual would ask too
            much of some masks and too little of others.
        max_iterations: of the inner iteration.

    Raises:
        ValueError: the operator has no stationary average.
    """

    def __init__(self, regression: Regression, tolerance: float = 0.25, max_iterations: int = 400) -> None:
        self._circulant = Circulant(regression)
        self._tolerance = tolerance
        self._max_iterations = max_iterations

    def restricted(self, mask: Tensor) -> Map:
        """Iterate until every right-hand side is within the tolerance; each of them stops on its own."""
        divide, multiply = self._circulant.restricted(mask), self._circulant.multiplied(mask)
        return _InnerIteration(divide, multiply, self._tolerance, self._max_iterations)


_FEWER = 2
"""Iterations by which a run may be shorter than the last one without any in vain."""


class _InnerIteration:
    """Conjugate gradients with a fixed matrix and preconditioner, to a relative residual as the latter measures it.

    Whether all right-hand sides are done is a question to the device, which the host may have to wait for. Then it asks
    no earlier than after nearly as many iterations as the last run took; the result is the same, as what is done stands
    still.
    """

    def __init__(self, divide: Map, multiply: Map, tolerance: float, max_iterations: int) -> None:
        self._divide, self._multiply = divide, multiply
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        self._expected = 0

    def __call__(self, residual: Tensor) -> Tensor:
        residual = residual.clone()
        weights = torch.zeros_like(residual)
        direction = self._divide(residual)
        product = dot(residual, direction)
        goal = product * self._tolerance**2
        for count in range(1, self._max_iterations + 1):
            image = self._multiply(direction)
            length = ratio(product, dot(direction, image)).where(product > goal, 0)
            weights.addcmul_(spread(length, weights), direction)
            residual.addcmul_(spread(length, residual), image, value=-1)
            preconditioned = self._divide(residual)
            before, product = product, dot(residual, preconditioned)
            if count >= self._expected and not bool((product > goal).any()):
                break
            direction = preconditioned.addcmul_(spread(ratio(product, before), direction), direction)
        if not answers_at_once(residual.device):
            self._expected = count - _FEWER
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
