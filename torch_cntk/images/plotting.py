"""Pictures of kernels and of comparisons. Needs matplotlib: ``pip install 'torch-cntk[plots]'``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_cntk.kernels.kernel import Kernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torch_cntk.matrices.drug_response import Comparison

__all__ = ["boxplots", "heatmap"]


def heatmap(
    kernel: Kernel,
    pixel: tuple[int, int],
    size: tuple[int, int] | None = None,
    *,
    observed: Tensor | None = None,
    axes: Axes | None = None,
    **options: Any,
) -> Axes:
    """Draw which pixels fill a given one: the row K(pixel, x) of the kernel, as in Fig. 4 of the paper.

    Args:
        kernel: of images (two dimensions).
        pixel: row and column of the pixel to be filled; it is marked.
        size: of the image; not needed if the kernel has one.
        observed: boolean [H, W], True = known; the others are left blank.
        axes: where to draw; a new figure by default.
        **options: handed to ``Axes.imshow``.

    Returns:
        the axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: the mask is not boolean.
        ValueError: the kernel is not of two dimensions or does not serve the size, or the mask has another size.
    """
    if kernel.ndim != 2:
        raise ValueError(f"expected a kernel of images, of 2 dimensions, got one of {kernel.ndim}")
    row = kernel.row(pixel, size).cpu()
    if observed is not None:
        if observed.dtype != torch.bool:
            raise TypeError(f"expected observed to be boolean, True = known, got {observed.dtype}")
        if observed.shape != row.shape:
            raise ValueError(f"expected observed of shape {tuple(row.shape)}, got {tuple(observed.shape)}")
        row = torch.where(observed.cpu(), row, torch.nan)
    if axes is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(f"heat maps need matplotlib: pip install 'torch-cntk[plots]' ({error})") from error
        axes = Figure(layout="constrained").subplots()
    picture = axes.imshow(row.numpy(), **({"cmap": "magma"} | options))
    axes.plot(pixel[1], pixel[0], "+", color="cyan")
    axes.figure.colorbar(picture, ax=axes)
    axes.set_title(f"K({tuple(pixel)}, x)")
    return axes


def boxplots(comparison: Comparison, figure: Figure | None = None) -> list[Axes]:
    """Draw each metric of each method over the folds, as in Fig. 2 of the paper.

    Args:
        comparison: of ``drug_response.compare``.
        figure: where to draw; a new one by default.

    Returns:
        the axes of each metric.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # Few users of this module compare methods: the sub-package is imported when it is needed.
    from torch_cntk.matrices.drug_response import METRICS

    if figure is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(f"box plots need matplotlib: pip install 'torch-cntk[plots]' ({error})") from error
        figure = Figure(figsize=(4 * len(METRICS), 1 + 0.4 * len(comparison.methods)), layout="constrained")
    places: list[Axes] = list(figure.subplots(1, len(METRICS), sharey=True))
    for place, (axes, metric) in enumerate(zip(places, METRICS, strict=True)):
        axes.boxplot(list(comparison.values[..., place].numpy()), orientation="horizontal")
        axes.set_yticks(range(1, len(comparison.methods) + 1), comparison.methods)
        axes.set_title(metric)
        axes.grid(axis="x", alpha=0.3)
    places[0].invert_yaxis()
    return places
