"""What must hold at a place in a network, beyond its covariance, for the rules of the layers to be exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

__all__ = ["Signal"]


@dataclass(frozen=True)
class Part:
    """A term of a sum of features.

    Attributes:
        last: the weight layer that it comes from through linear maps alone, by its id, or None.
        before: all weight layers that it depends on.
    """

    last: int | None = None
    before: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Signal:
    """Features at a place in a network, as far as the limit of infinite width goes.

    Attributes:
        parts: the terms that they are a sum of, or (after a concatenation) that stand side by side.
        gaussian: whether each channel is a draw of the same centred Gaussian process.
        centred: whether the features' mean over the channels is zero.
        obstacle: why an activation here would not be exact, or None.
        head: the layer that must be the last one, or None.
    """

    parts: frozenset[Part] = frozenset({Part()})
    gaussian: bool = True
    centred: bool = True
    obstacle: str | None = None
    head: str | None = None

    @classmethod
    def of_prior(cls) -> Signal:
        """The input of a network: not Gaussian, in general, and not centred."""
        return cls(gaussian=False, centred=False)

    def weighted(self, layer: int) -> Signal:
        """After a weight layer, given by its id: Gaussian in the limit, whatever came before."""
        return Signal(frozenset({Part(layer, self._before() | {layer})}))

    def activated(self, layer: object, odd: bool) -> Signal:
        """After a nonlinearity.

        Raises:
            ValueError: its dual is not exact here.
        """
        if self.obstacle is not None:
            raise ValueError(f"{layer} cannot follow {self.obstacle}")
        return Signal(frozenset({Part(None, self._before())}), gaussian=False, centred=self.centred and odd)

    def _before(self) -> frozenset[int]:
        return frozenset().union(*(part.before for part in self.parts))

    @staticmethod
    def summed(signals: Sequence[Signal]) -> Signal:
        """After a sum of branches.

        Raises:
            ValueError: two branches are correlated, so that their covariances do not add up.
        """
        for (place, first), (other, second) in combinations(enumerate(signals), 2):
            if any(_correlated(a, b) for a in first.parts for b in second.parts):
                raise ValueError(
                    f"expected the branches of a sum to end in weight layers of their own, all but one, so that they "
                    f"are uncorrelated; got branches {place} and {other}, of which neither does. End one of them in a "
                    "convolution"
                )
        gaussian = all(signal.gaussian for signal in signals)
        obstacle = next((signal.obstacle for signal in signals if signal.obstacle), None)
        if not gaussian and obstacle is None:
            obstacle = (
                "a sum with a branch that is not Gaussian, such as the output of an activation or the network's input: "
                "the dual would not be exact; put a weight layer between them, or let the branch start before the "
                "activation"
            )
        return Signal(
            frozenset().union(*(signal.parts for signal in signals)),
            gaussian,
            all(signal.centred for signal in signals),
            obstacle,
        )

    @staticmethod
    def concatenated(signals: Sequence[Signal]) -> Signal:
        """After a concatenation of branches, whose channels differ in distribution."""
        if len(signals) == 1:
            return signals[0]
        return Signal(
            frozenset().union(*(signal.parts for signal in signals)),
            gaussian=False,
            centred=all(signal.centred for signal in signals),
            obstacle=(
                "a concatenation, whose channels differ in variance: the dual would not be exact; put the activation "
                "into each branch, which is the same network"
            ),
        )

    def with_head(self, layer: object) -> Signal:
        """After a layer that must be the last one."""
        return replace(self, head=str(layer))


def _correlated(first: Part, second: Part) -> bool:
    """Whether neither ends in weights that the other does not depend on: E[W h . g] = 0 if g is independent of W."""
    own = first.last is not None and first.last not in second.before
    other = second.last is not None and second.last not in first.before
    return not own and not other
