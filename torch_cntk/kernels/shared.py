"""A kernel of one size of which each of several ranks holds some displacements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from torch_cntk._internal.ranks import Mesh
from torch_cntk.covariance import Table, WindowShare
from torch_cntk.kernels.storage import Storage, displacement_of
from torch_cntk.operators.base import Operator
from torch_cntk.operators.over_ranks import SharedOperator
from torch_cntk.operators.stencil import StencilOperator

__all__ = ["Shared"]

_DENSE = 300
"""Products with K that conjugate gradients take, preconditioned by the stationary average; see ``DenseOperator``."""


@dataclass(frozen=True, eq=False)
class Shared(Storage):
    """The displacements of one rank; the others hold the rest.

    An entry is the sum over the ranks, of which one has it and all others 0: all ranks have to ask for the same
    entries, and get the bits of the one that has it.

    Attributes:
        near: this rank's table, whose geometry is a ``WindowShare`` and whose period is the image.
        mesh: the ranks.
        radius: largest displacement along each axis.
    """

    mesh: Mesh
    far: None = field(init=False, default=None)
    radius: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", tuple(r - 1 for r in self._share.reach))

    @property
    def _share(self) -> WindowShare:
        share = self.near.geometry
        assert isinstance(share, WindowShare)
        return share

    def check_whole(self) -> None:
        """Refuse what needs all of the kernel at one place.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"expected a whole kernel, got the share of rank {self.mesh.rank} of {self.mesh.size}: "
            "net.kernel(prior, size) without mesh makes a whole one"
        )

    def entries(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See ``Storage.entries``; asked for by all ranks."""
        # Not every kind of group adds numbers of 16 bits.
        own = self.own_entries(first, second, size)
        return self.mesh.sum(own.to(torch.promote_types(own.dtype, torch.float32))).to(own.dtype)

    def dense(self, size: tuple[int, ...]) -> Tensor:
        """Refused: no rank has room for all of it.

        Raises:
            ValueError: always.
        """
        self.check_whole()
        return super().dense(size)

    def own_entries(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """The entries that this rank has, and 0 for others."""
        displacement = displacement_of(first, second, size)
        if not len(self._share.offsets):
            return torch.zeros_like(reduce(torch.add, displacement), dtype=self.dtype)
        return self.near.within(self.radius, displacement, first)[0]

    def operator(self, size: tuple[int, ...], dtype: torch.dtype) -> Operator:
        """Each rank multiplies by its displacements."""
        share = StencilOperator(self.near.values[0], self._share.offsets, _OwnLookup(self, size), dtype)
        if self._share.tapered:
            return SharedOperator(share, self.mesh)
        return SharedOperator(share, self.mesh, self.stationary(size), _DENSE)

    def with_tables(self, tables: Mapping[str, Table]) -> Shared:
        """See ``Storage.with_tables``."""
        return Shared(tables["near"], self.mesh)


@dataclass(frozen=True)
class _OwnLookup:
    """``Shared.own_entries`` for images of one size; it can be pickled."""

    storage: Shared
    size: tuple[int, ...]

    def __call__(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        return self.storage.own_entries(first, second, self.size)
