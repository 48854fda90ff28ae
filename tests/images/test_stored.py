"""How filled files are stored: as the originals were, with nothing that shows or says what no longer holds."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.image_files import FILES, HEIGHT, LOSS, WIDTH, XMP, noise, smooth
from torch_cntk.images.files import read_image, write_image


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


def test_what_was_compressed_with_loss_is_known(tmp_path: Path) -> None:
    """What bleeds makes masks grow."""
    expected = {"rgb-lossy.webp": "WebP", "rgb.webp": "", "rgba.webp": "", "rgb-jpeg.tif": "JPEG", "rgb.tif": ""}
    for name, lossy in (expected | {"rgb.jpg": "JPEG", "rgb.avif": "AVIF", "rgb.png": ""}).items():
        FILES[name](tmp_path / name)
        assert read_image(tmp_path / name).metadata.lossy == lossy
