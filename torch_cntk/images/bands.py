"""Statistics of the known pixels, of some rows at a time: in float64 a whole photograph would take twice its memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["bands", "mean_of_known", "scale_of_known"]

_BAND = 1 << 23
"""Numbers of an image that are widened to float64 at a time."""


def bands(mask: Tensor, *images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Some rows at a time of a mask and of images: [batch, 1 or channels, pixels].

    Args:
        mask: [1 or batch, *size].
        images: [batch, channels, *size].
    """
    rows = max(_BAND * mask.shape[1] // images[0].numel(), 1)
    parts = [torch.split(image, rows, 2) for image in (mask[:, None], *images)]
    for band in zip(*parts, strict=True):
        yield tuple(part.flatten(2) for part in band)


def mean_of_known(mask: Tensor, pixels: Tensor) -> Tensor:
    """Of each channel's known pixels, [batch, channels, 1] in float64. A constant's is itself, to the bit."""
    known, every = mask[:, None].flatten(2), pixels.flatten(2)
    # One of them is taken off first: what is left of a constant is exactly 0.
    one = every.gather(2, known.byte().argmax(2, keepdim=True).expand(*every.shape[:2], 1)).double()
    count = known.sum(2, keepdim=True)
    mean = one.clone()
    for seen, some in bands(mask, pixels):
        mean += torch.where(seen, (some.double() - one) / count, 0).sum(2, keepdim=True)
    return mean


def scale_of_known(mask: Tensor, pixels: Tensor, mean: Tensor) -> Tensor:
    """A power of 2 above each channel's deviations from its mean [batch, channels, 1], as that; 0 for a constant."""
    off = [torch.where(seen, (some.double() - mean).abs(), 0).amax(2) for seen, some in bands(mask, pixels)]
    largest = torch.stack(off).amax(0)
    scale = np.where(largest.cpu() > 0, np.ldexp(1.0, np.frexp(largest.cpu().numpy())[1]), 0.0)
    return torch.from_numpy(scale).to(largest.device).reshape(mean.shape)
