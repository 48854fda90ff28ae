"""Numbers to image files: PNG, JPEG and TIFF, 8 or 16 bits a channel, with what the original said about itself."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.TiffImagePlugin
import PIL.TiffTags

from torch_cntk.images.decoding import SUB_DIRECTORIES, Metadata

__all__ = ["encode"]

_INCH = 0.0254
"""Metres, in which PNG counts."""
_DEFLATE = 8
_TAGS = {
    "ImageWidth": 256,
    "ImageLength": 257,
    "BitsPerSample": 258,
    "Compression": 259,
    "PhotometricInterpretation": 262,
    "StripOffsets": 273,
    "SamplesPerPixel": 277,
    "RowsPerStrip": 278,
    "StripByteCounts": 279,
    "XResolution": 282,
    "YResolution": 283,
    "ResolutionUnit": 296,
    "ExtraSamples": 338,
    "ICCProfile": 34675,
}


def encode(path: Path, values: np.ndarray, kind: str, metadata: Metadata, quality: int) -> None:
    """Write an image file.

    Args:
        path: of the file.
        values: uint8 or uint16 [H, W, channels], the latter not for JPEG: grey or RGB, with or without alpha.
        kind: "PNG", "JPEG" or "TIFF".
        metadata: to write beside the pixels; its kind and depth do not matter.
        quality: of JPEG, 1 to 100.
    """
    if kind == "TIFF":
        _write_tiff(path, values, metadata)
    elif values.dtype == np.uint16:
        path.write_bytes(_deep_png(values, metadata))
    else:
        options: dict[str, Any] = {"exif": metadata.exif, "icc_profile": metadata.profile, "dpi": metadata.dpi}
        if kind == "JPEG":
            options["quality"] = quality
        image = PIL.Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)
        image.save(path, format=kind, **{name: value for name, value in options.items() if value is not None})


def _deep_png(values: np.ndarray, metadata: Metadata) -> bytes:
    """A PNG file of 16 bits, which Pillow does not write (https://www.w3.org/TR/png-3/)."""
    height, width, channels = values.shape
    kinds = {1: 0, 2: 4, 3: 2, 4: 6}
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kinds[channels], 0, 0, 0))]
    if metadata.profile is not None:
        parts.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.profile)))
    if metadata.dpi is not None:
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *(round(number / _INCH) for number in metadata.dpi), 1)))
    if metadata.exif is not None:
        parts.append(_chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    # Each line as its difference from the one above (filter 2), byte by byte: photographs become a third smaller.
    lines = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.full((height, lines.shape[1] + 1), 2, np.uint8)
    filtered[:, 1:] = np.diff(lines, axis=0, prepend=np.zeros((1, lines.shape[1]), np.uint8))
    parts += [_chunk(b"IDAT", zlib.compress(filtered.tobytes())), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _write_tiff(path: Path, values: np.ndarray, metadata: Metadata) -> None:
    """A TIFF file (TIFF 6.0, Adobe 1992) whose tags Pillow writes.

    It does not write pixels of 16 bits, nor compressed ones together with the notes of a camera.
    """
    if values.shape[2] == 2 and values.dtype == np.uint16:
        values = values[..., [0, 0, 0, 1]]  # few programs read grey with alpha
    height, width, channels = values.shape
    little = values.astype(values.dtype.newbyteorder("<"))
    data = zlib.compress(np.ascontiguousarray(little).tobytes())
    tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    exif = PIL.Image.Exif()
    if metadata.exif is not None:
        exif.load(metadata.exif)
        for tag, value in exif.items():
            tags[tag] = exif.get_ifd(tag) if tag in SUB_DIRECTORIES else value
    structure = {
        "ImageWidth": width,
        "ImageLength": height,
        "BitsPerSample": (8 * values.itemsize,) * channels,
        "Compression": _DEFLATE,
        "PhotometricInterpretation": 2 if channels > 2 else 1,
        "StripOffsets": 0,  # counted from the end of the tags
        "SamplesPerPixel": channels,
        "RowsPerStrip": height,
        "StripByteCounts": len(data),
    }
    for name, number in structure.items():
        tags[_TAGS[name]] = number
    if channels in (2, 4):
        tags[_TAGS["ExtraSamples"]] = (2,)  # alpha that is not multiplied into the colours
    if metadata.profile is not None:
        tags.tagtype[_TAGS["ICCProfile"]] = PIL.TiffTags.UNDEFINED
        tags[_TAGS["ICCProfile"]] = metadata.profile
    if metadata.dpi is not None:
        tags[_TAGS["XResolution"]], tags[_TAGS["YResolution"]] = metadata.dpi
        tags[_TAGS["ResolutionUnit"]] = 2  # inches
    with path.open("wb") as file:
        tags.save(file)
        file.write(data)
