"""How sure a fill is: by how much known pixels were missed, standard deviations of filled ones, and their picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk.images.default import default_kernel
from torch_cntk.images.fill import fill
from torch_cntk.images.filler import Filler, Pass, Series, of_pass
from torch_cntk.images.group_flow import before_flow
from torch_cntk.images.guided import Guidance
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.leaving_out import copies_of_holes
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
    "around_the_largest",
    "left_out_error",
    "posterior_after",
    "settled",
    "std_picture",
]

_SIDE, _HOLES = 96, 4
"""Of the part of the image that is tried: pixels at least, and times the largest hole's reach. A larger one would take
as long as the fill itself."""
_FEWEST = 20
"""Left-out pixels, of which fewer say little."""
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
) -> Missed | None:
    """What is known is left out and filled, where the holes around the largest one are moved to where most is known.

    Args:
        image: [channels, H, W] in [0, 1], or in units of its own.
        known: boolean [H, W]: False where there are no colours to go by.
        observed: boolean [H, W]: False where it was filled. A transparent background may be neither filled nor known.
        kernel: that filled it, or None for the default one.
        solver: that was asked for.
        result: of the fill, whose ridge is taken.
        passes: that were asked for; a choice is not made again: a patch fill that was chosen is taken, or else "quick"
            passes stand for it.
        progress: whether to show bars.

    Returns:
        None where it cannot be told.
    """
    if bool(observed.all()) or (kernel is not None and kernel.size is not None):
        return None
    kernel = default_kernel(known) if kernel is None else kernel
    low, high = (float(level) for level in torch.aminmax(image[:, known]))
    place = around_the_largest(observed)
    image, known = image[(slice(None), *place)], known[place]
    left_out = copies_of_holes(known, ~observed[place])[0]
    if int(left_out.sum()) < _FEWEST or not bool((known & ~left_out).any()):
        return None
    again = _without_choice(passes, result)
    options: dict[str, Any] = {"solver": solver, "ridge": result.ridge, "passes": again, "progress": progress}
    try:
        filled = inpaint(image, known & ~left_out, kernel, **options).image
    except (ValueError, MemoryError):  # a part may be too small for passes; the picture is filled all the same
        return None
    return Missed(float((filled - image)[:, left_out].double().square().mean().sqrt()), low, high)


def _without_choice(passes: Passes, result: InpaintingResult) -> Passes:
    """The passes that a result had, without trials."""
    if not isinstance(passes, str):
        return passes
    # It is the guidance where there were thick holes alone.
    first = result.guidance[0] if result.guidance else None
    return first if isinstance(first, PatchFill) else "quick"


def around_the_largest(observed: Tensor) -> tuple[slice, ...]:
    """The part of the image around the pixel that is most remote from one that is not filled."""
    distance = scipy.ndimage.distance_transform_cdt(~observed.cpu().numpy(), "chessboard")
    middle = np.unravel_index(int(distance.argmax()), distance.shape)
    side = max(_SIDE, _HOLES * int(distance.max()))
    starts = [max(min(int(at) - side // 2, n - side), 0) for at, n in zip(middle, distance.shape, strict=True)]
    return tuple(slice(start, start + side) for start in starts)


def settled(kernel: Kernel | None, result: InpaintingResult) -> Filler:
    """The regression that stands for how an image was filled, of the whole image.

    After content-aware passes it is one more of them, with the result as its estimate: passes settle. Those on smaller
    images are told by the pass of the whole image that they stand for; a group flow at the end by the passes before it.
    What is no regression at all, such as ``PatchFill``, is told by the first one.

    Args:
        kernel: of the first regression; None takes ``default_kernel``.
        result: of ``inpaint``: how it was filled.
    """
    first = Periodic(kernel, result.ridge)
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
