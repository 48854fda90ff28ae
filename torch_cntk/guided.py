"""Content-aware passes: the estimate of an image is the feature prior of the kernel that makes the next estimate.

The kernel of a shallow network compares what is seen around two pixels and where they are, within a radius; see
docs/math.md. Settings and the number of passes can be chosen by leaving out observed pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import scipy.ndimage
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk import priors
from torch_cntk._checks import finite_number, positive_int
from torch_cntk._memory import available_bytes
from torch_cntk.layers import Conv1d, Conv2d, Conv3d, Layer, LeakyReLU, Sequential
from torch_cntk.solvers import ConjugateGradient, Regression, Solution, Solver

__all__ = ["Guidance", "Guided", "choose_passes", "each_pass", "guided_network", "guided_pass", "run_passes"]

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

    def __post_init__(self) -> None:
        positive_int(self.radius, "radius")
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

        names = ("detail", "smoothing", "length", "white", "ridge")
        radius = between("radius") * {1: 6.0, 2: 1.0, 3: 0.5}[ndim]
        return cls(radius=round(radius), **{name: between(name) for name in names})

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
    conv = {1: Conv1d, 2: Conv2d, 3: Conv3d}[ndim]
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
            radius=_radius(guidance.radius, canvas),
            dtype=_stored_dtype(image, canvas, guidance.radius),
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


_CROP = 80 * 80
"""Pixels of a part of the image on which settings are tried out."""
_CROPS = 4
_LEFT_OUT = 0.05
"""Share of the observed pixels that are left out, if that makes ``_FEWEST`` of them; twice it otherwise."""
_FEWEST = 1000
_SEED = 0x5EED_0FF5
"""Of the pixels that are left out. Not a usual one: a mask drawn with the same would hide just these pixels."""
_FIRST_PASSES = 3
"""After which the better settings are known."""
_MOST_PASSES = 6
_GAIN = 0.01
"""Another choice must lower the error by this share to be preferred: smaller differences are chance."""
_GAIN_IN_HOLES = 0.05
"""The same for holes: there are few of them, each with its own error."""


def choose_passes(
    image: Tensor,
    observed: Tensor,
    first: Callable[[Tensor, Tensor], Tensor],
    *,
    guidance: Guidance | None = None,
    wrap: bool = False,
    progress: bool = False,
) -> tuple[int, Guidance]:
    """Choose the number of passes, and their settings, by leaving out observed pixels.

    Scattered pixels are left out in some parts of the image. Where there are holes, those of the mask are moved to
    other places, and all that is observed there is left out.

    Args:
        image: [channels, *size].
        observed: boolean, True = known, [*size].
        first: gives the first estimate of an image, or a part of it, and its mask.
        guidance: the settings; by default they are chosen as well.
        wrap: whether opposite edges of the image are neighbours.
        progress: whether to show a bar.

    Returns:
        number of passes, 0 if none of them helps, and settings.
    """
    holes = _has_holes(observed)
    share = 0.9 if holes else float(observed.double().mean())
    candidates = [guidance] if guidance is not None else _candidates(share, observed, holes)
    trials = _hole_trials(observed) if holes else _scattered_trials(observed)
    if not trials:
        return 0, candidates[0]
    races: list[list[_Trial]] = [[] for _ in candidates]
    for part, left_out in trials:
        pixels, seen = image[(slice(None), *part)], observed[part] & ~left_out
        start = first(torch.where(seen, pixels, 0), seen)
        around = wrap and pixels.shape == image.shape
        for race, candidate in zip(races, candidates, strict=True):
            race.append(_Trial(pixels, seen, left_out, start, candidate, around))
    with tqdm(total=len(trials) * (len(candidates) + 1), disable=not progress, desc="leaving out", unit="trial") as bar:
        if len(candidates) > 1:
            for trial in (trial for race in races for trial in race):
                trial.go_on(_FIRST_PASSES)
                bar.update()
        best = 0
        for place, race in enumerate(races):
            if _total(race).min() < _total(races[best]).min() * (1 - _GAIN):
                best = place
        for trial in races[best]:
            trial.go_on(_MOST_PASSES)
            bar.update()
    return _worthwhile(races[best], holes), candidates[best]


class _Trial:
    """Passes on a part of the image, some of whose pixels are left out.

    Attributes:
        errors: sum of squares over the pixels that are left out, before the first pass and after each.
    """

    def __init__(
        self, image: Tensor, seen: Tensor, left_out: Tensor, start: Tensor, guidance: Guidance, wrap: bool
    ) -> None:
        self._left_out = left_out
        self._truth = image[:, left_out].double()
        self._results = each_pass(image, seen, start, guidance, wrap=wrap)
        self.errors: list[float] = []
        self._note(start)

    def _note(self, estimate: Tensor) -> None:
        self.errors.append(float((estimate[:, self._left_out] - self._truth).square().sum()))

    def go_on(self, passes: int) -> None:
        """Until there have been so many passes."""
        while len(self.errors) <= passes:
            self._note(next(self._results)[0])


def _total(trials: list[_Trial]) -> Tensor:
    """Errors of all trials together, one a pass."""
    return torch.tensor([trial.errors for trial in trials], dtype=torch.float64).sum(0)


def _worthwhile(trials: list[_Trial], holes: bool) -> int:
    """The fewest passes after which there is nothing to gain, or 0 if they are not better than none.

    In holes, which are few and each has its own error, they must be better in every trial.
    """
    total = _total(trials)
    lowest = float(total.min())
    passes = int((total <= lowest * (1 + _GAIN / 2)).nonzero()[0])
    gain = _GAIN_IN_HOLES if holes else _GAIN
    groups = [[trial] for trial in trials] if holes else [trials]
    return passes if all(float(_total(g)[passes]) < float(_total(g)[0]) * (1 - gain) for g in groups) else 0


def _candidates(share: float, observed: Tensor, holes: bool) -> list[Guidance]:
    usual = Guidance.for_share(share, observed.ndim)
    if holes:
        return [usual, replace(usual, radius=min(2 * _reach(observed), 2 * usual.radius))]
    wider = replace(usual, radius=round(usual.radius * 4 / 3))
    return [usual, Guidance.for_share(share / 1.7, observed.ndim), wider]


def _reach(observed: Tensor) -> int:
    """Chessboard distance of the most remote pixel from the nearest observed one."""
    return int(scipy.ndimage.distance_transform_cdt(~observed.cpu().numpy(), "chessboard").max())


def _has_holes(observed: Tensor) -> bool:
    """Whether pixels are more remote than if those that are missing were scattered at random.

    Then all of a cube of side 2 r - 1 is missing with the probability q^((2 r - 1)^ndim), q the share that is missing;
    of n pixels one is expected to be the middle of such a cube for the r that makes it 1/n.
    """
    missing = float((~observed).double().mean())
    if missing == 0:
        return False
    pixels = math.log(observed.numel()) / -math.log(missing)
    expected = (pixels ** (1 / observed.ndim) + 1) / 2
    return bool(_reach(observed) > 1.5 * expected)


_Part = tuple[tuple[slice, ...], Tensor]
"""Part of an image, and which of its observed pixels are left out."""


def _scattered_trials(observed: Tensor) -> list[_Part]:
    """Random pixels in some parts of the image, spread over it."""
    size, ndim = tuple(observed.shape), observed.ndim
    side = round(_CROP ** (1 / ndim))
    whole = math.prod(size) <= _CROP * _CROPS
    generator = torch.Generator().manual_seed(_SEED)
    trials = []
    places = [tuple(slice(n) for n in size)] if whole else [_part(size, side, k) for k in range(_CROPS)]
    known = sum(int(observed[part].sum()) for part in places)
    share = min(max(_LEFT_OUT, _FEWEST / max(known, 1)), 2 * _LEFT_OUT)
    for part in places:
        mask = observed[part]
        draw = torch.rand(mask.shape, generator=generator).to(mask.device)
        left_out = mask & (draw < share)
        # Something must be left to fill from.
        if bool(left_out.any()) and bool((mask & ~left_out).any()):
            trials.append((part, left_out))
    return trials


def _part(size: tuple[int, ...], side: int, number: int) -> tuple[slice, ...]:
    """One of ``_CROPS`` parts, their middles at odd multiples of an eighth along the first axis, turned on others."""
    order = [0, 2, 1, 3]
    parts = []
    for axis, n in enumerate(size):
        place = (number if axis == 0 else order[number]) * 2 + 1
        length = min(side, n)
        start = min(max(place * n // (2 * _CROPS) - length // 2, 0), n - length)
        parts.append(slice(start, start + length))
    return tuple(parts)


def _hole_trials(observed: Tensor) -> list[_Part]:
    """The mask's holes, moved by parts of the image to where most is observed."""
    whole = tuple(slice(n) for n in observed.shape)
    moved = []
    for eighths in range(1, 8):
        shift = [n * eighths // 8 for n in observed.shape]
        moved.append(observed & ~observed.roll(shift, tuple(range(observed.ndim))))
    moved.sort(key=lambda left_out: int(left_out.sum()), reverse=True)
    kept = [left_out for left_out in moved[:2] if bool(left_out.any()) and bool((observed & ~left_out).any())]
    return [(whole, left_out) for left_out in kept]
