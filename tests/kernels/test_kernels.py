"""Kernels against the textbook recursion, and what every kernel must satisfy."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from unittest import mock

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers import brute_force

CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}
# float64 on both sides; the angle between nearly equal features has some digits less than its cosine.
EXACT = 1e-12
# Pixels of the largest image on the way: the recursion holds the square of it.
MOST_PIXELS = {1: 60, 2: 18**2, 3: 144}


def assert_equal(kernel: torch.Tensor, expected: torch.Tensor, tolerance: float = EXACT) -> None:
    assert kernel.shape == expected.shape
    assert (kernel - expected).abs().max() <= tolerance * expected.abs().max()


def expected_kernel(net: tc.Sequential, prior, source: tuple[int, ...], kind: str) -> torch.Tensor:
    match prior:
        case tc.priors.Tensor():
            sigma = brute_force.feature_prior(prior.features)
        case tc.priors.Uniform():
            low, high = prior.low, prior.high
            second_moment = (high - low) ** 2 / 12 + (low + high) ** 2 / 4
            sigma = brute_force.independent_prior(source, (low + high) / 2, second_moment)
        case _:
            sigma = brute_force.independent_prior(source, prior.mean, prior.mean**2 + prior.std**2)
    nngp, ntk = brute_force.propagate(net, sigma)
    return {"nngp": nngp, "ntk": ntk}[kind]


def smallest_sine(sigma: torch.Tensor) -> float:
    """Of the angles between any two pixels' features that are not the same."""
    flat = sigma.reshape(math.isqrt(sigma.numel()), -1)
    squares = flat.diagonal()[:, None] * flat.diagonal()
    sines = ((squares - flat**2) / squares).clamp_min(0).sqrt()
    # As brute_force.rectify has it: closer than this is the same.
    different = sines[1 - sines**2 / 2 < 1 - 4e-15]
    return float(different.min()) if different.numel() else 1.0


def expected_and_tolerance(net: tc.Sequential, prior, source: tuple[int, ...], kind: str) -> tuple[torch.Tensor, float]:
    """For random nets, in which chance brings features as close as it likes, and their angle loses digits.

    Rounding of a few 1e-15 in the squared cosine puts so much over the sine into the angle, at every layer.
    """
    sines: list[float] = []

    def rectify(sigma: torch.Tensor, theta: torch.Tensor, slope: float) -> tuple[torch.Tensor, torch.Tensor]:
        sines.append(smallest_sine(sigma))
        return original(sigma, theta, slope)

    original = brute_force.rectify
    with mock.patch.object(brute_force, "rectify", rectify):
        expected = expected_kernel(net, prior, source, kind)
    return expected, max(EXACT, 4e-15 * sum(1 / sine for sine in sines))


def scales(net: tc.Sequential, ndim: int) -> list[tuple[Fraction, ...]]:
    scale, path = (Fraction(1),) * ndim, []
    for layer in net.layers:
        if isinstance(layer, tc.NearestUp | tc.BilinearUp):
            scale = tuple(s * layer.scale_factor for s in scale)
        elif hasattr(layer, "stride"):
            scale = tuple(s / r for s, r in zip(scale, layer.stride, strict=True))
        path.append(scale)
    return path


def granule(net: tc.Sequential, ndim: int) -> tuple[int, ...]:
    return tuple(math.lcm(*(scale[axis].denominator for scale in scales(net, ndim))) for axis in range(ndim))


def most_pixels(net: tc.Sequential, source: tuple[int, ...]) -> int:
    sizes = ([n * s for n, s in zip(source, scale, strict=True)] for scale in scales(net, len(source)))
    return max(math.prod(source), *(int(math.prod(size)) for size in sizes))


def invariant(net: tc.Sequential) -> bool:
    ups = [layer for layer in net.layers if isinstance(layer, tc.BilinearUp)]
    return not any(layer.align_corners or layer.padding_mode == "border" for layer in ups)


