"""Places where branches of a network meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from torch_cntk.layers.base import C

__all__ = ["JOINS", "Join", "agreed"]

Join = Literal["sum", "concat", "product", "concat:2", "concat:3", "concat:4"]
"""Of concatenations the axis of the tensors, where that is not the axis of channels."""


def agreed(values: Sequence[int | None], what: str) -> int | None:
    """What all values that are known are equal to; None if none is.

    Raises:
        ValueError: they differ.
    """
    known = {value for value in values if value is not None}
    if len(known) > 1:
        raise ValueError(f"expected branches of {what}, got {sorted(known)}")
    return next(iter(known), None)


def _summed_channels(channels: Sequence[int | None]) -> int | None:
    return agreed(channels, "the same number of output channels")


def _concatenated_channels(channels: Sequence[int | None]) -> int:
    known = [count for count in channels if count is not None]
    if len(known) < len(channels):
        raise ValueError("expected branches of known channels, got one that takes any: give in_channels")
    return sum(known)


def _check_shapes(tensors: Sequence[Tensor], *, channels: bool) -> None:
    shapes = [tuple(tensor.shape) if channels else (tensor.shape[0], *tensor.shape[2:]) for tensor in tensors]
    if len(set(shapes)) > 1:
        what = "shape" if channels else "batch and size"
        raise ValueError(f"expected branches with outputs of one {what}, got {' and '.join(map(str, shapes))}")


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    _check_shapes(tensors, channels=True)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _product(tensors: Sequence[Tensor]) -> Tensor:
    _check_shapes(tensors, channels=True)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total * tensor
    return total


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    _check_shapes(tensors, channels=False)
    return torch.cat(tuple(tensors), 1)


def _along(tensors: Sequence[Tensor], dim: int) -> Tensor:
    shapes = [(*tensor.shape[:dim], *tensor.shape[dim + 1 :]) for tensor in tensors]
    if len(set(shapes)) > 1 or tensors[0].ndim <= dim:
        got = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(f"expected branches with outputs of one shape but for axis {dim}, got {got}")
    return torch.cat(tuple(tensors), dim)


def _behind_each_other(covariances: Sequence[C], channels: Sequence[int | None], dim: int) -> C:
    return covariances[0].adjoin(dim - 2, tuple(covariances[1:]))


def _added(covariances: Sequence[C], channels: Sequence[int | None]) -> C:
    return covariances[0].add(tuple(covariances[1:]))


def _multiplied(covariances: Sequence[C], channels: Sequence[int | None]) -> C:
    return covariances[0].multiply(tuple(covariances[1:]))


def _side_by_side(covariances: Sequence[C], channels: Sequence[int | None]) -> C:
    total = _concatenated_channels(channels)
    return covariances[0].concatenate(tuple((count or 0) / total for count in channels), tuple(covariances[1:]))


@dataclass(frozen=True)
class _Join:
    """The readings of a place where branches meet."""

    channels: Callable[[Sequence[int | None]], int | None]
    tensors: Callable[[Sequence[Tensor]], Tensor]
    covariances: Callable[[Sequence[Any], Sequence[int | None]], Any]


JOINS: Mapping[str, _Join] = {
    "sum": _Join(_summed_channels, _sum, _added),
    "product": _Join(_summed_channels, _product, _multiplied),
    "concat": _Join(_concatenated_channels, _concatenate, _side_by_side),
    **{
        f"concat:{dim}": _Join(_summed_channels, partial(_along, dim=dim), partial(_behind_each_other, dim=dim))
        for dim in (2, 3, 4)
    },
}
"""By what a node does that is no layer."""
