"""Images drawn from a kernel's Gaussian process: the root that is applied to noise, against roots of dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers.regressions import random_operator
from torch_cntk.operators import DenseOperator, Operator, draws
from torch_cntk.operators.draws import drawing

# Float64: sums of some hundred products of numbers up to 1.
CLOSE = 1e-11


def kernel(ndim: int, levels: int = 2) -> tc.Kernel:
    return tc.default_network(levels, ndim=ndim, width=4).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)


def matrix_of(operator: Operator) -> Tensor:
    pixels = math.prod(operator.size)
    eye = torch.eye(pixels, dtype=torch.float64).reshape(pixels, *operator.size)
    return operator.multiply(eye).reshape(pixels, pixels)


def covariance_of(operator: Operator) -> Tensor:
    """R R^T, for a way to draw that is linear in the noise."""
    pixels = math.prod(operator.size)
    eye = torch.eye(pixels, dtype=torch.float64).reshape(pixels, *operator.size)
    root = drawing(operator).root(eye)[0].reshape(pixels, pixels)
    return root.T @ root


def windowed(size: tuple[int, ...]) -> Operator:
    seen = tc.priors.Tensor(torch.rand(2, *size, dtype=torch.float64), weight=2.0)
    prior = tc.priors.White(0.5) + tc.priors.Coordinates(length=2, weight=0.2) + seen
    return tc.guided_network(len(size)).kernel(prior, size, radius=3, dtype=torch.float64).operator()


@pytest.mark.parametrize(("ndim", "size"), [(1, (20,)), (2, (12, 20)), (3, (4, 4, 8))])
def test_a_period_makes_blocks_whose_roots_are_exact(ndim: int, size: tuple[int, ...]) -> None:
    operator = kernel(ndim, 1 if ndim == 3 else 2).operator(size)
    assert operator.period is not None
    assert operator.period != size
    found, wanted = covariance_of(operator), matrix_of(operator)
    assert float((found - wanted).abs().max()) <= CLOSE * float(wanted.abs().max())
    assert drawing(operator).text == "exact"


def test_a_matrix_has_one_root(generator: torch.Generator) -> None:
    operator = random_operator((5, 6), 1e6, generator)
    assert float((covariance_of(operator) - matrix_of(operator)).abs().max()) <= CLOSE


def test_a_singular_matrix_is_no_obstacle(generator: torch.Generator) -> None:
    vectors = torch.randn(24, 7, generator=generator, dtype=torch.float64)
    matrix = vectors @ vectors.T
    operator = DenseOperator(matrix.reshape(4, 6, 4, 6))
    assert float((covariance_of(operator) - matrix).abs().max()) <= CLOSE * float(matrix.abs().max())


def dense_root(operator: Operator) -> Tensor:
    """S^(1/2) A^(1/2) by eigenvectors of the whole, with the same S as the iteration."""
    outer, inner = draws._scaling(operator)
    pixels = math.prod(operator.size)
    eye = torch.eye(pixels, dtype=torch.float64).reshape(pixels, *operator.size)
    left, right = (way(eye).reshape(pixels, pixels) for way in (outer, inner))
    values, vectors = torch.linalg.eigh(right.T @ matrix_of(operator) @ right)
    return left.T @ (vectors * values.clamp_min(0).sqrt()) @ vectors.T


@pytest.mark.parametrize("which", ["periodic", "windowed", "matrix"])
def test_lanczos_gives_the_root_of_the_whole(
    which: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draws, "_BLOCKS", 0)
    monkeypatch.setattr(draws, "_MATRIX", 0)
    monkeypatch.setattr(draws, "_BYTES", 1 << 20)  # several parts
    if which == "periodic":
        operator = kernel(2).operator((16, 20))
    else:
        operator = windowed((12, 14)) if which == "windowed" else random_operator((8, 9), 1e3, generator)
    noise = torch.randn(7, *operator.size, generator=generator, dtype=torch.float64)
    products: list[int] = []
    way = drawing(operator, lambda: products.append(1))
    assert way.text == "by Lanczos' iteration"
    found, error = way.root(noise)
    assert products  # bars are told of each step
    root = dense_root(operator)
    wanted = (noise.flatten(1) @ root.T).reshape(noise.shape)
    # A root whose square is the kernel.
    kernel_matrix = matrix_of(operator)
    assert float((root @ root.T - kernel_matrix).abs().max()) <= 1e-9 * float(kernel_matrix.abs().max())
    # What is left is of the order of the last change, which the iteration tells.
    assert error <= draws._TOLERANCE
    assert float((found - wanted).norm() / wanted.norm()) <= 10 * draws._TOLERANCE


def test_a_period_that_pays_no_longer_gives_way_to_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = kernel(2).operator((16, 16))
    assert drawing(operator).text == "exact"
    monkeypatch.setattr(draws, "_BLOCKS", 16**2 * 256 - 1)
    assert drawing(operator).text == "by Lanczos' iteration"


def test_sums_and_multiples_are_drawn_as_well(generator: torch.Generator) -> None:
    first, second = random_operator((4, 5), 10, generator), random_operator((4, 5), 100, generator)
    operator = first + 2.0 * second
    wanted = matrix_of(first) + 2 * matrix_of(second)
    assert float((covariance_of(operator) - wanted).abs().max()) <= CLOSE
