"""What all solvers share: the problem, the way to a solution, and the solution with its quality."""

from __future__ import annotations

import functools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor

from torch_cntk._internal.brief import Brief
from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.contexts import plain
from torch_cntk.operators.base import Operator
from torch_cntk.solvers.batches import dot

__all__ = ["Factorisation", "MaskSolver", "Regression", "Solution", "Solver", "Status", "of_any_scale", "unit_of"]


class Status(Enum):
    """How a solve ended, from best to worst; the value tells the user what to do."""

    CONVERGED = "converged to the tolerance"
    EARLY = "stopped early: the error on the pixels that were left out no longer falls; nothing needs to be done"
    SETTLED = "stopped as the picture no longer changes; nothing needs to be done"
    ITERATIONS = (
        "out of iterations before the tolerance was reached; raise max_iterations (epochs), the ridge or the tolerance"
    )
    SINGULAR = (
        "the kernel is singular on the observed pixels, which therefore cannot all be met exactly: solved in the "
        "least-squares sense; give a ridge, or end the network in a convolution and an activation at full resolution"
    )
    RIDGE = (
        "the kernel is singular, or nearly, on the observed pixels, which therefore cannot be met exactly: solved with "
        "a ridge of 0.001; give it yourself, or end the network in a convolution and an activation at full resolution"
    )
    STAGNATED = (
        "the residual stopped falling: the kernel is singular or its condition is beyond this precision, so the "
        "observed pixels cannot be met exactly; raise the ridge, use float64, or end the network in a convolution and "
        "an activation at full resolution"
    )


@dataclass(frozen=True, repr=False)
class Solution(Brief):
    """Weights of a kernel regression.

    Attributes:
        weights: [..., *size], zero at unobserved pixels.
        residual: [...], the true relative residual |y - (K_OO + ridge) w| / |y| of each right-hand side.
        iterations: taken by the slowest right-hand side; 0 where none is needed.
        seconds: wall time of this solve, without that of the factorisation.
        status: how it ended.
        solver: what solved it, with the choices that were made for the user.
        image: K @ weights, [..., *size], from solvers that have it at hand: the last residual took it.
    """

    weights: Tensor
    residual: Tensor
    iterations: int
    seconds: float
    status: Status
    solver: str
    image: Tensor | None = None


