"""Approximate inverses of K_OO + ridge, cheaper than K @ w."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from torch_cntk.operators.base import Operator, transforms_cost
from torch_cntk.solvers.base import Regression
from torch_cntk.solvers.batches import answers_at_once, dot, ratio, spread
from torch_cntk.solvers.common import Common, sums
from torch_cntk.solvers.landmarks import LandmarkNystrom, Landmarks, suggested
from torch_cntk.solvers.nystrom import Nystrom
from torch_cntk.solvers.preconditioner import Map, Preconditioner

__all__ = [
    "NAMES",
    "Choice",
    "Circulant",
    "Identity",
    "Jacobi",
    "Laplacian",
    "Map",
    "Name",
    "Nested",
    "Nystrom",
    "Preconditioner",
    "choose",
    "precondition",
    "works_in_bands",
]


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
        inverse = torch.where(diagonal > 0, diagonal, regression.operator.mean_diagonal or 1.0).reciprocal()
        self._inverse = inverse.to(regression.operator.dtype)

    def restricted(self, mask: Tensor) -> Map:
        """Divide by the diagonal."""
        return self._inverse.mul


class Circulant(Preconditioner):
    """The inverse of C + ridge on the full image, restricted to the observed pixels; two FFTs.

    C is the mean of K over positions, a function of the displacement alone. All pixels of a deep kernel have much in
    common: the eigenvalue of the constant image exceeds all others by the number of pixels. A restriction would mix it
    with the smallest ones, and conjugate gradients would lose to rounding what they know of it, again and again. It is
    dealt with on the mask itself: C = N + f 1 1^T, and see ``Common``.

    Raises:
        ValueError: the operator has no stationary average.
    """

    def __init__(self, regression: Regression) -> None:
        operator = regression.operator
        if operator.stationary is None:
            raise ValueError("expected an operator between pixels of an image, got one without displacements")
        spectrum = torch.fft.rfftn(operator.stationary).real.clamp_min(0)
        self._size, self._dtype = tuple(operator.stationary.shape), operator.dtype
        self._axes = tuple(range(-len(self._size), 0))
        origin = (0,) * len(self._size)
        constant = float(spectrum[origin])
        spectrum[origin] = 0
        self.largest = float(spectrum.max()) or constant
        self.common = max(constant - self.largest, 0) / math.prod(self._size)
        spectrum[origin] = min(constant, self.largest)
        self._forward = self._paired(spectrum + regression.ridge)
        # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
        floor = self.largest * torch.finfo(operator.dtype).eps
        self._inverse = self._paired((spectrum + regression.ridge).clamp_min_(floor).reciprocal_())

    def _paired(self, spectrum: Tensor) -> Tensor:
        """Each number twice, for real and imaginary parts: faster than complex numbers times real ones, or complex."""
        return torch.stack((spectrum, spectrum), -1).to(self._dtype)

    def _filter(self, images: Tensor, spectrum: Tensor, mask: Tensor) -> Tensor:
        transform = torch.fft.rfftn(images, dim=self._axes)
        torch.view_as_real(transform).mul_(spectrum)
        filtered: Tensor = torch.fft.irfftn(transform, s=self._size, dim=self._axes)
        return filtered.mul_(mask)

    def restricted(self, mask: Tensor) -> Common:
        """Divide by the spectrum, and by that of the constant on its own."""
        return Common(lambda residual: self._filter(residual, self._inverse, mask), mask, self.common)

    def multiplied(self, mask: Tensor) -> Map:
        """The map (C_OO + ridge) w for w that are zero at unobserved pixels.

        What all pixels have in common is added by itself, summed in float64: its eigenvalue grows with the number of
        pixels, and in the transform its rounding would exceed the smallest ones in images of a few megapixels.
        """

        def multiply(images: Tensor) -> Tensor:
            common = sums(images) * self.common
            return self._filter(images, self._forward, mask).addcmul_(spread(common, images), mask)

        return multiply


class Laplacian(Preconditioner):
    """Each pixel less the mean of its neighbours, nearly: a rough inverse of a smooth kernel, without FFTs.

    Args:
        circulant: knows what all pixels have in common, which is dealt with as it does.
    """

    def __init__(self, circulant: Circulant) -> None:
        # In units of the largest eigenvalue, those of the product with N are about 1.
        self._common = circulant.common / circulant.largest

    def restricted(self, mask: Tensor) -> Common:
        """Sharpen, and divide by the constant."""
        return Common(lambda images: _sharpened(images, mask), mask, self._common)


def _sharpened(images: Tensor, mask: Tensor) -> Tensor:
    """(1 + bluntness) times the images, less the mean of each pixel's neighbours."""
    dims = range(1, images.ndim)
    share = 1 / (2 * len(dims))
    sharp = images * (1 + _BLUNTNESS)
    for dim, n in zip(dims, images.shape[1:], strict=True):
        sharp.narrow(dim, 1, n - 1).sub_(images.narrow(dim, 0, n - 1), alpha=share)
        sharp.narrow(dim, 0, n - 1).sub_(images.narrow(dim, 1, n - 1), alpha=share)
    return sharp.mul_(mask)


