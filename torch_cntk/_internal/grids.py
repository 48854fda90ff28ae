"""Coordinates of pixels, and images as cells of one period each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["join_cells", "open_grid", "split_cells"]


def open_grid(size: Sequence[int], device: torch.device, after: int = 0) -> list[Tensor]:
    """Coordinates along each axis: entry k varies along dimension k alone, of ``len(size) + after`` dimensions."""
    ndim = len(size) + after
    return [
        torch.arange(n, device=device).reshape([-1 if k == axis else 1 for k in range(ndim)])
        for axis, n in enumerate(size)
    ]


def join_cells(cells: Tensor, period: tuple[int, ...]) -> Tensor:
    """[n, prod(period), *cells] to [n, *(cells * period)]: a pixel shuffle in any dimension."""
    count, ndim = cells.shape[0], len(period)
    split = cells.reshape(count, *period, *cells.shape[2:])
    order = [0, *(axis for k in range(ndim) for axis in (1 + ndim + k, 1 + k))]
    size = [c * p for c, p in zip(cells.shape[2:], period, strict=True)]
    return split.permute(order).reshape(count, *size)


def split_cells(images: Tensor, period: tuple[int, ...]) -> Tensor:
    """[n, *(cells * period)] to [n, *cells, *period]: the inverse of ``join_cells``, phases last."""
    count, ndim = images.shape[0], len(period)
    split = images.reshape(
        count, *(entry for n, p in zip(images.shape[1:], period, strict=True) for entry in (n // p, p))
    )
    return split.permute(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2))
