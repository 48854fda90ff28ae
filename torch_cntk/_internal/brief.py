"""Results that show in a line what they are, and not the numbers of their tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

__all__ = ["Brief", "in_short"]


class Brief:
    """Gives a dataclass, declared with ``repr=False``, a repr in which tensors and arrays are their shapes.

    Fields that are None are left out, and those that are declared with ``repr=False``.
    """

    def __repr__(self) -> str:
        fields = [field.name for field in dataclasses.fields(self) if field.repr]  # type: ignore[arg-type]
        shown = [f"{name}={in_short(getattr(self, name))}" for name in fields if getattr(self, name) is not None]
        return f"{type(self).__name__}({', '.join(shown)})"


def in_short(value: Any) -> str:
    """A value in a few words: "float32 [3, 256, 256]" of a tensor, four digits of a number."""
    if isinstance(value, torch.Tensor | np.ndarray):
        if value.ndim == 0:
            return in_short(value.item())
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