_BLUNTNESS = 0.01
"""What keeps the difference from its neighbours' mean positive definite."""


_INNER_TOLERANCE = 0.25
"""Enough for 10 to 18 outer iterations; a tighter one takes more inner iterations than it saves outer ones."""
_INNER_ITERATIONS = 400
"""Where so many have not been enough, the outer iteration goes on with what there is."""


class Nested(Preconditioner):
    """The inverse of C_OO + ridge on the same mask, inexactly, by conjugate gradients with FFTs.

    The mask is what defeats ``Circulant``: a restriction of an inverse is no inverse of the restriction. Here it is
    dealt with where products cost two FFTs, and K only has to be multiplied some 10 to 18 times, whatever the mask.

    The inner iteration is preconditioned in turn. Where pixels are missing one by one, no restricted inverse is much
    better than ``Laplacian``; for holes ``Circulant`` is. See ``_InnerIteration``.

    Args:
        regression: the equations.
        tolerance: of the inner iteration: the norm of its residual, relative, as its own preconditioner measures it.
            That is nearly the energy of the error, which the outer iteration feels; the plain residual would ask too
            much of some masks and too little of others.
        max_iterations: of the inner iteration.

    Raises:
        ValueError: the operator has no stationary average.
    """

    iterates = True

    def __init__(
        self, regression: Regression, tolerance: float = _INNER_TOLERANCE, max_iterations: int = _INNER_ITERATIONS
    ) -> None:
        self._circulant = Circulant(regression)
        self._laplacian = Laplacian(self._circulant)
        self._tolerance = tolerance
        self._max_iterations = max_iterations

    def restricted(self, mask: Tensor) -> Map:
        """Iterate until every right-hand side is within the tolerance; each of them stops on its own."""
        divides = self._circulant.restricted(mask), self._laplacian.restricted(mask)
        return _InnerIteration(self._circulant.multiplied(mask), divides, self._tolerance, self._max_iterations)


_FEWER = 2
"""Iterations by which a run may be shorter than the last one without any in vain."""
_TRIAL = 5
"""Iterations from which it is worth while to try another preconditioner."""


