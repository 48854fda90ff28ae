"""Priors that add up: what is drawn has the sum of the covariances."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.brute_force import feature_prior

CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}


def sigma_0(prior: Any, size: Any) -> Any:
    """The covariance as a kernel shows it: a 1x1 convolution leaves it as it is."""
    return CONV[len(size)](1, 1, 1).kernel(prior, size, kind="nngp").dense(size)


def gaussian(size: Any, length: Any) -> Any:
    """exp(-|u|^2 / (2 length^2)), summed over the copies of the image and 1 at u = 0."""
    copies = torch.arange(-150, 151, dtype=torch.float64)
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, len(size))
    values = torch.ones(len(pixels), len(pixels), dtype=torch.float64)
    for axis, n in enumerate(size):
        u = (pixels[None, :, axis] - pixels[:, None, axis]).double()
        total = torch.exp(-((u[..., None] + n * copies) ** 2) / (2 * length**2)).sum(-1)
        values *= total / total[0, 0]
    return values.reshape(*size, *size)


@pytest.mark.parametrize("size", [(9,), (7, 7), (5, 8), (3, 2, 4)])
@pytest.mark.parametrize("length", [0.5, 2.0, 30.0])
def test_coordinates_have_a_gaussian_covariance(size: Any, length: Any) -> None:
    torch.testing.assert_close(sigma_0(tc.priors.Coordinates(length, 0.3), size), 0.3 * gaussian(size, length))


def test_coordinates_of_a_large_image_do_not_see_its_edges() -> None:
    kernel = tc.Conv1d(1, 1, 1).kernel(tc.priors.Coordinates(4), (200,), kind="nngp")
    for u in (0, 1, 5, 12):
        assert kernel.at((80,), (80 + u,)) == pytest.approx(math.exp(-(u**2) / 32), abs=1e-14)


PARTS: dict[str, Callable[[torch.Tensor], tc.priors.Prior]] = {
    "coordinates": lambda z: tc.priors.Coordinates(1.5, 0.5),
    "white": lambda z: tc.priors.White(0.3),
    "constant": lambda z: tc.priors.Constant(0.2),
    "weighted tensor": lambda z: tc.priors.Tensor(z, weight=2.0),
    "white + tensor": lambda z: tc.priors.White(0.3) + tc.priors.Tensor(z, 2.0),
    "all": lambda z: (
        tc.priors.Coordinates(1.5, 0.5) + tc.priors.White(0.3) + tc.priors.Constant(0.2) + tc.priors.Tensor(z, 2.0)
    ),
    "uniform + identity": lambda z: tc.priors.Uniform(0, 1) + tc.priors.Identity(),
    "two tensors": lambda z: tc.priors.Tensor(z, 2.0) + tc.priors.Tensor(z[:1], 0.5),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("size", [(6,), (3, 4), (2, 3, 2)])
def test_samples_have_the_covariance_of_the_kernel(name: Any, size: Any) -> None:
    # A fixed seed: the test is one of statistics.
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    prior = PARTS[name](z)
    channels = prior.channels(len(size)) or 100_000
    expected = sigma_0(prior, size)
    found = feature_prior(prior.sample(channels, size, generator=generator, dtype=torch.float64))
    # Products of entries whose fourth moments are at most 3 (and scaled up where terms share channels): six errors.
    terms = len(getattr(prior, "terms", [prior]))
    bound = 1e-12 if prior.channels(len(size)) else 6 * math.sqrt(2 * terms / channels)
    assert (found - expected).abs().max() <= bound * expected.max()


def test_covariances_add_up(generator: torch.Generator) -> None:
    size = (4, 6)
    z = torch.randn(3, *size, generator=generator, dtype=torch.float64)
    terms = [tc.priors.Coordinates(2, 0.1), tc.priors.Uniform(0, 1), tc.priors.Tensor(z, 0.7), tc.priors.Constant(2)]
    total = terms[0] + terms[1] + (terms[2] + terms[3])
    assert len(total.terms) == 4
    torch.testing.assert_close(sigma_0(total, size), sum(sigma_0(term, size) for term in terms))
    torch.testing.assert_close(sigma_0(terms[2], size), 0.7 * feature_prior(z))


def test_sum_of_independent_pixels_serves_every_size() -> None:
    prior = tc.priors.White(0.2) + tc.priors.Constant(0.1)
    net = tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(1, 1, 3))
    expected = net.kernel(tc.priors.Normal(math.sqrt(0.1), math.sqrt(0.2))).dense((8, 8))
    torch.testing.assert_close(net.kernel(prior).dense((8, 8)), expected)


def test_channels_are_shared_out(generator: torch.Generator) -> None:
    z = torch.randn(2, 5, generator=generator)
    prior = tc.priors.White(0.1) + tc.priors.Tensor(z) + tc.priors.Constant(0.3)
    sample = prior.sample(7, generator=generator)
    assert sample.shape == (7, 5)
    # White noise has three channels, the tensor its two, the constant the other two.
    torch.testing.assert_close(sample[3:5], z * math.sqrt(7 / 2))
    torch.testing.assert_close(sample[5:], torch.full((2, 5), math.sqrt(0.3 * 7 / 2)))
    with pytest.raises(ValueError, match="expected at least 4 channels for White"):
        prior.sample(3)
    with pytest.raises(ValueError, match="expected 4 channels for Tensor"):
        (tc.priors.Tensor(z) + tc.priors.Tensor(z)).sample(5)


def test_descriptions_come_back() -> None:
    prior = tc.priors.Coordinates(3, 0.5) + tc.priors.White(0.1) + tc.priors.Constant(0.2)
    description = json.loads(json.dumps(prior.description()))
    assert repr(tc.priors.from_description(description)) == repr(prior)
    assert (prior + tc.priors.Tensor(torch.zeros(1, 3))).description() is None


def test_sums_know_size_dtype_and_device() -> None:
    prior = tc.priors.White(0.1) + tc.priors.Tensor(torch.zeros(1, 4, 6))
    assert (prior.size, prior.dtype) == ((4, 6), torch.float32)
    assert (tc.priors.White(0.1) + tc.priors.Constant(1)).size is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tc.priors.Coordinates(0), ValueError, "length > 0, got 0"),
        (lambda: tc.priors.Coordinates(2, -1), ValueError, "weight to be at least 0"),
        (lambda: tc.priors.Coordinates("2"), TypeError, "length to be a number"),  # type: ignore[arg-type]
        (lambda: tc.priors.White(0), ValueError, "variance > 0"),
        (lambda: tc.priors.Constant(-1), ValueError, "variance to be at least 0"),
        (lambda: tc.priors.Tensor(torch.zeros(1, 4), -1), ValueError, "weight to be at least 0"),
        (lambda: tc.priors.Sum(), ValueError, "at least one prior"),
        (lambda: tc.priors.Sum(3), TypeError, "expected priors, got int"),  # type: ignore[arg-type]
        (lambda: tc.priors.White(1) + 3, TypeError, "unsupported operand"),  # type: ignore[operator]
        (
            lambda: tc.priors.Tensor(torch.zeros(1, 4)) + tc.priors.Tensor(torch.zeros(1, 5)),
            ValueError,
            "one size, got 4 and 5 pixels",
        ),
    ],
)
def test_bad_options_are_refused(make: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        make()
