"""Fixed linear resampling along one axis: one description, read by the forward pass and by the covariances.

An output pixel b is a weighted sum of input pixels, ``out[b] = sum_t weights[t, b] * in[positions[t, b]]``. The maps
here are mirror symmetric: reversing the input reverses the output. ``selection`` has those that need not be.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from torch_cntk.covariance.lengths import Change

__all__ = ["Filter", "Linear", "Nearest", "Resampling"]


_SEEN_REACHES = 4
"""Radii of so many reaches are beyond all that the taps of two neighbouring outputs have in common."""


@dataclass(frozen=True)
class Resampling(ABC):
    """A fixed linear map along one axis from n pixels to ``n * up / down``."""

    @property
    @abstractmethod
    def up(self) -> int:
        """Output pixels in a block."""

    @property
    @abstractmethod
    def down(self) -> int:
        """Input pixels that a block of outputs moves on by."""

    @property
    def shift_invariant(self) -> bool:
        """Whether shifting the (circular) input by ``down`` shifts the output by ``up``."""
        return True

    @property
    def single(self) -> bool:
        """Whether each output is one input, with weight one."""
        return False

    @property
    def spread(self) -> int:
        """Input pixels that an output can be away from its block, at most."""
        return 2

    @abstractmethod
    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """Return (positions, weights), [taps, output size] each, for an input of ``size`` pixels."""

    @property
    def one_tap(self) -> bool:
        """Whether each output is one input, times some weight."""
        return self.single

    @property
    def idle(self) -> bool:
        """Whether the pixels stay as they are."""
        return False

    @property
    def change(self) -> Change:
        """What it does to the number of pixels."""
        return Change(self.up, 0, self.down, whole=self.down > 1)

    def output_size(self, size: int) -> int:
        """Pixels that come out of ``size`` pixels.

        Raises:
            ValueError: ``size`` is not a multiple of ``down``, where it must be, or no pixel is left.
        """
        if self.change.whole and size % self.down:
            raise ValueError(f"{self} needs a multiple of {self.down} pixels, got {size}")
        return self.change.of(size)

    def mirrored(self, size: int) -> bool:
        """Whether reversing an input of ``size`` pixels reverses the output."""
        return True

    def output_period(self, period: int, size: int) -> int:
        """Period of a covariance after the map, given its period and the number of pixels before it."""
        if not self.shift_invariant or size % self.down:
            return self.output_size(size)
        return period // math.gcd(period, self.down) * self.up

    @lru_cache(maxsize=64)  # noqa: B019 - a rule is a few numbers that compare by value
    def output_radius(self, radius: int) -> int:
        """Largest output displacement that still depends on it, if only displacements up to ``radius`` did.

        Found by looking: outputs b and b + u use inputs whose distance is least for some pair of taps. Where the map is
        the same everywhere, ``down`` more inputs are ``up`` more outputs: only small radii have to be looked at.
        """
        seen = _SEEN_REACHES * (self.spread + self.down)
        if self.shift_invariant and radius >= seen + self.down:
            steps = (radius - seen) // self.down
            return self.output_radius(radius - steps * self.down) + steps * self.up
        blocks = radius + self.up + self.spread + 2
        positions, weights = self.taps(2 * self.down * blocks + 2 * self.down)
        middle = slice(self.up * blocks, self.up * (blocks + 1))
        first = positions[:, middle].reshape(-1, 1)
        reached = (positions.reshape(1, -1) - first).abs() <= radius
        reached &= (weights[:, middle].reshape(-1, 1) != 0) & (weights.reshape(1, -1) != 0)
        outputs = torch.arange(positions.shape[1])
        start = outputs[middle].expand(positions.shape[0], -1).reshape(-1, 1)
        distance = outputs.expand(positions.shape[0], -1).reshape(1, -1) - start
        return int(distance.abs()[reached].max())

    def input_displacement(self, largest: int, size: int) -> int:
        """Largest displacement of inputs, of ``size`` pixels, that outputs up to ``largest`` apart are made from."""
        positions, _ = self.taps(size)
        outputs = positions.shape[1]
        first = positions[:, None, :, None]
        found = 0
        for u in range(min(largest, outputs // 2) + 1):
            apart = (positions.roll(-u, 1)[None, :, :, None] - first) % size
            found = max(found, int(torch.minimum(apart, size - apart).max()))
        return found

    def apply(self, values: Tensor, axis: int) -> Tensor:
        """Resample ``values`` along ``axis``.

        Raises:
            ValueError: the axis does not hold a multiple of ``down`` pixels.
        """
        self.output_size(values.shape[axis])
        positions, weights = (taps.to(values.device) for taps in self.taps(values.shape[axis]))
        if self.single:
            return values.index_select(axis, positions[0])
        shape = [-1 if k == axis % values.ndim else 1 for k in range(values.ndim)]
        pieces = (
            values.index_select(axis, position) * weight.to(values.dtype).view(shape)
            for position, weight in zip(positions, weights, strict=True)
        )
        return torch.stack(tuple(pieces)).sum(0)


@dataclass(frozen=True)
class Nearest(Resampling):
    """Repeat each pixel ``factor`` times."""

    factor: int

    @property
    def up(self) -> int:
        """Output pixels in a block."""
        return self.factor

    @property
    def down(self) -> int:
        """Input pixels a block."""
        return 1

    @property
    def single(self) -> bool:
        """Each output is one input."""
        return True

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """One tap of weight one."""
        positions = torch.arange(size * self.factor)[None] // self.factor
        return positions, torch.ones(positions.shape, dtype=torch.float64)


@dataclass(frozen=True)
class Linear(Resampling):
    """Linear interpolation to ``factor`` times as many pixels.

    ``edge`` says what lies beyond the border: "circular" continues on the other side, "border" repeats the last
    pixel. ``align_corners`` puts the first and last output on the first and last input (the edge is then not used).
    As ``torch.nn.functional.interpolate(mode="linear")``, which knows "border" only.
    """

    factor: int
    align_corners: bool = False
    edge: str = "circular"

    @property
    def up(self) -> int:
        """Output pixels in a block."""
        return self.factor

    @property
    def down(self) -> int:
        """Input pixels a block."""
        return 1

    @property
    def shift_invariant(self) -> bool:
        """Only the half-pixel grid with circular edges looks the same from every pixel."""
        return self.edge == "circular" and not self.align_corners

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """Two taps: the neighbours on the left and on the right."""
        output = torch.arange(size * self.factor, dtype=torch.float64)
        if self.align_corners:
            place = output * ((size - 1) / max(size * self.factor - 1, 1))
        else:
            place = (output + 0.5) / self.factor - 0.5
        if not self.shift_invariant:
            place = place.clamp(0, size - 1)
        left = place.floor()
        right_weight = place - left
        right = left + 1
        if self.shift_invariant:
            left, right = left % size, right % size
        else:
            right = right.clamp_max(size - 1)
        return torch.stack((left, right)).long(), torch.stack((1 - right_weight, right_weight))


@dataclass(frozen=True)
class Filter(Resampling):
    """A symmetric filter, of which every ``step``-th output is kept; circular edges.

    Output i is centred on the middle of input pixels ``step * i .. step * i + step - 1``. Equal weights, as many as the
    step, are average pooling; step 1 is a blur.

    Raises:
        ValueError: the weights are not symmetric, or have no pixel or pixel border to be centred on for this step.
    """

    weights: tuple[float, ...]
    step: int = 1

    def __post_init__(self) -> None:
        if self.weights != self.weights[::-1]:
            raise ValueError(f"expected symmetric weights, got {self.weights}")
        if (len(self.weights) - self.step) % 2:
            raise ValueError(
                f"expected {'an odd' if self.step % 2 else 'an even'} number of weights for step {self.step}, "
                f"got {len(self.weights)}"
            )

    @property
    def up(self) -> int:
        """One output a block."""
        return 1

    @property
    def down(self) -> int:
        """Input pixels between outputs."""
        return self.step

    @property
    def spread(self) -> int:
        """Half of what the filter is longer than the step."""
        return len(self.weights)

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """As many taps as weights."""
        first = -((len(self.weights) - self.step) // 2)
        output = torch.arange(size // self.step) * self.step
        positions = (output + torch.arange(first, first + len(self.weights))[:, None]) % size
        weights = torch.tensor(self.weights, dtype=torch.float64)[:, None].expand(positions.shape)
        return positions, weights.contiguous()
