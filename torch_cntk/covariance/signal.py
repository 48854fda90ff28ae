"""What must hold at a place in a network, beyond its covariance, for the rules of the layers to be exact.

``Signal`` has the verbs of a covariance and no numbers: propagated through a network, it finds the first layer whose
rule would not give the covariance of the infinitely wide network. As every layer is written against the verbs, none
can be left out.
"""

from __future__ import annotations

import functools
import operator
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch

from torch_cntk.covariance.base import NTK, Covariance
from torch_cntk.covariance.patches import Gains, Patches

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch_cntk.covariance.attention import Attention
    from torch_cntk.covariance.duals import Dual
    from torch_cntk.covariance.resampling import Resampling

__all__ = ["InexactError", "Signal"]

Obstacle = Literal[
    "input",
    "activation",
    "dropout",
    "sum",
    "product",
    "concatenation",
    "scales",
    "groups",
    "channel",
    "few",
    "flattening",
]

_OBSTACLES: dict[Obstacle, str] = {
    "input": (
        "the network's input, which is no draw of one centred Gaussian process a channel: the dual would not be exact; "
        "put a weight layer (a convolution) between them, or take a prior that is Gaussian, such as priors.Normal"
    ),
    "activation": (
        "another activation, whose output is not Gaussian: the dual would not be exact, whatever lies between them "
        "without weights of its own; put a weight layer (a convolution) between them, or make one activation of both"
    ),
    "dropout": (
        "dropout that the kernel sees (in_kernel=True), whose output is not Gaussian: the dual would not be exact; put "
        "the dropout behind the activation, or a weight layer between them"
    ),
    "sum": (
        "a sum with a branch that is not Gaussian, or its pixels beside others, such as the output of an activation or "
        "the network's input: the dual would not be exact; put a weight layer between them, or let the branch start "
        "before the activation"
    ),
    "product": (
        "a product of branches, which is not Gaussian: the dual would not be exact; put a weight layer between them"
    ),
    "concatenation": (
        "a concatenation, whose channels differ in variance: the dual would not be exact; put the activation into each "
        "branch, which is the same network"
    ),
    "flattening": (
        "a flattening, whose features differ in variance from pixel to pixel: the dual would not be exact; put the "
        "activation before it, which is the same network"
    ),
    "scales": (
        "a normalisation whose scales are trained: the kernel would not be exact; put a weight layer between them, or "
        "leave scale and offset out (affine=False; in torch elementwise_affine=False)"
    ),
    "groups": (
        "a grouped convolution of channels that are not alike (the network's input, a concatenation): its groups "
        "differ in variance, and the dual would not be exact; take a full convolution there (groups=1)"
    ),
    "channel": (
        "a depthwise convolution, whose channels each come from one channel and are not Gaussian, however many there "
        "are: the dual would not be exact; put a full convolution (of width 1, say) between them"
    ),
    "few": (
        "a depthwise convolution of the network's input, which has a given number of channels: what is made of so few "
        "filters does not become Gaussian, and the dual would not be exact; put a full convolution before it"
    ),
}
_LASTING: tuple[Obstacle, ...] = ("few", "concatenation", "flattening", "scales", "groups", "channel")
"""Obstacles that a sum with another branch, or a mask, does not take away."""
_UNCENTRED = (
    "an activation or the network's input, whose mean over the channels is not zero: its kernel would not be exact. "
    "Put it behind a weight layer"
)
_CORRELATED = (
    "expected the branches of a {} to end in weight layers of their own, all but one, so that they are uncorrelated; "
    "got branches {} and {}, of which neither does. End one of them in a convolution"
)

_DEPENDENT = (
    "expected the branches of a product to end in weight layers of their own over all channels, all but one, so that "
    "they are independent; got branches {} and {}, of which neither does. End one of them in a convolution"
)
_FEW_FACTORS = (
    "expected branches of a product whose channels become infinitely many, got branch {}, which has as many as the "
    "network's input (or comes from a depthwise convolution of it): the mean over so few products would not be exact; "
    "put a full convolution before it"
)


