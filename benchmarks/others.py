"""What others fill images with, where it is installed: OpenCV, BM3D, PatchMatch. Each is called as its authors say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

Fill = Callable[[Tensor, Tensor], Tensor]
"""Of an image [channels, H, W] in [0, 1] and its mask [H, W], True = known; channels 1 or 3."""

_NOISE = (25 / 255, 5 / 255)
"""That the denoiser of IDBP takes out in the first and in the last iteration."""
_DENOISED = 20
"""Iterations of IDBP."""
_PATCH = 3
"""Radius of PyPatchMatch's patches, as in its examples."""


def has(*modules: str) -> bool:
    """Whether all of these are installed, such as "cv2" or "cv2.xphoto"."""
    for module in modules:
        package, _, part = module.partition(".")
        if importlib.util.find_spec(package) is None:
            return False
        if part and not hasattr(importlib.import_module(package), part):
            return False
    return True


def biharmonic(image: Tensor, observed: Tensor) -> Tensor:
    """Of scikit-image; [channels, H, W]."""
    known = torch.where(observed, image, 0).permute(1, 2, 0).numpy()
    values = torch.from_numpy(inpaint_biharmonic(known, (~observed).numpy(), channel_axis=-1)).permute(2, 0, 1)
    return torch.where(observed, image, values.to(image.dtype))


def _bytes(image: Tensor, observed: Tensor) -> np.ndarray:
    """8 bits, [H, W, channels], 0 where unknown."""
    known = torch.where(observed, image, 0).clamp(0, 1)
    pixels: np.ndarray = (known * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return pixels


def _back(filled: np.ndarray, image: Tensor, observed: Tensor) -> Tensor:
    """From 8 bits, with the observed pixels kept."""
    values = torch.from_numpy(np.atleast_3d(filled)).permute(2, 0, 1) / 255
    return torch.where(observed, image, values[: len(image)].to(image.dtype))


def opencv(method: str) -> Fill | None:
    """``INPAINT_TELEA`` or ``INPAINT_NS`` of OpenCV, which work on 8 bits; None where it is not installed."""
    if not has("cv2"):
        return None
    import cv2

    def fill(image: Tensor, observed: Tensor) -> Tensor:
        filled = cv2.inpaint(_bytes(image, observed), (~observed).byte().numpy(), 3, getattr(cv2, method))
        return _back(filled, image, observed)

    return fill


def xphoto(method: str) -> Fill | None:
    """``INPAINT_FSR_FAST`` or ``INPAINT_SHIFTMAP`` of OpenCV's contributed modules; None where they are missing."""
    if not has("cv2.xphoto"):
        return None
    import cv2

    shifts = method == "INPAINT_SHIFTMAP"  # wants Lab, as its documentation says

    def fill(image: Tensor, observed: Tensor) -> Tensor:
        pixels = _bytes(image.expand(3, -1, -1), observed)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab) if shifts else pixels
        filled = np.zeros_like(pixels)
        cv2.xphoto.inpaint(pixels, observed.byte().numpy() * 255, filled, getattr(cv2.xphoto, method))
        return _back(cv2.cvtColor(filled, cv2.COLOR_Lab2RGB) if shifts else filled, image, observed)

    return fill


def patch_match() -> Fill | None:
    """PyPatchMatch, which wants three channels of 8 bits; None where it is not installed."""
    if not has("patchmatch"):
        return None
    from patchmatch import patch_match as program

    def fill(image: Tensor, observed: Tensor) -> Tensor:
        program.set_random_seed(0)
        missing = (~observed).byte().numpy() * 255
        filled = program.inpaint(_bytes(image.expand(3, -1, -1), observed), missing, patch_size=_PATCH)
        return _back(filled, image, observed)

    return fill


def idbp() -> Fill | None:
    """Iterative denoising and backward projections with BM3D; None where that is not installed.

    Tirer and Giryes, Image restoration by iterative denoising and backward projections (2019): denoise, put the
    observed pixels back, again; begins with the biharmonic fill. The noise that is taken out falls geometrically.
    """
    if not has("bm3d"):
        return None
    import bm3d

    def fill(image: Tensor, observed: Tensor) -> Tensor:
        estimate = biharmonic(image, observed).clamp(0, 1)
        first, last = _NOISE
        for iteration in range(_DENOISED):
            noise = first * (last / first) ** (iteration / (_DENOISED - 1))
            clean = [torch.from_numpy(bm3d.bm3d(channel.double().numpy(), noise)) for channel in estimate]
            estimate = torch.where(observed, image, torch.stack(clean).reshape(image.shape).to(image.dtype))
        return estimate

    return fill
