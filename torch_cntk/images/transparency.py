"""Images with alpha: what transparent pixels hide is no colour to fill from, and what is filled shall be seen."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk.images.inpaint import inpaint

__all__ = ["erased", "fill_alpha", "visible"]


def visible(alpha: Tensor) -> Tensor:
    """Where there is a colour to be seen: boolean [H, W] of alpha [1, H, W]."""
    return alpha[0].double() > 0


def erased(alpha: Tensor, observed: Tensor) -> Tensor:
    """Where the missing pixels were erased in an editor, so that their alpha is missing as well.

    That are the holes, as a whole, with a wholly transparent pixel in them: a soft eraser leaves a rim. In others alpha
    is a drawing's own, which is kept.

    Args:
        alpha: [1, H, W].
        observed: boolean [H, W], True = known.

    Returns:
        boolean [H, W].
    """
    holes, _ = scipy.ndimage.label(~observed.numpy(), np.ones((3, 3)))
    numbers = np.unique(holes[(~visible(alpha) & ~observed).numpy()])
    return torch.from_numpy(np.isin(holes, numbers[numbers > 0]))


def fill_alpha(alpha: Tensor, missing: Tensor) -> Tensor:
    """Fill the missing opacities from the others as a channel of an image: exactly, if these are all the same.

    Args:
        alpha: uint8, uint16 or floating point [1, H, W].
        missing: boolean [H, W].

    Returns:
        the same type and shape.
    """
    values = alpha.double()
    known = values[0][~missing]
    if not bool(missing.any()) or len(known) == 0:
        return alpha
    low, high = float(known.min()), float(known.max())
    if low == high:
        filled = torch.where(missing, high, values)
    else:
        scaled = inpaint(((values - high) / (high - low)).float(), ~missing).image
        levels = (scaled.double() * (high - low) + high).clamp(low, high)
        filled = torch.where(missing, levels if alpha.is_floating_point() else levels.round(), values)
    return filled.to(alpha.dtype)
