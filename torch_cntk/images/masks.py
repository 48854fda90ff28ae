"""What the shape of a mask says. ``observed`` is boolean, True = known, [*size]."""

from __future__ import annotations

import math

import scipy.ndimage
from torch import Tensor

__all__ = ["has_holes", "reach"]


def reach(observed: Tensor) -> int:
    """Chessboard distance of the most remote pixel from the nearest observed one."""
    return int(scipy.ndimage.distance_transform_cdt(~observed.cpu().numpy(), "chessboard").max())


def has_holes(observed: Tensor, remotest: int | None = None) -> bool:
    """Whether pixels are more remote than if those that are missing were scattered at random.

    Then all of a cube of side 2 r - 1 is missing with the probability q^((2 r - 1)^ndim), q the share that is missing;
    of n pixels one is expected to be the middle of such a cube for the r that makes it 1/n.

    Args:
        observed: the mask.
        remotest: its ``reach``, where it is known already.
    """
    missing = float((~observed).double().mean())
    if missing in (0, 1):
        return False
    pixels = math.log(observed.numel()) / -math.log(missing)
    expected = (pixels ** (1 / observed.ndim) + 1) / 2
    return bool((reach(observed) if remotest is None else remotest) > 1.5 * expected)
