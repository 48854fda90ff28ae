"""Average pooling, blur and Lanczos downsampling: one rule, against the dense recursion and torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force
from torch_cntk.covariance import Filter

DOWN_AND_UP = {
    "average": (tc.AvgPool2d(2), tc.NearestUp(2)),
    "average by 3": (tc.AvgPool2d(3), tc.NearestUp(3)),
    "average, bilinear": (tc.AvgPool2d(2), tc.BilinearUp(2)),
    "Lanczos": (tc.LanczosDown(2), tc.NearestUp(2)),
    "Lanczos 3 by 3": (tc.LanczosDown(3, lobes=3), tc.NearestUp(3)),
    "blur": (tc.GaussianBlur(5, 1.2), tc.GaussianBlur(3, 0.7)),
    "blur, stride": (tc.GaussianBlur(5, 1.0), tc.Conv2d(1, 1, 3, stride=2)),
    "up, average": (tc.BilinearUp(2), tc.AvgPool2d(2)),
}


def net_of(down: Any, up: Any) -> Any:
    return tc.Sequential(
        tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.2), down, tc.Conv2d(1, 1, 3), tc.ReLU(), up,
        tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 1),
    )  # fmt: skip


def assert_equal(kernel: Any, expected: Any) -> None:
    # Rounding of a dozen layers in float64.
    assert (kernel - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("size", [(6, 6), (6, 12), (18, 12)])
@pytest.mark.parametrize("name", DOWN_AND_UP)
def test_kernel_of_independent_pixels_equals_the_recursion(name: Any, size: Any) -> None:
    net = net_of(*DOWN_AND_UP[name])
    for kind, expected in zip(
        ("nngp", "ntk"), brute_force.propagate(net, brute_force.independent_prior(size, 0.05, 1 / 300)), strict=True
    ):
        kernel = net.kernel(tc.priors.Uniform(0, 0.1), kind=kind)
        assert_equal(kernel.dense(tuple(expected.shape[:2])), expected)


@pytest.mark.parametrize("name", DOWN_AND_UP)
def test_kernel_of_given_features_equals_the_recursion(name: Any, generator: torch.Generator) -> None:
    net = net_of(*DOWN_AND_UP[name])
    z = torch.randn(3, 6, 12, generator=generator, dtype=torch.float64)
    _, expected = brute_force.propagate(net, brute_force.feature_prior(z))
    assert_equal(net.kernel(tc.priors.Tensor(z)).dense(), expected)


@pytest.mark.parametrize(
    ("conv", "pool", "size"), [(tc.Conv1d, tc.AvgPool1d, (12,)), (tc.Conv3d, tc.AvgPool3d, (4, 2, 6))]
)
def test_pooling_in_one_and_three_dimensions(conv: Any, pool: Any, size: Any, generator: torch.Generator) -> None:
    net = tc.Sequential(conv(1, 1, 3), tc.ReLU(), pool(2), conv(1, 1, 3), tc.ReLU(), tc.NearestUp(2), conv(1, 1, 1))
    z = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    _, expected = brute_force.propagate(net, brute_force.feature_prior(z))
    assert_equal(net.kernel(tc.priors.Tensor(z)).dense(), expected)


def test_pooling_forward_is_that_of_torch(generator: torch.Generator) -> None:
    images = torch.randn(2, 3, 6, 12, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(tc.AvgPool2d(3)(images), torch.nn.functional.avg_pool2d(images, 3))


@pytest.mark.parametrize(
    ("layer", "matrix"),
    [
        (tc.GaussianBlur(5, 1.3), lambda n: brute_force.gaussian_matrix(n, 5, 1.3)),
        (tc.LanczosDown(2), lambda n: brute_force.lanczos_matrix(n, 2, 2)),
        (tc.LanczosDown(3, lobes=3), lambda n: brute_force.lanczos_matrix(n, 3, 3)),
    ],
)
def test_filters_forward(layer: Any, matrix: Any, generator: torch.Generator) -> None:
    images = torch.randn(2, 3, 6, 12, generator=generator, dtype=torch.float64)
    expected = matrix(6) @ images @ matrix(12).T
    torch.testing.assert_close(layer(images), expected, rtol=1e-12, atol=1e-12)


def test_filters_keep_constant_images() -> None:
    image = torch.full((1, 1, 12, 12), 0.3, dtype=torch.float64)
    for layer in (tc.AvgPool2d(4), tc.GaussianBlur(7, 2.0), tc.LanczosDown(2), tc.LanczosDown(3)):
        torch.testing.assert_close(layer(image), torch.full_like(layer(image), 0.3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tc.AvgPool2d(0), ValueError, "kernel_size to be at least 1"),
        (lambda: tc.AvgPool2d(1.5), TypeError, "kernel_size to be an integer"),  # type: ignore[arg-type]
        (lambda: tc.GaussianBlur(4, 1.0), ValueError, "odd kernel_size"),
        (lambda: tc.GaussianBlur(3, 0.0), ValueError, "sigma > 0"),
        (lambda: tc.LanczosDown(2, lobes=0), ValueError, "lobes to be at least 1"),
        (lambda: Filter((0.25, 0.75)), ValueError, "symmetric"),
        (lambda: Filter((0.5, 0.5), 1), ValueError, "odd number of weights"),
    ],
)
def test_bad_options_are_refused(make: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        make()


def test_pixels_that_fill_no_block_are_left_out() -> None:
    assert tc.AvgPool2d(2)(torch.zeros(1, 1, 4, 5)).shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match="multiple of 2 pixels, got 5"):
        tc.LanczosDown(2)(torch.zeros(1, 1, 4, 5))
