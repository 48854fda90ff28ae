"""Image files of every mode and format, made by Pillow and tifffile themselves."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from tests.helpers.png import png

HEIGHT, WIDTH = 24, 31
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF tiff:Orientation="1"/></x:xmpmeta>'
TIFF_UNIT, RESOLUTION, XMP_TAG = 2, (282, 283, 296), 700


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    random = np.random.default_rng(sum(shape))
    if np.dtype(dtype).kind == "f":
        return random.normal(0.5, 1, (HEIGHT, WIDTH, *shape)).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, *shape), dtype, endpoint=True)


def smooth() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([120 + 60 * np.sin(columns / 9), 128 + 60 * np.cos(rows / 11), 90 + columns], -1).astype(np.uint8)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif() -> Image.Exif:
    notes = Image.Exif()
    notes[0x013B], notes[0x8298], notes[0x010F], notes[0x4746] = "An Author", "(c) nobody", "Maker", 4
    notes.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    notes.get_ifd(0x8769)[0xA434] = "A lens"
    notes.get_ifd(0x8825)[1] = "N"
    return notes


def pillow(mode: str, values: np.ndarray | None = None, **options: Any) -> Callable[[Path], None]:
    """A file by Pillow, with its options."""

    def make(path: Path) -> None:
        shape = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LAB": (3,), "I;16": ()}.get(mode, (3,))
        given = noise(*shape, dtype=np.uint16 if mode == "I;16" else np.uint8) if values is None else values
        if mode == "1":
            image = Image.fromarray(given).convert("1")
        elif mode == "P":
            image = Image.fromarray(given).quantize(16)
        elif mode in ("CMYK", "LAB"):
            image = Image.frombytes(mode, (WIDTH, HEIGHT), given.tobytes())
        else:
            image = Image.fromarray(given)
        assert image.mode == mode
        image.save(path, **options)

    return make


def tiff(values: np.ndarray, **options: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        tifffile.imwrite(path, values, **options)

    return make


def bare_png(bits: int, colour: int, channels: int, key: bytes = b"") -> Callable[[Path], None]:
    """A PNG file of this many bits, which Pillow does not write."""

    def make(path: Path) -> None:
        random = np.random.default_rng(bits + channels)
        line = (WIDTH * channels * bits + 7) // 8
        lines = random.integers(0, 256, (HEIGHT, line), dtype=np.uint8)
        path.write_bytes(png(WIDTH, HEIGHT, bits, colour, [row.tobytes() for row in lines], key))

    return make


def bitmap_with_alpha(path: Path) -> None:
    """By Windows' own description of BITMAPV5HEADER, from the top down."""
    data = noise(4)[..., [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<IIIIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, 0x73524742, 0) + bytes(60)
    head = struct.pack("<IiiHHIIiiII", 124, WIDTH, -HEIGHT, 1, 32, 3, len(data), 3780, 3780, 0, 0)
    path.write_bytes(struct.pack("<2sIHHI", b"BM", 138 + len(data), 0, 0, 138) + head + masks + data)


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A photograph")
    info.add_text("Comment", "packed " * 20, zip=True)
    info.add_itxt("Author", "Zoë", "en", "Auteur")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add(b"gAMA", struct.pack(">I", 45455))
    return info


RGBA_HALF = np.where(noise(4) > 99, 255, noise(4)).astype(np.uint8)
PREMULTIPLIED = (RGBA_HALF * (RGBA_HALF[..., 3:] / 255)).astype(np.uint8)
PREMULTIPLIED[..., 3] = RGBA_HALF[..., 3]
DEEP = (PREMULTIPLIED.astype(np.uint16) * 257) // np.array([3, 5, 7, 1], np.uint16)

FILES: dict[str, Callable[[Path], None]] = {
    "grey-1-bit.png": pillow("1"),
    "grey-2-bit.png": bare_png(2, 0, 1),
    "grey-4-bit.png": bare_png(4, 0, 1),
    "grey.png": pillow("L", icc_profile=profile()),
    "grey-16-bit.png": pillow("I;16"),
    "grey-key.png": pillow("L", transparency=7),
    "grey-16-bit-key.png": bare_png(16, 0, 1, struct.pack(">H", 999)),
    "grey-alpha.png": pillow("LA"),
    "grey-alpha-16-bit.png": bare_png(16, 4, 2),
    "palette.png": pillow("P"),
    "palette-alpha.png": pillow("P", transparency=bytes(range(0, 240, 15))),
    "palette-one.png": pillow("P", transparency=3),
    "rgb.png": pillow("RGB", exif=exif(), dpi=(300, 200), icc_profile=profile(), pnginfo=text()),
    "rgb-key.png": pillow("RGB", np.where(noise(3) > 99, noise(3), 77).astype(np.uint8), transparency=(77, 77, 77)),
    "rgb-16-bit.png": bare_png(16, 2, 3),
    "rgba.png": pillow("RGBA", exif=exif(), dpi=(72, 72), pnginfo=text()),
    "rgba-16-bit.png": bare_png(16, 6, 4),
    "grey.jpg": pillow("L", smooth()[..., 0], quality=80, exif=exif()),
    "rgb.jpg": pillow("RGB", smooth(), quality=70, subsampling=0, exif=exif(), dpi=(300, 300), icc_profile=profile()),
    "rgb-420.jpg": pillow("RGB", smooth(), quality=90, subsampling=2, comment=b"A comment", progressive=True),
    "rgb-422.jpeg": pillow("RGB", smooth(), quality=60, subsampling=1, xmp=XMP),
    "cmyk.jpg": pillow("CMYK", np.dstack([smooth(), smooth()[..., :1]]), quality=85),
    "grey-1-bit.tif": pillow("1", compression="group4"),
    "grey.tif": pillow("L", compression="tiff_lzw", dpi=(600, 300)),
    "grey-16-bit.tif": tiff(noise(dtype=np.uint16), compression="zlib"),
    "grey-real.tif": tiff(noise(dtype=np.float32)),
    "grey-double.tif": tiff(noise(dtype=np.float64), byteorder=">"),
    "grey-half.tif": tiff(noise(dtype=np.float16)),
    "grey-alpha.tif": pillow("LA"),
    "grey-alpha-16-bit.tif": tiff(noise(2, dtype=np.uint16), photometric="minisblack", extrasamples=["unassalpha"]),
    "palette.tif": pillow("P"),
    "rgb.tif": pillow("RGB", icc_profile=profile(), dpi=(300, 200), exif=exif()),
    "rgb-jpeg.tif": pillow("RGB", smooth(), compression="jpeg"),
    "rgb-16-bit.tif": tiff(
        noise(3, dtype=np.uint16), photometric="rgb", resolution=(300, 200), resolutionunit=TIFF_UNIT
    ),
    "rgb-16-bit-lzw.tif": tiff(noise(3, dtype=np.uint16), photometric="rgb", compression="zlib", predictor=True),
    "rgb-planar.tif": tiff(np.moveaxis(noise(3), -1, 0).copy(), photometric="rgb", planarconfig="separate"),
    "rgb-16-bit-planar.tif": tiff(
        np.moveaxis(noise(3, dtype=np.uint16), -1, 0).copy(), photometric="rgb", planarconfig="separate"
    ),
    "rgb-real.tif": tiff(noise(3, dtype=np.float32), photometric="rgb", iccprofile=profile()),
    "rgba.tif": pillow("RGBA"),
    "rgba-16-bit.tif": tiff(noise(4, dtype=np.uint16), photometric="rgb", extrasamples=["unassalpha"]),
    "rgba-associated.tif": tiff(PREMULTIPLIED, photometric="rgb", extrasamples=["assocalpha"]),
    "rgba-associated-16-bit.tif": tiff(DEEP, photometric="rgb", extrasamples=["assocalpha"]),
    "cmyk.tif": pillow("CMYK"),
    "cmyk-16-bit.tif": tiff(noise(4, dtype=np.uint16), photometric="separated"),
    "lab.tif": pillow("LAB"),
    "xmp.tif": tiff(noise(3), photometric="rgb", extratags=[(700, 1, len(XMP), XMP, True)]),
    "rgb.webp": pillow("RGB", lossless=True, exif=exif(), icc_profile=profile(), xmp=XMP),
    "rgb-lossy.webp": pillow("RGB", smooth(), quality=60),
    "rgba.webp": pillow("RGBA", lossless=True, exact=True),
    "grey-1-bit.bmp": pillow("1"),
    "grey.bmp": pillow("L"),
    "palette.bmp": pillow("P"),
    "rgb.bmp": pillow("RGB", dpi=(300, 300)),
    "rgba.bmp": bitmap_with_alpha,
    "rgb.avif": pillow("RGB", smooth(), quality=90, exif=exif(), icc_profile=profile(), xmp=XMP),
    "rgba.avif": pillow("RGBA", np.dstack([smooth(), smooth()[..., :1]]), quality=90),
}
LOSS = {".jpg": 6, ".jpeg": 6, ".avif": 4}
"""Grey levels by which encoding again may change a smooth picture: of JPEG of quality 60, half a step of its tables."""


def same_mode(first: Path, second: Path) -> bool:
    """Whether two files store pixels in the same way."""
    if first.suffix == ".tif":
        kinds = []
        for path in (first, second):
            with tifffile.TiffFile(path) as file:
                page: Any = file.pages[0]
                kinds.append((page.photometric, page.extrasamples, page.dtype))
        return kinds[0] == kinds[1]
    with Image.open(first) as old, Image.open(second) as new:
        return (old.mode, old.format) == (new.mode, new.format)
