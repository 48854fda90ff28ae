"""What is to be computed between pairs of images: an expression of frozen nodes, without numbers.

A verb adds a node that says what it is made from and how large the images are; an ``Evaluation`` computes the numbers,
for any number of pairs, and of each node only the displacements that something asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch_cntk._internal.checks import shape_text
from torch_cntk.covariance.attention import Attention
from torch_cntk.covariance.base import NTK, Covariance
from torch_cntk.covariance.pairs.displacements import Box, no_displacement, scaled, whole
from torch_cntk.covariance.patches import Gains, Number, Patches
from torch_cntk.covariance.selection import Every

if TYPE_CHECKING:
    from torch_cntk.covariance.duals import Dual
    from torch_cntk.covariance.resampling import Resampling

__all__ = [
    "Activated",
    "Attended",
    "Averaged",
    "Dropped",
    "Flattened",
    "Given",
    "Mixed",
    "Multiplied",
    "Normalised",
    "Pairs",
    "Pooled",
]
__all__ += ["Resampled", "Subsampled"]


@dataclass(frozen=True, eq=False, repr=False)
class Pairs(Covariance):
    """The pair (Sigma, Theta) between the pixels of two images: T[u][a] = K(A at a, B at a + u), on a torus.

    The displacement-major form of ``Lattice`` with two images instead of one, for any number of pairs. What has been
    flattened has no axes: one number a pair of inputs.

    Attributes:
        parents: the nodes that it is made from.
        size: pixels of both images, an entry an axis.
        untrained: whether no weight layer has been passed yet, so that Theta = 0.
        reads_table: whether it needs many displacements of its parent for each of its own, or all pixels.
        needs_variances: whether it needs K(A at a, A at a) of its parent, or what follows from A alone, and that of B.
    """

    parents: tuple[Pairs, ...] = field(init=False)
    size: tuple[int, ...] = field(init=False)
    untrained: bool = field(init=False)

    reads_table = False
    needs_variances = False

    @classmethod
    def of_images(cls, size: tuple[int, ...]) -> Pairs:
        """The covariance of images of so many pixels, which the evaluation gets."""
        return Given(size)

    def _settle(self, parents: tuple[Pairs, ...], size: tuple[int, ...], *, untrained: bool | None = None) -> None:
        """Set what follows from a node's arguments, once, when it is made."""
        alike = all(parent.untrained for parent in parents) if untrained is None else untrained
        self.__dict__.update(parents=parents, size=size, untrained=alike)

    def __repr__(self) -> str:
        """The last node only: an expression may have thousands."""
        return f"<{type(self).__name__} of pairs of {shape_text(self.size) or 'no'} pixels>"

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.size)

    def _length(self, axis: int) -> int:
        return self.size[axis]

    @property
    def kept(self) -> int:
        """How many numbers are kept of each image, if it needs variances."""
        return math.prod(self.size)

    @property
    def stride(self) -> tuple[int, ...]:
        """How many pixels of its parent a step from pixel to pixel is."""
        return (1,) * self.ndim

    def read(self, box: Box, parent: Pairs) -> Box:
        """The displacements of a parent that it needs for its own."""
        return scaled(box, self.stride)

    # Verbs.

    def average_patches(self, patches: Patches, gains: Gains = NTK) -> Pairs:
        """A mean over positions, at each displacement; without pairs of which one is beyond a border of zeros."""
        return Averaged(self, patches, gains)

    def activate(self, dual: Dual) -> Pairs:
        """A nonlinearity: pointwise, given the variances of both images."""
        return Activated(self, dual)

    def subsample(self, stride: tuple[int, ...], trim: tuple[int, ...] | None = None) -> Pairs:
        """T'[u][a] = T[r u][r a], where the size is a multiple of the stride; elsewhere displacements meet.

        Raises:
            ValueError: no pixel would be left.
        """
        trim = trim or (0,) * self.ndim
        if any(trim) or any(n % r for n, r in zip(self.size, stride, strict=True)):
            return self.resample(tuple(Every(r, t) for r, t in zip(stride, trim, strict=True)))
        return Subsampled(self, stride) if any(r != 1 for r in stride) else self

    def resample(self, resampling: tuple[Resampling, ...]) -> Pairs:
        """A fixed linear map along each axis.

        Raises:
            ValueError: the size does not fit the map.
        """
        pairs: Pairs = self
        for axis, rule in enumerate(resampling):
            rule.output_size(self.size[axis])
            pairs = pairs if rule.idle else Resampled(pairs, axis, rule)
        return pairs

    def attend(self, attention: Attention) -> Pairs:
        """A product of matrices of pixels: each image's weights, and all pixels of both.

        Raises:
            ValueError: there are no pixels.
        """
        if not self.ndim:
            raise ValueError("expected pixels to attend to, got inputs without pixels (rows of features, or flattened)")
        return Attended(self, attention)

    def pool(self) -> Pairs:
        """The mean over all pixels, as an image of one pixel."""
        return self._pooled()

    def _pooled(self) -> Pairs:
        return Pooled(self)

    def flatten(self) -> Pairs:
        """All pixels of all channels as the features of one input: the mean over a of T[0][a]."""
        return self._flattened() if self.ndim else self

    def _flattened(self) -> Pairs:
        return Flattened(self)

    def drop(self, kept: float, channels: bool = False) -> Pairs:
        """Pairs of an image with itself, at displacement 0 or at all of them."""
        return Dropped(self, kept, channels)

    def mix(self, weights: tuple[float, ...], others: tuple[Pairs, ...]) -> Pairs:
        """A weighted sum.

        Raises:
            ValueError: the branches' images differ in size, or there are not as many weights as branches.
        """
        return Mixed((self, *others), weights)

    def multiply(self, others: tuple[Pairs, ...]) -> Pairs:
        """A product.

        Raises:
            ValueError: the branches' images differ in size.
        """
        return Multiplied((self, *others)) if others else self

    def normalise(self, epsilon: Number = 0.0, affine: bool = False) -> Pairs:
        """Pointwise, given the variances of both images."""
        return Normalised(self, epsilon, affine)


