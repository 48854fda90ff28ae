"""Photographs and masks as people have them, from files to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_cntk.cli.main import main
from torch_cntk.images.files import Metadata, read_image, write_image

HEIGHT, WIDTH = 40, 56


def smooth() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([120 + 60 * np.sin(columns / 9), 128 + 60 * np.cos(rows / 11), 90 + columns], -1).astype(np.uint8)


def hole() -> np.ndarray:
    missing = np.zeros((HEIGHT, WIDTH), bool)
    missing[10:18, 20:30] = True
    return missing


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(smooth()).save("photo.png")
    Image.fromarray(np.where(hole(), 0, 255).astype(np.uint8)).save("mask.png")
    return tmp_path


def fill(*more: str, image: str = "photo.png", out: str = "out.png") -> int:
    return main(["inpaint", image, "-o", out, "--threads", "1", "--fast", *more])


def result(out: str = "out.png") -> np.ndarray:
    return np.asarray(Image.open(out)).astype(int)


def error_in_hole(out: str = "out.png") -> float:
    return float(np.abs(result(out)[..., :3] - smooth())[hole()].max())


def test_masks_that_say_it_in_another_way(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill("--mask", "mask.png") == 0
    expected = result()
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[hole()] = (255, 0, 0)
    layer = np.dstack([np.zeros_like(red), np.where(hole(), 255, 0)]).astype(np.uint8)
    index = Image.fromarray(hole().astype(np.uint8), mode="P")
    index.putpalette([0, 0, 0, 128, 0, 0] + [0] * 750)
    for picture, options in (
        (Image.fromarray(hole().astype(np.uint8)), ["--invert-mask"]),
        (Image.fromarray((~hole()).astype(np.uint8)), []),
        (index, ["--invert-mask"]),
        (Image.fromarray(red), ["--invert-mask"]),
        (Image.fromarray(red), ["--mask-color", "red"]),
        (Image.fromarray(layer), ["--invert-mask"]),
        (Image.fromarray(layer), []),
    ):
        picture.save("other.png")
        assert fill("--mask", "other.png", *options, out="b.png") == 0
        assert np.array_equal(result("b.png"), expected), options


def test_a_colour_in_the_photograph(work: Path) -> None:
    values = smooth()
    values[hole()] = (0, 255, 0)
    Image.fromarray(values).save("painted.png")
    assert fill("--mask-color", "lime", image="painted.png") == 0
    assert error_in_hole() < 12
    assert np.array_equal(result()[~hole()], values[~hole()])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_an_erased_hole_is_filled_and_opaque(work: Path, soft: bool, with_mask: bool) -> None:
    alpha = np.where(hole(), 0, 255).astype(np.uint8)
    if soft:
        alpha[10, 20:30] = alpha[17, 20:30] = 100
    values = np.dstack([np.where(hole()[..., None], 0, smooth()), alpha]).astype(np.uint8)
    Image.fromarray(values).save("erased.png")
    assert fill(*(["--mask", "mask.png"] if with_mask else []), image="erased.png") == 0
    assert (result()[..., 3] == 255).all()
    assert error_in_hole() < 20
    assert np.array_equal(result()[..., :3][~hole()], smooth()[~hole()])


@pytest.mark.parametrize("palette", [False, True])
def test_half_transparent_pixels_keep_their_colours_or_become_opaque(
    work: Path, capsys: pytest.CaptureFixture[str], palette: bool
) -> None:
    """Nothing is filled that stays see-through."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[2:6, 2:6] = 128
    picture = Image.fromarray(smooth()).quantize(8) if palette else Image.fromarray(smooth())
    values = np.dstack([np.asarray(picture.convert("RGB")), alpha])
    for trace in (255, 12):
        values[hole(), 3] = trace
        image = Image.fromarray(values)
        (image.quantize(24, Image.Quantize.FASTOCTREE) if palette else image).save("half.png")
        before = np.asarray(Image.open("half.png").convert("RGBA"))
        if trace == 255:
            assert fill(image="half.png") == 2
            assert "got 16 partly transparent pixels and none that is erased wholly" in capsys.readouterr().err
            continue
        assert fill(image="half.png") == 0
        assert "note: left 16 partly transparent pixels as they are" in capsys.readouterr().err
        after = np.asarray(Image.open("out.png").convert("RGBA"))
        assert np.array_equal(after[~hole()], before[~hole()])
        assert (after[hole()][:, 3] == 255).all()


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (255, 0, 255)])
def test_hidden_colours_do_not_leak(work: Path, hidden: tuple[int, int, int]) -> None:
    """A drawing of one colour on nothing: the fill has that colour, whatever is hidden beside it."""
    values = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    values[..., :3] = hidden
    values[5:35, 10:46] = (200, 180, 60, 255)
    Image.fromarray(values).save("drawing.png")
    missing = np.zeros((HEIGHT, WIDTH), bool)
    missing[14:26, 40:46] = True
    Image.fromarray(~missing).save("edge.png")
    assert fill("--mask", "edge.png", image="drawing.png") == 0
    assert np.abs(result()[missing][:, :3] - (200, 180, 60)).max() <= 8
    assert np.array_equal(result()[~missing], values[~missing])


