"""Image files in and out."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.png import png
from torch_cntk import OutOfMemoryError
from torch_cntk.images.chunks import png_chunk
from torch_cntk.images.files import check_output, read_image, read_mask, write_image

HEIGHT, WIDTH = 24, 31


def noise(channels: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(channels).integers(0, 256, shape, dtype=np.uint8)


def as_bytes(pixels: Tensor) -> np.ndarray:
    """[channels, H, W] in [0, 1] as uint8 [H, W, channels], exactly or not at all."""
    scaled = pixels * 255
    assert torch.allclose(scaled, scaled.round(), atol=1e-4, rtol=0)
    return scaled.round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("channels", "colours", "alpha"), [(1, 1, False), (2, 1, True), (3, 3, False), (4, 3, True)])
def test_png_is_read_to_the_bit(tmp_path: Path, channels: int, colours: int, alpha: bool) -> None:
    values = noise(channels)
    Image.fromarray(values).save(tmp_path / "a.png")
    photograph = read_image(tmp_path / "a.png")
    assert photograph.pixels.dtype == torch.float32
    assert photograph.pixels.shape == (colours, HEIGHT, WIDTH)
    assert 0 <= float(photograph.pixels.min()) < 0.1 < 0.9 < float(photograph.pixels.max()) <= 1
    expected = values.reshape(HEIGHT, WIDTH, channels)
    assert np.array_equal(as_bytes(photograph.pixels), expected[..., :colours])
    if alpha:
        assert photograph.alpha is not None
        assert photograph.alpha.dtype == torch.uint8
        assert photograph.alpha.shape == (1, HEIGHT, WIDTH)
        assert np.array_equal(photograph.alpha[0].numpy(), expected[..., -1])
    else:
        assert photograph.alpha is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_written_is_png_read(tmp_path: Path, channels: int) -> None:
    values = noise(channels)
    Image.fromarray(values).save(tmp_path / "a.png")
    photograph = read_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png", photograph.pixels, photograph.alpha)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
        assert np.array_equal(np.asarray(image), values)


def test_all_256_values_survive(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    write_image(tmp_path / "b.png", read_image(tmp_path / "a.png").pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), values)


@pytest.mark.parametrize(("channels", "suffix"), [(1, "jpg"), (3, "jpg"), (3, "jpeg"), (3, "JPG")])
def test_jpeg(tmp_path: Path, channels: int, suffix: str) -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    smooth = torch.stack([rows, columns, 1 - rows])[:channels]
    write_image(tmp_path / f"a.{suffix}", smooth)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.format == "JPEG"
    photograph = read_image(tmp_path / f"a.{suffix}")
    assert photograph.alpha is None
    assert photograph.pixels.shape == smooth.shape
    assert float((photograph.pixels - smooth).abs().max()) < 0.05


def test_jpeg_quality_matters(tmp_path: Path) -> None:
    pixels = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    write_image(tmp_path / "good.jpg", pixels)
    write_image(tmp_path / "bad.jpg", pixels, quality=20)
    assert (tmp_path / "bad.jpg").stat().st_size < (tmp_path / "good.jpg").stat().st_size
    with pytest.raises(ValueError, match="at most 100, got 101"):
        write_image(tmp_path / "worse.jpg", pixels, quality=101)


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(noise(3)).quantize(16)
    assert image.mode == "P"
    image.save(tmp_path / "a.png")
    photograph = read_image(tmp_path / "a.png")
    assert photograph.alpha is None
    assert np.array_equal(as_bytes(photograph.pixels), np.asarray(image.convert("RGB")))


def test_palette_with_transparency_has_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(noise(3)).quantize(16)
    image.save(tmp_path / "a.png", transparency=3)
    photograph = read_image(tmp_path / "a.png")
    assert photograph.alpha is not None
    assert np.array_equal(photograph.alpha[0].numpy() == 0, np.asarray(image) == 3)
    assert np.array_equal(as_bytes(photograph.pixels), np.asarray(image.convert("RGB")))


def test_transparent_colour_of_rgb_has_alpha(tmp_path: Path) -> None:
    rows = [bytes([9, 8, 7, 1, 2, 3])]
    (tmp_path / "a.png").write_bytes(png(2, 1, 8, 2, rows, struct.pack(">HHH", 1, 2, 3)))
    photograph = read_image(tmp_path / "a.png")
    assert photograph.alpha is not None
    assert photograph.alpha.tolist() == [[[255, 0]]]
    assert as_bytes(photograph.pixels).tolist() == [[[9, 8, 7], [1, 2, 3]]]


@pytest.mark.parametrize("extra", [b"", struct.pack(">H", 1)])
def test_one_bit_becomes_grey(tmp_path: Path, extra: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png(3, 1, 1, 0, [b"\xa0"], extra))
    photograph = read_image(tmp_path / "a.png")
    assert photograph.pixels.tolist() == [[[1, 0, 1]]]
    assert (photograph.alpha is None) == (not extra)
    if photograph.alpha is not None:
        assert photograph.alpha.tolist() == [[[0, 255, 0]]]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    values = np.zeros((16, 32), dtype=np.uint8)
    values[:, :16] = 255  # white on the left, which orientation 6 (turn clockwise) brings to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"a.{suffix}").pixels
    assert pixels.shape == (1, 32, 16)
    assert bool((pixels[0, :15] > 0.9).all())
    assert bool((pixels[0, 17:] < 0.1).all())
    assert bool(read_mask(tmp_path / f"a.{suffix}", (32, 16))[:15].all())


@pytest.mark.parametrize(("mode", "format_"), [("I", "TIFF")])
def test_other_modes_are_refused(tmp_path: Path, mode: str, format_: str) -> None:
    path = tmp_path / "a.img"
    Image.new(mode, (WIDTH, HEIGHT)).save(path, format_)
    with pytest.raises(ValueError, match=r"expected a grey, RGB, CMYK, Lab or palette image of 8 or 16 bits") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_several_pictures_are_refused(tmp_path: Path) -> None:
    pictures = [Image.fromarray(noise(3)) for _ in range(3)]
    for suffix in ("tif", "png"):
        path = tmp_path / f"a.{suffix}"
        pictures[0].transpose(Image.Transpose.ROTATE_180).save(path, save_all=True, append_images=pictures[1:])
        with pytest.raises(ValueError, match="expected an image of one picture, got"):
            read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for read in (lambda: read_image(path), lambda: read_mask(path, (HEIGHT, WIDTH))):
        with pytest.raises(
            ValueError, match=r"expected a (whole )?PNG, JPEG, TIFF, WebP, BMP or AVIF image, got"
        ) as caught:
            read()
        assert str(path) in str(caught.value)


def end_of_pngs() -> bytes:
    return struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))


def flipped(data: bytes, part: bytes) -> bytes:
    """A PNG file with a wrong checksum of the last part of this name."""
    place = data.rindex(part) + 4 + struct.unpack(">I", data[data.rindex(part) - 4 : data.rindex(part)])[0]
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def with_notes(place: str) -> bytes:
    """A PNG file with a note before or behind its pixels."""
    whole = png(1, 1, 8, 0, [b"\x07"])
    start = whole.index(b"IDAT" if place == "before" else b"IEND") - 4
    return whole[:start] + png_chunk(b"tEXt", b"Title\0a house") + whole[start:]


PNG_DAMAGES: dict[str, Callable[[], bytes]] = {
    "header": lambda: flipped(with_notes("before"), b"IHDR"),
    "pixels": lambda: flipped(with_notes("before"), b"IDAT"),
    "note before": lambda: flipped(with_notes("before"), b"tEXt"),
    "note behind": lambda: flipped(with_notes("behind"), b"tEXt"),
    "end": lambda: flipped(with_notes("behind"), b"IEND"),
    "end without checksum": lambda: with_notes("behind")[:-4],
    "half of the end's checksum": lambda: with_notes("behind")[:-2],
    "half of the end": lambda: with_notes("behind")[:-6],
    "no end": lambda: with_notes("behind")[:-12],
    "another end": lambda: with_notes("behind")[:-12] + end_of_pngs().replace(b"IEND", b"iEND"),
    "no end, but more": lambda: with_notes("behind")[:-12] + bytes(100),
}


@pytest.mark.parametrize("damage", PNG_DAMAGES)
def test_damaged_parts_of_png_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG_DAMAGES[damage]())
    for read in (lambda: read_image(path), lambda: read_mask(path, (1, 1))):
        with pytest.raises(ValueError, match=r"expected a whole PNG.*, got one that cannot be read: .*a\.png"):
            read()


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("more", [b"", b"\0", b"PK\x03\x04", end_of_pngs(), bytes(1000)])
def test_what_follows_the_end_of_png_files_does_no_harm(tmp_path: Path, place: str, more: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(with_notes(place) + more)
    assert float(read_image(path).pixels) == pytest.approx(7 / 255)


@pytest.mark.parametrize("data", [b"", b"no image", b"GIF89a" + bytes(20), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"expected a (whole )?PNG, JPEG, TIFF, WebP, BMP or AVIF image, got .*a\.png"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [10**5, 10**6, 2**31 - 1])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side, 8, 2, [bytes(100)]))
    with pytest.raises(OutOfMemoryError, match=rf"the image .*a\.png of {side} x {side} pixels needs .*TB|GB, but"):
        read_image(tmp_path / "a.png")
    with pytest.raises(OutOfMemoryError, match=r"the mask .*a\.png of "):
        read_mask(tmp_path / "a.png", (1, 1))


@pytest.mark.parametrize("limit", [1, 100, 500])
def test_large_scans_are_read_if_there_is_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Pillow refuses, or warns of an attack, by the number of pixels alone."""
    Image.fromarray(noise(1)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").pixels.shape == (1, HEIGHT, WIDTH)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image file .*nothing\.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"no image file .*nothing\.png"):
        read_mask(tmp_path / "nothing.png", (1, 1))
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_mask_threshold_and_inversion(tmp_path: Path) -> None:
    values = np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    observed = read_mask(tmp_path / "m.png", (2, 3))
    assert observed.dtype == torch.bool
    # What is between was painted over a little.
    assert observed.tolist() == [[False, False, False], [False, True, True]]
    inverted = read_mask(tmp_path / "m.png", (2, 3), invert=True)
    assert inverted.tolist() == [[True, True, False], [False, False, False]]
    half = read_mask(tmp_path / "m.png", (2, 3), threshold=127.5)
    assert half.tolist() == [[False, False, False], [True, True, True]]
    assert read_mask(tmp_path / "m.png", (2, 3), invert=True, threshold=127.5).tolist() == (~half).tolist()
    with pytest.raises(ValueError, match="threshold from 0 to 255, got 256"):
        read_mask(tmp_path / "m.png", (2, 3), threshold=256)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_masks_of_every_mode(tmp_path: Path, mode: str) -> None:
    values = np.where(noise(1) > 200, 255, 0).astype(np.uint8)
    mask = Image.fromarray(values).convert(mode)
    if mode.endswith("A"):
        mask.putalpha(Image.fromarray(noise(1)[::-1].copy()))
    mask.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", (HEIGHT, WIDTH)).numpy(), values == 255)


def test_mask_of_another_size(tmp_path: Path) -> None:
    Image.fromarray(noise(1)).save(tmp_path / "m.png")
    # The same pixels turned by 90 degrees are another size, too.
    with pytest.raises(ValueError, match=r"expected a mask of 24 x 31 pixels .*got 31 x 24: .*m\.png"):
        read_mask(tmp_path / "m.png", (WIDTH, HEIGHT))


def test_writing_clips_and_rounds(tmp_path: Path) -> None:
    pixels = torch.tensor([[[-3.0, 0.4 / 255, 0.6 / 255], [1.0, 254.4 / 255, 7.0]]], dtype=torch.float64)
    write_image(tmp_path / "a.png", pixels)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 0, 1], [255, 254, 255]]


