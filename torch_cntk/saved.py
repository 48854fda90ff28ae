"""Kernel files that know the network they came from."""

from __future__ import annotations

from pathlib import Path

import torch

from torch_cntk import kernel as _kernel
from torch_cntk import priors
from torch_cntk.kernel import Kernel
from torch_cntk.layers import from_description

__all__ = ["load_kernel"]


def load_kernel(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Kernel:
    """Read a kernel from a file that ``Kernel.save`` wrote.

    Args:
        path: of a .safetensors file.
        dtype: to hold it in; as stored by default.
        device: to hold it on; the CPU by default.

    Returns:
        the kernel. If its prior is stationary, images so small that displacements wrap are served as well: their
        kernel is computed from the network's description in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, not a kernel file, or of a newer format.
    """
    kernel = _kernel.read(path)
    network, prior = kernel.origin.get("network"), kernel.origin.get("prior")
    if kernel.size is None and network is not None and prior is not None:
        try:
            net, source = from_description(network), priors.from_description(prior)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} describes a network that this version does not know: {error}") from error
        kind, stored = kernel.origin.get("kind", "ntk"), kernel.dtype
        kernel.rebuild = lambda size: net.kernel(source, size, kind=kind, dtype=stored)
    return kernel.to(dtype, device)