@pytest.mark.parametrize("quality", [60, 85, 95])
def test_jpeg_halo(work: Path, capsys: pytest.CaptureFixture[str], quality: int) -> None:
    values = smooth()
    values[hole()] = (250, 20, 20)
    Image.fromarray(values).save("photo.jpg", quality=quality)
    assert fill("--mask", "mask.png", "--grow", "0", image="photo.jpg") == 0
    assert "grew" not in capsys.readouterr().err
    halo = error_in_hole()
    assert fill("--mask", "mask.png", image="photo.jpg") == 0
    assert "the missing part grew by 3 pixels, as JPEG smears" in capsys.readouterr().err
    assert error_in_hole() < halo


def test_scattered_pixels_of_a_jpeg_do_not_grow(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.4
    Image.fromarray(known).save("mask.png")
    Image.fromarray(smooth()).save("photo.jpg")
    assert fill("--mask", "mask.png", image="photo.jpg") == 0
    assert capsys.readouterr().err == ""
    before = np.asarray(Image.open("photo.jpg")).astype(int)
    assert np.array_equal(result()[known], before[known])


@pytest.mark.parametrize("levels", [64, 128, 250])
def test_soft_masks_leave_no_ghost(work: Path, levels: int) -> None:
    """White text with soft edges: what it covers a little is filled as well."""
    cover = np.where(hole(), 1.0, 0)
    cover[9, 20:30] = cover[18, 20:30] = 1 - levels / 255
    values = smooth() * (1 - cover[..., None]) + 255 * cover[..., None]
    Image.fromarray(values.round().astype(np.uint8)).save("text.png")
    Image.fromarray((255 * (1 - cover)).round().astype(np.uint8)).save("soft.png")
    assert fill("--mask", "soft.png", image="text.png") == 0
    assert np.abs(result() - smooth()).max() < 12


def sixteen(out: str) -> tuple[np.ndarray, Metadata]:
    found = read_image(out)
    return np.round(found.pixels.double().numpy() * 65535).astype(int), found.metadata


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_stay(work: Path, capsys: pytest.CaptureFixture[str], suffix: str, channels: int) -> None:
    import torch

    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    values = (20000 + 301 * rows + 203 * columns).expand(channels, HEIGHT, WIDTH)
    write_image(f"deep.{suffix}", values.to(torch.float32) / 65535, metadata=Metadata(depth=16, dpi=(300, 300)))
    assert fill("--mask", "mask.png", image=f"deep.{suffix}", out=f"out.{suffix}") == 0
    after, metadata = sixteen(f"out.{suffix}")
    assert metadata.depth == 16
    assert metadata.dpi == pytest.approx((300, 300), rel=1e-4)
    assert np.array_equal(after[:, ~hole()], values.numpy()[:, ~hole()])
    assert np.abs(after - values.numpy()).max() < 3000
    assert len(np.unique(after[:, hole()] % 257)) > 1  # no stretched 8 bits
    assert fill("--mask", "mask.png", image=f"deep.{suffix}", out="out.jpg") == 0
    assert "warning: the image has 16 bits a channel, of which JPEG keeps 8" in capsys.readouterr().err


def test_what_is_doubtful_is_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(hole()).save("turned.png")
    assert fill("--mask", "turned.png") == 0
    told = capsys.readouterr().err
    assert "warning: 96% of the image are missing by turned.png (grey levels 0 and 255); with --invert-mask" in told
    assert fill("--mask", "mask.png", "--invert-mask") == 0
    assert (
        "warning: 96% of the image are missing by mask.png (grey levels 0 and 255); without" in capsys.readouterr().err
    )
    one = np.zeros((HEIGHT, WIDTH), np.uint8)
    one[3, 4] = 255
    Image.fromarray(one).save("one.png")
    assert fill("--mask", "one.png") == 0
    told = capsys.readouterr().err
    assert f"warning: {HEIGHT * WIDTH - 1:,} pixels of the image are missing by one.png" in told
    assert "it would be the other 1 pixel\n" in told
    Image.new("L", (WIDTH, HEIGHT), 255).save("white.png")
    assert fill("--mask", "white.png") == 0
    told = capsys.readouterr().err
    assert "warning: there is nothing to fill: all of white.png is known (grey level 255); with --invert-mask" in told
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save("black.png")
    Image.fromarray(smooth()[::-1].copy()).save("other.png")
    for options, told in (
        (["--mask", "black.png"], "expected some white (known) pixels in the mask, got none but grey level 0"),
        (["--mask", "other.png"], "expected a mask, got what looks like a photograph"),
        ([], "expected --mask, or --mask-color, or an image with transparent pixels, got none of them"),
        (["--mask-color", "cyan"], "expected pixels of the colour cyan in photo.png, got none"),
        (["--mask", "mask.png", "--grow", "-1"], "expected --grow to be at least 0"),
    ):
        assert fill(*options) == 2
        assert told in capsys.readouterr().err


def test_a_mask_never_grows_over_everything(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill("--mask", "mask.png", "--grow", "999") == 0
    assert "warning: the mask grew by " in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 0), (0, 90, 255)])
