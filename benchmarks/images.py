"""The images that the benchmarks run on: a folder of the user's, or sample photographs."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import skimage.color
import skimage.data
import skimage.util
import torch
from torch import Tensor

NAMES = [
    "barbara",
    "boat",
    "house",
    "Lena512",
    "peppers256",
    "Cameraman256",
    "couple",
    "fingerprint",
    "hill",
    "man",
    "montage",
]
"""The images of the deep image prior's reconstruction table."""


def folder() -> Path | None:
    """``images/`` in the folder that TORCH_CNTK_DATA names, if there is one."""
    root = os.environ.get("TORCH_CNTK_DATA")
    path = Path(root) / "images" if root else None
    return path if path is not None and path.is_dir() else None


def grey_images() -> dict[str, Tensor]:
    """Name to float32 [1, H, W] in [0, 1]."""
    found = folder()
    if found is not None:
        from torch_cntk.images import read_image

        return {name: read_image(found / f"{name}.png").pixels.mean(0, keepdim=True) for name in NAMES}
    photographs = {"camera": skimage.data.camera(), "astronaut": skimage.color.rgb2gray(skimage.data.astronaut())}
    return {
        name: torch.from_numpy(skimage.util.img_as_float32(np.ascontiguousarray(pixels)))[None]
        for name, pixels in photographs.items()
    }


def large_holes() -> dict[str, tuple[Tensor, Tensor]]:
    """Name to float32 [3, H, W] in [0, 1] and its mask, True = known: kate, library and vase, or photographs."""
    found = folder()
    if found is not None:
        from torch_cntk.images import read_image, read_mask

        pairs = {}
        for name in ("kate", "library", "vase"):
            image = read_image(found / f"{name}.png").pixels
            height, width = image.shape[1:]
            pairs[name] = image, read_mask(found / f"{name}_mask.png", (height, width))
        return pairs
    pairs = {}
    for name, pixels in {"astronaut": skimage.data.astronaut(), "cat": skimage.data.chelsea()}.items():
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
        observed = torch.ones(image.shape[1:], dtype=torch.bool)
        height, width = observed.shape
        observed[height // 3 : height // 2, width // 3 : width // 2] = False
        pairs[name] = image, observed
    return pairs


def psnr(image: Tensor, truth: Tensor) -> float:
    """Of the whole image, clipped to [0, 1], in dB."""
    return -10 * math.log10(float(((image.clamp(0, 1) - truth) ** 2).mean()))
