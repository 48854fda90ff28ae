"""Between a photograph and the small copy of it that is shown and painted on."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from torch_cntk.images.files import Photograph

__all__ = ["colours", "on_copy", "painted", "shown"]

_SIDE = 1280
"""Pixels of the longer side of what is shown: more than most screens have, and light enough for a phone to paint on."""


def colours(photograph: Photograph, original: Photograph | None = None) -> Tensor:
    """A photograph of any kind in colours that browsers show.

    Args:
        photograph: what is not finite in it is shown black; of Lab, lightness alone is shown.
        original: whose darkest and brightest values are black and white where values are beyond [0, 1], as in files of
            floating point numbers; by default the photograph itself.

    Returns:
        float32 [1 or 3, H, W] in [0, 1].
    """
    pixels = photograph.pixels.detach().float()
    if photograph.metadata.real:
        own = (original or photograph).pixels
        low, high = (float(level) for level in own[torch.isfinite(own)].aminmax())
        if low < 0 or high > 1:
            pixels = (pixels - low) / max(high - low, 1e-30)
    pixels = torch.nan_to_num(pixels, 0.0, 0.0, 0.0).clamp(0, 1)
    if photograph.metadata.lab:
        return pixels[:1]
    return pixels if len(pixels) < 4 else (1 - pixels[:3]) * (1 - pixels[3:])


def shown(pixels: Tensor, alpha: Tensor | None = None) -> np.ndarray:
    """A photograph as it is shown, at most 1280 pixels wide and high.

    Args:
        pixels: [1 or 3, H, W] in [0, 1].
        alpha: uint8, uint16 or floating point [1, H, W], or None.

    Returns:
        uint8 [h, w, 3], or [h, w, 4] with alpha.
    """
    parts = [pixels.expand(3, -1, -1)]
    if alpha is not None:
        most = {torch.uint8: 255, torch.uint16: 65535}.get(alpha.dtype, 1)
        parts.append((alpha.double() / most).float().clamp(0, 1))
    image = torch.cat(parts)[None]
    size = _small(tuple(image.shape[2:]))
    if size != tuple(image.shape[2:]):
        image = torch.nn.functional.interpolate(image, size, mode="area")
    array: np.ndarray = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return array


def _small(size: tuple[int, ...]) -> tuple[int, int]:
    scale = min(_SIDE / max(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def painted(layers: Iterable[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Which pixels of the photograph strokes on its small copy touch.

    A pixel is touched if a stroke, however thin its edge, touches a pixel of the copy that overlaps it.

    Args:
        layers: uint8 [h, w, 4] each: the opacity of what was painted is the last channel.
        size: height and width of the photograph.

    Returns:
        boolean [H, W], True where something was painted.

    Raises:
        ValueError: a layer has no opacity.
    """
    touched = torch.zeros(size, dtype=torch.bool)
    for layer in layers:
        if layer.ndim != 3 or layer.shape[2] != 4:
            raise ValueError(f"expected layers of shape [height, width, 4], got {layer.shape}")
        opaque = torch.from_numpy(np.ascontiguousarray(layer[..., 3] > 0)).float()
        # The largest of all cells that overlap, whichever of both images is the finer one.
        touched |= torch.nn.functional.adaptive_max_pool2d(opaque[None], size)[0] > 0
    return touched


def on_copy(place: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The pixel of a photograph of this size in the middle of a pixel of its small copy.

    Args:
        place: row and column on the copy.
        size: height and width of the photograph.
    """
    small = _small(size)
    row, column = (
        min(max(math.floor((index + 0.5) * n / m), 0), n - 1) for index, n, m in zip(place, size, small, strict=True)
    )
    return row, column
