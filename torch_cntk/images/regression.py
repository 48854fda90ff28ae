"""Solve the equations that a filler poses: the regression of an image, or of a part of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.brief import Brief
from torch_cntk.images.canvas import crop, extend
from torch_cntk.images.filler import Equations
from torch_cntk.images.observed import Observed
from torch_cntk.images.windows import Window
from torch_cntk.solvers import Regression, Solution, Solver, Status, automatic, cross_validated_ridge

__all__ = ["Filled", "OnSmaller", "Part", "checked_equations", "regress"]


@dataclass(frozen=True, eq=False, repr=False)
class Filled(Brief):
    """What ``fill`` gives.

    Attributes:
        image: of the given image's shape and dtype; observed pixels are those of the input, to the bit.
        solution: of the regression; its weights are on the canvas and in the units of ``Observed.normalised``. Of
            several regressions, the worst numbers, and no weights.
        ridge: that was taken, relative to the mean of K's diagonal.
        coarse: of a ``Coarse`` filler, what the next pass goes on from.
        parts: the windows that were filled, each by a regression of its own; empty where the whole was.
    """

    image: Tensor
    solution: Solution
    ridge: float
    coarse: OnSmaller | None = None
    parts: tuple[Part, ...] = ()

    @property
    def residual(self) -> float:
        """The largest relative residual of any channel of any image."""
        return float(self.solution.residual.max())

    @property
    def converged(self) -> bool:
        """Whether the solver ended as it should."""
        return self.solution.status in (Status.CONVERGED, Status.EARLY, Status.SETTLED)


@dataclass(frozen=True, eq=False)
class OnSmaller:
    """A fill of a smaller image.

    Attributes:
        factor: by which it is smaller.
        given: the smaller image.
        start: the first estimate of the smaller image, [batch, channels, *blocks].
        estimate: the first estimate of the whole image, to which changes are added, [batch, channels, *size].
        filled: the smaller image, filled.
    """

    factor: int
    given: Observed
    start: Tensor
    estimate: Tensor
    filled: Filled


@dataclass(frozen=True, eq=False)
class Part:
    """A window, filled.

    Attributes:
        images: those of the batch that it belongs to.
        window: where it is.
        filled: its image is of the window's core, [images, channels, *core], in the units of ``Observed.normalised``,
            and its observed pixels are not put back.
    """

    images: slice
    window: Window
    filled: Filled


def regress(given: Observed, equations: Equations, guess: Filled | None, progress: bool) -> Filled:
    """Solve; the image is in the units of ``given`` and its observed pixels are not put back yet."""
    operator, solver, mean = equations.operator, equations.solver, equations.mean
    targets, known = given.on(operator.size, mean)
    ridge = equations.ridge
    if isinstance(ridge, str):
        alike = given.in_one_unit(targets)
        ridge = cross_validated_ridge(operator, known, alike, solver=solver, progress=progress)
    inside = extend(known.new_ones(given.size), tuple(operator.size))
    regression = Regression(operator, known, ridge, inside=inside)
    solver = solver or automatic(regression)
    solution = _solve(solver, regression, targets, guess, given.size, progress)
    filled = operator @ solution.weights if solution.image is None else solution.image
    if mean is not None:
        filled = filled + mean
    return Filled(crop(filled, given.size), solution, ridge)


def _solve(
    solver: Solver,
    regression: Regression,
    targets: Tensor,
    guess: Filled | None,
    size: tuple[int, ...],
    progress: bool,
) -> Solution:
    weights = None if guess is None else _on_canvas(guess.solution.weights, targets.shape, size)
    if weights is None:
        return solver.solve(regression, targets, progress=progress)
    return solver.factorise(regression, progress=progress).solve(targets, guess=weights, progress=progress)


def _on_canvas(weights: Tensor, shape: torch.Size, size: tuple[int, ...]) -> Tensor | None:
    """Weights of an image of a size on another canvas; None if they are those of other images."""
    ndim = len(size)
    if weights.shape[:-ndim] != shape[:-ndim] or any(n < m for n, m in zip(weights.shape[-ndim:], size, strict=True)):
        return None
    return extend(crop(weights, size), tuple(shape[-ndim:]))


def checked_equations(given: Observed, equations: object) -> Equations:
    """Refuse what a filler must not give.

    Raises:
        TypeError: these are no equations.
        ValueError: the canvas has no room for the image.
    """
    if not isinstance(equations, Equations):
        raise TypeError(f"expected a filler to give Equations, got {type(equations).__name__}")
    canvas = tuple(equations.operator.size)
    if len(canvas) != given.ndim or any(n < m for n, m in zip(canvas, given.size, strict=True)):
        raise ValueError(f"expected an operator on at least the image's {given.size} pixels, got one on {canvas}")
    if equations.mean is not None:
        wanted, got = (*given.pixels.shape[:2], *canvas), tuple(equations.mean.shape)
        fits = len(got) <= len(wanted) and all(n in (1, m) for n, m in zip(got[::-1], wanted[::-1], strict=False))
        if not fits:
            raise ValueError(f"expected a mean that broadcasts against [batch, channels, *canvas] {wanted}, got {got}")
    return equations
