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
        up: a factor; 0 where all pixels become one.
        add: pixels that are added to the product; fewer are left if it is negative.
        down: a divisor.
        whole: whether n must be a multiple of the divisor; nothing is added then.
        least: of n, for changes that have been taken together and must leave a pixel each.
    """

    up: int = 1
    add: int = 0
    down: int = 1
    whole: bool = False
    least: int = 1

    @property
    def minimum(self) -> int:
        """The smallest n of which a pixel is left, on the way and in the end."""
        return max(self.least, -((self.add - self.down) // (self.up or 1)))

    def of(self, length: int) -> int:
        """The new length.

        Raises:
            ValueError: the division leaves something over where it must not, or no pixel is left.
        """
        if self.whole and length % self.down:
            raise ValueError(f"expected a multiple of {self.down} pixels, got {length}")
        if length < self.minimum:
            raise ValueError(f"expected at least {self.minimum} pixels, got {length}")
        return (length * self.up + self.add) // self.down

    def followed_by(self, other: Change) -> Change:
        """Both as one change; none of them is whole, and the first one does not divide or the second not multiply."""
        # What leaves enough for the other one.
        enough = -((self.add - other.minimum * self.down) // (self.up or 1))
        up, add = self.up * other.up, self.add * other.up + self.down * other.add
        return Change(up, add, self.down * other.down, least=max(self.minimum, enough))


@dataclass(frozen=True)
class Length:
    """A chain of changes, first one first; neighbours that are one change are kept as one.

    Attributes:
        changes: of n, or of the sum of the parts.
        parts: lengths of images that have been put side by side, before the first change.
    """

    changes: tuple[Change, ...] = ()
    parts: tuple[Length, ...] = ()

    def then(self, change: Change) -> Length:
        """The chain with one more change."""
        if change == Change():
            return self
        if self.changes:
            *before, last = self.changes
            # Rounding down twice is rounding down once.
            if not last.whole and not change.whole and (change.up == 1 or last.down == 1):
                return Length((*before, last.followed_by(change)), self.parts)
        return Length((*self.changes, change), self.parts)

    def of(self, length: int) -> int:
        """The length after all changes.

        Raises:
            ValueError: some change cannot be made.
        """
        if self.parts:
            length = sum(part.of(length) for part in self.parts)
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
        return self._most_of_parts(length) if self.parts else length

    def _most_of_parts(self, total: int) -> int:
        """The largest length of which the parts have at most so many pixels together."""
        for length in range(min(part.most(total) for part in self.parts), 0, -1):
            try:
                if sum(part.of(length) for part in self.parts) <= total:
                    return length
            except ValueError:  # no multiple of what a part needs
                continue
        return 0

    @property
    def scale(self) -> Fraction:
        """Pixels after over pixels before, of long axes."""
        start = sum((part.scale for part in self.parts), Fraction(0)) if self.parts else Fraction(1)
        return math.prod((Fraction(change.up, change.down) for change in self.changes), start=start)

    @property
    def granule(self) -> int | None:
        """Of which number the length must be a multiple for nothing to be rounded; None if pixels come or go anyway."""
        if self.parts or any(change.add not in (0, change.down - 1) for change in self.changes):
            return None
        scale, granule = Fraction(1), 1
        for change in self.changes:
            granule = math.lcm(granule, (scale / change.down).denominator)
            scale *= Fraction(change.up, change.down)
        return granule
