"""Content-aware passes: the estimate of an image is the feature prior of the kernel that makes the next estimate.

The kernel of a shallow network compares what is seen around two pixels and where they are, within a radius; see
docs/math.md. ``torch_cntk.images.trials`` chooses their settings and number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk import priors
from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.memory import available_bytes
from torch_cntk.layers import Layer, LeakyReLU, Sequential
from torch_cntk.layers.conv import CONVOLUTIONS
from torch_cntk.solvers import ConjugateGradient, Regression, Solution, Solver

__all__ = ["Guidance", "Guided", "each_pass", "guided_network", "guided_pass", "run_passes"]

_MOST_BYTES = 2 << 30
"""Of a stencil in float32; larger ones are kept in float16. At most a third of the free memory, too."""


@dataclass(frozen=True)
class Guidance:
    """Settings of a guided pass. The estimate is scaled to a standard deviation of 1 before it is weighted.

    The feature prior has the covariance ``coordinates * exp(-|u|^2 / (2 length^2)) + white [u = 0] + constant +
    detail <d, d'> + level <m, m'>``, where m is the local mean of the estimate, d what is left of it, and products
    are summed over the image's channels. The regression is of the image less m.

    Attributes:
        radius: of the window, in pixels.
        detail: weight of the estimate's detail.
        level: weight of its local mean.
        smoothing: standard deviation in pixels of the Gaussian that takes the local mean.
        coordinates: weight of the coordinates.
        length: of the coordinates' Gaussian, in pixels.
        white: variance of white noise.
        constant: added to all entries.
        ridge: of the regression, relative to the mean of the kernel's diagonal.
        coarse: passes are made on an image that is smaller by this factor along each axis, so that the window reaches
            as much further; what they change there is added to the first estimate.

    Raises:
        TypeError: a setting is no number.
        ValueError: a setting is out of range.
    """

    radius: int = 12
    detail: float = 3.0
    level: float = 0.05
    smoothing: float = 2.0
    coordinates: float = 0.02
    length: float = 8.0
    white: float = 1e-3
    constant: float = 1e-4
    ridge: float = 1e-3
    coarse: int = 1

    def __post_init__(self) -> None:
        positive_int(self.radius, "radius")
        positive_int(self.coarse, "coarse")
        for name in ("detail", "level", "coordinates", "constant", "ridge"):
            finite_number(getattr(self, name), name, minimum=0)
        for name in ("smoothing", "length", "white"):
            if finite_number(getattr(self, name), name, minimum=0) == 0:
                raise ValueError(f"expected {name} > 0, got 0")

    @classmethod
    def for_share(cls, share: float, ndim: int = 2) -> Guidance:
        """Settings for pixels of which this share, scattered over the image, is observed.

        They were found on photographs for shares of 1/2 and 1/10; in between, and beyond, all of them follow a power
        of the mean distance between observed pixels. The window of signals is six times as long, that of videos half
        as long: then it has about as many pixels.
        """
        sparse = cls(radius=16, detail=0.7, smoothing=3.0, length=12.0, white=1e-2, ridge=1e-2)
        place = min(max(math.log(0.5 / share) / math.log(5), 0), 1.5)

        def between(name: str) -> float:
            low, high = getattr(cls, name), getattr(sparse, name)
            return float(low * (high / low) ** place)

        radius = between("radius") * {1: 6.0, 2: 1.0, 3: 0.5}[ndim]
        return cls(
            radius=round(radius),
            detail=between("detail"),
            smoothing=between("smoothing"),
            length=between("length"),
            white=between("white"),
            ridge=between("ridge"),
        )

    def at(self, number: int) -> Guidance:
        """Settings of a pass, counted from 0: the first two are coarse and cheap, while the estimate changes much."""
        if number > 1:
            return self
        return replace(
            self, radius=math.ceil(self.radius * 2 / 3), smoothing=self.smoothing * (1.5 if number == 0 else 1)
        )


@dataclass(frozen=True)
class Guided:
    """What passes give.

    Attributes:
        image: [channels, *size], observed pixels untouched.
        solution: of the last pass; None if there was none.
        passes: number of passes.
        guidance: their settings.
    """

    image: Tensor
    solution: Solution | None
    passes: int
    guidance: Guidance


def guided_network(ndim: int = 2, slope: float = 0.1) -> Layer:
    """The shallow network of guided kernels: convolution of width 5, LeakyReLU, convolution of width 3.

    Args:
        ndim: number of spatial dimensions, 1 to 3.
        slope: of the LeakyReLU.
    """
    conv = CONVOLUTIONS[ndim]
    return Sequential(conv(1, 1, 5), LeakyReLU(slope), conv(1, 1, 3))


def guided_pass(
    image: Tensor,
    observed: Tensor,
    estimate: Tensor,
    guidance: Guidance,
    *,
    network: Layer | None = None,
    solver: Solver | None = None,
    guess: Tensor | None = None,
    wrap: bool = False,
    progress: bool = False,
) -> tuple[Tensor, Solution]:
    """Fill an image by the kernel that an estimate of it gives.

    Args:
        image: [channels, *size].
        observed: boolean, True = known, [*size].
        estimate: [channels, *size].
        guidance: the settings.
        network: ``guided_network`` by default.
        solver: ``ConjugateGradient(1e-2, preconditioner="jacobi")`` by default.
        guess: the last pass's ``Solution.weights``.
        wrap: whether opposite edges of the image are neighbours.
        progress: whether to show bars.

    Returns:
        the filled image and the solution.

    Raises:
        ValueError: the estimate is of another shape than the image, or not finite.
        OutOfMemoryError: the kernel would not fit.
    """
    if estimate.shape != image.shape:
        raise ValueError(f"expected an estimate of the image's shape {tuple(image.shape)}, got {tuple(estimate.shape)}")
    if not bool(torch.isfinite(estimate).all()):
        raise ValueError("expected a finite estimate, got NaN or infinity in it")
    size = tuple(image.shape[1:])
    canvas = _canvas(size, guidance.radius, wrap)
    extended = _mirrored(estimate, canvas)
    mean = _local_mean(extended, guidance.smoothing)
    operator = (
        (network or guided_network(len(size)))
        .kernel(
            _prior(extended, mean, guidance),
            canvas,
            radius=_radius(guidance.radius, canvas),
            dtype=_stored_dtype(image, canvas, guidance.radius),
            device=image.device,
            progress=progress,
        )
        .operator(dtype=image.dtype)
    )
    inside = tuple(slice(n) for n in size)
    targets, seen = torch.zeros_like(extended), torch.zeros(canvas, dtype=torch.bool, device=image.device)
    seen[inside] = observed
    targets[(slice(None), *inside)] = torch.where(observed, image, 0)
    targets = torch.where(seen, targets - mean, 0)
    solver = solver or ConjugateGradient(1e-2, preconditioner="jacobi")
    regression = Regression(operator, seen, guidance.ridge)
    solution = solver.factorise(regression).solve(targets, guess=guess, progress=progress)
    filled = (operator @ solution.weights).add_(mean)[(slice(None), *inside)]
    return torch.where(observed, image, filled.to(image.dtype)), solution


def _canvas(size: tuple[int, ...], radius: int, wrap: bool) -> tuple[int, ...]:
    """Size of the torus: with room for the window, so that opposite edges do not meet."""
    return size if wrap else tuple(n + min(radius, n) for n in size)


def _radius(radius: int, canvas: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(min(radius, n // 2), 1) for n in canvas)


def _mirrored(images: Tensor, canvas: tuple[int, ...]) -> Tensor:
    """Extend images to the canvas: each half of the margin mirrors the edge next to it."""
    for axis, total in enumerate(canvas, start=1):
        n = images.shape[axis]
        place = torch.arange(total, device=images.device)
        beyond, before = place - n, total - 1 - place
        mirrored = torch.where(beyond <= before, n - 1 - beyond, before)
        images = images.index_select(axis, torch.where(place < n, place, mirrored.clamp(0, n - 1)))
    return images


def _local_mean(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur on the torus, [channels, *size]."""
    axes = tuple(range(1, images.ndim))
    transform = torch.fft.rfftn(images, dim=axes)
    for axis in axes:
        n = images.shape[axis]
        wave = torch.fft.rfftfreq(n) if axis == axes[-1] else torch.fft.fftfreq(n)
        shape = [-1 if k == axis else 1 for k in range(images.ndim)]
        transform *= torch.exp(-2 * (math.pi * deviation * wave) ** 2).to(images).reshape(shape)
    blurred: Tensor = torch.fft.irfftn(transform, s=images.shape[1:], dim=axes)
    return blurred


