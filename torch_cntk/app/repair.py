"""What the page computes, in processes of its own (see ``work``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from torch_cntk.images.certainty import posterior_after, settled
from torch_cntk.images.default import default_kernel
from torch_cntk.images.files import Photograph
from torch_cntk.images.influence import influence
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.observed import Observed
from torch_cntk.images.photographs import Task
from torch_cntk.images.posterior import Posterior
from torch_cntk.images.result import InpaintingResult

__all__ = ["METHODS", "Method", "Repaired", "deviations", "repair", "weights"]

Method = Literal["fast", "careful", "automatic"]

METHODS: dict[Method, int | Literal["auto"]] = {"fast": 0, "careful": 3, "automatic": "auto"}
"""Content-aware passes of each method; they settle within three or four."""
_DRAWS = 8
"""Images from which deviations are told, where they are not exact: to an eighth, with three colours."""


@dataclass(frozen=True, eq=False)
class Repaired:
    """A photograph whose missing pixels are filled.

    Attributes:
        photograph: the filled one; observed pixels are those of the original, to the bit.
        observed: boolean [H, W], False where it was filled.
        known: boolean [H, W], True where it was filled from.
        result: of ``inpaint``.
    """

    photograph: Photograph
    observed: Tensor
    known: Tensor
    result: InpaintingResult


def repair(photograph: Photograph, observed: Tensor, method: Method, device: str) -> Repaired:
    """Fill the missing pixels of a photograph.

    Args:
        photograph: as it was read.
        observed: boolean [H, W], True = known.
        method: one of ``METHODS``.
        device: where to compute, "cpu" or "cuda".

    Returns:
        the filled photograph.

    Raises:
        ValueError: nothing that can be seen is observed.
        OutOfMemoryError: it would not fit.
    """
    task = Task.of(photograph, observed)
    pixels, known = task.photograph.pixels.to(device), task.known.to(device)
    result = inpaint(pixels, known, task.kernel(), passes=METHODS[method], progress=True)
    filled = task.filled(result.image)
    # One image, not two that are nearly the same: it goes to another process, and stays there.
    return Repaired(filled, task.observed, task.known, replace(result, image=filled.pixels))


def weights(
    pixels: Tensor,
    known: Tensor,
    place: tuple[int, int],
    estimate: Tensor,
    result: InpaintingResult,
    observed: Tensor,
) -> Tensor:
    """How much each pixel counts in the fill of one (see ``influence``).

    After content-aware passes these are the weights that one more pass would have, with the result as its estimate:
    passes settle. Those on smaller images are told by the pass of the whole image that they stand for; of a group flow
    at the end, those of the passes before it are shown, and of patches those of the kernel they are blended with.

    Args:
        pixels: [channels, h, w], a part of the photograph.
        known: boolean [h, w], the pixels that were filled from.
        place: row and column of the pixel that is filled.
        estimate: [channels, h, w], the result.
        result: of ``inpaint``: how it was filled.
        observed: boolean [H, W], the mask of the whole photograph, which chose the kernel.

    Returns:
        float64 [h, w].
    """
    filler = settled(default_kernel(observed), result)
    return influence(Observed.of(pixels, known, 2), filler, place, estimate, progress=True)


def deviations(
    pixels: Tensor, known: Tensor, estimate: Tensor, result: InpaintingResult, observed: Tensor
) -> Posterior:
    """How sure the fill is of each pixel (see ``posterior_after``).

    Args:
        pixels: [channels, h, w], a part of the photograph.
        known: boolean [h, w], the pixels that were filled from.
        estimate: [channels, h, w], the result.
        result: of ``inpaint``: how it was filled.
        observed: boolean [H, W], the mask of the whole photograph, which chose the kernel.

    Returns:
        standard deviations [1, channels, h, w], and a few samples.
    """
    return posterior_after(
        pixels, known, default_kernel(observed), replace(result, image=estimate), samples=_DRAWS, progress=True
    )
