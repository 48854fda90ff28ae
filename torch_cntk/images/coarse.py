"""Passes on a smaller image, in which a window reaches further."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.images.canvas import crop
from torch_cntk.images.filler import Equations, Filler, Pass, Series, check_filler, of_pass
from torch_cntk.images.observed import Observed

__all__ = ["Coarse", "enlarged", "smaller_estimate", "smaller_image"]


@dataclass(frozen=True)
class Coarse:
    """A filler of an image that is smaller along each axis; what it changes there is added to the estimate.

    A pixel of the smaller image is the mean of what is observed of a block, and observed if at least half of the block
    is. Passes that follow one another with the same factor go on from the smaller image's last result.

    Attributes:
        filler: of the smaller image, or a ``Series`` of them.
        factor: by which the image is smaller.

    Raises:
        TypeError: the filler is none, or the factor no integer.
        ValueError: the factor is below 1.
    """

    filler: Pass | Series
    factor: int

    def __post_init__(self) -> None:
        check_filler(self.filler)
        positive_int(self.factor, "factor")

    def at(self, number: int) -> Coarse:
        """See ``Series``."""
        return replace(self, filler=of_pass(self.filler, number))

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """Those of the smaller image; ``fill`` solves them there and adds the change to the estimate.

        Raises:
            TypeError: the filler is a ``Refiner``, which has none.
        """
        start = None if estimate is None else smaller_estimate(estimate, self.factor)
        filler = of_pass(self.filler, 0)
        if not isinstance(filler, Filler):
            raise TypeError(f"expected a filler with equations, got {type(filler).__name__}")
        return filler.equations(smaller_image(given, self.factor), start)


def smaller_image(given: Observed, factor: int) -> Observed:
    """Means of what is observed, where that is at least half of a block; opposite edges are no neighbours."""
    share = _block_means(given.mask[:, None].to(given.pixels.dtype), factor)
    sums = _block_means(given.pixels, factor)
    known, means = share[:, 0] >= 0.5, sums / share.clamp_min(0.5)
    empty = ~known.flatten(1).any(1)
    if bool(empty.any()):
        # Of such an image, the blocks of which most is observed.
        best = share[:, 0] == share.flatten(1).amax(1).reshape(-1, *(1,) * given.ndim)
        empty = empty.reshape(-1, *(1,) * given.ndim)
        known = torch.where(empty, best, known)
        means = torch.where(empty[:, None], sums / share.clamp_min(1e-9), means)
    pixels = torch.where(known[:, None], means, 0)
    return Observed(pixels, known, tuple(pixels.shape), relative=given.relative)


def smaller_estimate(estimate: Tensor, factor: int) -> Tensor:
    """Means over blocks of an estimate [batch, channels, *size]."""
    return _block_means(estimate, factor)


def enlarged(images: Tensor, factor: int, size: tuple[int, ...]) -> Tensor:
    """Images [batch, channels, *blocks] between the middles of blocks, [batch, channels, *size]."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return crop(torch.nn.functional.interpolate(images, scale_factor=factor, mode=mode), size)


def _block_means(images: Tensor, factor: int) -> Tensor:
    """Means over blocks of ``factor`` pixels along each spatial axis; the last are filled up with the last pixel."""
    for axis in range(2, images.ndim):
        n = images.shape[axis]
        blocks = math.ceil(n / factor)
        place = torch.arange(blocks * factor, device=images.device).clamp_max(n - 1)
        shape = (*images.shape[:axis], blocks, factor, *images.shape[axis + 1 :])
        images = images.index_select(axis, place).reshape(shape).mean(axis + 1)
    return images
