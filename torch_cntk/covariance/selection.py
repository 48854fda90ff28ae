"""Linear maps along one axis that see where the image begins or ends: selections, insertions and pools.

Each output of a selection or an insertion is one input or zero. They are kept apart from the maps of ``resampling``,
which are mirror symmetric and, but for their borders, the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk.covariance.lengths import Change
from torch_cntk.covariance.resampling import Resampling

__all__ = ["Every", "Extended", "Inserted", "Pooled", "Whole"]


@dataclass(frozen=True)
class Every(Resampling):
    """Every ``step``-th pixel from pixel 0 on, and none of the last ``trim`` ones (see ``Covariance.subsample``)."""

    step: int = 1
    trim: int = 0

    @property
    def up(self) -> int:
        """One output a block."""
        return 1

    @property
    def down(self) -> int:
        """Input pixels between outputs."""
        return self.step

    @property
    def change(self) -> Change:
        """Rounded up: pixel 0 is always kept."""
        return Change(1, self.step - 1 - self.trim, self.step)

    @property
    def shift_invariant(self) -> bool:
        """Not where pixels at the end are left out."""
        return self.trim == 0

    @property
    def single(self) -> bool:
        """Each output is one input."""
        return True

    def mirrored(self, size: int) -> bool:
        """Whether the last pixel is kept, as the first one is, and none twice."""
        return self.trim >= 0 and (self.output_size(size) - 1) * self.step == size - 1

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """One tap of weight one."""
        positions = (torch.arange(self.output_size(size)) * self.step % size)[None]
        return positions, torch.ones(positions.shape, dtype=torch.float64)


@dataclass(frozen=True)
class Whole(Resampling):
    """The pixels as they are, of images whose size is a multiple of a number."""

    number: int

    @property
    def up(self) -> int:
        """As many outputs as inputs."""
        return self.number

    @property
    def down(self) -> int:
        """As many outputs as inputs."""
        return self.number

    @property
    def single(self) -> bool:
        """Each output is one input."""
        return True

    @property
    def idle(self) -> bool:
        """Nothing is done."""
        return True

    def output_period(self, period: int, size: int) -> int:
        """The same."""
        return period

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """One tap of weight one."""
        positions = torch.arange(size)[None]
        return positions, torch.ones(positions.shape, dtype=torch.float64)


@dataclass(frozen=True)
class Extended(Resampling):
    """The image, so many zeros behind its last pixel, and so many before its first one."""

    zeros: int
    before: int = 0

    @property
    def idle(self) -> bool:
        """Whether there are no zeros."""
        return self.zeros == self.before == 0

    @property
    def up(self) -> int:
        """As many outputs as inputs, but for the zeros."""
        return 1

    @property
    def down(self) -> int:
        """As many outputs as inputs, but for the zeros."""
        return 1

    @property
    def change(self) -> Change:
        """Plus the zeros."""
        return Change(1, self.zeros + self.before)

    @property
    def shift_invariant(self) -> bool:
        """The zeros show where the image ends."""
        return self.zeros == self.before == 0

    @property
    def one_tap(self) -> bool:
        """Each output is one input, or zero."""
        return True

    def mirrored(self, size: int) -> bool:
        """Only if there are as many on both sides."""
        return self.zeros == self.before

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """One tap, of weight zero beyond the image."""
        positions = torch.arange(-self.before, size + self.zeros)[None]
        return positions.clamp(0, size - 1), ((positions >= 0) & (positions < size)).double()


@dataclass(frozen=True)
class Inserted(Resampling):
    """Zeros between the pixels: input i is output ``factor * i``."""

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
        """Not where zeros come between."""
        return self.factor == 1

    @property
    def one_tap(self) -> bool:
        """Each output is one input, or zero."""
        return True

    def mirrored(self, size: int) -> bool:
        """Not where there are zeros behind the last pixel and none before the first one."""
        return self.factor == 1

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """One tap, of weight zero where nothing was."""
        output = torch.arange(size * self.factor)[None]
        return output // self.factor, (output % self.factor == 0).double()


@dataclass(frozen=True)
class Pooled(Resampling):
    """Means or sums over blocks, as ``torch.nn.AvgPool1d``: output i over ``step * i - padding`` and what follows.

    Attributes:
        width: pixels of a block.
        step: from one block to the next.
        padding: zeros on both sides of the image.
        counted: whether these zeros count in a mean.
        partial: whether a block that reaches beyond the end is kept (torch's ``ceil_mode``), if it begins before it.
        total: whether the sum is wanted, not the mean.

    Raises:
        ValueError: a partial block could begin behind the image, or a block lie in the padding alone.
    """

    width: int
    step: int
    padding: int = 0
    counted: bool = True
    partial: bool = False
    total: bool = False

    def __post_init__(self) -> None:
        if 2 * self.padding > self.width:
            raise ValueError(f"expected padding of at most half of the width {self.width}, got {self.padding}")
        if self.partial and self.width < self.step + self.padding:
            raise ValueError(
                f"expected blocks that are as long as stride and padding together to be partial, got {self.width} < "
                f"{self.step} + {self.padding}"
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
    def change(self) -> Change:
        """As torch counts."""
        rest = self.step - 1 if self.partial else 0
        return Change(1, 2 * self.padding - self.width + self.step + rest, self.step)

    @property
    def shift_invariant(self) -> bool:
        """Whether the blocks are disjoint and cover the image (if its size is a multiple of theirs)."""
        return self.width == self.step and self.padding == 0

    @property
    def spread(self) -> int:
        """A block may be longer than the step."""
        return self.width

    def mirrored(self, size: int) -> bool:
        """Whether the blocks end where the image does, as they begin with it."""
        return (size + 2 * self.padding - self.width) % self.step == 0

    def taps(self, size: int) -> tuple[Tensor, Tensor]:
        """As many taps as a block has pixels; those beyond the border have weight zero."""
        start = torch.arange(self.output_size(size)) * self.step - self.padding
        positions = start + torch.arange(self.width)[:, None]
        inside = (positions >= 0) & (positions < size)
        divisor: Tensor = torch.ones(len(start)) if self.total else inside.sum(0)
        if self.counted and not self.total:
            divisor = (start + self.width).clamp_max(size + self.padding) - start
        return positions.clamp(0, size - 1), inside.double() / divisor
