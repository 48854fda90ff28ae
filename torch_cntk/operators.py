"""K @ w over a whole image, without the matrix K."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from torch_cntk._checks import shape_text

__all__ = ["BlockCirculantOperator", "DenseOperator", "Operator", "PeriodicOperator"]

_CONVOLUTIONS = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}


class Operator(ABC):
    """A symmetric positive semi-definite kernel between all pixels of an image, as a linear map.

    Attributes:
        size: of the image.
        dtype: precision in which it multiplies.
        stationary: [*size] in float64, the mean over positions a of K(a, a + u) for each displacement u (wrapping
            around).
    """

    def __init__(self, size: tuple[int, ...], dtype: torch.dtype, stationary: Tensor) -> None:
        self.size = size
        self.dtype = dtype
        self.stationary = stationary

    @property
    def mean_diagonal(self) -> float:
        """Mean of K(x, x)."""
        return float(self.stationary[(0,) * len(self.size)])

    def spectrum(self) -> Tensor:
        """Eigenvalues of the stationary average, as ``torch.fft.rfftn`` orders them; rounding below 0 removed."""
        eigenvalues: Tensor = torch.fft.rfftn(self.stationary).real
        return eigenvalues.clamp_min(0).to(self.dtype)

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

    def __init__(self, matrix: Tensor, stationary: Tensor) -> None:
        size = tuple(matrix.shape[: matrix.ndim // 2])
        super().__init__(size, matrix.dtype, stationary)
        self._matrix = matrix.reshape(math.prod(size), -1)

    def _multiply(self, images: Tensor) -> Tensor:
        return (images.reshape(images.shape[0], -1).to(self.dtype) @ self._matrix).to(images.dtype)


class BlockCirculantOperator(Operator):
    """K with a period, for displacements of any length: a matrix between phases for each frequency of the cells.

    Args:
        blocks: [*cells, *period, *period], entry [m, a, b] is K(a, b + m period) for phases a, b.
        stationary: see ``Operator``.
    """

    def __init__(self, blocks: Tensor, stationary: Tensor) -> None:
        ndim = blocks.ndim // 3
        self._cells, self._period = tuple(blocks.shape[:ndim]), tuple(blocks.shape[ndim : 2 * ndim])
        super().__init__(tuple(c * p for c, p in zip(self._cells, self._period, strict=True)), blocks.dtype, stationary)
        phases = math.prod(self._period)
        self._axes = tuple(range(ndim))
        # A correlation: the transform of the blocks is conjugated.
        transform = torch.fft.rfftn(blocks.reshape(*self._cells, phases, phases), dim=self._axes).conj()
        self._matrices = transform.resolve_conj().reshape(-1, phases, phases)

    def _multiply(self, images: Tensor) -> Tensor:
        count, phases = images.shape[0], math.prod(self._period)
        cells = _split_cells(images.to(self.dtype), self._period).reshape(count, *self._cells, phases)
        transform = torch.fft.rfftn(cells.movedim(0, -1), dim=self._axes)
        product = self._matrices @ transform.reshape(-1, phases, count)
        values = torch.fft.irfftn(product.reshape(transform.shape), s=self._cells, dim=self._axes)
        order = (-1, len(self._cells), *range(len(self._cells)))
        return _join_cells(values.permute(order), self._period).to(images.dtype)


class PeriodicOperator(Operator):
    """K = near + far, where near is a strided correlation and far depends on the phases of the two pixels only.

    Args:
        stencil: [*period, *(period + 2 radius)], the near part: entry [a, j] multiplies pixel j - radius, counted from
            the corner of the cell in which a is.
        far: [*far_period, *far_period], between phases; (1,) * 2 ndim where it is one number.
        radius: largest displacement in the near part, an entry an axis.
        size: of the image, a multiple of the period and at least 2 radius + 1.
        stationary: see ``Operator``.
    """

    def __init__(
        self,
        stencil: Tensor,
        far: Tensor,
        radius: tuple[int, ...],
        size: tuple[int, ...],
        stationary: Tensor,
    ) -> None:
        super().__init__(size, stencil.dtype, stationary)
        ndim = len(size)
        self._period = tuple(stencil.shape[:ndim])
        self._stencil = stencil.reshape(-1, 1, *stencil.shape[ndim:])
        self._far_period = tuple(far.shape[:ndim])
        self._far = far.double().reshape(math.prod(self._far_period), -1)
        self._padding = tuple(entry for r in reversed(radius) for entry in (r, r))

    def _multiply(self, images: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(images[:, None].to(self.dtype), self._padding, mode="circular")
        near = _CONVOLUTIONS[len(self.size)](padded, self._stencil, stride=self._period)
        return _join_cells(near, self._period).to(images.dtype).add_(self._far_part(images))

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


def _join_cells(cells: Tensor, period: tuple[int, ...]) -> Tensor:
    """[n, prod(period), *cells] to [n, *(cells * period)]: a pixel shuffle in any dimension."""
    count, ndim = cells.shape[0], len(period)
    split = cells.reshape(count, *period, *cells.shape[2:])
    order = [0, *(axis for k in range(ndim) for axis in (1 + ndim + k, 1 + k))]
    size = [c * p for c, p in zip(cells.shape[2:], period, strict=True)]
    return split.permute(order).reshape(count, *size)


def _split_cells(images: Tensor, period: tuple[int, ...]) -> Tensor:
    """[n, *(cells * period)] to [n, *cells, *period]: the inverse of ``_join_cells``, phases last."""
    count, ndim = images.shape[0], len(period)
    split = images.reshape(
        count, *(entry for n, p in zip(images.shape[1:], period, strict=True) for entry in (n // p, p))
    )
    return split.permute(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2))
