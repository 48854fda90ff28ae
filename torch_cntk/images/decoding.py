"""Image files to numbers, with what they say about themselves.

Pillow decodes them, and tifffile those TIFF files that it does not read.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.BmpImagePlugin
import PIL.ImageFile
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin

from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.images.chunks import PNG_HEAD, check_png, read_parts
from torch_cntk.images.metadata import ORIENTATION, Metadata, tiff_tag
from torch_cntk.images.sixteen_bits import Reader, UnservedError, deep, raw_mode
from torch_cntk.images.tiff import TiffReader, read_samples

try:  # since Pillow 11.3
    from PIL.AvifImagePlugin import AvifImageFile
except ImportError:
    AvifImageFile = None  # type: ignore[assignment, misc]

__all__ = ["FORMATS", "Decoded", "Metadata", "decode"]

FORMATS = "PNG, JPEG, TIFF, WebP, BMP or AVIF"
_HEAD = 16
"""First bytes that tell the format."""
_READERS: tuple[tuple[str, Callable[[bytes], bool], Reader | None], ...] = (
    ("PNG", lambda head: head.startswith(PNG_HEAD), PIL.PngImagePlugin.PngImageFile),
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff"), PIL.JpegImagePlugin.JpegImageFile),
    ("TIFF", lambda head: head[:4] in (b"II*\0", b"MM\0*"), TiffReader),
    ("WebP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", PIL.WebPImagePlugin.WebPImageFile),
    ("BMP", lambda head: head[:2] == b"BM", PIL.BmpImagePlugin.BmpImageFile),
    ("AVIF", lambda head: head[4:12] in (b"ftypavif", b"ftypavis"), AvifImageFile),
)
"""Formats by their first bytes. Pillow's own ``open`` refuses scans above 179 megapixels, whatever memory there is."""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB")
_PALETTES = ("PNG", "TIFF", "BMP")
"""Formats that can hold one."""
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, RuntimeError, struct.error, zlib.error)
"""What Pillow and others raise for files that are no images or only the beginning of one."""
_BYTES_A_PIXEL = 32
"""While a file is read: four as Pillow holds it, four as bytes, twelve as float32, and some for what is in between."""
_AVIF_HEAD = 4096
"""Bytes that hold what an AVIF file says about its pixels."""
_JPEG_IN_TIFF = (6, 7)
"""Numbers of its compressions."""
_PICTURES, _ATTRIBUTE, _DEPENDENT = 0xB002, "Attribute", "Multi-Frame"
"""Of the list of pictures in a JPEG file (CIPA DC-007): what each is, and those of panoramas and of two eyes."""


@dataclass(frozen=True)
class Decoded:
    """An image file's content, upright.

    Attributes:
        values: [H, W, channels], alpha last: uint8 from 0 to 255, also of fewer bits; uint16; or floating point.
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
        head = file.read(_HEAD)
        kind, reader = _reader_of(head, path)
        source = _seekable(file, head)
        try:
            if kind == "AVIF":
                _check_avif(source)
            if kind == "PNG":
                check_png(source)
                source.seek(0)
            with _telling(path, what), reader(source) as image:
                _check_size(image, path, what)
                return _decoded(image, kind, reader, source)
        except UnservedError as error:
            raise ValueError(f"{error}: {path}") from None
        except _DAMAGED as error:
            raise ValueError(
                f"expected a whole {FORMATS} image, got one that cannot be read: {path}: {error}"
            ) from error


@contextmanager
def _telling(path: Path, what: str) -> Iterator[None]:
    """Tell by the file's name what the decoder finds wrong and bears: damaged EXIF data, say."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(" ".join(str(warning.message).split()) for warning in found):
        warn_user(f"the {what} {path} is damaged in part: {message}")


def _reader_of(head: bytes, path: Path) -> tuple[str, Reader]:
    """The format of a file, and Pillow's reader.

    Raises:
        ValueError: it is none of those that are served.
    """
    for kind, fits, reader in _READERS:
        if fits(head):
            if reader is None:
                raise ValueError(f"expected Pillow 11.3 or newer for AVIF files, got an older one: {path}")
            return kind, reader
    got = "a HEIF image, which cameras can save as JPEG" if head[4:8] == b"ftyp" else "another or a damaged file"
    raise ValueError(f"expected a {FORMATS} image, got {got}: {path}")


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
    _check_pictures(image, kind)
    samples = read_samples(source) if kind == "TIFF" else None
    if samples is not None:
        depth = 8 * samples.values.itemsize
        metadata = replace(
            Metadata.of(image, kind, depth, ()),
            real=samples.values.dtype.kind == "f",
            premultiplied=samples.premultiplied,
        )
        values, alpha = samples.values, samples.alpha
    else:
        source.seek(0)
        depth = _bits(image, kind)
        key = _key(image, depth)
        values, alpha = deep(image, reader, source) if depth == 16 else _shallow(image)
        if key is not None and not alpha:
            values, alpha = _with_transparency(values, key), True
        metadata = replace(
            Metadata.of(image, kind, depth, read_parts(source, kind)),
            lab=image.mode == "LAB",
            palette=_palette(image) if kind in _PALETTES else None,
            key=key if kind == "PNG" else None,
        )
    metadata = replace(metadata, lossy=_lossy(image, kind, source))
    orientation = image.getexif().get(ORIENTATION, 1)
    return Decoded(np.ascontiguousarray(_upright(values, orientation)), alpha, metadata)