def layer_options(ndim: int):
    width = st.sampled_from([1, 3, 5] if ndim < 3 else [1, 3])
    widths = width | st.tuples(*(width for _ in range(ndim)))
    stride = st.just(1) | st.sampled_from([2, 3]) | st.tuples(*(st.sampled_from([1, 2]) for _ in range(ndim)))
    conv = st.builds(
        lambda width, stride, bias: CONV[ndim](1, 1, width, stride, bias=bias is not None, bias_std=bias or 0.0),
        widths,
        stride,
        st.none() | st.sampled_from([0.1, 0.5]),
    )
    activation = st.builds(tc.ReLU) | st.builds(tc.LeakyReLU, st.sampled_from([0.01, 0.1, 0.5, 1.0]))
    factor = st.sampled_from([2, 3])
    up = (
        st.builds(tc.NearestUp, factor)
        | st.builds(tc.BilinearUp, factor)
        | st.builds(tc.BilinearUp, factor, padding_mode=st.just("border"))
        | st.builds(tc.BilinearUp, factor, align_corners=st.just(True))
    )
    return conv, activation, up


def nets(ndim: int):
    conv, activation, up = layer_options(ndim)
    layers = st.lists(conv | activation | up, min_size=1, max_size=7 if ndim < 3 else 5)
    return layers.map(lambda members: tc.Sequential(CONV[ndim](1, 1, 3), *members))


# Biases and priors of one scale: features that differ little have angles of few digits.
priors = st.sampled_from([tc.priors.Uniform(0, 1), tc.priors.Uniform(-1, 3), tc.priors.Normal(0.3, 0.7)])
kinds = st.sampled_from(["ntk", "nngp"])
several = st.integers(1, 3)
randomly = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


def check_stationary(net, ndim, prior, kind, multiples) -> None:
    source = tuple(g * m for g, m in zip(granule(net, ndim), multiples, strict=True))
    assume(most_pixels(net, source) <= MOST_PIXELS[ndim])
    size = tuple(int(n * s) for n, s in zip(source, scales(net, ndim)[-1], strict=True))
    expected, tolerance = expected_and_tolerance(net, prior, source, kind)
    assert_equal(net.kernel(prior, size, kind=kind).dense(size), expected, tolerance)
    if invariant(net):
        assert_equal(net.kernel(prior, kind=kind).dense(size), expected, tolerance)