class _InnerIteration:
    """Conjugate gradients with a fixed matrix, to a relative residual as the preconditioner measures it.

    There are two preconditioners, of which the second takes half of the time. The first solve is with the first one; if
    that was not quickly done, the next solve tries the other, in no more time, and the better one is kept.

    Whether all right-hand sides are done is a question to the device, which the host may have to wait for. Then it asks
    no earlier than after nearly as many iterations as the last run took; the result is the same, as what is done stands
    still.
    """

    def __init__(self, multiply: Map, divides: tuple[Common, Common], tolerance: float, max_iterations: int) -> None:
        self._multiply = multiply
        self._divide: Map
        self._other: Map
        self._divide, self._other = divides
        self._tolerance = tolerance
        self._max_iterations = max_iterations
        self._settle = divides[0].settle
        self._tried = False
        self._count = self._unasked = 0

    def state(self) -> dict[str, Any]:
        """Which preconditioner is in use, and how many iterations the last run took."""
        return {
            "changed": self._divide is self._other,
            "tried": self._tried,
            "count": self._count,
            "unasked": self._unasked,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as if the runs behind a state had been made here."""
        self._divide = self._other if state["changed"] else self._divide
        self._tried, self._count, self._unasked = state["tried"], state["count"], state["unasked"]

    def __call__(self, residual: Tensor) -> Tensor:
        """Of a residual; see ``Common.settle``."""
        return self._settle(self._solve(residual), residual)

    def _solve(self, residual: Tensor) -> Tensor:
        if self._tried or self._count < _TRIAL:
            weights, count, _ = self._iterate(residual, self._divide, self._max_iterations)
        else:
            self._tried, self._unasked = True, 0
            weights, count, done = self._iterate(residual, self._other, 2 * self._count)
            if done:
                self._divide = self._other
            else:
                count = 0
        self._count = count
        self._unasked = 0 if answers_at_once(residual.device) or not self._tried else max(count - _FEWER, 0)
        return weights

    def _iterate(self, residual: Tensor, divide: Map, most: int) -> tuple[Tensor, int, bool]:
        """The weights, the number of iterations, and whether they were enough."""
        residual = residual.clone()
        weights = torch.zeros_like(residual)
        direction = divide(residual)
        product = dot(residual, direction)
        goal = product * self._tolerance**2
        done = ~(product > goal)
        for count in range(1, most + 1):
            image = self._multiply(direction)
            length = ratio(product, dot(direction, image)).masked_fill_(done, 0)
            weights.addcmul_(spread(length, weights), direction)
            residual.addcmul_(spread(length, residual), image, value=-1)
            preconditioned = divide(residual)
            before, product = product, dot(residual, preconditioned)
            done = ~(product > goal)
            if count > self._unasked and bool(done.all()):
                return weights, count, True
            direction = preconditioned.addcmul_(spread(ratio(product, before), direction), direction)
        return weights, most, False


Name = Literal["none", "jacobi", "laplacian", "circulant", "nested", "nystrom"]
"""Of a preconditioner."""
Choice = Literal[Name, "auto"]

_BY_NAME: Mapping[Name, Callable[[Regression], Preconditioner]] = {
    "none": lambda regression: Identity(),
    "jacobi": Jacobi,
    "laplacian": lambda regression: Laplacian(Circulant(regression)),
    "circulant": Circulant,
    "nested": Nested,
    "nystrom": Nystrom,
}
NAMES: tuple[Choice, ...] = (*_BY_NAME, "auto")


def precondition(name: Name | Landmarks, regression: Regression, *, bands: bool = True) -> Preconditioner:
    """Make the preconditioner of that name, or of these landmarks.

    Where ranks divide an image that has room for some bands, an iteration is by bands.

    Args:
        name: of it.
        regression: the equations.
        bands: whether ranks may have bands, and with them states that differ.

    Returns:
        the preconditioner.

    Raises:
        ValueError: it needs the pixels of an image, and the operator has none.
    """
    from torch_cntk.solvers.bands import Bands

    if isinstance(name, Landmarks):
        return LandmarkNystrom(regression, name)
    mesh = regression.operator.mesh
    if bands and name == "nested" and mesh is not None and _several_bands(regression.operator):
        return Bands(regression, mesh)
    return _BY_NAME[name](regression)


def works_in_bands(name: Name | Landmarks, regression: Regression) -> bool:
    """Whether a preconditioner needs no whole images where ranks hold bands: Fourier transforms of the whole do."""
    return name in ("none", "jacobi") or (name == "nested" and _several_bands(regression.operator))


def _several_bands(operator: Operator) -> bool:
    """Whether ranks divide the image, and it has room for some overlapping bands."""
    from torch_cntk.solvers.bands import band_count

    average, mesh = operator.stationary, operator.mesh
    return average is not None and mesh is not None and band_count(tuple(average.shape), mesh.size) > 1


def choose(regression: Regression, *, bands: bool = True) -> Name | Landmarks:
    """The preconditioner that is likely to be fastest for this operator.

    An iteration of ``Circulant`` is one K @ w and two FFTs, an inner one of ``Nested`` two to four FFTs and no K @ w.
    Inner iterations are one to two times as many, so that nesting pays where K @ w is the dearer part by far. It also
    does where ranks hold bands of the image: they divide all of its work, and talk in few iterations.

    Args:
        regression: the equations.
        bands: whether ranks may have bands.
    """
    operator = regression.operator
    if operator.stationary is None:
        return suggested(regression) or "jacobi"
    if bands and operator.in_bands() is not None and _several_bands(operator):
        return "nested"
    return "nested" if operator.cost > _DEARER * transforms_cost(operator.size) else "circulant"


_DEARER = 3
"""K @ w takes so many times as long as two Fourier transforms where nesting begins to pay."""
