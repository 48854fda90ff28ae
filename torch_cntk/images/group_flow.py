"""Gradient flow in groups of similar patches: what many places of a picture have in common is kept, the rest fades.

For each reference patch on a grid, the patches around it that are most alike make a group, a small table A [n, q] of
n patches with q numbers each. An infinitely wide network that is trained on the table from a start of 0 goes
through F A with F = I - exp(-t K), K = A A^T for a linear one: directions that many patches share come first. We take
N steps of the implicit Euler method, F = I - (I + K / (N level^2))^-N. What remains of the observed pixels is added
back before the next step, as training goes on (Osher et al., An iterative regularization method, 2005).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.filler import Pass, Series, of_pass
from torch_cntk.images.groups import flow_in_groups, groups, narrowed
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.layers.base import Layer

__all__ = ["Followed", "GroupFlow", "before_flow", "flows_for"]


@dataclass(frozen=True)
class _Turn:
    """Groups of one kind.

    Attributes:
        side: of a patch in pixels.
        reach: how far patches of a group may be from the reference patch along each axis.
        members: patches of a group.
        step: pixels between reference patches: each pixel is in several groups.
    """

    side: int
    reach: int
    members: int
    step: int


_TURNS = {
    1: (_Turn(385, 480, 64, 96),),
    2: (_Turn(5, 15, 48, 4), _Turn(7, 60, 32, 5), _Turn(9, 15, 32, 4)),
    3: (_Turn(6, 9, 32, 4),),
}
"""Iterations take these in turn: what one kind of groups blurs or leaves noisy the next one mends. Patches of
images have about 50 numbers and are compared with about a thousand others; those of the middle size with fifteen
thousand, as text and patterns repeat further away, where most of nature does not. The result is the mean of the latest
of each. Those of signals hold several periods of a tone, those of videos several frames."""
_OF_A_SIGNAL = 4
"""Patches of a signal are at most this part of it, and at most a fourth of their length apart."""
_OF_SIGNALS = 2.4
"""Levels of signals, times those of images: what long patches of tones share is far above the rest."""
_SHORT = _Turn(49, 480, 32, 12)
"""Other groups to try in signals: those without tones have more in common over a shorter time."""
_FALL = 12
"""Iterations after which the last level is reached: more of them go on as fewer do."""
_MOST_ITERATIONS = 20
_LEVELS = (2 / 3, 3 / 2)
"""Times the usual ones: natural pictures want the lower ones, regular patterns the higher ones (.1 to .2 dB each)."""
_CLEAN = 1e-3
"""A ridge up to this tells of no noise: a hundredth of the values' range and less."""