def _lossy(image: PIL.ImageFile.ImageFile, kind: str, source: BinaryIO) -> str:
    """By what the pixels were compressed with loss, or nothing."""
    if kind == "TIFF":
        return "JPEG" if tiff_tag(image, PIL.TiffImagePlugin.COMPRESSION) in _JPEG_IN_TIFF else ""
    if kind == "WebP":
        return "WebP" if b"VP8 " in _webp_chunks(source) else ""
    return kind if kind in ("JPEG", "AVIF") else ""


def _webp_chunks(source: BinaryIO) -> list[bytes]:
    """Names of the chunks of a WebP file, a RIFF container."""
    source.seek(12)
    names = []
    while len(head := source.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        names.append(name)
        source.seek(length + length % 2, 1)
    return names


def _check_pictures(image: PIL.ImageFile.ImageFile, kind: str) -> None:
    """Refuse what would be cut. Previews beside a photograph are left out, as they show what is to be removed.

    Raises:
        UnservedError: there are several pictures.
    """
    pages = getattr(image, "n_frames", 1)
    if isinstance(image, PIL.JpegImagePlugin.JpegImageFile):
        listed = image._getmp() if "mp" in image.info else None
        kinds = [entry[_ATTRIBUTE]["MPType"] for entry in (listed or {}).get(_PICTURES, ())]
        pages = len(kinds) if any(name.startswith(_DEPENDENT) for name in kinds) else 1
    if pages > 1:
        raise UnservedError(f"expected an image of one picture, got {pages}; save them as files of their own")


def _bits(image: PIL.ImageFile.ImageFile, kind: str) -> int:
    """Of a channel in the file; 8 where there is a palette.

    Raises:
        UnservedError: more than 16, or none that are served.
    """
    raw = raw_mode(image)
    in_tiff = max(tiff_tag(image, PIL.TiffImagePlugin.BITSPERSAMPLE) or (8,)) > 8
    if in_tiff and tiff_tag(image, PIL.TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        # Pillow takes the bytes of these for twice as many pixels.
        raise UnservedError("expected a TIFF image of 16 bits whose channels are not stored one after the other")
    if ";16" in raw and "S" not in raw and image.mode in (*_MODES, "I", "I;16", "I;16B", "I;16L"):
        return 16
    if image.mode not in _MODES or in_tiff:
        raise UnservedError(f"expected a grey, RGB, CMYK, Lab or palette image of 8 or 16 bits, got mode {image.mode}")
    if image.mode == "1":
        return 1
    return int(raw[2:]) if kind == "PNG" and raw in ("L;2", "L;4") else 8


def _check_avif(source: BinaryIO) -> None:
    """Refuse what Pillow would make 8 bits of without a word.

    Raises:
        UnservedError: the file has 10 or 12 bits.
    """
    head = source.read(_AVIF_HEAD)
    source.seek(0)
    place = head.find(b"av1C")
    # The third byte of the codec's configuration (AV1-ISOBMFF 2.3): above 8 bits, and 12 of them.
    if place >= 0 and head[place + 6] & 0x40:
        raise UnservedError(f"expected an AVIF image of 8 bits, got {12 if head[place + 6] & 0x20 else 10}")


def _key(image: PIL.ImageFile.ImageFile, depth: int) -> tuple[int, ...] | None:
    """The colour that is transparent in an image without an alpha channel, of as many bits as are decoded."""
    found: Any = image.info.get("transparency")
    if image.mode == "P" or found is None or isinstance(found, bytes):
        return None
    step = 255 // (2**depth - 1) if depth < 8 else 1
    return tuple(min(int(level) * step, 65535 if depth == 16 else 255) for level in np.atleast_1d(found))


def _shallow(image: PIL.ImageFile.ImageFile) -> tuple[np.ndarray, bool]:
    """8 bits a channel, palettes as RGB and single bits as grey; and whether the last channel is alpha."""
    image.load()
    if image.mode in ("CMYK", "LAB"):
        return np.asarray(image), False
    alpha = image.mode in ("LA", "PA", "RGBA") or (image.mode == "P" and "transparency" in image.info)
    colour = image.mode in ("P", "PA", "RGB", "RGBA")
    wanted = ("RGB" if colour else "L") + ("A" if alpha else "")
    values = np.asarray(image if image.mode == wanted else image.convert(wanted))
    return values.reshape(*values.shape[:2], -1), alpha


def _with_transparency(values: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """With alpha: PNG may declare one colour of an image without an alpha channel as transparent."""
    opaque = (values != np.array(key)).any(2, keepdims=True)
    most = np.iinfo(values.dtype).max
    return np.concatenate([values, np.where(opaque, most, 0).astype(values.dtype)], 2)


def _palette(image: PIL.ImageFile.ImageFile) -> bytes | None:
    """The colours with their opacity, four bytes each."""
    colours = image.getpalette("RGB") if image.mode == "P" else None
    if not colours:
        return None
    # All but PNG have 256 colours in the file, whether they occur or not.
    used = len(colours) // 3 if image.format == "PNG" else int(np.asarray(image).max()) + 1
    colours = colours[: 3 * used]
    table = np.full((len(colours) // 3, 4), 255, np.uint8)
    table[:, :3] = np.array(colours, np.uint8).reshape(-1, 3)
    transparent: Any = image.info.get("transparency")
    if isinstance(transparent, bytes):
        table[: len(transparent), 3] = list(transparent[: len(table)])
    elif isinstance(transparent, int) and transparent < len(table):
        table[transparent, 3] = 0
    return table.tobytes()


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the turns and reflections that EXIF numbers 1 to 8."""
    turns, mirrored = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True)}.get(
        orientation, (1, False) if orientation == 8 else (0, False)
    )
    turned = np.rot90(values, turns)
    return turned[:, ::-1] if mirrored else turned
