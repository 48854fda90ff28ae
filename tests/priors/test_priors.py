"""Feature priors: what is drawn has the covariance that the kernel starts from."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

import torch_cntk as tc

PRIORS = {
    "deep image prior": tc.priors.Uniform(0, 0.1),
    "uniform": tc.priors.Uniform(-1, 2),
    "normal": tc.priors.Normal(),
    "shifted normal": tc.priors.Normal(0.5, 2),
}
CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}


def sigma_0(prior: tc.priors.Prior, size: tuple[int, ...]) -> torch.Tensor:
    """The covariance as a kernel shows it: a 1x1 convolution leaves it as it is."""
    net = CONV[len(size)](1, 1, 1)
    dense = net.kernel(prior, size, kind="nngp").dense(size)
    return dense.reshape(math.prod(size), -1)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("size", [(7,), (2, 3), (2, 1, 2)])
def test_samples_have_the_covariance_of_the_kernel(name: Any, size: Any) -> None:
    # A fixed seed: the test is one of statistics.
    channels, generator = 200_000, torch.Generator().manual_seed(0)
    sample = PRIORS[name].sample(channels, size, generator=generator, dtype=torch.float64).reshape(channels, -1)
    products = sample[:, :, None] * sample[:, None, :]
    standard_error = products.std(0) / math.sqrt(channels)
    # Fifty entries, four standard errors.
    assert bool(((products.mean(0) - sigma_0(PRIORS[name], size)).abs() < 4 * standard_error + 1e-12).all())


@pytest.mark.parametrize(
    ("prior", "diagonal", "elsewhere"),
    [
        (tc.priors.Uniform(0, 0.1), 1 / 300, 1 / 400),
        (tc.priors.Uniform(-1, 1), 1 / 3, 0),
        (tc.priors.Normal(0, 1), 1, 0),
        (tc.priors.Normal(0.5, 2), 4.25, 0.25),
    ],
    ids=repr,
)
def test_covariance_has_the_moments_on_paper(prior: Any, diagonal: Any, elsewhere: Any) -> None:
    expected = torch.full((6, 6), elsewhere, dtype=torch.float64).fill_diagonal_(diagonal)
    torch.testing.assert_close(sigma_0(prior, (2, 3)), expected, rtol=1e-14, atol=1e-16)


def test_uniform_samples_stay_inside() -> None:
    sample = tc.priors.Uniform(-0.3, 0.1).sample(50, (20, 20), generator=torch.Generator().manual_seed(0))
    assert -0.3 <= float(sample.min()) < -0.29
    assert 0.09 < float(sample.max()) <= 0.1


@pytest.mark.parametrize("name", PRIORS)
def test_generator_makes_samples_reproducible(name: Any) -> None:
    def draw(seed: int) -> torch.Tensor:
        return PRIORS[name].sample(3, (4, 5), generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("name", PRIORS)
def test_global_seed_makes_samples_reproducible(name: Any) -> None:
    with torch.random.fork_rng():
        samples = []
        for _ in range(2):
            torch.manual_seed(3)
            samples.append(PRIORS[name].sample(3, (4, 5)))
    assert torch.equal(*samples)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_sample_has_the_shape_and_dtype_asked_for(name: Any, dtype: Any) -> None:
    for size in ((5,), (4, 5), (2, 3, 4)):
        sample = PRIORS[name].sample(3, size, dtype=dtype)
        assert sample.shape == (3, *size)
        assert sample.dtype == (dtype or torch.float32)


def test_given_features_have_their_mean_product_as_covariance(generator: torch.Generator) -> None:
    features = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    flat = features.reshape(4, -1)
    # A sum of four products.
    torch.testing.assert_close(sigma_0(tc.priors.Tensor(features), (3, 5)), flat.T @ flat / 4, rtol=1e-13, atol=1e-15)


def test_given_features_are_their_own_sample(generator: torch.Generator) -> None:
    features = torch.randn(4, 3, 5, generator=generator)
    prior = tc.priors.Tensor(features)
    assert prior.size == (3, 5)
    assert torch.equal(prior.sample(4), features)
    assert torch.equal(prior.sample(4, (3, 5)), features)
    assert prior.sample(4, dtype=torch.float64).dtype == torch.float64


def test_given_features_with_another_size_or_channels_are_refused(generator: torch.Generator) -> None:
    prior = tc.priors.Tensor(torch.randn(4, 3, 5, generator=generator))
    with pytest.raises(ValueError, match=r"expected .*4.*, got .*3"):
        prior.sample(3)
    with pytest.raises(ValueError, match=r"expected .*\(5, 3\)"):
        prior.sample(4, (5, 3))
    with pytest.raises(ValueError, match=r"\(3, 5\)|does not fit|expected"):
        tc.Conv2d(4, 1, 3).kernel(prior, (6, 5))


@pytest.mark.parametrize("features", [torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3) > 0, [[1.0]], None, 1.0])
def test_features_that_are_no_floating_point_tensor_are_refused(features: Any) -> None:
    with pytest.raises(TypeError, match="expected a floating point tensor"):
        tc.priors.Tensor(features)


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (3, 0, 4)])
def test_features_of_a_wrong_shape_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a tensor \[channels, \*size\] with entries"):
        tc.priors.Tensor(torch.ones(shape))


@pytest.mark.parametrize("junk", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(junk: Any) -> None:
    features = torch.ones(2, 3, 3)
    features[1, 2, 0] = junk
    with pytest.raises(ValueError, match="expected finite features"):
        tc.priors.Tensor(features)


@pytest.mark.parametrize("name", PRIORS)
def test_description_makes_the_prior_anew(name: Any) -> None:
    prior = PRIORS[name]
    again = tc.priors.from_description(json.loads(json.dumps(prior.description())))
    assert type(again) is type(prior)
    assert repr(again) == repr(prior)
    assert torch.equal(sigma_0(again, (2, 2)), sigma_0(prior, (2, 2)))


def test_description_keeps_all_digits() -> None:
    prior = tc.priors.Normal(1 / 3, math.pi)
    again = tc.priors.from_description(json.loads(json.dumps(prior.description())))
    assert isinstance(again, tc.priors.Normal)
    assert (again.mean, again.std) == (1 / 3, math.pi)


def test_given_features_have_no_description() -> None:
    prior: tc.priors.Prior = tc.priors.Tensor(torch.ones(1, 2))
    assert prior.description() is None


@pytest.mark.parametrize("description", [{}, {"prior": None}, {"prior": "Tensor"}, {"prior": "Cauchy"}])
def test_unknown_description_is_refused(description: Any) -> None:
    with pytest.raises(ValueError, match="expected one of the priors"):
        tc.priors.from_description(description)


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        (tc.priors.Uniform(), "Uniform(0, 0.1)"),
        (tc.priors.Normal(), "Normal(0, 1)"),
        (tc.priors.Normal(-0.5, 0.25), "Normal(-0.5, 0.25)"),
        (tc.priors.Tensor(torch.ones(3, 4, 5)), "Tensor((3, 4, 5))"),
    ],
)
def test_repr_is_what_one_types(prior: Any, text: Any) -> None:
    assert repr(prior) == text


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 0), (0.1, -0.1)])
def test_bounds_in_the_wrong_order_are_refused(low: Any, high: Any) -> None:
    with pytest.raises(ValueError, match="expected low < high"):
        tc.priors.Uniform(low, high)


@pytest.mark.parametrize("std", [0, -1])
def test_spread_that_is_not_positive_is_refused(std: Any) -> None:
    with pytest.raises(ValueError, match="expected std"):
        tc.priors.Normal(0, std)


@pytest.mark.parametrize("junk", [math.nan, math.inf])
def test_parameters_that_are_not_finite_are_refused(junk: Any) -> None:
    for make in (tc.priors.Uniform, tc.priors.Normal):
        for arguments in ((junk, 1), (0, junk)):
            with pytest.raises(ValueError, match="to be finite"):
                make(*arguments)


@pytest.mark.parametrize("junk", ["0", None, True, [1]])
def test_parameters_of_a_wrong_type_are_refused(junk: Any) -> None:
    for make in (tc.priors.Uniform, tc.priors.Normal):
        for arguments in ((junk, 1), (0, junk)):
            with pytest.raises(TypeError, match="to be a number"):
                make(*arguments)


@pytest.mark.parametrize("name", PRIORS)
def test_sample_without_a_size_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="expected size"):
        PRIORS[name].sample(3)


@pytest.mark.parametrize("name", PRIORS)
def test_sample_of_a_wrong_size_or_channels_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="expected channels to be at least 1"):
        PRIORS[name].sample(0, (4, 4))
    with pytest.raises(TypeError, match="expected channels to be an integer"):
        PRIORS[name].sample(3.0, (4, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected size\[1\] to be at least 1"):
        PRIORS[name].sample(3, (4, 0))
    with pytest.raises(TypeError, match="expected size to be a tuple"):
        PRIORS[name].sample(3, 4)  # type: ignore[arg-type]
