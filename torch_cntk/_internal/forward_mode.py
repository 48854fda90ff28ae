"""What torch loads when forward mode is used for the first time, without a warning that is about torch itself."""

from __future__ import annotations

import functools
import warnings

import torch
from torch.func import jvp

__all__ = ["load_forward_mode"]


@functools.cache
def load_forward_mode() -> None:
    """Have torch load its rules of forward mode, which are written with a function that torch has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.\w+` is deprecated")
        number = torch.zeros(())
        jvp(torch.neg, (number,), (number,))