@dataclass(frozen=True, eq=False, repr=False)
class Given(Pairs):
    """The images themselves, [channels, *pixels]: Sigma is the mean over channels of their products, Theta = 0.

    Attributes:
        pixels: of the images.
        flat: whether the pixels are features as the channels are, so that there are no axes.
    """

    pixels: tuple[int, ...]
    flat: bool = False

    def __post_init__(self) -> None:
        self._settle((), () if self.flat else self.pixels, untrained=True)

    def _flattened(self) -> Pairs:
        # Products of all numbers of two images, at once.
        return Given(self.pixels, flat=True)


@dataclass(frozen=True, eq=False, repr=False)
class Averaged(Pairs):
    """A weight layer: see ``Covariance.average_patches``."""

    parent: Pairs
    patches: Patches
    gains: Gains

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.size, untrained=False)

    @property
    def inside(self) -> bool:
        """Whether there are zeros beyond the border, rather than the other side of the image."""
        return self.patches.crosses_border

    def _pooled(self) -> Pairs:
        # The mean of circular means is that of what they are made from: none of them is computed.
        if self.inside:
            return super()._pooled()
        return self.parent.pool().average_patches(Patches.centred((1,) * self.ndim), self.gains)


@dataclass(frozen=True, eq=False, repr=False)
class Activated(Pairs):
    """A nonlinearity: Sigma' = value, Theta' = Theta * slope."""

    parent: Pairs
    dual: Dual
    needs_variances = True

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.size)


@dataclass(frozen=True, eq=False, repr=False)
class Normalised(Pairs):
    """Division by the root mean square over channels; see ``Covariance.normalise``."""

    parent: Pairs
    epsilon: Number
    affine: bool
    needs_variances = True

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.size, untrained=self.parent.untrained and not self.affine)


