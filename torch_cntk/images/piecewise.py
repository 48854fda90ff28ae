"""Fill an image window by window, where that is cheaper than the whole and gives the same."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.dealing import collected, mine
from torch_cntk._internal.memory import available_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.threads import side_by_side
from torch_cntk.images.filler import Filler, Locality, to_read
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.images.regression import Filled, Part, checked_equations, regress
from torch_cntk.images.windows import Cut, Window, cut
from torch_cntk.solvers import Solution, Status

__all__ = ["fill_windows"]

R = TypeVar("R")

_CHECKED = 3
"""Windows that are filled with less of a margin as well: those with most to fill and with most contrast."""
_INNER = 0.75
"""That margin's share of the margin."""
_WIDER = 1.5
"""By how much the margin grows where it was not enough."""
_SAME = 1 / 510
"""Largest difference that the last quarter of a margin may make, half a grey level of 8 bits: in units in which the
largest deviation from the mean is from 1/2 to 1. What is beyond makes less, as weights fall."""
_IMAGES_AT_A_TIME = 40
"""Numbers in float64 that a solve holds for each pixel and channel of a canvas, at the most."""


@dataclass(frozen=True)
class _Job:
    """A window of some of the images, which have one mask."""

    images: slice
    window: Window


def fill_windows(
    given: Observed,
    locality: Locality,
    estimate: Tensor | None,
    guess: Filled | None,
    how: How,
) -> Filled | None:
    """Fill the windows of an image, each by itself, and several at a time.

    Ranks divide the windows by their cost, and exchange what they have filled. How a window is filled does not depend
    on who does it, so that the bits of the image are those of one process.

    The windows with most to fill and with most contrast are filled twice, the other time with a quarter less of a
    margin. Where that makes a difference of half a grey level of 8 bits, all windows get a wider margin.

    Args:
        given: what is known, in the user's units.
        locality: of the filler.
        estimate: [batch, channels, *size], likewise; None where there is none.
        guess: an earlier result, whose weights windows start from where they are the same ones.
        how: of its ranks, they divide the windows.

    Returns:
        the filled image; None where the whole is solved sooner.
    """
    start = time.perf_counter()
    mesh, progress = how.mesh or Mesh.alone(), how.progress
    missing = (~given.mask).cpu().numpy()
    plan = locality.cut
    solve: _Solve | None = None
    while True:
        jobs = _jobs(missing, plan)
        if jobs is None:
            return None
        solve = solve or _Solve.of(given, locality, estimate, guess)
        checked = _to_check(given, jobs)
        # Nothing runs beside a single window: its solver shows how far it is.
        solver_bar = progress and len(checked) == 1
        first = [jobs[k] for k in checked]
        tried = _run(first, partial(_tried, solve, plan, solver_bar), given, plan, mesh, progress and not solver_bar)
        parts = {k: part for k, (part, _) in zip(checked, tried, strict=True)}
        if all(settled for _, settled in tried):
            break
        plan = replace(plan, margin=tuple(math.ceil(m * _WIDER) for m in plan.margin))
    rest = [job for k, job in enumerate(jobs) if k not in parts]
    solved = iter(_run(rest, solve, given, plan, mesh, progress))
    return _joined(given, [parts[k] if k in parts else next(solved) for k in range(len(jobs))], locality, start)


def _jobs(missing: np.ndarray, plan: Cut) -> list[_Job] | None:
    """The windows of each mask [*size] of several; None where those of one would cost more than it."""
    jobs = []
    for number, mask in enumerate(missing):
        images = slice(None) if len(missing) == 1 else slice(number, number + 1)
        if mask.any():
            windows = cut(mask, plan)
            if windows is None:
                return None
            jobs += [_Job(images, window) for window in windows]
    return jobs


def _to_check(given: Observed, jobs: list[_Job]) -> list[int]:
    """Numbers of the windows whose margin is looked at: that with most to fill, then those with most contrast."""
    if len(jobs) <= 1:
        return list(range(len(jobs)))
    fill, contrast = [], []
    for job in jobs:
        place = (job.images, slice(None), *job.window.place)
        mask = given.mask[(job.images, *job.window.place)][:, None]
        fill.append(int((~given.mask[(job.images, *job.window.core)]).sum()))
        pixels, known = given.pixels[place].double() / torch.where(given.scale > 0, given.scale, 1)[job.images], mask
        mean = pixels.sum() / (known.sum() * pixels.shape[1]).clamp_min(1)
        contrast.append(float((torch.where(known, pixels - mean, 0)).square().sum()))
    most = int(np.argmax(fill))
    others = [int(k) for k in np.argsort(contrast, kind="stable")[::-1] if k != most]
    return [most, *others[: _CHECKED - 1]]


