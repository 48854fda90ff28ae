"""The forms in which images and masks may come: masks of channels, arrays, 8 bits, half precision, names of kernels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from torch_cntk.images.observed import Observed

KERNEL = tc.load_kernel("uniform-3x128-leaky0.1")
DRAW = torch.Generator().manual_seed(11)
BATCH = torch.rand(2, 3, 16, 18, generator=DRAW, dtype=torch.float64)
MASKS = torch.rand(2, 3, 16, 18, generator=DRAW) < 0.6
IMAGE, MASK = BATCH[0], MASKS[0, 0]


def equal(first: object, second: torch.Tensor) -> bool:
    """To the bit; of the same type and dtype."""
    assert isinstance(first, torch.Tensor)
    return first.dtype == second.dtype and torch.equal(first, second)


@pytest.mark.parametrize("kernel", [KERNEL, None], ids=["kernel", "default"])
@pytest.mark.parametrize("shape", [(1, 16, 18), (3, 16, 18), (1, 1, 16, 18), (1, 3, 16, 18)])
def test_one_mask_in_any_shape(shape: Any, kernel: Any) -> None:
    expected = tc.inpaint(IMAGE, MASK, kernel)
    found = tc.inpaint(IMAGE, MASK.expand(shape), kernel)
    assert equal(found.image, expected.image)
    assert found.iterations == expected.iterations


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_a_mask_repeated_for_each_channel_makes_no_video(channels: Any) -> None:
    image = torch.rand(channels, 16, 18, generator=DRAW)
    assert equal(tc.inpaint(image, MASK.expand(image.shape)).image, tc.inpaint(image, MASK).image)


@pytest.mark.parametrize("kernel", [KERNEL, None], ids=["kernel", "default"])
@pytest.mark.parametrize("passes", [0, 1])
def test_channels_with_masks_of_their_own_are_images_of_their_own(passes: Any, kernel: Any) -> None:
    result = tc.inpaint(IMAGE, MASKS[0], kernel, passes=passes)
    alone = [tc.inpaint(IMAGE[k : k + 1], MASKS[0, k], kernel, passes=passes) for k in range(3)]
    assert equal(result.image, torch.cat([one.image for one in alone]))
    assert result.residual == max(one.residual for one in alone)
    assert result.iterations == max(one.iterations for one in alone)
    assert result.passes == passes
    assert len(result.guidance) == 3 * passes


def test_channels_with_the_same_mask_are_filled_together() -> None:
    masks = MASKS[0].clone()
    masks[2] = masks[0]
    result = tc.inpaint(IMAGE, masks, KERNEL).image
    assert equal(result[[0, 2]], tc.inpaint(IMAGE[[0, 2]], masks[0], KERNEL).image)
    assert equal(result[1], tc.inpaint(IMAGE[1], masks[1], KERNEL).image)


@pytest.mark.parametrize("kernel", [KERNEL, None], ids=["kernel", "default"])
def test_masks_of_a_batch(kernel: Any) -> None:
    one_an_image = tc.inpaint(BATCH, MASKS[:, 0], kernel).image
    assert equal(tc.inpaint(BATCH, MASKS[:, :1], kernel).image, one_an_image)
    assert equal(tc.inpaint(BATCH, MASKS[:, :1].expand(2, 3, 16, 18), kernel).image, one_an_image)
    for_all = tc.inpaint(BATCH, MASK, kernel).image
    for shape in ((1, 16, 18), (1, 1, 16, 18), (1, 3, 16, 18)):
        assert equal(tc.inpaint(BATCH, MASK.expand(shape), kernel).image, for_all)
    found = tc.inpaint(BATCH, MASKS, kernel).image
    for channel in range(3):
        alone = tc.inpaint(BATCH[:, channel : channel + 1], MASKS[:, channel], kernel).image
        assert equal(found[:, channel], alone[:, 0])
    assert equal(tc.inpaint(BATCH[:1], MASKS[:1], kernel).image, tc.inpaint(BATCH[0], MASKS[0], kernel).image[None])


def test_as_many_images_as_channels_have_a_mask_an_image() -> None:
    square = torch.rand(3, 3, 16, 18, generator=DRAW)
    assert equal(tc.inpaint(square, MASKS[0], KERNEL).image, tc.inpaint(square, MASKS[0][:, None], KERNEL).image)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (torch.rand(4, 12, 12, generator=DRAW), "bands"),
        (torch.rand(2, 3, 12, 12, generator=DRAW, dtype=torch.float64), "batch"),
        (1e6 + 1e3 * torch.rand(5, 10, 12, generator=DRAW), "offset"),
    ],
)
def test_measured_values_beside_nan_are_kept(image: Any, name: Any) -> None:
    missing = torch.rand(image.shape, generator=DRAW) < 0.4
    holes = torch.where(missing, math.nan, image)
    result = tc.inpaint(holes).image
    assert equal(result[~missing], image[~missing])
    assert bool(torch.isfinite(result).all())
    assert equal(result, tc.inpaint(image, ~missing[None] if missing.ndim == 3 else ~missing).image)


def test_signals_and_videos_have_masks_of_channels_too() -> None:
    network = tc.Sequential(tc.Conv1d(1, 1, 5), tc.ReLU(), tc.Conv1d(1, 1, 3))
    kernel = network.kernel(tc.priors.Uniform(0, 0.1))
    signal, masks = IMAGE[:, 0], MASKS[0, :, 0].clone()
    masks[:, 0] = True
    found = tc.inpaint(signal, masks, kernel).image
    for k in range(3):
        assert equal(found[k], tc.inpaint(signal[k], masks[k], kernel).image)
    # A mask [1, T] says that it is a signal; [T, H, W] beside a channel that it is a video.
    assert equal(tc.inpaint(signal, masks[:1]).image, tc.inpaint(signal, masks[0]).image)
    video, frames = BATCH[:1, :, :8, :8], MASKS[0, :, :8, :8]
    assert equal(tc.inpaint(video, frames).image, tc.inpaint(video, frames, tc.default_kernel(frames, 3)).image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4"])
@pytest.mark.parametrize("as_bytes", [None, 1, 255])
def test_arrays_give_arrays(dtype: Any, as_bytes: Any) -> None:
    array = IMAGE.numpy().astype(dtype)
    mask = MASK.numpy() if as_bytes is None else MASK.numpy().astype(np.uint8) * np.uint8(as_bytes)
    before = array.copy()
    result = tc.inpaint(array, mask, KERNEL).image
    native = array.astype(array.dtype.newbyteorder("="))
    assert isinstance(result, np.ndarray)
    assert result.dtype == native.dtype
    assert np.array_equal(result[:, MASK.numpy()], native[:, MASK.numpy()])
    assert equal(torch.from_numpy(result), tc.inpaint(torch.from_numpy(native), MASK, KERNEL).image)
    assert np.array_equal(array, before)


def test_arrays_in_any_order_of_memory() -> None:
    expected = tc.inpaint(IMAGE.flip(2), MASK.flip(1), KERNEL).image
    views = [IMAGE.numpy()[:, :, ::-1], np.asfortranarray(IMAGE.numpy()[:, :, ::-1])]
    views[1].flags.writeable = False
    for view in views:
        assert equal(torch.from_numpy(tc.inpaint(view, MASK.numpy()[:, ::-1], KERNEL).image), expected)


def test_what_a_masked_array_masks_is_missing() -> None:
    array = np.ma.masked_array(IMAGE.numpy(), ~MASKS[0].numpy(), fill_value=7.0)
    result: Any = tc.inpaint(array, kernel=KERNEL).image
    assert type(result) is np.ndarray
    assert equal(torch.from_numpy(result), tc.inpaint(IMAGE, MASKS[0], KERNEL).image)
    holes = np.ma.masked_array(torch.where(MASK, IMAGE, math.nan).numpy(), False)
    assert equal(torch.from_numpy(tc.inpaint(holes, kernel=KERNEL).image), tc.inpaint(IMAGE, MASK, KERNEL).image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("passes", [0, 1])
def test_half_precision_is_filled_in_single(dtype: Any, passes: Any) -> None:
    image = IMAGE.to(dtype)
    result = tc.inpaint(image, MASK, KERNEL, passes=passes).image
    assert equal(result[:, MASK], image[:, MASK])
    assert equal(result, tc.inpaint(image.float(), MASK, KERNEL, passes=passes).image.to(dtype))


def test_half_precision_does_not_overflow() -> None:
    image = torch.where(IMAGE[:1] > 0.5, 65504.0, -65504.0).half()
    assert bool(torch.isfinite(tc.inpaint(image, MASK, KERNEL, ridge=0.0).image).all())


@pytest.mark.parametrize("bits", [1, 255])
def test_a_mask_in_8_bits_is_known_where_it_is_not_0(bits: Any) -> None:
    given = MASKS.byte() * bits
    assert equal(tc.inpaint(BATCH, given, KERNEL).image, tc.inpaint(BATCH, MASKS, KERNEL).image)
    assert tc.levels_for(given[0, 0]) == tc.levels_for(MASK)
    assert equal(tc.inpaint(IMAGE, torch.full((16, 18), bits, dtype=torch.uint8), KERNEL).image, IMAGE)


def test_kernels_by_name_and_file(tmp_path: Path) -> None:
    expected = tc.inpaint(IMAGE, MASK, KERNEL).image
    assert equal(tc.inpaint(IMAGE, MASK, "uniform-3x128-leaky0.1").image, expected)
    KERNEL.save(tmp_path / "k.safetensors")
    assert equal(tc.inpaint(IMAGE, MASK, tmp_path / "k.safetensors").image, expected)
    assert equal(tc.inpaint(IMAGE, MASK, str(tmp_path / "k.safetensors")).image, expected)


def test_one_observed_has_one_mask_for_all_channels() -> None:
    assert torch.equal(Observed.of(IMAGE, MASK.expand(3, 16, 18)).mask, MASK[None])
    with pytest.raises(ValueError, match="expected one mask for all channels, got channels with different ones"):
        Observed.of(IMAGE, MASKS[0])
