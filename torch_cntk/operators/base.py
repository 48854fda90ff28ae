"""K @ w over a whole image, without the matrix K."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.grids import join_cells, open_grid, split_cells
from torch_cntk.covariance import Table
from torch_cntk.operators.correlation import correlation

__all__ = ["BlockCirculantOperator", "DenseOperator", "Lookup", "Operator", "PeriodicOperator", "transforms_cost"]

Lookup = Callable[[list[Tensor], list[Tensor]], Tensor]
"""Gives K(x, x') for pixels x and x': one integer tensor an axis each, all of which broadcast."""


def transforms_cost(size: tuple[int, ...]) -> float:
    """Time of a Fourier transform of an image and back, for each pixel, in units of ``Operator.cost``."""
    return _TRANSFORMS * math.log2(max(math.prod(size), 2))


_TRANSFORMS = 26
"""Both transforms of n pixels take 5 log2(n) operations a pixel, each as long as some 5 of a large matrix product, as
measured on two CPU cores."""


class Operator(ABC):
    """A symmetric positive semi-definite kernel between all pixels of an image, as a linear map.

    The "image" may be any grid on which the kernel is known: the columns of a matrix are one of one axis.

    Attributes:
        size: of the image.
        dtype: precision in which it multiplies.
        device: where it multiplies.
        cost: time of K @ w for each pixel, in operations of a large matrix product that take as long.
        entry_dtype: precision to which K's entries are known.
        stationary: [*size] in float64, the mean over positions a of K(a, a + u) for each displacement u (wrapping
            around); None where displacements mean nothing.
    """

    def __init__(
        self,
        size: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        lookup: Lookup,
        stationary: Tensor | None = None,
        *,
        cost: float,
        entry_dtype: torch.dtype | None = None,
    ) -> None:
        self.size = size
        self.dtype = dtype
        self.device = device
        self.cost = cost
        self.entry_dtype = entry_dtype or dtype
        self.stationary = stationary
        self._lookup = lookup

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        grid = open_grid(self.size, self.device)
        return self._lookup(grid, grid).double().expand(self.size)

    @cached_property
    def mean_diagonal(self) -> float:
        """Mean of K(x, x)."""
        if self.stationary is not None:
            return float(self.stationary[(0,) * len(self.size)])
        return float(self.diagonal.mean())

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between some pixels and others.

        Args:
            first: [m], integers, positions in the flattened image.
            second: [n], likewise.

        Returns:
            [m, n] in float64.
        """
        x = [axis[:, None] for axis in torch.unravel_index(first, self.size)]
        return self._lookup(x, list(torch.unravel_index(second, self.size))).double()

    def __matmul__(self, images: Tensor) -> Tensor:
        """K @ w for each of [..., *size], in the precision of w; only large sums are taken in the operator's.

        Raises:
            ValueError: the images are not of this size.
        """
        if tuple(images.shape[-len(self.size) :]) != self.size:
            raise ValueError(f"expected images of {shape_text(self.size)} pixels, got shape {tuple(images.shape)}")
        flat = images.reshape(-1, *self.size)
        return self._multiply(flat).reshape(tuple(images.shape))

    @abstractmethod
    def _multiply(self, images: Tensor) -> Tensor:
        """K @ w for [n, *size]."""


class DenseOperator(Operator):
    """K as a matrix.

    Args:
        matrix: [*size, *size].
        stationary: see ``Operator``.
    """

    def __init__(self, matrix: Tensor, stationary: Tensor | None = None) -> None:
        size = tuple(matrix.shape[: matrix.ndim // 2])
        pixels = math.prod(size)
        super().__init__(size, matrix.dtype, matrix.device, lambda x, y: matrix[(*x, *y)], stationary, cost=2 * pixels)
        self._matrix = matrix.reshape(pixels, -1)

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """See ``Operator.entries``."""
        return self._matrix[first].index_select(1, second).double()

    def _multiply(self, images: Tensor) -> Tensor:
        return (images.reshape(images.shape[0], -1).to(self.dtype) @ self._matrix).to(images.dtype)


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
        super().__init__(size, blocks.dtype, blocks.device, lookup, stationary, cost=cost)
        self._axes = tuple(range(ndim))
        # A correlation: the transform of the blocks is conjugated.
        transform = torch.fft.rfftn(blocks.reshape(*self._cells, phases, phases), dim=self._axes).conj()
        self._matrices = transform.resolve_conj().reshape(-1, phases, phases)

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

    def _multiply(self, images: Tensor) -> Tensor:
        return self._near(images.to(self.dtype)).to(images.dtype).add_(self._far_part(images))

    def _far_part(self, images: Tensor) -> Tensor:
        """Sum the pixels of each phase, mix the sums, and spread them again."""
        count, ndim = images.shape[0], len(self.size)
        cells = [entry for n, p in zip(self.size, self._far_period, strict=True) for entry in (n // p, p)]
        # In float64: the weights all but cancel in the sum, which then meets the largest eigenvalue of K by far.
        sums = images.reshape(count, *cells).sum(tuple(range(1, 2 * ndim, 2)), dtype=torch.float64)
        mixed = (sums.reshape(count, -1) @ self._far.T).reshape(count, *self._far_period).to(images.dtype)
        if math.prod(self._far_period) == 1:
            return mixed
        return mixed.repeat(1, *(n // p for n, p in zip(self.size, self._far_period, strict=True)))
