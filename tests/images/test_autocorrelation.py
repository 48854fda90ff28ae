"""The autocorrelation of an estimate as a feature prior, and passes with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.interpolate
import torch

import torch_cntk as tc


def wave(total: Any, generator: torch.Generator, overtones: Any = 12) -> Any:
    """A tone of many overtones with random phases, whose period is no whole number of samples."""
    times = torch.arange(total, dtype=torch.float64)
    phases = 2 * math.pi * torch.rand(overtones, generator=generator, dtype=torch.float64)
    orders = torch.arange(1, overtones + 1, dtype=torch.float64)
    return torch.sin(2 * math.pi * orders[:, None] * times / 37.3 + phases[:, None]).sum(0)[None]


def expected_autocorrelation(estimate: Any, size: Any) -> Any:
    """Sums over pixels, in numpy, one displacement after the other."""
    values = estimate.double().numpy()
    axes = tuple(range(1, values.ndim))
    values = values - values.mean(axes, keepdims=True)
    for axis in axes:
        shape = [1] * values.ndim
        shape[axis] = -1
        values = values * np.hanning(values.shape[axis] + 2)[1:-1].reshape(shape)
    torus = np.pad(values, [(0, 0), *((0, n - m) for n, m in zip(size, values.shape[1:], strict=True))])
    products = np.empty(size)
    for u in np.ndindex(*size):
        products[u] = (torus * np.roll(torus, [-x for x in u], axes)).sum()
    return torch.from_numpy(products / products.flat[0])


@pytest.mark.parametrize(("own", "size"), [((9,), (14,)), ((5, 6), (8, 6)), ((2, 3, 4), (3, 5, 4))])
def test_covariance_is_that_of_the_estimate_times_the_weight(own: Any, size: Any, generator: torch.Generator) -> None:
    estimate = torch.rand(2, *own, generator=generator)
    prior = tc.priors.Autocorrelation(estimate, weight=3.0)
    conv = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}[len(own)]
    matrix = tc.Sequential(conv(1, 1, 1)).kernel(prior, size, kind="nngp", dtype=torch.float64).dense()
    origin = (0,) * len(size)
    torch.testing.assert_close(matrix[origin], 3 * expected_autocorrelation(estimate, size), rtol=0, atol=1e-12)
    pixels = math.prod(size)
    eigenvalues = torch.linalg.eigvalsh(matrix.reshape(pixels, pixels))
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()
    pixel = tuple(n - 1 for n in size)
    torch.testing.assert_close(matrix[pixel].roll([1] * len(size), list(range(len(size)))), matrix[origin])


def test_samples_have_the_covariance(generator: torch.Generator) -> None:
    estimate = wave(30, generator)
    sample = tc.priors.Autocorrelation(estimate).sample(20_000, (40,), generator=generator, dtype=torch.float64)
    # Products of two numbers of variance 1 have a standard deviation of at most sqrt(2); six times that of the mean.
    found = (sample[:, :1] * sample).mean(0)
    assert (found - expected_autocorrelation(estimate, (40,))).abs().max() < 6 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_pass_is_regression_with_the_kernel_as_a_matrix(ndim: Any, generator: torch.Generator) -> None:
    size = {1: (40,), 2: (8, 9), 3: (4, 5, 6)}[ndim]
    image = torch.rand(2, *size, generator=generator, dtype=torch.float64)
    observed = torch.rand(size, generator=generator) < 0.7
    estimate = torch.where(observed, image, 0.5)
    solver = tc.ConjugateGradient(1e-12, preconditioner="circulant")
    filled = tc.autocorrelation_passes(image, observed, estimate, 1, white=1e-2, ridge=1e-2, solver=solver)

    canvas = tuple(math.ceil(1.5 * n) for n in size)
    prior = tc.priors.Autocorrelation(estimate) + tc.priors.White(1e-2)
    matrix = tc.autocorrelation_network(ndim).kernel(prior, canvas).dense()
    matrix = matrix[(*(slice(n) for n in size), *(slice(n) for n in size))]
    known = matrix[observed][:, observed]
    known = known + 1e-2 * known.diagonal().mean() * torch.eye(len(known), dtype=torch.float64)
    mean = estimate.flatten(1).mean(1)
    for channel in range(2):
        weights = torch.linalg.solve(known, image[channel][observed] - mean[channel])
        expected = matrix[~observed][:, observed] @ weights + mean[channel]
        torch.testing.assert_close(filled[channel][~observed], expected, rtol=0, atol=1e-8)
    assert torch.equal(filled[:, observed], image[:, observed])


def test_a_gap_in_a_tone_is_filled_from_other_periods(generator: torch.Generator) -> None:
    signal = wave(700, generator)
    observed = torch.ones(700, dtype=torch.bool)
    observed[300:330] = False
    first = tc.inpaint(signal, observed).image
    filled = tc.autocorrelation_passes(signal, observed, first, 4)
    known = observed.nonzero()[:, 0].numpy()
    cubic = scipy.interpolate.CubicSpline(known, signal[0, observed].numpy())(np.arange(300, 330))
    truth = signal[0, 300:330]

    def error(values: Any) -> Any:
        return float((values - truth).square().sum() / truth.square().sum())

    assert error(filled[0, 300:330]) < 0.05
    assert error(filled[0, 300:330]) < 0.1 * min(error(first[0, 300:330]), error(torch.from_numpy(cubic)))


def test_a_hole_in_a_moving_picture_is_filled_from_other_frames(generator: torch.Generator) -> None:
    still = torch.rand(1, 20, 40, generator=generator)
    video = torch.stack([still[..., 2 * t : 2 * t + 20] for t in range(8)], 1)
    observed = torch.ones(8, 20, 20, dtype=torch.bool)
    for t in range(8):
        observed[t, 7:12, 3 + t : 8 + t] = False
    first = tc.inpaint(video, observed).image
    filled = tc.autocorrelation_passes(video, observed, first, 2)
    assert filled.dtype == video.dtype
    assert torch.equal(filled[:, observed], video[:, observed])
    before, after = ((values - video)[:, ~observed].square().mean() for values in (first, filled))
    # Neighbouring pixels of noise say nothing about the hole; other frames have most of it.
    assert after < 0.4 * before


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    signal, observed = torch.rand(1, 20, generator=generator), torch.rand(20, generator=generator) < 0.8
    with pytest.raises(ValueError, match=r"expected an estimate that varies"):
        tc.priors.Autocorrelation(torch.ones(2, 8))
    with pytest.raises(TypeError, match=r"expected a floating point tensor"):
        tc.priors.Autocorrelation(torch.ones(2, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected a size of at least 20"):
        tc.autocorrelation_network(1).kernel(tc.priors.Autocorrelation(signal), (16,))
    with pytest.raises(ValueError, match=r"expected an estimate of the image's shape \(1, 20\), got \(2, 20\)"):
        tc.autocorrelation_passes(signal, observed, torch.rand(2, 20))
    with pytest.raises(ValueError, match=r"expected an image \[channels, \*size\] of the mask's 1 dimensions"):
        tc.autocorrelation_passes(signal[0], observed, signal[0])
    with pytest.raises(ValueError, match=r"expected white > 0, got 0"):
        tc.autocorrelation_passes(signal, observed, signal, white=0)
    with pytest.raises(ValueError, match=r"expected passes"):
        tc.autocorrelation_passes(signal, observed, signal, 0)