def check_features(net, ndim, seed, channels, kind, multiples) -> None:
    source = tuple(g * m for g, m in zip(granule(net, ndim), multiples, strict=True))
    assume(most_pixels(net, source) <= MOST_PIXELS[ndim])
    features = torch.randn(channels, *source, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    prior = tc.priors.Tensor(features)
    assert_equal(net.kernel(prior, kind=kind).dense(), *expected_and_tolerance(net, prior, source, kind))


@settings(randomly, max_examples=500)
@given(nets(1), priors, kinds, several)
def test_random_1d_net_equals_the_recursion(net, prior, kind, multiple):
    check_stationary(net, 1, prior, kind, (multiple,))


@settings(randomly, max_examples=500)
@given(nets(2), priors, kinds, st.tuples(several, several))
def test_random_2d_net_equals_the_recursion(net, prior, kind, multiples):
    check_stationary(net, 2, prior, kind, multiples)


# A table of one size without mirrors, so large that it is cut and its axes are exchanged.
CUT = tc.Sequential(
    tc.Conv3d(1, 1, 3), tc.NearestUp(2), tc.BilinearUp(2), tc.StridedConv3d(1, 1, 1, stride=2), tc.NearestUp(2)
)


@settings(randomly, max_examples=50)
@given(nets(3), priors, kinds, st.permutations([1, 1, 2]))
@example(CUT, tc.priors.Uniform(0, 1), "ntk", [1, 1, 2])
def test_random_3d_net_equals_the_recursion(net, prior, kind, multiples):
    check_stationary(net, 3, prior, kind, tuple(multiples))


@settings(randomly, max_examples=500)
@given(nets(1), st.integers(0, 2**31), several, kinds, st.integers(1, 6))
def test_random_1d_net_on_given_features_equals_the_recursion(net, seed, channels, kind, multiple):
    check_features(net, 1, seed, channels, kind, (multiple,))


@settings(randomly, max_examples=500)
@given(nets(2), st.integers(0, 2**31), several, kinds, st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_random_2d_net_on_given_features_equals_the_recursion(net, seed, channels, kind, multiples):
    check_features(net, 2, seed, channels, kind, multiples)


@settings(randomly, max_examples=50)
@given(nets(3), st.integers(0, 2**31), several, kinds)
def test_random_3d_net_on_given_features_equals_the_recursion(net, seed, channels, kind):
    check_features(net, 3, seed, channels, kind, (2, 1, 1))


def autoencoder(levels: int, ups: list[tc.Layer], last: tuple[tc.Layer, ...] = ()) -> tc.Sequential:
    layers: list[tc.Layer] = []
    for _ in range(levels):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    for up in ups:
        layers += [up, tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    return tc.Sequential(*layers, *last, tc.Conv2d(1, 1, 3))


NETS = {
    "nearest": autoencoder(2, [tc.NearestUp(2), tc.NearestUp(2)]),
    "nearest 3": autoencoder(1, [tc.NearestUp(3)]),
    "bilinear": autoencoder(2, [tc.BilinearUp(2), tc.BilinearUp(2)]),
    "bilinear 3": autoencoder(0, [tc.BilinearUp(3)]),
    "nearest, bilinear": autoencoder(1, [tc.NearestUp(2), tc.BilinearUp(2)]),
    "bilinear, nearest": autoencoder(1, [tc.BilinearUp(2), tc.NearestUp(2)]),
    "decoder only": autoencoder(0, [tc.NearestUp(2), tc.NearestUp(2)]),
    "decoder only, bilinear": autoencoder(0, [tc.BilinearUp(2), tc.BilinearUp(2)]),
    "encoder only": autoencoder(2, []),
    "up, then down": autoencoder(0, [tc.BilinearUp(3)], (tc.StridedConv2d(1, 1, 3), tc.ReLU())),
    "oblong": tc.Sequential(
        tc.Conv2d(1, 1, (3, 5), (2, 1), bias=True), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(1, 1, (5, 1)), tc.ReLU()
    ),
    "stride 3": tc.Sequential(tc.StridedConv2d(1, 1, 5, 3), tc.ReLU(), tc.NearestUp(3), tc.Conv2d(1, 1, 3)),
}


@pytest.fixture(params=NETS, ids=[name.replace(", ", "-").replace(" ", "_") for name in NETS])
def net(request) -> tc.Sequential:
    return NETS[request.param]


def smallest_size(net: tc.Sequential) -> tuple[int, ...]:
    return tuple(int(g * s) for g, s in zip(granule(net, 2), scales(net, 2)[-1], strict=True))


@pytest.mark.parametrize("multiples", [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_one_kernel_serves_every_size(net, multiples, kind):
    period = net.kernel(tc.priors.Uniform()).period
    step = tuple(math.lcm(p, n) for p, n in zip(period, smallest_size(net), strict=True))
    size = tuple(n * m for n, m in zip(step, multiples, strict=True))
    if math.prod(size) > 24**2:
        size = tuple(n * m for n, m in zip(step, (1, 2), strict=True))
    source = tuple(int(n / s) for n, s in zip(size, scales(net, 2)[-1], strict=True))
    expected = expected_kernel(net, tc.priors.Uniform(), source, kind)
    assert_equal(net.kernel(tc.priors.Uniform(), kind=kind).dense(size), expected)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nearest_levels_give_period_and_radius(levels):
    kernel = autoencoder(levels, [tc.NearestUp(2)] * levels).kernel(tc.priors.Uniform())
    assert kernel.period == (2**levels,) * 2
    assert kernel.radius == (2**levels - 1,) * 2


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nearest_kernel_is_constant_beyond_its_radius_and_not_within(levels):
    net = autoencoder(levels, [tc.NearestUp(2)] * levels)
    kernel = net.kernel(tc.priors.Uniform())
    size = (3 * 2**levels, 3 * 2**levels)
    source = tuple(int(n / s) for n, s in zip(size, scales(net, 2)[-1], strict=True))
    (p, _), (radius, _) = kernel.period, kernel.radius
    dense = expected_kernel(net, tc.priors.Uniform(), source, "ntk")
    n = size[0]
    difference = torch.arange(n)[:, None] - torch.arange(n)
    away = torch.minimum(difference % n, -difference % n)
    distance = torch.maximum(away[:, None, :, None], away[None, :, None, :])
    far = dense[distance > radius]
    assert far.max() - far.min() <= EXACT * dense.max()
    edge = dense[distance == radius]
    assert edge.max() - edge.min() > 1e-6 * dense.max()
    assert kernel.at((0, 0), (radius + 1, 0), size) == pytest.approx(float(far[0]), rel=EXACT)
    assert p == radius + 1


def test_kernel_of_given_features_has_the_image_as_period(generator):
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 12, generator=generator)))
    assert kernel.period == kernel.size == (8, 12)


def test_border_bilinear_kernel_has_the_image_as_period():
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2, padding_mode="border"), tc.Conv2d(1, 1, 3))
    assert net.kernel(tc.priors.Uniform(), (8, 6)).period == (8, 6)


