"""Masks as people paint them: what each kind says, and that nothing doubtful passes silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torch_cntk.images.mask_files import find_mask, grow, read_mask
from torch_cntk.images.transparency import own_alpha

HEIGHT, WIDTH = 40, 56


def square() -> np.ndarray:
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[10:18, 20:30] = True
    return hole


def strokes() -> np.ndarray:
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[5, 3:50] = hole[30:33, 10:20] = hole[20:38, 44] = True
    return hole


def specks() -> np.ndarray:
    return np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.1


HOLES = pytest.mark.parametrize("hole", [square(), strokes(), specks()], ids=["square", "strokes", "specks"])


def saved(folder: Path, values: np.ndarray, mode: str | None = None, suffix: str = "png") -> Path:
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(folder / f"m.{suffix}")
    return folder / f"m.{suffix}"


def missing(path: Path, **options: Any) -> np.ndarray:
    return ~read_mask(path, (HEIGHT, WIDTH), **options).numpy()


@HOLES
@pytest.mark.parametrize("levels", [(0, 255), (0, 1), (3, 250), (10, 200), (128, 255), (254, 255)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_two_grey_levels(tmp_path: Path, hole: Any, levels: Any, suffix: Any) -> None:
    dark, bright = levels
    path = saved(tmp_path, np.where(hole, dark, bright).astype(np.uint8), suffix=suffix)
    assert np.array_equal(missing(path), hole)
    path = saved(tmp_path, np.where(hole, bright, dark).astype(np.uint8), suffix=suffix)
    assert np.array_equal(missing(path, invert=True), hole)
    assert find_mask(path, (HEIGHT, WIDTH), True).found == f"grey levels {dark} and {bright}"


@HOLES
@pytest.mark.parametrize("top", [1, 255, 65535])
def test_sixteen_bits(tmp_path: Path, hole: Any, top: Any) -> None:
    path = saved(tmp_path, np.where(hole, 0, top).astype(np.uint16))
    assert np.array_equal(missing(path), hole)


@HOLES
@pytest.mark.parametrize("colours", [((0, 0, 0), (128, 0, 0)), ((0, 0, 0), (255, 255, 255)), ((0, 0, 90), (9, 255, 0))])
def test_palettes(tmp_path: Path, hole: Any, colours: Any) -> None:
    image = Image.fromarray(hole.astype(np.uint8), mode="P")
    image.putpalette([*colours[0], *colours[1], *[0] * 750])
    image.save(tmp_path / "m.png")
    assert np.array_equal(missing(tmp_path / "m.png", invert=True), hole)


@HOLES
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)])
def test_strokes_of_a_colour_on_black(tmp_path: Path, hole: Any, colour: Any) -> None:
    values = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    values[hole] = colour
    assert np.array_equal(missing(saved(tmp_path, values), invert=True), hole)


@HOLES
@pytest.mark.parametrize(
    ("colour", "name"), [((255, 0, 0), "red"), ((0, 255, 0), "#00ff00"), ((255, 0, 255), "fuchsia")]
)
def test_strokes_of_a_colour_on_a_photograph(tmp_path: Path, hole: Any, colour: Any, name: Any) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([100 + rows, 120 + columns, 90 + rows], -1).astype(np.uint8)
    values[hole] = colour
    path = saved(tmp_path, values)
    assert np.array_equal(missing(path, colour=name), hole)
    assert np.array_equal(missing(path, colour=name, invert=True), ~hole)
    with pytest.raises(
        ValueError, match=r"expected pixels of the colour cyan in .*m\.png, got none; the nearest is \("
    ):
        read_mask(path, (HEIGHT, WIDTH), colour="cyan")
    with pytest.raises(ValueError, match="expected a colour such as red or #ff0000, got 'purpel'"):
        read_mask(path, (HEIGHT, WIDTH), colour="purpel")


@HOLES
def test_red_strokes_on_a_copy_of_a_grey_photograph(tmp_path: Path, hole: Any) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    grey = (60 + rows + 2 * columns).astype(np.uint8)
    values = np.stack([grey] * 3, -1)
    values[hole] = (255, 0, 0)
    image = torch.from_numpy(grey)[None] / 255
    found = find_mask(saved(tmp_path, values), (HEIGHT, WIDTH), image=image)
    assert np.array_equal(~found.observed.numpy(), hole)
    assert "took what differs from the photograph" in found.reading


def test_strokes_of_a_colour_that_jpeg_fades_are_doubted(tmp_path: Path) -> None:
    """A line of one pixel is no longer red: that cannot be mended here, but it is told."""
    values = np.full((HEIGHT, WIDTH, 3), (150, 140, 120), np.uint8)
    values[square()] = values[30] = (255, 0, 0)
    for suffix, lossy in (("png", False), ("jpg", True)):
        found = find_mask(saved(tmp_path, values, suffix=suffix), (HEIGHT, WIDTH), colour="red")
        assert bool(found.observed[30].any()) == lossy
        assert ("JPEG fades thin strokes" in found.reading) == lossy


@HOLES
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
@pytest.mark.parametrize("opacity", [255, 128])
def test_strokes_on_a_transparent_layer(tmp_path: Path, hole: Any, colour: Any, opacity: Any) -> None:
    layer = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    layer[hole] = (*colour, opacity)
    found = find_mask(saved(tmp_path, layer), (HEIGHT, WIDTH))
    assert np.array_equal(~found.observed.numpy(), hole)
    assert "took the painted" in found.reading
    # Black, transparent, is known; white, opaque, is missing.
    assert np.array_equal(missing(saved(tmp_path, layer), invert=True), hole)


@pytest.mark.parametrize("hole", [square(), strokes()], ids=["square", "strokes"])
@pytest.mark.parametrize("colour", [(200, 90, 50), (7, 130, 251)])
def test_soft_strokes_whose_faint_colours_were_rounded(tmp_path: Path, hole: Any, colour: Any) -> None:
    """Painting programs keep colours times opacity in 8 bits: at an opacity of 2 of 255 hardly any colour is left."""
    import scipy.ndimage

    alpha = np.round(255 * scipy.ndimage.gaussian_filter(hole.astype(float), 1.5))[..., None]
    stored = np.round(np.array(colour) * alpha / 255)
    colours = np.clip(np.round(255 * stored / np.maximum(alpha, 1)), 0, 255)
    assert np.abs(colours - colour)[alpha[..., 0] > 0].max() > 25
    found = find_mask(saved(tmp_path, np.concatenate([colours, alpha], 2).astype(np.uint8)), (HEIGHT, WIDTH))
    assert np.array_equal(~found.observed.numpy(), alpha[..., 0] > 5)
    assert "took the painted" in found.reading


def test_strokes_of_several_colours_on_a_transparent_layer(tmp_path: Path) -> None:
    layer = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    layer[strokes()] = (255, 0, 0, 255)
    layer[square()] = (0, 0, 255, 255)
    found = find_mask(saved(tmp_path, layer), (HEIGHT, WIDTH))
    assert np.array_equal(~found.observed.numpy(), strokes() | square())
    assert "took the painted" in found.reading


def test_a_copy_that_was_erased_almost_wholly(tmp_path: Path) -> None:
    """A photograph has many colours: what is left of it is known."""
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    values[..., 3] = np.where(specks(), 255, 0)
    assert np.array_equal(missing(saved(tmp_path, values)), ~specks())


@HOLES
def test_an_erased_copy_of_the_photograph(tmp_path: Path, hole: Any) -> None:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    values[..., 3] = np.where(hole, 0, 255)
    assert np.array_equal(missing(saved(tmp_path, values)), hole)
    assert np.array_equal(~own_alpha(torch.from_numpy(values[..., 3])[None]).observed.numpy(), hole)


@HOLES
@pytest.mark.parametrize("blur", [1, 2, 3])
def test_soft_edges_are_missing(tmp_path: Path, hole: Any, blur: Any) -> None:
    """All that the brush touched, by a feather that is computed here."""
    import scipy.ndimage

    touched = scipy.ndimage.uniform_filter(hole.astype(float), 2 * blur + 1, mode="constant")
    values = np.round(255 * (1 - touched)).astype(np.uint8)
    found = find_mask(saved(tmp_path, values), (HEIGHT, WIDTH))
    assert found.soft
    assert np.array_equal(~found.observed.numpy(), values < 250)
    half = missing(tmp_path / "m.png", threshold=128)
    assert np.array_equal(half, values < 128)


@HOLES
def test_jpeg(tmp_path: Path, hole: Any) -> None:
    """Blurred around edges: more may be missing there, but nothing that is not."""
    import scipy.ndimage

    Image.fromarray(np.where(hole, 0, 255).astype(np.uint8)).save(tmp_path / "m.jpg", quality=90)
    found = missing(tmp_path / "m.jpg")
    assert found[hole].all()
    block = scipy.ndimage.binary_dilation(hole, np.ones((3, 3)), iterations=7)
    assert not found[~block].any()


@pytest.mark.parametrize("level", [0, 1, 100, 127, 128, 254, 255])
def test_one_level_is_black_or_white(tmp_path: Path, level: Any) -> None:
    path = saved(tmp_path, np.full((HEIGHT, WIDTH), level, np.uint8))
    assert missing(path).all() == (level <= 127)
    assert missing(path, invert=True).all() == (level > 127)
    assert find_mask(path, (HEIGHT, WIDTH)).found == f"grey level {level}"


def test_noise_around_one_level_is_no_mask(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(245, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    assert not missing(saved(tmp_path, values)).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("low", [0, 60])
def test_photographs_are_refused(tmp_path: Path, channels: Any, low: Any) -> None:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = low + (128 + 90 * np.sin(rows / 7) * np.cos(columns / 9)) * (255 - low) / 255
    values = np.repeat(values[..., None], channels, 2).squeeze().astype(np.uint8)
    with pytest.raises(ValueError, match=r"got what looks like a photograph: \d+ grey levels from .*m\.png.*threshold"):
        missing(saved(tmp_path, values))
    assert missing(tmp_path / "m.png", threshold=128).any()


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_growing(steps: Any) -> None:
    """Against the definition: a pixel is missing if one within so many steps, also diagonal ones, was."""
    observed = torch.from_numpy(~strokes())
    grown, done = grow(observed, steps)
    around = torch.nn.functional.max_pool2d((~observed)[None, None].float(), 2 * steps + 1, 1, steps)[0, 0] > 0
    assert done == steps
    assert torch.equal(~grown, around)


def test_scattered_pixels_do_not_grow() -> None:
    observed = torch.from_numpy(np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.3)
    assert grow(observed, 3, least=0.5)[1] == 0
    assert grow(torch.from_numpy(~square()), 3, least=0.5)[1] == 3
    # Something is always left to fill from.
    grown, steps = grow(torch.from_numpy(~square()), 1000)
    assert bool(grown.any())
    assert steps < 1000
