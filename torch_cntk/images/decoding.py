"""Image files to numbers: PNG, JPEG and TIFF, 8 or 16 bits a channel, with what they say about themselves.

Pillow decodes them. It would drop half of 16 bits without a word, and is asked twice for those.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.TiffImagePlugin

from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.user_warnings import warn_user

__all__ = ["SUB_DIRECTORIES", "Decoded", "Metadata", "decode"]

Reader = type[PIL.ImageFile.ImageFile]

_READERS: tuple[tuple[str, tuple[bytes, ...], Reader], ...] = (
    ("PNG", (b"\x89PNG\r\n\x1a\n",), PIL.PngImagePlugin.PngImageFile),
    ("JPEG", (b"\xff\xd8\xff",), PIL.JpegImagePlugin.JpegImageFile),
    ("TIFF", (b"II*\0", b"MM\0*"), PIL.TiffImagePlugin.TiffImageFile),
)
"""Formats by their first bytes. Pillow's own ``open`` refuses scans above 179 megapixels, whatever memory there is."""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, RuntimeError, struct.error, zlib.error)
"""What Pillow and others raise for files that are no images or only the beginning of one."""
_BYTES_A_PIXEL = 32
"""While a file is read: four as Pillow holds it, four as bytes, twelve as float32, and some for what is in between."""
_PIECE = 1 << 20
"""Bytes of a file that are looked at at a time."""
_ORIENTATION = 0x0112
_EXIF, _GPS = SUB_DIRECTORIES = (0x8769, 0x8825)
"""Tags that lead to the notes of the camera and of the place."""
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, _EXIF, _GPS)
"""Tags worth keeping: description, maker, model, software, date, artist, copyright, the camera's and the place's. The
others of a TIFF file tell how it is stored; and a thumbnail would still show what was to be removed."""
_SIZE_IN_EXIF = (0xA002, 0xA003)


@dataclass(frozen=True)
class Metadata:
    """What an image file says beside its pixels.

    Attributes:
        kind: "PNG", "JPEG" or "TIFF".
        depth: bits of a channel, 8 or 16.
        exif: the camera's and the author's notes, without orientation and thumbnail, or None.
        profile: ICC profile of the colours, or None.
        dpi: resolution, or None.
    """

    kind: str = "PNG"
    depth: int = 8
    exif: bytes | None = field(default=None, repr=False)
    profile: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True)
class Decoded:
    """An image file's content, upright.

    Attributes:
        values: uint8 or uint16 [H, W, channels], alpha last.
        alpha: whether the last channel is opacity.
        metadata: what else the file says.
    """

    values: np.ndarray
    alpha: bool
    metadata: Metadata


def decode(path: Path, *, what: str = "image") -> Decoded:
    """Read an image file and turn it upright as its EXIF orientation says.

    Args:
        path: of the file, or of a pipe.
        what: it is, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or is a folder.
        ValueError: it cannot be decoded, its mode is not served, or it holds several pictures.
        OutOfMemoryError: it would not fit.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no image file {path}")
    with path.open("rb") as file:
        head = file.read(8)
        kind, reader = next(((kind, reader) for kind, marks, reader in _READERS if head.startswith(marks)), ("", None))
        if reader is None:
            raise ValueError(f"expected a PNG, JPEG or TIFF image, got another or a damaged file: {path}")
        source = _seekable(file, head)
        try:
            if kind == "PNG":
                _check_chunks(source)
            with _telling(path, what), reader(source) as image:
                _check_size(image, path, what)
                return _decoded(image, kind, reader, source)
        except _RefusedError as error:
            raise ValueError(f"{error}: {path}") from None
        except _DAMAGED as error:
            raise ValueError(
                f"expected a whole PNG, JPEG or TIFF image, got one that cannot be read: {path}: {error}"
            ) from error


def _check_chunks(source: BinaryIO) -> None:
    """Compare the checksums of a PNG file's parts; Pillow does not look at those behind the last pixel.

    Raises:
        ValueError: a part is damaged, or the end is missing.
    """
    source.seek(8)
    while True:
        length, name = struct.unpack(">I4s", source.read(8))
        if name == b"IEND":
            break
        checksum, left = zlib.crc32(name), length + 4
        while left > 4:
            data = source.read(min(left - 4, _PIECE))
            if not data:
                raise ValueError("it ends too early")
            checksum, left = zlib.crc32(data, checksum), left - len(data)
        if source.read(4) != struct.pack(">I", checksum):
            raise ValueError(f"the checksum of its part {name!r} is not that of its content")
    source.seek(0)


@contextmanager
def _telling(path: Path, what: str) -> Iterator[None]:
    """Tell by the file's name what the decoder finds wrong and bears: damaged EXIF data, say."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(" ".join(str(warning.message).split()) for warning in found):
        warn_user(f"the {what} {path} is damaged in part: {message}")


class _RefusedError(Exception):
    """An image that is whole but not served."""


