"""The shape of a kernel before it is computed: its period, radius and the sizes at which nothing wraps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from torch_cntk.covariance.base import Covariance

if TYPE_CHECKING:
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

    @classmethod
    def start(cls, ndim: int, radius: int = 0) -> Extent:
        """The extent of a stationary prior of the given radius (0: independent pixels)."""
        ones = (1,) * ndim
        return cls(ones, (radius,) * ndim, (Fraction(1),) * ndim, (2 * radius + 1,) * ndim, ones)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.period)

    def average_patches(self, kernel_size: tuple[int, ...], bias_variance: float = 0.0) -> Extent:
        """Patches are averaged at a fixed displacement: nothing grows."""
        return self

    def average_patches_inside(self, kernel_size: tuple[int, ...], bias_variance: float = 0.0) -> Extent:
        """Padding with zeros shows where the border is."""
        if all(q == 1 for q in kernel_size):
            return self
        return replace(self, uniform=False, shift_invariant=False)

    def activate(self, dual: Dual) -> Extent:
        """Pointwise: nothing changes."""
        return self

    def subsample(self, stride: tuple[int, ...]) -> Extent:
        """Period p / gcd(p, r), radius R // r."""
        if all(r == 1 for r in stride):
            return self
        return self._next(
            tuple(p // math.gcd(p, r) for p, r in zip(self.period, stride, strict=True)),
            tuple(radius // r for radius, r in zip(self.radius, stride, strict=True)),
            tuple(Fraction(1, r) for r in stride),
        )

    def resample(self, resampling: tuple[Resampling, ...]) -> Extent:
        """The new radius is found from the taps."""
        invariant = self.shift_invariant and all(axis.shift_invariant for axis in resampling)
        if not invariant:
            # Only the scale and the granule are of use from here on.
            period, radius = self.period, self.radius
        else:
            period = tuple(axis.output_period(p, 0) for axis, p in zip(resampling, self.period, strict=True))
            radius = tuple(axis.output_radius(r) for axis, r in zip(resampling, self.radius, strict=True))
        factor = tuple(Fraction(axis.up, axis.down) for axis in resampling)
        uniform = self.uniform and all(axis.single for axis in resampling)
        return self._next(period, radius, factor, uniform, invariant)

    def mix(self, weights: tuple[float, ...], others: tuple[Extent, ...]) -> Extent:
        """The least common period, the largest radius.

        Raises:
            ValueError: the branches' images differ in size.
        """
        branches = (self, *others)
        for other in others:
            if other.scale != self.scale:
                scales = " and ".join(" x ".join(str(s) for s in extent.scale) for extent in (self, other))
                raise ValueError(f"expected branches with outputs of one size, got {scales} times that of the input")
        return Extent(
            tuple(math.lcm(*periods) for periods in zip(*(b.period for b in branches), strict=True)),
            tuple(max(radii) for radii in zip(*(b.radius for b in branches), strict=True)),
            self.scale,
            tuple(max(fewest) for fewest in zip(*(b.fewest for b in branches), strict=True)),
            tuple(math.lcm(*granules) for granules in zip(*(b.granule for b in branches), strict=True)),
            all(b.uniform for b in branches),
            all(b.shift_invariant for b in branches),
        )

    def normalise(self, epsilon: float = 0.0, affine: bool = False) -> Extent:
        """Pointwise: nothing changes."""
        return self

    def _next(
        self,
        period: tuple[int, ...],
        radius: tuple[int, ...],
        factor: tuple[Fraction, ...],
        uniform: bool | None = None,
        shift_invariant: bool | None = None,
    ) -> Extent:
        """The extent of images of ``factor`` times as many pixels, an entry an axis."""
        axes: list[tuple[Fraction, int, int]] = []
        before: tuple[object, ...] = ()
        for axis in zip(self.scale, factor, radius, self.fewest, self.granule, strict=True):
            # Most images have equal axes, and fractions take long.
            axes.append(axes[-1] if axis == before else _scaled(*axis))
            before = axis
        scale, fewest, granule = zip(*axes, strict=True)
        return Extent(
            period,
            radius,
            scale,
            fewest,
            granule,
            self.uniform if uniform is None else uniform,
            self.shift_invariant if shift_invariant is None else shift_invariant,
        )

    def input_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the prior's image that gives an output of ``size``.

        Raises:
            ValueError: no input gives that output.
        """
        inputs = []
        for axis, (n, scale, granule) in enumerate(zip(size, self.scale, self.granule, strict=True)):
            exact = n / scale
            if exact.denominator != 1 or exact.numerator % granule:
                multiple = (granule * scale).numerator
                raise ValueError(
                    f"this network makes images whose axis {axis} is a multiple of {multiple} pixels, got {n} of {size}"
                )
            inputs.append(exact.numerator)
        return tuple(inputs)

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


def _scaled(scale: Fraction, factor: Fraction, radius: int, fewest: int, granule: int) -> tuple[Fraction, int, int]:
    """Scale, fewest input pixels and granule of an axis that gets ``factor`` times as many pixels, of a new radius."""
    scale = scale * factor
    # Rounded up.
    pixels = -(-(2 * radius + 1) * scale.denominator // scale.numerator)
    return scale, max(fewest, pixels), math.lcm(granule, scale.denominator)
