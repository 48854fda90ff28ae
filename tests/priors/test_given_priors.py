"""The paper's priors that are not independent pixels: identity, meshgrid, any function of the displacement."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force

NET = tc.Sequential(
    tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2),
    tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.Conv2d(1, 1, 1),
)  # fmt: skip


def bump(*u: Any) -> Any:
    """Positive definite on tori much larger than its length."""
    return 0.1 + sum(torch.exp(-((x / 0.8) ** 2)) for x in u)


def white(*u: Any) -> Any:
    return 0.0025 + (1 / 300 - 0.0025) * (sum(x.abs() for x in u) == 0).double()


def stationary_covariance(psi: Any, size: Any) -> Any:
    """[*size, *size], one pair of pixels after the other."""
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, len(size))
    displacement = [(pixels[None, :, k] - pixels[:, None, k]) % n for k, n in enumerate(size)]
    wrapped = [torch.where(u > n // 2, u - n, u).double() for u, n in zip(displacement, size, strict=True)]
    return psi(*wrapped).double().expand(len(pixels), -1).reshape(*size, *size)


def assert_equal(kernel: Any, expected: Any) -> None:
    # Rounding of a dozen layers in float64.
    assert (kernel - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
@pytest.mark.parametrize(
    ("prior", "features"),
    [
        (tc.priors.Identity(), lambda h, w: torch.eye(h, w)[None]),
        (
            tc.priors.Meshgrid(),
            lambda h, w: torch.stack(
                [
                    torch.tensor([[j / (w - 1) for j in range(w)] for _ in range(h)], dtype=torch.float64),
                    torch.tensor([[i / (h - 1)] * w for i in range(h)], dtype=torch.float64),
                ]
            ),
        ),
    ],
)
def test_kernel_and_sample_of_a_given_prior(prior: Any, features: Any, size: Any) -> None:
    z = features(*size).double()
    torch.testing.assert_close(prior.sample(len(z), size, dtype=torch.float64), z)
    _, expected = brute_force.propagate(NET, brute_force.feature_prior(z))
    kernel = NET.kernel(prior, size)
    assert kernel.period == kernel.size == size
    assert_equal(kernel.dense(), expected)


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_stationary_kernel_equals_the_recursion_and_has_the_net_s_period(size: Any) -> None:
    kernel = NET.kernel(tc.priors.Stationary(bump), size)
    _, expected = brute_force.propagate(NET, stationary_covariance(bump, size))
    assert kernel.period == (2, 2)
    assert_equal(kernel.dense(), expected)


def test_stationary_operator_equals_the_matrix(generator: torch.Generator) -> None:
    kernel = NET.kernel(tc.priors.Stationary(bump), (8, 12))
    weights = torch.randn(2, 3, 8, 12, generator=generator, dtype=torch.float64)
    expected = torch.tensordot(weights, kernel.dense(), dims=2)
    torch.testing.assert_close(kernel.operator() @ weights, expected, rtol=1e-12, atol=1e-11)


def test_stationary_prior_in_one_dimension() -> None:
    net = tc.Sequential(tc.StridedConv1d(1, 1, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv1d(1, 1, 3))
    _, expected = brute_force.propagate(net, stationary_covariance(bump, (12,)))
    assert_equal(net.kernel(tc.priors.Stationary(bump), (12,)).dense(), expected)


def test_independent_pixels_are_a_stationary_prior_of_radius_zero() -> None:
    kernel = NET.kernel(tc.priors.Stationary(white, radius=0))
    expected = NET.kernel(tc.priors.Uniform(0, 0.1))
    assert (kernel.period, kernel.radius, kernel.size) == (expected.period, expected.radius, None)
    assert_equal(kernel.dense((8, 8)), expected.dense((8, 8)))


def test_stationary_sample_has_its_covariance(generator: torch.Generator) -> None:
    channels, size = 20000, (4, 6)
    sample = tc.priors.Stationary(bump).sample(channels, size, generator=generator, dtype=torch.float64)
    covariance = stationary_covariance(bump, size)
    # Standard error of a mean of products of Gaussians: sqrt(2 / channels) of the variance; five of them.
    assert (brute_force.feature_prior(sample) - covariance).abs().max() <= 5 * (2 / channels) ** 0.5 * covariance.max()


@pytest.mark.parametrize(
    ("psi", "message"),
    [
        (lambda u, v: u + 0 * v, "symmetric"),
        (lambda u, v: -torch.exp(-(u**2) - v**2), "positive semi-definite"),
        (lambda u, v: u * v * float("nan"), "finite"),
    ],
)
def test_function_that_is_no_covariance_is_refused(psi: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        NET.kernel(tc.priors.Stationary(psi), (8, 8))


def test_priors_without_a_size_ask_for_it() -> None:
    for prior in (tc.priors.Identity(), tc.priors.Meshgrid(), tc.priors.Stationary(bump)):
        with pytest.raises(ValueError, match="belongs to one image size: expected size"):
            NET.kernel(prior)
        with pytest.raises(ValueError, match="expected size"):
            prior.sample(1)


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected the 2 channels of Meshgrid\(\), got 3"):
        tc.priors.Meshgrid().sample(3, (4, 4))


def test_descriptions_come_back() -> None:
    for prior in (tc.priors.Identity(), tc.priors.Meshgrid()):
        description = prior.description()
        assert description is not None
        assert repr(tc.priors.from_description(description)) == repr(prior)


def test_bad_options_are_refused() -> None:
    with pytest.raises(TypeError, match="psi as a function"):
        tc.priors.Stationary(0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="radius to be at least 0"):
        tc.priors.Stationary(bump, radius=-1)
