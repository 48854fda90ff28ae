"""Operations of autograd that have first derivatives alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_order"]

Backward = Callable[..., tuple[Tensor | None, ...]]


def first_order(backward: Backward) -> Backward:
    """A ``Function.backward`` whose gradients cannot be differentiated again, and say so if they are.

    ``torch.autograd.function.once_differentiable`` lets those pass that depend on saved tensors alone: zeros, silently.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return found
        # What they depend on is given as well, so that whoever asks for a derivative by it comes by here.
        others = (*gradients, *(tensor for tensor in ctx.saved_tensors if tensor is not None))
        return tuple(None if one is None else _Refused.apply(one, *others) for one in found)

    return once


class _Refused(torch.autograd.Function):
    """What it is given; its own derivative is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *others: Tensor) -> Tensor:
        """A copy."""
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "expected first derivatives of a kernel or a fill alone, got a derivative of its gradient, for which there "
            "is no rule"
        )
