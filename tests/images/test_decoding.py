"""16 bits, TIFF and what files say about themselves."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import PIL.ImageOps
import pytest
import torch
from PIL import Image, ImageCms

from tests.helpers.png import png
from torch_cntk.images.decoding import Metadata, decode
from torch_cntk.images.files import Photograph, read_image, write_image

tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 9, 14


def noise(channels: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels), dtype=dtype)


def photograph(values: np.ndarray, metadata: Metadata) -> Photograph:
    alpha = values.shape[2] in (2, 4)
    whole = torch.from_numpy(np.moveaxis(values, -1, 0).astype(np.int32))
    colours = whole[: len(whole) - alpha].to(torch.float32) / np.iinfo(values.dtype).max
    return Photograph(colours, whole[-1:].to(getattr(torch, values.dtype.name)) if alpha else None, metadata)


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_written_is_read_to_the_bit(tmp_path: Path, suffix: str, channels: int, depth: int) -> None:
    values = noise(channels, np.uint16 if depth == 16 else np.uint8)
    given = photograph(values, Metadata(depth=depth))
    path = tmp_path / f"a.{suffix}"
    write_image(path, given.pixels, given.alpha, metadata=given.metadata)
    found = read_image(path)
    assert found.metadata.depth == depth
    pixels = found.pixels if len(found.pixels) == len(given.pixels) else found.pixels[:1]  # grey with alpha as RGBA
    assert torch.equal(pixels, given.pixels)
    assert (found.alpha is None) == (given.alpha is None)
    if given.alpha is not None and found.alpha is not None:
        assert torch.equal(found.alpha.int(), given.alpha.int())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_16_bits_is_what_others_read(tmp_path: Path, channels: int) -> None:
    values = noise(channels)
    given = photograph(values, Metadata(depth=16))
    write_image(tmp_path / "a.tif", given.pixels, given.alpha, metadata=given.metadata)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif").reshape(values.shape), values)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_is_what_others_read(tmp_path: Path, channels: int) -> None:
    """Pillow reads the upper byte of each number."""
    values = noise(channels)
    given = photograph(values, Metadata(depth=16))
    write_image(tmp_path / "a.png", given.pixels, given.alpha, metadata=given.metadata)
    with Image.open(tmp_path / "a.png") as image:
        found = np.asarray(image).reshape(HEIGHT, WIDTH, -1)
    upper = values if channels == 1 else values >> 8
    assert np.array_equal(found[..., [0, 3]] if channels == 2 else found, upper)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_png_of_16_bits_from_its_parts(tmp_path: Path, kind: int, channels: int) -> None:
    values = noise(channels)
    rows = [line.astype(">u2").tobytes() for line in values]
    (tmp_path / "a.png").write_bytes(png(WIDTH, HEIGHT, 16, kind, rows))
    found = decode(tmp_path / "a.png")
    assert found.values.dtype == np.uint16
    assert np.array_equal(found.values, values)
    assert found.alpha == (channels in (2, 4))


@pytest.mark.parametrize(("kind", "colour"), [(0, (513,)), (2, (1, 2, 65535))])
def test_transparent_colour_of_16_bits(tmp_path: Path, kind: int, colour: tuple[int, ...]) -> None:
    values = np.array([[colour, [7] * len(colour)]], np.uint16)
    extra = struct.pack(f">{len(colour)}H", *colour)
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, kind, [values[0].astype(">u2").tobytes()], extra))
    found = decode(tmp_path / "a.png")
    assert np.array_equal(found.values[..., :-1], values)
    assert found.values[0, :, -1].tolist() == [0, 65535]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 2}])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_16_bits_in_several_storages(tmp_path: Path, order: str, options: dict, channels: int) -> None:
    values = noise(channels)
    more = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    kind = "minisblack" if channels == 1 else "rgb"
    given = values.squeeze(2) if channels == 1 else values
    tifffile.imwrite(tmp_path / "a.tif", given, photometric=kind, byteorder=order, **options, **more)
    assert np.array_equal(decode(tmp_path / "a.tif").values, values)


def test_white_may_be_zero(tmp_path: Path) -> None:
    values = noise(1)
    tifffile.imwrite(tmp_path / "a.tif", values.squeeze(2), photometric="miniswhite")
    assert np.array_equal(decode(tmp_path / "a.tif").values, 65535 - values)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (noise(1).squeeze(2).astype(np.int16), {}),
        (noise(1).squeeze(2).astype(np.uint32), {}),
        (noise(4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (noise(4, np.uint8), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (noise(3), {"photometric": "cielab"}),
        (noise(3).astype(np.float32), {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_tiff_that_would_be_read_wrongly_is_refused(tmp_path: Path, values: np.ndarray, options: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(ValueError, match=r"expected .*a\.tif"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_orientations(tmp_path: Path, orientation: int, depth: int, suffix: str) -> None:
    """Against Pillow's own, of PNG: it turns TIFF twice."""
    values = noise(1, np.uint16 if depth == 16 else np.uint8).squeeze(2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path, exif=exif)
    Image.fromarray(values).save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as image:
        upright = np.asarray(PIL.ImageOps.exif_transpose(image))
    assert upright.shape == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    assert np.array_equal(decode(path).values[..., 0], upright)


def described(folder: Path, suffix: str) -> Path:
    """A file with a profile, notes of the author, the camera and the place, a thumbnail's worth of resolution."""
    exif = Image.Exif()
    exif[0x8298], exif[0x0132], exif[0x0112] = "(c) nobody", "2020:01:01 00:00:00", 6
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = folder / f"a.{suffix}"
    Image.fromarray(noise(3, np.uint8)).save(path, icc_profile=profile, exif=exif.tobytes(), dpi=(300, 200))
    return path


@pytest.mark.parametrize("before", ["jpg", "png", "tif"])
@pytest.mark.parametrize("after", ["jpg", "png", "tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_what_a_file_says_is_kept(tmp_path: Path, before: str, after: str, depth: int) -> None:
    path = described(tmp_path, before)
    found = read_image(path)
    metadata = Metadata(found.metadata.kind, depth, found.metadata.exif, found.metadata.profile, found.metadata.dpi)
    write_image(tmp_path / f"b.{after}", found.pixels, metadata=metadata)
    with Image.open(path) as old, Image.open(tmp_path / f"b.{after}") as new:
        new.load()
        assert new.info["icc_profile"] == old.info["icc_profile"]
        assert new.info["dpi"] == pytest.approx((300, 200), rel=0.01)
        exif = new.getexif()
        assert exif[0x8298].rstrip("\0") == "(c) nobody"
        assert exif[0x0132].rstrip("\0") == "2020:01:01 00:00:00"
        assert exif.get_ifd(0x8769)[0x9003].rstrip("\0") == "2020:01:01 00:00:00"
        assert exif.get_ifd(0x8825)[1].rstrip("\0") == "N"
        # It was turned upright, and shall not be turned again.
        assert exif.get(0x0112, 1) == 1
        assert new.size == (HEIGHT, WIDTH)


def test_no_metadata_is_none(tmp_path: Path) -> None:
    Image.fromarray(noise(3, np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").metadata == Metadata("PNG", 8, None, None, None)
    for depth in (8, 16):
        write_image(tmp_path / "a.tif", torch.zeros(3, 4, 5), metadata=Metadata("TIFF", depth))
        assert read_image(tmp_path / "a.tif").metadata == Metadata("TIFF", depth, None, None, None)
