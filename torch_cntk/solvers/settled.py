"""Conjugate gradients that stop when the picture no longer changes, long before the equations are met."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import plain
from torch_cntk.solvers.base import Factorisation, Regression, Solution, Solver, Status, of_any_scale
from torch_cntk.solvers.batches import ratio, spread
from torch_cntk.solvers.preconditioners import Jacobi

__all__ = ["Settled"]

_IN_A_ROW = 3
"""Steps that must change little one after the other: one alone may, by chance, where few pixels are missing."""


@dataclass(frozen=True)
class Settled(Solver):
    """Conjugate gradients, preconditioned by the diagonal, for a picture that the next pass improves anyway.

    What differs from the textbook:

    1. All right-hand sides take part in each product with K, but each has its own step.
    2. The filled image K w is updated with the weights, of the same products.
    3. The residual does not matter: they stop when three steps in a row changed the missing pixels of every right-hand
       side by no more than ``change``. For a rule on the residual take ``ConjugateGradient``.

    Attributes:
        change: root mean square over the missing pixels, relative to that of the right-hand side over the observed
            ones.
        max_iterations: at most so many.

    Raises:
        TypeError: an option is no number.
        ValueError: an option is out of range.
    """

    change: float = 0.03
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if finite_number(self.change, "change", minimum=0) == 0:
            raise ValueError("expected change > 0, got 0: rounding changes the picture for ever")
        positive_int(self.max_iterations, "max_iterations")

    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Invert the diagonal."""
        return _Diagonal(self, regression)


class _Diagonal(Factorisation):
    def __init__(self, options: Settled, regression: Regression) -> None:
        self._options = options
        self._regression = regression.in_bands()
        self._size = regression.operator.size
        self._text = f"conjugate gradients (jacobi, {str(regression.operator.dtype).removeprefix('torch.')})"

    @plain()
    @of_any_scale
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``; the residual is the updated one."""
        start = time.perf_counter()
        batch = targets.shape[: targets.ndim - len(self._size)]
        layout = self._regression.operator.layout
        flat = layout.own(targets.reshape(-1, *self._size))
        first = None if guess is None else layout.own(guess.reshape(-1, *self._size))
        run = _Run(self._regression.flattened(batch), flat, first)
        most = self._options.max_iterations
        with tqdm(total=most, disable=not progress, desc="conjugate gradients", unit="it", leave=False) as bar:
            status = run.until(self._options.change, most, bar)
        return Solution(
            layout.joined(run.weights.double()).reshape(targets.shape),
            run.residuals.reshape(batch),
            run.iterations,
            time.perf_counter() - start,
            status,
            self._text,
            layout.joined(run.image.double()).reshape(targets.shape),
        )


class _Run:
    """The state of one solve, updated in place. Images are [n, *size], scalars [n].

    Attributes:
        weights: so far.
        image: K @ weights.
        iterations: so far.
    """

    def __init__(self, regression: Regression, targets: Tensor, guess: Tensor | None) -> None:
        self._regression = regression
        dtype = regression.operator.dtype
        self._residual = targets.to(dtype) * regression.mask
        self._norms = self._regression.norm(self._residual)
        self.weights, self.image = torch.zeros_like(self._residual), torch.zeros_like(self._residual)
        if guess is not None:
            self._begin_from(guess.to(dtype))
        self._wanted, counts = _wanted(regression)
        axes = tuple(range(1, targets.ndim))
        observed = regression.operator.layout.total(regression.mask.sum(axes, dtype=torch.float64))
        # A step's norm over the missing pixels that is worth a change of 1.
        self._worth = self._norms * (counts / observed.clamp_min(1)).sqrt()
        self._precondition = Jacobi(regression).restricted(regression.mask)
        self.iterations = 0

    def _begin_from(self, guess: Tensor) -> None:
        """Take weights to begin with, where they are better than none."""
        image, left = self._regression.image_and_left(guess)
        residual = self._residual - left
        better = spread(self._regression.norm(residual) < self._norms, guess)
        self.weights = torch.where(better, guess, self.weights)
        self.image = torch.where(better, image, self.image)
        self._residual = torch.where(better, residual, self._residual)

    @property
    def residuals(self) -> Tensor:
        """Relative to the right-hand sides."""
        return self._regression.norm(self._residual) / torch.where(self._norms > 0, self._norms, 1)

    def until(self, change: float, most: int, bar: tqdm) -> Status:
        """Take steps until the picture has settled."""
        direction = preconditioned = self._precondition(self._residual)
        product = self._regression.dot(self._residual, preconditioned)
        in_a_row = 0
        while in_a_row < _IN_A_ROW and bool((product > 0).any()):
            if self.iterations == most:
                return Status.ITERATIONS
            moved, sound = self._step(direction, product)
            if not sound:
                return Status.STAGNATED
            in_a_row = in_a_row + 1 if bool((moved <= change * self._worth).all()) else 0
            preconditioned = self._precondition(self._residual)
            last, product = product, self._regression.dot(self._residual, preconditioned)
            direction = preconditioned.addcmul_(spread(ratio(product, last), direction), direction)
            bar.update()
        return Status.SETTLED

    def _step(self, direction: Tensor, product: Tensor) -> tuple[Tensor, bool]:
        """Go along a direction; return how far that moves the missing pixels, and whether K curves upwards there."""
        image, left = self._regression.image_and_left(direction)
        curvature = self._regression.dot(direction, left)
        length = ratio(product, curvature)
        step = spread(length, image)
        self.weights.addcmul_(step, direction)
        self.image.addcmul_(step, image)
        self._residual.addcmul_(step, left, value=-1)
        self.iterations += 1
        sound = bool((torch.isfinite(curvature) & ((curvature > 0) | (product == 0))).all())
        return self._regression.norm(image.mul_(self._wanted)) * length, sound


def _wanted(regression: Regression) -> tuple[Tensor, Tensor]:
    """The missing pixels of the image as numbers, [n, *size] or [1, *size], and how many they are."""
    wanted = 1 - regression.mask
    if regression.inside is not None:
        wanted *= regression.inside
    return wanted, regression.operator.layout.total(wanted.sum(tuple(range(1, wanted.ndim)), dtype=torch.float64))
