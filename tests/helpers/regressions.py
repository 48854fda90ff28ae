"""Operators, masks and equations for tests of solvers, with answers by dense matrices."""

from __future__ import annotations

import math
from typing import Any

import torch

import torch_cntk as tc
from torch_cntk.operators import DenseOperator


def random_operator(size: tuple[int, ...], condition: float, generator: torch.Generator) -> DenseOperator:
    """A positive definite matrix of random eigenvectors; eigenvalues from 1 down to 1 / condition."""
    pixels = math.prod(size)
    vectors = torch.linalg.qr(torch.randn(pixels, pixels, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -math.log10(condition), pixels, dtype=torch.float64)
    matrix = (vectors * values) @ vectors.T
    matrix = ((matrix + matrix.T) / 2).reshape(*size, *size)
    return DenseOperator(matrix, stationary_average(matrix))


def stationary_average(matrix: torch.Tensor) -> torch.Tensor:
    size = matrix.shape[: matrix.ndim // 2]
    axes = tuple(range(len(size)))
    rows = []
    for flat in range(math.prod(size)):
        position = [int(x) for x in torch.unravel_index(torch.tensor(flat), size)]
        rows.append(matrix[tuple(position)].roll([-x for x in position], axes))
    return torch.stack(rows).mean(0)


def problem(
    size: tuple[int, ...], batch: tuple[int, ...], generator: torch.Generator, share: float = 0.6
) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask and targets that are zero where it is."""
    observed = torch.rand(size, generator=generator) < share
    observed.view(-1)[0] = True
    targets = torch.randn(*batch, *size, generator=generator, dtype=torch.float64) * observed
    return observed, targets


def matrix_of(operator: Any, size: tuple[int, ...]) -> torch.Tensor:
    pixels = math.prod(size)
    return operator.multiply(torch.eye(pixels, dtype=torch.float64).reshape(pixels, *size))


def direct(matrix: torch.Tensor, observed: torch.Tensor, targets: torch.Tensor, ridge: float) -> torch.Tensor:
    """The weights, by factorising the observed block; ridge relative to the mean of the whole diagonal."""
    pixels = observed.numel()
    flat, known = matrix.reshape(pixels, pixels), observed.reshape(-1)
    block = flat[known][:, known] + ridge * flat.diagonal().mean() * torch.eye(int(known.sum()), dtype=torch.float64)
    weights = torch.zeros(targets.numel() // pixels, pixels, dtype=torch.float64)
    weights[:, known] = torch.linalg.solve(block, targets.reshape(-1, pixels)[:, known].T).T
    return weights.reshape(targets.shape)


def residual_of(
    matrix: torch.Tensor, observed: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, ridge: float
) -> torch.Tensor:
    """|y - (K_OO + ridge) w| / |y|, with the matrix."""
    pixels = observed.numel()
    flat = matrix.reshape(pixels, pixels)
    w, y = (values.double().reshape(-1, pixels) for values in (weights, targets))
    left = (w @ flat.T + ridge * flat.diagonal().mean() * w) * observed.reshape(-1)
    return ((y - left).norm(dim=1) / y.norm(dim=1)).reshape(targets.shape[: targets.ndim - observed.ndim])


def singular_kernel(up: int = 2) -> tc.Kernel:
    """Nothing but a convolution after the last upsampling: fewer degrees of freedom than pixels."""
    net = tc.Sequential(
        tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(up), tc.Conv2d(1, 1, 3)
    )
    return net.kernel(tc.priors.Uniform())


def deep(levels: int, last: tc.Layer | None = None) -> tc.Sequential:
    layers: list[tc.Layer] = []
    for _ in range(levels):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    for _ in range(levels):
        layers += [tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    return tc.Sequential(*layers, *([] if last is None else [last]))


def masks(size: tuple[int, int], generator: torch.Generator) -> dict[str, torch.Tensor]:
    small, large = (torch.ones(size, dtype=torch.bool) for _ in range(2))
    small[20:26, 30:36] = False
    large[10:40, 16:48] = False
    random = torch.rand(size, generator=generator)
    return {"none": small | True, "small": small, "large": large, "half": random < 0.5, "tenth": random < 0.1}
