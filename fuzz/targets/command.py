"""The command line, within this process: an answer in one line, soon, and no traceback."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from fuzz.oracle import require
from tests.helpers.strategies.command import command_lines, write_files
from torch_cntk.cli.main import main

__all__ = ["cases", "check"]

cases = command_lines()


@contextlib.contextmanager
def _at_home() -> Iterator[None]:
    """A folder of its own, with files to work on; the number of threads is as before afterwards."""
    folder, threads = Path.cwd(), torch.get_num_threads()
    cache = os.environ.get("TORCH_CNTK_CACHE")
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        os.environ["TORCH_CNTK_CACHE"] = str(Path(home) / "cache")
        try:
            write_files()
            yield
        finally:
            os.chdir(folder)
            torch.set_num_threads(threads)
            del os.environ["TORCH_CNTK_CACHE"]
            if cache is not None:
                os.environ["TORCH_CNTK_CACHE"] = cache


def check(case: list[str]) -> None:
    """Run the command, and look at its status and at what it says."""
    told, shown = io.StringIO(), io.StringIO()
    threads = [] if case[0] == "kernels" else ["--threads", "1"]
    with _at_home(), contextlib.redirect_stderr(told), contextlib.redirect_stdout(shown):
        try:
            status = main([*case, *threads])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        left = list(Path.cwd().rglob(".unfinished-*"))
    text = told.getvalue()
    require(status in (0, 2), f"the status is {status}: {text}")
    require("Traceback" not in text + shown.getvalue(), text)
    lines = [line for line in text.splitlines() if not line.startswith(("usage:", "    ", "wrote ", "filled "))]
    require(all(line.startswith("torch-cntk") for line in lines), f"lines that are not the command's: {text}")
    require(sum(" error: " in line for line in lines) == (status == 2), f"status {status}, told: {text}")
    require(not left, f"temporary files are left: {left}")
