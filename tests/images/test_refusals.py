"""What ``inpaint`` refuses, and how it says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.images import leave_out_error
from torch_cntk.images.periodic import Periodic


def network() -> tc.Sequential:
    layers = [tc.Conv2d(1, 1, 3, stride=2), tc.LeakyReLU(0.2), tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.2)]
    return tc.Sequential(*layers, tc.Conv2d(1, 1, 1))


KERNELS = {"nearest": network().kernel(tc.priors.Uniform(0, 0.1))}

IMAGE = torch.zeros(3, 8, 8)
MASK = torch.ones(8, 8, dtype=torch.bool)
MASK[2:4, 2:4] = False


@pytest.mark.parametrize("image", [[[1.0]], 3.0, None], ids=["list", "float", "None"])
def test_image_that_is_no_tensor_is_refused(image: Any) -> None:
    with pytest.raises(TypeError, match=f"expected the image as a torch tensor, got {type(image).__name__}"):
        tc.inpaint(image, MASK, KERNELS["nearest"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_image_that_is_no_floating_point_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"expected a floating point image, got {dtype}; .* image / 255"):
        tc.inpaint(IMAGE.to(dtype), MASK, KERNELS["nearest"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.complex64, object, np.str_, np.longdouble])
def test_array_that_is_no_floating_point_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match="expected a floating point image, got"):
        tc.inpaint(IMAGE.numpy().astype(dtype), MASK, KERNELS["nearest"])


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


@pytest.mark.parametrize("shape", [(8, 9), (9, 8), (8,), (2, 8, 8), (2, 1, 8, 8), (1, 2, 8, 8), (1, 1, 1, 8, 8)])
def test_mask_of_a_wrong_shape_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"expected observed of shape \(8, 8\) or \(3, 8, 8\) for this image, got"):
        tc.inpaint(IMAGE, torch.ones(shape, dtype=torch.bool), KERNELS["nearest"])


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 9), (2, 2, 8, 8), (3, 2, 8, 8), (3, 1, 8, 8), (1, 2, 3, 8, 8)])
def test_mask_of_a_wrong_shape_for_a_batch_is_refused(shape: Any) -> None:
    with pytest.raises(
        ValueError, match=r"expected observed of shape \(8, 8\) or \(2, 8, 8\) \(or \(2, 3, 8, 8\), one a channel\) "
    ):
        tc.inpaint(torch.zeros(2, 3, 8, 8), torch.ones(shape, dtype=torch.bool), KERNELS["nearest"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_mask_of_a_wrong_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"expected observed to be boolean, True = known, got {dtype}"):
        tc.inpaint(IMAGE, MASK.to(dtype), KERNELS["nearest"])
    array = MASK.to(dtype).numpy()
    with pytest.raises(TypeError, match=f"boolean, True = known, got an array of {array.dtype}"):
        tc.inpaint(IMAGE, array, KERNELS["nearest"])


@pytest.mark.parametrize("values", [(0, 1, 255), (0, 2), (254, 255), tuple(range(64))])
def test_mask_of_other_bytes_is_refused(values: Any) -> None:
    mask = torch.tensor((values * 64)[:64], dtype=torch.uint8).reshape(8, 8)
    found = "64 of them from 0 to 63" if len(values) == 64 else ", ".join(map(str, values))
    for given in (mask, mask.numpy()):
        with pytest.raises(ValueError, match=f"0 and 1, or 0 and 255, .* got the values {found}; pass observed > 127"):
            tc.inpaint(IMAGE, given, KERNELS["nearest"])


@pytest.mark.parametrize("mask", [[[True]], 1, np.ma.masked_array(MASK.numpy())])
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


@pytest.mark.parametrize("name", ["nearest", None])
def test_a_channel_of_which_nothing_is_observed_is_refused(name: Any) -> None:
    kernel = None if name is None else KERNELS[name]
    image, mask = IMAGE.clone(), MASK.expand(3, 8, 8).clone()
    image[1], mask[1] = math.nan, False
    with pytest.raises(ValueError, match="at least one observed pixel, got none in channel 1;"):
        tc.inpaint(image, None, kernel)
    with pytest.raises(ValueError, match="at least one observed pixel, got none in channel 1;"):
        tc.inpaint(IMAGE, mask, kernel)


def test_a_masked_array_and_a_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="expected observed or a masked array as image, got both"):
        tc.inpaint(np.ma.masked_array(IMAGE.numpy(), False), MASK)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (network(), TypeError, r"got the network Sequential; pass net.kernel\("),
        (IMAGE, TypeError, "expected a kernel of .*, or its name or file, got Tensor"),
        (tc.priors.Uniform(), TypeError, "expected a kernel of .*, or its name or file, got Uniform"),
        ("uniform", ValueError, "expected a kernel's name or file, got 'uniform'.*such as"),
        ("no/such.safetensors", FileNotFoundError, "no/such.safetensors"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        tc.inpaint(IMAGE, MASK, kernel)


def test_what_is_no_kernel_is_refused_by_the_filler() -> None:
    with pytest.raises(TypeError, match=r"expected a kernel of net.kernel\(prior\), got Sequential"):
        Periodic(network())  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [tc.levels_for, tc.default_kernel])
def test_what_is_no_mask_has_no_default_kernel(function: Any) -> None:
    with pytest.raises(TypeError, match="expected observed as a boolean torch tensor, got list"):
        function([[True]])
    with pytest.raises(TypeError, match=r"expected observed to be boolean, True = known, got torch\.float32"):
        function(MASK.float())


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


def test_kernel_of_other_dimensions_than_the_mask_is_refused() -> None:
    signals = tc.Sequential(tc.Conv1d(1, 1, 3), tc.ReLU(), tc.Conv1d(1, 1, 1)).kernel(tc.priors.Uniform(0, 0.1))
    with pytest.raises(ValueError, match=r"expected observed of shape \(8,\) or \(1, 8\)"):
        tc.inpaint(IMAGE[:1], MASK, signals)


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


def test_what_is_no_tensor_is_refused_elsewhere() -> None:
    image, numbers = IMAGE[0, 0].tolist(), [[0.0] * 8] * 8
    with pytest.raises(TypeError, match="expected observed as a boolean torch tensor, got list"):
        tc.autocorrelation_passes(IMAGE, image, IMAGE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected an estimate as a torch tensor, got list"):
        tc.autocorrelation_passes(IMAGE, MASK, numbers)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected the image as a torch tensor, got list"):
        leave_out_error(numbers, MASK, lambda image, observed: image)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected observed as a boolean torch tensor, got list"):
        leave_out_error(IMAGE, numbers, lambda image, observed: image)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected an image \[channels, \*\(8, 8\)\], got \(8, 8\)"):
        leave_out_error(IMAGE[0], MASK, lambda image, observed: image)