def test_strokes_on_a_copy_are_found_by_comparing(
    work: Path, capsys: pytest.CaptureFixture[str], colour: tuple[int, int, int], suffix: str
) -> None:
    """Whatever their colour; also where the copy was saved as JPEG."""
    values = smooth()
    values[hole()] = colour
    Image.fromarray(values).save(f"copy.{suffix}", quality=92)
    assert fill("--mask", f"copy.{suffix}") == 0
    assert "note: took what differs from the photograph (" in capsys.readouterr().err
    after = result()
    assert np.abs(after - smooth()).max() < 14
    far = np.ones_like(hole())
    far[4:24, 14:36] = False
    assert np.array_equal(after[far], smooth()[far])


def test_a_copy_without_strokes_is_no_mask(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill("--mask", "photo.png") == 2
    assert "a copy of the photograph with strokes on it, got the photograph: photo.png" in capsys.readouterr().err


def test_a_soft_mask_of_a_white_picture_is_no_copy(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Most of both is white."""
    values = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    values[20:35, 30:50] = smooth()[20:35, 30:50]
    Image.fromarray(values).save("goods.png")
    distance = np.abs(np.add.outer(np.arange(HEIGHT) - 27.0, np.arange(WIDTH) - 40.0))
    soft = np.clip(distance * 9, 0, 255).astype(np.uint8)
    soft[:15] = soft[:, :20] = 255
    Image.fromarray(soft).convert("RGB").save("soft.png")
    assert fill("--mask", "soft.png", "--grow", "0", image="goods.png") == 0
    assert "differs" not in capsys.readouterr().err
    known = soft >= 250
    assert np.array_equal(result()[known], values[known])