@dataclass(frozen=True)
class GroupFlow:
    """A pass of gradient flows in groups of similar patches, which goes on from an estimate.

    It is for pictures. Fields that are smooth everywhere, such as measurements on a grid, are filled better by guided
    passes alone: what is finer than some .4 % of their range is taken for an error of the estimate. Values beyond the
    range of the observed ones are cut.

    The settings are those that did best on crops of scikit-image's photographs; ``for_share`` has them by the share of
    observed pixels.

    Args:
        iterations: how often all groups are solved.
        first: level of the first iteration, where the observed values have a range of 1. Components of a group whose
            root sum of squares is below it fade.
        last: of the twelfth iteration and those that follow; geometric in between.
        relaxation: how far each iteration goes beyond its result, from 0 to below 1.
        members: patches of a group; by default 32, 48 of the smallest patches of images and 64 in signals.
        side: of a patch in pixels, along each axis; by default 385 in signals, or a fourth of shorter ones, 6 in
            videos, and 5, 7 and 9 in turn in images, where the result is the mean of the latest iteration of each.
        reach: how far from the reference patch those of its group may be, in pixels along each axis; by default 480 in
            signals, 9 in videos, and 15, 60 and 15 in turn in images.
        network: K is its kernel, of layers that take rows of channels times side^ndim numbers, such as ``Linear``, for
            which a ``side`` is given; by default A A^T.
        noise: standard deviation of the noise in the observed values, relative to theirs. What they lose is added back
            only while its root mean square is above that of the noise, which is not to be learnt.

    Raises:
        TypeError: a setting is no number, or the network none.
        ValueError: a setting is out of range.
    """

    iterations: int = 16
    first: float = 0.6
    last: float = 0.15
    relaxation: float = 0.5
    members: int | None = None
    side: int | None = None
    reach: int | None = None
    network: Layer | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        positive_int(self.iterations, "iterations")
        for name in ("members", "side", "reach"):
            if getattr(self, name) is not None:
                positive_int(getattr(self, name), name)
        for name in ("first", "last"):
            if finite_number(getattr(self, name), name, minimum=0) == 0:
                raise ValueError(f"expected {name} to be above 0, got 0")
        if not finite_number(self.relaxation, "relaxation", minimum=0) < 1:
            raise ValueError(f"expected relaxation to be below 1, got {self.relaxation}")
        finite_number(self.noise, "noise", minimum=0)
        if self.network is not None and not isinstance(self.network, Layer):
            raise TypeError(f"expected a network of torch_cntk, got {type(self.network).__name__}")

    @classmethod
    def for_share(cls, observed: float, ndim: int = 2) -> GroupFlow:
        """Settings that suit a share of observed pixels: the fewer, the stronger at first.

        Args:
            observed: the share, from 0 to 1.
            ndim: number of spatial dimensions, 1 to 3; in signals levels are higher.

        Raises:
            TypeError: a number is none.
            ValueError: one is out of range.
        """
        if positive_int(ndim, "ndim") not in _TURNS:
            raise ValueError(f"expected 1 to 3 spatial dimensions, got {ndim}")
        if finite_number(observed, "observed", minimum=0) > 1:
            raise ValueError(f"expected a share of observed pixels from 0 to 1, got {observed}")
        # From half of the pixels to a fifth of them.
        sparse = min(max((0.5 - observed) / 0.3, 0.0), 1.0)
        level = _OF_SIGNALS if ndim == 1 else 1.0
        first, last = 0.6 * level * 2**sparse, 0.15 * level * (4 / 3) ** sparse
        return cls(first=first, last=last, relaxation=0.5 + 0.3 * sparse)

    def _turns(self, size: tuple[int, ...]) -> tuple[_Turn, ...]:
        """The kinds of groups for what has that many pixels along each axis, the widest patches last."""
        usual = _TURNS[len(size)]
        if len(size) == 1:
            # There must be others to compare with.
            usual = tuple(replace(turn, side=min(turn.side, max(size[0] // _OF_A_SIGNAL, 1))) for turn in usual)
        if self.side is not None:
            usual = (replace(usual[-1], side=self.side),)
        changed = {name: getattr(self, name) for name in ("members", "reach") if getattr(self, name) is not None}
        usual = tuple(replace(turn, **changed) for turn in usual)
        if len(size) > 1:
            return usual
        return tuple(replace(turn, step=min(turn.step, max(turn.side // _OF_A_SIGNAL, 1))) for turn in usual)

    def refine(self, given: Observed, estimate: Tensor) -> Tensor:
        """Go on from an estimate.

        Args:
            given: what is known.
            estimate: [batch, channels, *size], in its units.

        Returns:
            of the same shape.
        """
        return self.refine_by(How(), given, estimate)

    def refine_by(self, how: How, given: Observed, estimate: Tensor) -> Tensor:
        """See ``Governed``: each rank finds some of the groups, and lets some of them flow."""
        bar = tqdm(total=self.iterations, disable=not how.progress, desc="group flow", unit="it", leave=False)
        with bar:
            for flowed in self.iterates(given, estimate, how.mesh):
                estimate = flowed
                bar.update()
        return estimate

    def iterates(self, given: Observed, estimate: Tensor, mesh: Mesh | None = None) -> Iterator[Tensor]:
        """As ``refine``: what each iteration gives; perhaps by several ranks together."""
        ranks = mesh or Mesh.alone()
        runs = [_Run(self, one, start, ranks) for one, start in given.each_in_one_unit(estimate)]
        for iteration in range(self.iterations):
            level = self.first * (self.last / self.first) ** min(iteration / (_FALL - 1), 1)
            yield given.from_one_unit(torch.stack([run.step(iteration, level) for run in runs]))


@dataclass(frozen=True)
class Followed:
    """A series of passes that ends in a group flow.

    Attributes:
        series: of the passes before.
        passes: their number.
        flow: the pass behind them.
        last: a pass behind the flow, such as ``Averaged``; None if there is none.
    """

    series: Pass | Series
    passes: int
    flow: GroupFlow
    last: Pass | None = None

    def at(self, number: int) -> Pass:
        """See ``Series``."""
        if number < self.passes:
            return of_pass(self.series, number)
        return self.flow if number == self.passes or self.last is None else self.last


def before_flow(guidance: Pass | Series, passes: int) -> tuple[Pass | Series, int]:
    """Guidance and number of the passes before a flow at the end; the same where there is none."""
    return (guidance.series, guidance.passes) if isinstance(guidance, Followed) else (guidance, passes)


def flows_for(observed: float, ridge: float = 0.0, ndim: int = 2) -> tuple[GroupFlow, ...]:
    """Flows to try: with the usual levels, with lower and higher ones, and for noisy pixels.

    Each has the most iterations to try: their results on the way are those of flows with fewer.

    Args:
        observed: share of observed pixels, from 0 to 1.
        ridge: of the first regression, relative to the mean of the kernel's diagonal. It is the share of noise in the
            variance of the observed values if that kernel is right.
        ndim: number of spatial dimensions.
    """
    usual = replace(GroupFlow.for_share(observed, ndim), iterations=_MOST_ITERATIONS)
    others = (replace(usual, first=usual.first * factor, last=usual.last * factor) for factor in _LEVELS)
    clean = usual, *others
    if ndim == 1:
        short = replace(GroupFlow.for_share(observed), side=_SHORT.side, members=_SHORT.members)
        short = replace(short, iterations=_MOST_ITERATIONS)
        low = replace(short, first=short.first * _LEVELS[0], last=short.last * _LEVELS[0])
        clean = *clean, short, low
    if ridge <= _CLEAN:
        return clean
    # The ridge may be large for a picture that the first kernel is wrong for: the clean ones stay.
    return *clean, *(replace(flow, noise=math.sqrt(ridge)) for flow in (clean[0], clean[2]))


class _Run:
    """The flow of one image, in units in which its observed values have a range of 1."""

    def __init__(self, flow: GroupFlow, given: Observed, estimate: Tensor, mesh: Mesh) -> None:
        ndim = given.ndim
        self._flow, self._mesh = flow, mesh
        self._known = given.single_mask
        values = given.pixels[0][:, self._known]
        self._unit = float(values.max() - values.min()) or 1.0
        self._noise = flow.noise * float(values.double().var(1, correction=0).mean().sqrt()) / self._unit
        # Of numbers of size 1, single precision keeps seven digits: enough for a picture, and half of the time.
        self._dtype = estimate.dtype
        values, estimate = values.float(), estimate.float()
        self._observed = given.pixels[0].float() / self._unit
        self._low = values.amin(1).reshape(-1, *(1,) * ndim) / self._unit
        self._high = values.amax(1).reshape(-1, *(1,) * ndim) / self._unit
        estimate = (estimate / self._unit).clamp(self._low, self._high)
        self._estimate = torch.where(self._known, self._observed, estimate)
        self._back = torch.zeros_like(self._estimate)
        turns = flow._turns(given.size)
        self._sides = [tuple(min(turn.side, n) for n in given.size) for turn in turns]
        self._latest: deque[Tensor] = deque(maxlen=len(turns))
        # One search for kinds that differ in their sides alone: it takes as long as several iterations.
        widest, found = self._sides[-1], dict[tuple[int, int], Tensor]()
        for turn in turns:
            searched = turn.reach, turn.step
            if searched not in found:
                most = max(other.members for other in turns if (other.reach, other.step) == searched)
                found[searched] = groups(self._estimate, widest, turn.step, turn.reach, most, ~self._known, mesh)
        self._groups = [
            narrowed(found[turn.reach, turn.step][:, : turn.members], given.size, widest, sides)
            for turn, sides in zip(turns, self._sides, strict=True)
        ]

    def step(self, iteration: int, level: float) -> Tensor:
        """One iteration, counted from 0: the mean of the latest one of each side, in the units of what is given."""
        turn = iteration % len(self._sides)
        start, network = self._estimate - self._back, self._flow.network
        flowed = flow_in_groups(start, self._groups[turn], self._sides[turn], level, network, self._mesh)
        lost = torch.where(self._known, flowed - self._observed, 0)
        if float(lost[:, self._known].square().mean().sqrt()) > self._noise:
            self._back += lost
        beyond = flowed + self._flow.relaxation * (flowed - self._estimate)
        self._estimate = torch.where(self._known, self._observed, beyond)
        self._latest.append(self._estimate.clamp(self._low, self._high))
        mean = torch.stack(list(self._latest)).mean(0)
        return mean.to(self._dtype) * self._unit
