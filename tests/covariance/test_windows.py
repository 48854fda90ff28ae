"""Kernels within a radius equal the dense kernel times the taper, stay positive semi-definite, and multiply right."""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.monte_carlo import BATCH, empirical_ntks
from torch_cntk.covariance.lattice import evaluation

CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}


def flat(ndim: Any, width: Any = 1, slope: Any = 0.1, channels: Any = 1) -> Any:
    conv = CONV[ndim]
    return tc.Sequential(conv(channels, width, 3), tc.LeakyReLU(slope), conv(width, 1, 3))


def deep(ndim: Any) -> Any:
    conv = CONV[ndim]
    activation = tc.ReLU()
    return tc.Sequential(conv(1, 1, 5, bias=True), activation, conv(1, 1, 3), tc.LeakyReLU(0.2), conv(1, 1, 1))


def down_up(up: Any) -> Any:
    return tc.Sequential(
        tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3), tc.ReLU(), up, tc.Conv2d(1, 1, 3), tc.ReLU()
    )


def pooled() -> Any:
    return tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.AvgPool2d(2), tc.Conv2d(1, 1, 3))


def branched() -> Any:
    conv = tc.Conv2d
    block = tc.Residual(conv(1, 1, 3), tc.LeakyReLU(0.1), conv(1, 1, 3))
    return tc.Sequential(conv(1, 1, 3), tc.ChannelNorm(), tc.ReLU(), conv(1, 1, 1), block, tc.GELU(), conv(1, 1, 3))


NETS = {
    "2d, branched": (branched(), (12, 14), 5),
    "2d, zero padding": (
        tc.Sequential(tc.Conv2d(1, 1, 3, padding_mode="zeros"), tc.ReLU(), tc.Conv2d(1, 1, 3)),
        (12, 14),
        5,
    ),
    "2d, hourglass": (tc.hourglass(2, 1, 1, channels=1, in_channels=1), (12, 16), 5),
    "1d": (flat(1), (23,), 6),
    "1d, few pixels": (deep(1), (4,), 2),
    "2d": (flat(2), (12, 14), 5),
    "2d, deep": (deep(2), (13, 10), (6, 3)),
    "2d, nearest": (down_up(tc.NearestUp(2)), (12, 16), 5),
    "2d, bilinear": (down_up(tc.BilinearUp(2)), (12, 12), 4),
    "2d, border": (down_up(tc.BilinearUp(2, padding_mode="border")), (12, 8), 4),
    "2d, average": (pooled(), (6, 7), 3),
    "3d": (flat(3), (5, 6, 4), (2, 3, 2)),
}


def guided_prior(size: Any, generator: torch.Generator, white: Any = 1e-3) -> Any:
    features = torch.rand(2, *size, generator=generator, dtype=torch.float64) - 0.5
    prior = tc.priors.Coordinates(3, 0.02) + tc.priors.Constant(1e-4) + tc.priors.Tensor(features, 4.0)
    return prior + tc.priors.White(white) if white else prior


def input_size(net: Any, size: Any) -> Any:
    return tuple(2 * n for n in size) if any(isinstance(layer, tc.AvgPool2d) for layer in net.layers) else size


def taper(size: Any, radius: Any) -> Any:
    """(1 - q)^4 (4 q + 1) of each pair of pixels, by their distance on the torus."""
    radii = radius if isinstance(radius, tuple) else (radius,) * len(size)
    pixels = list(itertools.product(*map(range, size)))
    values = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)
    for i, x in enumerate(pixels):
        for j, y in enumerate(pixels):
            apart = [min(abs(a - b), n - abs(a - b)) / r for a, b, n, r in zip(x, y, size, radii, strict=True)]
            q = math.sqrt(sum(u * u for u in apart))
            values[i, j] = (1 - q) ** 4 * (4 * q + 1) if q < 1 else 0
    return values.reshape(*size, *size)


def matrix(kernel: Any) -> Any:
    return kernel.reshape(math.isqrt(kernel.numel()), -1)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_windowed_kernel_is_the_dense_one_times_the_taper(name: Any, kind: Any, generator: torch.Generator) -> None:
    net, size, radius = NETS[name]
    prior = guided_prior(input_size(net, size), generator)
    expected = net.kernel(prior, size, kind=kind).dense() * taper(size, radius)
    kernel = net.kernel(prior, size, kind=kind, radius=radius)
    assert kernel.size == kernel.period == size
    # Rounding of a dozen layers in float64.
    assert (kernel.dense() - expected).abs().max() <= 1e-12 * expected.max()
    single = net.kernel(prior, size, kind=kind, radius=radius, dtype=torch.float32)
    assert single.dtype == torch.float32
    assert (single.dense().double() - expected).abs().max() <= 1e-6 * expected.max()


