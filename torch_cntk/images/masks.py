"""What the shape of a mask says. ``observed`` is boolean, True = known, [*size]."""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

__all__ = ["THIN", "has_holes", "reach", "thick"]

THIN = 8
"""Pixels across: passes fill thinner holes better than patches from elsewhere do."""
_JOINED = 4
"""Pixels that a thick hole reaches into thin ones that it meets: its ragged edge is its own."""


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
    most = _by_chance(observed)
    return most is not None and bool((reach(observed) if remotest is None else remotest) > most)


def _by_chance(observed: Tensor) -> float | None:
    """The ``reach`` beyond which there are holes; None where all pixels are missing or none."""
    missing = float((~observed).double().mean())
    if missing in (0, 1):
        return None
    pixels = math.log(observed.numel()) / -math.log(missing)
    return 1.5 * (float(pixels ** (1 / observed.ndim)) + 1) / 2


def thick(observed: Tensor) -> Tensor:
    """The missing pixels of thick holes: those in squares of missing pixels, and what is missing right beside them.

    A square has more than ``THIN`` pixels across, and more than there are where pixels are missing at random. So a
    scratch that runs into a torn corner is no part of it.

    Args:
        observed: [H, W].

    Returns:
        boolean [H, W].
    """
    most = _by_chance(observed)
    if most is None:
        return torch.zeros_like(observed)
    missing = ~observed.cpu().numpy()
    side = max(THIN + 1, 2 * int(most) + 1)
    # An opening by a square, axis by axis.
    inside = scipy.ndimage.minimum_filter(missing.view(np.uint8), side, mode="constant")
    squares = scipy.ndimage.maximum_filter(inside, side, mode="constant", origin=0)
    near = scipy.ndimage.maximum_filter(squares, 2 * _JOINED + 1, mode="constant")
    return torch.from_numpy((near > 0) & missing).to(observed.device)
