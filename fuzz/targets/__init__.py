"""What is called, with which inputs, and what must be true of the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis.strategies import SearchStrategy

from fuzz.targets import command, completion, conversion, files, inpainting, kernels

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A part of the package.

    Attributes:
        cases: draws inputs; nothing of the package may depend on global state in them.
        check: calls with an input, and raises ``WrongError`` where the result is not right.
    """

    cases: SearchStrategy[Any]
    check: Callable[[Any], None]


TARGETS = {
    "kernels": Target(kernels.cases, kernels.check),
    "inpaint": Target(inpainting.cases, inpainting.check),
    "completion": Target(completion.cases, completion.check),
    "conversion": Target(conversion.cases, conversion.check),
    "files": Target(files.cases, files.check),
    "command": Target(command.cases, command.check),
}
"""By name."""
