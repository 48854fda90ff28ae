"""What image files say beside their pixels, and which of it holds for a filled image as well."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
import PIL.ImageFile
import PIL.JpegImagePlugin
import PIL.TiffImagePlugin

__all__ = [
    "ORIENTATION",
    "SUB_DIRECTORIES",
    "XMP",
    "JpegSettings",
    "Metadata",
    "jpeg_settings",
    "kept_exif",
    "tiff_tag",
]

ORIENTATION = 0x0112
_EXIF, _GPS = SUB_DIRECTORIES = (0x8769, 0x8825)
"""Tags that lead to the notes of the camera and of the place."""
XMP = 700
_ABOUT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, _EXIF, _GPS)
"""Tags worth keeping: description, maker, model, software, date, artist, computer, copyright, the camera's and the
place's. The others of a TIFF file tell how it is stored; and a thumbnail would still show what was to be removed."""
_MORE = (0x010D, 0x011D, 0x4746, 0x4749, 0x83BB, *range(0x9C9B, 0x9CA0))
"""Document and page name, ratings, the notes of newspapers (IPTC) and of Windows."""
_ON_EARTH = (0x830E, 0x8482, 0x85D8, 0x87AF, 0x87B0, 0x87B1, 0xA480, 0xA481)
"""Where the pixels of a map lie (GeoTIFF, GDAL): not after a turn."""
_RESOLUTION = (0x011A, 0x011B, 0x0128)
"""Beside TIFF they are notes; in TIFF they are written from ``dpi``."""
_DESCRIPTIVE = (*_ABOUT, *_MORE)
_INTEROPERABILITY = 0xA005
"""A place in the old file, at which the new one has something else."""
_SIZE_IN_EXIF = (0xA002, 0xA003)
_TURN_IN_XMP = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))[2-8]")


@dataclass(frozen=True)
class JpegSettings:
    """How a JPEG file was compressed.

    Attributes:
        tables: quantisation tables of 64 numbers.
        subsampling: of colours: 0 none, 1 across, 2 both ways.
        progressive: whether it is stored from coarse to fine.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool


@dataclass(frozen=True)
class Metadata:
    """What an image file says beside its pixels.

    Attributes:
        kind: "PNG", "JPEG", "TIFF", "WebP", "BMP" or "AVIF".
        depth: bits of a channel: 8 or 16; 1, 2 or 4 of grey PNG files, 1 of other bilevel ones; 16, 32 or 64 if real.
        exif: the camera's and the author's notes, without orientation and thumbnail, or None.
        profile: ICC profile of the colours, or None.
        dpi: resolution, or None.
        xmp: notes in XML, or None.
        real: whether channels are floating point numbers, which may leave [0, 1].
        lab: whether the three channels are lightness and two of colour (CIE L*a*b*).
        premultiplied: whether the file holds colours times alpha.
        palette: the file's colours, four bytes each: red, green, blue, alpha; None if it has no palette.
        key: the colour that stands for transparent pixels in a PNG file without an alpha channel, or None.
        lossy: "JPEG", "WebP" or "AVIF" where the pixels were compressed with loss by it, else empty.
        jpeg: how a JPEG file was compressed, or None.
        parts: of a PNG or JPEG file, further notes as they are stored: texts, gamma, comments. Only files of the same
            kind can hold them.
    """

    kind: str = "PNG"
    depth: int = 8
    exif: bytes | None = field(default=None, repr=False)
    profile: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = field(default=None, repr=False)
    real: bool = False
    lab: bool = False
    premultiplied: bool = False
    palette: bytes | None = field(default=None, repr=False)
    key: tuple[int, ...] | None = None
    lossy: str = ""
    jpeg: JpegSettings | None = field(default=None, repr=False)
    parts: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls, image: PIL.ImageFile.ImageFile, kind: str, depth: int, parts: tuple[tuple[bytes, bytes], ...]
    ) -> Metadata:
        """Of an open file.

        Args:
            image: that Pillow opened; it may be loaded.
            kind: of the file.
            depth: bits of a channel.
            parts: see ``chunks``; that named XMP is the notes in XML.
        """
        exif = image.getexif()
        orientation = exif.get(ORIENTATION, 1)
        notes = {name: data for name, data in parts if name == b"XMP"}
        xmp = notes.get(b"XMP") or tiff_tag(image, XMP) or image.info.get("xmp")
        return cls(
            kind,
            depth,
            kept_exif(exif, orientation, kind),
            image.info.get("icc_profile") or None,
            _resolution(image),
            _upright_xmp(xmp),
            jpeg=jpeg_settings(image),
            parts=tuple((name, data) for name, data in parts if name != b"XMP"),
        )


def tiff_tag(image: PIL.ImageFile.ImageFile, number: int) -> Any:
    """Of a TIFF file, or None."""
    return getattr(image, "tag_v2", {}).get(number)


def jpeg_settings(image: PIL.ImageFile.ImageFile) -> JpegSettings | None:
    """Those of a JPEG file."""
    if not isinstance(image, PIL.JpegImagePlugin.JpegImageFile):
        return None
    found = image.quantization
    tables = tuple(tuple(found[number]) for number in sorted(found))
    # Unusual samplings are stored without any.
    sampling = max(PIL.JpegImagePlugin.get_sampling(image), 0)
    # Pillow writes tables of 8 bits.
    if not 0 < len(tables) <= 4 or max(map(max, tables)) > 255:
        return None
    return JpegSettings(tables, sampling, bool(image.info.get("progressive")))


def kept_exif(exif: PIL.Image.Exif, orientation: int, kind: str) -> bytes | None:
    """The tags that hold for the new image as well.

    Args:
        exif: all of the file's.
        orientation: that was undone.
        kind: of the file.
    """
    kept = PIL.Image.Exif()
    wanted = _DESCRIPTIVE + (_ON_EARTH if orientation == 1 else ()) + (_RESOLUTION if kind != "TIFF" else ())
    for tag in wanted:
        if tag in exif and tag not in SUB_DIRECTORIES:
            kept[tag] = exif[tag]
    for tag in SUB_DIRECTORIES:
        left_out = (_INTEROPERABILITY, *(_SIZE_IN_EXIF if orientation > 4 else ()))
        entries = {name: value for name, value in exif.get_ifd(tag).items() if name not in left_out}
        if entries:
            kept.get_ifd(tag).update(entries)
    try:
        return kept.tobytes() if len(kept) or any(kept.get_ifd(tag) for tag in SUB_DIRECTORIES) else None
    except (struct.error, TypeError, ValueError):  # notes that Pillow reads but cannot write
        return None


def _upright_xmp(xmp: Any) -> bytes | None:
    """The notes without the turn that was undone."""
    if isinstance(xmp, tuple):
        xmp = xmp[0] if len(xmp) == 1 else bytes(xmp)
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return _TURN_IN_XMP.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) and xmp else None


def _resolution(image: PIL.ImageFile.ImageFile) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    if hasattr(image, "tag_v2") and tiff_tag(image, PIL.TiffImagePlugin.X_RESOLUTION) is None:
        return None  # Pillow makes one up
    try:
        across, down = (float(number) for number in dpi)  # type: ignore[union-attr]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
