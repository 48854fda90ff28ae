"""Folders of reference data, and random numbers that differ in every run and can be had again."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The tests' tensors are small: one thread is faster, and two of them wait for each other for ages if another process
# holds a core. For subprocesses as well, hence before torch is imported. Tests that want more threads say so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

SEED = int(os.environ.get("TORCH_CNTK_SEED") or secrets.randbelow(2**31))
# Workers of a parallel run draw the same inputs.
os.environ["TORCH_CNTK_SEED"] = str(SEED)


def pytest_report_header(config: pytest.Config) -> str:
    return f"random inputs: TORCH_CNTK_SEED={SEED}"


def _folder(variable: str, name: str) -> Path:
    given = os.environ.get(variable)
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set {variable}")
    return folder


@pytest.fixture(scope="session")
def oracles() -> Path:
    return Path(__file__).parent / "data" / "oracles"


@pytest.fixture(scope="session")
def data() -> Path:
    return _folder("TORCH_CNTK_DATA", "data")


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    print(f"random inputs: TORCH_CNTK_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    return torch.Generator().manual_seed(SEED ^ zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
