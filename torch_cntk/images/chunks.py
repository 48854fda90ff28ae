"""The parts that PNG and JPEG files consist of: notes that Pillow drops are carried over as they are stored."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["PNG_HEAD", "Parts", "check_png", "png_chunk", "read_parts", "with_parts"]

Parts = tuple[tuple[bytes, bytes], ...]
"""Names and contents. b"XMP" is that of the notes in XML, which all formats know."""

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (
    *(b"cHRM", b"gAMA", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"sPLT", b"oFFs", b"pCAL", b"sCAL"),
    *(b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs"),
)
"""https://www.w3.org/TR/png-3/: colours, texts, the date, scale and resolution. Of notes in text form, those of the
camera are read by Pillow."""
_PNG_XMP = b"XML:com.adobe.xmp\0"
_RAW_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_APP0, _APP1, _APP13, _COMMENT, _SCAN = 0xE0, 0xE1, 0xED, 0xFE, 0xDA
_PHOTOSHOP = b"Photoshop 3.0\0"
_THUMBNAILS = (1033, 1036)
"""Numbers of Photoshop's resources: small pictures, which would still show what was to be removed."""


_PIECE = 1 << 20
"""Bytes of a file that are looked at at a time."""


def check_png(source: BinaryIO) -> None:
    """Compare the checksums of a PNG file's parts; Pillow does not look at those behind the last pixel.

    What follows the last part belongs to other programs, as libpng has it.

    Args:
        source: of the file; its position moves.

    Raises:
        ValueError: a part is damaged.
        struct.error: the end is missing.
    """
    source.seek(len(PNG_HEAD))
    while True:
        length, name = struct.unpack(">I4s", source.read(8))
        checksum, left = zlib.crc32(name), length
        while left > 0:
            data = source.read(min(left, _PIECE))
            if not data:
                raise ValueError("it ends too early")
            checksum, left = zlib.crc32(data, checksum), left - len(data)
        if source.read(4) != struct.pack(">I", checksum):
            raise ValueError(f"the checksum of its part {name!r} is not that of its content")
        if name == b"IEND":
            return


def read_parts(source: BinaryIO, kind: str) -> Parts:
    """The notes of a PNG or JPEG file that hold for a filled image as well; none of other files.

    Args:
        source: of the file; its position moves.
        kind: of the file.
    """
    if kind not in ("PNG", "JPEG"):
        return ()
    source.seek(0)
    return tuple(_png_notes(source) if kind == "PNG" else _jpeg_notes(source))


def with_parts(data: bytes, kind: str, parts: Parts) -> bytes:
    """A PNG or JPEG file with more notes.

    Args:
        data: the file.
        kind: "PNG" or "JPEG".
        parts: to be added.
    """
    if not parts:
        return data
    if kind == "PNG":
        end = len(PNG_HEAD) + 4 + 4 + 13 + 4  # the first chunk, of which all others depend
        added = b"".join(
            png_chunk(b"iTXt", _PNG_XMP + b"\0\0\0\0" + content) if name == b"XMP" else png_chunk(name, content)
            for name, content in parts
        )
        return data[:end] + added + data[end:]
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1] in (_APP0, _APP1):
        place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    added = b"".join(
        _segment(_APP1, _JPEG_XMP + content) if name == b"XMP" else _segment(name[0], content)
        for name, content in parts
        if len(content) < 65500
    )
    return data[:place] + added + data[place:]


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _png_notes(source: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    source.seek(len(PNG_HEAD))
    while len(head := source.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name not in _PNG_KEPT:
            source.seek(length + 4, 1)
            continue
        content = source.read(length)
        whole = source.read(4) == struct.pack(">I", zlib.crc32(name + content))
        if name == b"iTXt" and content.startswith(_PNG_XMP):
            packed = content[len(_PNG_XMP)] == 1
            text = content[len(_PNG_XMP) + 2 :].split(b"\0", 2)[-1]
            yield b"XMP", zlib.decompress(text) if packed else text
        elif whole and not content.startswith(_RAW_EXIF):
            yield name, content


def _jpeg_notes(source: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    source.seek(2)
    while len(head := source.read(4)) == 4 and head[0] == 0xFF:
        if head[1] == 0xFF:  # a byte that fills
            source.seek(-3, 1)
            continue
        if head[1] == _SCAN:
            return
        length = struct.unpack(">H", head[2:])[0] - 2
        content = source.read(length) if head[1] in (_APP1, _APP13, _COMMENT) else b""
        if not content:
            source.seek(length, 1)
        elif content.startswith(_JPEG_XMP):
            yield b"XMP", content[len(_JPEG_XMP) :]
        elif content.startswith(_PHOTOSHOP):
            yield bytes([_APP13]), _PHOTOSHOP + _without_thumbnails(content[len(_PHOTOSHOP) :])
        elif head[1] == _COMMENT:
            yield bytes([_COMMENT]), content


def _without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's resources: "8BIM", a number, a name and a length before each, padded to even lengths."""
    place, kept = 0, b""
    while resources[place : place + 4] == b"8BIM" and place + 12 <= len(resources):
        number = struct.unpack(">H", resources[place + 4 : place + 6])[0]
        name = resources[place + 6] + 1
        start = place + 6 + name + name % 2
        length = struct.unpack(">I", resources[start : start + 4])[0]
        end = start + 4 + length + length % 2
        if number not in _THUMBNAILS:
            kept += resources[place:end]
        place = end
    return kept
