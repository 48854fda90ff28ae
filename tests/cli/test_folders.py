"""Folders of photographs: one line a file, failures at the end, what is done is skipped."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from torch_cntk.cli import folders, progress
from torch_cntk.cli.main import main

HEIGHT, WIDTH = 24, 30


def smooth(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([120 + 9 * number + 60 * np.sin(columns / 9), 128 + 60 * np.cos(rows / 11), 90 + columns], -1)


def hole(number: int) -> np.ndarray:
    missing = np.zeros((HEIGHT, WIDTH), bool)
    missing[5 + number : 10 + number, 8:15] = True
    return missing


KERNEL = "uniform-3x128-leaky0.1"
NAMES = ["a.png", "b.tif", "c.webp", "d.bmp"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs whose holes are red, and their masks."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("masks").mkdir()
    for number, name in enumerate(NAMES):
        values = smooth(number).astype(np.uint8)
        values[hole(number)] = (255, 0, 0)
        options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(values).save(f"in/{name}", **options)
        Image.fromarray(~hole(number)).save(f"masks/{Path(name).stem}.png")
    Path("in/notes.txt").write_text("no image")
    Path("in/._a.png").write_text("a Mac's notes on a.png")
    return tmp_path


def fill(*more: str) -> int:
    return main(
        ["inpaint", "in", "-o", "out", "--threads", "1", "--kernel", KERNEL, "--solver", "direct", "--fast", *more]
    )


def assert_filled(names: list[str] = NAMES) -> None:
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(names)
    for name in names:
        number = NAMES.index(name)
        after = np.asarray(Image.open(f"out/{name}")).astype(float)
        assert np.abs(after - smooth(number))[hole(number)].max() < 12
        assert np.array_equal(after[~hole(number)], smooth(number).astype(np.uint8)[~hole(number)])


@pytest.mark.parametrize("masks", ["same stem", "_mask", "-mask", "same name", "between", "colour"])
def test_masks_by_name(work: Path, capsys: pytest.CaptureFixture[str], masks: str) -> None:
    options = ["--masks", "masks"]
    for name in NAMES:
        mask = Path(f"masks/{Path(name).stem}.png")
        if masks in ("_mask", "-mask"):
            mask.rename(f"masks/{Path(name).stem}{masks}.png")
        elif masks == "same name":
            kind: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
            Image.open(mask).convert("L").save(f"masks/{name}", **kind)
        elif masks == "between":
            mask.rename(f"in/{Path(name).stem}_mask.png")
            options = ["--masks", "in"]
        elif masks == "colour":
            options = ["--mask-color", "red"]
    assert fill(*options) == 0
    assert_filled()
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == NAMES
    assert all(" filled 35 of 720 pixels (30 x 24) in " in line for line in lines[:-1])
    assert lines[-1].startswith("filled 4 files in ")
    assert lines[-1].endswith(" s: out")
    assert told.err == ""


def test_one_mask_for_all(work: Path) -> None:
    Image.fromarray(~np.logical_or.reduce([hole(number) for number in range(4)])).save("mask.png")
    assert fill("--mask", "mask.png") == 0
    assert len(list(Path("out").iterdir())) == 4


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_failures_are_told_at_the_end_and_the_rest_is_done(
    work: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    Path("in/b.tif").write_bytes(b"no image")
    Path("masks/c.png").unlink()
    assert fill("--masks", "masks", "--jobs", str(jobs)) == folders.FAILED
    assert_filled(["a.png", "d.bmp"])
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert {"b.tif: failed", "c.webp: failed"} < set(lines)
    assert lines[-1].startswith("filled 2 files in ")
    assert "; 2 failed (" in lines[-1]
    failures = sorted(line for line in told.err.splitlines() if "failed" in line)  # there may be a bar's line
    assert failures[0].startswith("torch-cntk: failed: b.tif: expected a PNG, JPEG, TIFF, WebP, BMP or AVIF image, got")
    assert failures[1] == "torch-cntk: failed: c.webp: expected one mask of the name c in masks, got none"


def test_what_is_done_is_skipped(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"done by hand")
    Path("masks/c.png").rename("c.png")
    assert fill("--masks", "masks") == folders.FAILED
    Path("c.png").rename("masks/c.png")
    capsys.readouterr()
    assert fill("--masks", "masks") == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0].startswith("c.webp: filled 35")
    assert told[1].startswith("filled 1 file in ")
    assert "; 3 had been filled before: out" in told[1]
    assert Path("out/a.png").read_bytes() == b"done by hand"
    assert fill("--masks", "masks") == 0
    assert capsys.readouterr().out.startswith("filled 0 files in 0.0 s; 4 had been filled before")


def test_notes_name_the_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(smooth(0).astype(np.uint8)).save("in/e.jpg")
    Image.fromarray(~hole(0)).save("masks/e.png")
    assert fill("--masks", "masks") == 0
    assert capsys.readouterr().err.startswith("torch-cntk: e.jpg: note: the missing part grew by 3 pixels, as JPEG")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["-o", "in"], "expected a folder of its own for the filled images"),
        (["-o", "out.png"], "expected a folder for the filled images of a folder, got the file out.png"),
        (["--jobs", "0"], "expected --jobs to be at least 1"),
        (["--jobs", "65"], "expected --jobs to be at most 64"),
        (["--ridge", "-1"], "expected --ridge to be at least 0"),
        (["--masks", "nothing"], "expected a mask's file or folder, got nothing of the name nothing"),
    ],
)
def test_mistakes(work: Path, capsys: pytest.CaptureFixture[str], options: list[str], match: str) -> None:
    assert fill("--masks", "masks", *options) == 2
    assert match in capsys.readouterr().err
    assert not Path("out").exists()


def test_two_masks_of_one_name(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(~hole(1)).save("masks/b_mask.png")
    assert fill("--masks", "masks") == folders.FAILED
    assert "expected one mask of the name b in masks, got b.png and b_mask.png" in capsys.readouterr().err


def test_how_sure_it_is(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A smooth picture is certain, noise is not."""
    sure = "known pixels that were left out were off by"
    assert main(["inpaint", "in/a.png", "--mask-color", "red", "-o", "a.png"]) == 0
    told = capsys.readouterr().out
    assert f"; {sure}" in told
    few = told.split(sure)[1].split(" of 255")[0].strip()
    assert few == "less than 1" or int(few) < 9
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save("noise.png")
    assert main(["inpaint", "noise.png", "--mask", "masks/a.png", "-o", "a.png"]) == 0
    assert int(capsys.readouterr().out.split(sure)[1].split(" of 255")[0]) > 50


