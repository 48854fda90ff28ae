"""``torch-cntk inpaint --std --samples``: files of what a fill leaves open."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import torch_cntk as tc
from torch_cntk.cli import certainty
from torch_cntk.cli import inpaint as inpaint_command
from torch_cntk.cli.main import main
from torch_cntk.images.calibration import CannotTellError


@pytest.fixture
def work(tmp_path: Path, generator: torch.Generator) -> Path:
    levels = (torch.rand(20, 24, 3, generator=generator) * 255).byte().numpy()
    known = np.ones((20, 24), bool)
    known[8:12, 9:15] = False
    Image.fromarray(levels).save(tmp_path / "photo.png")
    Image.fromarray(known).save(tmp_path / "mask.png")
    kernel = tc.default_network(1, width=4).kernel(tc.priors.Uniform(0, 0.1))
    kernel.save(tmp_path / "k.safetensors")
    return tmp_path


def run(work: Path, *more: str, passes: bool = False) -> int:
    files = str(work / "photo.png"), "--mask", str(work / "mask.png"), "-o", str(work / "a.png")
    return main(
        ["inpaint", *files, "--kernel", str(work / "k.safetensors"), *(more if passes else (*more, "--passes", "0"))]
    )


def known(work: Path) -> np.ndarray:
    return np.asarray(Image.open(work / "mask.png")).astype(bool)


def test_numbers_are_those_of_the_python_api(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work) == 0
    without = np.asarray(Image.open(work / "a.png"))
    capsys.readouterr()
    assert run(work, "--std", str(work / "std.npy")) == 0
    assert np.array_equal(np.asarray(Image.open(work / "a.png")), without)
    std = np.load(work / "std.npy")
    assert std.shape == (3, 20, 24)
    assert not std[:, known(work)].any()
    image = tc.images.read_image(work / "photo.png").pixels
    result = tc.inpaint(image, torch.from_numpy(known(work)), str(work / "k.safetensors"), samples=1)
    assert result.std is not None
    np.testing.assert_allclose(std, result.std.numpy(), rtol=1e-5)
    said = capsys.readouterr().out
    assert f"standard deviations up to {255 * std.max():.0f} of 255, exact" in said
    assert "the file holds them as they are" in said
    assert "nine of ten known pixels that were left out lie within 1.645 of them" in said


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (2.13, "the file holds them as they are: multiply them by 2.1, by which nine of ten known"),
        (1.0, "the file holds them as they are, and they need no factor: at least nine of ten known"),
        (CannotTellError("expected more"), "as they are, and left-out pixels cannot tell a factor: expected more"),
    ],
)
def test_the_factor_is_told_and_not_applied(
    factor: Any, text: str, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(work, "--std", str(work / "std.npy")) == 0
    before = np.load(work / "std.npy")

    def told(*arguments: Any, **options: Any) -> float:
        if isinstance(factor, Exception):
            raise factor
        return float(factor)

    monkeypatch.setattr(certainty, "factor_of", told)
    capsys.readouterr()
    assert run(work, "--std", str(work / "std.npy")) == 0
    assert np.array_equal(np.load(work / "std.npy"), before)
    assert text in capsys.readouterr().out


def test_files_are_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "--samples", "3") == 0
    assert "wrote a-sample-1.png to a-sample-3.png, which what is known leaves possible" in capsys.readouterr().out
    assert run(work, "--samples", "1", "--std", str(work / "std.png")) == 0
    said = capsys.readouterr().out
    assert "wrote a-sample-1.png, which" in said
    assert "(yellow; of the colours together), exact" in said


def test_where_nothing_is_missing_it_says_so(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.ones((20, 24), bool)).save(work / "mask.png")
    assert run(work, "--std", str(work / "std.npy")) == 0
    said = capsys.readouterr().out
    assert said.startswith("nothing is missing: all 480 pixels (24 x 20) are as they were, in ")
    assert "standard deviations of 0: nothing is missing" in said
    assert "residual" not in said
    assert not np.load(work / "std.npy").any()


def test_bars_name_what_is_computed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "--std", str(work / "std.npy"), "--samples", "1", "--progress") == 0
    said = capsys.readouterr().err
    assert "deviations" in said
    assert re.search(r"draws: .*0/1 \[", said)
    assert "draw/s" in said
    assert run(work, "--std", str(work / "std.npy"), "--no-progress") == 0
    assert capsys.readouterr().err == ""


def test_seconds_are_those_that_the_user_waits(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def slow(*arguments: Any, **options: Any) -> None:
        now[0] += 100

    monkeypatch.setattr(inpaint_command, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    for step in ("left_out_error", "warn_unless_converged"):
        monkeypatch.setattr(inpaint_command, step, slow)
    assert run(work) == 0
    assert " in 200.0 s by " in capsys.readouterr().out


@pytest.mark.parametrize("passes", [False, True])
def test_a_picture_and_samples(passes: bool, work: Path) -> None:
    assert run(work, "--std", str(work / "std.png"), "--samples", "2", passes=passes) == 0
    picture = np.asarray(Image.open(work / "std.png"))
    assert picture.shape == (20, 24, 3)
    yellow = picture.astype(int)
    assert yellow.reshape(-1, 3).max(0)[0] == 255
    original = np.asarray(Image.open(work / "photo.png"))
    first, second = (np.asarray(Image.open(work / f"a-sample-{n}.png")) for n in (1, 2))
    for sample in (first, second):
        assert np.array_equal(sample[known(work)], original[known(work)])
    assert not np.array_equal(first, second)
    assert not (work / "a-sample-3.png").exists()


@pytest.mark.parametrize(
    "more", [("--samples", "-1"), ("--samples", "5000"), ("--std", "missing/folder/a.npy"), ("--std", "a.txt")]
)
def test_what_cannot_be_written_is_refused(
    more: tuple[str, str], work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = str(work / more[1]) if more[0] == "--std" else more[1]
    assert run(work, more[0], value) != 0
    told = capsys.readouterr().err
    assert "expected" in told
    assert ("--std also takes .npy, for numbers" in told) == (more[1] == "a.txt")
    assert not (work / "a.png").exists()


def test_folders_have_none(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "in").mkdir()
    (work / "photo.png").rename(work / "in" / "photo.png")
    command = ["inpaint", str(work / "in"), "--mask", str(work / "mask.png"), "-o", str(work / "out")]
    assert main([*command, "--std", str(work / "s.png")]) != 0
    assert "expected one image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--std", "a.png"), "another file for --std than for the output"),
        (("--std", "photo.png"), "another file for --std than for the image"),
        (("--std", "mask.png"), "another file for --std than for the mask"),
        (("--std", "a-sample-1.png", "--samples", "1"), "another file for sample 1 than for"),
    ],
)
def test_no_file_is_written_over_another(
    more: tuple[str, ...], message: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    assert run(work, *(str(work / one) if "." in one else one for one in more)) == 2
    said = capsys.readouterr().err
    assert message in said or "another file for sample 1 than for --std" in said or "than for sample 1" in said
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


def test_the_mask_is_no_output(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = str(work / "photo.png"), "--mask", str(work / "mask.png"), "-o", str(work / "mask.png")
    assert main(["inpaint", *files, "--passes", "0"]) == 2
    assert "expected another file for the output than for the mask" in capsys.readouterr().err


def test_the_kernel_is_no_output(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "--std", str(work / "k.safetensors")) == 2
    assert "expected" in capsys.readouterr().err
    (work / "k.npy").symlink_to(work / "k.safetensors")
    assert run(work, "--std", str(work / "k.npy")) == 2
    assert "expected another file for --std than for --kernel" in capsys.readouterr().err
