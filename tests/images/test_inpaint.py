"""Filling images: against a dense direct solve, in every form that an image may come in, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.images.periodic import canvas_for

# Far below the tolerance asked of the result.
TIGHT = tc.ConjugateGradient(tolerance=1e-13, max_iterations=5000)
# float64 solutions of problems of condition 1e4 at most.
CLOSE = 1e-9
RIDGE = 1e-3
CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}


def network(ndim: int = 2, up: tc.Layer | None = None) -> tc.Sequential:
    conv = CONV[ndim]
    layers = [conv(1, 1, 3, stride=2), tc.LeakyReLU(0.2), up or tc.NearestUp(2), conv(1, 1, 3), tc.LeakyReLU(0.2)]
    return tc.Sequential(*layers, conv(1, 1, 1))


KERNELS = {
    "nearest": network().kernel(tc.priors.Uniform(0, 0.1)),
    "bilinear": network(up=tc.BilinearUp(2)).kernel(tc.priors.Uniform(0, 0.1)),
    "1d": network(1).kernel(tc.priors.Uniform(0, 0.1)),
    "3d": network(3).kernel(tc.priors.Uniform(0, 0.1)),
}


def randn(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=dtype)


def random_mask(*shape: int, generator: torch.Generator, share: float = 0.6) -> torch.Tensor:
    mask = torch.rand(*shape, generator=generator) < share
    mask.view(-1)[0] = True
    mask.view(-1)[-1] = False
    return mask


def direct(
    image: torch.Tensor, observed: torch.Tensor, kernel: tc.Kernel, canvas: tuple[int, ...], ridge: float = RIDGE
) -> torch.Tensor:
    """Fill [..., *size] in the corner of a canvas by factorising the observed block of the dense matrix."""
    size = tuple(observed.shape)
    pixels = math.prod(canvas)
    matrix = kernel.dense(canvas).double().reshape(pixels, pixels)
    place = torch.arange(pixels).reshape(canvas)[tuple(slice(n) for n in size)].reshape(-1)
    known = place[observed.reshape(-1)]
    block = matrix[known][:, known] + ridge * matrix.diagonal().mean() * torch.eye(len(known), dtype=torch.float64)
    values = image.double().reshape(-1, observed.numel())[:, observed.reshape(-1)]
    mean = values.mean(1, keepdim=True)
    filled = torch.linalg.solve(block, (values - mean).T).T @ matrix[known][:, place] + mean
    return torch.where(observed, image.double(), filled.reshape(image.shape))


def roomy(size: tuple[int, ...], kernel: tc.Kernel) -> tuple[int, ...]:
    """A canvas on which opposite edges are far apart; two periods larger than it need be."""
    least = (max(n + r, 2 * r + 1) for n, r in zip(size, kernel.radius, strict=True))
    return tuple((math.ceil(n / p) + 2) * p for n, p in zip(least, kernel.period, strict=True))


def fill(image: Any, observed: Any, kernel: Any, **options: Any) -> torch.Tensor:
    result = tc.inpaint(image, observed, kernel, **{"solver": TIGHT, "ridge": RIDGE, **options})
    # The status may be a stop short of so tight a tolerance; what counts is compared with the direct solution.
    assert result.residual < 1e-10
    assert result.image.shape == image.shape
    return result.image


def assert_close(filled: torch.Tensor, expected: torch.Tensor, tolerance: float = CLOSE) -> None:
    assert (filled - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(8, 8), (12, 6), (2, 4), (7, 9), (5, 12), (1, 7)])
def test_image_equals_the_direct_solution(name: Any, size: Any, generator: torch.Generator) -> None:
    kernel = KERNELS[name]
    image, observed = randn(3, *size, generator=generator), random_mask(*size, generator=generator)
    assert_close(fill(image, observed, kernel), direct(image, observed, kernel, roomy(size, kernel)))


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(8, 8), (12, 6), (2, 4), (10, 10)])
def test_wrapping_image_equals_the_direct_solution_on_the_torus(
    name: Any, size: Any, generator: torch.Generator
) -> None:
    kernel = KERNELS[name]
    image, observed = randn(2, *size, generator=generator), random_mask(*size, generator=generator)
    assert_close(fill(image, observed, kernel, wrap=True), direct(image, observed, kernel, size))


def test_wrapping_joins_opposite_edges_and_the_default_does_not(generator: torch.Generator) -> None:
    kernel = KERNELS["nearest"]
    observed = torch.ones(12, 12, dtype=torch.bool)
    observed[:, 0] = False
    image = randn(1, 12, 12, generator=generator)
    changed = image.clone()
    changed[:, :, -1] += 1
    apart, together = (
        (fill(image, observed, kernel, wrap=wrap) - fill(changed, observed, kernel, wrap=wrap))[:, :, 0].abs().max()
        for wrap in (False, True)
    )
    assert apart < 0.5 * together


def test_wrapping_image_may_be_rolled_by_the_period(generator: torch.Generator) -> None:
    kernel = KERNELS["nearest"]
    image, observed = randn(2, 8, 12, generator=generator), random_mask(8, 12, generator=generator)
    moved = fill(image.roll((2, 4), (1, 2)), observed.roll((2, 4), (0, 1)), kernel, wrap=True)
    assert_close(moved, fill(image, observed, kernel, wrap=True).roll((2, 4), (1, 2)))


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(16,), (10,)])
def test_1d_image_equals_the_direct_solution(wrap: Any, size: Any, generator: torch.Generator) -> None:
    kernel = KERNELS["1d"]
    image, observed = randn(2, *size, generator=generator), random_mask(*size, generator=generator)
    canvas = size if wrap else roomy(size, kernel)
    assert_close(fill(image, observed, kernel, wrap=wrap), direct(image, observed, kernel, canvas))


@pytest.mark.parametrize("wrap", [False, True])
def test_3d_image_equals_the_direct_solution(wrap: Any, generator: torch.Generator) -> None:
    kernel, size = KERNELS["3d"], (4, 6, 4)
    image, observed = randn(2, *size, generator=generator), random_mask(*size, generator=generator)
    canvas = size if wrap else roomy(size, kernel)
    assert_close(fill(image, observed, kernel, wrap=wrap), direct(image, observed, kernel, canvas))


def test_odd_1d_and_3d_images_are_filled(generator: torch.Generator) -> None:
    signal, observed = randn(13, generator=generator), random_mask(13, generator=generator)
    expected = direct(signal, observed, KERNELS["1d"], roomy((13,), KERNELS["1d"]))
    assert_close(fill(signal, observed, KERNELS["1d"]), expected)
    volume, observed = randn(1, 3, 5, 2, generator=generator), random_mask(3, 5, 2, generator=generator)
    expected = direct(volume, observed, KERNELS["3d"], roomy((3, 5, 2), KERNELS["3d"]))
    assert_close(fill(volume, observed, KERNELS["3d"]), expected)


@pytest.mark.parametrize("up", [tc.NearestUp(2), tc.BilinearUp(2, padding_mode="border")], ids=repr)
def test_dense_kernel_of_given_features_equals_the_direct_solution(up: Any, generator: torch.Generator) -> None:
    kernel = network(up=up).kernel(tc.priors.Tensor(randn(4, 8, 10, generator=generator)))
    image, observed = randn(3, 8, 10, generator=generator), random_mask(8, 10, generator=generator)
    assert_close(fill(image, observed, kernel), direct(image, observed, kernel, (8, 10)))


def test_dense_kernel_of_a_border_network_equals_the_direct_solution(generator: torch.Generator) -> None:
    kernel = network(up=tc.BilinearUp(2, align_corners=True)).kernel(tc.priors.Uniform(), (8, 6))
    image, observed = randn(8, 6, generator=generator), random_mask(8, 6, generator=generator)
    assert_close(fill(image, observed, kernel), direct(image, observed, kernel, (8, 6)))


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1e-1])
def test_ridge_is_relative_to_the_mean_diagonal(ridge: Any, generator: torch.Generator) -> None:
    kernel = KERNELS["nearest"]
    image, observed = randn(1, 8, 8, generator=generator), random_mask(8, 8, generator=generator)
    expected = direct(image, observed, kernel, roomy((8, 8), kernel), ridge)
    assert_close(fill(image, observed, kernel, ridge=ridge), expected, 1e-7)


def test_scale_of_the_prior_does_not_matter(generator: torch.Generator) -> None:
    image, observed = randn(1, 8, 8, generator=generator), random_mask(8, 8, generator=generator)
    small, large = (network().kernel(tc.priors.Uniform(0, high)) for high in (0.1, 100))
    assert_close(fill(image, observed, small), fill(image, observed, large))


def test_channels_are_filled_separately(generator: torch.Generator) -> None:
    kernel = KERNELS["bilinear"]
    image, observed = randn(3, 9, 8, generator=generator), random_mask(9, 8, generator=generator)
    together = fill(image, observed, kernel)
    for channel in range(3):
        assert_close(together[channel], fill(image[channel], observed, kernel))
        assert_close(together[channel : channel + 1], fill(image[channel : channel + 1], observed, kernel))


def test_filling_is_linear_in_the_image(generator: torch.Generator) -> None:
    kernel = KERNELS["nearest"]
    first, second = randn(2, 1, 8, 8, generator=generator)
    observed = random_mask(8, 8, generator=generator)
    mixed = fill(3 * first - 100 * second, observed, kernel)
    expected = 3 * fill(first, observed, kernel) - 100 * fill(second, observed, kernel)
    assert_close(mixed, expected)


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_batch_with_one_mask_equals_separate_calls(name: Any, generator: torch.Generator) -> None:
    batch, observed = randn(4, 3, 7, 8, generator=generator), random_mask(7, 8, generator=generator)
    filled = fill(batch, observed, KERNELS[name])
    for image, one in zip(batch, filled, strict=True):
        assert_close(one, fill(image, observed, KERNELS[name]))


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_batch_with_a_mask_each_equals_separate_calls(name: Any, generator: torch.Generator) -> None:
    batch, masks = randn(4, 3, 7, 8, generator=generator), random_mask(4, 7, 8, generator=generator)
    masks[:, 0, 0] = True
    masks[2] = True
    filled = fill(batch, masks, KERNELS[name])
    for image, observed, one in zip(batch, masks, filled, strict=True):
        assert_close(one, fill(image, observed, KERNELS[name]))
    assert torch.equal(filled[2], batch[2])


def test_batch_of_one_keeps_its_shape(generator: torch.Generator) -> None:
    image, mask = randn(1, 3, 8, 8, generator=generator), random_mask(1, 8, 8, generator=generator)
    filled = fill(image, mask, KERNELS["nearest"])
    assert_close(filled[0], fill(image[0], mask[0], KERNELS["nearest"]))


def test_nan_is_missing_by_default(generator: torch.Generator) -> None:
    kernel = KERNELS["nearest"]
    image, observed = randn(3, 8, 8, generator=generator), random_mask(8, 8, generator=generator)
    holes = torch.where(observed, image, math.nan)
    assert torch.equal(fill(holes, None, kernel), fill(image, observed, kernel))
    # In one channel; the others have all their pixels.
    holes = image.clone()
    holes[1][~observed] = math.nan
    filled = fill(holes, None, kernel)
    assert torch.equal(filled[[0, 2]], image[[0, 2]])
    assert torch.equal(filled[1], fill(image[1], observed, kernel))


def test_nan_is_missing_in_each_image_of_a_batch(generator: torch.Generator) -> None:
    kernel = KERNELS["nearest"]
    batch, masks = randn(3, 2, 8, 8, generator=generator), random_mask(3, 8, 8, generator=generator)
    masks[:, 0, 0] = True
    holes = torch.where(masks[:, None], batch, math.nan)
    assert torch.equal(fill(holes, None, kernel), fill(batch, masks, kernel))


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_at_unobserved_pixels_does_not_matter(junk: Any, generator: torch.Generator) -> None:
    kernel = KERNELS["bilinear"]
    image, observed = randn(3, 7, 8, generator=generator), random_mask(7, 8, generator=generator)
    dirty = torch.where(observed, image, junk)
    assert torch.equal(fill(dirty, observed, kernel), fill(image, observed, kernel))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel_dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_observed_pixels_are_the_same_to_the_bit(
    dtype: Any, kernel_dtype: Any, generator: torch.Generator
) -> None:
    kernel = network().kernel(tc.priors.Uniform(), dtype=kernel_dtype)
    image = randn(3, 9, 8, generator=generator, dtype=dtype)
    observed = random_mask(9, 8, generator=generator)
    result = tc.inpaint(image, observed, kernel, ridge=RIDGE)
    assert result.image.dtype == dtype
    assert torch.equal(result.image[:, observed], image[:, observed])
    assert not torch.equal(result.image[:, ~observed], image[:, ~observed])
    expected = direct(image, observed, kernel, roomy((9, 8), kernel))
    # Ten times the solver's default tolerance.
    assert (result.image.double() - expected).norm() <= 1e-3 * expected.norm()


def test_arguments_are_left_alone(generator: torch.Generator) -> None:
    image, observed = randn(3, 9, 8, generator=generator), random_mask(9, 8, generator=generator)
    before = image.clone(), observed.clone()
    result = fill(image, observed, KERNELS["nearest"])
    assert torch.equal(image, before[0])
    assert torch.equal(observed, before[1])
    result.zero_()
    assert torch.equal(image, before[0])


def test_image_that_is_not_contiguous_is_filled(generator: torch.Generator) -> None:
    image, observed = randn(8, 10, 3, generator=generator), random_mask(10, 8, generator=generator).T
    assert torch.equal(
        fill(image.permute(2, 0, 1), observed, KERNELS["nearest"]),
        fill(image.permute(2, 0, 1).contiguous(), observed.contiguous(), KERNELS["nearest"]),
    )


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (2, 3, 8, 8)])
def test_everything_observed_returns_the_image(shape: Any, generator: torch.Generator) -> None:
    image = randn(*shape, generator=generator)
    for observed in (None, torch.ones(8, 8, dtype=torch.bool)):
        result = tc.inpaint(image, observed, KERNELS["nearest"])
        assert torch.equal(result.image, image)
        assert result.image.data_ptr() != image.data_ptr()
        assert (result.residual, result.iterations, result.converged) == (0, 0, True)
        assert result.status is tc.Status.CONVERGED


def test_zeros_are_filled_with_zeros(generator: torch.Generator) -> None:
    observed = random_mask(8, 8, generator=generator)
    result = tc.inpaint(torch.zeros(3, 8, 8), observed, KERNELS["nearest"])
    assert bool((result.image == 0).all())
    assert result.converged


def test_single_observed_pixel_is_enough() -> None:
    observed = torch.zeros(8, 8, dtype=torch.bool)
    observed[3, 4] = True
    image = torch.full((1, 8, 8), 0.7, dtype=torch.float64)
    kernel = KERNELS["nearest"]
    assert_close(fill(image, observed, kernel), direct(image, observed, kernel, roomy((8, 8), kernel)))


def test_same_call_gives_the_same_image(generator: torch.Generator) -> None:
    image = randn(3, 16, 15, generator=generator, dtype=torch.float32)
    observed = random_mask(16, 15, generator=generator)
    first, second = (tc.inpaint(image, observed, KERNELS["bilinear"]) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert (first.residual, first.iterations) == (second.residual, second.iterations)


def test_result_tells_how_it_went(generator: torch.Generator) -> None:
    image, observed = randn(3, 16, 16, generator=generator), random_mask(16, 16, generator=generator)
    done = tc.inpaint(image, observed, KERNELS["nearest"], solver=tc.ConjugateGradient(), ridge=RIDGE)
    assert done.converged
    assert done.ridge == RIDGE
    assert done.solver == "conjugate gradients (circulant, float64)"
    assert 0 < done.residual <= 1e-4
    assert done.iterations > 1
    assert done.seconds > 0
    stopped = tc.inpaint(image, observed, KERNELS["nearest"], solver=tc.ConjugateGradient(1e-10, 2), ridge=RIDGE)
    assert not stopped.converged
    assert stopped.status is tc.Status.ITERATIONS
    assert stopped.iterations == 2
    assert 1e-10 < stopped.residual <= 1


def test_constant_image_is_continued() -> None:
    image = torch.full((1, 24, 24), 0.5, dtype=torch.float64)
    observed = torch.ones(24, 24, dtype=torch.bool)
    observed[8:14, 9:15] = False
    result = tc.inpaint(image, observed)
    assert (result.image - 0.5).abs().max() < 0.02


def test_default_kernel_serves_any_2d_image(generator: torch.Generator) -> None:
    image = randn(3, 21, 30, generator=generator, dtype=torch.float32)
    observed = random_mask(21, 30, generator=generator)
    result = tc.inpaint(image, observed)
    assert result.converged
    expected = tc.inpaint(image, observed, tc.default_kernel(observed))
    assert torch.equal(result.image, expected.image)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize(("size", "levels"), [((150,), 3), ((9, 20, 22), 2)])
def test_shape_of_the_mask_says_what_is_filled_without_a_kernel(
    size: Any, levels: Any, batch: Any, generator: torch.Generator
) -> None:
    image = torch.rand(*batch, 3, *size, generator=generator, dtype=torch.float64)
    observed = torch.rand(*batch, *size, generator=generator) < 0.7
    result = tc.inpaint(image, observed)
    kernel = tc.default_kernel(observed, ndim=len(size))
    assert kernel.period == (2**levels,) * len(size)
    assert result.converged
    assert torch.equal(result.image, tc.inpaint(image, observed, kernel).image)
    if not batch and len(size) == 1:
        # One channel, without its dimension. A video of one channel needs it.
        single = tc.inpaint(image[0], observed)
        torch.testing.assert_close(single.image, result.image[0], rtol=0, atol=1e-3)


def test_mask_that_could_be_a_batch_of_images_or_a_video_is_that_of_images(generator: torch.Generator) -> None:
    image = torch.rand(3, 3, 12, 12, generator=generator)
    observed = torch.rand(3, 12, 12, generator=generator) < 0.7
    expected = tc.inpaint(image, observed, tc.default_kernel(observed))
    assert torch.equal(tc.inpaint(image, observed).image, expected.image)


def test_default_kernel_of_a_signal_grows_with_its_gap() -> None:
    observed = torch.ones(4000, dtype=torch.bool)
    observed[1000:1100] = False
    assert tc.levels_for(observed, ndim=1) == 6
    observed[1000:3000] = False
    assert tc.levels_for(observed, ndim=1) == 8


def test_default_kernel_has_the_period_of_its_levels(generator: torch.Generator) -> None:
    kernel = tc.default_kernel(random_mask(16, 16, generator=generator))
    assert kernel.period == (8, 8)
    assert kernel.dtype == torch.float32
    assert tc.default_network(3, channels=2).out_channels == 2


def test_bar_is_shown_on_request_only(capsys: pytest.CaptureFixture[str], generator: torch.Generator) -> None:
    image, observed = randn(1, 8, 8, generator=generator), random_mask(8, 8, generator=generator)
    tc.inpaint(image, observed, KERNELS["nearest"])
    assert capsys.readouterr().err == ""
    tc.inpaint(image, observed, KERNELS["nearest"], progress=True, solver=tc.ConjugateGradient())
    assert "conjugate gradients" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "canvas"), [(512, 528), (1024, 1056), (2048, 2112), (120, 128), (135, 144)])
def test_canvas_suits_fourier_transforms(side: Any, canvas: Any) -> None:
    kernel = tc.load_kernel("uniform-plain-3x128-relu")  # of radius 7
    assert canvas_for((side, side), kernel) == (canvas, canvas)
