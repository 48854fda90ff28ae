"""What every step of a level is: a node's rule, run slab by slab, with what it keeps between slabs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from torch_cntk.covariance.lattice.expression import Lattice
from torch_cntk.covariance.lattice.shifts import shifted, tiled, tiled_entries, unshifted
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.table import Slab, Table

__all__ = ["Pointwise", "Step", "as_pair", "at_zero"]

L = TypeVar("L", bound=Lattice)


class Step(ABC, Generic[L]):
    """One node's rule.

    Attributes:
        node: what it computes.
        theta_alone: whether only Theta of the node is wanted, [1, *count, *period].
        needs_variances: whether its first slab must start at displacement zero.
        temporaries: covariances of the node that are held while it runs, beyond its input and its output.
    """

    needs_variances: ClassVar[bool] = False
    temporaries: ClassVar[int] = 0

    def __init__(self, node: L, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> None:
        self.node = node
        self.theta_alone = theta_alone
        self._spare = spare
        self._tables = tables

    def kept_bytes(self) -> int:
        """Bytes of what is kept between slabs."""
        return 0

    @abstractmethod
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        """Return the node's images of a slab, given those of its parents."""


class Pointwise(Step[L]):
    """What needs the variances: the slab that starts at displacement zero carries them for all others."""

    needs_variances = True
    temporaries = 6

    def __init__(self, node: L, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> None:
        super().__init__(node, theta_alone, spare, tables)
        self._variance: Tensor | None = None

    def kept_bytes(self) -> int:
        """The variance image, tiled."""
        geometry = self.node.geometry
        return tiled_entries(geometry.period, geometry.size) * torch.float64.itemsize

    def _variance_of(self, sigma: Tensor, slab: Slab) -> Tensor:
        """Sigma(x, x), [*period], for the parent's Sigma of a slab; kept from the first one on, and tiled."""
        geometry = self.node.geometry
        if self._variance is None:
            assert slab.holds_zero and slab.band is None, "a program runs the displacement zero first"
            self._variance = sigma[(0,) * geometry.ndim].clone()
            self._tiles = tiled(self._variance, geometry.size)
        return self._variance

    def _variances(self, sigma: Tensor, slab: Slab) -> tuple[Tensor, Tensor]:
        """Sigma(x, x), [*period], and Sigma(x', x'), [*count, *period], for the parent's Sigma of a slab."""
        geometry = self.node.geometry
        variance = self._variance_of(sigma, slab)
        if slab.band is not None:
            variance = unshifted(self._tiles, geometry.period, slab)[(0,) * geometry.ndim]
        return variance, shifted(self._tiles, geometry.period, slab)


def as_pair(images: Tensor) -> Tensor:
    """Sigma and Theta, where Theta = 0 may have been left out."""
    return images if images.shape[0] == 2 else torch.cat((images, torch.zeros_like(images)))


def at_zero(images: Tensor, ndim: int) -> Tensor:
    """The images of a slab's first displacement, [channels, *count, *positions], as a view."""
    for _ in range(ndim):
        images = images.select(1, 0)
    return images
