"""The examples in docstrings run, and main public names have one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import torch_cntk as tc

PACKAGE = Path(tc.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
MAIN = ["KernelRegressor", "MatrixCompletion", "Sequential", "from_torch", "hourglass", "inpaint", "load_kernel"]
MAIN += ["to_torch", "train"]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", MAIN)
def test_main_names_have_an_example(name: str) -> None:
    assert ">>> " in (getattr(tc, name).__doc__ or "")
