"""Gradients of a fill: it is linear in the observed pixels, so that they take one more solve of the same equations.

With A = K_OO + r mean(diag K), the filled pixels are f = K_UO w + m for w = A^-1 (y - m) and m the mean of y. Given
the gradient g of a loss by f, one solve l = A^-1 K_OU g gives that by the observed pixels, l + (sum g - sum l) / |O|,
by the ridge, -mean(diag K) l^T w, and by the kernel, that of the number (g - l)^T K w - r mean(diag K) l^T w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.derivatives import first_order
from torch_cntk.covariance import Table
from torch_cntk.images.canvas import crop, extend
from torch_cntk.images.observed import Observed
from torch_cntk.images.regression import Filled
from torch_cntk.kernels.kernel import Kernel

__all__ = ["Inputs", "with_gradients"]

_ENTRIES = 1 << 20
"""Of the kernel that are looked up at a time: some ten numbers are held for each."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a fill may have gradients by.

    Attributes:
        image: as the user gave it.
        ridge: relative to the mean of K's diagonal.
        kernel: None for one without gradients.
    """

    image: Tensor
    ridge: float | Tensor | str
    kernel: Kernel | None

    @classmethod
    def of(cls, image: object, ridge: float | Tensor | str, kernel: Kernel | None) -> Inputs | None:
        """None where no gradients are asked for.

        Raises:
            ValueError: the ridge or the kernel has gradients, but the image is no tensor, which the result would be.
        """
        if not torch.is_grad_enabled():
            return None
        by_kernel = kernel is not None and kernel.requires_grad
        by_ridge = isinstance(ridge, Tensor) and ridge.requires_grad
        if not isinstance(image, Tensor):
            if by_kernel or by_ridge:
                raise ValueError(
                    f"expected a torch tensor as image, for gradients by the kernel or the ridge, got "
                    f"{type(image).__name__}"
                )
            return None
        if not (image.requires_grad or by_ridge or by_kernel):
            return None
        return cls(image, ridge, kernel if by_kernel else None)


@dataclass(frozen=True, eq=False)
class _Part:
    """Channels that have one mask, and how they were filled."""

    channels: list[int]
    given: Observed
    filled: Filled

    def adjoint(self, gradient: Tensor) -> tuple[Tensor, Tensor] | None:
        """G and l of the canvas, given the gradient by the filled image, [batch, channels, *size]; None if complete."""
        kept = self.filled.kept
        if kept is None:
            return None
        operator = kept.regression.operator
        of_filled = extend(torch.where(self.given.mask[:, None], 0, gradient), operator.size)
        known = kept.regression.observed
        targets = torch.where(known, operator.multiply(of_filled.to(operator.dtype)), 0)
        return of_filled, kept.factorisation.solve(targets).weights.double()

    def of_pixels(self, gradient: Tensor, adjoint: tuple[Tensor, Tensor] | None) -> Tensor:
        """The gradient by the observed pixels, 0 at others."""
        if adjoint is None:
            return gradient
        around, known = tuple(range(2, gradient.ndim)), self.given.mask[:, None]
        of_filled, solved = adjoint
        shared = (of_filled - solved).sum(around, keepdim=True) / known.sum(around, keepdim=True)
        return torch.where(known, gradient + crop(solved, self.given.size) + shared, 0)

    @property
    def weights(self) -> Tensor:
        """W of the canvas, in the user's units."""
        return self.filled.solution.weights.double() * self.given.scale


