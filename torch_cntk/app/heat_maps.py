"""Pictures of which pixels fill one, and a sentence about them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

__all__ = ["around", "around_holes", "coloured", "enlarged", "in_words", "nearby"]

_AROUND = 96
"""Pixels around a hole that its heat map looks at: more than the kernels of six levels reach."""
_SMALLEST_MAP = 480
"""Pixels of the longer side of a heat map at least."""
_SEEN, _MARGIN = 0.01, 12
"""Share of the largest weight that can be told from nothing, and pixels around those."""
_DARK = 0.3
"""Of the photograph's brightness under a heat map, whose colours shall stand out."""


def around(observed: Tensor, place: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """The part of a photograph that fills a pixel, and where the pixel is in it."""
    far = 0
    while not bool(observed[_square(place, far)].any()):
        far = 2 * far + 1
    part = _square(place, 2 * far + _AROUND)
    clipped = [slice(s.start, min(s.stop, n)) for s, n in zip(part, observed.shape, strict=True)]
    return (clipped[0], clipped[1]), (place[0] - clipped[0].start, place[1] - clipped[1].start)


def around_holes(observed: Tensor) -> tuple[slice, slice]:
    """The part of a photograph around all that was filled."""
    places = (~observed).nonzero()
    low, high = places.amin(0).tolist(), places.amax(0).tolist()
    rows, columns = (slice(max(a - _AROUND, 0), b + _AROUND + 1) for a, b in zip(low, high, strict=True))
    return rows, columns


def _square(place: tuple[int, int], far: int) -> tuple[slice, slice]:
    row, column = (slice(max(index - far, 0), index + far + 1) for index in place)
    return row, column


def nearby(weights: np.ndarray, place: tuple[int, int]) -> tuple[slice, slice]:
    """The part of a map in which weights can be seen, with the pixel that is filled and a little around both."""
    strong = np.argwhere(np.abs(weights) >= _SEEN * np.abs(weights).max())
    low = np.minimum(strong.min(0), place) - _MARGIN
    high = np.maximum(strong.max(0), place) + _MARGIN + 1
    return slice(max(low[0], 0), high[0]), slice(max(low[1], 0), high[1])


def enlarged(image: np.ndarray) -> np.ndarray:
    """Whole pixels, large enough to be told apart."""
    times = max(_SMALLEST_MAP // max(image.shape[:2]), 1)
    return image.repeat(times, 0).repeat(times, 1)


def in_words(weights: np.ndarray, place: tuple[int, int], inside: tuple[int, int]) -> str:
    """How many pixels fill one, and how near they are."""
    size = np.abs(weights).ravel()
    order = np.argsort(size)[::-1]
    count = int(np.searchsorted(np.cumsum(size[order]), size.sum() / 2)) + 1
    rows, columns = np.unravel_index(order[:count], weights.shape)
    far = int(np.maximum(np.abs(rows - inside[0]), np.abs(columns - inside[1])).max())
    return (
        f"The pixel in row {place[0]}, column {place[1]} is filled from those around it: {count:,} of them, at most "
        f"{far} pixels away, have half of the weight. Yellow ones are added, blue ones subtracted."
    )


def coloured(weights: np.ndarray, pixels: Tensor, place: tuple[int, int]) -> np.ndarray:
    """A heat map over the photograph: yellow pixels count, blue ones count negatively, white is the one that is filled.

    Brightness is the cube root of a weight's share of the largest, as weights fall fast.

    Args:
        weights: [H, W].
        pixels: [1 or 3, H, W] in [0, 1], shown dark and grey below.
        place: row and column of the pixel that is filled.

    Returns:
        uint8 [H, W, 3].
    """
    grey = pixels.mean(0).numpy()[..., None] * _DARK
    strength = np.cbrt(np.abs(weights) / max(float(np.abs(weights).max()), 1e-30))[..., None]
    colour = np.where(weights[..., None] > 0, (1.0, 0.85, 0.1), (0.2, 0.5, 1.0))
    image = (1 - strength) * grey + strength * colour
    image[place] = 1
    array: np.ndarray = (image * 255).round().astype(np.uint8)
    return array
