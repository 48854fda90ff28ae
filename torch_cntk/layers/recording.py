"""Kernels with gradients by the options of layers and priors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def require_reached(results: Sequence[Tensor], layers: Iterable[object], others: Sequence[Tensor] = ()) -> None:
    """Refuse results that an option with a gradient did not act on: its gradient would be a silent zero.

    Args:
        results: of a recorded computation.
        layers: of the network.
        others: tensors of the prior.

    Raises:
        ValueError: a tensor is no part of what the results were made of.
    """
    wanted = [(f"{name} of {layer!r}", tensor) for layer in layers for name, tensor in tensors_of(layer)]
    wanted += [("a tensor of the prior", tensor) for tensor in others if tensor.is_leaf]
    reached = _reached([result.grad_fn for result in results]) if wanted else set()
    for text, tensor in wanted:
        if id(tensor if tensor.grad_fn is None else tensor.grad_fn) not in reached:
            raise ValueError(
                f"expected options with gradients to act on the kernel, got {text}, which does not: give it as a number"
            )


def _reached(waiting: list[Any]) -> set[int]:
    """Ids of the leaf tensors and of the nodes of autograd behind some nodes."""
    found: set[int] = set()
    kept: list[Any] = []
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