def sized_kernel(net: tc.Sequential, **options) -> tuple[tc.Kernel, tuple[int, ...], torch.Tensor]:
    kernel = net.kernel(tc.priors.Uniform(), **options)
    size = tuple(2 * math.lcm(p, n) for p, n in zip(kernel.period, smallest_size(net), strict=True))
    return kernel, size, kernel.dense(size)


def features_for(net: tc.Sequential, generator: torch.Generator, side: int = 12) -> tc.priors.Tensor:
    """Random features for an output of about so many pixels a side."""
    path = zip(granule(net, 2), scales(net, 2)[-1], strict=True)
    source = tuple(g * max(1, int(side / s) // g) for g, s in path)
    return tc.priors.Tensor(torch.randn(2, *source, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_kernel_is_symmetric_and_positive_semi_definite(net, kind):
    _, size, dense = sized_kernel(net, kind=kind)
    matrix = dense.reshape(math.prod(size), -1)
    assert (matrix - matrix.T).abs().max() <= 1e-14 * matrix.max()
    eigenvalues = torch.linalg.eigvalsh(matrix)
    # Rounding of some hundred additions.
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_kernel_of_features_is_symmetric_and_positive_semi_definite(net, generator):
    dense = net.kernel(features_for(net, generator)).dense()
    matrix = dense.reshape(math.prod(dense.shape[:2]), -1)
    assert (matrix - matrix.T).abs().max() <= 1e-14 * matrix.abs().max()
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_kernel_is_invariant_to_shifts_by_its_period(net):
    kernel, _, dense = sized_kernel(net)
    for axis, p in enumerate(kernel.period):
        assert torch.equal(dense, dense.roll((p, p), (axis, 2 + axis)))


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_kernel_is_not_invariant_to_half_its_period(name):
    kernel, _, dense = sized_kernel(NETS[name])
    for axis, p in enumerate(kernel.period):
        moved = dense.roll((p // 2, p // 2), (axis, 2 + axis))
        assert (moved - dense).abs().max() > 1e-3 * dense.max()


def test_at_row_and_dense_agree(net):
    kernel, size, dense = sized_kernel(net)
    for pixel in itertools.islice(itertools.product(*(range(n) for n in size)), 0, None, 5):
        row = kernel.row(pixel, size)
        assert torch.equal(row, dense[pixel])
        other = tuple((3 * x + 1) % n for x, n in zip(pixel, size, strict=True))
        assert kernel.at(pixel, other, size) == float(row[other])


@pytest.mark.parametrize("pixel", [(-1, 0), (0, 8), (8, 0), (0,), (0, 0, 0)])
def test_pixel_outside_is_an_index_error(pixel):
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(IndexError, match="expected a pixel inside 8 x 8"):
        kernel.at(pixel, (0, 0), (8, 8))
    with pytest.raises(IndexError, match="expected a pixel inside 8 x 8"):
        kernel.row(pixel, (8, 8))


def test_float32_kernel_is_the_rounded_float64_one(net):
    kernel, size, dense = sized_kernel(net)
    single = net.kernel(tc.priors.Uniform(), dtype=torch.float32)
    assert single.dtype == torch.float32
    assert single.nbytes * 2 == kernel.nbytes
    # Two roundings of 6e-8, near and far.
    assert_equal(single.dense(size).double(), dense, 1e-6)
    assert_equal(kernel.to(torch.float32).dense(size).double(), dense, 1e-6)


def test_float32_features_give_a_float32_kernel(generator):
    features = torch.randn(3, 8, 8, generator=generator)
    single = NETS["nearest"].kernel(tc.priors.Tensor(features))
    double = NETS["nearest"].kernel(tc.priors.Tensor(features.double()))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert_equal(single.dense().double(), double.dense(), 1e-6)


@pytest.mark.parametrize("entries", [1, 64, 1000])
def test_slab_size_does_not_matter(net, entries, monkeypatch, generator):
    _, size, dense = sized_kernel(net)
    prior = features_for(net, generator)
    whole = net.kernel(prior).dense()
    monkeypatch.setattr("torch_cntk.covariance.lattice.evaluation._SLAB_ENTRIES", entries)
    # Only the order of additions may differ.
    assert_equal(net.kernel(tc.priors.Uniform()).dense(size), dense, 1e-14)
    assert_equal(net.kernel(prior).dense(), whole, 1e-13)


def test_number_of_threads_does_not_matter(net, threads, generator):
    # Large enough that a slab is shared out.
    prior = features_for(net, generator, side=20)
    kernels = []
    for count in (1, 2):
        threads(count)
        kernels.append((net.kernel(tc.priors.Uniform()).near.values, net.kernel(prior).near.values))
    for one, two in zip(*kernels, strict=True):
        assert_equal(two, one, 1e-14)


def test_kernel_does_not_depend_on_widths_or_weights():
    narrow = tc.Sequential(tc.StridedConv2d(2, 3, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(3, 1, 3))
    wide = tc.Sequential(tc.StridedConv2d(5, 40, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(40, 7, 3))
    first, second = (net.kernel(tc.priors.Uniform()).dense((4, 4)) for net in (narrow, wide))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "encoder only"])
def test_ntk_exceeds_the_nngp_by_a_kernel_after_a_last_convolution(name):
    _, size, ntk = sized_kernel(NETS[name])
    _, _, nngp = sized_kernel(NETS[name], kind="nngp")
    eigenvalues = torch.linalg.eigvalsh((ntk - nngp).reshape(math.prod(size), -1))
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_repr_says_period_radius_and_precision():
    kernel = NETS["nearest"].kernel(tc.priors.Uniform(), dtype=torch.float32)
    text = "Kernel(period=(4, 4), radius=(3, 3), size=any multiple of the period, dtype=float32, "
    assert repr(kernel) == f"{text}nbytes={kernel.nbytes:,})"


def test_bar_is_shown_on_request_only(capsys):
    NETS["nearest"].kernel(tc.priors.Uniform())
    assert capsys.readouterr() == ("", "")
    NETS["nearest"].kernel(tc.priors.Uniform(), progress=True)
    assert "kernel" in capsys.readouterr().err


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="expected kind"):
        NETS["nearest"].kernel(tc.priors.Uniform(), kind="cntk")


def test_size_that_is_no_multiple_of_the_period_is_refused():
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="multiple of the period 4 x 4, got 10 x 12"):
        kernel.dense((10, 12))
    with pytest.raises(ValueError, match="multiple of 4 pixels, got 10"):
        NETS["nearest"].kernel(tc.priors.Uniform(), (10, 12))


def test_dense_without_a_size_is_refused():
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="expected size"):
        kernel.dense()


@pytest.mark.parametrize("size", [8, "88", 8.0, (8.0, 8.0), None])
def test_size_of_a_wrong_type_is_refused(size):
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises((TypeError, ValueError), match="expected size"):
        kernel.dense(size)


def test_size_of_another_dimension_is_refused():
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="expected size to have 2 entries, got 3"):
        kernel.dense((8, 8, 8))
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        NETS["nearest"].kernel(tc.priors.Uniform(), (8, 8, 8))
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        NETS["nearest"].kernel(tc.priors.Tensor(torch.ones(3, 8)))


def test_dense_kernel_serves_its_own_size_only(generator):
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 8, generator=generator)))
    with pytest.raises(ValueError, match="for images of 8 x 8 pixels, got 16 x 16"):
        kernel.dense((16, 16))


