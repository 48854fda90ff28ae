"""The shape of a kernel before it is computed: its period, radius and the sizes at which nothing wraps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from torch_cntk.covariance.base import NTK, Covariance
from torch_cntk.covariance.lengths import Change, Length
from torch_cntk.covariance.patches import Gains, Patches

if TYPE_CHECKING:
    from torch_cntk.covariance.attention import Attention
    from torch_cntk.covariance.duals import Dual
    from torch_cntk.covariance.resampling import Resampling

__all__ = ["Extent"]


@dataclass(frozen=True)
class Extent(Covariance):
    """A storage form that stores no numbers, only where the numbers would be; one entry an axis.

    Follows a prior whose covariance depends on the displacement alone, and on that only within its radius.
    """

    period: tuple[int, ...]
    """The kernel is invariant to joint shifts by this many pixels."""
    radius: tuple[int, ...]
    """Beyond this displacement the kernel is constant (``uniform``) or depends on the phases alone."""
    scale: tuple[Fraction, ...]
    """Output pixels an input pixel."""
    fewest: tuple[int, ...]
    """Fewest input pixels at which no displacement wraps, at any level."""
    granule: tuple[int, ...]
    """The number of input pixels must be a multiple of this."""
    uniform: bool = True
    """Whether all pixels have the same variance, so that the far kernel is one number."""
    shift_invariant: bool = True
    """False once a layer treats the image's border specially: the kernel then belongs to one image size."""
    length: tuple[Length, ...] = ()
    """What becomes of the length of an axis, also where that is no multiple of the granule."""
    same: tuple[tuple[int, Length, Length], ...] = ()
    """Axes at which branches met, and the two lengths that must be equal there."""
    seen: tuple[Fraction, ...] = ()
    """Input pixels on each side that an output pixel sees, at most, unless it sees all."""
    sees_all: bool = False
    """Whether every output pixel sees the whole image: behind an attention."""

    @classmethod
    def start(cls, ndim: int, radius: int = 0) -> Extent:
        """The extent of a stationary prior of the given radius (0: independent pixels)."""
        ones = (1,) * ndim
        scale, length, seen = (Fraction(1),) * ndim, (Length(),) * ndim, (Fraction(0),) * ndim
        return cls(ones, (radius,) * ndim, scale, (2 * radius + 1,) * ndim, ones, length=length, seen=seen)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.period)

    def average_patches(self, patches: Patches, gains: Gains = NTK) -> Extent:
        """Patches are averaged at a fixed displacement: no radius grows. Zeros beyond the border show where it is."""
        seen = self._seen_from(patches.reach(axis) for axis in range(self.ndim))
        if patches.crosses_border:
            return replace(self, uniform=False, shift_invariant=False, seen=seen)
        return self if seen == self.seen else replace(self, seen=seen)

    def _seen_from(self, distances: Iterable[int]) -> tuple[Fraction, ...]:
        """What is seen by pixels that see so many of this extent's pixels on each side."""
        return tuple(own + u / scale for own, u, scale in zip(self.seen, distances, self.scale, strict=True))

    def activate(self, dual: Dual) -> Extent:
        """Pointwise: nothing changes."""
        return self

    def subsample(self, stride: tuple[int, ...], trim: tuple[int, ...] | None = None) -> Extent:
        """Period p / gcd(p, r), radius R // r; what is trimmed shows where the border is."""
        trim = trim or (0,) * self.ndim
        if all(r == 1 for r in stride) and not any(trim):
            return self
        return self._next(
            tuple(p // math.gcd(p, r) for p, r in zip(self.period, stride, strict=True)),
            tuple(radius // r for radius, r in zip(self.radius, stride, strict=True)),
            tuple(Change(1, r - 1 - t, r) for r, t in zip(stride, trim, strict=True)),
            shift_invariant=self.shift_invariant and not any(trim),
        )

    def resample(self, resampling: tuple[Resampling, ...]) -> Extent:
        """The new radius is found from the taps."""
        invariant = self.shift_invariant and all(axis.shift_invariant for axis in resampling)
        if not invariant:
            # Only the lengths are of use from here on.
            period, radius = self.period, self.radius
        else:
            period = tuple(axis.output_period(p, 0) for axis, p in zip(resampling, self.period, strict=True))
            radius = tuple(
                r if axis.idle else axis.output_radius(r) for axis, r in zip(resampling, self.radius, strict=True)
            )
        uniform = self.uniform and all(axis.single for axis in resampling)
        wider = replace(self, seen=self._seen_from(0 if axis.idle else axis.spread + axis.down for axis in resampling))
        return wider._next(period, radius, tuple(axis.change for axis in resampling), uniform, invariant)

    def attend(self, attention: Attention) -> Extent:
        """A mean over all pixels, of which there are more in larger images: the kernel belongs to one size."""
        return replace(self, uniform=False, shift_invariant=False, sees_all=True)

    def mix(self, weights: tuple[float, ...], others: tuple[Extent, ...]) -> Extent:
        """The least common period, the largest radius.

        Raises:
            ValueError: the branches' images differ in size.
        """
        return self._joined(others, range(self.ndim))

    def adjoin(self, axis: int, others: tuple[Extent, ...]) -> Extent:
        """As a sum, but for the axis along which lengths add up; the kernel belongs to one size.

        Raises:
            ValueError: there is no such axis, or the branches' images differ in size along others.
        """
        if axis >= self.ndim:
            raise ValueError(f"expected images of at least {axis + 1} axes of pixels, got {self.ndim}")
        joined, branches = self._joined(others, [k for k in range(self.ndim) if k != axis]), (self, *others)
        scale, length = list(joined.scale), list(joined.length)
        scale[axis] = sum((branch.scale[axis] for branch in branches), Fraction(0))
        length[axis] = Length(parts=tuple(branch.length[axis] for branch in branches))
        return replace(joined, scale=tuple(scale), length=tuple(length), uniform=False, shift_invariant=False)

    def _joined(self, others: tuple[Extent, ...], axes: Sequence[int]) -> Extent:
        """Branches that meet, and whose axes' lengths are to be equal.

        Raises:
            ValueError: they are not.
        """
        branches = (self, *others)
        for other in others:
            if any(other.scale[axis] != self.scale[axis] for axis in axes):
                scales = " and ".join(" x ".join(str(s) for s in extent.scale) for extent in (self, other))
                raise ValueError(f"expected branches with outputs of one size, got {scales} times that of the input")
        met = [
            (axis, self.length[axis], branch.length[axis])
            for branch in others
            for axis in axes
            if self.length[axis] != branch.length[axis]
        ]
        return Extent(
            tuple(math.lcm(*periods) for periods in zip(*(b.period for b in branches), strict=True)),
            tuple(max(radii) for radii in zip(*(b.radius for b in branches), strict=True)),
            self.scale,
            tuple(max(fewest) for fewest in zip(*(b.fewest for b in branches), strict=True)),
            tuple(math.lcm(*granules) for granules in zip(*(b.granule for b in branches), strict=True)),
            all(b.uniform for b in branches),
            all(b.shift_invariant for b in branches),
            self.length,
            tuple(dict.fromkeys([pair for branch in branches for pair in branch.same] + met)),
            tuple(max(seen) for seen in zip(*(b.seen for b in branches), strict=True)),
            any(b.sees_all for b in branches),
        )

    def multiply(self, others: tuple[Extent, ...]) -> Extent:
        """Pointwise: as for a sum.

        Raises:
            ValueError: the branches' images differ in size.
        """
        return self.mix((1.0,) * (1 + len(others)), others) if others else self

    def normalise(self, epsilon: float = 0.0, affine: bool = False) -> Extent:
        """Pointwise: nothing changes."""
        return self

    def drop(self, kept: float, channels: bool = False) -> Extent:
        """At displacement 0, or everywhere: nothing changes."""
        return self

    def _next(
        self,
        period: tuple[int, ...],
        radius: tuple[int, ...],
        change: tuple[Change, ...],
        uniform: bool | None = None,
        shift_invariant: bool | None = None,
    ) -> Extent:
        """The extent of images whose axes' lengths have changed."""
        axes: list[tuple[Fraction, int, int, Length]] = []
        before: tuple[object, ...] = ()
        for axis in zip(self.scale, change, radius, self.fewest, self.granule, self.length, strict=True):
            # Most images have equal axes, and fractions take long.
            axes.append(axes[-1] if axis == before else _scaled(*axis))
            before = axis
        scale, fewest, granule, length = zip(*axes, strict=True)
        return Extent(
            period,
            radius,
            scale,
            fewest,
            granule,
            self.uniform if uniform is None else uniform,
            self.shift_invariant if shift_invariant is None else shift_invariant,
            length,
            self.same,
            self.seen,
            self.sees_all,
        )

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the output that an input of ``size`` gives.

        Raises:
            ValueError: a layer does not take images of that size, or branches that meet differ in size.
        """
        for axis, one, other in self.same:
            n = size[axis]
            if one.of(n) != other.of(n):
                lengths = f"{one.of(n)} and {other.of(n)}"
                raise ValueError(
                    f"expected branches with outputs of one size, got {lengths} pixels for {n} of the input"
                )
        return tuple(length.of(n) for length, n in zip(self.length, size, strict=True))

    def input_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the prior's image that gives an output of ``size``.

        Where strides and pools round, several do: the largest multiple of the granule, or else the largest at all.

        Raises:
            ValueError: no input gives that output.
        """
        inputs = []
        for axis, (n, length, granule) in enumerate(zip(size, self.length, self.granule, strict=True)):
            most = length.most(n)
            source = next((source for source in (most // granule * granule, most) if _gives(length, source, n)), None)
            if source is None:
                raise ValueError(f"{self._lengths_near(axis, most)}, got {n} of {size}")
            inputs.append(source)
        self.output_size(tuple(inputs))
        return tuple(inputs)

    def _lengths_near(self, axis: int, source: int) -> str:
        """What lengths an axis of the output can have, in words."""
        multiple = (self.granule[axis] * self.scale[axis]).numerator
        if self.length[axis].granule is not None and multiple > 1:
            return f"this network makes images whose axis {axis} is a multiple of {multiple} pixels"
        possible = [self.length[axis].of(n) for n in (source, source + 1) if _gives(self.length[axis], n)]
        return f"this network makes images whose axis {axis} has {' or '.join(map(str, possible))} pixels, among others"

    def fits(self, source: tuple[int, ...]) -> bool:
        """Whether an input of that size has the symmetries that the period and the radius speak of."""
        return all(n % granule == 0 for n, granule in zip(source, self.granule, strict=True))

    def smallest_torus(self) -> tuple[int, ...]:
        """Smallest output size at which no displacement wraps and the far kernel shows, for all pairs of phases."""
        sizes = []
        for p, radius, scale, fewest, granule in zip(
            self.period, self.radius, self.scale, self.fewest, self.granule, strict=True
        ):
            step = math.lcm(p, (granule * scale).numerator)
            least = max(math.ceil(fewest * scale), 2 * radius + 1 + (1 if self.uniform else p))
            sizes.append(math.ceil(least / step) * step)
        return tuple(sizes)


def _gives(length: Length, source: int, wanted: int | None = None) -> bool:
    """Whether an axis of the input has an output, or the one that is wanted."""
    try:
        found = length.of(source) if source >= 1 else 0
    except ValueError:
        return False
    return found >= 1 and wanted in (None, found)


def _scaled(
    scale: Fraction, change: Change, radius: int, fewest: int, granule: int, length: Length
) -> tuple[Fraction, int, int, Length]:
    """Scale, fewest input pixels, granule and length of an axis that changes, of a new radius."""
    divided, scale = scale / change.down, scale * Fraction(change.up, change.down)
    # Rounded up.
    pixels = -(-(2 * radius + 1) * scale.denominator // scale.numerator)
    granule = math.lcm(granule, (divided if change.whole else scale).denominator)
    return scale, max(fewest, pixels), granule, length.then(change)
