"""One regression fills an image: the only place that solves, multiplies and puts the observed pixels back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.memory import require_bytes
from torch_cntk.images.coarse import Coarse, enlarged, smaller_estimate, smaller_image
from torch_cntk.images.filler import Equations, Filler, check_filler, of_pass
from torch_cntk.images.observed import Observed, crop
from torch_cntk.solvers import Regression, Solution, Solver, Status, automatic, cross_validated_ridge

__all__ = ["Filled", "each_pass", "fill"]


@dataclass(frozen=True, eq=False)
class Filled:
    """What ``fill`` gives.

    Attributes:
        image: of the given image's shape and dtype; observed pixels are those of the input, to the bit.
        solution: of the regression; its weights are on the canvas and in the units of ``Observed.normalised``.
        ridge: that was taken, relative to the mean of K's diagonal.
        coarse: of a ``Coarse`` filler, what the next pass goes on from.
    """

    image: Tensor
    solution: Solution
    ridge: float
    coarse: OnSmaller | None = None

    @property
    def residual(self) -> float:
        """The largest relative residual of any channel of any image."""
        return float(self.solution.residual.max())

    @property
    def converged(self) -> bool:
        """Whether the solver ended as it should."""
        return self.solution.status in (Status.CONVERGED, Status.EARLY)


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


def fill(
    given: Observed,
    filler: Filler,
    estimate: Tensor | None = None,
    *,
    guess: Filled | None = None,
    progress: bool = False,
) -> Filled:
    """Fill one image, or several that share an operator, by the regression that a filler poses.

    Args:
        given: what is known, of ``Observed.of``. Each channel is filled less the mean of its observed pixels.
        filler: poses the equations.
        estimate: of the image's shape, for fillers that look at one.
        guess: an earlier result for the same pixels, whose weights the solver starts from where the canvas is as large.
            ``Coarse`` fillers go on from where it ended.
        progress: whether to show bars.

    Returns:
        the filled image and the quality of the solution.

    Raises:
        TypeError: the filler has no method ``equations``, or gives something else.
        ValueError: the estimate or the equations do not fit the image, or the filler cannot serve it.
        OutOfMemoryError: the operator would not fit.
    """
    check_filler(filler, series=False)
    filler = of_pass(filler, 0)
    estimate = None if estimate is None else _checked_estimate(given, estimate)
    if given.complete:
        nothing = torch.zeros(given.pixels.shape[:2], dtype=torch.float64, device=given.pixels.device)
        weights = torch.zeros_like(given.pixels, dtype=torch.float64)
        solution = Solution(weights, nothing, 0, 0.0, Status.CONVERGED, "nothing to solve")
        return Filled(given.shaped(given.pixels.clone()), solution, 0.0)
    _require_room(given)
    normal = given.normalised
    estimate = None if estimate is None else given.normalise(estimate)
    if isinstance(filler, Coarse):
        filled = _fill_smaller(normal, filler, estimate, guess, progress)
    else:
        equations = filler.equations(*_to_read(filler, normal, estimate))
        filled = _regress(normal, _checked_equations(normal, equations), guess, progress)
    return replace(filled, image=given.shaped(given.restore(given.denormalise(filled.image))))


def _checked_estimate(given: Observed, estimate: Tensor) -> Tensor:
    """The estimate as [batch, channels, *size] in the image's dtype.

    Raises:
        TypeError: it is no tensor.
        ValueError: it is of another shape than the image, or not finite.
    """
    if not isinstance(estimate, torch.Tensor):
        raise TypeError(f"expected an estimate as a torch tensor, got {type(estimate).__name__}")
    if tuple(estimate.shape) not in (given.shape, tuple(given.pixels.shape)):
        raise ValueError(f"expected an estimate of the image's shape {given.shape}, got {tuple(estimate.shape)}")
    if not bool(torch.isfinite(estimate).all()):
        raise ValueError("expected a finite estimate, got NaN or infinity in it")
    return estimate.detach().to(given.pixels).reshape(given.pixels.shape)


_WORK = (10, 19)
"""Numbers of the image's precision and of float64 that are held for each pixel of each channel while an iteration goes
on, targets, weights and Fourier transforms of a larger canvas among them, as measured on 700 x 700 pixels."""


def _require_room(given: Observed) -> None:
    """Refuse an image for whose equations there is no room.

    Raises:
        OutOfMemoryError: so it is.
    """
    own, double = _WORK
    each = own * given.pixels.dtype.itemsize + 8 * double
    channels = given.pixels.shape[0] * given.pixels.shape[1]
    require_bytes(
        each * given.pixels.numel(),
        f"filling {channels} channel{'s' if channels > 1 else ''} of {shape_text(given.size)} pixels",
        lambda free: f"{free // each:,} pixels of one channel would fit: fill channels or parts one after the other",
        given.pixels.device,
    )


def _to_read(filler: Filler, given: Observed, estimate: Tensor | None) -> tuple[Observed, Tensor | None]:
    """What a filler gets: the package's own only read it, a user's may write into a copy."""
    if type(filler).__module__.split(".")[0] == __name__.split(".")[0]:
        return given, estimate
    relative = None if given.relative is None else given.relative.clone()
    copied = replace(given, pixels=given.pixels.clone(), mask=given.mask.clone(), relative=relative)
    return copied, None if estimate is None else estimate.clone()


def _checked_equations(given: Observed, equations: object) -> Equations:
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


def _regress(given: Observed, equations: Equations, guess: Filled | None, progress: bool) -> Filled:
    """Solve; the image is in the units of ``given`` and its observed pixels are not put back yet."""
    operator, solver, mean = equations.operator, equations.solver, equations.mean
    targets, known = given.on(operator.size, mean)
    ridge = equations.ridge
    if isinstance(ridge, str):
        alike = given.in_one_unit(targets)
        ridge = cross_validated_ridge(operator, known, alike, solver=solver, progress=progress)
    regression = Regression(operator, known, ridge)
    solver = solver or automatic(regression)
    solution = _solve(solver, regression, targets, guess, progress)
    filled = operator @ solution.weights if solution.image is None else solution.image
    if mean is not None:
        filled = filled + mean
    return Filled(crop(filled, given.size), solution, ridge)


def _solve(solver: Solver, regression: Regression, targets: Tensor, guess: Filled | None, progress: bool) -> Solution:
    weights = None if guess is None else guess.solution.weights
    if weights is None or weights.shape != targets.shape:
        return solver.solve(regression, targets, progress=progress)
    return solver.factorise(regression, progress=progress).solve(targets, guess=weights, progress=progress)


def _fill_smaller(
    given: Observed, filler: Coarse, estimate: Tensor | None, guess: Filled | None, progress: bool
) -> Filled:
    """As ``_regress``, by way of a smaller image."""
    last = None if guess is None else guess.coarse
    if last is None or last.factor != filler.factor:
        last = None
        smaller = smaller_image(given, filler.factor)
        estimate = torch.zeros_like(given.pixels) if estimate is None else estimate
        start = smaller_estimate(estimate, filler.factor)
    else:
        smaller, estimate, start = last.given, last.estimate, last.start
    before = None if last is None else last.filled
    filled = fill(
        smaller,
        of_pass(filler.filler, 0),
        start if before is None else before.image,
        guess=before,
        progress=progress,
    )
    change = enlarged(filled.image.reshape(start.shape) - start, filler.factor, given.size)
    below = OnSmaller(filler.factor, smaller, start, estimate, filled)
    return Filled(estimate + change, filled.solution, filled.ridge, below)


def each_pass(
    given: Observed, fillers: Iterable[Filler], estimate: Tensor, *, progress: bool = False
) -> Iterator[Filled]:
    """Fill an image by one filler after the other, each with the last one's result as estimate.

    Args:
        given: what is known.
        fillers: of the passes; there may be no end of them.
        estimate: the first one, of the image's shape.
        progress: whether to show the bars of the solvers.

    Yields:
        the result of each pass.
    """
    filled: Filled | None = None
    for filler in fillers:
        filled = fill(given, filler, estimate, guess=filled, progress=progress)
        estimate = filled.image
        yield filled
