"""What the page computes, in processes of its own (see ``work``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk.images.default import default_kernel
from torch_cntk.images.filler import Filler, Series, of_pass
from torch_cntk.images.influence import influence
from torch_cntk.images.inpaint import InpaintingResult, inpaint
from torch_cntk.images.observed import Observed
from torch_cntk.images.periodic import Periodic
from torch_cntk.images.transparency import erased, fill_alpha, visible

__all__ = ["METHODS", "Method", "Repaired", "known", "repair", "weights"]

Method = Literal["fast", "careful", "automatic"]

METHODS: dict[Method, int | Literal["auto"]] = {"fast": 0, "careful": 3, "automatic": "auto"}
"""Content-aware passes of each method; they settle within three or four."""


@dataclass(frozen=True, eq=False)
class Repaired:
    """A photograph whose missing pixels are filled; arrays, which go from one process to another.

    Attributes:
        pixels: float32 [channels, H, W]; observed ones are those of the photograph, to the bit.
        alpha: as that of the photograph, or None.
        observed: boolean [H, W], True = known.
        result: of ``inpaint``; its image is ``pixels``.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    observed: np.ndarray
    result: InpaintingResult


def known(observed: Tensor, alpha: Tensor | None) -> Tensor:
    """Of the observed pixels those whose colours can be seen, boolean [H, W]."""
    return observed if alpha is None else observed & visible(alpha)


def repair(pixels: np.ndarray, alpha: np.ndarray | None, observed: np.ndarray, method: Method, device: str) -> Repaired:
    """Fill the missing pixels of a photograph.

    Args:
        pixels: floating point [channels, H, W].
        alpha: uint8 or uint16 [1, H, W], or None; where it was erased, it is filled as well.
        observed: boolean [H, W], True = known.
        method: one of ``METHODS``.
        device: where to compute, "cpu" or "cuda".

    Returns:
        the filled photograph.

    Raises:
        ValueError: nothing that can be seen is observed.
        OutOfMemoryError: it would not fit.
    """
    mask = torch.from_numpy(observed)
    opacity = None if alpha is None else torch.from_numpy(alpha)
    seen = known(mask, opacity)
    if not bool(seen.any()):
        raise ValueError("expected some known pixels that can be seen, got none")
    # A drawing's transparent background is no hole: it shall not choose the network.
    kernel = None if torch.equal(seen, mask) else default_kernel(mask)
    image = torch.from_numpy(pixels)
    result = inpaint(image.to(device), seen.to(device), kernel, passes=METHODS[method], progress=True)
    filled = torch.where(mask, image, result.image.cpu())
    if opacity is not None:
        opacity = fill_alpha(opacity, erased(opacity, mask))
    array: Any = filled.numpy()
    return Repaired(array, None if opacity is None else opacity.numpy(), observed, replace(result, image=array))


def weights(
    pixels: np.ndarray, seen: np.ndarray, place: tuple[int, int], estimate: np.ndarray, result: InpaintingResult
) -> np.ndarray:
    """How much each pixel counts in the fill of one (see ``influence``).

    After content-aware passes these are the weights that one more pass with the result as its estimate would have:
    passes settle. Those on smaller images are told by the pass of the whole image that they stand for.

    Args:
        pixels: [channels, H, W], a part of the photograph.
        seen: boolean [H, W], the pixels that were filled from.
        place: row and column of the pixel that is filled.
        estimate: [channels, H, W], the result.
        result: of ``inpaint``: how it was filled.

    Returns:
        float64 [H, W]; they sum to 1.
    """
    given = Observed.of(torch.from_numpy(pixels), torch.from_numpy(seen), 2)
    filler: Filler = Periodic(ridge=result.ridge)
    if result.passes:
        filler = of_pass(_whole(result.guidance[0]), result.passes)
    found: np.ndarray = influence(given, filler, place, torch.from_numpy(estimate), progress=True).numpy()
    return found


def _whole(guidance: Filler | Series) -> Filler | Series:
    """The same guidance on the image's own pixels."""
    return replace(guidance, coarse=1) if hasattr(guidance, "coarse") else guidance  # type: ignore[type-var]
