"""One regression fills an image: the only place that solves, multiplies and puts the observed pixels back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.coarse import Coarse, enlarged, smaller_estimate, smaller_image
from torch_cntk.images.filler import Filler, Governed, Local, Pass, Refiner, check_filler, of_pass, over, to_read
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.images.piecewise import fill_windows
from torch_cntk.images.posterior import Draws, nothing_open
from torch_cntk.images.regression import Filled, OnSmaller, checked_equations, regress
from torch_cntk.solvers import Solution, Status

__all__ = ["NOTHING", "Filled", "check_regression", "each_pass", "fill", "fill_by", "passes_by"]

NOTHING = "nothing to solve"
"""The solver of an image that is complete."""


def fill(
    given: Observed,
    filler: Pass,
    estimate: Tensor | None = None,
    *,
    guess: Filled | None = None,
    windows: bool = True,
    progress: bool = False,
    mesh: Mesh | None = None,
    keep: bool = False,
    draws: Draws | None = None,
) -> Filled:
    """Fill one image, or several that share an operator, by the regression that a filler poses.

    Args:
        given: what is known, of ``Observed.of``. Each channel is filled less the mean of its observed pixels.
        filler: poses the equations; or a ``Refiner``, which goes on from the estimate.
        estimate: of the image's shape, for fillers that look at one.
        guess: an earlier result for the same pixels, whose weights the solver starts from where the canvas is as large.
            ``Coarse`` fillers go on from where it ended.
        windows: whether holes may be filled in windows of their own, where the filler is ``Local`` and that is cheaper;
            the result is that of the whole to half a grey level of 8 bits.
        progress: whether to show bars.
        mesh: ranks that call this with the same arguments and divide the windows, or else the products with K.
        keep: whether the result keeps what solves for further right-hand sides; then the image is filled as a whole.
        draws: images to draw from what is left open, by way of one regression of the whole; None for none.

    Returns:
        the filled image and the quality of the solution, on every rank.

    Raises:
        TypeError: the filler has no method ``equations``, or gives something else.
        ValueError: the estimate or the equations do not fit the image, the filler cannot serve it, or images are to be
            drawn of what is no regression of the whole image.
        OutOfMemoryError: the operator would not fit.
    """
    return fill_by(How(windows, progress, mesh, keep, draws), given, filler, estimate, guess)


def fill_by(
    how: How, given: Observed, filler: Pass, estimate: Tensor | None = None, guess: Filled | None = None
) -> Filled:
    """As ``fill``, with all options in one record."""
    check_filler(filler, series=False)
    filler = of_pass(filler, 0)
    if how.draws is not None:
        check_regression(filler)
    estimate = None if estimate is None else _checked_estimate(given, estimate)
    if given.complete:
        posterior = None if how.draws is None else nothing_open(given, how.draws)
        return Filled(given.shaped(given.pixels.clone()), _nothing_solved(given), 0.0, posterior=posterior)
    if isinstance(filler, Refiner):
        return _refined(given, filler, estimate, guess, how)
    windows = how.windows and not how.keep and how.draws is None
    locality = filler.locality(*to_read(filler, given, estimate)) if windows and isinstance(filler, Local) else None
    if locality is not None:
        filled = fill_windows(given, locality, estimate, guess, how)
        if filled is not None:
            return filled
    return _fill_whole(given, filler, estimate, guess, how)


def check_regression(filler: Pass) -> None:
    """Refuse to draw images of what is no regression of the whole image.

    Raises:
        ValueError: it is a ``Refiner``, or on a smaller image.
    """
    if isinstance(filler, Refiner | Coarse):
        raise ValueError(
            f"expected a last pass that is a regression of the whole image to draw samples of, got "
            f"{type(filler).__name__}; pass samples=0, or other passes"
        )


def _nothing_solved(given: Observed) -> Solution:
    nothing = torch.zeros(given.pixels.shape[:2], dtype=torch.float64, device=given.pixels.device)
    weights = torch.zeros_like(given.pixels, dtype=torch.float64)
    return Solution(weights, nothing, 0, 0.0, Status.CONVERGED, NOTHING)


def _refined(given: Observed, refiner: Refiner, estimate: Tensor | None, guess: Filled | None, how: How) -> Filled:
    """Go on from an estimate [batch, channels, *size].

    Raises:
        TypeError: the refiner gives no tensor.
        ValueError: there is no estimate, or it gives another shape.
    """
    if estimate is None:
        raise ValueError(f"expected an estimate that {type(refiner).__name__} goes on from: put it behind another pass")
    normal, start = to_read(refiner, given.normalised, given.normalise(estimate))
    assert start is not None
    refined = refiner.refine_by(how, normal, start) if isinstance(refiner, Governed) else refiner.refine(normal, start)
    if not isinstance(refined, Tensor):
        raise TypeError(f"expected a refiner to give a torch tensor, got {type(refined).__name__}")
    if refined.shape != given.pixels.shape:
        raise ValueError(
            f"expected a refiner to keep the shape {tuple(given.pixels.shape)}, got {tuple(refined.shape)}"
        )
    image = given.shaped(given.restore(given.denormalise(refined)))
    solution, ridge = (_nothing_solved(given), 0.0) if guess is None else (guess.solution, guess.ridge)
    return Filled(image, solution, ridge)


def _fill_whole(given: Observed, filler: Filler, estimate: Tensor | None, guess: Filled | None, how: How) -> Filled:
    """By one regression."""
    _require_room(given)
    normal = given.normalised
    estimate = None if estimate is None else given.normalise(estimate)
    if isinstance(filler, Coarse):
        filled = _fill_smaller(normal, filler, estimate, guess, how)
    else:
        equations = over(how.mesh, filler).equations(*to_read(filler, normal, estimate))
        filled = regress(normal, checked_equations(normal, equations), guess, how)
    posterior = None if filled.posterior is None else filled.posterior.denormalised(given)
    return replace(filled, image=given.shaped(given.restore(given.denormalise(filled.image))), posterior=posterior)


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


def _fill_smaller(given: Observed, filler: Coarse, estimate: Tensor | None, guess: Filled | None, how: How) -> Filled:
    """As ``regress``, by way of a smaller image."""
    last = None if guess is None else guess.coarse
    if last is None or last.factor != filler.factor:
        last = None
        smaller = smaller_image(given, filler.factor)
        estimate = torch.zeros_like(given.pixels) if estimate is None else estimate
        start = smaller_estimate(estimate, filler.factor)
    else:
        smaller, estimate, start = last.given, last.estimate, last.start
    before = None if last is None else last.filled
    below = replace(how, keep=False, draws=None)
    filled = fill_by(below, smaller, of_pass(filler.filler, 0), start if before is None else before.image, before)
    change = enlarged(filled.image.reshape(start.shape) - start, filler.factor, given.size)
    coarse = OnSmaller(filler.factor, smaller, start, estimate, filled)
    return Filled(estimate + change, filled.solution, filled.ridge, coarse)


def each_pass(
    given: Observed,
    fillers: Iterable[Pass],
    estimate: Tensor,
    *,
    windows: bool = True,
    progress: bool = False,
    mesh: Mesh | None = None,
    draws: Draws | None = None,
) -> Iterator[Filled]:
    """Fill an image by one filler after the other, each with the last one's result as estimate.

    A filler with a ``relaxation`` gets an estimate that goes on so far in the direction of the last change, where both
    passes before have one as well.

    Args:
        given: what is known.
        fillers: of the passes; there may be no end of them.
        estimate: the first one, of the image's shape.
        windows: see ``fill``.
        progress: whether to show the bars of the solvers.
        mesh: see ``fill``.
        draws: see ``fill``; of the last filler, of a sequence of them.

    Returns:
        the result of each pass, one after the other.
    """
    return passes_by(How(windows, progress, mesh, draws=draws), given, fillers, estimate)


def passes_by(how: How, given: Observed, fillers: Iterable[Pass], estimate: Tensor) -> Iterator[Filled]:
    """As ``each_pass``, with all options in one record."""
    filled: Filled | None = None
    before: Tensor | None = None
    relaxed = False
    last = len(fillers) - 1 if isinstance(fillers, Sequence) else None
    without_draws = replace(how, draws=None)
    for number, filler in enumerate(fillers):
        relaxation = getattr(filler, "relaxation", 0.0) if isinstance(filler, Filler) else 0.0
        seen = estimate if before is None or not relaxation else estimate + relaxation * (estimate - before)
        filled = fill_by(how if number == last else without_draws, given, filler, seen, filled)
        before = estimate if relaxed and relaxation else None
        estimate, relaxed = filled.image, relaxation > 0
        yield filled
