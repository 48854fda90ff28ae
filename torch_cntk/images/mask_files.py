"""Which pixels are missing, read from image files of every kind that people paint masks in.

A mask is a picture in which white is known and black is missing. It may hold 0 and 1 in place of 0 and 255, palette
indices, colours, or strokes in its alpha channel; and its edges may be soft. Pixels that are a little black were
painted over a little: they count as missing unless a threshold says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.ImageColor
import scipy.ndimage
import torch
from torch import Tensor

from torch_cntk.images.decoding import Decoded, decode

__all__ = ["Mask", "find_mask", "grow", "parse_colour", "read_mask", "share"]

_LEVELS = 255
_EXACT, _LOSSY = 5, 25
"""Grey levels, of 255, within which a pixel is black or white: JPEG and its like blur both around edges."""
_CONTRAST = 26
"""Grey levels between the darkest and the brightest pixel below which many levels are noise around one."""
_NEAR_COLOUR = 64
"""Largest difference, of 255 in any channel, of a pixel that was painted in a colour: soft strokes differ."""
_BLACK_OR_WHITE = 0.5
"""Share of a mask's pixels that are nearly black or white; photographs are below."""
_NEARLY = 26
_MOST = 95
"""Percentile up to which, and from which down, levels count: a few stray pixels do not."""
_FEW = 16
"""Grey levels of a drawing at most, whose pixels may be anything between black and white; and colours of strokes."""
_FINE = 8
"""Parts of a grey level that are told apart: colours of a palette may differ by less than one."""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in grey (ITU-R BT.601), as Pillow takes them."""


@dataclass(frozen=True)
class Mask:
    """What a file says about which pixels are known.

    Attributes:
        observed: boolean [H, W], True = known.
        found: what the file holds, in words.
        soft: whether there are pixels between known and missing.
        reading: what was concluded, where that was not certain; else empty.
    """

    observed: Tensor
    found: str
    soft: bool = False
    reading: str = ""


def read_mask(
    path: str | Path,
    size: tuple[int, int],
    invert: bool = False,
    *,
    threshold: float | None = None,
    colour: str | None = None,
) -> Tensor:
    """Read which pixels are known from an image file: white is known, black is missing.

    Args:
        path: of an image as ``read_image`` takes it.
        size: height and width of the image that the mask belongs to.
        invert: take black as known and white as missing.
        threshold: grey level, of 255, from which on a pixel counts as white. By default all that is neither black nor
            white is missing.
        colour: the missing pixels are those of this colour, such as "red" or "#ff0000".

    Returns:
        boolean [H, W], True = known, as ``observed`` of ``torch_cntk.inpaint``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or is a folder.
        ValueError: the mask is not of that size, looks like a photograph, has no pixel of the colour, or is no image
            that ``read_image`` takes.
    """
    return find_mask(path, size, invert, threshold=threshold, colour=colour).observed


def find_mask(
    path: str | Path,
    size: tuple[int, int],
    invert: bool = False,
    *,
    threshold: float | None = None,
    colour: str | None = None,
    image: Tensor | None = None,
) -> Mask:
    """As ``read_mask``, with what was found in the file.

    Args:
        path: see there.
        size: see there.
        invert: see there.
        threshold: see there.
        colour: see there.
        image: [channels, H, W] in [0, 1]: a mask that is a copy of this image is what differs from it.

    Raises:
        ValueError: see there.
    """
    decoded = decode(Path(path), what="mask")
    height, width = decoded.values.shape[:2]
    if (height, width) != tuple(size):
        raise ValueError(
            f"expected a mask of {size[1]} x {size[0]} pixels (width x height) like the image, "
            f"got {width} x {height}: {path}"
        )
    if threshold is not None and not 0 <= threshold <= _LEVELS:
        raise ValueError(f"expected a threshold from 0 to {_LEVELS}, got {threshold:g}")
    if colour is not None:
        return _of_colour(decoded, colour, invert, path)
    copy = None if image is None or threshold is not None else _of_copy(decoded, image, invert, path)
    if copy is not None:
        return copy
    grey, layer = _grey_of(decoded)
    if threshold is not None:
        white = grey >= threshold
        return _mask(~white if invert else white, _levels_in_words(grey))
    return _of_grey(grey, layer, invert, _LOSSY if decoded.metadata.lossy else _EXACT, path)


def _mask(observed: np.ndarray, found: str, soft: bool = False, reading: str = "") -> Mask:
    return Mask(torch.from_numpy(np.ascontiguousarray(observed)), found, soft, reading)


def _levels(decoded: Decoded) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours [H, W, 1 or 3] and alpha [H, W], from 0 to 255."""
    values: np.ndarray = decoded.values.astype(np.float32)
    if decoded.metadata.real:
        # Real numbers go to 1, or are levels of 8 bits; what is none is missing.
        values = np.nan_to_num(values, nan=0.0)
        values = values * _LEVELS if values.max() <= 1 else values
    elif decoded.metadata.depth == 16:
        # Counts of a label image (0 and 1, say) are as few in 16 bits.
        values = values if values.max() <= _LEVELS else values / 257
    colours, alpha = (values[..., :-1], values[..., -1]) if decoded.alpha else (values, None)
    if colours.shape[2] == 4:  # inks
        colours = (_LEVELS - colours[..., :3]) * (_LEVELS - colours[..., 3:]) / _LEVELS
    return colours, alpha


