"""The command as a process: Ctrl-C, signals, pipes, streams that are closed and encodings that lack letters."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="of Unix")

RUN = [sys.executable, "-m", "torch_cntk"]
_GUARDED = """
import signal, sys
sys.argv[0] = "torch-cntk"
from torch_cntk.cli.main import command

def telling(*handler):
    answer(*handler)
    print("ready", flush=True)

answer, signal.signal = signal.signal, telling
sys.exit(command())
"""
GUARDED = [sys.executable, "-c", _GUARDED]
"""The same, telling when it has begun: before, Python itself answers to Ctrl-C."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    Image.fromarray(np.random.default_rng(1).random((160, 160)) < 0.6).save(tmp_path / "mask.png")
    (tmp_path / "out").mkdir()
    return tmp_path


def long_work(work: Path) -> list[str]:
    """Work that takes much longer than the tests wait."""
    files = [str(work / "photo.png"), "--mask", str(work / "mask.png"), "-o", str(work / "out" / "a.png")]
    return ["train", *files, "--steps", "1000000", "--threads", "1"]


def interrupted(arguments: list[str], delay: float, number: int = signal.SIGINT, times: int = 1) -> tuple[int, str]:
    with subprocess.Popen([*GUARDED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        for _ in range(times):
            process.send_signal(number)
        _, told = process.communicate(timeout=300)
        return process.returncode, told


def test_ctrl_c_at_any_moment(work: Path) -> None:
    """While torch and the others are imported, the arguments read, the images loaded and the network trained."""
    seed = random.randrange(2**32)
    delays = random.Random(seed)
    for delay in [0.0, 0.01, *(delays.uniform(0, 4) for _ in range(6)), 8.0]:
        assert interrupted(long_work(work), delay) == (130, "torch-cntk: interrupted\n"), (delay, seed)
    assert list((work / "out").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_at_a_hundred_moments(work: Path) -> None:
    for delay in np.linspace(0, 8, 100):
        assert interrupted(long_work(work), delay) == (130, "torch-cntk: interrupted\n"), delay


def test_an_impatient_ctrl_c(work: Path) -> None:
    for delay in (0.0, 1.0, 6.0):
        status, told = interrupted(long_work(work), delay, times=5)
        assert (status, set(told.splitlines())) == (130, {"torch-cntk: interrupted"}), delay


def test_a_terminated_command_says_so_and_leaves_nothing(work: Path) -> None:
    assert interrupted(long_work(work), 8.0, signal.SIGTERM) == (143, "torch-cntk: terminated\n")
    assert list((work / "out").iterdir()) == []


def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    return subprocess.run([*RUN, *arguments], timeout=300, check=False, **({"capture_output": True} | options))


def heat_map(output: Path | str) -> list[str]:
    return ["heatmap", "-o", str(output), "--pixel", "1", "2", "--size", "16", "16", "--levels", "1"]


@pytest.mark.parametrize("arguments", [["kernels"], ["--help"]])
def test_a_pipe_that_nobody_reads(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(arguments, stdout=write, stderr=subprocess.PIPE, capture_output=False)
    os.close(write)
    assert done.stderr == b""
    # Before Python 3.12, argparse hides the error; then there is nothing to flush.
    assert done.returncode == 141 or (arguments == ["--help"] and done.returncode == 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
def test_a_full_disk_under_stdout(work: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(["kernels"], stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 2
    assert done.stderr == b"torch-cntk: error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(work: Path, closed: str) -> None:
    command = " ".join([*RUN, *heat_map(work / "map.png"), closed])
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0
    assert done.stderr == b""
    assert (work / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "bild ü 图.png"), ("utf-8", "\udcff.png")])
def test_letters_that_the_terminal_lacks(work: Path, encoding: str, name: str) -> None:
    done = run(heat_map(work / name), env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"wrote ")
    assert (work / name).exists()
    done = run(heat_map(work / "none" / name), env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 2
    assert done.stderr.startswith(b"torch-cntk: error: expected the output's folder to exist")


def test_a_picture_on_standard_output() -> None:
    done = run(heat_map("/dev/stdout"))
    assert done.returncode == 0
    assert done.stdout.startswith(b"\x89PNG")
    assert done.stdout.endswith(b"IEND\xaeB`\x82")
    assert done.stderr == b"wrote /dev/stdout\n"


FAULT = (
    "import sys; from torch_cntk.cli import kernels, main\n"
    "def fail(arguments): raise RuntimeError('of\\nan unforeseen kind')\n"
    "kernels._kernels = fail\n"
    "sys.exit(main.command())"
)


def test_an_error_that_nobody_foresaw(work: Path) -> None:
    command = [sys.executable, "-c", FAULT, "kernels"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    hint = "(TORCH_CNTK_DEBUG=1 in the environment shows where)"
    assert done.stderr == f"torch-cntk: unexpected RuntimeError: of an unforeseen kind {hint}\n"
    environment = os.environ | {"TORCH_CNTK_DEBUG": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_warnings_are_lines(work: Path) -> None:
    code = FAULT.replace("raise RuntimeError(", "import warnings; warnings.warn(")
    command = [sys.executable, "-c", code, "kernels"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "torch-cntk: warning: of an unforeseen kind\n")
