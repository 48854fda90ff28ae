"""K @ w without the matrix equals the product with the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.operators.correlation import Patches, Shifts, correlation

CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}
UPS: dict[str, Callable[[], tc.Layer]] = {
    "nearest": lambda: tc.NearestUp(2),
    "nearest 3": lambda: tc.NearestUp(3),
    "bilinear": lambda: tc.BilinearUp(2),
    "bilinear 3": lambda: tc.BilinearUp(3),
}


def autoencoder(ndim: int, ups: list[tc.Layer]) -> tc.Sequential:
    conv = CONV[ndim]
    layers: list[tc.Layer] = [conv(1, 1, 3, stride=2), tc.LeakyReLU(0.2)]
    for up in ups:
        layers += [up, conv(1, 1, 3), tc.LeakyReLU(0.2)]
    return tc.Sequential(*layers, conv(1, 1, 1))


# Roundings, of a sum of absolute values: 45 in float64, 5 in float32.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 3e-7}


def assert_multiplies(
    kernel: tc.Kernel, size: tuple[int, ...], images: torch.Tensor, dtype: Any = torch.float64
) -> None:
    product = kernel.operator(size, dtype=dtype) @ images
    assert (product.shape, product.dtype) == (images.shape, images.dtype)
    matrix = kernel.dense(size).double().reshape(math.prod(size), -1)
    flat = images.double().reshape(-1, math.prod(size))
    error = (product.double().reshape(flat.shape) - flat @ matrix.T).abs().max()
    assert error <= TOLERANCE[dtype] * (flat.abs() @ matrix.abs().T).max()
    # Where nothing cancels, that is this much of the result.
    positive = (kernel.operator(size, dtype=dtype) @ images.abs()).double().reshape(flat.shape)
    expected = flat.abs() @ matrix.T
    assert (positive - expected).abs().max() <= {torch.float64: 1e-12, torch.float32: 1e-5}[dtype] * expected.max()


def check(kernel: tc.Kernel, size: tuple[int, ...], generator: torch.Generator) -> None:
    images = torch.randn(3, *size, generator=generator, dtype=torch.float64)
    # One image without a mean: the far part, which is most of the kernel, must not drown the rest.
    images[0] -= images[0].mean()
    assert_multiplies(kernel, size, images)


@pytest.fixture(params=[Shifts, Patches], ids=["shifts", "patches"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to multiply by the near part, whichever would be chosen."""
    monkeypatch.setattr("torch_cntk.operators.periodic.correlation", request.param)


