"""How well a kernel explains targets: differentiable, whatever the scale of the kernel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Objective", "score"]

Objective = Literal["left-out", "likelihood", "error"]


def score(kernel: Tensor, targets: Tensor, ridge: Tensor | float, objective: Objective) -> Tensor:
    """The objective for each point, [].

    With G = K + ridge mean(diag K) and w = G^-1 y, the prediction of y_i from all others is off by e_i = w_i / P_ii and
    has the variance s / P_ii, P = G^-1 (Rasmussen & Williams 2006, section 5.4.2). The kernel's scale s takes the
    value that makes the objective largest, for each target by itself.

    Args:
        kernel: K, [n, n] in float64.
        targets: [k, n], centred, none of them 0 everywhere.
        ridge: relative to the mean of K's diagonal.
        objective: "left-out", the mean of the log probabilities of each target given all others; "likelihood", that of
            all targets together; "error", minus half of the logarithm of the mean of e_i^2.

    Returns:
        [], NaN if G is not positive definite in float64.
    """
    count = kernel.shape[0]
    equations = kernel + ridge * kernel.diagonal().mean() * torch.eye(count, dtype=kernel.dtype, device=kernel.device)
    factor, info = torch.linalg.cholesky_ex(equations)
    if int(info):
        return equations.sum() * torch.nan
    if objective == "likelihood":
        weights = torch.cholesky_solve(targets.T, factor).T
        quadratic = (targets * weights).sum(1) / count
        result: Tensor = -(quadratic.log().mean() / 2 + factor.diagonal().log().sum() / count)
        return result
    inverse = torch.cholesky_inverse(factor)
    weights, precision = targets @ inverse, inverse.diagonal()
    if objective == "error":
        return -(weights / precision).square().mean(1).log().mean() / 2
    return -((weights.square() / precision).mean(1).log().mean() - precision.log().mean()) / 2
