"""However silly an option's value is: an answer in one line, soon, and no traceback."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torch_cntk.cli.main import main

SECONDS = 60
"""None takes one second on a quiet machine."""

INTEGERS = ["-1", "0", "60", "1000000", "999999999999999999999999", "9" * 5000, "nan", "1e9", "", "x", "\u0661"]
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e-320", "1e308", "1e400", "", "x", "0x10", "1,5"]
NAMES = [
    "",
    ".",
    "/",
    "x" * 300,
    "x" * 5000,
    "ü中",
    "\udcff",
    "-",
    "folder.png",
    "photo.png",
    "empty.png",
    "/dev/null",
    "uniform-0x1-relu",
    "uniform-16x1-relu",
    "uniform-60x1-relu",
    "uniform-100000x1-relu",
    f"uniform-{'9' * 6000}x1-relu",
    "uniform-2x999999999-relu",
    f"uniform-2x{'9' * 30}-relu",
    "uniform-skip-2x999999999-relu",
    "uniform-2x4-leaky" + "9" * 400,
    "uniform-2x4-leaky1.0000",
    "uniform-2x4-relu-24x24",
    "identity-2x4-relu",
    "identity-2x4-relu-1x1",
    "identity-2x4-relu-24x24",
    "identity-2x4-relu-999999x999999",
    "meshgrid-16x4-relu-24x24",
]
INPUTS = ["", "folder.png", "empty.png", "text.png", "/dev/null", "/dev/zero", "no.png", "photo.png/x.png", "x" * 300]
INPUTS += ["huge.png", "table.csv", "x" * 300 + ".png", "\udcff.png"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a small photograph, its mask, tables and files that are none of them."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_CNTK_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save("photo.png")
    Image.fromarray(random.random((24, 24)) < 0.6).save("mask.png")
    Path("folder.png").mkdir()
    Path("empty.png").touch()
    Path("text.png").write_text("no picture" * 100)
    Path("huge.png").write_bytes(huge())
    Path("table.csv").write_text("x,a,b,c\nr1,1,2,\nr2,2,,3\nr3,,1,2\n")
    Path("features.csv").write_text("x,u,v\na,1,2\nb,2,3\nc,4,1\n")
    yield tmp_path
    torch.set_num_threads(threads)


def huge() -> bytes:
    """A hundred bytes of PNG that claim to be an image of 2 * 10^9 by 2 * 10^9 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2 * 10**9, 2 * 10**9, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


