"""What the methods for tensors of profiles share."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["checked", "completed"]


def checked(tensor: Tensor, observed: Tensor) -> Tensor:
    """Return the tensor in float64 with zeros where nothing is observed.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit, nothing is observed, or an observed profile is not finite.
    """
    if observed.dtype != torch.bool:
        raise TypeError(f"expected observed to be boolean, True = known, got {observed.dtype}")
    if tensor.ndim != 3 or observed.shape != tensor.shape[:2]:
        raise ValueError(
            f"expected a tensor [drugs, cells, genes] and observed [drugs, cells], got {tuple(tensor.shape)} and "
            f"{tuple(observed.shape)}"
        )
    if not bool(observed.any()):
        raise ValueError("expected at least one observed profile, got none")
    values = torch.where(observed[..., None], tensor.double(), 0)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("expected finite numbers in observed profiles, got NaN or infinity among them")
    return values


def completed(tensor: Tensor, observed: Tensor, filled: Tensor) -> Tensor:
    """The observed profiles as they were, the others filled."""
    return torch.where(observed[..., None], tensor, filled.to(tensor.dtype))