@pytest.fixture(params=[1, 1 << 21], ids=["bands", "whole"])
def bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of cells at a time, and all of them."""
    monkeypatch.setattr("torch_cntk.operators.shifts._PLANE_BYTES", request.param)
    monkeypatch.setattr("torch_cntk.operators.patches._PATCH_BYTES", request.param)
    monkeypatch.setattr("torch_cntk.operators.patches._CELLS", 1 if request.param == 1 else 192)


@pytest.mark.usefixtures("form", "bands")
@pytest.mark.parametrize("name", UPS)
@pytest.mark.parametrize("multiple", [1, 2, 3, 5])
def test_1d_operator_equals_the_matrix(name: Any, multiple: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(1, [UPS[name]()]).kernel(tc.priors.Uniform())
    check(kernel, (multiple * kernel.period[0] * 2,), generator)


@pytest.mark.usefixtures("form", "bands")
@pytest.mark.parametrize("name", UPS)
@pytest.mark.parametrize("multiples", [(1, 1), (1, 3), (2, 2), (3, 2), (3, 3)])
def test_2d_operator_equals_the_matrix(name: Any, multiples: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(2, [UPS[name]()]).kernel(tc.priors.Uniform())
    check(kernel, tuple(m * p for m, p in zip(multiples, kernel.period, strict=True)), generator)


@pytest.mark.usefixtures("form", "bands")
@pytest.mark.parametrize("names", [("nearest", "bilinear"), ("bilinear", "nearest"), ("bilinear", "bilinear")])
@pytest.mark.parametrize("multiples", [(1, 1), (2, 3), (4, 3), (5, 6)])
def test_2d_operator_of_two_levels_equals_the_matrix(names: Any, multiples: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(2, [UPS[name]() for name in names]).kernel(tc.priors.Uniform())
    check(kernel, tuple(m * p for m, p in zip(multiples, kernel.period, strict=True)), generator)


@pytest.mark.usefixtures("form", "bands")
@pytest.mark.parametrize("name", ["nearest", "bilinear"])
@pytest.mark.parametrize("multiples", [(1, 1, 1), (3, 2, 2), (4, 4, 4)])
def test_3d_operator_equals_the_matrix(name: Any, multiples: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(3, [UPS[name]()]).kernel(tc.priors.Uniform())
    check(kernel, tuple(m * p for m, p in zip(multiples, kernel.period, strict=True)), generator)


@pytest.mark.usefixtures("form", "bands")
def test_operator_of_an_oblong_period_equals_the_matrix(generator: torch.Generator) -> None:
    layers = [tc.Conv2d(1, 1, (3, 5), (2, 1), bias=True, bias_std=0.1), tc.ReLU(), tc.NearestUp(2)]
    net = tc.Sequential(*layers, tc.StridedConv2d(1, 1, 3, (1, 2)), tc.ReLU())
    kernel = net.kernel(tc.priors.Normal(0.2, 0.5))
    assert kernel.period == (2, 1)
    check(kernel, (6, 5), generator)


def test_a_short_period_is_shifted_and_a_long_one_laid_out() -> None:
    for levels, form in ((2, Shifts), (6, Patches)):
        kernel = tc.load_kernel(f"uniform-{levels}x128-leaky0.1")
        near = correlation(kernel.near, kernel.radius, torch.float32)
        assert type(near) is form
        # Every weight of four bytes is multiplied and added once for each cell.
        assert near.nbytes == 2 * near.operations * math.prod(near.period)
        assert near.cost > near.operations


def test_far_part_of_a_bilinear_kernel_depends_on_the_phases() -> None:
    # Otherwise the tests above would not see whether an operator mixes the phases.
    kernel = autoencoder(2, [tc.BilinearUp(2), tc.BilinearUp(2)]).kernel(tc.priors.Uniform())
    assert kernel.far is not None
    far = kernel.far.values
    assert float(far.max() - far.min()) > 1e-6 * float(far.max())


def test_operator_of_given_features_equals_the_matrix(generator: torch.Generator) -> None:
    features = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    kernel = autoencoder(2, [tc.BilinearUp(2)]).kernel(tc.priors.Tensor(features))
    check(kernel, (6, 8), generator)


@pytest.mark.parametrize("name", UPS)
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 1, 3)])
def test_operator_takes_any_batch(name: Any, shape: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(2, [UPS[name]()]).kernel(tc.priors.Uniform())
    size = tuple(4 * p for p in kernel.period)
    images = torch.randn(*shape, *size, generator=generator, dtype=torch.float64)
    assert_multiplies(kernel, size, images)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("name", UPS)
@pytest.mark.parametrize("multiple", [1, 4])
def test_float32_operator_is_good_to_float32(name: Any, multiple: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(2, [UPS[name]()]).kernel(tc.priors.Uniform())
    size = tuple(multiple * p for p in kernel.period)
    images = torch.randn(2, *size, generator=generator)
    assert kernel.operator(size, dtype=torch.float32).dtype == torch.float32
    assert_multiplies(kernel, size, images, torch.float32)


def test_float32_operator_keeps_float64_images(generator: torch.Generator) -> None:
    kernel = autoencoder(2, [tc.NearestUp(2)]).kernel(tc.priors.Uniform(), dtype=torch.float32)
    images = torch.randn(2, 8, 8, generator=generator, dtype=torch.float64)
    assert kernel.operator((8, 8)).dtype == torch.float32
    assert_multiplies(kernel, (8, 8), images, torch.float32)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("size", [(4, 4), (12, 8)])
def test_images_that_are_not_contiguous_are_multiplied_alike(size: Any, generator: torch.Generator) -> None:
    kernel = autoencoder(2, [tc.NearestUp(2)]).kernel(tc.priors.Uniform())
    images = torch.randn(*reversed(size), 3, generator=generator, dtype=torch.float64).permute(2, 1, 0)
    assert not images.is_contiguous()
    assert_multiplies(kernel, size, images)


def test_operator_leaves_its_argument_alone(generator: torch.Generator) -> None:
    kernel = autoencoder(2, [tc.BilinearUp(2)]).kernel(tc.priors.Uniform())
    for size in ((2, 2), (10, 12)):
        images = torch.randn(2, *size, generator=generator, dtype=torch.float64)
        before = images.clone()
        kernel.operator(size) @ images
        assert torch.equal(images, before)


@pytest.mark.parametrize("name", UPS)
@pytest.mark.parametrize("multiple", [1, 4])
def test_operator_knows_its_diagonal_and_its_stationary_average(name: Any, multiple: Any) -> None:
    kernel = autoencoder(2, [UPS[name]()]).kernel(tc.priors.Uniform())
    size = tuple(multiple * p for p in kernel.period)
    operator = kernel.operator(size)
    dense = kernel.dense(size)
    diagonal = dense.reshape(math.prod(size), -1).diagonal()
    assert operator.mean_diagonal == pytest.approx(float(diagonal.mean()), rel=1e-12)
    positions = [(i, j) for i in range(size[0]) for j in range(size[1])]
    average = sum(dense[i, j].roll((-i, -j), (0, 1)) for i, j in positions) / len(positions)
    torch.testing.assert_close(operator.stationary, average, rtol=1e-12, atol=1e-14)
    assert torch.equal(operator.diagonal.flatten(), diagonal)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("prior", [tc.priors.Uniform(), tc.priors.Meshgrid()])
def test_entries_are_those_of_the_matrix(ndim: Any, prior: Any, generator: torch.Generator) -> None:
    size = (8, 12, 4)[:ndim]
    operator = autoencoder(ndim, [tc.NearestUp(2)]).kernel(prior, size).operator(size)
    pixels = math.prod(size)
    first = torch.randint(pixels, (7,), generator=generator)
    second = torch.randint(pixels, (5,), generator=generator)
    matrix = operator.multiply(torch.eye(pixels, dtype=torch.float64).reshape(pixels, *size))
    expected = matrix.reshape(pixels, pixels)[first][:, second]
    # The product multiplies by ones and zeros: a rounding of the far part is added.
    torch.testing.assert_close(operator.entries(first, second), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(8,), (8, 4), (4, 8), (3, 8, 9), (8, 8, 3), ()])
def test_wrong_shape_is_refused(shape: Any) -> None:
    kernel = autoencoder(2, [tc.NearestUp(2)]).kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="expected images of 8 x 8 pixels, got shape"):
        kernel.operator((8, 8)) @ torch.zeros(shape)


def test_size_that_does_not_fit_is_refused() -> None:
    kernel = autoencoder(2, [tc.NearestUp(2)]).kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="multiple of the period 2 x 2, got 7 x 8"):
        kernel.operator((7, 8))
    with pytest.raises(ValueError, match="expected size"):
        kernel.operator()


def test_hopeless_dense_operator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = autoencoder(2, [tc.NearestUp(2)]).kernel(tc.priors.Tensor(torch.ones(1, 48, 48)), dtype=torch.float32)
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": 1000)
    with pytest.raises(tc.OutOfMemoryError, match=r"needs .* MB, but 1 kB are free"):
        kernel.operator()