def _seekable(file: BinaryIO, head: bytes) -> BinaryIO:
    """The file from its beginning; what comes through a pipe is read as a whole."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.seek(0)
        return file
    return io.BytesIO(head + file.read())


def _check_size(image: PIL.ImageFile.ImageFile, path: Path, what: str) -> None:
    width, height = image.size
    require_bytes(
        width * height * _BYTES_A_PIXEL,
        f"the {what} {path} of {width} x {height} pixels",
        lambda free: f"scale it down or cut it to about {free // _BYTES_A_PIXEL:,} pixels",
    )


def _decoded(image: PIL.ImageFile.ImageFile, kind: str, reader: Reader, source: BinaryIO) -> Decoded:
    pages = getattr(image, "n_frames", 1)
    if kind != "JPEG" and pages > 1:
        raise _RefusedError(f"expected an image of one picture, got {pages}")
    bits = _bits(image)
    if bits == 16:
        values, alpha = _with_transparency(*_deep(image, reader, source), image.info.get("transparency"))
    else:
        values, alpha = _shallow(image)
    exif = image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    metadata = Metadata(kind, bits, _kept(exif, orientation), image.info.get("icc_profile"), _resolution(image))
    return Decoded(np.ascontiguousarray(_upright(values, orientation)), alpha, metadata)


def _bits(image: PIL.ImageFile.ImageFile) -> int:
    """Of a channel in the file.

    Raises:
        _RefusedError: neither 8 nor 16 unsigned ones, or not grey nor RGB.
    """
    raw = _raw(image)
    deep = max(_tag(image, PIL.TiffImagePlugin.BITSPERSAMPLE) or (8,)) > 8
    if deep and _tag(image, PIL.TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        # Pillow takes the bytes of these for twice as many pixels.
        raise _RefusedError("expected a TIFF image of 16 bits whose channels are not stored one after the other")
    if ";16" in raw and "S" not in raw and image.mode in (*_MODES, "I", "I;16", "I;16B", "I;16L"):
        return 16
    if image.mode not in _MODES or deep:
        raise _RefusedError(f"expected a grey, RGB or palette image of 8 or 16 bits, got mode {image.mode}")
    return 8


def _raw(image: PIL.ImageFile.ImageFile) -> str:
    """How pixels are stored, "RGB;16B" for instance. Only before they are loaded do the tiles tell."""
    stored = next((tile[3] for tile in image.tile), None)
    first = stored[0] if isinstance(stored, tuple) and stored else stored
    return first if isinstance(first, str) else image.mode


def _shallow(image: PIL.ImageFile.ImageFile) -> tuple[np.ndarray, bool]:
    """8 bits a channel, palettes as RGB and single bits as grey; and whether the last channel is alpha."""
    image.load()
    colour = image.mode in ("P", "PA", "RGB", "RGBA")
    # PNG may also declare one colour of an image without an alpha channel as transparent.
    alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    values = np.asarray(image.convert(("RGB" if colour else "L") + ("A" if alpha else "")))
    return values.reshape(*values.shape[:2], -1), alpha


def _deep(image: PIL.ImageFile.ImageFile, reader: Reader, source: BinaryIO) -> tuple[np.ndarray, bool]:
    """16 bits a channel, and whether the last one is alpha.

    Pillow has no images of several channels of 16 bits. It reads one byte of each: the first as "RGB;16B", where it
    takes that one for the more significant, and the second as "RGB;16L". So the file is read twice.

    Raises:
        _RefusedError: channels that are neither grey nor RGB, with or without alpha.
    """
    raw, mode = _raw(image), image.mode
    plain = np.asarray(image)
    if mode.startswith("I"):
        values = plain.astype(np.uint16)
        white_is_zero = _tag(image, PIL.TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
        return (65535 - values if white_is_zero else values)[..., None], False
    if raw.startswith("LA;16"):
        four = _read_as(reader, source, "RGBA", lambda stored: "RGBA")
        return _checked(_join(four[..., ::2], four[..., 1::2], raw), plain[..., [0, -1]]), True
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        raise _RefusedError(f"expected a grey or RGB image of 16 bits, got mode {raw}")
    first = _read_as(reader, source, mode, lambda stored: stored[:-1] + "B")
    second = _read_as(reader, source, mode, lambda stored: stored[:-1] + "L")
    return _checked(_join(first, second, raw), plain), mode == "RGBA"


def _checked(values: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """The same, if Pillow's own reading of 8 bits agrees.

    Raises:
        _RefusedError: it does not.
    """
    if not np.array_equal(values >> 8, plain):
        raise _RefusedError("expected 16 bits that this version of Pillow reads byte by byte, got another storage")
    return values


def _with_transparency(values: np.ndarray, alpha: bool, colour: Any) -> tuple[np.ndarray, bool]:
    """PNG may declare one colour of an image without an alpha channel as transparent."""
    if alpha or colour is None:
        return values, alpha
    opaque = (values != np.atleast_1d(colour)).any(2, keepdims=True)
    return np.concatenate([values, np.where(opaque, 65535, 0).astype(np.uint16)], 2), True


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


def _tag(image: PIL.ImageFile.ImageFile, number: int) -> Any:
    """Of a TIFF file, or None."""
    return getattr(image, "tag_v2", {}).get(number)


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the turns and reflections that EXIF numbers 1 to 8."""
    turns, mirrored = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}.get(
        orientation, (1, False) if orientation == 8 else (0, False)
    )
    turned = np.rot90(values, turns)
    return turned[:, ::-1] if mirrored else turned


def _kept(exif: PIL.Image.Exif, orientation: int) -> bytes | None:
    """The tags that hold for the new image as well."""
    kept = PIL.Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in exif and tag not in (_EXIF, _GPS):
            kept[tag] = exif[tag]
    for tag in (_EXIF, _GPS):
        entries = exif.get_ifd(tag)
        if orientation > 4:
            entries = {name: value for name, value in entries.items() if name not in _SIZE_IN_EXIF}
        if entries:
            kept.get_ifd(tag).update(entries)
    try:
        return kept.tobytes() if len(kept) or kept.get_ifd(_EXIF) or kept.get_ifd(_GPS) else None
    except (struct.error, TypeError, ValueError):  # notes that Pillow reads but cannot write
        return None


def _resolution(image: PIL.ImageFile.ImageFile) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    if hasattr(image, "tag_v2") and _tag(image, PIL.TiffImagePlugin.X_RESOLUTION) is None:
        return None  # Pillow makes one up
    try:
        across, down = (float(number) for number in dpi)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
