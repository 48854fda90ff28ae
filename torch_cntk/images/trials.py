"""Choices that are made by leaving out observed pixels: the number of passes and their fillers, kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.dealing import by_rank, collected, exchanged
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.averaged import Averaged
from torch_cntk.images.fill import each_pass, fill
from torch_cntk.images.filler import Pass, Series, of_pass
from torch_cntk.images.group_flow import Followed, GroupFlow
from torch_cntk.images.guided import Guided
from torch_cntk.images.leaving_out import parts_left_out
from torch_cntk.images.masks import has_holes
from torch_cntk.images.observed import Observed

__all__ = ["choose_passes"]


_FIRST_PASSES = 3
"""After which the better settings are known."""
_MOST_PASSES = 6
"""They end before, after one that gains too little: the next one would gain less still."""
_FIRST_ITERATIONS = 12
"""Of a flow at least: levels have fallen by then, and whole images want more than their parts."""
_GAIN_OF_LEVELS = 0.03
"""Share by which other levels of a flow must lower the error: less says nothing about the whole image. Of fourteen
photographs of 256 x 256 the three that gained more gain .1 dB on the mean, the three that gained less lose as much."""
_PATIENCE = 3
"""Iterations of a flow: it takes three sizes of patches in turn."""
_FURTHER = 1.3
"""Times the radius of other passes, that of the one behind a flow (+.014 dB on crops of photographs)."""
_GAIN = 0.01
"""Another choice must lower the error by this share to be preferred: smaller differences are chance."""
_AS_GOOD = 0.001
"""Share of the error by which iterations of a flow may differ from the best."""
_GAIN_IN_HOLES = 0.05
"""The same for holes: there are few of them, each with its own error."""


def choose_passes(
    given: Observed,
    first: Callable[[Observed], Tensor],
    candidates: Sequence[Pass | Series],
    flows: Sequence[GroupFlow] = (),
    *,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> tuple[int, Pass | Series]:
    """Choose the number of passes, and their fillers, by leaving out observed pixels; and whether a flow follows.

    Scattered pixels are left out in some parts of the image. Where there are holes, those of the mask are moved to
    other places, and all that is observed there is left out.

    Args:
        given: one image.
        first: gives the first estimate of an image, or a part of it.
        candidates: fillers, or series of them, to choose from; the first is preferred where they are equally good.
        flows: to choose from for a last pass, likewise.
        progress: whether to show a bar.
        mesh: ranks that divide the trials: each follows some candidates in some parts of the image, and tells the
            others its errors. The choice is that of one process.

    Returns:
        number of passes, 0 if none of them helps, and the filler or series, ``Followed`` by the flow if one helps.
    """
    observed = given.single_mask
    holes = has_holes(observed)
    trials = parts_left_out(observed, holes)
    if not trials:
        return 0, candidates[0]
    # Squares of the differences must stay finite, and not vanish.
    unit = float(given.scale.max()) or 1.0
    ranks = mesh or Mesh.alone()
    parts = [given.part(place, left_out) for place, left_out in trials]
    starts = by_rank(ranks, first, parts, given.pixels.device)
    races: list[_Race] = []
    for candidate in candidates:
        followed = []
        for (place, left_out), part, start in zip(trials, parts, starts, strict=True):
            truth = given.pixels[0][(slice(None), *place)][:, left_out].double() / unit
            followed.append(_Trial(part, truth, left_out, start, candidate, unit))
        races.append(_Race(followed, ranks, len(races) * len(trials)))
    with tqdm(total=len(trials) * (len(candidates) + 1), disable=not progress, desc="leaving out", unit="trial") as bar:
        if len(candidates) > 1:
            _qualify(races, ranks, bar)
        best = 0
        for number, race in enumerate(races):
            if race.total.min() < races[best].total.min() * (1 - _GAIN):
                best = number
        race = races[best]
        _finish(race, ranks)
        bar.update(len(trials))
    passes = _worthwhile(race.errors, holes)
    flow = _flow(race, candidates[best], passes, flows, holes)
    if flow is None:
        return passes, candidates[best]
    return passes + (1 if flow.last is None else 2), flow


def _flow(
    race: _Race, candidate: Pass | Series, passes: int, flows: Sequence[GroupFlow], holes: bool
) -> Followed | None:
    """The flow that helps most behind so many passes, if one does, and a mean with a further pass, if that does."""
    if not flows:
        return None
    runs = [_Flowing(race, flow, passes) for flow in flows]
    for run in runs:
        run.go_on(_FIRST_ITERATIONS)
    best = runs[0]
    for run in runs[1:]:
        if run.least < best.least * (1 - _GAIN_OF_LEVELS):
            best = run
    best.go_on(best.flow.iterations)
    number, errors = best.enough()
    before = torch.tensor([of_trial[passes] for of_trial in race.errors], dtype=torch.float64)
    if not _better(errors, before, holes):
        return None
    last = Averaged(_further(candidate, passes, holes))
    mean = None
    # A mean takes out what more iterations add of noise, and may be better behind more of them than the flow alone
    # wants. In parts of the image flows find fewer patches that are alike: a mean gains more there than in the whole.
    for enough in dict.fromkeys((number, len(best.errors))):
        after = torch.tensor(race.errors_after(last, best.estimates[enough - 1]), dtype=torch.float64)
        if _better(after, errors, holes, _GAIN / 2 if mean is None else 0):
            number, errors, mean = enough, after, last
    return Followed(candidate, passes, replace(best.flow, iterations=number), mean)


def _further(candidate: Pass | Series, passes: int, holes: bool) -> Pass:
    """A pass that follows a flow. Among scattered pixels a guided one looks further around, as it is only one."""
    filler = of_pass(candidate, max(passes, _FIRST_PASSES - 1))
    if holes or not isinstance(filler, Guided):
        return filler
    return replace(filler, radius=math.ceil(_FURTHER * filler.radius))


def _better(errors: Tensor, than: Tensor, holes: bool, gain: float = _GAIN) -> bool:
    """Whether errors of trials are lower by more than this share; in holes, by more than chance and in every trial."""
    gain = _GAIN_IN_HOLES if holes else gain
    return float(errors.sum()) < float(than.sum()) * (1 - gain) and (not holes or bool((errors < than).all()))


def _qualify(races: list[_Race], mesh: Mesh, bar: tqdm) -> None:
    """The first passes of all candidates."""
    _go_on(races, [1] * len(races), mesh)
    # A candidate that does harm at once is out.
    promising = [float(race.total[1]) < float(race.total[0]) for race in races]
    _go_on(races, [_FIRST_PASSES if goes_on else 1 for goes_on in promising], mesh)
    bar.update(sum(len(race.errors) for race in races))


def _finish(race: _Race, mesh: Mesh) -> None:
    """All passes of the best candidate that may be worth while."""
    passes = max(_FIRST_PASSES, len(race.total) - 1)
    _go_on([race], [passes], mesh)
    while passes < _MOST_PASSES and float(race.total[-1]) < float(race.total[:-1].min()) * (1 - _GAIN / 2):
        passes += 1
        _go_on([race], [passes], mesh)


def _go_on(races: list[_Race], passes: list[int], mesh: Mesh) -> None:
    """Make so many passes of each race, each rank its own trials, and tell all ranks their errors."""
    with mesh.together():
        for race, count in zip(races, passes, strict=True):
            race.go_on(count)
    found = exchanged(mesh, [race.own_errors for race in races])
    for place, race in enumerate(races):
        race.learn([of_rank[place] for of_rank in found])


class _Trial:
    """Passes on a part of the image, some of whose pixels are left out.

    Attributes:
        errors: sum of squares over the pixels that are left out, before the first pass and after each.
    """

    def __init__(
        self, part: Observed, truth: Tensor, left_out: Tensor, start: Tensor, candidate: Pass | Series, unit: float
    ) -> None:
        self._unit = unit
        self._left_out = left_out
        self._truth = truth
        self._part = part
        self._estimates: list[Tensor] = []
        self._results = each_pass(part, (of_pass(candidate, number) for number in count()), start)
        self.errors: list[float] = []
        self._note(start)

    def _note(self, estimate: Tensor) -> None:
        self._estimates.append(estimate)
        self.errors.append(self.error(estimate))

    def error(self, estimate: Tensor) -> float:
        """Sum of squares over the pixels that are left out."""
        values = estimate.reshape(-1, *self._left_out.shape)[:, self._left_out]
        return float((values.double() / self._unit - self._truth).square().sum())

    def flowing(self, flow: GroupFlow, passes: int) -> Iterator[Tensor]:
        """What each iteration of a flow makes of the estimate after so many passes."""
        part = self._part
        start = part.normalise(self._estimates[passes].reshape(part.pixels.shape))
        for estimate in flow.iterates(part.normalised, start):
            yield part.shaped(part.restore(part.denormalise(estimate)))

    def error_after(self, last: Pass, estimate: Tensor) -> float:
        """As ``error``, of a pass that goes on from an estimate."""
        return self.error(fill(self._part, last, estimate).image)

    def go_on(self, passes: int) -> None:
        """Until there have been so many passes."""
        while len(self.errors) <= passes:
            self._note(next(self._results).image)


class _Race:
    """The trials of one candidate, each of which one rank follows.

    Args:
        trials: one a part of the image.
        mesh: the ranks.
        first: number of the first trial among those of all candidates: ranks take turns.

    Attributes:
        own: the trials of this rank.
        errors: of each trial, before the first pass and after each.
    """

    def __init__(self, trials: list[_Trial], mesh: Mesh, first: int) -> None:
        self._mesh = mesh
        self.own = {k: trial for k, trial in enumerate(trials) if (first + k) % mesh.size == mesh.rank}
        self.errors = [list(trial.errors) for trial in trials]

    def go_on(self, passes: int) -> None:
        """Until the trials of this rank have had so many passes."""
        for trial in self.own.values():
            trial.go_on(passes)

    @property
    def own_errors(self) -> dict[int, list[float]]:
        """Of the trials of this rank."""
        return {k: trial.errors for k, trial in self.own.items()}

    def learn(self, found: list[dict[int, list[float]]]) -> None:
        """The errors that all ranks have found."""
        for of_rank in found:
            for k, errors in of_rank.items():
                self.errors[k] = list(errors)

    def errors_of(self, estimates: Mapping[int, Tensor]) -> list[float]:
        """Sums of squares of all trials, of which each rank gives the estimates of its own."""
        return collected(self._mesh, {k: self.own[k].error(estimate) for k, estimate in estimates.items()})

    def errors_after(self, last: Pass, estimates: Mapping[int, Tensor]) -> list[float]:
        """The same, of a pass that goes on from these estimates."""
        with self._mesh.together():
            own = {k: self.own[k].error_after(last, estimate) for k, estimate in estimates.items()}
        return collected(self._mesh, own)

    def flowing(self, flow: GroupFlow, passes: int) -> Iterator[dict[int, Tensor]]:
        """What each iteration of a flow makes of the estimates of this rank after so many passes."""
        results = {k: trial.flowing(flow, passes) for k, trial in self.own.items()}
        for _ in range(flow.iterations):
            with self._mesh.together():
                estimates = {k: next(of_trial) for k, of_trial in results.items()}
            yield estimates

    @property
    def total(self) -> Tensor:
        """Errors of all trials together, one a pass."""
        return _total(self.errors)


class _Flowing:
    """A flow in all trials, behind so many passes.

    Attributes:
        flow: with the most iterations to make.
        errors: after each iteration so far, those of all trials.
        estimates: likewise, of the trials of this rank.
    """

    def __init__(self, race: _Race, flow: GroupFlow, passes: int) -> None:
        self.flow = flow
        self.errors: list[list[float]] = []
        self.estimates: list[dict[int, Tensor]] = []
        self._race = race
        self._results = race.flowing(flow, passes)

    @property
    def _totals(self) -> list[float]:
        return [sum(errors) for errors in self.errors]

    @property
    def least(self) -> float:
        """Error of all trials together after the best iteration."""
        return min(self._totals)

    def go_on(self, iterations: int) -> None:
        """Until there have been so many iterations, or the first ones and they become no better."""
        while len(self.errors) < iterations:
            if len(self.errors) >= _FIRST_ITERATIONS and min(self._totals[-_PATIENCE:]) > min(
                self._totals[:-_PATIENCE]
            ):
                return
            self.estimates.append(next(self._results))
            self.errors.append(self._race.errors_of(self.estimates[-1]))

    def enough(self) -> tuple[int, Tensor]:
        """The most iterations that are as good as any, but the first ones at least, and the errors [trials] after them.

        In the whole image groups are more alike than in its parts, and gain from more iterations.
        """
        number = 1 + max(k for k, total in enumerate(self._totals) if total <= self.least * (1 + _AS_GOOD))
        number = max(number, min(_FIRST_ITERATIONS, len(self.errors)))
        return number, torch.tensor(self.errors[number - 1], dtype=torch.float64)


def _total(errors: Sequence[Sequence[float]]) -> Tensor:
    """Errors of some trials together, one a pass."""
    return torch.tensor(errors, dtype=torch.float64).sum(0)


def _worthwhile(trials: Sequence[Sequence[float]], holes: bool) -> int:
    """The fewest passes after which there is nothing to gain, or 0 if they are not better than none.

    In holes, which are few and each has its own error, they must be better in every trial.

    Args:
        trials: the errors of each, before the first pass and after each.
        holes: whether there are holes.
    """
    total = _total(trials)
    lowest = float(total.min())
    passes = int((total <= lowest * (1 + _GAIN / 2)).nonzero()[0])
    gain = _GAIN_IN_HOLES if holes else _GAIN
    groups = [[trial] for trial in trials] if holes else [trials]
    return passes if all(float(_total(g)[passes]) < float(_total(g)[0]) * (1 - gain) for g in groups) else 0
