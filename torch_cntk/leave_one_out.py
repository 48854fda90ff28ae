"""What kernel regression would say of each observed entry without having seen it, in closed form.

With G = K_OO + ridge I and w = G^-1 y, the error at x of the regression on all other points is w(x) / (G^-1)(x, x)
(Wahba 1990, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["residuals"]


def residuals(kernel: Tensor, targets: Tensor, ridges: Sequence[float]) -> Iterator[Tensor]:
    """Leave-one-out errors for several ridges, of one eigendecomposition.

    Args:
        kernel: K_OO, [n, n] in float64.
        targets: [k, n].
        ridges: absolute, at least 0.

    Yields:
        [k, n] for each ridge: y less the prediction of y from the others.
    """
    values, vectors = torch.linalg.eigh(kernel)
    # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
    values = values.clamp_min(float(values[-1]) * len(values) * torch.finfo(values.dtype).eps)
    projected = targets @ vectors
    squared = vectors.square()
    for ridge in ridges:
        inverse = 1 / (values + ridge)
        yield (projected * inverse) @ vectors.T / (squared @ inverse)
