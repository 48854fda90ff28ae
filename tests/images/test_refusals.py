"""What ``inpaint`` refuses, and how it says so."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc


def network() -> tc.Sequential:
    layers = [tc.Conv2d(1, 1, 3, stride=2), tc.LeakyReLU(0.2), tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.2)]
    return tc.Sequential(*layers, tc.Conv2d(1, 1, 1))


KERNELS = {"nearest": network().kernel(tc.priors.Uniform(0, 0.1))}

IMAGE = torch.zeros(3, 8, 8)
MASK = torch.ones(8, 8, dtype=torch.bool)
MASK[2:4, 2:4] = False


@pytest.mark.parametrize("image", [[[1.0]], 3.0, None, IMAGE.numpy()], ids=["list", "float", "None", "array"])
def test_image_that_is_no_tensor_is_refused(image: Any) -> None:
    with pytest.raises(TypeError, match=f"expected the image as a torch tensor, got {type(image).__name__}"):
        tc.inpaint(image, MASK, KERNELS["nearest"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_image_that_is_no_floating_point_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"expected a floating point image, got {dtype}; .* image / 255"):
        tc.inpaint(IMAGE.to(dtype), MASK, KERNELS["nearest"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_image_of_half_precision_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"expected an image in float32 or float64, .*got {dtype}"):
        tc.inpaint(IMAGE.to(dtype), MASK, KERNELS["nearest"])


@pytest.mark.parametrize("shape", [(), (8,), (1, 1, 3, 8, 8)])
@pytest.mark.parametrize("name", ["nearest", None])
def test_image_of_a_wrong_dimension_is_refused(shape: Any, name: Any) -> None:
    kernel = None if name is None else KERNELS[name]
    with pytest.raises(ValueError, match=r"expected an image of shape .* with 2 spatial dimensions, got \("):
        tc.inpaint(torch.zeros(shape), MASK, kernel)


@pytest.mark.parametrize("shape", [(0, 8, 8), (3, 0, 8), (0, 3, 8, 8)])
def test_empty_image_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"expected an image of shape"):
        tc.inpaint(torch.zeros(shape), None, KERNELS["nearest"])


@pytest.mark.parametrize("shape", [(8, 9), (9, 8), (8,), (3, 8, 8), (1, 8, 8), (1, 1, 8, 8)])
def test_mask_of_a_wrong_shape_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"expected observed of shape \(8, 8\) for this image, got"):
        tc.inpaint(IMAGE, torch.ones(shape, dtype=torch.bool), KERNELS["nearest"])


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 9), (2, 3, 8, 8), (2, 1, 8, 8)])
def test_mask_of_a_wrong_shape_for_a_batch_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"expected observed of shape \(8, 8\) or \(2, 8, 8\) for this image, got"):
        tc.inpaint(torch.zeros(2, 3, 8, 8), torch.ones(shape, dtype=torch.bool), KERNELS["nearest"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_mask_of_a_wrong_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"expected observed to be boolean, True = known, got {dtype}"):
        tc.inpaint(IMAGE, MASK.to(dtype), KERNELS["nearest"])


@pytest.mark.parametrize("mask", [MASK.numpy(), [[True]], 1], ids=["array", "list", "int"])
def test_mask_that_is_no_tensor_is_refused(mask: Any) -> None:
    with pytest.raises(TypeError, match=f"expected observed as a boolean torch tensor, got {type(mask).__name__}"):
        tc.inpaint(IMAGE, mask, KERNELS["nearest"])


@pytest.mark.parametrize("name", ["nearest", None])
def test_nothing_observed_is_refused(name: Any) -> None:
    kernel = None if name is None else KERNELS[name]
    with pytest.raises(ValueError, match="at least one observed pixel, got none; observed is True where known"):
        tc.inpaint(IMAGE, torch.zeros(8, 8, dtype=torch.bool), kernel)
    with pytest.raises(ValueError, match="expected at least one observed pixel, got none"):
        tc.inpaint(torch.full((3, 8, 8), math.nan), None, kernel)
    with pytest.raises(ValueError, match="expected at least one observed pixel"):
        tc.levels_for(torch.zeros(8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected at least one observed pixel"):
        tc.default_kernel(torch.zeros(8, 8, dtype=torch.bool))


def test_nothing_observed_in_one_image_of_a_batch_is_refused() -> None:
    masks = torch.stack([MASK, torch.zeros(8, 8, dtype=torch.bool), MASK])
    with pytest.raises(ValueError, match="got none in image 1 of the batch"):
        tc.inpaint(torch.zeros(3, 3, 8, 8), masks, KERNELS["nearest"])
    with pytest.raises(ValueError, match="expected at least one observed pixel in each mask"):
        tc.levels_for(masks)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_junk_at_observed_pixels_is_refused(junk: Any) -> None:
    image = IMAGE.clone()
    image[1, 0, 0] = image[2, 5, 5] = image[0, 2, 2] = junk
    with pytest.raises(ValueError, match="expected finite values at observed pixels, got 2 NaN or infinite ones"):
        tc.inpaint(image, MASK, KERNELS["nearest"])


def test_infinity_is_not_missing() -> None:
    image = IMAGE.clone()
    image[1, 0, 0] = math.inf
    with pytest.raises(ValueError, match="expected finite values at observed pixels, got 1 NaN or infinite ones"):
        tc.inpaint(image, None, KERNELS["nearest"])


@pytest.mark.parametrize(
    ("ridge", "error"),
    [(-1e-3, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", ValueError), (None, TypeError)],
)
def test_wrong_ridge_is_refused(ridge: Any, error: Any) -> None:
    with pytest.raises(error, match="expected ridge to be"):
        tc.inpaint(IMAGE, MASK, KERNELS["nearest"], ridge=ridge)


def test_wrapping_image_must_be_a_multiple_of_the_period() -> None:
    with pytest.raises(ValueError, match="expected a size that is a multiple of the period 2 x 2, got 7 x 8"):
        tc.inpaint(torch.zeros(3, 7, 8), torch.eye(7, 8, dtype=torch.bool), KERNELS["nearest"], wrap=True)


def test_dense_kernel_of_another_size_is_refused() -> None:
    kernel = network().kernel(tc.priors.Tensor(torch.ones(1, 6, 8)))
    with pytest.raises(ValueError, match="this kernel is for images of 6 x 8 pixels, got 8 x 8"):
        tc.inpaint(IMAGE, MASK, kernel)


def test_result_cannot_be_changed() -> None:
    result = tc.inpaint(IMAGE, MASK, KERNELS["nearest"])
    with pytest.raises(AttributeError):
        result.converged = False  # type: ignore[misc]


def test_negative_ridge_is_refused_even_if_nothing_is_missing() -> None:
    with pytest.raises(ValueError, match="ridge to be at least 0"):
        tc.inpaint(torch.zeros(1, 8, 8), torch.ones(8, 8, dtype=torch.bool), ridge=-1.0)
