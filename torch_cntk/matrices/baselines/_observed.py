"""What is observed of a matrix of entries, or of a tensor of profiles."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["completed", "observed_entries", "observed_profiles"]


def observed_profiles(tensor: Tensor, observed: Tensor) -> Tensor:
    """Return a tensor [drugs, cells, genes] in float64 with zeros where not observed, [drugs, cells].

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit, nothing is observed, or an observed profile is not finite.
    """
    return _checked(tensor, observed, ("drugs", "cells"), ("genes",), "profile")


def observed_entries(matrix: Tensor, observed: Tensor) -> Tensor:
    """Return a matrix [rows, columns] in float64 with zeros where not observed, [rows, columns].

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit, nothing is observed, or an observed entry is not finite.
    """
    return _checked(matrix, observed, ("rows", "columns"), (), "entry")


def _checked(values: Tensor, observed: Tensor, masked: tuple[str, ...], along: tuple[str, ...], what: str) -> Tensor:
    """Check values of the axes ``masked`` and ``along``, and a mask of the axes ``masked``.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: shapes do not fit, nothing is observed, or what is observed is not finite.
    """
    if observed.dtype != torch.bool:
        raise TypeError(f"expected observed to be boolean, True = known, got {observed.dtype}")
    if values.ndim != len(masked + along) or observed.shape != values.shape[: len(masked)]:
        raise ValueError(
            f"expected values [{', '.join(masked + along)}] and observed [{', '.join(masked)}], "
            f"got {tuple(values.shape)} and {tuple(observed.shape)}"
        )
    if not bool(observed.any()):
        raise ValueError(f"expected at least one observed {what}, got none")
    known = torch.where(observed.reshape(*observed.shape, *(1 for _ in along)), values.double(), 0)
    if not bool(torch.isfinite(known).all()):
        raise ValueError(f"expected finite numbers in each observed {what}, got NaN or infinity among them")
    return known


def completed(tensor: Tensor, observed: Tensor, filled: Tensor) -> Tensor:
    """The observed profiles as they were, the others filled."""
    return torch.where(observed[..., None], tensor, filled.to(tensor.dtype))
