"""Images with alpha: what transparent pixels hide is no colour to fill from, and what is filled shall be seen."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.mask_files import Mask

__all__ = ["erased", "fill_alpha", "own_alpha", "visible"]


_TRACE = 0.1
"""Share of the largest alpha that an eraser may leave where it was pressed most."""


def visible(alpha: Tensor) -> Tensor:
    """Where there is a colour to be seen: boolean [H, W] of alpha [1, H, W]."""
    return alpha[0].double() > 0


def erased(alpha: Tensor, observed: Tensor) -> Tensor:
    """Where the missing pixels were erased in an editor, so that their alpha is missing as well.

    That are the holes, as a whole, with a wholly transparent pixel in them, or a whole stroke of an eraser (see
    ``own_alpha``): a soft one leaves a rim. In others alpha is a drawing's own, which is kept.

    Args:
        alpha: [1, H, W].
        observed: boolean [H, W], True = known.

    Returns:
        boolean [H, W].
    """
    strokes = _strokes(alpha)
    whole = strokes & ~_parts_with(strokes, observed)
    return _parts_with(~observed, whole | ~visible(alpha))


def own_alpha(alpha: Tensor) -> Mask:
    """The mask of an image that was erased: the strokes of an eraser are missing.

    That are connected pixels that are not wholly opaque, one of which is at least nine tenths transparent: a soft
    eraser leaves a rim, and one that is not pressed hard a trace. Others are a shadow, say, or glass: they are known.

    Args:
        alpha: [1, H, W].
    """
    gone = _strokes(alpha)
    kept = int((~_opaque(alpha) & ~gone).sum())
    left = f"{kept:,} partly transparent pixels"
    found = "transparent pixels of the image" if bool(gone.any()) else f"{left} and none that is erased wholly"
    reading = f"left {left} as they are, as none beside them is erased; erase them wholly to have them filled"
    # Not soft: unlike a brush, an eraser leaves the colours beside it as they were.
    return Mask(~gone, found, reading=reading if kept else "")


def _opaque(alpha: Tensor) -> Tensor:
    values = alpha[0].double()
    return values == values.max()


def _strokes(alpha: Tensor) -> Tensor:
    """See ``own_alpha``, boolean [H, W]."""
    values = alpha[0].double()
    return _parts_with(~_opaque(alpha), values <= _TRACE * values.max())


def _parts_with(region: Tensor, seeds: Tensor) -> Tensor:
    """The connected parts of a region in which there is a seed; all boolean [H, W]."""
    parts, _ = _holes(region)
    return torch.from_numpy(np.isin(parts, np.unique(parts[(seeds & region).numpy()])))


def fill_alpha(alpha: Tensor, missing: Tensor) -> Tensor:
    """Fill the missing opacities: a hole as what is around it, if that is all the same, and else as an image is filled.

    Args:
        alpha: uint8, uint16 or floating point [1, H, W].
        missing: boolean [H, W].

    Returns:
        the same type and shape.
    """
    if not bool(missing.any()) or bool(missing.all()):
        return alpha
    values, uneven = _even_holes(alpha[0].double(), missing)
    if bool(uneven.any()):
        known = values[~uneven]
        low, high = float(known.min()), float(known.max())
        scaled = inpaint(((values - high) / (high - low)).float(), ~uneven).image
        levels = (scaled.double() * (high - low) + high).clamp(low, high)
        values = torch.where(uneven, levels if alpha.is_floating_point() else levels.round(), values)
    return values[None].to(alpha.dtype)


def _even_holes(values: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the holes that have one value all around; gives the values, and which pixels are left to fill."""
    holes, count = _holes(missing)
    unknown = missing.numpy()
    numbers = np.arange(1, count + 1)
    low = scipy.ndimage.minimum_filter(np.where(unknown, np.inf, values), 3)
    high = scipy.ndimage.maximum_filter(np.where(unknown, -np.inf, values), 3)
    lowest = np.atleast_1d(scipy.ndimage.minimum(low, holes, numbers))
    even = lowest == np.atleast_1d(scipy.ndimage.maximum(high, holes, numbers))
    # The first of each is of what is in no hole.
    filled = np.where(np.r_[False, even][holes], np.r_[0.0, lowest][holes], values)
    return torch.from_numpy(filled), torch.from_numpy(np.r_[False, ~even][holes])


def _holes(missing: Tensor) -> tuple[np.ndarray, int]:
    """Numbers of the connected parts, 0 where nothing is missing, and how many there are."""
    numbers, count = scipy.ndimage.label(missing.numpy(), np.ones((3, 3)))
    return numbers, count
