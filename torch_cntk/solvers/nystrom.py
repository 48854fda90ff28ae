"""A preconditioner that many masks of one K share: a low-rank part of K, and the rest as a multiple of the identity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk.solvers.base import Regression
from torch_cntk.solvers.preconditioner import Map, Preconditioner

__all__ = ["Nystrom"]

_RANK = 150
"""Of the part of K that is inverted: the cost of a mask grows with its square, and is that of some iterations here."""
_SHARE_OF_SMALL = 4
"""Of few pixels, one part in so many."""


class Nystrom(Preconditioner):
    """The inverse, on each mask, of a low-rank part of K plus a multiple of the identity; for many masks of one K.

    K is near F F^T, of a random sketch of the whole of K that all masks share (Frangella, Tropp & Udell 2023, algorithm
    2.1). On a mask M, (M F F^T M + c)^-1 = (1 - M F (c + F^T M F)^-1 F^T M) / c, where c is the ridge and the smallest
    eigenvalue of F F^T. A mask costs n r^2 multiplications once, for n pixels and rank r, and an iteration 2 n r.

    Args:
        regression: the equations.
        rank: r, at most the number of pixels.
    """

    def __init__(self, regression: Regression, rank: int = _RANK) -> None:
        operator = regression.operator
        pixels = math.prod(operator.size)
        rank = min(rank, max(pixels // _SHARE_OF_SMALL, 1))
        generator = torch.Generator().manual_seed(0)
        draw = torch.randn(pixels, rank, generator=generator, dtype=torch.float64).to(operator.device)
        basis = torch.linalg.qr(draw).Q
        sketch = operator.multiply(basis.T.reshape(rank, *operator.size).contiguous()).reshape(rank, pixels).T
        # What keeps the core positive definite, for all the rounding of the products; it is taken off at the end.
        shift = math.sqrt(pixels) * torch.finfo(operator.dtype).eps * float(torch.linalg.matrix_norm(sketch, 2))
        sketch = sketch + shift * basis
        core, failed = torch.linalg.cholesky_ex((basis.T @ sketch + sketch.T @ basis) / 2)
        if shift == 0 or int(failed):
            vectors, values = basis, torch.zeros(rank, dtype=torch.float64, device=operator.device)
        else:
            half = torch.linalg.solve_triangular(core, sketch.T, upper=False).T
            vectors, singular, _ = torch.linalg.svd(half, full_matrices=False)
            values = (singular.square() - shift).clamp_min(0)
        # Without a ridge c needs a floor: eigenvalues below it are rounding.
        least = torch.finfo(operator.dtype).eps * float(values[0])
        self._rest = max(regression.ridge + float(values[-1]), least) or 1.0
        self._factor, self._dtype = vectors * values.sqrt(), operator.dtype

    def restricted(self, mask: Tensor) -> Map:
        """Divide by the low-rank part and by the rest."""
        factor = self._factor.to(self._dtype)
        cores = torch.empty(len(mask), *2 * self._factor.shape[1:], dtype=torch.float64, device=mask.device)
        for core, seen in zip(cores, mask.flatten(1) > 0, strict=True):
            inner = self._factor[seen]
            core.copy_(torch.linalg.cholesky(inner.T @ inner + self._rest * torch.eye(len(core)).to(inner)))

        def divide(residual: Tensor) -> Tensor:
            flat = residual.flatten(1)
            inside = torch.cholesky_solve((flat @ factor).double()[..., None], cores)[..., 0].to(self._dtype)
            rest: Tensor = (flat - inside @ factor.T).reshape(residual.shape)
            return rest.mul_(mask).div_(self._rest)

        return divide