FILES = ["--mask", "mask.png", "-o", "out.png"]
COMMANDS = {
    "inpaint": ["inpaint", "photo.png", *FILES],
    "train": ["train", "photo.png", *FILES, "--levels=1", "--width=4", "--skip=1", "--steps=2"],
    "heatmap": ["heatmap", "-o", "map.png", "--pixel", "1", "2", "--size", "16", "16"],
    "demo": ["demo", "--image", "photo.png", "-o", "out"],
    "complete": ["complete", "table.csv", "--features", "features.csv", "-o", "out.csv"],
}


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command; if it takes too long, say so."""

    def late(*_: Any) -> None:
        raise AssertionError(f"no answer after {SECONDS} seconds: {arguments}")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        status = main([*arguments, "--threads", "1"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return status, capsys.readouterr().err


def assert_polite(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, told = answer(arguments, capsys)
    assert status in (0, 2), told
    assert "Traceback" not in told
    lines = [line for line in told.splitlines() if not line.startswith(("usage:", "    "))]
    assert all(line.startswith("torch-cntk") for line in lines), told
    # Warnings, each in its line, and at most one error.
    assert sum(" error: " in line for line in lines) == (status == 2), told


pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a clock that Windows lacks")


@pytest.mark.parametrize("value", INTEGERS)
@pytest.mark.parametrize(
    "option",
    [
        "inpaint --max-iterations",
        "inpaint --passes",
        "inpaint --grow",
        "train --levels",
        "train --width",
        "train --skip",
        "train --steps",
        "train --holdout=0.5 --patience",
        "train --seed",
        "heatmap --levels",
        "demo --seed",
        "demo --passes",
        "complete --hidden-layers",
    ],
)
def test_integers(work: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    if option.endswith(("--steps", "--passes")) and value in ("60", "1000000"):
        pytest.skip("a number that may be meant")
    name, *options = option.split()
    assert_polite([*COMMANDS[name], *options[:-1], f"{options[-1]}={value}"], capsys)


@pytest.mark.parametrize("value", INTEGERS)
def test_pairs_of_integers(work: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    for options in (["--size", value, value], ["--size", "16", value], ["--pixel", value, "0"]):
        assert_polite([*COMMANDS["heatmap"], *options], capsys)


@pytest.mark.parametrize("value", [v for v in INTEGERS if v != "60"])
def test_threads(work: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    status, told = answer([*COMMANDS["inpaint"], f"--threads={value}"], capsys)
    assert told.count(" error: ") <= 1, status


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    "option",
    [
        "inpaint --ridge",
        "inpaint --mask-threshold",
        "inpaint --max-iterations=50 --tolerance",
        "inpaint --solver=eigenpro --max-iterations=5 --tolerance",
        "train --lr",
        "train --jitter",
        "train --holdout",
        "demo --missing",
        "complete --ridge",
        "complete --identity",
    ],
)
def test_numbers(work: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    name, *options = option.split()
    assert_polite([*COMMANDS[name], *options[:-1], f"{options[-1]}={value}"], capsys)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_kernels(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for command in ("inpaint", "heatmap"):
        assert_polite([*COMMANDS[command], f"--kernel={name}"], capsys)


@pytest.mark.parametrize("name", INPUTS, ids=range(len(INPUTS)))
def test_files(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for arguments in (
        ["inpaint", name, *FILES],
        ["inpaint", "photo.png", "--mask", name, "-o", "out.png"],
        ["train", name, *FILES],
        ["demo", "--image", name, "-o", "out"],
        ["complete", name, "--features", "features.csv", "-o", "out.csv"],
        ["complete", "table.csv", "--features", name, "-o", "out.csv"],
        [*COMMANDS["train"], f"--checkpoint={name}"],
    ):
        assert_polite(arguments, capsys)


@pytest.mark.parametrize("name", ["", "folder.png", "/dev/null", "no/out.png", "photo.png/x.png", "x" * 300 + ".png"])
def test_outputs(work: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for command in ("inpaint", "train", "heatmap", "complete", "demo"):
        assert_polite([*COMMANDS[command], "-o", name], capsys)


@pytest.mark.parametrize("colour", ["", "red", "#12", "#ff0000", "rgb(300,0,0)", "hsl(0,100%,50%)", "x" * 5000, "\0"])
def test_colours(work: Path, capsys: pytest.CaptureFixture[str], colour: str) -> None:
    assert_polite([*COMMANDS["inpaint"], f"--mask-color={colour}"], capsys)
    assert_polite(["inpaint", "photo.png", "-o", "out.png", f"--mask-color={colour}"], capsys)


def test_an_output_that_may_not_be_written(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    Path("locked").mkdir(mode=0o500)
    for command in ("inpaint", "train", "heatmap", "complete", "demo"):
        assert_polite([*COMMANDS[command], "-o", "locked/out.png"], capsys)


def test_what_is_asked_for_is_told(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample of the answers: they name the option and what would be right."""
    for arguments, told in (
        ([*COMMANDS["train"], "--levels=60"], "expected --levels to be at most 8 for 64 x 64 pixels, got 60"),
        ([*COMMANDS["heatmap"], "--levels=60"], "expected --levels to be at most 4 for 16 x 16 pixels, got 60"),
        ([*COMMANDS["inpaint"], "--threads=1000000"], "expected --threads to be at most"),
        ([*COMMANDS["complete"], "--hidden-layers=1000000"], "expected --hidden-layers to be at most 1000"),
        ([*COMMANDS["inpaint"], "--passes=1000000"], "expected auto or a number from 0 to 100"),
        (["inpaint", "huge.png", *FILES], "the image huge.png of 2000000000 x 2000000000 pixels needs"),
        (
            ["inpaint", "/dev/zero", *FILES],
            "expected a PNG, JPEG, TIFF, WebP, BMP or AVIF image, got another or a damaged file: /dev/zero",
        ),
    ):
        try:
            assert main(arguments) == 2
        except SystemExit as end:
            assert end.code == 2
        assert told in capsys.readouterr().err
