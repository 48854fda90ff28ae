"""Warnings point at the user's line, through decorators and however deep the package's own calls are."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk._internal import user_warnings
from torch_cntk._internal.user_warnings import warn_user

CODE = """
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.user_warnings import warn_user

@allocating("the work")
def decorated():
    warn_user("here")

def deep(levels=3):
    return deep(levels - 1) if levels else decorated()

@allocating("more work")
def twice():
    deep()

def callback(function):
    function()
"""


def package() -> dict[str, Callable[..., None]]:
    """Functions that lie in the package, as far as their file names tell."""
    names: dict[str, Callable[..., None]] = {}
    exec(compile(CODE, str(Path(user_warnings.__file__).with_name("made_up.py")), "exec"), names)
    return names


def line_of_warning(function: Callable[[], object]) -> int:
    """The line of the only warning, which must be in this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    assert [entry.filename for entry in caught] == [__file__]
    return caught[0].lineno


@pytest.mark.parametrize("name", ["decorated", "deep", "twice"])
def test_the_line_is_the_users(name: Any) -> None:
    function = package()[name]
    assert line_of_warning(lambda: function()) == inspect.currentframe().f_lineno  # type: ignore[union-attr]


def test_a_line_outside_the_package_is_itself_the_users() -> None:
    assert line_of_warning(lambda: warn_user("here")) == inspect.currentframe().f_lineno  # type: ignore[union-attr]
    call = package()["callback"]
    assert line_of_warning(lambda: call(lambda: warn_user("here"))) == inspect.currentframe().f_lineno  # type: ignore[union-attr]


def test_that_of_a_matrix_is_the_users() -> None:
    values, features = torch.rand(4, 6).double(), torch.eye(6).double()
    values[2] = float("nan")
    model = tc.MatrixCompletion(1, ridge=1e-3)
    assert line_of_warning(lambda: model.fit(values, features=features)) == inspect.currentframe().f_lineno  # type: ignore[union-attr]
