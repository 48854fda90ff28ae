"""The length of an axis after a network, as a function of its length before: sums, products and roundings down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

__all__ = ["Change", "Length"]


class Change(NamedTuple):
    """What a layer does to the length of an axis: n becomes ``(n * up + add) // down``.

    Attributes:
        up: a factor.
        add: pixels that are added to the product; fewer are left if it is negative.
        down: a divisor.
        whole: whether n must be a multiple of the divisor; nothing is added then.
    """

    up: int = 1
    add: int = 0
    down: int = 1
    whole: bool = False

    def of(self, length: int) -> int:
        """The new length.

        Raises:
            ValueError: the division leaves something over where it must not, or no pixel is left.
        """
        if self.whole and length % self.down:
            raise ValueError(f"expected a multiple of {self.down} pixels, got {length}")
        total = length * self.up + self.add
        if total < self.down:
            raise ValueError(f"expected at least {-(-(self.down - self.add) // self.up)} pixels, got {length}")
        return total // self.down


@dataclass(frozen=True)
class Length:
    """A chain of changes, first one first; neighbours that are one change are kept as one."""

    changes: tuple[Change, ...] = ()

    def then(self, change: Change) -> Length:
        """The chain with one more change."""
        if change == Change():
            return self
        if self.changes:
            *before, last = self.changes
            if change.up == 1 and not last.whole and not change.whole:
                # Rounding down twice is rounding down once.
                down = last.down * change.down
                merged = Change(last.up, last.add + last.down * change.add, down)
                return Length((*before, merged))
            if last.down == 1 and not change.whole:
                merged = Change(last.up * change.up, last.add * change.up + change.add, change.down)
                return Length((*before, merged))
        return Length((*self.changes, change))

    def of(self, length: int) -> int:
        """The length after all changes.

        Raises:
            ValueError: some change cannot be made.
        """
        for change in self.changes:
            length = change.of(length)
        return length

    def most(self, length: int) -> int:
        """The largest length before that gives at most this one after; not always positive."""
        for change in reversed(self.changes):
            if change.whole:
                length = length // change.up * change.down
            else:
                length = ((length + 1) * change.down - 1 - change.add) // change.up
        return length

    @property
    def scale(self) -> Fraction:
        """Pixels after over pixels before, of long axes."""
        return math.prod((Fraction(change.up, change.down) for change in self.changes), start=Fraction(1))

    @property
    def granule(self) -> int | None:
        """Of which number the length must be a multiple for nothing to be rounded; None if pixels come or go anyway."""
        if any(change.add not in (0, change.down - 1) for change in self.changes):
            return None
        scale, granule = Fraction(1), 1
        for change in self.changes:
            granule = math.lcm(granule, (scale / change.down).denominator)
            scale *= Fraction(change.up, change.down)
        return granule
