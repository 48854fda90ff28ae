"""Processes that are killed while they write a file, of each kind: it is the old one or the new one, and whole.

A hundred kills of each writer, which take minutes: ``python -m pytest tests/project/test_kills.py -m slow``.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import torch_cntk as tc
from torch_cntk.finite import checkpoint
from torch_cntk.images.files import write_image
from torch_cntk.matrices.files import read_numbers
from torch_cntk.matrices.written import write_table

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="of Unix")

CONTENTS = 2
"""The file's versions: writers go from one to the other and back."""


@lru_cache
def kernel(k: int) -> tc.Kernel:
    net = tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(1, 1, 5), tc.ReLU())
    return net.kernel(tc.priors.Uniform(0, 0.1 + k), (48, 48))


@lru_cache
def pixels(k: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, 200, 300), generator=torch.Generator().manual_seed(k)).float() / 255


@lru_cache
def frame(k: int) -> Any:
    return pd.DataFrame(np.random.default_rng(k).standard_normal((300, 20)).round(6)).rename(index=str, columns=str)


@lru_cache
def state(k: int) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(checkpoint._FIELDS)
    return fields | {"model": {"weight": torch.full((300, 300), float(k))}, "losses": [0.5 * k] * 100}


def same_kernel(path: Path, k: int) -> bool:
    return torch.allclose(tc.load_kernel(path).near.values, kernel(k).near.values, rtol=1e-12)


def same_image(path: Path, k: int) -> bool:
    found = tc.images.read_image(path).pixels
    return bool((found - pixels(k)).abs().mean() < (0.2 if path.suffix == ".jpg" else 1e-6))


def same_state(path: Path, k: int) -> bool:
    found = checkpoint.read(path)
    return bool((found["model"]["weight"] == k).all()) and found["losses"] == state(k)["losses"]


def same_table(path: Path, k: int) -> bool:
    return bool(np.allclose(read_numbers(path).frame.to_numpy(), frame(k).to_numpy()))


WRITERS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path, int], bool]]] = {
    "kernel.safetensors": (lambda path, k: kernel(k).save(path), same_kernel),
    "compact.safetensors": (lambda path, k: kernel(k).save(path, compact=True), same_kernel),
    "run.pt": (lambda path, k: checkpoint.write(path, state(k)), same_state),
    "image.png": (lambda path, k: write_image(path, pixels(k)), same_image),
    "image.jpg": (lambda path, k: write_image(path, pixels(k)), same_image),
    "image.tif": (lambda path, k: write_image(path, pixels(k)), same_image),
    "table.csv": (lambda path, k: write_table(path, frame(k)), same_table),
    "table.parquet": (lambda path, k: write_table(path, frame(k)), same_table),
}


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    """Weights are drawn, which no test shall notice."""
    with torch.random.fork_rng(devices=[]):
        yield


def write_for_ever(write: Callable[[Path, int], None], path: Path, ready: int) -> None:
    """The life of the process that is killed: it tells of each write before it begins."""
    try:
        for number in range(10**9):
            os.write(ready, b"w")
            write(path, number % CONTENTS)
    finally:
        os._exit(1)


def killed(write: Callable[[Path, int], None], path: Path, delay: float, writes: int) -> None:
    """Start a process, and kill it some time after it has begun its write of a number."""
    read, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        write_for_ever(write, path, ready)
    os.close(ready)
    told = 0
    while told < writes:
        told += len(os.read(read, writes - told)) or writes
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(read)
    assert os.WIFSIGNALED(status), "the writer failed by itself"


def assert_whole_after_kills(name: str, folder: Path, count: int) -> None:
    write, is_version = WRITERS[name]
    path = folder / name
    write(path, 0)
    start = time.perf_counter()
    write(path, 0)
    duration = time.perf_counter() - start
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    found = set()
    for _ in range(count):
        # During the write, or soon after it.
        killed(write, path, moments.uniform(0, 1.2 * duration), moments.randint(1, 2))
        versions = [k for k in range(CONTENTS) if is_version(path, k)]
        assert len(versions) == 1, (name, seed, versions)
        found.update(versions)
    assert count < 50 or found == set(range(CONTENTS)), "no kill was late enough to leave a new file, or early enough"
    # What was not finished stands beside it, under a hidden name; safetensors makes such files, too.
    assert all(other.name.startswith((".unfinished-", ".tmp")) for other in folder.iterdir() if other != path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_leaves_the_old_file_or_the_new_one(name: str, tmp_path: Path) -> None:
    assert_whole_after_kills(name, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_hundred_kills_leave_the_old_file_or_the_new_one(name: str, tmp_path: Path) -> None:
    assert_whole_after_kills(name, tmp_path, 100)