@dataclass(frozen=True, eq=False, repr=False)
class Dropped(Pairs):
    """Masks of each image by itself; see ``Covariance.drop``."""

    parent: Pairs
    probability: float
    channels: bool

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.size)


@dataclass(frozen=True, eq=False, repr=False)
class Subsampled(Pairs):
    """Every r-th pixel; only the displacements that are kept are ever computed."""

    parent: Pairs
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        before = self.parent.size
        for n, r in zip(before, self.steps, strict=True):
            if n % r:
                raise ValueError(f"stride {r} needs a multiple of {r} pixels, got {shape_text(before)}")
        self._settle((self.parent,), tuple(n // r for n, r in zip(before, self.steps, strict=True)))

    @property
    def stride(self) -> tuple[int, ...]:
        """The layer's."""
        return self.steps


@dataclass(frozen=True, eq=False, repr=False)
class _Joined(Pairs):
    """Branches that meet."""

    branches: tuple[Pairs, ...]

    def __post_init__(self) -> None:
        branches = self.branches
        for branch in branches[1:]:
            if branch.size != branches[0].size:
                sizes = " and ".join(shape_text(b.size) or "no" for b in (branches[0], branch))
                raise ValueError(f"expected branches with outputs of one size, got {sizes} pixels")
        self._settle(branches, branches[0].size)


@dataclass(frozen=True, eq=False, repr=False)
class Mixed(_Joined):
    """A weighted sum of branches."""

    weights: tuple[Number, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.branches):
            raise ValueError(f"expected a weight for each of {len(self.branches)} branches, got {len(self.weights)}")
        super().__post_init__()


@dataclass(frozen=True, eq=False, repr=False)
class Multiplied(_Joined):
    """A product of branches."""


@dataclass(frozen=True, eq=False, repr=False)
class Resampled(Pairs):
    """A fixed linear map along one axis, whose outputs are made from pairs of taps of other displacements."""

    parent: Pairs
    axis: int
    rule: Resampling
    reads_table = True

    def __post_init__(self) -> None:
        size = list(self.parent.size)
        size[self.axis] = self.rule.output_size(size[self.axis])
        self._settle((self.parent,), tuple(size))

    def read(self, box: Box, parent: Pairs) -> Box:
        """All displacements between taps of outputs that are so far apart."""
        n = parent.size[self.axis]
        positions, _ = self.rule.taps(n)
        apart = set[int]()
        for u in box[self.axis]:
            between = (positions.roll(-u, 1)[None] - positions[:, None]) % n
            apart.update(int(d) - n if 2 * d > n else int(d) for d in between.flatten().tolist())
        low, high = min(apart), max(apart)
        whole = range(n) if high - low + 1 >= n else range(low, high + 1)
        return (*box[: self.axis], whole, *box[self.axis + 1 :])


@dataclass(frozen=True, eq=False, repr=False)
class Pooled(Pairs):
    """The mean over all pixels of both images, as images of one pixel: all displacements, none of which is kept."""

    parent: Pairs
    reads_table = True

    def __post_init__(self) -> None:
        self._settle((self.parent,), (1,) * self.parent.ndim)

    def read(self, box: Box, parent: Pairs) -> Box:
        """Everything."""
        return whole(parent.size)


@dataclass(frozen=True, eq=False, repr=False)
class Flattened(Pairs):
    """All pixels as features: the mean over a of T[0][a]."""

    parent: Pairs
    reads_table = True

    def __post_init__(self) -> None:
        self._settle((self.parent,), ())

    def read(self, box: Box, parent: Pairs) -> Box:
        """Displacement 0 alone."""
        return no_displacement(parent.ndim)


@dataclass(frozen=True, eq=False, repr=False)
class Attended(Pairs):
    """Self-attention, by weights that are kept for each image as variances are."""

    parent: Pairs
    attention: Attention
    reads_table = True
    needs_variances = True

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.size)

    def read(self, box: Box, parent: Pairs) -> Box:
        """Everything."""
        return whole(parent.size)

    @property
    def kept(self) -> int:
        """A matrix of pixels."""
        return math.prod(self.size) ** 2
