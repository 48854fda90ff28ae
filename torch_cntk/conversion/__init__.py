"""Networks of torch.nn as networks of torch_cntk, and back."""

from torch_cntk.conversion.from_torch import from_torch
from torch_cntk.conversion.to_torch import to_torch, with_width

__all__ = ["from_torch", "to_torch", "with_width"]