def test_writing_replaces_a_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", torch.zeros(1, 2, 2))
    write_image(tmp_path / "a.png", torch.ones(3, 4, 5))
    assert read_image(tmp_path / "a.png").pixels.tolist() == torch.ones(3, 4, 5).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("name", "pixels", "alpha", "error", "match"),
    [
        (
            "a.gif",
            torch.zeros(1, 2, 2),
            None,
            ValueError,
            r"suffix \.png, \.jpg, .*, \.avif, got the suffix '\.gif'",
        ),
        ("a", torch.zeros(1, 2, 2), None, ValueError, r"suffix \.png, \.jpg, .*, \.avif, got none"),
        ("a.jpg", torch.zeros(3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8), ValueError, r"expected a \.png file"),
        ("a.png", torch.zeros(2, 2), None, ValueError, r"got \(2, 2\)"),
        ("a.png", torch.zeros(4, 2, 2), None, ValueError, r"expected a \.tif file, as the image has CMYK"),
        ("a.png", torch.zeros(2, 2, 2), None, ValueError, r"got \(2, 2, 2\)"),
        ("a.png", torch.zeros(3, 0, 2), None, ValueError, r"got \(3, 0, 2\)"),
        ("a.png", torch.full((1, 2, 2), torch.nan), None, ValueError, "got 4 NaN"),
        ("a.png", torch.zeros(1, 2, 2, dtype=torch.uint8), None, TypeError, "got torch.uint8"),
        ("a.png", np.zeros((1, 2, 2)), None, TypeError, "got ndarray"),
        ("a.png", torch.zeros(1, 2, 2), torch.zeros(1, 2, 3, dtype=torch.uint8), ValueError, r"got \(1, 2, 3\)"),
        ("a.png", torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), TypeError, "got torch.float32"),
        ("no/a.png", torch.zeros(1, 2, 2), None, FileNotFoundError, "no folder"),
    ],
)
def test_nothing_wrong_is_written(
    tmp_path: Path, name: str, pixels: Tensor, alpha: Tensor | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        write_image(tmp_path / name, pixels, alpha)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_encoder_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", torch.ones(1, 2, 2))

    def save(self: Image.Image, stream: Any, **_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="no space left"):
        write_image(tmp_path / "a.png", torch.zeros(1, 2, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert read_image(tmp_path / "a.png").pixels.tolist() == [[[1, 1], [1, 1]]]


def test_check_output(tmp_path: Path) -> None:
    for name in ("a.png", "a.PNG", "a.jpg", "a.jpeg"):
        check_output(tmp_path / name)
    check_output(tmp_path / "a.png", alpha=True)
    with pytest.raises(ValueError, match=r"expected a \.png file"):
        check_output(tmp_path / "a.jpg", alpha=True)
    with pytest.raises(ValueError, match=r"got the suffix '\.gif'"):
        check_output(tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match="no folder"):
        check_output(tmp_path / "no" / "a.png")
    with pytest.raises(IsADirectoryError):
        check_output(tmp_path)
    assert list(tmp_path.iterdir()) == []
