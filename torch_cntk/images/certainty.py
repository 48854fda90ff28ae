"""How sure a fill is: by how much known pixels were missed, standard deviations of filled ones, and their picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from torch_cntk.images.default import default_kernel
from torch_cntk.images.fill import fill
from torch_cntk.images.filler import Filler, Pass, Series, of_pass
from torch_cntk.images.group_flow import before_flow
from torch_cntk.images.guided import Guidance
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.judged import left_out_part
from torch_cntk.images.observed import Observed
from torch_cntk.images.patch_fill import PatchFill
from torch_cntk.images.periodic import Periodic
from torch_cntk.images.posterior import Draws, Posterior
from torch_cntk.images.result import InpaintingResult
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver

__all__ = [
    "Missed",
    "Passes",
    "left_out_error",
    "posterior_after",
    "settled",
    "std_picture",
]

_DARK = 0.3
"""Of the image's brightness under the colours, which shall stand out."""
_COLOUR = (1.0, 0.85, 0.1)

Passes: TypeAlias = int | Literal["auto", "quick", "sharp"] | PatchFill
"""What the command line asks for."""


@dataclass(frozen=True)
class Missed:
    """By how much known pixels were missed that were left out and filled.

    Attributes:
        error: root mean square, in the image's units.
        low: smallest known value.
        high: largest.
    """

    error: float
    low: float
    high: float


def left_out_error(
    image: Tensor,
    known: Tensor,
    observed: Tensor,
    kernel: Kernel | None,
    solver: Solver | Literal["auto"],
    result: InpaintingResult,
    passes: Passes,
    *,
    progress: bool = False,
) -> Missed | str:
    """What is known is left out in copies of the holes, and filled as the image was: the same passes, none tried out.

    Which pixels are left out depends on the mask alone (see ``left_out_part``): errors of two fills can be compared.

    Args:
        image: [channels, H, W] in [0, 1], or in units of its own.
        known: boolean [H, W]: False where there are no colours to go by.
        observed: boolean [H, W]: False where it was filled. A transparent background may be neither filled nor known.
        kernel: that filled it, or None for the default one.
        solver: that was asked for.
        result: of the fill, whose ridge and chosen passes are taken.
        passes: that were asked for.
        progress: whether to show bars.

    Returns:
        why it cannot be told, in words, where it cannot; empty where nothing was filled.
    """
    if bool(observed.all()):
        return ""
    if kernel is not None and kernel.size is not None:
        return "the kernel serves images of one size"
    kernel = default_kernel(known) if kernel is None else kernel
    low, high = (float(level) for level in torch.aminmax(image[:, known]))
    found = left_out_part(known, observed)
    if isinstance(found, str):
        return found
    place, left_out = found
    image, known = image[(slice(None), *place)], known[place]
    options: dict[str, Any] = {"solver": solver, "ridge": result.first_ridge, "progress": progress}
    try:
        filled = inpaint(image, known & ~left_out, kernel, **options, **_again(passes, result)).image
    except (ValueError, MemoryError):  # the picture is filled all the same
        return "a part of the image is too small to be filled so"
    return Missed(float((filled - image)[:, left_out].double().square().mean().sqrt()), low, high)


def _again(passes: Passes, result: InpaintingResult) -> dict[str, Any]:
    """The passes that a result had, without trials, as options of ``inpaint``."""
    if result.chosen:
        return {"passes": result.chosen[0]}
    if isinstance(passes, int) and result.guidance:
        # What suits the share of observed pixels would be another one in a part of the image.
        return {"passes": passes, "guidance": result.guidance[0]}
    return {"passes": passes}


def settled(kernel: Kernel | None, result: InpaintingResult) -> Filler:
    """The regression that stands for how an image was filled, of the whole image.

    After content-aware passes it is one more of them, with the result as its estimate: passes settle. Those on smaller
    images are told by the pass of the whole image that they stand for; a group flow at the end by the passes before it.
    What is no regression at all, such as ``PatchFill``, is told by the first one.

    Args:
        kernel: of the first regression; None takes ``default_kernel``.
        result: of ``inpaint``: how it was filled.
    """
    first = Periodic(kernel, result.first_ridge)
    if not result.guidance:
        return first
    guidance, passes = before_flow(result.guidance[0], result.passes)
    made = of_pass(_whole(guidance), passes) if passes else first
    # Patches are no regression; the kernel that they are blended with is one.
    return made if isinstance(made, Filler) else first


def _whole(guidance: Pass | Series) -> Pass | Series:
    """The same guidance on the image's own pixels."""
    return replace(guidance, coarse=1) if isinstance(guidance, Guidance) else guidance


def posterior_after(
    image: Tensor,
    known: Tensor,
    kernel: Kernel | None,
    result: InpaintingResult,
    *,
    samples: int,
    seed: int | torch.Generator = 0,
    progress: bool = False,
) -> Posterior:
    """What a fill has left open, without filling otherwise than it did: by the regression of ``settled``.

    Args:
        image: [channels, *size].
        known: boolean [*size], that was filled from.
        kernel: that filled it, or None for the default one.
        result: of ``inpaint``.
        samples: images to draw.
        seed: of them.
        progress: whether to show a bar.

    Returns:
        standard deviations [1, channels, *size] and samples [n, 1, channels, *size].
    """
    given = Observed.of(image, known, image.ndim - 1)
    draws = Draws.of(samples, seed)
    assert draws is not None
    estimate = torch.as_tensor(result.image).to(image)
    posterior = fill(given, settled(kernel, result), estimate, draws=draws, progress=progress).posterior
    assert posterior is not None
    return posterior


def std_picture(std: Tensor, image: Tensor) -> tuple[Tensor, float]:
    """A picture of standard deviations over an image that is darkened: from black, which is 0, to yellow, the largest.

    Args:
        std: [channels, H, W], 0 at observed pixels.
        image: [1 or 3, H, W] in [0, 1].

    Returns:
        [3, H, W] in [0, 1], and the largest root mean square over channels, which yellow stands for.
    """
    size = std.double().square().mean(0).sqrt()
    largest = float(size.max())
    strength = size / max(largest, torch.finfo(size.dtype).tiny)
    below = torch.where(size > 0, 0, image.double().mean(0).clamp(0, 1) * _DARK)
    colour = torch.tensor(_COLOUR, dtype=torch.float64, device=std.device)[:, None, None]
    return (below + strength * colour).clamp(0, 1), largest
