"""Arithmetic on batches of images, [n, *size], with a number for each of them, [n]."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["answers_at_once", "dot", "norm", "ratio", "spread"]


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Inner products, [n] in float64."""
    if len(first) == len(second) == 1:  # BLAS takes half of the time
        return torch.dot(first.flatten(), second.flatten()).double().unsqueeze(0)
    product: Tensor = torch.linalg.vecdot(first.flatten(1), second.flatten(1))
    return product.double()


def norm(images: Tensor) -> Tensor:
    """Euclidean norms, [n] in float64."""
    return dot(images, images).sqrt_()


def spread(scalars: Tensor, images: Tensor) -> Tensor:
    """One number an image, to be broadcast against them, in the images' precision."""
    numbers = scalars if scalars.dtype == torch.bool else scalars.to(images.dtype)
    return numbers.reshape(-1, *(1,) * (images.ndim - 1))


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, and 0 where the denominator is not positive."""
    return (numerator / denominator).masked_fill_(~(denominator > 0), 0)


def answers_at_once(device: torch.device) -> bool:
    """Whether it costs nothing to read a number: elsewhere the host waits until all that was begun is finished."""
    return device.type == "cpu"