def _prior(estimate: Tensor, mean: Tensor, guidance: Guidance) -> priors.Prior:
    channels = len(estimate)
    scale = float(estimate.std(tuple(range(1, estimate.ndim)), correction=0).square().mean().sqrt()) or 1.0
    level = mean - mean.mean(tuple(range(1, mean.ndim)), keepdim=True)
    terms: list[priors.Prior] = [priors.White(guidance.white), priors.Constant(guidance.constant)]
    if guidance.coordinates:
        terms.append(priors.Coordinates(guidance.length, guidance.coordinates))
    if guidance.detail or guidance.level:
        # One tensor, not two: half the work.
        seen = [(estimate - mean) * math.sqrt(guidance.detail), level * math.sqrt(guidance.level)]
        terms.append(priors.Tensor(torch.cat(seen) / scale, 2 * channels))
    return priors.Sum(*terms)


def _stored_dtype(image: Tensor, canvas: tuple[int, ...], radius: int) -> torch.dtype:
    if image.dtype == torch.float64:
        return image.dtype
    ball = {1: 1.0, 2: math.pi / 2, 3: 2 * math.pi / 3}[len(canvas)] * radius ** len(canvas)
    free = available_bytes(image.device)
    most = _MOST_BYTES if free is None else min(_MOST_BYTES, free // 3)
    return torch.float16 if 4 * ball * math.prod(canvas) > most else torch.float32


def each_pass(
    image: Tensor,
    observed: Tensor,
    estimate: Tensor,
    guidance: Guidance,
    *,
    network: Layer | None = None,
    wrap: bool = False,
    progress: bool = False,
) -> Iterator[tuple[Tensor, Solution]]:
    """Guided passes without end, each with the last one's result as estimate; arguments as for ``guided_pass``.

    Yields:
        the filled image and the solution of each pass.
    """
    if guidance.coarse > 1:
        yield from _coarse_passes(image, observed, estimate, guidance, network, progress)
        return
    solution: Solution | None = None
    # Far outliers of an estimate would make features of their own.
    lowest, highest = image[:, observed].amin(), image[:, observed].amax()
    for number in count():
        settings = guidance.at(number)
        # A warm start needs a canvas of the same size.
        same = solution is not None and settings.radius == guidance.at(number - 1).radius
        estimate, solution = guided_pass(
            image,
            observed,
            torch.where(observed, image, estimate.clamp(lowest, highest)),
            settings,
            network=network,
            guess=solution.weights if solution is not None and same else None,
            wrap=wrap,
            progress=progress,
        )
        yield estimate, solution


def _coarse_passes(
    image: Tensor, observed: Tensor, estimate: Tensor, guidance: Guidance, network: Layer | None, progress: bool
) -> Iterator[tuple[Tensor, Solution]]:
    """As ``each_pass``, on a smaller image; its opposite edges are no neighbours."""
    factor, size = guidance.coarse, tuple(image.shape[1:])
    share = _block_means(observed[None].to(image.dtype), factor)
    # Means of what is observed, where that is at least half of a block.
    means = _block_means(torch.where(observed, image, 0), factor) / share.clamp_min(0.5)
    known, start = share[0] >= 0.5, _block_means(estimate, factor)
    if not bool(known.any()):
        known = share[0] == share.max()
        means = _block_means(torch.where(observed, image, 0), factor) / share.clamp_min(1e-9)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    for coarse, solution in each_pass(
        means, known, start, replace(guidance, coarse=1), network=network, progress=progress
    ):
        change = torch.nn.functional.interpolate((coarse - start)[None], scale_factor=factor, mode=mode)[0]
        filled = estimate + change[(slice(None), *(slice(n) for n in size))]
        yield torch.where(observed, image, filled), solution


def _block_means(images: Tensor, factor: int) -> Tensor:
    """Means over blocks of ``factor`` pixels along each axis; the last ones are filled up with the last pixel."""
    for axis in range(1, images.ndim):
        n = images.shape[axis]
        blocks = math.ceil(n / factor)
        place = torch.arange(blocks * factor, device=images.device).clamp_max(n - 1)
        shape = (*images.shape[:axis], blocks, factor, *images.shape[axis + 1 :])
        images = images.index_select(axis, place).reshape(shape).mean(axis + 1)
    return images


def run_passes(
    image: Tensor,
    observed: Tensor,
    estimate: Tensor,
    passes: int,
    guidance: Guidance,
    *,
    network: Layer | None = None,
    wrap: bool = False,
    progress: bool = False,
) -> Guided:
    """Fill an image by several guided passes.

    Args:
        image: [channels, *size].
        observed: boolean, True = known, [*size].
        estimate: the first one, [channels, *size].
        passes: how many.
        guidance: the settings.
        network: ``guided_network`` by default.
        wrap: whether opposite edges of the image are neighbours.
        progress: whether to show bars.

    Returns:
        the image after the last pass.
    """
    solution: Solution | None = None
    results = each_pass(image, observed, estimate, guidance, network=network, wrap=wrap, progress=progress)
    for _ in tqdm(range(passes), disable=not progress, desc="guided passes", unit="pass"):
        estimate, solution = next(results)
    return Guided(estimate, solution, passes, guidance)