@dataclass(frozen=True, eq=False)
class _Solve:
    """The regression of a window."""

    given: Observed
    filler: Filler
    common: Tensor | None
    estimate: Tensor | None
    guess: Filled | None

    @classmethod
    def of(cls, given: Observed, locality: Locality, estimate: Tensor | None, guess: Filled | None) -> _Solve:
        """Look up what all windows take from the whole."""
        common = None if locality.common is None else locality.common().to(given.pixels.dtype)
        return cls(given, locality.filler(), common, estimate, guess)

    def __call__(self, job: _Job, progress: bool = False) -> Part:
        """Solve the window as it is, perhaps with a bar."""
        part = self.given.window(job.images, job.window.place)
        estimate = None
        if self.estimate is not None:
            near = self.estimate[(job.images, slice(None), *job.window.place)]
            estimate = self.given.normalise(near, job.images)
        equations = checked_equations(part, self.filler.equations(*to_read(self.filler, part, estimate)))
        if self.common is not None:
            equations = replace(equations, mean=self.common[job.images])
        filled = regress(part, equations, self._guess(job), How(progress=progress))
        # Only what is filled is kept, not the window.
        inside = filled.image[(slice(None), slice(None), *job.window.within)].clone()
        return Part(job.images, job.window, replace(filled, image=inside, solution=_light(filled.solution)))

    def _guess(self, job: _Job) -> Filled | None:
        """The last result of the same window."""
        before = () if self.guess is None else self.guess.parts
        same = (part.filled for part in before if (part.images, part.window) == (job.images, job.window))
        return next(same, None)

    def settled(self, part: Part, plan: Cut, progress: bool = False) -> bool:
        """Whether a smaller margin would have given the same, so that a larger one would as well."""
        margin = tuple(int(m * _INNER) for m in plan.margin)
        size = self.given.size
        inner = plan.window(part.window.core, size, margin)
        if inner.place == part.window.place:
            return True
        with_less = self(_Job(part.images, inner), progress).filled.image
        missing = ~self.given.mask[(part.images, *part.window.core)][:, None]
        change = torch.where(missing, with_less - part.filled.image, 0).abs().max()
        return float(change) <= _SAME


def _tried(solve: _Solve, plan: Cut, progress: bool, job: _Job) -> tuple[Part, bool]:
    """A window, and whether its margin was enough; perhaps with the solver's bar."""
    part = solve(job, progress)
    return part, solve.settled(part, plan, progress)


def _light(solution: Solution) -> Solution:
    """The same without what nobody asks for again."""
    return replace(solution, image=None)


def _run(
    jobs: list[_Job],
    solve: Callable[[_Job], R],
    given: Observed,
    plan: Cut,
    mesh: Mesh,
    progress: bool = False,
) -> list[R]:
    """Solve windows, as many at a time as there are threads and memory; by rank."""
    if not jobs:
        return []
    costs = [plan.cost(job.window) for job in jobs]
    places = mine(mesh, costs)
    with mesh.together():
        own = _side_by_side([jobs[place] for place in places], max(costs), solve, given, progress)
    return collected(mesh, dict(zip(places, own, strict=True)), given.pixels.device)


def _side_by_side(
    jobs: list[_Job], largest: float, solve: Callable[[_Job], R], given: Observed, progress: bool
) -> list[R]:
    """Solve windows of this rank, each of which costs no more than the largest."""
    free = available_bytes(given.pixels.device)
    each = _IMAGES_AT_A_TIME * 8 * given.pixels.shape[1] * len(given.pixels) * largest
    # A GPU has work for all of its threads in one window.
    most = 1 if given.pixels.device.type != "cpu" else None if free is None else int(free // (2 * each))
    parts = side_by_side(solve, jobs, most)
    return list(tqdm(parts, total=len(jobs), disable=not progress, desc="windows", unit="window", leave=False))


def _joined(given: Observed, parts: list[Part], locality: Locality, start: float) -> Filled:
    """One result, of the user's units; the worst numbers of all windows."""
    image = given.pixels.clone()
    residual = torch.zeros(image.shape[:2], dtype=torch.float64, device=image.device)
    for part in parts:
        place = (part.images, slice(None), *part.window.core)
        known = given.mask[(part.images, *part.window.core)][:, None]
        values = given.denormalise(part.filled.image, part.images).to(image.dtype)
        image[place] = torch.where(known, image[place], values)
        residual[part.images] = torch.maximum(residual[part.images], part.filled.solution.residual)
    solutions = [part.filled.solution for part in parts]
    order = list(Status)
    worst = max(solutions, key=lambda solution: order.index(solution.status))
    text = f"{len(parts)} window{'s' if len(parts) > 1 else ''}, {worst.solver}"
    solution = Solution(
        image.new_empty(*image.shape[:2], *(0,) * given.ndim, dtype=torch.float64),
        residual,
        max(solution.iterations for solution in solutions),
        time.perf_counter() - start,
        worst.status,
        text,
    )
    return Filled(given.shaped(image), solution, locality.ridge, parts=tuple(parts))
