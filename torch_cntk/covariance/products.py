"""The rule of a product of independent features, for numbers in any form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["product_of"]


def product_of(parts: Sequence[Tensor]) -> Tensor:
    """Sigma and Theta of a product of independent features; nothing is overwritten.

    Args:
        parts: those of each factor, [2, ...], or [1, ...] of Sigma alone, where Theta is 0 or not wanted.

    Returns:
        Sigma = the product, Theta = the sum over factors of its Theta times the Sigma of all others; [1, ...] if all
        factors are.
    """
    sigma, theta = parts[0][0], parts[0][1] if len(parts[0]) > 1 else None
    for part in parts[1:]:
        terms = [theta * part[0]] if theta is not None else []
        if len(part) > 1:
            terms.append(sigma * part[1])
        theta = sum(terms[1:], terms[0]) if terms else None
        sigma = sigma * part[0]
    return sigma[None] if theta is None else torch.stack([sigma, theta])
