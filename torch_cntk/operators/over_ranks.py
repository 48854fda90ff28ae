"""Kernels whose products several ranks take together.

Each rank holds the same images and calls the same products in the same order; see ``torch_cntk._internal.ranks``. What
they compute is the kernel of one process to rounding, on every rank to the bit the same. Of a ``BandOperator`` each
rank holds a band of the images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators.base import Operator
from torch_cntk.operators.layout import Banded

__all__ = ["BandOperator", "BandedOperator", "GatheredOperator", "SharedOperator"]


class SharedOperator(Operator):
    """K of which each rank holds a share: the ranks' shares add up to K.

    Products, entries and the diagonal are sums over the ranks, so that all of them have to ask for the same ones.

    Args:
        share: the rank's share, an operator of the size of K; its entries are 0 where those of other ranks are not.
        mesh: the ranks.
        stationary: of K, see ``Operator``; None where displacements mean nothing or the mean is not known.
        iterations: of K, see ``Operator``; by default those of the share.
    """

    takes_all_ranks = True

    def __init__(
        self, share: Operator, mesh: Mesh, stationary: Tensor | None = None, iterations: int | None = None
    ) -> None:
        costs = mesh.sum(torch.tensor([share.cost, share.traffic], dtype=torch.float64, device=share.device)).tolist()
        super().__init__(
            share.size,
            share.dtype,
            share.device,
            stationary=stationary,
            cost=costs[0],
            entry_dtype=share.entry_dtype,
            entry_cost=share.entry_cost,
            traffic=costs[1],
            iterations=share.iterations if iterations is None else iterations,
        )
        self._share = share
        self.mesh: Mesh = mesh

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        # Not every kind of group adds numbers of 16 bits.
        own = self._share.lookup(first, second)
        return self.mesh.sum(own.to(torch.promote_types(own.dtype, torch.float32)))

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        return self.mesh.sum(self._share.diagonal)

    def undivided(self) -> Operator:
        """See ``Operator.undivided``.

        Raises:
            ValueError: no rank knows the whole kernel.
        """
        raise ValueError("expected a kernel that each rank knows whole, got one of which each holds a share")

    def _multiply(self, images: Tensor) -> Tensor:
        with self.mesh.together("a product", images):
            own = self._share._multiply(images)
        return self.mesh.sum(own)


def _costs(whole: Operator) -> dict[str, Any]:
    """What a divided operator tells of itself: what the whole one does."""
    return {
        "stationary": whole.stationary,
        "cost": whole.cost,
        "entry_dtype": whole.entry_dtype,
        "entry_cost": whole.entry_cost,
        "traffic": whole.traffic,
        "iterations": whole.iterations,
    }


class _Divided(Operator):
    """K that every rank knows whole, and whose products the ranks divide.

    Its costs are those of one process: what is chosen by them is the same on any number of ranks.
    """

    def __init__(self, whole: Operator, mesh: Mesh) -> None:
        super().__init__(whole.size, whole.dtype, whole.device, **_costs(whole))
        self._whole = whole
        self.mesh: Mesh = mesh

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        return self._whole.lookup(first, second)

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        return self._whole.diagonal

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """See ``Operator.entries``."""
        return self._whole.entries(first, second)

    def select(self, index: Tensor) -> Operator:
        """See ``Operator.select``; the rest is not divided."""
        return self._whole.select(index)

    def undivided(self) -> Operator:
        """See ``Operator.undivided``."""
        return self._whole


class BandOperator(Operator):
    """A kernel of finite radius on images of which each rank holds a band, which is all that it computes of a product.

    A subclass multiplies by way of ``Banded.widened``. Numbers that tell of the whole kernel are those of the whole
    one: its stationary average, its mean diagonal, its costs. Entries are those between pixels of the rank's band.

    Args:
        whole: the kernel on whole images, which every rank knows.
        layout: the bands.
    """

    takes_all_ranks = True

    def __init__(self, whole: Operator, layout: Banded) -> None:
        super().__init__(layout.size, whole.dtype, whole.device, **_costs(whole))
        self._whole, self._layout = whole, layout
        self.mesh: Mesh = layout.mesh

    @property
    def layout(self) -> Banded:
        """See ``Operator.layout``."""
        return self._layout

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        axis, start = self._layout.axis, self._layout.start
        moved = [[x + start if place == axis else x for place, x in enumerate(of)] for of in (first, second)]
        return self._whole.lookup(*moved)

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x) of the rank's band, in float64."""
        return self._layout.own(self._whole.diagonal)

    @cached_property
    def mean_diagonal(self) -> float:
        """Mean of K(x, x) over the whole image."""
        return self._whole.mean_diagonal

    @abstractmethod
    def _multiply(self, images: Tensor) -> Tensor:
        """The rank's band of K @ w, [n, *band], of the bands of w; asked for by all ranks."""


class BandedOperator(_Divided):
    """Each rank computes a band of the product, and the bands are gathered; iterations may keep them apart.

    Args:
        whole: K.
        bands: the same on bands.
    """

    def __init__(self, whole: Operator, bands: BandOperator) -> None:
        assert bands.mesh is not None
        super().__init__(whole, bands.mesh)
        self._bands = bands

    def in_bands(self) -> BandOperator:
        """See ``Operator.in_bands``."""
        return self._bands

    def _multiply(self, images: Tensor) -> Tensor:
        layout = self._bands.layout
        with self.mesh.together("a product", images):
            own = layout.own(images)
        return layout.joined(self._bands._multiply(own))


class GatheredOperator(_Divided):
    """Each rank computes some rows of the product, and the rows are gathered.

    Args:
        whole: K.
        mesh: the ranks.
        rows: gives rows of K @ w for [n, *size] and a part of the rows, [n, rows, *rest]; it can be pickled.
        count: of the rows: that of the pixels of the first axis, or of what is computed together there.
    """

    def __init__(self, whole: Operator, mesh: Mesh, rows: Callable[[Tensor, slice], Tensor], count: int) -> None:
        super().__init__(whole, mesh)
        self._rows, self._count = rows, count

    def _multiply(self, images: Tensor) -> Tensor:
        with self.mesh.together("a product", images):
            # Rows of all images side by side: what is gathered is contiguous.
            mine = self._rows(images, self.mesh.share(self._count)).transpose(0, 1).contiguous()
        rows = self.mesh.gather(mine, self._count)
        return rows.transpose(0, 1).reshape(images.shape)
