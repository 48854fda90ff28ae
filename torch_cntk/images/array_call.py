"""``inpaint_array``: NumPy arrays in and out, called as ``skimage.restoration.inpaint_biharmonic`` is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.observed import as_mask
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver

__all__ = ["as_real", "inpaint_array", "rounded"]


def inpaint_array(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    channel_axis: int | None = None,
    kernel: Kernel | str | Path | None = None,
    solver: Solver | Literal["auto", "direct", "cg", "eigenpro"] = "auto",
    ridge: float | Literal["cv"] = 1e-4,
    passes: int | Literal["auto"] = 0,
    progress: bool = False,
) -> np.ndarray:
    """Fill the masked pixels of an array; called as scikit-image's ``inpaint_biharmonic`` is.

    Unlike there, the dtype is kept, and integers are not scaled: what is filled is rounded to the nearest one.

    Args:
        image: an image, signal or video, of one to three dimensions beside that of the channels; integers or floating
            point, of any scale and offset.
        mask: of the image's shape without its channels, boolean or 0 and 1: **True = missing**, as in scikit-image, and
            the opposite of ``observed`` everywhere else in this package.
        channel_axis: the image's dimension for colours; None if it has none.
        kernel: see ``inpaint``.
        solver: see ``inpaint``.
        ridge: see ``inpaint``.
        passes: see ``inpaint``.
        progress: whether to show a bar.

    Returns:
        a new array of the image's shape and dtype, in which pixels that are not masked are as they were, to the bit.

    Raises:
        TypeError: the image is no array of integers or floating point numbers, or the mask not boolean.
        ValueError: shapes do not fit, there is no such axis, everything is masked, or see ``inpaint``.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "iuf":
        got = f"one of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"expected the image as an array of integers or floating point numbers, got {got}")
    channels_first = _channels_first(image, channel_axis)
    missing = as_mask(mask)
    if tuple(missing.shape) != channels_first.shape[1:]:
        raise ValueError(
            f"expected a mask of shape {channels_first.shape[1:]}, as the image has without its channels, got "
            f"{tuple(missing.shape)}" + ("; channel_axis says which dimension they are" if channel_axis is None else "")
        )
    options: dict[str, Any] = {"solver": solver, "ridge": ridge, "passes": passes, "progress": progress}
    # As a batch of one: then the mask's dimensions are those of the image, whatever their number.
    result: Any = inpaint(_as_real_array(channels_first)[None], ~missing, kernel, **options)
    filled = _rounded_array(result.image[0], image.dtype)
    whole = np.where(missing.numpy(), filled, channels_first).astype(image.dtype, copy=False)  # of its byte order too
    return whole[0] if channel_axis is None else np.ascontiguousarray(np.moveaxis(whole, 0, channel_axis))


def as_real(image: Tensor) -> Tensor:
    """Integers as floating point numbers that hold them, double ones above 16 bits."""
    if image.is_floating_point():
        return image
    return image.float() if image.dtype in (torch.uint8, torch.int8, torch.int16, torch.uint16) else image.double()


def rounded(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating point numbers as the nearest integers of a dtype; unchanged for one that is floating point."""
    if dtype.is_floating_point:
        return image
    limits = torch.iinfo(dtype)
    # Of 64 bits the largest number is none of floating point.
    return image.round().double().clamp(limits.min, limits.max - (limits.bits == 64) * 1024).to(dtype)


def _channels_first(image: np.ndarray, axis: int | None) -> np.ndarray:
    """[channels, *size].

    Raises:
        ValueError: there is no such axis, or no dimension beside it, or too many.
    """
    if axis is not None and not -image.ndim <= axis < image.ndim:
        raise ValueError(f"expected channel_axis to be a dimension of an array of {image.ndim}, got {axis}")
    moved = image[None] if axis is None else np.moveaxis(image, axis, 0)
    if not 2 <= moved.ndim <= 4 or image.size == 0:
        raise ValueError(f"expected one to three dimensions beside the channels, got shape {image.shape}")
    return moved


def _as_real_array(image: np.ndarray) -> np.ndarray:
    small = image.dtype.itemsize <= 2
    return image if image.dtype.kind == "f" else image.astype(np.float32 if small else np.float64)


def _rounded_array(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    most = float(limits.max) if limits.bits < 64 else np.nextafter(float(limits.max), 0)
    return np.clip(np.round(image.astype(np.float64)), float(limits.min), most).astype(dtype)
