"""Work that does not depend on what the caller has switched on around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["plain", "weightless"]

_KINDS = ("cpu", "cuda")
"""Kinds of devices on which torch may cast automatically, of those that the package works on."""


@contextmanager
def plain() -> Iterator[None]:
    """Record no gradients, make ordinary tensors also in inference mode, and cast nothing automatically."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def weightless() -> torch.device:
    """Around the making of a network of which only the kernel is needed: it gets no weights, and none are drawn.

    torch's global generator belongs to the user: what it gives next must not depend on calls of this package.
    """
    return torch.device("meta")
