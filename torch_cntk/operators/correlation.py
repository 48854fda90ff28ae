"""The near part of a periodic kernel times images: the faster one of two ways."""

from __future__ import annotations

import torch

from torch_cntk.covariance import Table
from torch_cntk.operators.near import Correlation
from torch_cntk.operators.patches import Patches
from torch_cntk.operators.shifts import Shifts

__all__ = ["Correlation", "Patches", "Shifts", "correlation"]


def correlation(table: Table, radius: tuple[int, ...], dtype: torch.dtype) -> Correlation:
    """The faster way to take near @ w.

    Args:
        table: one channel; vanishes beyond the radius.
        radius: an entry an axis.
        dtype: in which it multiplies.
    """
    form = min((Shifts, Patches), key=lambda form: form.estimate(table, radius))
    return form(table, radius, dtype)
