"""Which observed pixels are left out to try something: scattered ones, or copies of the mask's holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk.images.masks import has_holes, reach
from torch_cntk.images.observed import as_mask

__all__ = [
    "UNUSUAL_SEED",
    "checked_mask",
    "copies_of_holes",
    "fullest",
    "leave_out_error",
    "moved_holes",
    "near_copies",
    "parts_left_out",
    "parts_with_near_copies",
]

_CROP = 80 * 80
"""Pixels of a part of the image on which settings are tried out."""
_CROPS = 4
_LEFT_OUT = 0.05
"""Share of the observed pixels that are left out, if that makes ``_FEWEST`` of them; twice it otherwise."""
_FEWEST = 1000
_PLACES = 8
"""Parts of the image, along each axis, by one or more of which holes are moved."""
_DISTANCES, _DIRECTIONS = (1.15, 1.4, 1.8, 2.3, 3.0), 16
"""Of near copies, in a hole's extents."""
_BETWEEN = 2
"""Pixels between the boxes of a hole and its copy."""
_APART = 0.7
"""Extents of the hole between its copies."""
_LEAST_KNOWN = 0.9
"""Share of the copy's pixels: another hole may meet it."""
UNUSUAL_SEED = 0x5EED_0FF5
"""Of the pixels that are left out. Not a usual one: a mask drawn with the same would hide just these pixels."""


def leave_out_error(image: Tensor, observed: Tensor, fill: Callable[[Tensor, Tensor], Tensor]) -> float:
    """How well a way to fill images predicts observed pixels that are left out: to compare kernels on one's own image.

    Scattered pixels are left out, or copies of the mask's holes, as in ``trials``; always the same ones.

    Args:
        image: [channels, *size].
        observed: boolean, True = known, [*size]. Pixels that are not observed are not looked at.
        fill: gives the filled image of an image, or a part of it, and its mask.

    Returns:
        the mean squared error.

    Raises:
        TypeError: the image is no tensor, or the mask not boolean.
        ValueError: shapes do not fit, or too few pixels are observed to leave out any.
    """
    observed = checked_mask(image, observed)
    errors, count = 0.0, 0
    for part, left_out in parts_left_out(observed, has_holes(observed)):
        pixels, seen = image[(slice(None), *part)], observed[part] & ~left_out
        filled = fill(torch.where(seen, pixels, 0), seen)
        errors += float((filled - pixels)[:, left_out].double().square().sum())
        count += len(image) * int(left_out.sum())
    if not count:
        raise ValueError(f"expected observed pixels enough to leave out some, got {int(observed.sum())}")
    return errors / count


def checked_mask(image: Tensor, observed: Tensor) -> Tensor:
    """The mask [*size] of one image [channels, *size].

    Raises:
        TypeError: the image is no tensor, or the mask not boolean.
        ValueError: shapes do not fit.
    """
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"expected the image as a torch tensor, got {type(image).__name__}")
    observed = as_mask(observed)
    if image.ndim != observed.ndim + 1 or image.shape[1:] != observed.shape:
        raise ValueError(f"expected an image [channels, *{tuple(observed.shape)}], got {tuple(image.shape)}")
    return observed


_Part = tuple[tuple[slice, ...], Tensor]
"""Part of an image, and which of its observed pixels are left out."""


def parts_left_out(observed: Tensor, holes: bool) -> list[_Part]:
    """Parts of an image to try something on, and which of their observed pixels to leave out, scattered or in holes."""
    if not holes:
        return _scattered_trials(observed)
    return _parts_with(copies_of_holes(observed, ~observed)[:2], observed, reach(observed))


def _scattered_trials(observed: Tensor) -> list[_Part]:
    """Random pixels in some parts of the image, spread over it."""
    size, ndim = tuple(observed.shape), observed.ndim
    side = round(_CROP ** (1 / ndim))
    whole = math.prod(size) <= _CROP * _CROPS
    generator = torch.Generator().manual_seed(UNUSUAL_SEED)
    trials = []
    places = [tuple(slice(n) for n in size)] if whole else [_part(size, side, k) for k in range(_CROPS)]
    known = sum(int(observed[part].sum()) for part in places)
    share = min(max(_LEFT_OUT, _FEWEST / max(known, 1)), 2 * _LEFT_OUT)
    for part in places:
        mask = observed[part]
        draw = torch.rand(mask.shape, generator=generator).to(mask.device)
        left_out = mask & (draw < share)
        # Something must be left to fill from.
        if bool(left_out.any()) and bool((mask & ~left_out).any()):
            trials.append((part, left_out))
    return trials