def test_how_sure_it_is_in_units_of_its_own(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = (100 * smooth(0)[..., 0] - 3000).astype(np.float32)
    values[hole(0)] = np.nan
    Image.fromarray(values).save("heights.tif")
    assert main(["inpaint", "heights.tif", "-o", "a.tif"]) == 0
    told = capsys.readouterr().out
    low, high = np.nanmin(values), np.nanmax(values)
    assert f", of values from {low:.4g} to {high:.4g} (" in told
    assert 0 < float(told.split("were off by ")[1].split(",")[0]) < 1000


def test_how_sure_it_is_beside_a_transparent_background(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A background that is not filled says nothing of how hard it was to fill."""
    rows, columns = np.mgrid[:96, :120]
    values = np.stack([128 + 60 * np.sin(rows / 5), 128 + 60 * np.cos(columns / 5), 90 + columns, rows * 0], -1)
    values[:, :60, 3] = 255
    Image.fromarray(values.astype(np.uint8)).save("cut.png")
    mask = np.ones((96, 120), bool)
    mask[40:45, 20:27] = False
    Image.fromarray(mask).save("mask.png")
    assert main(["inpaint", "cut.png", "--mask", "mask.png", "-o", "a.png"]) == 0
    few = capsys.readouterr().out.split("were off by ")[1].split(" of 255")[0]
    assert few == "less than 1" or int(few) < 9


def test_a_folder_of_masks_for_one_image(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inpaint", "in/a.png", "--masks", "masks", "-o", "a.png"]) == 2
    assert "expected a mask's file for one image, got the folder masks" in capsys.readouterr().err


def test_bars_become_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    now = 0.0
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.lines_for_bars():
        sys.stderr.write("a warning\n")
        for step in tqdm(range(50), desc="outer", mininterval=0, miniters=1):
            for _ in tqdm(range(2), desc="inner", leave=False, mininterval=0, miniters=1):
                now += 0.5
            if step == 3:
                sys.stderr.write("another\n")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["a warning", "another"]
    assert len(lines) == 2 + 5  # fifty seconds
    assert all(line.startswith(("torch-cntk: outer", "torch-cntk: inner")) for line in lines[2:])
    assert "\r" not in stream.getvalue()
    assert sys.stderr is stream