def test_features_that_do_not_fit_the_strides_are_refused(generator):
    with pytest.raises(ValueError, match="10"):
        NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 10, 8, generator=generator)))


@pytest.mark.parametrize("up", [tc.BilinearUp(2, padding_mode="border"), tc.BilinearUp(2, align_corners=True)])
def test_border_upsampling_needs_a_size(up):
    net = tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), up, tc.Conv2d(1, 1, 3))
    with pytest.raises(ValueError, match=r"belongs to one image size: expected size"):
        net.kernel(tc.priors.Uniform())


def test_hopeless_dense_kernel_is_refused_with_its_bytes():
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(tc.OutOfMemoryError, match=r"the dense kernel of 40000 x 40000 pixels needs .* TB, but .* free"):
        kernel.dense((40000, 40000))
    assert issubclass(tc.OutOfMemoryError, MemoryError)


def test_hopeless_kernel_of_features_is_refused_with_its_bytes():
    with pytest.raises(tc.OutOfMemoryError, match=r"1024 x 1024 pixels needs .* TB, but .* free; about \d+ x \d+"):
        NETS["nearest"].kernel(tc.priors.Tensor(torch.zeros(1, 1, 1).expand(1, 1024, 1024)))


def test_free_memory_is_what_counts(monkeypatch):
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    prior = tc.priors.Tensor(torch.zeros(1, 64, 64))
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": 1000)
    with pytest.raises(tc.OutOfMemoryError, match=r"dense kernel of 64 x 64 pixels needs .* MB, but 1 kB are free"):
        kernel.dense((64, 64))
    with pytest.raises(tc.OutOfMemoryError, match=r"on 64 x 64 pixels needs .* MB, but 1 kB are free"):
        NETS["nearest"].kernel(prior)