def _grey_of(decoded: Decoded) -> tuple[np.ndarray, bool]:
    """The mask as grey [H, W], and whether it is the opacity of a layer painted in a few colours."""
    colours, alpha = _levels(decoded)
    grey = colours[..., 0] if colours.shape[2] == 1 else colours @ _GREY
    grey = (np.round(grey * _FINE) / _FINE).astype(np.float32)
    if alpha is None or np.ptp(alpha) == 0:
        return grey, False
    drawn = bool(((grey <= _EXACT) | (grey >= _LEVELS - _EXACT)).all())
    # Black and white with some alpha beside is black and white; all else with alpha was painted or erased there.
    if _one_colour(colours, alpha):
        return alpha, True
    return (grey, False) if drawn else (alpha, _few_colours(colours, alpha))


def _one_colour(colours: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether all that can be seen has one colour: the fainter a pixel, the more its colour was rounded."""
    seen = alpha > 0
    opacity = alpha[seen][:, None] / _LEVELS
    colour = (colours[seen] * opacity).sum(0) / opacity.sum()
    return bool((np.abs(colours[seen] - colour) * opacity <= _EXACT / 2).all())


def _few_colours(colours: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether what covers most has the few colours that strokes have, and photographs do not."""
    return len(np.unique(colours[alpha == alpha.max()], axis=0)) <= _FEW


def _of_grey(grey: np.ndarray, layer: bool, invert: bool, same: int, path: str | Path) -> Mask:
    """Black and white and what is between.

    Raises:
        ValueError: it looks like a photograph.
    """
    found = _levels_in_words(grey)
    levels = _levels_of(grey)
    low, high = levels[0], levels[-1]
    if len(levels) == 1 or (len(levels) > 2 and high - low < _CONTRAST):
        white = grey > _LEVELS / 2
        return _mask(~white if invert else white, found)
    extreme = float(((grey <= low + _NEARLY) | (grey >= high - _NEARLY)).mean())
    if len(levels) > _FEW and extreme < _BLACK_OR_WHITE:
        raise ValueError(
            f"expected a mask, got what looks like a photograph: {found}, of which {extreme:.0%} are nearly black or "
            f"white: {path}; a threshold (--mask-threshold) or a colour (--mask-color) says which pixels are missing"
        )
    near = min(same, (high - low) / 4)
    white, black = grey >= high - near, grey <= low + near
    if layer and not invert and white.mean() < 1 / 2:
        # Nobody paints what is to be kept: strokes on an empty layer are what is to go.
        reading = f"took the painted {_share(~black)} of {path} for missing"
        return _mask(black, "strokes on a transparent layer", bool((~white & ~black).any()), reading)
    return _mask(black if invert else white, found, bool((~white & ~black).any()))


def _of_copy(decoded: Decoded, image: Tensor, invert: bool, path: str | Path) -> Mask | None:
    """What was painted on a copy of the photograph; None if it is no copy.

    Raises:
        ValueError: it is the photograph itself.
    """
    colours, alpha = _levels(decoded)
    photograph = image.permute(1, 2, 0).float().numpy() * _LEVELS
    if photograph.shape[2] == 1 and colours.shape[2] == 3:  # red strokes make a copy of a grey photograph a colour one
        photograph = photograph.repeat(3, 2)
    if colours.shape != photograph.shape or decoded.metadata.lab or (alpha is not None and np.ptp(alpha) > 0):
        return None
    near = _LOSSY if decoded.metadata.lossy else _EXACT
    same = np.abs(colours - photograph).max(2) <= near
    # A mask agrees with a picture where both are white, say; a copy agrees in all levels.
    if same.mean() < 1 / 2 or np.subtract(*np.percentile(colours[same].mean(1), (_MOST, 100 - _MOST))) < _CONTRAST:
        return None
    if same.all():
        raise ValueError(f"expected a mask, or a copy of the photograph with strokes on it, got the photograph: {path}")
    reading = f"took what differs from the photograph ({_share(~same)} of {path}) for missing"
    return _mask(~same if invert else same, "a copy of the photograph", soft=True, reading=reading)


def _levels_of(grey: np.ndarray) -> np.ndarray:
    """Those that occur, in order."""
    return np.flatnonzero(np.bincount((grey * _FINE).round().astype(np.int64).ravel())) / _FINE


def _levels_in_words(grey: np.ndarray) -> str:
    levels = np.unique(_levels_of(grey).round().astype(int))
    if len(levels) <= 3:
        return f"grey level{'s' if len(levels) > 1 else ''} {' and '.join(map(str, levels))}"
    return f"{len(levels)} grey levels from {levels[0]} to {levels[-1]}"


def share(count: int, of: int) -> str:
    """How many pixels are meant, in percent where that is from 1 to 99."""
    text = f"{count / of:.0%}"
    return f"{count:,} pixel{'' if count == 1 else 's'}" if text in ("0%", "100%") else text


def _share(part: np.ndarray) -> str:
    return share(int(part.sum()), part.size)


def parse_colour(text: str) -> tuple[int, int, int]:
    """A colour from its name or as #rrggbb.

    Raises:
        ValueError: it is none.
    """
    try:
        red, green, blue = PIL.ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise ValueError(f"expected a colour such as red or #ff0000, got {text!r}") from error
    return int(red), int(green), int(blue)


def _of_colour(decoded: Decoded, colour: str, invert: bool, path: str | Path) -> Mask:
    """Pixels of a colour are missing.

    Raises:
        ValueError: there are none, or it is no colour.
    """
    wanted = parse_colour(colour)
    colours, alpha = _levels(decoded)
    distance = np.abs(colours - (wanted if colours.shape[2] == 3 else np.dot(wanted, _GREY))).max(2)
    painted = distance <= _NEAR_COLOUR
    if alpha is not None:
        painted &= alpha > 0
    if not painted.any():
        row, column = np.unravel_index(int(distance.argmin()), distance.shape)
        nearest = ", ".join(str(round(float(level))) for level in colours[row, column])
        raise ValueError(f"expected pixels of the colour {colour} in {path}, got none; the nearest is ({nearest})")
    reading = ""
    if decoded.metadata.lossy:
        reading = (
            f"took {_share(painted)} of {path} for {colour}; {decoded.metadata.lossy} fades thin strokes, which may be "
            "left: paint on a PNG or TIFF copy"
        )
    soft = bool((distance[painted] > 0).any())
    return _mask(painted if invert else ~painted, f"pixels of the colour {colour}", soft, reading)


def grow(observed: Tensor, steps: int, *, least: float = 0.0) -> tuple[Tensor, int]:
    """Let the missing part grow, as what was there may have bled into its neighbours.

    Args:
        observed: boolean [H, W], True = known.
        steps: pixels to grow by, in each direction.
        least: share of the known pixels that must be left; it grows by fewer steps otherwise.

    Returns:
        the new mask, and the number of steps.
    """
    known = int(observed.sum())
    if known in (0, observed.numel()):
        return observed, 0
    distance = scipy.ndimage.distance_transform_cdt(observed.numpy(), "chessboard")
    for reach in range(min(steps, int(distance.max())), 0, -1):
        left = int((distance > reach).sum())
        if left >= least * known and left > 0:
            return torch.from_numpy(distance > reach), reach
    return observed, 0
