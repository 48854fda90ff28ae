"""Files of every mode and format come back as they were where nothing is filled: pixels and what is said beside them.

They are made and compared by Pillow and tifffile themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, PngImagePlugin

from tests.helpers.png import png
from torch_cntk.images.files import read_image, write_image

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


def same_tiff(before: Path, after: Path) -> None:
    """By tifffile."""
    with tifffile.TiffFile(before) as old, tifffile.TiffFile(after) as new:
        one: Any = old.pages[0]
        other: Any = new.pages[0]
        values = one.asarray()
        values = np.moveaxis(values, 0, -1) if one.planarconfig == 2 and values.ndim == 3 else values
        loss = 3 if one.compression == 7 else 0  # decoded by tifffile here, by Pillow there
        assert other.asarray().dtype == values.dtype
        assert np.allclose(other.asarray().astype(float), values.astype(float), rtol=0, atol=loss)
        photometric = 2 if one.photometric == 6 else one.photometric
        expected = (photometric, one.extrasamples, one.bitspersample)
        assert (other.photometric, other.extrasamples, other.bitspersample) == expected
        assert other.iccprofile == one.iccprofile
        assert tag(other, XMP_TAG) == tag(one, XMP_TAG)
        if tag(one, 296) == TIFF_UNIT:
            assert [tag(other, number) for number in RESOLUTION] == [tag(one, number) for number in RESOLUTION]
        if one.colormap is not None:
            assert np.array_equal(other.colormap // 256, one.colormap // 256)


def tag(page: tifffile.TiffPage, number: int) -> Any:
    return getattr(page.tags.get(number), "value", None)


def notes(image: Image.Image) -> dict[Any, Any]:
    found = image.getexif()
    inside = {tag: dict(found.get_ifd(tag)) for tag in (0x8769, 0x8825)}
    structure = set(range(254, 300)) | {320, 330, 338, 339, 34675, 700, 0x8769, 0x8825}
    own = {tag: value for tag, value in found.items() if tag not in structure or tag in (270, 271, 272)}
    return {tag: str(value) for tag, value in (own | inside).items()}


def same_by_pillow(before: Path, after: Path) -> None:
    with Image.open(before) as old, Image.open(after) as new:
        old.load()
        new.load()
        assert (new.mode, new.format, new.size) == (old.mode, old.format, old.size)
        one, other = (np.asarray(image).astype(int) for image in (old, new))
        if old.mode == "P":
            one, other = (np.asarray(image.convert("RGBA")).astype(int) for image in (old, new))
        assert np.abs(one - other).max() <= LOSS.get(before.suffix, 0)
        assert notes(new) == notes(old)
        for name in ("icc_profile", "dpi", "xmp", "transparency", "comment", "gamma", "progressive"):
            assert new.info.get(name) == old.info.get(name), name
        assert getattr(new, "text", None) == getattr(old, "text", None)
        assert getattr(new, "quantization", None) == getattr(old, "quantization", None) or old.mode == "CMYK"
        assert getattr(new, "layer", None) == getattr(old, "layer", None) or old.mode == "CMYK"


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_is_written(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    photograph = read_image(tmp_path / name)
    after = tmp_path / f"after{Path(name).suffix}"
    write_image(after, photograph.pixels, photograph.alpha, metadata=photograph.metadata)
    if name.endswith(".tif"):
        same_tiff(tmp_path / name, after)
    else:
        same_by_pillow(tmp_path / name, after)
    assert repr(read_image(after).metadata) == repr(photograph.metadata)


def test_there_are_files_enough() -> None:
    assert len(FILES) >= 40


def filled(path: Path, changed: np.ndarray, value: float = 0.5) -> Path:
    """The file with other pixels at some places, as a fill makes them, and opaque there."""
    photograph = read_image(path)
    pixels, alpha = photograph.pixels.clone(), photograph.alpha
    pixels[:, torch.from_numpy(changed)] = value
    if alpha is not None:
        opaque = 65535 if alpha.dtype == torch.uint16 else 255
        alpha = torch.where(torch.from_numpy(changed), opaque, alpha.int()).to(alpha.dtype)
    after = path.with_name(f"filled{path.suffix}")
    write_image(after, pixels, alpha, metadata=photograph.metadata)
    return after


def corner() -> np.ndarray:
    changed = np.zeros((HEIGHT, WIDTH), bool)
    changed[2:9, 3:12] = True
    return changed


@pytest.mark.parametrize("name", [name for name in FILES if Path(name).suffix not in LOSS])
def test_only_what_was_filled_differs(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    after = filled(tmp_path / name, corner())
    old, new = read_image(tmp_path / name), read_image(after)
    assert torch.equal(new.pixels[:, torch.from_numpy(~corner())], old.pixels[:, torch.from_numpy(~corner())])
    step = 0.51 / min(2 ** min(old.metadata.depth, 16) - 1, 255)
    if old.metadata.palette is None or name in ("palette.png", "palette.tif", "palette.bmp"):
        # Palettes have room for a new colour; one bit has none for grey.
        assert float((new.pixels[:, torch.from_numpy(corner())] - 0.5).abs().max()) <= step
    if old.alpha is not None:
        assert new.alpha is not None
        assert np.array_equal(new.alpha[0].numpy()[~corner()], old.alpha[0].numpy()[~corner()])
        assert bool((new.alpha[0].double() == new.alpha.double().max())[torch.from_numpy(corner())].all())


def test_a_full_palette_takes_the_nearest_colours(tmp_path: Path) -> None:
    Image.fromarray(noise(3)).quantize(256).save(tmp_path / "a.png")
    filled(tmp_path / "a.png", corner())
    with Image.open(tmp_path / "a.png") as old, Image.open(tmp_path / "filled.png") as new:
        assert old.palette is not None and new.palette is not None
        assert new.getpalette() == old.getpalette()
        colours = np.array(old.getpalette()).reshape(-1, 3)
        nearest = colours[np.abs(colours - 127.5).astype(float).__pow__(2).sum(1).argmin()]
        found = np.asarray(new.convert("RGB"))[corner()]
        assert np.abs(np.square(found - 127.5).sum(1) - np.square(nearest - 127.5).sum()).max() < 800


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [50, 75, 92])
def test_untouched_jpeg_blocks_hardly_change(tmp_path: Path, quality: int, subsampling: int) -> None:
    """With the original's tables blocks round to the same numbers; with others a photograph changes everywhere."""
    values = np.asarray(Image.fromarray(smooth()).resize((96, 96), Image.Resampling.BICUBIC))
    values = (values + np.random.default_rng(0).normal(0, 4, values.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    photograph = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "same.jpg", photograph.pixels, metadata=photograph.metadata)
    write_image(tmp_path / "other.jpg", photograph.pixels, quality=quality - 7)
    before, same, other = (
        np.asarray(Image.open(tmp_path / f"{name}.jpg")).astype(int) for name in ("a", "same", "other")
    )
    assert np.abs(same - before).mean() < 0.5 * np.abs(other - before).mean()
    if subsampling == 0:
        assert (same == before).mean() > 0.97


def test_previews_are_left_out_and_pictures_are_not(tmp_path: Path) -> None:
    picture = Image.fromarray(smooth())
    picture.save(tmp_path / "a.mpo", save_all=True, append_images=[picture])
    # Pillow writes pictures of undefined kind, as telephones do for maps of brightness.
    assert read_image(tmp_path / "a.mpo").pixels.shape == (3, HEIGHT, WIDTH)
    eyes = mark_second_picture((tmp_path / "a.mpo").read_bytes())
    (tmp_path / "b.jpg").write_bytes(eyes)
    with pytest.raises(ValueError, match=r"one picture, got 2; .*b\.jpg"):
        read_image(tmp_path / "b.jpg")


def mark_second_picture(data: bytes) -> bytes:
    """Make the second picture that of the other eye: type 0x020002 of the second entry, 16 bytes each."""
    start = data.index(b"MPF\0") + 4
    order = "<" if data[start : start + 2] == b"II" else ">"
    offset = struct.unpack(f"{order}I", data[start + 4 : start + 8])[0] + start
    count = struct.unpack(f"{order}H", data[offset : offset + 2])[0]
    for entry in range(count):
        place = offset + 2 + 12 * entry
        number, _, _, value = struct.unpack(f"{order}HHII", data[place : place + 12])
        if number == 0xB002:
            second = start + value + 16
            return data[:second] + struct.pack(f"{order}I", 0x020002) + data[second + 4 :]
    raise AssertionError("there is no list of pictures")


def test_thumbnails_do_not_show_what_was_removed(tmp_path: Path) -> None:
    resources = [struct.pack(">4sHHI", b"8BIM", number, 0, 4) + b"abcd" for number in (1036, 1028)]
    block = b"Photoshop 3.0\0" + b"".join(resources)
    Image.fromarray(smooth()).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:2] + struct.pack(">BBH", 0xFF, 0xED, len(block) + 2) + block + data[2:])
    photograph = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg", photograph.pixels, metadata=photograph.metadata)
    written = (tmp_path / "b.jpg").read_bytes()
    assert resources[1] in written
    assert resources[0] not in written


