"""The command under torchrun: files are divided, told of once, and the same as by one process."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.ranks import Launcher, launcher
from torch_cntk.cli import folders
from torch_cntk.cli.main import main

NAMES = [f"{letter}.png" for letter in "abcde"]
OPTIONS = ["--mask-color", "red", "--kernel", "uniform-3x128-leaky0.1", "--solver", "direct"]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs of several sizes with red holes, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for number, name in enumerate(NAMES):
        rows, columns = np.mgrid[:20, : 22 + 4 * number]
        values = np.stack([120 + 60 * np.sin(columns / 9), 128 + 60 * np.cos(rows / 11), 90 + columns], -1)
        values[4:9, 6 + number : 12] = (255, 0, 0)
        Image.fromarray(values.astype(np.uint8)).save(f"in/{name}")
    Path("in/damaged.png").write_bytes(b"no image")
    return tmp_path


def command(folder: str, *arguments: str) -> tuple[int, str, str]:
    """The exit status, and what the command wrote."""
    os.chdir(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as error:  # of argparse
            assert isinstance(error.code, int)
            status = error.code
    return status, out.getvalue(), err.getvalue()


def values(ranks: Launcher, size: int, *arguments: str) -> list[tuple[int, str, str]]:
    """What the command gives on each rank; processors may be busy with other things."""
    outcomes = ranks.run(command, size, *arguments, within=300.0)
    assert [(outcome.error, outcome.code) for outcome in outcomes] == [(None, 0)] * size
    return [outcome.value for outcome in outcomes]


def assert_same(first: str, second: str) -> None:
    assert sorted(path.name for path in Path(first).iterdir()) == NAMES
    assert sorted(path.name for path in Path(second).iterdir()) == NAMES
    for name in NAMES:
        assert Path(first, name).read_bytes() == Path(second, name).read_bytes(), name


def lines_of(told: str) -> list[str]:
    """What was done with each file, without the seconds that it took."""
    return sorted(line.split(" in ")[0] for line in told.splitlines())


def test_a_folder(work: Path, ranks: Launcher) -> None:
    size = 3
    alone = command(str(work), "inpaint", "in", "-o", "alone", *OPTIONS)
    first, *others = values(ranks, size, str(work), "inpaint", "in", "-o", "out", *OPTIONS)
    assert_same("alone", "out")
    assert first[0] == alone[0] == folders.FAILED
    assert others == [(folders.FAILED, "", "")] * (size - 1)
    assert lines_of(first[1]) == lines_of(alone[1])
    assert first[2].count("failed: damaged.png: expected a PNG") == 1
    # What is done is skipped, on all ranks.
    Path("out/c.png").unlink()
    Path("in/damaged.png").unlink()
    again = values(ranks, size, str(work), "inpaint", "in", "-o", "out", *OPTIONS)
    assert [status for status, *_ in again] == [0] * size
    assert again[0][1].splitlines()[-1].endswith("; 4 had been filled before: out")
    assert_same("alone", "out")


def of_its_own(folder: str, *arguments: str) -> tuple[int, str, str]:
    """As ``command``, in another folder on each rank, as on hosts that share none."""
    return command(f"{folder}/{os.environ['RANK']}", *arguments)


def test_folders_that_hosts_do_not_share(work: Path, ranks: Launcher) -> None:
    for rank in range(2):
        shutil.copytree("in", f"{rank}/in")
    outcomes = ranks.run(of_its_own, 2, str(work), "inpaint", "in", "-o", "out", *OPTIONS, within=300.0)
    first, second = (outcome.value for outcome in outcomes)
    assert first[0] == second[0] == 2
    assert "expected a folder that all hosts share, got one of each host's own: out" in first[2]
    assert second[1:] == ("", "")
    assert not list(work.glob("*/out/*"))


def test_more_ranks_than_files(work: Path, ranks: Launcher) -> None:
    for name in NAMES[1:]:
        Path("in", name).unlink()
    Path("in/damaged.png").unlink()
    found = values(ranks, 3, str(work), "inpaint", "in", "-o", "out", *OPTIONS)
    assert [status for status, *_ in found] == [0, 0, 0]
    assert [path.name for path in Path("out").iterdir()] == NAMES[:1]


def test_one_file_is_filled_by_all_and_written_once(work: Path, ranks: Launcher) -> None:
    options = ["inpaint", "in/e.png", *OPTIONS[:-1], "cg"]
    alone = command(str(work), *options, "-o", "alone.png")
    found = values(ranks, 2, str(work), *options, "-o", "out.png")
    assert [status for status, *_ in found] == [0, 0]
    assert found[0][1].endswith(": out.png\n")
    assert found[1][1:] == ("", "")
    assert alone[1].split(" in ")[0] == found[0][1].split(" in ")[0]
    filled, expected = (np.asarray(Image.open(name)).astype(int) for name in ("out.png", "alone.png"))
    assert np.abs(filled - expected).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "status", "match"),
    [
        (["inpaint", "in", "-o", "in", *OPTIONS], 2, "expected a folder of its own for the filled images"),
        (
            ["inpaint", "in", "-o", "out", "--jobs", "2", *OPTIONS],
            2,
            "expected --jobs or several processes of torchrun",
        ),
        (["inpaint", "in", "-o", "out", "--ridge", "-1", *OPTIONS], 2, "expected --ridge to be at least 0"),
        (["inpaint", "in/damaged.png", "-o", "out.png", *OPTIONS], 2, "error: expected a PNG"),
        (["inpaint", "in", "--nonsense"], 2, "the following arguments are required"),
        (["complete", "none.csv", "-o", "out.csv"], 2, "error: "),
        (["kernels"], 2, "expected one process, got several of torchrun"),
    ],
)
def test_mistakes_are_told_once(work: Path, ranks: Launcher, arguments: list[str], status: int, match: str) -> None:
    first, other = values(ranks, 2, str(work), *arguments)
    assert first[0] == other[0] == status
    assert match in first[2]
    assert other[1:] == ("", "")


def test_the_real_command(work: Path) -> None:
    """Of ranks that end in an error torchrun tells more."""
    Path("in/damaged.png").unlink()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = ["-m", "torch_cntk", "inpaint", "in", "-o", "out", *OPTIONS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == NAMES
    lines = done.stdout.splitlines()
    assert [line.split(": filled")[0] for line in sorted(lines[:-1])] == NAMES
    assert lines[-1].startswith("filled 5 files in ")


def test_a_table_is_written_once(work: Path, ranks: Launcher) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(14, 3)) @ random.normal(size=(3, 9))
    cells = np.where(random.random(table.shape) < 0.7, table.round(6).astype(str), "")
    rows = [",".join(["row", *"abcdefghi"]), *(",".join([f"r{k}", *line]) for k, line in enumerate(cells))]
    Path("table.csv").write_text("\n".join(rows) + "\n")
    options = ["complete", "table.csv", "--passes", "1", "--by-row", "rows.csv", "-o"]
    alone = command(str(work), *options, "alone.csv")
    errors = Path("rows.csv").read_bytes()
    first, second = values(ranks, 2, str(work), *options, "out.csv")
    assert (alone[0], first[0], second) == (0, 0, (0, "", ""))
    assert Path("out.csv").read_bytes() == Path("alone.csv").read_bytes()
    assert Path("rows.csv").read_bytes() == errors
    assert alone[1].splitlines()[1:] == first[1].splitlines()[1:]  # the report
