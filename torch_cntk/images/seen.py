"""What guided passes see in an estimate: its local mean, what is left of it, and their scale in the whole image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from torch_cntk.images.bands import bands
from torch_cntk.images.observed import Observed
from torch_cntk.images.windows import Box

__all__ = ["Weights", "Whole", "features", "local_mean", "mirrored"]

_SAMPLE = 1 << 16
"""Pixels of a part of the image in which the variance of features is measured."""
_SAMPLES = 16
"""Of these, in images that have more pixels than all of them: then it is known to some percent, and enters only by the
ridge."""


class Weights(Protocol):
    """How much of what is seen; see ``Guided``."""

    @property
    def detail(self) -> float:
        """Of the estimate's detail."""
        ...

    @property
    def level(self) -> float:
        """Of its local mean."""
        ...

    @property
    def smoothing(self) -> float:
        """Of the Gaussian that takes the local mean."""
        ...


@dataclass(frozen=True, eq=False)
class Whole:
    """What the features of a part of an image take from the whole.

    Attributes:
        scale: by which features are divided, of images in one unit.
        level: mean of each channel, [channels, 1, ...], likewise.
        low: of each channel's observed pixels, likewise but in the units of ``Observed.normalised``.
        high: likewise.
        square: mean over the pixels of the features' sum of squares; nan where nobody asked for it.
    """

    scale: float
    level: Tensor
    low: Tensor
    high: Tensor
    square: float = math.nan

    @classmethod
    def of(cls, given: Observed, estimate: Tensor, weights: Weights) -> Whole:
        """Of a single image and its estimate, [1, channels, *size], in the user's units."""
        lowest, highest = _range(given)
        total = squares = torch.zeros((), dtype=torch.float64, device=estimate.device)
        for known, pixels, guessed in bands(given.mask, given.pixels, estimate):
            clipped = torch.where(known, pixels, guessed.clamp(lowest, highest)).double() - given.mean.flatten(2)
            total, squares = total + clipped.sum(2), squares + clipped.square().sum(2)
        count, shape = math.prod(given.size), (-1, *(1,) * given.ndim)
        mean = total[0] / count
        unit = (given.unit / torch.where(given.scale > 0, given.scale, 1))[0]
        spread = (squares[0] / count - mean.square()).clamp_min(0).reshape(shape) * unit.square()
        low, high = (given.normalise(bound.reshape(given.mean.shape))[0] for bound in (lowest, highest))
        level = (mean.reshape(shape) * unit).to(estimate.dtype)
        whole = cls(float(spread.mean().sqrt()) or 1.0, level, low, high)
        return cls(whole.scale, level, low, high, whole._square(given, estimate, weights))

    @classmethod
    def seen(cls, estimate: Tensor, mean: Tensor, low: Tensor, high: Tensor) -> Whole:
        """Of an estimate and its local mean, [channels, *size], in one unit."""
        axes = tuple(range(1, estimate.ndim))
        scale = float(estimate.std(axes, correction=0).square().mean().sqrt()) or 1.0
        return cls(scale, mean.mean(axes, keepdim=True), low, high)

    def _square(self, given: Observed, estimate: Tensor, weights: Weights) -> float:
        total, count = 0.0, 0
        for box in _samples(given.size):
            part = given.window(slice(None), box)
            near = given.normalise(estimate[(slice(None), slice(None), *box)]).clamp(self.low, self.high)
            clipped = part.restore(near)[0]
            mean = local_mean(clipped, weights.smoothing)
            one, smooth = (part.in_one_unit(image[None])[0] for image in (clipped, mean))
            total += float(features(one, smooth, self, weights).double().square().sum())
            count += math.prod(part.size)
        return total / count


def features(estimate: Tensor, mean: Tensor, whole: Whole, weights: Weights) -> Tensor:
    """Detail and level, weighted, [2 channels, *size], of an estimate and its local mean in one unit."""
    level = mean - whole.level
    seen = [(estimate - mean) * math.sqrt(weights.detail), level * math.sqrt(weights.level)]
    return torch.cat(seen) / whole.scale


def _range(given: Observed) -> tuple[Tensor, Tensor]:
    """Of each channel's observed pixels, [1, channels, 1]."""
    low, high = [], []
    for known, pixels in bands(given.mask, given.pixels):
        low.append(torch.where(known, pixels, math.inf).amin(2, keepdim=True))
        high.append(torch.where(known, pixels, -math.inf).amax(2, keepdim=True))
    return torch.cat(low, 2).amin(2, keepdim=True), torch.cat(high, 2).amax(2, keepdim=True)


def _samples(size: tuple[int, ...]) -> Iterator[Box]:
    """Parts of an image, spread evenly over it; all of a small one."""
    if math.prod(size) <= _SAMPLE * _SAMPLES:
        yield tuple(slice(0, n) for n in size)
        return
    side, along = round(_SAMPLE ** (1 / len(size))), max(round(_SAMPLES ** (1 / len(size))), 1)
    places = []
    for n in size:
        length = min(side, n)
        places.append([slice(s, s + length) for s in ((n - length) * (2 * k + 1) // (2 * along) for k in range(along))])
    yield from itertools.product(*places)


def mirrored(images: Tensor, canvas: tuple[int, ...]) -> Tensor:
    """Extend images to the canvas: each half of the margin mirrors the edge next to it."""
    for axis, total in enumerate(canvas, start=1):
        n = images.shape[axis]
        place = torch.arange(total, device=images.device)
        beyond, before = place - n, total - 1 - place
        mirror = torch.where(beyond <= before, n - 1 - beyond, before)
        images = images.index_select(axis, torch.where(place < n, place, mirror.clamp(0, n - 1)))
    return images


def local_mean(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur on the torus, [channels, *size]."""
    axes = tuple(range(1, images.ndim))
    transform = torch.fft.rfftn(images, dim=axes)
    for axis in axes:
        n = images.shape[axis]
        wave = torch.fft.rfftfreq(n) if axis == axes[-1] else torch.fft.fftfreq(n)
        shape = [-1 if k == axis else 1 for k in range(images.ndim)]
        transform *= torch.exp(-2 * (math.pi * deviation * wave) ** 2).to(images).reshape(shape)
    blurred: Tensor = torch.fft.irfftn(transform, s=images.shape[1:], dim=axes)
    return blurred