def test_a_turn_is_undone_in_all_notes(tmp_path: Path) -> None:
    notes_of_turn = Image.Exif()
    notes_of_turn[0x0112] = 6
    xmp = XMP.replace(b'Orientation="1"', b'Orientation="6"')
    for suffix in ("jpg", "webp"):
        Image.fromarray(smooth()).save(tmp_path / f"a.{suffix}", exif=notes_of_turn, xmp=xmp)
        photograph = read_image(tmp_path / f"a.{suffix}")
        write_image(tmp_path / f"b.{suffix}", photograph.pixels, metadata=photograph.metadata)
        with Image.open(tmp_path / f"b.{suffix}") as after:
            assert after.size == (HEIGHT, WIDTH)
            assert after.getexif().get(0x0112, 1) == 1
            assert after.info["xmp"] == XMP


def test_avif_of_more_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.avif")
    data = bytearray((tmp_path / "a.avif").read_bytes())
    data[data.index(b"av1C") + 6] |= 0x40
    (tmp_path / "a.avif").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="AVIF image of 8 bits, got 10"):
        read_image(tmp_path / "a.avif")


@pytest.mark.parametrize(
    ("name", "suffix", "match"),
    [
        ("cmyk.tif", "png", r"expected a \.tif file, as the image has CMYK colours, which PNG cannot hold"),
        ("lab.tif", "jpg", r"Lab colours, which JPEG"),
        ("rgb-real.tif", "png", r"floating point values, which PNG"),
        ("rgba.png", "jpg", r"expected a \.png file, as the image has alpha, which JPEG"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, name: str, suffix: str, match: str) -> None:
    FILES[name](tmp_path / name)
    photograph = read_image(tmp_path / name)
    with pytest.raises(ValueError, match=match):
        write_image(tmp_path / f"b.{suffix}", photograph.pixels, photograph.alpha, metadata=photograph.metadata)
    assert not (tmp_path / f"b.{suffix}").exists()


@pytest.mark.parametrize("name", ["rgb.png", "palette-alpha.png", "grey-4-bit.png", "rgb-16-bit.png", "rgb.jpg"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "avif"])
def test_other_formats_hold_what_they_can(tmp_path: Path, name: str, suffix: str) -> None:
    FILES[name](tmp_path / name)
    old = read_image(tmp_path / name)
    write_image(tmp_path / f"b.{suffix}", old.pixels, old.alpha, metadata=old.metadata)
    new = read_image(tmp_path / f"b.{suffix}")
    assert new.metadata.exif == old.metadata.exif or suffix == "tif"
    assert (new.metadata.profile, new.metadata.xmp) == (old.metadata.profile, old.metadata.xmp)
    loss = 0.51 / 255 if suffix == "webp" else 0 if suffix != "avif" else 1
    assert float((new.pixels - old.pixels).abs().max()) <= loss + 1e-6