def _part(size: tuple[int, ...], side: int, number: int) -> tuple[slice, ...]:
    """One of ``_CROPS`` parts, their middles at odd multiples of an eighth along the first axis, turned on others."""
    order = [0, 2, 1, 3]
    parts = []
    for axis, n in enumerate(size):
        place = (number if axis == 0 else order[number]) * 2 + 1
        length = min(side, n)
        start = min(max(place * n // (2 * _CROPS) - length // 2, 0), n - length)
        parts.append(slice(start, start + length))
    return tuple(parts)


def parts_with_near_copies(observed: Tensor, holes: Tensor) -> list[_Part]:
    """As ``parts_left_out``, of copies of holes [H, W] that lie beside them."""
    return _parts_with(near_copies(observed, holes), observed, reach(~holes))


def _parts_with(copies: list[Tensor], observed: Tensor, remotest: int) -> list[_Part]:
    """Of copies of holes in several places, for each the part of the image with most of them."""
    size, ndim = tuple(observed.shape), observed.ndim
    # A hole and what is around it.
    side = max(round((_CROP * _CROPS) ** (1 / ndim)), 6 * remotest)
    trials = []
    for left_out in copies:
        part = fullest(left_out, tuple(min(side, n) for n in size))
        if bool(left_out.any()) and bool((observed & ~left_out)[part].any()):
            trials.append((part, left_out[part]))
    return trials


def moved_holes(known: Tensor, holes: Tensor, shift: Sequence[int]) -> Tensor:
    """What is known where holes [*size] are after they are moved, across the border too."""
    return known & holes.roll(tuple(shift), tuple(range(known.ndim)))


def copies_of_holes(known: Tensor, holes: Tensor) -> list[Tensor]:
    """What is known where holes are after they are moved by parts of the image; those with most of it first."""
    shifts = ([n * part // _PLACES for n in known.shape] for part in range(1, _PLACES))
    copies = [moved_holes(known, holes, shift) for shift in shifts]
    return sorted(copies, key=lambda left_out: int(left_out.sum()), reverse=True)


def near_copies(known: Tensor, holes: Tensor) -> list[Tensor]:
    """What is known where each hole is after it is moved to a place beside it, whole; in two ways, as far as it can be.

    Args:
        known: boolean [H, W].
        holes: boolean [H, W].
    """
    seen = known.cpu().numpy()
    labels, count = scipy.ndimage.label(holes.cpu().numpy(), np.ones((3, 3)))
    copies = [np.zeros_like(seen) for _ in range(2)]
    for hole in range(1, count + 1):
        rows, columns = np.nonzero(labels == hole)
        for copy, (down, right) in zip(copies, _beside(seen, rows, columns), strict=False):
            copy[rows + down, columns + right] = True
    return [torch.from_numpy(copy & seen).to(known.device) for copy in copies]


def _beside(known: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> list[tuple[int, int]]:
    """Two moves of a hole's pixels to where nearly all is known, those with most of it and the nearest ones first."""
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    found = []
    for times, angle in product(_DISTANCES, np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS):
        down, right = round(times * height * np.sin(angle)), round(times * width * np.cos(angle))
        at, across = rows + down, columns + right
        inside = min(at.min(), across.min()) >= 0 and at.max() < known.shape[0] and across.max() < known.shape[1]
        if inside and (abs(down) >= height + _BETWEEN or abs(right) >= width + _BETWEEN):
            share = float(known[at, across].mean())
            if share >= _LEAST_KNOWN:
                found.append((-share, math.hypot(down, right), down, right))
    moves: list[tuple[int, int]] = []
    for _, _, down, right in sorted(found):
        if all(max(abs(down - a) / height, abs(right - b) / width) >= _APART for a, b in moves):
            moves.append((down, right))
    return moves[:2]


def fullest(mask: Tensor, sides: tuple[int, ...]) -> tuple[slice, ...]:
    """The box of these sides in which the mask is true most often."""
    counts = mask.double()
    for axis, side in enumerate(sides):
        sums = torch.cat([torch.zeros_like(counts.narrow(axis, 0, 1)), counts.cumsum(axis)], axis)
        rest = counts.shape[axis] - side + 1
        counts = sums.narrow(axis, side, rest) - sums.narrow(axis, 0, rest)
    corner = torch.unravel_index(counts.argmax(), counts.shape)
    return tuple(slice(int(start), int(start) + side) for start, side in zip(corner, sides, strict=True))