@pytest.mark.parametrize("name", ["2d", "2d, deep", "2d, branched", "2d, zero padding", "3d"])
def test_bands_of_rows_are_the_whole_image(
    name: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, size, radius = NETS[name]
    prior = guided_prior(size, generator)
    expected = net.kernel(prior, size, radius=radius)
    monkeypatch.setattr(evaluation, "_SLAB_ENTRIES", 3 * math.prod(size[1:]))
    banded = net.kernel(prior, size, radius=radius)
    torch.testing.assert_close(banded.near.values, expected.near.values, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", NETS)
def test_windowed_kernels_are_positive_semi_definite(name: Any, generator: torch.Generator) -> None:
    net, size, radius = NETS[name]
    # Without white noise, which would lift all eigenvalues.
    kernel = net.kernel(guided_prior(input_size(net, size), generator, white=0), size, radius=radius)
    eigenvalues = torch.linalg.eigvalsh(matrix(kernel.dense()))
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_period_of_a_stationary_prior_is_kept(generator: torch.Generator) -> None:
    net, size, radius = NETS["2d, nearest"]
    prior = tc.priors.Uniform(0, 0.1)
    kernel = net.kernel(prior, size, radius=radius)
    assert kernel.period == (2, 2)
    expected = net.kernel(prior).dense(size) * taper(size, radius)
    assert (kernel.dense() - expected).abs().max() <= 1e-12 * expected.max()
    weights = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(kernel.operator() @ weights, torch.tensordot(weights, expected, dims=2))


@pytest.mark.parametrize("name", ["1d", "1d, few pixels", "2d", "2d, deep", "3d"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_stencil_operator_is_its_matrix(name: Any, dtype: Any, generator: torch.Generator) -> None:
    net, size, radius = NETS[name]
    kernel = net.kernel(guided_prior(size, generator), size, radius=radius, dtype=dtype)
    operator = kernel.operator()
    assert operator.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    dense = kernel.dense().double()
    eps = torch.finfo(operator.dtype).eps
    for count in (1, 3, 2):
        weights = torch.randn(count, *size, generator=generator, dtype=torch.float64)
        expected = torch.tensordot(weights, dense, dims=len(size))
        torch.testing.assert_close(operator @ weights, expected, rtol=0, atol=40 * eps * float(expected.abs().max()))
    torch.testing.assert_close(operator.diagonal, matrix(dense).diagonal().reshape(size))
    first, second = torch.tensor([0, 3, 1]), torch.tensor([2, 0])
    torch.testing.assert_close(operator.entries(first, second), matrix(dense)[first][:, second])


def test_stencil_operator_in_bands(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_cntk.operators import stencil

    net, size, radius = NETS["2d"]
    kernel = net.kernel(guided_prior(size, generator), size, radius=radius)
    weights = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    expected = kernel.operator() @ weights
    monkeypatch.setattr(stencil, "_BAND", 100)
    for kept in (0, 1 << 20):
        monkeypatch.setattr(stencil, "_KEPT_VIEWS", kept)
        torch.testing.assert_close(kernel.operator() @ weights, expected, rtol=1e-12, atol=1e-14)


def test_kernels_go_into_files_and_come_back(tmp_path: Path, generator: torch.Generator) -> None:
    net, size, radius = NETS["2d, deep"]
    for compact, dtype in itertools.product((False, True), (torch.float16, torch.float32, torch.float64)):
        kernel = net.kernel(guided_prior(size, generator), size, radius=radius, dtype=dtype)
        kernel.save(tmp_path / "kernel.safetensors", compact=compact)
        read = tc.load_kernel(tmp_path / "kernel.safetensors")
        assert torch.equal(read.dense(), kernel.dense())
        assert (read.radius, read.size) == (kernel.radius, kernel.size)


def test_finite_networks_with_that_prior_have_the_kernel_on_average() -> None:
    # A fixed seed: the test is one of statistics. So many channels that the sample's covariance is that of the prior.
    channels, size, generator = 512, (4, 4), torch.Generator().manual_seed(5)
    net = flat(2, width=24, channels=channels).double()
    prior = guided_prior(size, generator)
    kernel = net.kernel(prior, size, radius=2)
    window = matrix(taper(size, 2))
    draws = []
    for _ in range(12):
        z = prior.sample(channels, generator=generator)
        draws.append(empirical_ntks(net, z, BATCH, generator) * window)
    ntks = torch.cat(draws)
    exact = matrix(kernel.dense())
    standard_error = (ntks.var(0).sum() / len(ntks)).sqrt()
    assert (ntks.mean(0) - exact).norm() < 5 * standard_error
    assert standard_error < 0.03 * exact.norm()


def test_a_radius_beyond_half_of_the_image_is_cut_and_said(
    generator: torch.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    prior = guided_prior((9, 12), generator)
    with caplog.at_level(logging.WARNING):
        kernel = flat(2).kernel(prior, radius=50)
    assert "beyond half of 9 x 12 pixels: cut to (4, 6)" in caplog.text
    expected = flat(2).kernel(prior).dense() * taper((9, 12), (4, 6))
    assert (kernel.dense() - expected).abs().max() <= 1e-12 * expected.max()


def test_a_radius_as_large_as_half_of_the_image_is_not_worth_a_word(
    generator: torch.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        flat(2).kernel(guided_prior((8, 12), generator), radius=4)
    assert not caplog.records


def test_bad_windows_are_refused(generator: torch.Generator) -> None:
    prior = guided_prior((8, 8), generator)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        flat(2).kernel(prior, radius=0)
    with pytest.raises(TypeError, match=r"integer, got 2\.5"):
        flat(2).kernel(prior, radius=2.5)
    with pytest.raises(ValueError, match="2 entries, got 1"):
        flat(2).kernel(prior, radius=(3,))
    with pytest.raises(ValueError, match="expected size"):
        flat(2).kernel(tc.priors.Uniform(0, 1), radius=3)
    with pytest.raises(ValueError, match=r"size \(8, 8\), got \(8, 9\)"):
        flat(2).kernel(prior, (8, 9), radius=3)
    with pytest.raises(ValueError, match="finite features, got NaN"):
        tc.priors.Tensor(torch.full((1, 8, 8), math.nan))


def test_windows_that_do_not_fit_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_cntk._internal import memory

    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 10**6)
    with pytest.raises(tc.OutOfMemoryError, match="smaller radius"):
        flat(2).kernel(tc.priors.Tensor(torch.zeros(1, 512, 512)), radius=12)
