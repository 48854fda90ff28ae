"""TIFF files: those that Pillow does not read are read by tifffile, and all are written with tags of Pillow's."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.TiffImagePlugin
import PIL.TiffTags

from torch_cntk.images.metadata import SUB_DIRECTORIES, XMP, Metadata
from torch_cntk.images.sixteen_bits import UnservedError

__all__ = ["Samples", "TiffReader", "read_samples", "write_tiff"]

_DEFLATE = 8
_UNSPECIFIED, _ASSOCIATED, _ALPHA = 0, 1, 2
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _LAB = 0, 1, 2, 3, 5, 8
_COLOURS = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3, _CMYK: 4}
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
    "ColorMap": 320,
    "ExtraSamples": 338,
    "SampleFormat": 339,
    "ICCProfile": 34675,
}
_REAL = 3
_INCHES, _CENTIMETRES = 2, 3
_UNITS = {_INCHES: 1.0, _CENTIMETRES: 2.54}


class TiffReader(PIL.TiffImagePlugin.TiffImageFile):
    """Pillow's reader, which also opens files whose pixels it cannot decode, for what they say about themselves."""

    def _setup(self) -> None:
        try:
            super()._setup()
        except SyntaxError:  # "unknown pixel mode", such as RGB in floating point
            self._mode = "F"
            self.tile = []
            profile, unit = self.tag_v2.get(_TAGS["ICCProfile"]), self.tag_v2.get(_TAGS["ResolutionUnit"])
            across, down = (self.tag_v2.get(_TAGS[name]) for name in ("XResolution", "YResolution"))
            if profile is not None:
                self.info["icc_profile"] = profile
            if across and down and unit in _UNITS:
                self.info["dpi"] = (across * _UNITS[unit], down * _UNITS[unit])


@dataclass(frozen=True)
class Samples:
    """The numbers of a TIFF file.

    Attributes:
        values: uint8, uint16 or floating point [H, W, channels], alpha last.
        alpha: whether the last channel is opacity.
        premultiplied: whether the colours are stored times alpha.
    """

    values: np.ndarray
    alpha: bool
    premultiplied: bool


def read_samples(source: BinaryIO) -> Samples | None:
    """Read what Pillow would not, or not to the bit: floating point, 16 bits of several channels, associated alpha.

    Returns:
        the numbers, or None for files that Pillow reads.

    Raises:
        UnservedError: the channels are none that can be filled, or are compressed in a way that tifffile cannot read.
    """
    import tifffile

    source.seek(0)
    try:
        page: Any = tifffile.TiffFile(source).pages[0]
    except (tifffile.TiffFileError, IndexError):
        return None  # damaged, as Pillow will say
    extra = tuple(int(number) for number in page.extrasamples)
    if extra == (_UNSPECIFIED,):
        raise UnservedError("expected channels of colour and alpha, got a further one of unspecified meaning")
    dtype, premultiplied = page.dtype, extra == (_ASSOCIATED,)
    if dtype is None or not (dtype.kind == "f" or (dtype == np.uint16 and page.samplesperpixel > 1) or premultiplied):
        return None
    colours = _COLOURS.get(int(page.photometric))
    alpha = extra in ((_ASSOCIATED,), (_ALPHA,))
    if colours is None or page.samplesperpixel != colours + alpha or dtype.itemsize * (dtype.kind == "u") > 2:
        raise UnservedError(
            f"expected a grey, RGB or CMYK image, got {page.samplesperpixel} channels of {dtype} "
            f"({getattr(page.photometric, 'name', page.photometric)})"
        )
    values = _decoded(page)
    if int(page.photometric) == _WHITE_IS_ZERO:
        if dtype.kind == "f":
            raise UnservedError("expected real numbers of which 0 is black, got white")
        values[..., :1] = np.iinfo(dtype).max - values[..., :1]
    return Samples(values, alpha, premultiplied)


def _decoded(page: Any) -> np.ndarray:
    """[H, W, channels] in the order of bytes of this machine.

    Raises:
        UnservedError: tifffile lacks the decoder.
    """
    try:
        values = page.asarray()
    except (ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise UnservedError(
            f"expected a TIFF file that tifffile can read, got {error}; pip install imagecodecs adds decoders"
        ) from error
    if values.size != page.imagewidth * page.imagelength * page.samplesperpixel:
        raise UnservedError("expected a flat image, got a volume")
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    native: np.ndarray = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return native


def write_tiff(path: Path, values: np.ndarray, alpha: bool, metadata: Metadata) -> None:
    """A TIFF file (TIFF 6.0, Adobe 1992) whose tags Pillow writes.

    It does not write pixels of 16 bits, nor compressed ones together with the notes of a camera.

    Args:
        path: of the file.
        values: [H, W, channels]: uint8, uint16 or floating point; indices if there is a palette; 0 and 1 in 1 bit.
        alpha: whether the last channel is opacity.
        metadata: to write beside the pixels, which says how they are to be stored.
    """
    if values.shape[2] == 2 and values.dtype == np.uint16 and metadata.kind != "TIFF":
        values = values[..., [0, 0, 0, 1]]  # few programs read grey with alpha
    rows = np.packbits(values[..., 0], axis=1) if metadata.depth == 1 else values
    data = zlib.compress(np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder("<"))).tobytes())
    tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    if metadata.exif is not None:
        exif = PIL.Image.Exif()
        exif.load(metadata.exif)
        for tag, value in exif.items():
            tags[tag] = exif.get_ifd(tag) if tag in SUB_DIRECTORIES else value
    for name, number in (_structure(values, alpha, metadata, len(data)) | _described(metadata)).items():
        tags[_TAGS[name]] = number
    for tag, notes in ((_TAGS["ICCProfile"], metadata.profile), (XMP, metadata.xmp)):
        if notes is not None:
            tags.tagtype[tag] = PIL.TiffTags.UNDEFINED if tag != XMP else PIL.TiffTags.BYTE
            tags[tag] = notes
    with path.open("wb") as file:
        tags.save(file)
        file.write(data)


def _structure(values: np.ndarray, alpha: bool, metadata: Metadata, length: int) -> dict[str, Any]:
    """How the pixels are stored."""
    height, width, channels = values.shape
    colours = channels - alpha
    photometric = {1: _GREY, 3: _LAB if metadata.lab else _RGB, 4: _CMYK}[colours]
    structure = {
        "ImageWidth": width,
        "ImageLength": height,
        "BitsPerSample": (1 if metadata.depth == 1 else 8 * values.itemsize,) * channels,
        "Compression": _DEFLATE,
        "PhotometricInterpretation": _PALETTE if metadata.palette is not None else photometric,
        "StripOffsets": 0,  # counted from the end of the tags
        "SamplesPerPixel": channels,
        "RowsPerStrip": height,
        "StripByteCounts": length,
    }
    if alpha:
        structure["ExtraSamples"] = (_ASSOCIATED if metadata.premultiplied else _ALPHA,)
    if metadata.real:
        structure["SampleFormat"] = (_REAL,) * channels
    if metadata.palette is not None:
        colours_of = np.frombuffer(metadata.palette, np.uint8).reshape(-1, 4)[:, :3].astype(int) * 257
        table = np.zeros((256, 3), int)
        table[: len(colours_of)] = colours_of
        structure["ColorMap"] = tuple(table.T.ravel().tolist())
    return structure


def _described(metadata: Metadata) -> dict[str, Any]:
    """The resolution."""
    if metadata.dpi is None:
        return {}
    across, down = metadata.dpi
    return {"XResolution": across, "YResolution": down, "ResolutionUnit": _INCHES}
