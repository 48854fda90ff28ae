"""What kernel regression would say of each observed entry without having seen it, in closed form.

With G = K_OO + ridge I and w = G^-1 y, the error at x of the regression on all other points is w(x) / (G^-1)(x, x)
(Wahba 1990, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torch_cntk.solvers.shared_inverse import restricted_inverse

__all__ = ["masked_residuals", "residuals"]


def residuals(kernel: Tensor, targets: Tensor, ridges: Sequence[float]) -> Iterator[Tensor]:
    """Leave-one-out errors for several ridges, of one eigendecomposition.

    Args:
        kernel: K_OO, [n, n] in float64.
        targets: [k, n].
        ridges: absolute, at least 0.

    Yields:
        [k, n] for each ridge: y less the prediction of y from the others.
    """
    values, vectors = _eigensystem(kernel)
    projected = targets @ vectors
    squared = vectors.square()
    for ridge in ridges:
        inverse = 1 / (values + ridge)
        yield (projected * inverse) @ vectors.T / (squared @ inverse)


def masked_residuals(kernel: Tensor, masks: Tensor, targets: Tensor, ridges: Sequence[float]) -> Iterator[Tensor]:
    """The same where each right-hand side has a mask of its own, of one eigendecomposition of the whole.

    Args:
        kernel: K, [n, n] in float64.
        masks: boolean [k, n].
        targets: [k, n], zero where not observed.
        ridges: absolute, above the rounding of K's eigenvalues.

    Yields:
        [k, n] for each ridge; zero where not observed.
    """
    values, vectors = _eigensystem(kernel)
    for ridge in ridges:
        inverse = (vectors / (values + ridge)) @ vectors.T
        weights, diagonals = restricted_inverse(inverse, masks, targets, diagonal=True)
        assert diagonals is not None
        yield torch.where(masks, weights / diagonals, 0)


def _eigensystem(kernel: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(kernel)
    # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
    return values.clamp_min(float(values[-1]) * len(values) * torch.finfo(values.dtype).eps), vectors
