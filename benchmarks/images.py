"""The images that the benchmarks run on: a folder of the user's, or sample photographs."""

from __future__ import annotations

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
