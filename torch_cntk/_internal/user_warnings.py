"""Warnings that point at the user's line, however deep in the package they are raised."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

__all__ = ["warn_user"]

_OWN = (str(Path(__file__).parents[1]) + os.sep, contextlib.__file__)
"""Beginnings of the file names of frames that are not the user's: the package, and what its decorators run in."""


def warn_user(message: str) -> None:
    """Warn with a UserWarning, at the innermost line outside the package.

    Decorators add frames between the user and a public function, and one public function calls others: a fixed
    ``stacklevel`` would point into the package, or into ``contextlib``.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
