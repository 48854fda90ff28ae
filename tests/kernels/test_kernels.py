"""What every kernel must satisfy."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force
from tests.helpers.networks import (
    EXACT,
    NETS,
    assert_equal,
    autoencoder,
    expected_kernel,
    features_for,
    scales,
    sized_kernel,
    smallest_size,
)


@pytest.mark.parametrize("multiples", [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_one_kernel_serves_every_size(net: Any, multiples: Any, kind: Any) -> None:
    period = net.kernel(tc.priors.Uniform()).period
    step = tuple(math.lcm(p, n) for p, n in zip(period, smallest_size(net), strict=True))
    size = tuple(n * m for n, m in zip(step, multiples, strict=True))
    if math.prod(size) > 24**2:
        size = tuple(n * m for n, m in zip(step, (1, 2), strict=True))
    source = tuple(int(n / s) for n, s in zip(size, scales(net, 2)[-1], strict=True))
    expected = expected_kernel(net, tc.priors.Uniform(), source, kind)
    assert_equal(net.kernel(tc.priors.Uniform(), kind=kind).dense(size), expected)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nearest_levels_give_period_and_radius(levels: Any) -> None:
    kernel = autoencoder(levels, [tc.NearestUp(2)] * levels).kernel(tc.priors.Uniform())
    assert kernel.period == (2**levels,) * 2
    assert kernel.radius == (2**levels - 1,) * 2


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nearest_kernel_is_constant_beyond_its_radius_and_not_within(levels: Any) -> None:
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


def test_kernel_of_given_features_has_the_image_as_period(generator: torch.Generator) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 12, generator=generator)))
    assert kernel.period == kernel.size == (8, 12)


def test_border_bilinear_kernel_has_the_image_as_period() -> None:
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2, padding_mode="border"), tc.Conv2d(1, 1, 3))
    assert net.kernel(tc.priors.Uniform(), (8, 6)).period == (8, 6)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_kernel_is_symmetric_and_positive_semi_definite(net: Any, kind: Any) -> None:
    _, size, dense = sized_kernel(net, kind=kind)
    matrix = dense.reshape(math.prod(size), -1)
    assert (matrix - matrix.T).abs().max() <= 1e-14 * matrix.max()
    eigenvalues = torch.linalg.eigvalsh(matrix)
    # Rounding of some hundred additions.
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_kernel_of_features_is_symmetric_and_positive_semi_definite(net: Any, generator: torch.Generator) -> None:
    dense = net.kernel(features_for(net, generator)).dense()
    matrix = dense.reshape(math.prod(dense.shape[:2]), -1)
    assert (matrix - matrix.T).abs().max() <= 1e-14 * matrix.abs().max()
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_kernel_is_invariant_to_shifts_by_its_period(net: Any) -> None:
    kernel, _, dense = sized_kernel(net)
    for axis, p in enumerate(kernel.period):
        assert torch.equal(dense, dense.roll((p, p), (axis, 2 + axis)))


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_kernel_is_not_invariant_to_half_its_period(name: Any) -> None:
    kernel, _, dense = sized_kernel(NETS[name])
    for axis, p in enumerate(kernel.period):
        moved = dense.roll((p // 2, p // 2), (axis, 2 + axis))
        assert (moved - dense).abs().max() > 1e-3 * dense.max()


def test_at_row_and_dense_agree(net: Any) -> None:
    kernel, size, dense = sized_kernel(net)
    for pixel in itertools.islice(itertools.product(*(range(n) for n in size)), 0, None, 5):
        row = kernel.row(pixel, size)
        assert torch.equal(row, dense[pixel])
        other = tuple((3 * x + 1) % n for x, n in zip(pixel, size, strict=True))
        assert kernel.at(pixel, other, size) == float(row[other])


@pytest.mark.parametrize("pixel", [(-1, 0), (0, 8), (8, 0), (0,), (0, 0, 0)])
def test_pixel_outside_is_an_index_error(pixel: Any) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(IndexError, match="expected a pixel inside 8 x 8"):
        kernel.at(pixel, (0, 0), (8, 8))
    with pytest.raises(IndexError, match="expected a pixel inside 8 x 8"):
        kernel.row(pixel, (8, 8))


def test_float32_kernel_is_the_rounded_float64_one(net: Any) -> None:
    kernel, size, dense = sized_kernel(net)
    single = net.kernel(tc.priors.Uniform(), dtype=torch.float32)
    assert single.dtype == torch.float32
    assert single.nbytes * 2 == kernel.nbytes
    # Two roundings of 6e-8, near and far.
    assert_equal(single.dense(size).double(), dense, 1e-6)
    assert_equal(kernel.to(torch.float32).dense(size).double(), dense, 1e-6)


def test_float32_features_give_a_float32_kernel(generator: torch.Generator) -> None:
    features = torch.randn(3, 8, 8, generator=generator)
    single = NETS["nearest"].kernel(tc.priors.Tensor(features))
    double = NETS["nearest"].kernel(tc.priors.Tensor(features.double()))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert_equal(single.dense().double(), double.dense(), 1e-6)


@pytest.mark.parametrize("entries", [1, 64, 1000])
def test_slab_size_does_not_matter(
    net: Any, entries: Any, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    _, size, dense = sized_kernel(net)
    prior = features_for(net, generator)
    whole = net.kernel(prior).dense()
    monkeypatch.setattr("torch_cntk.covariance.lattice.evaluation._SLAB_ENTRIES", entries)
    # Only the order of additions may differ.
    assert_equal(net.kernel(tc.priors.Uniform()).dense(size), dense, 1e-14)
    assert_equal(net.kernel(prior).dense(), whole, 1e-13)


def test_number_of_threads_does_not_matter(net: Any, threads: Any, generator: torch.Generator) -> None:
    # Large enough that a slab is shared out.
    prior = features_for(net, generator, side=20)
    kernels = []
    for count in (1, 2):
        threads(count)
        kernels.append((net.kernel(tc.priors.Uniform()).near.values, net.kernel(prior).near.values))
    for one, two in zip(*kernels, strict=True):
        assert_equal(two, one, 1e-14)


def test_kernel_does_not_depend_on_widths_or_weights() -> None:
    narrow = tc.Sequential(tc.StridedConv2d(2, 3, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(3, 1, 3))
    wide = tc.Sequential(tc.StridedConv2d(5, 40, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(40, 7, 3))
    first, second = (net.kernel(tc.priors.Uniform()).dense((4, 4)) for net in (narrow, wide))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "encoder only"])
def test_ntk_exceeds_the_nngp_by_a_kernel_after_a_last_convolution(name: Any) -> None:
    _, size, ntk = sized_kernel(NETS[name])
    _, _, nngp = sized_kernel(NETS[name], kind="nngp")
    eigenvalues = torch.linalg.eigvalsh((ntk - nngp).reshape(math.prod(size), -1))
    assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]


def test_repr_says_period_radius_and_precision() -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform(), dtype=torch.float32)
    text = "Kernel(period=(4, 4), radius=(3, 3), size=any multiple of the period, dtype=float32, "
    assert repr(kernel) == f"{text}nbytes={kernel.nbytes:,})"


def test_bar_is_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    NETS["nearest"].kernel(tc.priors.Uniform())
    assert capsys.readouterr() == ("", "")
    NETS["nearest"].kernel(tc.priors.Uniform(), progress=True)
    assert "kernel" in capsys.readouterr().err


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected kind"):
        NETS["nearest"].kernel(tc.priors.Uniform(), kind="cntk")


def test_size_that_is_no_multiple_of_the_period_is_refused() -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="multiple of the period 4 x 4, got 10 x 12"):
        kernel.dense((10, 12))
    with pytest.raises(ValueError, match="multiple of 4 pixels, got 10"):
        NETS["nearest"].kernel(tc.priors.Uniform(), (10, 12))


@pytest.mark.parametrize("prior", [3, None, torch.ones(3, 8, 8), tc.priors.Uniform])
def test_what_is_no_prior_is_refused(prior: Any) -> None:
    with pytest.raises(TypeError, match="expected a feature prior"):
        NETS["nearest"].kernel(prior)


def test_dense_without_a_size_is_refused() -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="expected size"):
        kernel.dense()


@pytest.mark.parametrize("size", [8, "88", 8.0, (8.0, 8.0), None])
def test_size_of_a_wrong_type_is_refused(size: Any) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises((TypeError, ValueError), match="expected size"):
        kernel.dense(size)


def test_size_of_another_dimension_is_refused() -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="expected size to have 2 entries, got 3"):
        kernel.dense((8, 8, 8))
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        NETS["nearest"].kernel(tc.priors.Uniform(), (8, 8, 8))
    with pytest.raises(ValueError, match="same number of spatial dimensions"):
        NETS["nearest"].kernel(tc.priors.Tensor(torch.ones(3, 8)))


def test_dense_kernel_serves_its_own_size_only(generator: torch.Generator) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 8, generator=generator)))
    with pytest.raises(ValueError, match="for images of 8 x 8 pixels, got 16 x 16"):
        kernel.dense((16, 16))


def test_features_that_do_not_fit_the_strides(generator: torch.Generator) -> None:
    """As in the finite network: 10 pixels become 5, 3, 6 and 12."""
    z = torch.randn(3, 10, 8, generator=generator, dtype=torch.float64)
    found = NETS["nearest"].kernel(tc.priors.Tensor(z)).dense((12, 8))
    assert_equal(found, brute_force.propagate(NETS["nearest"], brute_force.feature_prior(z))[1])


@pytest.mark.parametrize("up", [tc.BilinearUp(2, padding_mode="border"), tc.BilinearUp(2, align_corners=True)])
def test_border_upsampling_needs_a_size(up: Any) -> None:
    net = tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), up, tc.Conv2d(1, 1, 3))
    with pytest.raises(ValueError, match=r"belongs to one image size: expected size"):
        net.kernel(tc.priors.Uniform())


def test_hopeless_dense_kernel_is_refused_with_its_bytes() -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(tc.OutOfMemoryError, match=r"the dense kernel of 40000 x 40000 pixels needs .* TB, but .* free"):
        kernel.dense((40000, 40000))
    assert issubclass(tc.OutOfMemoryError, MemoryError)


def test_hopeless_kernel_of_features_is_refused_with_its_bytes() -> None:
    with pytest.raises(tc.OutOfMemoryError, match=r"1024 x 1024 pixels needs .* TB, but .* free; about \d+ x \d+"):
        NETS["nearest"].kernel(tc.priors.Tensor(torch.zeros(1, 1, 1).expand(1, 1024, 1024)))


def test_free_memory_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    prior = tc.priors.Tensor(torch.zeros(1, 64, 64))
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": 1000)
    with pytest.raises(tc.OutOfMemoryError, match=r"dense kernel of 64 x 64 pixels needs .* MB, but 1 kB are free"):
        kernel.dense((64, 64))
    with pytest.raises(tc.OutOfMemoryError, match=r"on 64 x 64 pixels needs .* MB, but 1 kB are free"):
        NETS["nearest"].kernel(prior)


def test_unknown_free_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": None)
    assert NETS["nearest"].kernel(tc.priors.Uniform()).dense((8, 8)).shape == (8, 8, 8, 8)


@pytest.mark.parametrize("lines", [1, 3, 8])
def test_dense_kernels_are_the_same_however_many_lines_are_looked_up_at_once(
    lines: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where the last block is smaller.
    kernel = tc.Sequential(tc.Conv2d(2, 1, 3), tc.ReLU()).kernel(
        tc.priors.Tensor(torch.rand(2, 8, 6, generator=generator, dtype=torch.float64))
    )
    monkeypatch.setattr("torch_cntk.kernels.storage._DENSE_BLOCK", lines * 6 * 8 * 6)
    dense = kernel.dense()
    for pixel in ((0, 0), (2, 5), (3, 1), (7, 4)):
        assert torch.equal(dense[pixel], kernel.row(pixel))


@pytest.mark.parametrize(
    "layer", [tc.Residual(tc.ReLU(), tc.Conv2d(2, 2, 3)), tc.Sequential(tc.Conv2d(2, 2, 1), tc.Scale(1e30))]
)
def test_a_kernel_that_float64_cannot_hold_is_refused(layer: Any) -> None:
    copies = [copy.deepcopy(layer) for _ in range(1100)]
    net = tc.Sequential(tc.Conv2d(2, 2, 3), *copies)
    with pytest.raises(ValueError, match="a finite kernel"):
        net.kernel(tc.priors.Uniform())


def test_a_matrix_that_float64_cannot_hold_is_refused() -> None:
    net = tc.Sequential(tc.Linear(3, 4), *(tc.Residual(tc.ReLU(), tc.Linear(4, 4)) for _ in range(1100)))
    with pytest.raises(ValueError, match="a finite kernel"):
        net.gram(torch.rand(5, 3))