def with_gradients(
    inputs: Inputs, filled: Tensor, parts: list[tuple[list[int], Observed]], fills: list[Filled]
) -> Tensor:
    """A filled image as a function of what it was made from.

    Args:
        inputs: the image, the ridge and the kernel.
        filled: of the image's shape.
        parts: the channels that have one mask, each.
        fills: of the parts, which keep what solved them.
    """
    all_parts = [_Part(channels, given, fill) for (channels, given), fill in zip(parts, fills, strict=True)]
    kept = next((part.filled.kept for part in all_parts if part.filled.kept is not None), None)
    kernel = None if inputs.kernel is None or kept is None else inputs.kernel.on(kept.regression.operator.size)
    tables = [] if kernel is None else [table.values for table in kernel.storage.tables.values()]
    ridge = inputs.ridge if isinstance(inputs.ridge, Tensor) else None
    result: Tensor = _Fill.apply(filled, all_parts, kernel, inputs.image, ridge, *tables)
    return result


class _Fill(torch.autograd.Function):
    """A fill as one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        filled: Tensor,
        parts: list[_Part],
        kernel: Kernel | None,
        image: Tensor,
        ridge: Tensor | None,
        *tables: Tensor,
    ) -> Tensor:
        """The image as it was filled."""
        ctx.parts, ctx.kernel = parts, kernel
        ctx.save_for_backward(image, ridge, *tables)
        return filled.clone()

    @staticmethod
    @first_order
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """By one solve for each part."""
        parts, kernel = ctx.parts, ctx.kernel
        image, ridge = ctx.saved_tensors[:2]
        ndim = parts[0].given.ndim
        gradient = gradients[0].double()
        whole = gradient.reshape(*(1,) * (ndim + 2 - gradient.ndim), *gradient.shape)
        of_pixels, of_ridge = torch.zeros_like(whole), gradient.new_zeros(())
        of_tables: list[Tensor] | None = None
        for part in parts:
            mine = whole[:, part.channels]
            adjoint = part.adjoint(mine)
            of_pixels[:, part.channels] = part.of_pixels(mine, adjoint)
            if adjoint is None:
                continue
            common = (adjoint[1] * part.weights).sum()
            of_ridge -= part.filled.kept.regression.operator.mean_diagonal * common
            if kernel is not None:
                found = _of_tables(kernel, part, adjoint, float(common) * part.filled.ridge)
                of_tables = found if of_tables is None else [a + b for a, b in zip(of_tables, found, strict=True)]
        by_image = of_pixels.reshape(image.shape).to(image.dtype) if image.requires_grad else None
        by_ridge = None if ridge is None else of_ridge.to(ridge).reshape(ridge.shape)
        return (None, None, None, by_image, by_ridge, *(of_tables or []))


def _of_tables(kernel: Kernel, part: _Part, adjoint: tuple[Tensor, Tensor], common: float) -> list[Tensor]:
    """Gradients by a kernel's tables: of (g - l)^T K w, and of the mean of the diagonal by way of the ridge."""
    size = part.filled.solution.weights.shape[2:]
    of_filled, solved = adjoint
    first, second = ((of_filled - solved).flatten(2).flatten(0, 1), part.weights.flatten(2).flatten(0, 1))
    rows, columns = (values.any(0).nonzero()[:, 0] for values in (first, second))
    tables = {
        name: Table(table.values.detach().requires_grad_(), table.geometry)
        for name, table in kernel.storage.tables.items()
    }
    leaves = [table.values for table in tables.values()]
    storage = kernel.storage.with_tables(tables)
    others = list(torch.unravel_index(columns, tuple(size)))
    with torch.enable_grad():
        diagonal = storage.stationary(tuple(size))[(0,) * len(size)]
        total = list(torch.autograd.grad(-common * diagonal, leaves, allow_unused=True, materialize_grads=True))
        for some in torch.split(rows, max(_ENTRIES // max(len(columns), 1), 1)):
            ones = [axis[:, None] for axis in torch.unravel_index(some, tuple(size))]
            entries = storage.entries(ones, others, tuple(size)).double()
            form = (first[:, some].T @ second[:, columns] * entries).sum()
            found = torch.autograd.grad(form, leaves, allow_unused=True, materialize_grads=True)
            total = [a + b for a, b in zip(total, found, strict=True)]
    return total