_FEW_MASKS = (
    "expected dropout (with in_kernel=True) of infinitely many channels, got as many as the network's input has, or a "
    "depthwise convolution of it: put it behind a full weight layer"
)


class InexactError(ValueError):
    """A layer's rule for covariances would not be exact at its place.

    Attributes:
        reason: why.
        path: names of the networks' parts that lead to the layer, outermost first; ``".".join(path)`` is its name
            among ``named_modules()``.
        layer: the layer as it prints itself, or None as long as nobody has said.
    """

    def __init__(self, reason: str, path: tuple[str, ...] = (), layer: str | None = None) -> None:
        super().__init__(reason, path, layer)
        self.reason, self.path, self.layer = reason, path, layer

    def at(self, layer: str, name: str | None = None) -> InexactError:
        """The same, found in a layer of this text, or in a part of it, which stands under this name in a network."""
        path = self.path if name is None else (name, *self.path)
        return InexactError(self.reason, path, layer if self.layer is None else self.layer)

    def __str__(self) -> str:
        if self.reason.startswith("cannot"):
            layer = self.layer or "a layer"
            return f"layer {'.'.join(self.path)}, {layer}, {self.reason}" if self.path else f"{layer} {self.reason}"
        return f"layer {'.'.join(self.path)}: {self.reason}" if self.path else self.reason


class _Part(NamedTuple):
    """A term of a sum of features. Sets of weight layers are the bits of integers.

    Attributes:
        last: the weight layer that it comes from through linear maps alone, or 0.
        before: all weight layers that it depends on.
    """

    last: int = 0
    before: int = 0


