"""16 bits a channel by way of Pillow, which would drop half of them without a word: it is asked twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import PIL.ImageFile
import PIL.TiffImagePlugin

from torch_cntk.images.metadata import tiff_tag

__all__ = ["Reader", "UnservedError", "deep", "raw_mode"]

Reader = type[PIL.ImageFile.ImageFile]


class UnservedError(Exception):
    """An image that is whole but not served."""


def raw_mode(image: PIL.ImageFile.ImageFile) -> str:
    """How pixels are stored, "RGB;16B" for instance. Only before they are loaded do the tiles tell."""
    stored = next((tile[3] for tile in image.tile), None)
    first = stored[0] if isinstance(stored, tuple) and stored else stored
    return first if isinstance(first, str) else image.mode


def deep(image: PIL.ImageFile.ImageFile, reader: Reader, source: BinaryIO) -> tuple[np.ndarray, bool]:
    """16 bits a channel, uint16 [H, W, channels], and whether the last one is alpha.

    Pillow has no images of several channels of 16 bits. It reads one byte of each: the first as "RGB;16B", where it
    takes that one for the more significant, and the second as "RGB;16L". So the file is read twice.

    Raises:
        UnservedError: channels that are neither grey nor RGB, with or without alpha.
    """
    raw, mode = raw_mode(image), image.mode
    plain = np.asarray(image)
    if mode.startswith("I"):
        values = plain.astype(np.uint16)
        white_is_zero = tiff_tag(image, PIL.TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
        return (65535 - values if white_is_zero else values)[..., None], False
    if raw.startswith("LA;16"):
        four = _read_as(reader, source, "RGBA", lambda stored: "RGBA")
        return _checked(_join(four[..., ::2], four[..., 1::2], raw), plain[..., [0, -1]]), True
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        raise UnservedError(f"expected a grey or RGB image of 16 bits, got mode {raw}")
    first = _read_as(reader, source, mode, lambda stored: stored[:-1] + "B")
    second = _read_as(reader, source, mode, lambda stored: stored[:-1] + "L")
    return _checked(_join(first, second, raw), plain), mode == "RGBA"


def _checked(values: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """The same, if Pillow's own reading of 8 bits agrees.

    Raises:
        UnservedError: it does not.
    """
    if not np.array_equal(values >> 8, plain):
        raise UnservedError("expected 16 bits that this version of Pillow reads byte by byte, got another storage")
    return values


def _read_as(reader: Reader, source: BinaryIO, mode: str, change: Callable[[str], str]) -> np.ndarray:
    """Decode the file as if its pixels were stored in another way that takes as many bytes."""
    source.seek(0)
    with reader(source) as image:
        image._mode = mode
        image.tile = [_stored_as(tile, change) for tile in image.tile]
        image.load()
        return np.asarray(image)


def _stored_as(tile: Any, change: Callable[[str], str]) -> Any:
    """Pillow's note on where a part or channel of the image is stored, with another word for how."""
    old = tile[3]
    arguments = (change(old[0]), *old[1:]) if isinstance(old, tuple) else change(old)
    # A plain tuple before Pillow 11.
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _join(first: np.ndarray, second: np.ndarray, raw: str) -> np.ndarray:
    """Numbers of 16 bits from their first and second bytes."""
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    high, low = (second, first) if little else (first, second)
    joined: np.ndarray = high.astype(np.uint16) * 256 + low
    return joined
