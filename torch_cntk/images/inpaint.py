"""Fill the missing pixels of images by kernel regression on the observed ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from torch_cntk import priors
from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.memory import allocating
from torch_cntk.images.guided import Guidance, run_passes
from torch_cntk.images.masks import has_holes, reach
from torch_cntk.images.trials import choose_passes
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.layers import Layer, LeakyReLU
from torch_cntk.solvers import Regression, Solver, Status, automatic, cross_validated_ridge
from torch_cntk.zoo import catalogue
from torch_cntk.zoo.hourglass import hourglass
from torch_cntk.zoo.loading import load_kernel

__all__ = ["InpaintingResult", "default_kernel", "default_network", "inpaint", "levels_for"]


@dataclass(frozen=True)
class InpaintingResult:
    """What ``inpaint`` gives.

    Attributes:
        image: as the input, every unobserved pixel filled; observed ones are those of the input, to the bit.
        residual: largest relative residual of any channel of any image.
        iterations: of the solver.
        converged: whether the residual is within the solver's tolerance.
        status: how the solver ended; its value is a sentence.
        solver: what solved it, in words.
        ridge: that was taken.
        seconds: wall time, without the time to compute the kernel; passes count in full, and so does their choice.
        passes: of the guided kernel (the most of any image of the batch).
        guidance: their settings, of each image of the batch; empty without passes.
    """

    image: Tensor
    residual: float
    iterations: int
    converged: bool
    status: Status
    solver: str
    ridge: float
    seconds: float
    passes: int = 0
    guidance: tuple[Guidance, ...] = ()


@allocating("filling the image")
def inpaint(
    image: Tensor,
    observed: Tensor | None = None,
    kernel: Kernel | None = None,
    *,
    solver: Solver | str = "auto",
    ridge: float | str = 1e-4,
    wrap: bool = False,
    passes: int | str = 0,
    guidance: Guidance | None = None,
    progress: bool = False,
) -> InpaintingResult:
    """Fill the unobserved pixels of one image or several; of signals [channels, T] and videos [channels, T, H, W] too.

    Solves (K_OO + ridge * mean(diag K) I) w = y_O on the observed pixels O for every channel and sets the others to
    K_UO w. All channels and images are right-hand sides of one solve.

    Args:
        image: [channels, *size] or [batch, channels, *size], or [*size] for one channel; floating point, of any
            scale (filled values are not clipped). What it holds at unobserved pixels does not matter.
        observed: boolean, **True = known**: [*size], or [batch, *size] for one mask an image. By default the pixels
            that are not NaN in any channel.
        kernel: of ``net.kernel(prior)``; by default one that suits the mask's holes (see ``default_kernel``). Without
            a kernel, the mask's shape says whether this is a signal, an image or a video: an image where it could be
            more than one of them.
        solver: ``ConjugateGradient(...)``, ``Direct()``, ``EigenPro(...)``, or "auto", which chooses by the number of
            observed pixels and the kernel (see ``torch_cntk.solvers.automatic``).
        ridge: relative to the mean of K's diagonal. Larger values forgive noise; 0 interpolates exactly, which is
            not possible with singular kernels. "cv" takes the one that predicts some of the observed pixels best if
            they are left out: for noisy images.
        wrap: whether the image's opposite edges are neighbours. By default it is set into a larger canvas of
            unobserved pixels, which keeps them apart and allows any size. A kernel of one size always wraps.
        passes: of content-aware kernels that follow: each takes the last estimate as a feature prior (see
            ``torch_cntk.images.guided``). "auto" chooses their number and settings by leaving out observed pixels, and
            is 0 where they do not help.
        guidance: settings of the passes; by default they suit the share of observed pixels, and with "auto" they are
            chosen.
        progress: whether to show a bar.

    Returns:
        the filled image, of the input's shape, dtype and device, with the quality of the solution.

    Raises:
        TypeError: the image is not floating point or the mask not boolean.
        ValueError: shapes do not fit, an observed pixel is NaN or infinite, nothing is observed, or the kernel does
            not serve the image's size.
        OutOfMemoryError: the kernel as an operator would not fit.
    """
    start = time.perf_counter()
    _check_passes(passes, guidance)
    _check_options(solver, ridge)
    ndim = _spatial_dimensions(image, observed) if kernel is None else kernel.ndim
    batch, mask = _checked(image, observed, ndim)
    seen = mask[:, None]
    if bool(mask.all()):
        seconds = time.perf_counter() - start
        return InpaintingResult(
            image.detach().clone(), 0.0, 0, True, Status.CONVERGED, "nothing to solve", 0.0, seconds
        )
    if kernel is None:
        building = time.perf_counter()
        kernel = default_kernel(mask, ndim)
        start += time.perf_counter() - building
    size = tuple(batch.shape[2:])
    canvas = _canvas(size, kernel, wrap)
    targets = _extend(torch.where(seen, batch, 0), canvas)
    operator = kernel.operator(canvas, dtype=batch.dtype, device=batch.device)
    known = _extend(seen, canvas)
    given = solver if isinstance(solver, Solver) else None
    if isinstance(ridge, str):
        ridge = cross_validated_ridge(operator, known, targets, solver=given, progress=progress)
    regression = Regression(operator, known, ridge)
    solution = (given or automatic(regression)).solve(regression, targets, progress=progress)
    filled = _crop(operator @ solution.weights, size).to(batch.dtype)
    result = InpaintingResult(
        torch.where(seen, batch, filled).reshape(image.shape),
        float(solution.residual.max()),
        solution.iterations,
        solution.status in (Status.CONVERGED, Status.EARLY),
        solution.status,
        solution.solver,
        ridge,
        time.perf_counter() - start,
    )
    if passes == 0:
        return result

    def first(image: Tensor, observed: Tensor) -> Tensor:
        # Of a part of the image, perhaps, which a kernel of one size does not fit.
        serves = kernel if kernel.size in (None, tuple(observed.shape)) else default_kernel(observed, ndim)
        return inpaint(image, observed, serves, solver=solver, ridge=ridge).image

    return _with_passes(result, batch, mask, first, passes, guidance, wrap, progress)


def _check_passes(passes: int | str, guidance: Guidance | None) -> None:
    """Refuse what is no number of passes, or no guidance.

    Raises:
        TypeError: the passes are neither an integer nor a word, or the guidance is something else.
        ValueError: the word is not "auto", or the number negative.
    """
    if isinstance(passes, str):
        if passes != "auto":
            raise ValueError(f'expected passes to be a number or "auto", got {passes!r}')
    elif passes != 0:
        positive_int(passes, "passes")
    if guidance is not None and not isinstance(guidance, Guidance):
        raise TypeError(f"expected guidance as a Guidance, got {type(guidance).__name__}")


def _with_passes(
    result: InpaintingResult,
    batch: Tensor,
    mask: Tensor,
    first: Callable[[Tensor, Tensor], Tensor],
    passes: int | str,
    guidance: Guidance | None,
    wrap: bool,
    progress: bool,
) -> InpaintingResult:
    """Let guided passes follow, image by image."""
    start = time.perf_counter()
    done = []
    estimates = result.image.reshape(batch.shape)
    for image, observed, estimate in zip(batch, mask.expand(len(batch), *mask.shape[1:]), estimates, strict=True):
        settings = guidance or Guidance.for_share(float(observed.double().mean()), observed.ndim)
        count = passes
        if isinstance(count, str):
            count, settings = choose_passes(image, observed, first, guidance=guidance, wrap=wrap, progress=progress)
        done.append(run_passes(image, observed, estimate, count, settings, wrap=wrap, progress=progress))
    solutions = [guided.solution for guided in done if guided.solution is not None]
    result = replace(
        result,
        image=torch.stack([guided.image for guided in done]).reshape(result.image.shape),
        seconds=result.seconds + time.perf_counter() - start,
        passes=max(guided.passes for guided in done),
        guidance=tuple(guided.guidance for guided in done),
    )
    if not solutions:
        return result
    worst = max(solutions, key=lambda solution: float(solution.residual.max()))
    return replace(
        result,
        residual=float(worst.residual.max()),
        iterations=max(solution.iterations for solution in solutions),
        converged=all(solution.status is Status.CONVERGED for solution in solutions),
        status=worst.status,
        solver=worst.solver,
        ridge=max(guided.guidance.ridge for guided in done),
    )


def _check_options(solver: object, ridge: object) -> None:
    """Refuse what is no solver or no ridge.

    Raises:
        TypeError: the solver is something else, or the ridge is no number.
        ValueError: an unknown word, or the ridge is negative or not finite.
    """
    if isinstance(solver, str) and solver != "auto":
        raise ValueError(f'expected solver "auto" or a solver such as ConjugateGradient(), got {solver!r}')
    if not isinstance(solver, str | Solver):
        raise TypeError(f"expected a solver such as ConjugateGradient(), got {solver!r}")
    if isinstance(ridge, str) and ridge != "cv":
        raise ValueError(f'expected ridge to be a number or "cv", got {ridge!r}')
    if not isinstance(ridge, str):
        finite_number(ridge, "ridge", minimum=0)


def _checked(image: Tensor, observed: Tensor | None, ndim: int) -> tuple[Tensor, Tensor]:
    """Return image [batch, channels, *size] and mask [batch or 1, *size].

    Raises:
        TypeError: a type or dtype is wrong.
        ValueError: a shape is wrong, an observed pixel is not finite, or nothing is observed.
    """
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"expected the image as a torch tensor, got {type(image).__name__}")
    if not image.is_floating_point():
        raise TypeError(f"expected a floating point image, got {image.dtype}; for 8-bit values pass image / 255")
    if image.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected an image in float32 or float64, which the solver needs, got {image.dtype}")
    if image.ndim - ndim not in (0, 1, 2) or image.numel() == 0:
        raise ValueError(
            f"expected an image of shape [channels, *size] or [batch, channels, *size] with {ndim} spatial "
            f"dimensions, got {tuple(image.shape)}"
        )
    batch = image.detach().reshape(*(1,) * (ndim + 2 - image.ndim), *image.shape)
    size = tuple(batch.shape[2:])
    if observed is None:
        mask = ~torch.isnan(batch).any(1)
    else:
        mask = _checked_mask(observed, size, len(batch), image.ndim == ndim + 2).to(batch.device)
    known = mask[:, None].expand_as(batch)
    if not bool(torch.isfinite(batch[known]).all()):
        bad = int((~torch.isfinite(batch) & known).sum())
        raise ValueError(f"expected finite values at observed pixels, got {bad} NaN or infinite ones")
    empty = ~mask.flatten(1).any(1)
    if bool(empty.any()):
        where = f" in image {int(empty.nonzero()[0])} of the batch" if len(mask) > 1 else ""
        raise ValueError(f"expected at least one observed pixel, got none{where}; observed is True where known")
    return batch, mask


def _checked_mask(observed: Tensor, size: tuple[int, ...], count: int, batched: bool) -> Tensor:
    if not isinstance(observed, torch.Tensor):
        raise TypeError(f"expected observed as a boolean torch tensor, got {type(observed).__name__}")
    if observed.dtype != torch.bool:
        raise TypeError(
            f"expected observed to be boolean, True = known, got {observed.dtype}; pass observed > 0.5, say"
        )
    shape = tuple(observed.shape)
    if shape != size and not (batched and shape == (count, *size)):
        also = f" or {(count, *size)}" if batched else ""
        raise ValueError(f"expected observed of shape {size}{also} for this image, got {shape}")
    return observed.reshape(-1, *size)


def _canvas(size: tuple[int, ...], kernel: Kernel, wrap: bool) -> tuple[int, ...]:
    """Size of the torus to solve on: with room for the kernel's radius, so that opposite edges do not meet."""
    if kernel.size is not None or wrap:
        return kernel.check_size(size)
    least = (max(n + r, 2 * r + 1) for n, r in zip(size, kernel.radius, strict=True))
    return tuple(_transformable(math.ceil(n / p)) * p for n, p in zip(least, kernel.period, strict=True))


