"""Photographs as they come out of a drawer: scratches, dust, stamps, a torn corner, a fold; and masks as people draw.

A damage is what covers the picture: its opacity [H, W] in [0, 1], with soft edges, and its colour. All of them follow
from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["DAMAGES", "Damage", "all_at_once", "drawn_mask"]

_FINE = 4
"""Parts of a pixel in which shapes are drawn, for soft edges."""
_TOUCHED = 1 / 255
"""Opacity from which on a pixel of 8 bits can have changed."""


@dataclass(frozen=True)
class Damage:
    """What covers a photograph.

    Attributes:
        cover: opacity, float32 [H, W] in [0, 1].
        colour: [3] in [0, 1].
    """

    cover: Tensor
    colour: tuple[float, float, float]

    @property
    def missing(self) -> Tensor:
        """Boolean [H, W]: every pixel that it touches."""
        return self.cover > _TOUCHED

    def on(self, image: Tensor) -> Tensor:
        """The damaged photograph [channels, H, W], channels 1 or 3."""
        colour = torch.tensor(self.colour)[:, None, None]
        colour = colour.mean(0, keepdim=True) if len(image) == 1 else colour
        return image * (1 - self.cover) + colour * self.cover


Make = Callable[[tuple[int, int], int], Damage]


def _canvas(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (size[1] * _FINE, size[0] * _FINE))
    return image, ImageDraw.Draw(image)


def _cover(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """What was drawn, in the image's pixels."""
    fine = np.asarray(image, dtype=np.float32) / 255
    return torch.from_numpy(fine.reshape(size[0], _FINE, size[1], _FINE).mean((1, 3)))


def scratches(size: tuple[int, int], seed: int) -> Damage:
    """A dozen thin lines from top to bottom, half a pixel to two wide, slightly bent."""
    random = np.random.default_rng(seed)
    height, width = size
    image, draw = _canvas(size)
    for _ in range(12):
        start, end = random.uniform(0, 1, 2) * np.array([0.5, 0.5]) * height + np.array([0, 0.5 * height])
        rows = np.linspace(start, end, 24)
        columns = (
            random.uniform(0, width)
            + np.cumsum(random.normal(0, width / 300, 24))
            + random.normal(0, 0.1) * (rows - start)
        )
        points = [(float(column) * _FINE, float(row) * _FINE) for row, column in zip(rows, columns, strict=True)]
        draw.line(points, fill=255, width=int(random.integers(_FINE // 2, 2 * _FINE + 1)), joint="curve")
    return Damage(_cover(image, size), (0.93, 0.93, 0.9))


def dust(size: tuple[int, int], seed: int) -> Damage:
    """Some eighty dark specks of a half to three pixels' radius, and a few hairs."""
    random = np.random.default_rng(seed)
    height, width = size
    image, draw = _canvas(size)
    for _ in range(80):
        row, column, radius = random.uniform(0, height), random.uniform(0, width), random.exponential(0.8) + 0.5
        across, down = np.minimum(radius * random.uniform(0.7, 1.4, 2), 3) * _FINE
        draw.ellipse(
            [column * _FINE - across, row * _FINE - down, column * _FINE + across, row * _FINE + down], fill=255
        )
    for _ in range(5):
        turn, at = random.uniform(0, 360), random.uniform(0, [width, height]) * _FINE
        radius = random.uniform(0.04, 0.09) * min(size) * _FINE
        box = [*(at - radius), *(at + radius)]
        draw.arc(box, turn, turn + random.uniform(60, 160), fill=255, width=_FINE)
    return Damage(_cover(image, size), (0.1, 0.09, 0.08))


def stamp(size: tuple[int, int], seed: int) -> Damage:
    """Red words across the middle, a tenth of the height tall."""
    random = np.random.default_rng(seed)
    image, draw = _canvas(size)
    font = ImageFont.load_default(size=size[0] // 10 * _FINE)
    words = ("PROOF ONLY", "NOT FOR SALE", "ARCHIVE 1954")
    text = words[int(random.integers(len(words)))]
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    for share in (0.3, 0.7):
        at = ((image.width - right + left) / 2, image.height * share - (bottom - top) / 2)
        draw.text(at, text, fill=255, font=font)
    turned = image.rotate(float(random.uniform(-8, 8)), Image.Resampling.BILINEAR)
    return Damage(_cover(turned, size), (0.75, 0.08, 0.1))


def torn_corner(size: tuple[int, int], seed: int) -> Damage:
    """A corner is gone, along a ragged edge; the white of the table shows."""
    random = np.random.default_rng(seed)
    width = size[1]
    image, draw = _canvas(size)
    share = np.linspace(0, 1, 30)
    reach = random.uniform(0.14, 0.2) * min(size)
    ragged = 1 + np.cumsum(random.normal(0, 0.04, 30))
    rows, columns = reach * ragged * np.cos(share * np.pi / 2), reach * ragged * np.sin(share * np.pi / 2)
    if random.random() < 0.5:
        columns = width - columns
    corner = (0.0 if columns[0] < width / 2 else float(width * _FINE), 0.0)
    points = [(float(column) * _FINE, float(row) * _FINE) for row, column in zip(rows, columns, strict=True)]
    draw.polygon([corner, *points], fill=255)
    return Damage(_cover(image, size), (0.97, 0.97, 0.97))


def fold(size: tuple[int, int], seed: int) -> Damage:
    """A crease across the picture, two to five pixels wide, where the paper shows."""
    random = np.random.default_rng(seed)
    height, width = size
    image, draw = _canvas(size)
    columns = np.linspace(-2, width + 2, 60)
    middle = random.uniform(0.35, 0.65) * height + random.normal(0, 0.08) * (columns - width / 2)
    wide = np.clip(3.5 + np.cumsum(random.normal(0, 0.35, 60)), 2, 5)
    jitter = random.normal(0, 0.5, 60)
    upper = list(zip(columns, middle + jitter - wide / 2, strict=True))
    lower = list(zip(columns, middle + jitter + wide / 2, strict=True))
    draw.polygon([(float(x) * _FINE, float(y) * _FINE) for x, y in upper + lower[::-1]], fill=255)
    return Damage(_cover(image, size), (0.88, 0.86, 0.8))


DAMAGES: dict[str, Make] = {
    "scratches": scratches,
    "dust": dust,
    "stamp": stamp,
    "torn corner": torn_corner,
    "fold": fold,
}


def all_at_once(size: tuple[int, int], seed: int) -> list[Damage]:
    """One of each kind."""
    return [make(size, seed + place) for place, make in enumerate(DAMAGES.values())]


def drawn_mask(missing: Tensor, grown: int, seed: int = 0) -> Tensor:
    """A mask as a person draws it: a little beyond the damage, with the soft edges of a brush.

    Args:
        missing: boolean [H, W]: what has to be covered.
        grown: by how many pixels the brush goes beyond it, 0 to 3; with 0 the mask is exact and its edges are hard.
        seed: of the hand's trembling.

    Returns:
        grey levels, uint8 [H, W]: white is known, black is missing.
    """
    if grown == 0:
        return torch.where(missing, 0, 255).to(torch.uint8)
    tremble = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, missing.shape), 6)
    tremble /= max(float(np.abs(tremble).max()), 1e-12)
    distance = scipy.ndimage.distance_transform_edt(~missing.numpy())
    # Full at the damage, gone within a pixel and a half beyond what the hand aims at.
    level = (distance - (grown - 1 + 0.5 * tremble).clip(0)) / 1.5
    return torch.from_numpy((255 * level.clip(0, 1)).round().astype(np.uint8))
