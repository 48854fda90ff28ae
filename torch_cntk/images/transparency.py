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
    return alpha[0].to(torch.int32) > 0


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
        alpha: uint8 or uint16 [1, H, W].
        missing: boolean [H, W].

    Returns:
        the same type and shape.
    """
    values = alpha.to(torch.int32)
    known = values[0][~missing]
    if not bool(missing.any()) or len(known) == 0:
        return alpha
    low, high = int(known.min()), int(known.max())
    if low == high:
        filled = torch.where(missing, high, values)
    else:
        scaled = inpaint((values - high).to(torch.float32) / (high - low), ~missing).image
        filled = torch.where(missing, (scaled * (high - low) + high).round().clamp(low, high).to(torch.int32), values)
    return filled.to(alpha.dtype)