class Regression:
    """The equations (K_OO + ridge * mean(diag K) I) w = y_O on the observed pixels O, as maps on whole images.

    Args:
        operator: K on the whole image.
        observed: boolean, True = known, broadcasts against the right-hand sides [..., *size].
        ridge: relative to the mean of K's diagonal, at least 0.
        inside: boolean [*size], the pixels whose filled values are asked for, where they are not all: solvers that stop
            when these no longer change look at no others.

    Attributes:
        ridge: the number that is added to K's diagonal.
        mask: ``observed`` as numbers of the operator's dtype.

    Raises:
        TypeError: the ridge is no number.
        ValueError: the ridge is negative or not finite.
    """

    def __init__(self, operator: Operator, observed: Tensor, ridge: float, *, inside: Tensor | None = None) -> None:
        self.operator = operator
        self.observed = observed
        self.inside = inside
        self.relative_ridge = finite_number(ridge, "ridge", minimum=0)
        self.ridge = self.relative_ridge * operator.mean_diagonal
        self.mask = observed.to(operator.dtype)

    def flattened(self, shape: tuple[int, ...]) -> Regression:
        """The same equations for right-hand sides [n, *size], n the product of ``shape``."""
        size = self.operator.size
        observed = self.observed
        if observed.ndim > len(size):
            return self._with(observed.expand(*shape, *size).reshape(math.prod(shape), *size))
        return self._with(observed.reshape(1, *observed.shape))

    def select(self, index: Tensor) -> Regression:
        """The equations of some right-hand sides, after ``flattened``."""
        return self if len(self.observed) == 1 else self._with(self.observed[index])

    def _with(self, observed: Tensor) -> Regression:
        other = copy(self)
        other.observed = observed
        other.mask = observed.to(self.mask.dtype)
        return other

    def with_ridge(self, ridge: float) -> Regression:
        """The same equations with another ridge, relative to the mean of K's diagonal."""
        other = copy(self)
        other.relative_ridge, other.ridge = ridge, ridge * self.operator.mean_diagonal
        return other

    def in_bands(self) -> Regression:
        """The same equations on images of which each rank holds a band; themselves where a product needs whole ones."""
        bands = self.operator.in_bands()
        if bands is None:
            return self
        other = self._with(bands.layout.own(self.observed.expand(*self._batch, *self.operator.size)))
        other.operator = bands
        other.inside = None if self.inside is None else bands.layout.own(self.inside)
        return other

    @property
    def _batch(self) -> tuple[int, ...]:
        """Of the masks."""
        return tuple(self.observed.shape[: max(self.observed.ndim - len(self.operator.size), 0)])

    def dot(self, first: Tensor, second: Tensor) -> Tensor:
        """Inner products of images [n, *size] as the operator's layout holds them: [n] in float64, of whole ones."""
        return self.operator.layout.total(dot(first, second))

    def dots(self, first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Those of images with several others, for which ranks talk once."""
        return self.operator.layout.total(torch.stack([dot(first, other) for other in others])).unbind()

    def norm(self, images: Tensor) -> Tensor:
        """Euclidean norms, likewise."""
        return self.dot(images, images).sqrt_()

    def distinct_masks(self) -> tuple[list[Regression], Tensor]:
        """The equations of each distinct mask, and which of them each mask in ``observed`` is, in its batch's shape."""
        size = self.operator.size
        batch = self.observed.shape[: self.observed.ndim - len(size)]
        masks, index = torch.unique(self.observed.reshape(-1, *size), dim=0, return_inverse=True)
        return [self._with(mask) for mask in masks], index.reshape(batch)

    def multiply(self, weights: Tensor) -> Tensor:
        """Left-hand side, for weights that are zero at unobserved pixels."""
        return self.operator.multiply(weights).mul_(self.mask).add_(weights, alpha=self.ridge)

    def image_and_left(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """K @ weights, and the left-hand side as ``multiply`` gives it."""
        image = self.operator.multiply(weights)
        return image, image.mul(self.mask).add_(weights, alpha=self.ridge)


class Factorisation(ABC):
    """What can be done before the right-hand sides are known; serves any number of them under the same mask.

    It can be pickled and copied.
    """

    _size: tuple[int, ...]

    @abstractmethod
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """Solve for further right-hand sides; no gradients are recorded.

        Args:
            targets: y, [..., *size], zero at unobserved pixels.
            guess: weights to begin with, [..., *size], zero at unobserved pixels; direct solvers need none.
            progress: whether to show a bar.

        Returns:
            the weights and their quality.
        """

    def unsaved(self) -> Factorisation:
        """The same for further right-hand sides, whose solves keep no checkpoint."""
        return self


_ORDINARY = 100
"""Numbers between 2^-100 and 2^100 can be squared and added up in any precision that solvers sum in."""

S = TypeVar("S", bound=Callable[..., Solution])


def unit_of(values: Tensor) -> float:
    """A power of 2 near the largest of some numbers, 1 where that is ordinary: a division by it rounds nothing."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    exponent = math.frexp(largest)[1] if 0 < largest < math.inf else 0
    return math.ldexp(1.0, min(exponent, 1023)) if abs(exponent) > _ORDINARY else 1.0


def of_any_scale(solve: S) -> S:
    """Let a ``Factorisation.solve`` see right-hand sides whose squares neither overflow nor vanish.

    Each is divided by a power of 2 if its numbers are not ordinary, and its weights are multiplied by it: the equations
    are linear. The factorisation has the operator's size as ``_size``.
    """

    @functools.wraps(solve)
    def scaled(
        self: Factorisation, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False
    ) -> Solution:
        ndim = len(self._size)
        if unit_of(targets) == 1 and not _has_small_ones(targets, ndim):
            return solve(self, targets, guess=guess, progress=progress)
        shape = targets.shape[: targets.ndim - ndim]
        flat = targets.double().reshape(-1, *targets.shape[targets.ndim - ndim :])
        units = torch.tensor([unit_of(one) for one in flat], dtype=torch.float64, device=flat.device)
        unit = units.reshape(*shape, *(1,) * ndim)
        solution = solve(
            self, targets.double() / unit, guess=None if guess is None else guess / unit, progress=progress
        )
        image = None if solution.image is None else solution.image * unit
        return replace(solution, weights=solution.weights * unit, image=image)

    return scaled  # type: ignore[return-value]


def _has_small_ones(targets: Tensor, ndim: int) -> bool:
    """Whether there is a right-hand side of nothing but very small numbers beside ordinary ones."""
    if targets.ndim == ndim:
        return False
    largest = targets.abs().flatten(targets.ndim - ndim).amax(-1)
    return bool(((largest > 0) & (largest < 2.0**-_ORDINARY)).any())


class Solver(ABC):
    """An immutable set of options, checked when it is built."""

    @abstractmethod
    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Do what does not depend on the right-hand sides."""

    def solve(self, regression: Regression, targets: Tensor, *, progress: bool = False) -> Solution:
        """Factorise and solve for right-hand sides [..., *size], which are zero at unobserved pixels."""
        return self.factorise(regression, progress=progress).solve(targets, progress=progress)


class MaskSolver(Solver):
    """A solver that deals with one mask at a time."""

    @abstractmethod
    def factorise_mask(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """As ``factorise``, for a single mask [*size] and right-hand sides [n, *size]."""

    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Factorise for each distinct mask, and keep all of it."""
        parts, index = self._parts(regression)
        return _OneByOne([self.factorise_mask(part, progress=progress) for part in parts], index, regression)

    def solve(self, regression: Regression, targets: Tensor, *, progress: bool = False) -> Solution:
        """As ``Solver.solve``; only one mask's factorisation is held at a time."""
        parts, index = self._parts(regression)
        one_by_one = (self.factorise_mask(part, progress=progress) for part in parts)
        return _OneByOne(one_by_one, index, regression).solve(targets, progress=progress)

    def _parts(self, regression: Regression) -> tuple[list[Regression], Tensor]:
        """The equations of each mask, and which of them each right-hand side has.

        Raises:
            ValueError: there are several, which are solved one after the other, and one checkpoint.
        """
        parts, index = regression.distinct_masks()
        if len(parts) > 1 and getattr(self, "checkpoint", None) is not None:
            raise ValueError(
                f"expected one mask for all right-hand sides beside a checkpoint of {type(self).__name__}, got "
                f"{len(parts)}; ConjugateGradient solves them at once"
            )
        return parts, index


class _OneByOne(Factorisation):
    """Right-hand sides of several masks, solved mask by mask."""

    def __init__(self, parts: Iterable[Factorisation], index: Tensor, regression: Regression) -> None:
        self._parts = parts
        self._index = index
        self._size = regression.operator.size

    def unsaved(self) -> Factorisation:
        """See ``Factorisation.unsaved``."""
        other = copy(self)
        other._parts = [part.unsaved() for part in self._parts]
        return other

    @plain()
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``; the worst status of all masks is that of the whole."""
        start = time.perf_counter()
        shape = targets.shape[: targets.ndim - len(self._size)]
        index = self._index.expand(shape).reshape(-1)
        flat = targets.reshape(-1, *self._size)
        weights = torch.zeros_like(flat, dtype=torch.float64)
        residual = torch.zeros(len(flat), dtype=torch.float64, device=flat.device)
        solutions = []
        for number, part in enumerate(self._parts):
            mine = index == number
            first = None if guess is None else guess.reshape(flat.shape)[mine]
            solution = part.solve(flat[mine], guess=first, progress=progress)
            weights[mine], residual[mine] = solution.weights, solution.residual
            solutions.append(solution)
        order = list(Status)
        return Solution(
            weights.reshape(targets.shape),
            residual.reshape(shape),
            max(solution.iterations for solution in solutions),
            time.perf_counter() - start,
            max((solution.status for solution in solutions), key=order.index),
            solutions[0].solver,
        )