def _transformable(cells: int) -> int:
    """The next number without a prime factor above 13; those double the time of Fourier transforms, or worse."""
    while True:
        rest = cells
        for prime in (2, 3, 5, 7, 11, 13):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return cells
        cells += 1


def _extend(images: Tensor, canvas: tuple[int, ...]) -> Tensor:
    """Put the images into the corner of a larger, empty canvas."""
    missing = [n - old for n, old in zip(canvas, images.shape[-len(canvas) :], strict=True)]
    return torch.nn.functional.pad(images, [entry for m in reversed(missing) for entry in (0, m)])


def _crop(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Undo ``_extend``."""
    for axis, n in enumerate(size, start=images.ndim - len(size)):
        images = images.narrow(axis, 0, n)
    return images


def _spatial_dimensions(image: Tensor, observed: Tensor | None) -> int:
    """Of what a mask belongs to: 2, unless only another number fits its shape."""
    if not isinstance(image, torch.Tensor) or not isinstance(observed, torch.Tensor):
        return 2
    for ndim in (2, 1, 3):
        size = tuple(image.shape[-ndim:])
        masks = [size, (image.shape[0], *size)] if image.ndim == ndim + 2 else [size]
        if image.ndim - ndim in (0, 1, 2) and tuple(observed.shape) in masks:
            return ndim
    return 2


_LEVELS = {1: (3, 8), 2: (3, 6), 3: (2, 3)}
"""Fewest and most of the default network: numbers in the kernel grow as 4^(levels * dimensions)."""
_FINE_LEVELS = 5
"""The most for which the default network of images is the catalogue's "fine" one: above, it is the "wide" one."""


def levels_for(observed: Tensor, ndim: int = 2) -> int:
    """Levels of resolution that a network needs for the holes of a mask.

    The paper: floor(log2(m + 1)) for a hole of m x m pixels; for images it is one more where pixels are scattered,
    as more levels are better but slower, and two more where there are holes. Of images at least 3 and at most 6 are
    returned, of signals 3 to 8, of videos 2 or 3. The hole's size is taken from its most remote pixel, by the
    chessboard distance to the nearest observed one.

    Args:
        observed: boolean, True = known, [..., *size].
        ndim: number of spatial dimensions.

    Returns:
        the number of levels for the largest hole of all the masks.

    Raises:
        ValueError: nothing is observed.
    """
    size = observed.shape[-ndim:]
    masks = observed.reshape(-1, *size)
    if not bool(masks.flatten(1).any(1).all()):
        raise ValueError("expected at least one observed pixel in each mask, got none; observed is True where known")
    fewest, most = _LEVELS[ndim]
    return min(max(max(_levels_of(mask, ndim) for mask in masks), fewest), most)


def _levels_of(mask: Tensor, ndim: int) -> int:
    remotest = reach(mask)
    side = max(2 * remotest - 1, 1)
    more = 0 if ndim != 2 else 2 if has_holes(mask, remotest) else 1
    return int(math.log2(side + 1)) + more


def default_network(levels: int, channels: int = 3, ndim: int = 2, width: int = 128) -> Layer:
    """The network behind ``default_kernel``, whose input is ``priors.Uniform(0, 0.1)``.

    An hourglass without skip connections. For images it is ``catalogue.fine_network`` with LeakyReLU(0.3) up to 5
    levels and ``catalogue.wide_network`` with LeakyReLU(0.1) above: those that left-out pixels of photographs chose
    (``benchmarks.architecture``). For signals and videos, two convolutions and nearest upsampling on each level.

    Args:
        levels: number of times that the resolution is halved, at least 1.
        channels: of the image.
        ndim: number of spatial dimensions, 1 to 3.
        width: channels inside the network, of which the kernel is independent; its input has a quarter of them.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is out of range.
    """
    if ndim == 2:
        shape, slope = _shape_and_slope(levels)
        return catalogue.SHAPES[shape](levels, LeakyReLU(slope), width, channels)
    inputs, filters = max(width // 4, 1), (3, 3)
    return hourglass(
        levels,
        width,
        0,
        channels=channels,
        in_channels=inputs,
        slope=0.3,
        up_filter=filters,
        one_by_one=False,
        ndim=ndim,
    )


def _shape_and_slope(levels: int) -> tuple[str, float]:
    """Of the default network for images."""
    return ("fine", 0.3) if levels <= _FINE_LEVELS else ("wide", 0.1)


@lru_cache(maxsize=8)
def _kernel_of(levels: int, ndim: int) -> Kernel:
    if ndim == 2:
        shape, slope = _shape_and_slope(levels)
        return load_kernel(f"uniform-{shape}-{levels}x128-leaky{slope}")
    # The kernel does not depend on the width, and drawing the weights would take longer than computing it.
    return default_network(levels, ndim=ndim, width=1).kernel(priors.Uniform(0, 0.1), dtype=torch.float32)


def default_kernel(observed: Tensor, ndim: int = 2) -> Kernel:
    """The kernel that ``inpaint`` takes when none is given: ``default_network`` with as many levels as the holes need.

    Args:
        observed: boolean, True = known, [..., *size].
        ndim: number of spatial dimensions, 1 to 3.

    Returns:
        a kernel for images of any size, one that ships with the package for ``ndim`` 2.

    Raises:
        ValueError: nothing is observed.
    """
    return _kernel_of(levels_for(observed, ndim), ndim)
