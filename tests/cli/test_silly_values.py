"""However silly an option's value is: an answer in one line, soon, and no traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.strategies.command import COLOURS, COMMANDS, FILES, INPUTS, INTEGERS, NAMES, NUMBERS, write_files
from torch_cntk.cli.main import main

SECONDS = 60
"""None takes one second on a quiet machine."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a small photograph, its mask, tables and files that are none of them."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_CNTK_CACHE", str(tmp_path / "cache"))
    write_files()
    yield tmp_path
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize("colour", COLOURS)
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
        ([*COMMANDS["inpaint"], "--passes=1000000"], "patch-fill-sharp or a number from 0 to 100"),
        ([*COMMANDS["inpaint"], "--passes=three"], "patch-fill-sharp or a number from 0 to 100, got three"),
        ([*COMMANDS["inpaint"], "--ridge=small"], "expected cv or a number, got 'small'"),
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