def test_unknown_free_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": None)
    assert NETS["nearest"].kernel(tc.priors.Uniform()).dense((8, 8)).shape == (8, 8, 8, 8)


# Files.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_kernel_comes_back_the_same(net, dtype, tmp_path):
    kernel, size, dense = sized_kernel(net, dtype=dtype)
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
    assert (loaded.period, loaded.radius, loaded.size) == (kernel.period, kernel.radius, kernel.size)
    assert loaded.dtype == dtype
    assert loaded.origin == json.loads(json.dumps(kernel.origin))
    assert loaded.origin["kind"] == "ntk"
    assert torch.equal(loaded.near.values, kernel.near.values)
    assert torch.equal(loaded.far.values, kernel.far.values)
    assert torch.equal(loaded.dense(size), dense)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_loaded_kernel_serves_sizes_on_which_it_wraps(net, kind, tmp_path):
    kernel = net.kernel(tc.priors.Normal(0.2, 0.5), kind=kind)
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
    size = tuple(math.lcm(p, n) for p, n in zip(kernel.period, smallest_size(net), strict=True))
    assert torch.equal(loaded.dense(size), kernel.dense(size))


def test_loaded_kernel_takes_the_dtype_asked_for(tmp_path):
    kernel, size, dense = sized_kernel(NETS["bilinear"])
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(str(tmp_path / "kernel.safetensors"), dtype=torch.float32)
    assert loaded.dtype == torch.float32
    assert_equal(loaded.dense(size).double(), dense, 1e-6)
    assert loaded.dense((8, 8)).dtype == torch.float32


