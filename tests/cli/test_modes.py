"""The command on files of unusual modes: they come back in the same one, and only the hole differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tests.helpers.image_files import FILES, HEIGHT, WIDTH, same_mode
from torch_cntk.cli.main import main
from torch_cntk.images.files import read_image


def hole() -> np.ndarray:
    missing = np.zeros((HEIGHT, WIDTH), bool)
    missing[6:11, 8:15] = True
    return missing


def fill(image: str, *more: str) -> int:
    kernel = ["--kernel", "uniform-3x128-leaky0.1", "--solver", "direct", "--fast"]
    return main(["inpaint", image, "-o", f"out{Path(image).suffix}", "--threads", "1", *kernel, *more])


@pytest.mark.parametrize(
    "name",
    [
        *("grey-1-bit.png", "grey-4-bit.png", "grey-alpha-16-bit.png", "palette-alpha.png", "rgb-key.png", "rgb.webp"),
        *("cmyk.tif", "lab.tif", "rgb-real.tif", "rgba-associated-16-bit.tif", "grey-double.tif", "rgba.bmp"),
        "palette.bmp",
    ],
)
def test_only_the_hole_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    FILES[name](Path(name))
    Image.fromarray(~hole()).save("mask.png")
    assert fill(name, "--mask", "mask.png") == 0
    before, after = read_image(name), read_image(f"out{Path(name).suffix}")
    known = torch.from_numpy(~hole())
    assert torch.equal(after.pixels[:, known], before.pixels[:, known])
    if before.alpha is not None and after.alpha is not None:
        assert np.array_equal(after.alpha[0].numpy()[~hole()], before.alpha[0].numpy()[~hole()])
    assert same_mode(Path(name), Path(f"out{Path(name).suffix}")) or name == "rgb-key.png"


def test_what_is_no_number_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    whole = (rows + 2.0 * columns).astype(np.float32)  # metres, say
    tifffile.imwrite("map.tif", np.where(hole(), np.float32(np.nan), whole))
    assert fill("map.tif") == 0
    after = tifffile.imread("out.tif")
    assert after.dtype == np.float32
    assert np.array_equal(after[~hole()], whole[~hole()])
    assert np.abs(after - whole).max() < 5


def test_a_cmyk_jpeg_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FILES["cmyk.jpg"](Path("a.jpg"))
    Image.fromarray(~hole()).save("mask.png")
    assert fill("a.jpg", "--mask", "mask.png") == 0
    with Image.open("a.jpg") as before, Image.open("out.jpg") as after:
        assert after.mode == "CMYK"
        assert np.abs(np.asarray(before).astype(int) - np.asarray(after))[12:].mean() < 3


def test_what_the_output_cannot_hold_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    FILES["cmyk.tif"](Path("a.tif"))
    assert main(["inpaint", "a.tif", "--mask", "nothing.png", "-o", "out.png"]) == 2
    assert "expected a .tif file, as the image has CMYK colours, which PNG cannot hold" in capsys.readouterr().err
