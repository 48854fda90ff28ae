"""K @ w for kernels with a period."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import scipy.linalg.lapack
import torch
from torch import Tensor

from torch_cntk._internal.grids import join_cells, split_cells
from torch_cntk._internal.ranks import Mesh
from torch_cntk.covariance import Table
from torch_cntk.operators.base import Lookup, Operator, transforms_cost
from torch_cntk.operators.correlation import Correlation, correlation
from torch_cntk.operators.layout import Banded, Layout
from torch_cntk.operators.over_ranks import BandedOperator, BandOperator

__all__ = ["BlockCirculantOperator", "PeriodicOperator"]


class BlockCirculantOperator(Operator):
    """K with a period, for displacements of any length: a matrix between phases for each frequency of the cells.

    Args:
        blocks: [*cells, *period, *period], entry [m, a, b] is K(a, b + m period) for phases a, b.
        lookup: see ``Lookup``.
        stationary: see ``Operator``.
    """

    def __init__(self, blocks: Tensor, lookup: Lookup, stationary: Tensor) -> None:
        ndim = blocks.ndim // 3
        self._cells, self._period = tuple(blocks.shape[:ndim]), tuple(blocks.shape[ndim : 2 * ndim])
        size = tuple(c * p for c, p in zip(self._cells, self._period, strict=True))
        phases = math.prod(self._period)
        cost = transforms_cost(self._cells) + 4 * phases
        # Of complex numbers, a matrix for each of half of the frequencies.
        super().__init__(size, blocks.dtype, blocks.device, lookup, stationary, cost=cost, traffic=phases)
        self._axes = tuple(range(ndim))
        # A correlation: the transform of the blocks is conjugated.
        transform = torch.fft.rfftn(blocks.reshape(*self._cells, phases, phases), dim=self._axes).conj()
        self._matrices = transform.resolve_conj().reshape(-1, phases, phases)

    @property
    def period(self) -> tuple[int, ...]:
        """See ``Operator.period``."""
        return self._period

    def _multiply(self, images: Tensor) -> Tensor:
        count, phases = images.shape[0], math.prod(self._period)
        cells = split_cells(images.to(self.dtype), self._period).reshape(count, *self._cells, phases)
        transform = torch.fft.rfftn(cells.movedim(0, -1), dim=self._axes)
        product = self._matrices @ transform.reshape(-1, phases, count)
        values = torch.fft.irfftn(product.reshape(transform.shape), s=self._cells, dim=self._axes)
        order = (-1, len(self._cells), *range(len(self._cells)))
        return join_cells(values.permute(order), self._period).to(images.dtype)


class PeriodicOperator(Operator):
    """K = near + far, where near is a correlation and far depends on the phases of the two pixels only.

    Args:
        near: table of one channel that vanishes beyond the radius.
        far: [*far_period, *far_period], between phases; (1,) * 2 ndim where it is one number.
        radius: largest displacement in the near part, an entry an axis.
        dtype: see ``Operator``.
        size: of the image, a multiple of the period and at least 2 radius + 1.
        lookup: see ``Lookup``.
        stationary: see ``Operator``.
    """

    def __init__(
        self,
        near: Table,
        far: Tensor,
        radius: tuple[int, ...],
        dtype: torch.dtype,
        size: tuple[int, ...],
        lookup: Lookup,
        stationary: Tensor,
    ) -> None:
        self._near = correlation(near, radius, dtype)
        super().__init__(size, dtype, near.values.device, lookup, stationary, cost=self._near.cost)
        self._table, self._radius = near, radius
        ndim = len(size)
        self._far_period = tuple(far.shape[:ndim])
        self._far = far.double().reshape(math.prod(self._far_period), -1)
        self._factor = _factor(self._far, torch.finfo(far.dtype).eps)

    @property
    def period(self) -> tuple[int, ...]:
        """See ``Operator.period``."""
        both = zip(self._table.geometry.period, self._far_period, strict=True)
        return tuple(math.lcm(near, far) for near, far in both)

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """See ``Operator.entries``."""
        if self._pairs is None or len(self._far) > 1:
            return super().entries(first, second)
        values, indices = self._pairs
        place: Tensor | None = None
        coordinates = zip(torch.unravel_index(first, self.size), torch.unravel_index(second, self.size), strict=True)
        for (x, y), index, length in zip(coordinates, indices, values.shape, strict=True):
            along = index[x].index_select(1, y)
            place = along if place is None else place.mul_(length).add_(along)
        assert place is not None
        return values.flatten()[place].double().add_(self._far[0])

    @cached_property
    def _pairs(self) -> tuple[Tensor, list[Tensor]] | None:
        """The near part, and where K(x, x') is in it along each axis, [n, n]; None if the axes do not separate."""
        geometry = self._table.geometry
        if not geometry.reflective:
            return None
        indices = []
        for axis, (n, r) in enumerate(zip(self.size, self._radius, strict=True)):
            x = torch.arange(n, device=self.device)
            u = (x - x[:, None]) % n
            u = torch.where(u > n // 2, u - n, u)
            indices.append(geometry.paired_index(axis, u, x[:, None], r))
        return torch.nn.functional.pad(self._table.paired(), (0, 1) * len(self.size)), indices

    def divided(self, mesh: Mesh) -> Operator:
        """Each rank computes a band, of whole cells; see ``Operator.divided``."""
        layout = Banded(mesh, self.size, self.period)
        return BandedOperator(self, PeriodicBand(self, layout, self._near, self._radius[layout.axis]))

    def _multiply(self, images: Tensor) -> Tensor:
        return self._near(images.to(self.dtype)).to(images.dtype).add_(self._far_part(images, self.layout))

    def _far_part(self, images: Tensor, layout: Layout) -> Tensor:
        """Sum the pixels of each phase, mix the sums, and spread them again; of images as the layout holds them."""
        count, ndim = images.shape[0], len(self.size)
        size = tuple(images.shape[1:])
        cells = [entry for n, p in zip(size, self._far_period, strict=True) for entry in (n // p, p)]
        # In float64: the weights all but cancel in the sum, which then meets the largest eigenvalue of K by far.
        sums = layout.total(images.reshape(count, *cells).sum(tuple(range(1, 2 * ndim, 2)), dtype=torch.float64))
        mixed = (
            (sums.reshape(count, -1) @ self._factor @ self._factor.T).reshape(count, *self._far_period).to(images.dtype)
        )
        if math.prod(self._far_period) == 1:
            return mixed
        return mixed.repeat(1, *(n // p for n, p in zip(size, self._far_period, strict=True)))


class PeriodicBand(BandOperator):
    """A periodic kernel on images in bands: the near part needs rows of the neighbours, the far part a sum.

    Args:
        whole: the kernel.
        layout: the bands, of whole periods.
        near: its near part.
        radius: of the near part along the axis of the bands.
    """

    def __init__(self, whole: PeriodicOperator, layout: Banded, near: Correlation, radius: int) -> None:
        super().__init__(whole, layout)
        self._kernel, self._near = whole, near
        self._sections = layout.widened(radius, radius)

    @property
    def period(self) -> tuple[int, ...]:
        """See ``Operator.period``."""
        return self._kernel.period

    def _multiply(self, images: Tensor) -> Tensor:
        far = self._kernel._far_part(images, self.layout)
        wide = self._sections.fetch(images)
        product = torch.empty_like(images)
        with self.mesh.together("a product in bands"):
            if images.numel():
                product = self._near(wide.to(self.dtype), self.layout.axis).to(images.dtype).add_(far)
        return product


_DIGITS = 4
"""Entries of the far part are known to so many times their precision: they are sums of rounded numbers."""


def _factor(far: Tensor, eps: float) -> Tensor:
    """F with F F^T = far, as far as its entries are known: [phases, rank].

    Entries as they are stored have eigenvalues below 0, by rounding. Those of K are as many times larger as the image
    has cells, and from a megapixel on would exceed the smallest ones of the near part: K would be no kernel. A Cholesky
    factorisation with pivots that stops at the precision of the entries leaves them out.

    Args:
        far: [phases, phases], in float64.
        eps: precision to which its entries were stored.
    """
    tolerance = _DIGITS * eps * float(far.abs().max())
    matrix = far.cpu().numpy()
    lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(matrix.T, tol=tolerance, lower=1)
    factor = np.zeros((len(matrix), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return torch.from_numpy(factor).to(far.device)