def test_dense_kernel_is_saved_without_its_features(tmp_path, generator):
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 8, generator=generator)))
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
    assert loaded.size == (8, 8)
    assert loaded.origin["prior"] is None
    assert torch.equal(loaded.dense(), kernel.dense())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compact_file_holds_the_same_kernel(net, dtype, tmp_path):
    kernel, size, dense = sized_kernel(net, dtype=dtype)
    kernel.save(tmp_path / "compact.safetensors", compact=True)
    loaded = tc.load_kernel(tmp_path / "compact.safetensors")
    assert (loaded.period, loaded.radius, loaded.size, loaded.dtype) == (kernel.period, kernel.radius, None, dtype)
    assert loaded.near.geometry == kernel.near.geometry
    # Entries that are equal by symmetry were computed in another order.
    assert_equal(loaded.dense(size), dense, 4 * torch.finfo(dtype).eps)


def test_compact_file_is_smaller_by_the_symmetries(tmp_path):
    kernel = tc.default_network(levels=4).kernel(tc.priors.Uniform(), dtype=torch.float32)
    kernel.save(tmp_path / "kernel.safetensors", compact=True)
    # A quarter of the entries, before compression.
    assert (tmp_path / "kernel.safetensors").stat().st_size < kernel.nbytes / 4


def test_compact_file_of_a_dense_kernel_holds_it_to_the_bit(tmp_path, generator):
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 12, generator=generator)))
    kernel.save(tmp_path / "kernel.safetensors", compact=True)
    assert torch.equal(tc.load_kernel(tmp_path / "kernel.safetensors").dense(), kernel.dense())


@pytest.mark.parametrize("place", [0.4, 0.6, 0.8, 0.95])
def test_damaged_compact_file_is_refused(saved, place):
    NETS["nearest"].kernel(tc.priors.Uniform(), dtype=torch.float32).save(saved, compact=True)
    content = bytearray(saved.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + int(place * (len(content) - header))] ^= 0x55
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="not a consistent kernel file"):
        tc.load_kernel(saved)


