"""Images, masks and measures of the benchmarks: a folder of the user's, or sample photographs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.ndimage
import skimage.color
import skimage.data
import skimage.util
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from torch_cntk.images.files import read_image, read_mask

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

HOLES = ["kate", "library", "vase"]
"""The images that come with the mask of a large hole, or of text."""


PHOTOGRAPHS = ["astronaut", "chelsea", "coffee", "rocket"]
"""Of scikit-image, in colour; free of rights."""


def folder() -> Path | None:
    """``images/`` in the folder that TORCH_CNTK_DATA names, if there is one."""
    root = os.environ.get("TORCH_CNTK_DATA")
    path = Path(root) / "images" if root else None
    return path if path is not None and path.is_dir() else None


def photographs(names: Iterable[str] = ("coffee", "chelsea", "rocket")) -> dict[str, Tensor]:
    """Name to float32 [3, H, W] in [0, 1]: colour photographs of scikit-image."""
    return {name: torch.from_numpy(getattr(skimage.data, name)().copy()).permute(2, 0, 1) / 255 for name in names}


def grey_images(found: Path | None = None) -> dict[str, Tensor]:
    """Name to float32 [1, H, W] in [0, 1]: of a folder, by default ``folder()``, or photographs."""
    found = found or folder()
    if found is not None:
        return {name: read_image(found / f"{name}.png").pixels.mean(0, keepdim=True) for name in NAMES}
    pictures = {"camera": skimage.data.camera(), "astronaut": skimage.color.rgb2gray(skimage.data.astronaut())}
    return {
        name: torch.from_numpy(skimage.util.img_as_float32(np.ascontiguousarray(pixels)))[None]
        for name, pixels in pictures.items()
    }


def large_holes(found: Path | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Name to float32 [3, H, W] in [0, 1] and its mask, True = known: kate, library and vase, or photographs."""
    found = found or folder()
    if found is not None:
        pairs = {}
        for name in HOLES:
            image = read_image(found / f"{name}.png").pixels
            height, width = image.shape[1:]
            pairs[name] = image, read_mask(found / f"{name}_mask.png", (height, width))
        return pairs
    pairs = {}
    for name, image in photographs(("astronaut", "chelsea")).items():
        observed = torch.ones(image.shape[1:], dtype=torch.bool)
        height, width = observed.shape
        observed[height // 3 : height // 2, width // 3 : width // 2] = False
        pairs[name] = image, observed
    return pairs


def eight_photographs() -> dict[str, Tensor]:
    """Name to float32 [channels, H, W] in [0, 1]: four of scikit-image in colour, four in grey."""
    grey = {
        name: torch.from_numpy(getattr(skimage.data, name)() / 255).float()[None]
        for name in ("camera", "coins", "brick", "gravel")
    }
    return {**photographs(PHOTOGRAPHS), **grey}


# Masks, True = known.


def square_hole(size: tuple[int, int], seed: int = 0) -> Tensor:
    """One hole, somewhere inside, with sides of about a sixth of the image's shorter one."""
    generator = torch.Generator().manual_seed(seed)
    side = max(min(size) // 6, 1)
    height, width = (side + int(torch.randint(-(side // 5), side // 5 + 1, (), generator=generator)) for _ in range(2))
    top, left = (
        int(torch.randint(n // 8, n - n // 8 - m + 1, (), generator=generator))
        for n, m in zip(size, (height, width), strict=True)
    )
    observed = torch.ones(size, dtype=torch.bool)
    observed[top : top + height, left : left + width] = False
    return observed


def two_holes(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Two of ``square_hole``, which may touch."""
    return square_hole(size, 2 * seed) & square_hole(size, 2 * seed + 1)


def strokes(size: tuple[int, int], seed: int = 0, lines: int = 8) -> Tensor:
    """Scribbled lines, a sixtieth of the image's shorter side wide: like writing or scratches."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij"))
    nearest = torch.full(size, math.inf, dtype=torch.float64)
    extent = torch.tensor(size, dtype=torch.float64)
    for _ in range(lines):
        ends = torch.rand(4, 2, generator=generator, dtype=torch.float64) * extent
        for begin, end in pairwise(ends):
            along, away = (end - begin)[:, None, None], grid - begin[:, None, None]
            share = ((away * along).sum(0) / along.square().sum()).clamp(0, 1)
            nearest = torch.minimum(nearest, (away - share * along).norm(dim=0))
    return nearest > max(min(size) / 120, 0.5)


# Parts of images.


def shrunk(image: Tensor, observed: Tensor | None, factor: int) -> tuple[Tensor, Tensor | None]:
    """Means of blocks, and the mask: a block is observed if all of its pixels are."""
    small = torch.nn.functional.avg_pool2d(image[None], factor)[0]
    if observed is None:
        return small, None
    return small, torch.nn.functional.avg_pool2d(observed.float()[None], factor)[0] == 1


def cropped(images: Tensor, side: int) -> Tensor:
    """The square in the middle; all of an axis that is shorter."""
    for axis in (-2, -1):
        n = images.shape[axis]
        kept = min(side, n)
        images = images.narrow(axis, (n - kept) // 2, kept)
    return images.contiguous()


# Measures.


def psnr(image: Tensor, truth: Tensor) -> float:
    """Of the whole image, clipped to [0, 1], in dB."""
    error = float(((image.clamp(0, 1) - truth) ** 2).mean())
    return -10 * math.log10(error) if error else math.inf


def ssim(image: Tensor, truth: Tensor) -> float:
    """Structural similarity of the whole image, clipped to [0, 1], as scikit-image has it by default."""
    return float(structural_similarity(truth.numpy(), image.clamp(0, 1).numpy(), data_range=1, channel_axis=0))


def in_holes(filled: Tensor, truth: Tensor, missing: Tensor) -> dict[str, float]:
    """How well, and how sharply, the missing pixels are filled.

    Args:
        filled: [channels, H, W], clipped to [0, 1] here.
        truth: of the same shape.
        missing: boolean [H, W], some of them True.

    Returns:
        PSNR in dB and SSIM at the missing pixels; the mean similarity of gradients there, 1 if they are equal and 0 if
        one of them is flat; and the energy of what a Gaussian of two pixels takes out, relative to the truth's.
    """
    filled = filled.clamp(0, 1)
    error = float((filled - truth)[:, missing].square().mean())
    _, similar = structural_similarity(truth.numpy(), filled.numpy(), data_range=1, channel_axis=0, full=True)
    slopes = [_slope(picture)[:, missing] for picture in (filled, truth)]
    alike = (2 * slopes[0] * slopes[1] + _FLAT) / (slopes[0].square() + slopes[1].square() + _FLAT)
    fine = [float(_fine(picture)[:, missing].square().sum()) for picture in (filled, truth)]
    return {
        "psnr": -10 * math.log10(max(error, 1e-12)),
        "ssim": float(similar[:, missing.numpy()].mean()),
        "gradients": float(alike.mean()),
        "fine": fine[0] / max(fine[1], 1e-12),
    }


_FLAT = 170 / 255**2
"""Squared slope that is noise: the constant of Xue, Zhang, Mou and Bovik, Gradient magnitude similarity deviation
(2014), for values in [0, 1]."""


def _slope(image: Tensor) -> Tensor:
    """Magnitude of the gradient by Prewitt's masks, whose weights add up to 1 on each side."""
    across = scipy.ndimage.prewitt(image.numpy(), axis=2) / 3
    down = scipy.ndimage.prewitt(image.numpy(), axis=1) / 3
    return torch.from_numpy(np.hypot(across, down))


def _fine(image: Tensor) -> Tensor:
    """What a Gaussian of two pixels takes out."""
    return image - torch.from_numpy(scipy.ndimage.gaussian_filter(image.numpy(), (0, 2, 2)))
