"""How large the steps of gradient descent may be."""

from __future__ import annotations

from typing import Any

import torch

from torch_cntk._internal.checks import finite_number
from torch_cntk.regression.gram import as_inputs

__all__ = ["checked_momentum", "max_learning_rate"]


def max_learning_rate(kernel: Any, y_size: int | None = None, momentum: float = 0.0) -> float:
    """The learning rate beyond which gradient descent on the squared error diverges: 2 (1 + momentum) size / largest.

    The loss is (f - y)^2 / 2 on average over all targets of all inputs; see ``LinearisedTraining.largest_rate`` for
    their sum. With momentum see Goh 2017, "Why momentum really works".

    Args:
        kernel: [n, n] between the training inputs, "ntk" if all layers are trained: of ``net.gram`` or
            ``empirical_ntk``.
        y_size: number of targets, n times outputs; n by default.
        momentum: of gradient descent, in [0, 1).

    Returns:
        the rate.

    Raises:
        TypeError: a number is none.
        ValueError: the kernel is not square or has no positive eigenvalue, or a number is out of range.
    """
    matrix = as_inputs(kernel, None, name="the kernel").double()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"expected a kernel [n, n], got shape {tuple(matrix.shape)}")
    size = len(matrix) if y_size is None else finite_number(y_size, "y_size", minimum=1)
    largest = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])
    if largest <= 0:
        raise ValueError(f"expected a kernel with a positive eigenvalue, got {largest:g} as the largest")
    return 2 * (1 + checked_momentum(momentum)) * size / largest


def checked_momentum(momentum: object) -> float:
    """A momentum in [0, 1).

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range.
    """
    value = finite_number(momentum, "momentum", minimum=0)
    if value >= 1:
        raise ValueError(f"expected momentum below 1, got {value:g}")
    return value