def test_saving_replaces_an_older_file(tmp_path):
    path = tmp_path / "kernel.safetensors"
    NETS["bilinear"].kernel(tc.priors.Uniform()).save(path)
    NETS["nearest"].kernel(tc.priors.Uniform()).save(path)
    assert tc.load_kernel(path).radius == (3, 3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "kernel.safetensors"
    NETS["nearest"].kernel(tc.priors.Uniform()).save(path)
    return path


def rewrite(path, change_tensors=None, change_facts=None) -> None:
    with safetensors.safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (key,) = metadata
    facts = json.loads(metadata[key])
    for change, value in ((change_tensors, tensors), (change_facts, facts)):
        if change is not None:
            change(value)
    safetensors.torch.save_file(tensors, path, {key: json.dumps(facts)})


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no kernel file .*nothing\.safetensors"):
        tc.load_kernel(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated_file_is_refused(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        tc.load_kernel(saved)


def test_garbage_is_refused(tmp_path):
    path = tmp_path / "kernel.safetensors"
    path.write_bytes(b"\xff" * 1000)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        tc.load_kernel(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_file_is_refused(tmp_path, metadata):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"near": torch.ones(3)}, path, metadata)
    with pytest.raises(ValueError, match=r"expected a file written by Kernel\.save"):
        tc.load_kernel(path)


@pytest.mark.parametrize("version", [2, 99])
def test_newer_format_is_refused(saved, version):
    rewrite(saved, change_facts=lambda facts: facts.update(version=version))
    with pytest.raises(ValueError, match=f"expected format version 1 or older, got {version}"):
        tc.load_kernel(saved)


@pytest.mark.parametrize(
    ("change_tensors", "change_facts"),
    [
        (lambda tensors: tensors.update(near=tensors["near"][:, :-1].clone()), None),
        (lambda tensors: tensors.update(far=torch.zeros(1, 2, 1, 1, 1)), None),
        (lambda tensors: tensors.pop("near"), None),
        (lambda tensors: tensors.pop("far"), None),
        (None, lambda facts: facts.pop("radius")),
        (None, lambda facts: facts.pop("version")),
        (None, lambda facts: facts.update(version="next")),
        (None, lambda facts: facts.update(compact="float32")),
        (None, lambda facts: facts["tables"].pop("near")),
        (None, lambda facts: facts["tables"]["near"].update(period=[8, 8])),
        (None, lambda facts: facts["tables"].update(near=3)),
        (None, lambda facts: facts.update(radius="large")),
        (None, lambda facts: facts.update(radius=[3])),
        (None, lambda facts: facts.update(radius=[30, 30])),
        (None, lambda facts: facts.update(size=[7, 7, 7])),
    ],
)
def test_inconsistent_file_is_refused(saved, change_tensors, change_facts):
    rewrite(saved, change_tensors=change_tensors, change_facts=change_facts)
    with pytest.raises(ValueError, match="not a consistent kernel file"):
        tc.load_kernel(saved)


def test_file_of_an_unknown_network_is_refused(saved):
    rewrite(saved, change_facts=lambda facts: facts["origin"]["network"]["layers"][0].update(layer="Conv7d"))
    with pytest.raises(ValueError, match="describes a network that this version does not know"):
        tc.load_kernel(saved)


def test_saving_into_a_missing_folder_makes_nothing(tmp_path):
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(FileNotFoundError, match="expected the output's folder to exist"):
        kernel.save(tmp_path / "missing" / "kernel.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_saving_onto_a_folder_is_refused(tmp_path):
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(OSError, match="expected a file to write to"):
        kernel.save(tmp_path)


def test_failed_save_leaves_no_file_and_keeps_the_old_one(saved, monkeypatch):
    before = saved.read_bytes()

    def fill_the_disk(tensors, path, metadata):
        path.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        NETS["bilinear"].kernel(tc.priors.Uniform()).save(saved)
    assert list(saved.parent.iterdir()) == [saved]
    assert saved.read_bytes() == before


@pytest.mark.parametrize("lines", [1, 3, 8])
def test_dense_kernels_are_the_same_however_many_lines_are_looked_up_at_once(lines, generator, monkeypatch):
    # Also where the last block is smaller.
    kernel = tc.Sequential(tc.Conv2d(2, 1, 3), tc.ReLU()).kernel(
        tc.priors.Tensor(torch.rand(2, 8, 6, generator=generator, dtype=torch.float64))
    )
    monkeypatch.setattr("torch_cntk.kernels.kernel._DENSE_BLOCK", lines * 6 * 8 * 6)
    dense = kernel.dense()
    for pixel in ((0, 0), (2, 5), (3, 1), (7, 4)):
        assert torch.equal(dense[pixel], kernel.row(pixel))
