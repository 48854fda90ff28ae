"""Kernels with gradients by the options of layers and priors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.tunable import tensors_of

__all__ = ["recording", "require_reached"]


@contextmanager
def recording() -> Iterator[None]:
    """Record gradients, and cast nothing automatically."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def require_reached(result: Tensor, owners: Iterable[object]) -> None:
    """Refuse a result that an option with a gradient did not act on: it would be a silent zero.

    Args:
        result: of a recorded computation.
        owners: layers and priors.

    Raises:
        ValueError: a tensor that stands for an option is no part of what the result was made of.
    """
    wanted = [(owner, name, tensor) for owner in owners for name, tensor in tensors_of(owner)]
    if not wanted:
        return
    reached = _reached(result)
    for owner, name, tensor in wanted:
        key = id(tensor) if tensor.grad_fn is None else id(tensor.grad_fn)
        if key not in reached:
            raise ValueError(
                f"expected options with gradients to act on the kernel, got {name} of {owner!r}, which does not: "
                "give it as a number"
            )


def _reached(result: Tensor) -> set[int]:
    """Ids of the leaf tensors and of the nodes of autograd that a result was made of."""
    found: set[int] = set()
    kept: list[Any] = []
    waiting = [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in found:
            continue
        found.add(id(node))
        # Ids are used again once a node is gone.
        kept.append(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.add(id(leaf))
        waiting += [parent for parent, _ in node.next_functions]
    return found
