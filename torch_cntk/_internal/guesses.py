"""Names that people try because other packages have them: understood where they mean the same, answered elsewhere."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["ELSEWHERE", "MASK", "hint", "understands"]

P = ParamSpec("P")
R = TypeVar("R")

ELSEWHERE: Mapping[str, str] = {
    "Upsample": 'NearestUp(factor), or BilinearUp(factor) for mode="bilinear"',
    "UpsamplingNearest2d": "NearestUp(factor)",
    "UpsamplingBilinear2d": "BilinearUp(factor, align_corners=True)",
    "UNet": "hourglass(levels, width, skip)",
    "MaxPool1d": "AvgPool1d: the largest of several correlated features has no closed form",
    "MaxPool2d": "AvgPool2d: the largest of several correlated features has no closed form",
    "MaxPool3d": "AvgPool3d: the largest of several correlated features has no closed form",
    "BatchNorm2d": "train(batch_norm=True) for the finite network; the kernel has ChannelNorm",
    "LayerNorm": "ChannelNorm()",
    "KernelRidge": "MatrixCompletion, or Regression with a solver",
    "load": "load_kernel(name or path)",
    "ntk": "a network's net.kernel(prior), or net.gram(x1, x2)",
    "nngp": 'a network\'s net.kernel(prior, kind="nngp"), or net.gram(x1, x2, kind="nngp")',
    "nn": "layers of its own, in this namespace: torch_cntk.Conv2d",
}
"""Names of other packages, and what there is here."""

MASK = "pass observed=, boolean, True = known; masks of scikit-image and OpenCV mark the missing pixels: observed=~mask"
"""The answer to ``mask=``."""


def hint(name: str, names: Iterable[str]) -> str:
    """What to say of a name that this package does not have; empty if nothing comes to mind."""
    if name in ELSEWHERE:
        return f"; there is {ELSEWHERE[name]}"
    by_lower = {known.lower(): known for known in names}
    near = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def understands(
    renamed: Mapping[str, str] | None = None, answers: Mapping[str, str] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function understand keywords of other packages.

    Args:
        renamed: keywords that mean the same as one of the function's own.
        answers: keywords that do not, and what to write instead.

    Returns:
        a decorator. The function keeps its signature; it raises a TypeError with the answer, or where a keyword is
        given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            for guess, own in (renamed or {}).items():
                if guess in kwargs:
                    if own in kwargs:
                        raise TypeError(f"{function.__name__}() got {own} twice, also as {guess}")
                    kwargs[own] = kwargs.pop(guess)
            for guess, answer in (answers or {}).items():
                if guess in kwargs:
                    raise TypeError(f"{function.__name__}() has no argument {guess}: {answer}")
            return function(*args, **kwargs)

        return wrapped

    return decorate
