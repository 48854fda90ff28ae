"""Solve the equations that a filler poses: the regression of an image, or of a part of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import ranks_of
from torch_cntk._internal.brief import Brief
from torch_cntk._internal.dealing import exchanged
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.canvas import crop, extend
from torch_cntk.images.filler import Equations
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.images.posterior import Posterior, Solved, posterior_of
from torch_cntk.images.windows import Window
from torch_cntk.operators.base import Operator
from torch_cntk.solvers import (
    Factorisation,
    Regression,
    Solution,
    Solver,
    Status,
    automatic,
    cross_validated_ridge,
)
from torch_cntk.solvers.bands import band_count

_OVERLAPS = 1.3
"""Work on bands that overlap, times that on the image: an eighth to a half more, as bands are long or short."""

__all__ = ["Filled", "Kept", "OnSmaller", "Part", "checked_equations", "regress"]


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
        kept: what solves for further right-hand sides, if that was asked for.
        posterior: what is left open, if that was asked for.
    """

    image: Tensor
    solution: Solution
    ridge: float
    coarse: OnSmaller | None = None
    parts: tuple[Part, ...] = ()
    kept: Kept | None = None
    posterior: Posterior | None = None

    @property
    def residual(self) -> float:
        """The largest relative residual of any channel of any image."""
        return float(self.solution.residual.max())

    @property
    def converged(self) -> bool:
        """Whether the solver ended as it should."""
        return self.solution.status in (Status.CONVERGED, Status.EARLY, Status.SETTLED)


@dataclass(frozen=True, eq=False)
class Kept:
    """The equations of a fill, and what solves them."""

    regression: Regression
    factorisation: Factorisation


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


def regress(given: Observed, equations: Equations, guess: Filled | None, how: How) -> Filled:
    """Solve; the image is in the units of ``given`` and its observed pixels are not put back yet.

    Args:
        given: the image.
        equations: of the regression.
        guess: an earlier result, see ``fill``.
        how: of its ranks, they divide the channels, or else the products with K.
    """
    mesh, keep, draws, progress = how.mesh, how.keep, how.draws, how.progress
    operator, solver, mean = equations.operator, equations.solver, equations.mean
    one_solve = keep or draws is not None or getattr(solver, "checkpoint", None) is not None
    alone = mesh is None or operator.takes_all_ranks or one_solve
    by_channel = not alone and _channels_pay(given, operator, ranks_of(mesh).size)
    if mesh is not None and (not by_channel or isinstance(equations.ridge, str)):
        operator = operator.divided(mesh)
    targets, known = given.on(operator.size, mean)
    ridge = equations.ridge
    if isinstance(ridge, str):
        alike = given.in_one_unit(targets)
        ridge = cross_validated_ridge(operator, known, alike, solver=solver, progress=progress)
    inside = extend(known.new_ones(given.size), tuple(operator.size))
    regression = Regression(equations.operator if by_channel else operator, known, ridge, inside=inside)
    solver = solver or automatic(regression)
    weights = None if guess is None else _on_canvas(guess.solution.weights, targets.shape, given.size)
    factorisation: Factorisation | None = None
    if by_channel:
        assert mesh is not None
        solution = _by_channel(mesh, solver, regression, targets, weights, progress)
    elif weights is None and draws is None and not keep:
        solution = solver.solve(regression, targets, progress=progress)
    else:
        factorisation = solver.factorise(regression, progress=progress)
        solution = factorisation.solve(targets, guess=weights, progress=progress)
    filled = operator.multiply(solution.weights) if solution.image is None else solution.image
    if mean is not None:
        filled = filled + mean
    image, posterior, kept = crop(filled, given.size), None, None
    if factorisation is not None and draws is not None:
        solved = Solved(regression, solver, factorisation, solution, targets, image, progress)
        posterior = posterior_of(given, solved, draws)
    if factorisation is not None and keep:
        kept = Kept(regression, factorisation)
    return Filled(image, solution, ridge, kept=kept, posterior=posterior)


def _channels_pay(given: Observed, operator: Operator, ranks: int) -> bool:
    """Whether ranks that divide the channels have more to do than those that divide the image into bands."""
    channels = given.pixels.shape[1]
    # Of the channels, some rank has this share.
    largest = math.ceil(channels / ranks) / channels
    return channels > 1 and ranks > 1 and largest < _OVERLAPS / band_count(operator.size, ranks)


def _by_channel(
    mesh: Mesh, solver: Solver, regression: Regression, targets: Tensor, weights: Tensor | None, progress: bool
) -> Solution:
    """Each rank solves for some of the channels: right-hand sides know nothing of each other.

    Most of the time goes into the preconditioner, which the ranks do not divide otherwise.
    """
    start = time.perf_counter()
    mine = mesh.share(targets.shape[1])
    own: Solution | None = None
    with mesh.together():
        if mine.start < mine.stop:
            first = None if weights is None else weights[:, mine]
            own = solver.factorise(regression, progress=progress).solve(
                targets[:, mine], guess=first, progress=progress
            )
            own = replace(own, image=regression.operator.multiply(own.weights) if own.image is None else own.image)
    solutions = [one for one in exchanged(mesh, own, targets.device) if one is not None]
    order = list(Status)
    return Solution(
        torch.cat([one.weights for one in solutions], 1),
        torch.cat([one.residual for one in solutions], 1),
        max(one.iterations for one in solutions),
        time.perf_counter() - start,
        max((one.status for one in solutions), key=order.index),
        solutions[0].solver,
        torch.cat([one.image for one in solutions if one.image is not None], 1),
    )


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