class Signal(Covariance):
    """Features at a place in a network, as far as the limit of infinite width goes.

    Attributes:
        parts: the terms that they are a sum of, or (after a concatenation) that stand side by side.
        obstacle: why an activation here would not be exact; None if each channel is a draw of the same centred
            Gaussian process.
        centred: whether the features' mean over the channels is zero.
        alike: whether all channels have the same distribution, so that the mean over any infinitely many of them is
            that over all.
        wide: whether there are infinitely many channels, rather than those of the network's input.
        single: whether there is one pixel, to which all have just been pooled.
    """

    def __init__(
        self,
        parts: frozenset[_Part],
        obstacle: Obstacle | None,
        centred: bool,
        counter: list[int],
        alike: bool = True,
        wide: bool = True,
        *,
        single: bool = False,
    ) -> None:
        self.parts = parts
        self.obstacle = obstacle
        self.centred = centred
        self.alike = alike
        self.wide = wide
        self.single = single
        # How many weight layers have been met, in all branches: every one of them gets a number of its own, as the
        # weights of a layer that stands in two places are refused.
        self._counter = counter
        self._before = self._lasts = 0
        for last, before in parts:
            self._before |= before
            self._lasts |= last

    @classmethod
    def of_input(cls, *, gaussian: bool) -> Signal:
        """The input of a network, each channel of which is a draw of one centred Gaussian process, or is not."""
        return cls(frozenset((_Part(),)), None if gaussian else "input", gaussian, [0], gaussian, gaussian)

    @property
    def ndim(self) -> int:
        """1: one axis stands for any number of them."""
        return 1

    # Verbs.

    def average_patches(self, patches: Patches, gains: Gains = NTK) -> Signal:
        """After a weight layer: Gaussian in the limit, whatever came before, if an output reads infinitely many inputs.

        The groups of a grouped convolution stay as many, while their channels become infinitely many: each is a layer
        of its own. The channels of a depthwise convolution read one channel each: what is exact is the mean over them,
        which is all that another weight layer asks for.
        """
        own = 1 << self._counter[0]
        self._counter[0] += 1
        parts = frozenset((_Part(own, self._before | own),))
        depthwise, full = patches.sharing == "channel", patches.sharing == "all"
        obstacle: Obstacle | None = None
        if self.obstacle == "few" or (depthwise and not self.wide):
            # Behind so few random filters nothing becomes Gaussian any more.
            obstacle = "few"
        elif depthwise:
            obstacle = "channel"
        elif not full and not self.alike:
            obstacle = "groups"
        return Signal(parts, obstacle, True, self._counter, self.alike or full, self.wide or not depthwise)

    def activate(self, dual: Dual) -> Signal:
        """After a nonlinearity: no longer Gaussian.

        Raises:
            InexactError: the features are not Gaussian before.
        """
        linear, centred = _traits(cast("Hashable", dual))
        if linear:
            return self
        if self.obstacle is not None:
            raise InexactError(f"cannot follow {_OBSTACLES[self.obstacle]}")
        return Signal(frozenset((_Part(0, self._before),)), "activation", centred, self._counter, self.alike, self.wide)

    def subsample(self, stride: tuple[int, ...], trim: tuple[int, ...] | None = None) -> Signal:
        """A linear map of pixels."""
        return self

    def resample(self, resampling: tuple[Resampling, ...]) -> Signal:
        """A linear map of pixels."""
        return self

    def attend(self, attention: Attention) -> Signal:
        """A linear map of pixels, by weights that are numbers in the limit.

        Raises:
            InexactError: so few channels vary from draw to draw, and the weights with them.
        """
        if self.obstacle == "few":
            raise InexactError(f"cannot follow {_OBSTACLES['few']}")
        return self

    def pool(self) -> Signal:
        """A linear map of pixels, of which one is left."""
        return Signal(self.parts, self.obstacle, self.centred, self._counter, self.alike, self.wide, single=True)

    def flatten(self) -> Signal:
        """A linear map of pixels, after which channels that are alike no longer are, unless there was one pixel."""
        if self.obstacle is not None or self.single:
            return self
        return Signal(self.parts, "flattening", self.centred, self._counter, False, self.wide)

    def add(self, others: tuple[Signal, ...]) -> Signal:
        """After a sum of branches.

        Raises:
            InexactError: two branches are correlated, so that their covariances do not add up.
        """
        if not others:
            return self
        return self._uncorrelated((self, *others), "sum")

    def adjoin(self, axis: int, others: tuple[Signal, ...]) -> Signal:
        """After images of branches side by side, as after a sum: pixels of two branches are independent.

        Raises:
            InexactError: two branches are correlated, so that their pixels are.
        """
        return self._uncorrelated((self, *others), "concatenation of pixels")

    def _uncorrelated(self, branches: tuple[Signal, ...], what: str) -> Signal:
        for (place, first), (other, second) in combinations(enumerate(branches), 2):
            if _correlated(first, second):
                raise InexactError(_CORRELATED.format(what, place, other))
        obstacles = {branch.obstacle for branch in branches} - {None}
        obstacle = next((name for name in _LASTING if name in obstacles), "sum" if obstacles else None)
        return self._joined(branches, obstacle, all(branch.alike for branch in branches))

    def concatenate(self, shares: tuple[float, ...], others: tuple[Signal, ...]) -> Signal:
        """After a concatenation of branches, whose channels differ in distribution."""
        if not others:
            return self
        branches = (self, *others)
        few = any(branch.obstacle == "few" for branch in branches)
        return self._joined(branches, "few" if few else "concatenation", False)

    def multiply(self, others: tuple[Signal, ...]) -> Signal:
        """After a product of branches: centred, alike in all channels but for one factor, and not Gaussian.

        A factor W h with weights of its own has, given all other factors, the same deterministic covariance in each
        channel, so that the mean over channels of the products is the product of the means.

        Raises:
            InexactError: two branches are not independent, or a branch has as few channels as the input.
        """
        if not others:
            return self
        branches = (self, *others)
        for place, branch in enumerate(branches):
            if not branch.wide or branch.obstacle == "few":
                raise InexactError(_FEW_FACTORS.format(place))
        for (place, first), (other, second) in combinations(enumerate(branches), 2):
            if not (_fresh(first, second) or _fresh(second, first)):
                raise InexactError(_DEPENDENT.format(place, other))
        before = functools.reduce(operator.or_, (branch._before for branch in branches))
        alike = all(branch.alike for branch in branches)
        return Signal(frozenset((_Part(0, before),)), "product", True, self._counter, alike)

    def drop(self, kept: float, channels: bool = False) -> Signal:
        """After masks: no longer Gaussian, but with the same mean over so many channels in every draw of the masks.

        Raises:
            InexactError: there are few channels, of which another share is kept from draw to draw.
        """
        if not self.wide or self.obstacle == "few":
            raise InexactError(_FEW_MASKS)
        obstacle = self.obstacle if self.obstacle in _LASTING else "dropout"
        return Signal(self.parts, obstacle, self.centred, self._counter, self.alike, self.wide, single=self.single)

    def _joined(self, branches: tuple[Signal, ...], obstacle: Obstacle | None, alike: bool) -> Signal:
        parts = frozenset().union(*(branch.parts for branch in branches))
        centred, wide = (all(getattr(branch, fact) for branch in branches) for fact in ("centred", "wide"))
        return Signal(parts, obstacle, centred, self._counter, alike, wide)

    def normalise(self, epsilon: float = 0.0, affine: bool = False) -> Signal:
        """After a division by numbers, in the limit: what was Gaussian stays so, unless scales are trained.

        Raises:
            InexactError: the features' mean over the channels is not zero, or so few channels vary from draw to draw.
        """
        if not self.centred:
            raise InexactError(f"cannot follow {_UNCENTRED}")
        if self.obstacle == "few":
            raise InexactError(f"cannot follow {_OBSTACLES['few']}")
        # E[f f' phi'(f) phi'(f')], which the scales would add behind an activation, is not Sigma times the slope.
        return (
            Signal(self.parts, self.obstacle or "scales", True, self._counter, self.alike, self.wide)
            if affine
            else self
        )


