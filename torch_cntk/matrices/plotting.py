"""Pictures of how good completions are. Needs matplotlib: ``pip install 'torch-cntk[plots]'``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_cntk._internal.files import check_writable, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_plot_output", "folds", "left_out", "save_plot"]

_FORMATS = (".png", ".pdf", ".svg")

_MOST_POINTS = 5_000
"""More points hide each other, and make large files."""


def _axes(axes: Axes | None, what: str) -> Axes:
    """The axes given, or those of a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if axes is not None:
        return axes
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{what} need matplotlib: pip install 'torch-cntk[plots]' ({error})") from error
    new: Axes = Figure(layout="constrained").subplots()
    return new


def left_out(truth: Tensor, predicted: Tensor, axes: Axes | None = None) -> Axes:
    """Draw predictions against what was left out, and the line on which they are equal.

    Args:
        truth: [n].
        predicted: [n].
        axes: where to draw; a new figure by default.

    Returns:
        the axes drawn on. Of more than 5,000 points, as many are drawn, chosen at random.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: shapes differ, or there are no points.
    """
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(
            f"expected truth and predicted of shape [n], got {tuple(truth.shape)}, {tuple(predicted.shape)}"
        )
    axes = _axes(axes, "plots of left-out entries")
    chosen = torch.randperm(len(truth), generator=torch.Generator().manual_seed(0))[:_MOST_POINTS]
    low, high = (float(f(torch.cat([truth, predicted]))) for f in (torch.min, torch.max))
    axes.plot([low, high], [low, high], color="grey", linewidth=1)
    axes.plot(truth[chosen].numpy(), predicted[chosen].numpy(), ".", markersize=3, alpha=0.5)
    axes.set_xlabel("left out")
    axes.set_ylabel("predicted without it")
    return axes


def folds(scores: Mapping[str, Sequence[float]], metric: str, axes: Axes | None = None) -> Axes:
    """Draw a metric of each method over folds, as box plots.

    Args:
        scores: of each method, one a fold.
        metric: what they are.
        axes: where to draw; a new figure by default.

    Returns:
        the axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.
    """
    axes = _axes(axes, "box plots")
    axes.boxplot(list(map(list, scores.values())), orientation="horizontal")
    axes.set_yticks(range(1, len(scores) + 1), list(scores))
    axes.invert_yaxis()
    axes.set_xlabel(metric)
    axes.grid(axis="x", alpha=0.3)
    return axes


def check_plot_output(path: Path) -> None:
    """Find out before long work whether a picture can be written.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: the folder does not exist.
        ValueError: it is of no known format.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"expected a picture in {', '.join(_FORMATS)}, got {path.name}")
    check_writable(path)
    _axes(None, "plots")


def save_plot(axes: Axes, path: Path) -> None:
    """Write the figure of some axes, whole or not at all."""
    with writing(path) as temporary:
        figure: Any = axes.figure
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=150)
