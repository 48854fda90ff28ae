"""Numbers to image files, with what the original said about itself, and stored as it was."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from torch_cntk.images.chunks import PNG_HEAD, Parts, png_chunk, with_parts
from torch_cntk.images.metadata import Metadata
from torch_cntk.images.tiff import write_tiff

__all__ = ["adapted", "encode"]

_INCH = 0.0254
"""Metres, in which PNG and BMP count."""
_QUALITY = 95
"""Of JPEG where nothing else is known: differences are below what the eye sees."""
_MOST_COLOURS = 256
_NOT_BY_PILLOW = (2, 4, 16)
"""Bits of PNG files that it does not write, or of grey ones only."""
_DEPTHS = {"PNG": (1, 2, 4, 8, 16), "TIFF": (1, 8, 16, 32, 64), "BMP": (1, 8)}
"""Bits of a channel; others become 8."""


_NEEDS: tuple[tuple[Callable[[Metadata, int, bool], bool], tuple[str, ...], str, str], ...] = (
    (lambda metadata, colours, alpha: colours == 4, ("JPEG", "TIFF"), "CMYK colours", "tif"),
    (lambda metadata, colours, alpha: metadata.lab, ("TIFF",), "Lab colours", "tif"),
    (lambda metadata, colours, alpha: metadata.real, ("TIFF",), "floating point values", "tif"),
    (lambda metadata, colours, alpha: alpha, ("PNG", "TIFF", "WebP", "AVIF", "BMP"), "alpha", "png"),
)
"""What only some formats can hold, in words, and the suffix of one that can."""


def adapted(metadata: Metadata, kind: str, colours: int, alpha: bool) -> Metadata:
    """How an image can be stored in a format that may be another than it had.

    Args:
        metadata: of the original.
        kind: of the new file.
        colours: number of channels without alpha.
        alpha: whether there is one.

    Returns:
        the same where the format can hold it; otherwise with a depth and without the palette and notes that it has no
        place for.

    Raises:
        ValueError: the format has no such colours.
    """
    for there, kinds, name, better in _NEEDS:
        if there(metadata, colours, alpha) and kind not in kinds:
            raise ValueError(f"expected a .{better} file, as the image has {name}, which {kind} cannot hold")
    kept = metadata.depth in _DEPTHS.get(kind, (8,)) and (metadata.depth >= 8 or (colours == 1 and not alpha))
    indexed = colours == 3 and (kind == "PNG" or (kind in ("TIFF", "BMP") and not alpha))
    return replace(
        metadata,
        depth=metadata.depth if kept else 8,
        palette=metadata.palette if indexed else None,
        premultiplied=metadata.premultiplied and kind == "TIFF",
        key=metadata.key if kind == metadata.kind and metadata.depth >= 8 else None,
        parts=metadata.parts if kind == metadata.kind else (),
    )


def encode(path: Path, values: np.ndarray, alpha: bool, kind: str, metadata: Metadata, quality: int | None) -> None:
    """Write an image file.

    Args:
        path: of the file.
        values: [H, W, channels], alpha last; of as many bits as the metadata say: uint8, uint16 or floating point.
        alpha: whether the last channel is opacity.
        kind: of the file.
        metadata: of ``adapted``: how to store the pixels, and what to write beside them.
        quality: of JPEG, 1 to 100; None for that of the original.
    """
    if metadata.palette is not None:
        values, table = _indexed(values, alpha, metadata.palette)
        metadata, alpha = replace(metadata, palette=table), False
    if kind == "TIFF":
        write_tiff(path, values, alpha, metadata)
    elif kind == "BMP" and alpha:
        path.write_bytes(_bmp(values, metadata))
    else:
        values, key = _without_alpha(values, alpha, metadata)
        own = kind == "PNG" and metadata.depth in _NOT_BY_PILLOW
        path.write_bytes(_png(values, metadata, key) if own else _by_pillow(values, kind, metadata, key, quality))


def _indexed(values: np.ndarray, alpha: bool, palette: bytes) -> tuple[np.ndarray, bytes]:
    """Numbers of the nearest colours of a palette, which gets the image's own ones as far as there is room.

    Returns:
        uint8 [H, W, 1], and the palette.
    """
    import scipy.spatial  # for palettes only: it takes a tenth of a second

    if not alpha:
        values = np.concatenate([values, np.full_like(values[..., :1], 255)], 2)
    colours, numbers = np.unique(np.ascontiguousarray(values).view(np.uint32), return_inverse=True)
    wanted = colours.view(np.uint8).reshape(-1, 4)
    table = np.frombuffer(palette, np.uint8).reshape(-1, 4)
    distance, nearest = scipy.spatial.cKDTree(table.astype(float)).query(wanted.astype(float))
    for new in np.argsort(-distance)[: _MOST_COLOURS - len(table)]:
        # The one that fits worst gets an entry of its own.
        if distance[new] > 0:
            nearest[new] = len(table)
            table = np.concatenate([table, wanted[new : new + 1]])
    indices: np.ndarray = nearest.astype(np.uint8)[numbers].reshape(*values.shape[:2], 1)
    return indices, table.tobytes()


def _by_pillow(
    values: np.ndarray, kind: str, metadata: Metadata, key: tuple[int, ...] | None, quality: int | None
) -> bytes:
    """All but TIFF, what has 2, 4 or 16 bits, and bitmaps with alpha."""
    parts = metadata.parts
    options: dict[str, Any] = {"exif": metadata.exif, "icc_profile": metadata.profile, "dpi": metadata.dpi}
    if kind == "PNG":
        parts = _png_parts(metadata, 3 if metadata.palette is not None else values.shape[2])
        options |= _transparency(metadata, key) | ({"dpi": None} if b"pHYs" in dict(parts) else {})
    elif kind == "JPEG":
        parts = _with_xmp(metadata)
        options |= _compression(metadata, quality)
    elif kind == "WebP":
        # Lossy, all the picture would change, and not only what was filled.
        options |= {"lossless": True, "exact": True, "xmp": metadata.xmp}
    elif kind == "AVIF":
        options |= {"quality": 100, "subsampling": "4:4:4", "xmp": metadata.xmp}
    stream = io.BytesIO()
    given = {name: value for name, value in options.items() if value is not None}
    _image(values, kind, metadata).save(stream, format=kind, **given)
    return with_parts(stream.getvalue(), kind, parts)


def _transparency(metadata: Metadata, key: tuple[int, ...] | None) -> dict[str, Any]:
    """The opacities of a palette's colours, or the colour that is transparent."""
    if metadata.palette is not None:
        opacity = np.frombuffer(metadata.palette, np.uint8)[3::4]
        return {"transparency": opacity.tobytes()} if opacity.min() < 255 else {}
    return {} if key is None else {"transparency": key if len(key) > 1 else key[0]}


