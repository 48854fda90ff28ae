"""Work that does not depend on what the caller has switched on around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["plain"]


@contextmanager
def plain(device: torch.device | str = "cpu") -> Iterator[None]:
    """Record no gradients, make ordinary tensors also in inference mode, and cast nothing automatically.

    Args:
        device: where the work is done.
    """
    kind = torch.device(device).type
    with torch.inference_mode(False), torch.no_grad():
        if not torch.is_autocast_enabled(kind):
            yield
            return
        with torch.autocast(kind, enabled=False):
            yield
