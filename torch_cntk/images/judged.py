"""What is left out of a picture to tell by how much its fill errs: copies of its holes, in a part of it.

It depends on the mask alone, so that ways to fill one picture are told by the same pixels.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from torch import Tensor

from torch_cntk.images.automatic import crowded
from torch_cntk.images.leaving_out import copies_of_holes, fullest, near_copies
from torch_cntk.images.masks import reach, thick

__all__ = ["around_the_largest", "left_out_part"]

_SIDE, _HOLES = 96, 4
"""Of the part of the image that is tried: pixels at least, and times the largest hole's reach. A larger one would take
as long as the fill itself."""
_SIDE_BESIDE, _HOLES_BESIDE = 160, 6
"""The same where thick holes are moved beside themselves: patches want known ones to choose from."""
_FEWEST = 20
"""Left-out pixels, of which fewer say little."""
_FEW = "too few known pixels are where holes like these could be left out"
_CROWDED = "more pixels would be missing in thick holes than known"

Place = tuple[slice, ...]


def left_out_part(known: Tensor, observed: Tensor) -> tuple[Place, Tensor] | str:
    """A part of the image, and which of its known pixels are left out.

    Args:
        known: boolean [H, W], False where there are no colours to go by.
        observed: boolean [H, W], False where it was filled.

    Returns:
        the part and a mask of its size; or why there is none, in words.
    """
    holes = thick(observed)
    if bool(holes.any()):
        found = _beside_thick(known, observed, holes)
    else:
        place = around_the_largest(observed)
        found = place, copies_of_holes(known[place], ~observed[place])[0]
    if found is None:
        return _CROWDED
    place, left_out = found
    if int(left_out.sum()) < _FEWEST or not bool((known[place] & ~left_out).any()):
        return _FEW
    return found


def _beside_thick(known: Tensor, observed: Tensor, holes: Tensor) -> tuple[Place, Tensor] | None:
    """Copies of thick holes beside them, and of thin ones elsewhere; None where too little is left to take patches."""
    left_out = near_copies(known, holes)[0]
    if int(left_out.sum()) < _FEWEST:
        left_out = copies_of_holes(known, holes)[0]
    side = max(_SIDE_BESIDE, _HOLES_BESIDE * reach(~holes))
    thin = ~observed & ~holes
    both = left_out | copies_of_holes(known, thin)[0] if bool(thin.any()) else left_out
    while True:
        place = fullest(left_out, tuple(min(side, n) for n in known.shape))
        rest = known[place] & ~both[place]
        if not crowded(rest, thick(rest)):
            return place, both[place]
        if side >= max(known.shape):
            return None
        side *= 2


def around_the_largest(observed: Tensor) -> Place:
    """The part of the image around the pixel that is most remote from one that is not filled."""
    distance = scipy.ndimage.distance_transform_cdt(~observed.cpu().numpy(), "chessboard")
    middle = np.unravel_index(int(distance.argmax()), distance.shape)
    side = max(_SIDE, _HOLES * int(distance.max()))
    starts = [max(min(int(at) - side // 2, n - side), 0) for at, n in zip(middle, distance.shape, strict=True)]
    return tuple(slice(start, start + side) for start in starts)