def _compression(metadata: Metadata, quality: int | None) -> dict[str, Any]:
    """Of JPEG: the original's tables leave blocks that were not touched nearly as they were."""
    if quality is not None or metadata.jpeg is None:
        return {"quality": _QUALITY if quality is None else quality}
    return {
        "qtables": [list(table) for table in metadata.jpeg.tables],
        "subsampling": metadata.jpeg.subsampling,
        "progressive": metadata.jpeg.progressive,
    }


def _image(values: np.ndarray, kind: str, metadata: Metadata) -> PIL.Image.Image:
    """As Pillow has it."""
    if metadata.depth == 1:
        return PIL.Image.fromarray((values[..., 0] * 255).astype(np.uint8)).convert("1", dither=PIL.Image.Dither.NONE)
    if metadata.palette is not None:
        image = PIL.Image.fromarray(values[..., 0])
        image.putpalette(np.frombuffer(metadata.palette, np.uint8).reshape(-1, 4)[:, :3].tobytes())
        return image
    if values.shape[2] == 4 and kind == "JPEG":
        return PIL.Image.frombytes("CMYK", values.shape[1::-1], np.ascontiguousarray(values).tobytes())
    return PIL.Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)


def _with_xmp(metadata: Metadata) -> Parts:
    """The parts, with the notes in XML, which all formats store in ways of their own."""
    return metadata.parts if metadata.xmp is None else (*metadata.parts, (b"XMP", metadata.xmp))


def _png(values: np.ndarray, metadata: Metadata, key: tuple[int, ...] | None) -> bytes:
    """A PNG file of 2, 4 or 16 bits, which Pillow does not write (https://www.w3.org/TR/png-3/)."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, metadata.depth, colour, 0, 0, 0))]
    if metadata.profile is not None:
        parts.append(png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.profile)))
    if metadata.dpi is not None and b"pHYs" not in dict(metadata.parts):
        parts.append(png_chunk(b"pHYs", struct.pack(">IIB", *(round(number / _INCH) for number in metadata.dpi), 1)))
    if metadata.exif is not None:
        parts.append(png_chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    if key is not None:
        parts.append(png_chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    data = zlib.compress(_filtered(_packed(values, metadata.depth)).tobytes())
    parts += [png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return with_parts(PNG_HEAD + b"".join(parts), "PNG", _png_parts(metadata, channels))


def _png_parts(metadata: Metadata, channels: int) -> Parts:
    """The notes of a PNG file that hold for one of so many channels: how many bits count, for instance."""
    return tuple(part for part in _with_xmp(metadata) if part[0] != b"sBIT" or len(part[1]) == channels)


def _without_alpha(values: np.ndarray, alpha: bool, metadata: Metadata) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Alpha as one colour that is transparent, if it was so and can still be: [H, W, channels], and the colour."""
    key = metadata.key
    if not alpha or key is None or len(key) != values.shape[2] - 1:
        return values, None
    opaque = (values[..., :-1] != np.array(key)).any(2)
    fits = bool((values[..., -1] == np.where(opaque, np.iinfo(values.dtype).max, 0)).all())
    return (values[..., :-1], key) if fits else (values, None)


def _packed(values: np.ndarray, depth: int) -> np.ndarray:
    """The bytes of each line, uint8 [H, bytes]."""
    height = len(values)
    if depth == 16:
        return np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, -1)
    bits = np.unpackbits(values.reshape(height, -1, 1), axis=2)[..., 8 - depth :]
    return np.packbits(bits.reshape(height, -1), axis=1)


def _filtered(lines: np.ndarray) -> np.ndarray:
    """Each line as its difference from the one above (filter 2), byte by byte: photographs become a third smaller."""
    filtered = np.full((len(lines), lines.shape[1] + 1), 2, np.uint8)
    filtered[:, 1:] = np.diff(lines, axis=0, prepend=np.zeros((1, lines.shape[1]), np.uint8))
    return filtered


def _bmp(values: np.ndarray, metadata: Metadata) -> bytes:
    """A bitmap with alpha (BITMAPV4HEADER of Windows), which Pillow reads and does not write."""
    height, width, channels = values.shape
    if channels == 2:
        values = values[..., [0, 0, 0, 1]]
    data = np.ascontiguousarray(values[::-1, :, [2, 1, 0, 3]]).tobytes()
    across, down = (round(number / _INCH) for number in metadata.dpi or (96, 96))
    masks = struct.pack("<4I4s48x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(data), across, down, 0, 0) + masks
    return struct.pack("<2sIHHI", b"BM", 14 + 108 + len(data), 0, 0, 14 + 108) + info + data
