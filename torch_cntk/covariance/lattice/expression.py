"""What is to be computed: the covariances of an image's features as an expression of frozen nodes.

A verb adds a node that says what it is made from (``parents``) and what its table will look like (``geometry``);
nothing is computed, nothing changes later, and nodes may be shared between expressions and threads. An ``Evaluation``
computes the numbers. Whatever walks through an expression does so in a loop: there may be thousands of layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.checks import shape_text
from torch_cntk.covariance.attention import Attention
from torch_cntk.covariance.base import NTK
from torch_cntk.covariance.duals import Dual
from torch_cntk.covariance.lattice.node import Node
from torch_cntk.covariance.lattice.shifts import same_channels
from torch_cntk.covariance.patches import Gains, Number, Patches
from torch_cntk.covariance.resampling import Nearest, Resampling
from torch_cntk.covariance.selection import Every
from torch_cntk.covariance.table import Geometry, Table

__all__ = [
    "Activated",
    "Attended",
    "Averaged",
    "AveragedInside",
    "Dropped",
    "Features",
    "Lattice",
    "Mixed",
    "Multiplied",
    "Normalised",
]
__all__ += ["Resampled", "Stored", "Subsampled"]


@dataclass(frozen=True, eq=False, repr=False)
class Lattice(Node):
    """The pair (Sigma, Theta) of an image on a torus, as an expression; two nodes are equal if they are the same.

    It is computed in float64, so that rounding does not show in float32 results (the angle between two almost equal
    features has only half of a number's digits), unless features are given with another precision to compute in.
    """

    # Verbs.

    def average_patches(self, patches: Patches, gains: Gains = NTK) -> Lattice:
        """A circular mean of each displacement's image; without pairs of which one is beyond a border of zeros."""
        rule = AveragedInside if patches.crosses_border else Averaged
        return rule(self, patches, gains)

    def activate(self, dual: Dual) -> Lattice:
        """A nonlinearity: pointwise, given the variance image and its shifts."""
        return Activated(self, dual)

    def subsample(self, stride: tuple[int, ...], trim: tuple[int, ...] | None = None) -> Lattice:
        """T'[u][a] = T[r u][r a], where the torus is a multiple of the stride; elsewhere displacements meet.

        Raises:
            ValueError: no pixel would be left.
        """
        trim = trim or (0,) * self.ndim
        if any(trim) or any(n % r for n, r in zip(self.geometry.size, stride, strict=True)):
            return self.resample(tuple(Every(r, t) for r, t in zip(stride, trim, strict=True)))
        return Subsampled(self, stride) if any(r != 1 for r in stride) else self

    def resample(self, resampling: tuple[Resampling, ...]) -> Lattice:
        """A fixed linear map along each axis.

        Raises:
            ValueError: the size does not fit the map.
        """
        if all(rule.idle for rule in resampling):
            for rule, n in zip(resampling, self.geometry.size, strict=True):
                rule.output_size(n)
            return self
        square = self.geometry.square and resampling[0] == resampling[1]
        if all(rule.one_tap for rule in resampling):
            return Resampled(self, resampling, square)
        # Pairs of taps multiply from axis to axis: one axis at a time there are far fewer of them.
        lattice: Lattice = self
        for axis, rule in enumerate(resampling):
            one = tuple(rule if k == axis else Nearest(1) for k in range(self.ndim))
            lattice = Resampled(lattice, one, square and axis == self.ndim - 1)
        return lattice

    def attend(self, attention: Attention) -> Lattice:
        """A product of matrices of pixels."""
        return Attended(self, attention)

    def mix(self, weights: tuple[float, ...], others: tuple[Lattice, ...]) -> Lattice:
        """A weighted sum, slab by slab.

        Raises:
            ValueError: the branches' images differ in size, or there are not as many weights as branches.
        """
        return Mixed((self, *others), weights)

    def multiply(self, others: tuple[Lattice, ...]) -> Lattice:
        """A product, slab by slab.

        Raises:
            ValueError: the branches' images differ in size.
        """
        return Multiplied((self, *others)) if others else self

    def normalise(self, epsilon: Number = 0.0, affine: bool = False) -> Lattice:
        """Pointwise, given the variance image and its shifts."""
        return Normalised(self, epsilon, affine)

    def drop(self, kept: float, channels: bool = False) -> Lattice:
        """At displacement 0; masks of whole channels are those of all pixels."""
        return self.mix((1 / kept,), ()) if channels else Dropped(self, kept)

    # Readings.

    def tabulate(
        self,
        kind: str,
        dtype: torch.dtype = torch.float64,
        *,
        radius: tuple[int, ...] | None = None,
        progress: bool = False,
    ) -> tuple[Table, float | Tensor]:
        """Compute the whole table, less what it is beyond a radius: see ``Evaluation.tabulate``."""
        from torch_cntk.covariance.lattice.evaluation import Evaluation

        return Evaluation(self, kind).tabulate(dtype, radius=radius, progress=progress)

    def tabulate_window(
        self, kind: str, dtype: torch.dtype, reach: tuple[int, ...], *, progress: bool = False
    ) -> Table:
        """Compute the displacements of an ellipsoid only, tapered: see ``Evaluation.tabulate_window``."""
        from torch_cntk.covariance.lattice.evaluation import Evaluation

        return Evaluation(self, kind).tabulate_window(dtype, reach, progress=progress)

    def bytes_needed(self, dtype: torch.dtype = torch.float64) -> int:
        """Bytes that ``tabulate`` holds at its peak: see ``Evaluation.bytes_needed``."""
        from torch_cntk.covariance.lattice.evaluation import Evaluation

        return Evaluation(self, "ntk").bytes_needed(dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Stored(Lattice):
    """The covariance of a prior, known as a table [2, ...] (Sigma, and zeros for Theta)."""

    table: Table

    def __post_init__(self) -> None:
        geometry = self.table.geometry
        # A table is looked up for all rows of its period.
        margin = 0 if geometry.period[0] == 1 else None
        self._settle((), geometry, device=self.table.values.device, untrained=True, margin=margin)


@dataclass(frozen=True, eq=False, repr=False)
class Features(Lattice):
    """The covariance of given features Z: Sigma(x, x') = weight * mean over channels of Z_c(x) Z_c(x'), Theta = 0.

    Attributes:
        features: Z, [channels, *size].
        weight: of the covariance.
        dtype: of the computation, of this node and all that follow.
    """

    features: Tensor
    weight: Number = 1.0
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        size = tuple(self.features.shape[1:])
        square = len(size) == 2 and same_channels(self.features, self.features.transpose(1, 2))
        geometry = Geometry(size, size, reflective=False, square=square)
        self._settle((), geometry, device=self.features.device, untrained=True)


@dataclass(frozen=True, eq=False, repr=False)
class Averaged(Lattice):
    """A weight layer: see ``Covariance.average_patches``."""

    parent: Lattice
    patches: Patches
    gains: Gains

    def __post_init__(self) -> None:
        parent, patches = self.parent, self.patches
        geometry = parent.geometry
        # Where all pixels are alike it does not matter on which side the patch is.
        if any(p > 1 and not patches.symmetric(axis) for axis, p in enumerate(geometry.period)):
            geometry = replace(geometry, reflective=False)
        if geometry.square and patches.offsets(0) != patches.offsets(1):
            geometry = replace(geometry, square=False)
        margin = None if parent.margin is None else parent.margin + patches.reach(0)
        self._settle((parent,), geometry, load=parent.load, margin=margin)


@dataclass(frozen=True, eq=False, repr=False)
class AveragedInside(Averaged):
    """A weight layer over patches that are padded with zeros: its period is the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        symmetric = all(self.patches.symmetric(axis) for axis in range(self.ndim))
        reflective = self.parent.geometry.reflective and symmetric
        geometry = replace(self.geometry, period=self.geometry.size, reflective=reflective)
        self._settle((self.parent,), geometry, load=self.parent.load, margin=None)


@dataclass(frozen=True, eq=False, repr=False)
class Activated(Lattice):
    """A nonlinearity: Sigma' = value, Theta' = Theta * slope."""

    parent: Lattice
    dual: Dual

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.geometry, load=self.parent.load, margin=self.parent.margin)


@dataclass(frozen=True, eq=False, repr=False)
class Normalised(Lattice):
    """Division by the root mean square over channels: Sigma' = Sigma / n, Theta' = Theta / n.

    Sigma' + 1 is added to Theta' if scale and offset are trained (``affine``).
    """

    parent: Lattice
    epsilon: Number
    affine: bool

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.geometry, load=self.parent.load, margin=self.parent.margin)


@dataclass(frozen=True, eq=False, repr=False)
class Dropped(Lattice):
    """Masks of each pixel by itself: displacement 0 over the share that is kept."""

    parent: Lattice
    kept: float

    def __post_init__(self) -> None:
        parent = self.parent
        self._settle((parent,), parent.geometry, load=parent.load, untrained=parent.untrained, margin=parent.margin)


@dataclass(frozen=True, eq=False, repr=False)
class _Joined(Lattice):
    """Branches that meet; its period is their least common one."""

    branches: tuple[Lattice, ...]

    def __post_init__(self) -> None:
        branches = self.branches
        first = branches[0].geometry
        for branch in branches[1:]:
            if branch.geometry.size != first.size:
                sizes = f"{shape_text(first.size)} and {shape_text(branch.geometry.size)}"
                raise ValueError(f"expected branches with outputs of one size, got {sizes} pixels")
        geometry = Geometry(
            first.size,
            tuple(math.lcm(*periods) for periods in zip(*(b.geometry.period for b in branches), strict=True)),
            all(branch.geometry.reflective for branch in branches),
            all(branch.geometry.square for branch in branches),
        )
        margins = [branch.margin for branch in branches if branch.margin is not None]
        # Rows of a band are those of the period, or all alike.
        known = len(margins) == len(branches) and {b.geometry.period[0] for b in branches} <= {1, geometry.period[0]}
        self._settle(
            branches,
            geometry,
            load=max(branch.load for branch in branches),
            untrained=all(branch.untrained for branch in branches),
            margin=max(margins) if known else None,
        )

    def _options(self) -> tuple[Any, ...]:
        return ()

    @classmethod
    def _from_parents(cls, parents: tuple[Lattice, ...], options: tuple[Any, ...]) -> Lattice:
        return cls(parents, *options)


@dataclass(frozen=True, eq=False, repr=False)
class Mixed(_Joined):
    """A weighted sum of branches."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.branches):
            raise ValueError(f"expected a weight for each of {len(self.branches)} branches, got {len(self.weights)}")
        super().__post_init__()

    def _options(self) -> tuple[Any, ...]:
        return (self.weights,)


@dataclass(frozen=True, eq=False, repr=False)
class Multiplied(_Joined):
    """A product of branches."""


@dataclass(frozen=True, eq=False, repr=False)
class Subsampled(Lattice):
    """Every r-th pixel of a torus of a multiple of r; only the displacements that are kept are ever computed."""

    parent: Lattice
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        before, stride = self.parent.geometry, self.stride
        geometry = Geometry(
            tuple(n // r for n, r in zip(before.size, stride, strict=True)),
            tuple(p // math.gcd(p, r) for p, r in zip(before.period, stride, strict=True)),
            # Keeping pixel 0 of each stride prefers one side, unless all pixels are alike.
            before.reflective and all(p == 1 or r == 1 for p, r in zip(before.period, stride, strict=True)),
            before.square and stride[0] == stride[1],
        )
        self._settle((self.parent,), geometry, load=self.parent.load, margin=None)


@dataclass(frozen=True, eq=False, repr=False)
class Resampled(Lattice):
    """A fixed linear map along each axis, read from the finished table of what comes before."""

    parent: Lattice
    resampling: tuple[Resampling, ...]
    square: bool

    def __post_init__(self) -> None:
        before, rules = self.parent.geometry, self.resampling
        geometry = Geometry(
            tuple(rule.output_size(n) for rule, n in zip(rules, before.size, strict=True)),
            tuple(rule.output_period(p, n) for rule, p, n in zip(rules, before.period, before.size, strict=True)),
            before.reflective and all(rule.mirrored(n) for rule, n in zip(rules, before.size, strict=True)),
            self.square,
        )
        self._settle((self.parent,), geometry, level=(), margin=None)


@dataclass(frozen=True, eq=False, repr=False)
class Attended(Lattice):
    """Self-attention, computed from the finished table of what comes before, whose symmetries it keeps."""

    parent: Lattice
    attention: Attention

    def __post_init__(self) -> None:
        self._settle((self.parent,), self.parent.geometry, level=(), margin=None)
