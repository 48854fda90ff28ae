"""What all pixels have in common under a kernel, kept apart from the rest when an inverse is applied."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk.operators.layout import Layout, Whole
from torch_cntk.solvers.batches import dot, spread
from torch_cntk.solvers.preconditioner import Map

__all__ = ["Common", "sums"]

_NEXT_TO_NOTHING = 1e-2
"""Share of a constant that the inverse leaves of it, from which on it is told apart from 0."""


class Common:
    """The inverse M of N_OO made one of N_OO + f 1 1^T: with u = M 1, subtract u u^T / (1 / f + 1^T u).

    Of a constant this leaves next to nothing, u / (1 + f 1^T u), the difference of numbers that are nearly equal. So
    the mean is taken off first, and what becomes of it is added as it is.

    Args:
        inverse: M, of images [n, *size] that are zero at unobserved pixels.
        mask: [n or 1, *size].
        common: f, at least 0.
        layout: how images are held.
    """

    def __init__(self, inverse: Map, mask: Tensor, common: float, layout: Layout | None = None) -> None:
        self._inverse, self._mask = inverse, mask
        self._layout = layout or Whole()
        self._along = inverse(mask)
        # 1 / f is infinite where nothing is in common, and nothing is subtracted.
        rest = 1 / common if common > 0 else math.inf
        self._total = self._sums(self._along)
        total = self._total + rest
        self._count = self._sums(mask)
        self._kept = rest / total if common > 0 else torch.ones_like(total)
        self._taken = 1 / total
        self._dominates = bool((self._kept <= _NEXT_TO_NOTHING).all())

    def __call__(self, residual: Tensor) -> Tensor:
        """The inverse, of residuals [n, *size]."""
        mean = self._sums(residual) / self._count
        level = residual.addcmul(spread(mean, residual), self._mask, value=-1)
        divided = self._inverse(level)
        along = mean * self._kept - self._dot(self._along, level) * self._taken
        return divided.addcmul_(spread(along, divided), self._along)

    def settle(self, weights: Tensor, residual: Tensor) -> Tensor:
        """Give weights, found by iteration for a residual, the sum that is right.

        The iteration converges in a norm that hardly feels an error of the sum, as the constant's eigenvalue is so
        large; the outer residual feels it as many times more, and its rounding with it. What is right is known well
        enough where next to nothing of the constant is left.
        """
        if not self._dominates:
            return weights
        along, sum_ = self._layout.total(torch.stack((dot(self._along, residual), sums(weights))))
        return weights.addcmul_(spread((along * self._kept - sum_) / self._total, weights), self._along)

    def _sums(self, images: Tensor) -> Tensor:
        return self._layout.total(sums(images))

    def _dot(self, first: Tensor, second: Tensor) -> Tensor:
        return self._layout.total(dot(first, second))


def sums(images: Tensor) -> Tensor:
    """Sum of each image, [n] in float64."""
    return images.flatten(1).sum(1, dtype=torch.float64)