def _fresh(first: Signal, second: Signal) -> bool:
    """Whether a factor is made of Gaussian weights alone that the other one does not depend on."""
    return first.obstacle is None and not first._lasts & second._before and all(last for last, _ in first.parts)


def _correlated(first: Signal, second: Signal) -> bool:
    """Whether neither of two terms ends in weights that the other does not depend on.

    E[W h . g] = 0 if g is independent of W.
    """
    for one, other in ((first, second), (second, first)):
        if not one._lasts & other._before and all(last for last, _ in one.parts):
            return False
    return any(
        (not a.last or bool(a.last & b.before)) and (not b.last or bool(b.last & a.before))
        for a in first.parts
        for b in second.parts
    )


@lru_cache(maxsize=1024)
def _traits(dual: Hashable) -> tuple[bool, bool]:
    """Whether a function is linear, and whether its mean is zero, as its dual tells.

    E[phi(f) phi(f')] is the squared mean for independent f, f', and proportional to their covariance for linear phi
    alone. Variances of three sizes: a mean may vanish for one of them by chance, as that of u^2 - 1 does.
    """
    linear = centred = True
    for variance in (0.6, 1.0, 1.9):
        correlation = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64, device="cpu")
        v = torch.full_like(correlation, variance)
        with torch.device("cpu"):  # also while a network is made without weights, on the meta device
            value = cast("Dual", dual)(correlation * variance, v, v)[0]
        # Relative to the second moment; rounding is 1e-16 of it.
        straight = correlation * value[-1]
        linear &= bool((value - straight).abs().max() <= 1e-14 * value[-1])
        centred &= bool(value[0].abs() <= 1e-14 * value[-1])
    return linear, centred
