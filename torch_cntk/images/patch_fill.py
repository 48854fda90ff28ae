"""Fill thick holes from patches elsewhere in the picture, coarse to fine.

A deep kernel blurs in a hole that is much thicker than what it looks at. Here each patch in the hole is predicted by
kernel regression on the known patches that are most like it, with a sharp kernel, D^-s of the squared distance D, whose
shares are then fitted to the patch by least squares (as in Roweis and Saul, Nonlinear dimensionality reduction by
locally linear embedding, 2000); patches that overlap are averaged. That is repeated: each round compares patches by
what the last one filled, less the deeper in the hole they lie. It begins in a smaller picture, in which the hole is
some eight pixels thick, and goes on from its matches in the next larger one (Wexler, Shechtman and Irani, Space-time
completion of video, 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk.images.how import How
from torch_cntk.images.masks import THIN, has_holes
from torch_cntk.images.observed import Observed
from torch_cntk.images.patches import Level

__all__ = ["PatchFill", "thick_holes"]

_START = 8.0
"""Pixels across of the hole in the smallest picture."""
_MOST_LEVELS = 6
_AROUND = 3
"""Times a hole's thickness is looked at around it, and at least ``_LEAST_AROUND`` pixels."""
_LEAST_AROUND = 64
_ROUNDS = (16, 6)
"""In the smallest picture, and in each larger one."""
_SHARPNESS = (1.0, 4.0)
"""The power s in the smallest picture and in the largest one."""
_TEXTURE = 2.0
"""Weight of the local mean of |dx| and |dy| beside the picture's values."""
_TEXTURE_WIDTH = 17
"""Pixels of that mean."""


@dataclass(frozen=True)
class PatchFill:
    """A pass that fills holes of more than eight pixels across from patches around them. Others stay as they are.

    Args:
        blend: share of the patches' result; the rest is the estimate's. 0.6 has the least error on photographs, 1 looks
            sharpest.
        side: of a patch in pixels.
        neighbours: known patches that each patch is predicted from.
        seed: of the places that are tried at random.

    Raises:
        TypeError: a setting is no number.
        ValueError: a setting is out of range.
    """

    blend: float = 0.6
    side: int = 7
    neighbours: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not finite_number(self.blend, "blend", minimum=0) <= 1:
            raise ValueError(f"expected blend to be at most 1, got {self.blend}")
        positive_int(self.side, "side")
        positive_int(self.neighbours, "neighbours")
        if positive_int(self.seed, "seed", least=0) >= 2**63:
            raise ValueError(f"expected a seed below 2^63, got {self.seed}")

    def refine(self, given: Observed, estimate: Tensor) -> Tensor:
        """Fill the thick holes of images.

        Args:
            given: what is known.
            estimate: [batch, channels, H, W], in its units.

        Returns:
            of the same shape.

        Raises:
            ValueError: it is a signal or a video.
        """
        return self.refine_by(How(), given, estimate)

    def refine_by(self, how: How, given: Observed, estimate: Tensor) -> Tensor:
        """See ``Governed``: with a bar of the rounds.

        Raises:
            ValueError: it is a signal or a video.
        """
        if given.ndim != 2:
            got = "a signal" if given.ndim == 1 else "a video"
            raise ValueError(f"expected an image for PatchFill, which compares patches of two dimensions, got {got}")
        images = given.each_in_one_unit(estimate)
        with tqdm(total=0, disable=not how.progress, desc="patches", unit="round", leave=False) as bar:
            filled = [self._filled(one, start, bar) for one, start in images]
        return given.from_one_unit(torch.stack(filled))

    def _filled(self, given: Observed, estimate: Tensor, bar: tqdm) -> Tensor:
        """One image, [channels, H, W]."""
        known = given.single_mask
        holes = thick_holes(known)
        if not holes:
            return estimate
        values = given.pixels[0][:, known]
        unit = float(values.max() - values.min()) or 1.0
        inside = torch.zeros_like(known)
        for hole in holes:
            inside |= hole.mask_in(known)
        holes = _together(holes, inside)
        picture = torch.where(known, given.pixels[0], estimate)
        result = picture.clone()
        scales = [_scales(~inside[hole.around]) for hole in holes]
        bar.total += sum(_ROUNDS[0] + _ROUNDS[1] * (len(of_hole) - 1) for of_hole in scales)
        for hole, of_hole in zip(holes, scales, strict=True):
            place = (slice(None), *hole.around)
            made = _from_patches(picture[place].float() / unit, ~inside[hole.around], of_hole, self, bar)
            if made is not None:
                mixed = picture[place] + self.blend * (made.to(picture.dtype) * unit - picture[place])
                result[place] = torch.where(hole.mask, mixed, result[place])
        return result


@dataclass(frozen=True, eq=False)
class Hole:
    """A thick hole, or several that are filled together.

    Attributes:
        around: the box of the picture that is looked at.
        mask: boolean, which pixels of the box are the hole's.
    """

    around: tuple[slice, ...]
    mask: Tensor

    def mask_in(self, whole: Tensor) -> Tensor:
        """The mask in a picture of the size of ``whole``."""
        mask = torch.zeros_like(whole)
        mask[self.around] = self.mask
        return mask


def thick_holes(known: Tensor) -> list[Hole]:
    """Connected missing pixels that are more than ``THIN`` across somewhere; none where pixels are missing at random.

    Args:
        known: boolean [H, W].
    """
    if not has_holes(known):
        return []
    missing = ~known.cpu().numpy()
    # Beyond the border nothing is known either, but the hole is no thicker for it.
    distance = scipy.ndimage.distance_transform_cdt(missing, "chessboard")
    labels, count = scipy.ndimage.label(missing, np.ones((3, 3)))
    depths = np.atleast_1d(scipy.ndimage.maximum(distance, labels, np.arange(1, count + 1)))
    boxes = scipy.ndimage.find_objects(labels)
    holes = []
    for number, (depth, box) in enumerate(zip(depths, boxes, strict=True), start=1):
        if 2 * depth - 1 > THIN:
            room = max(int(_AROUND * 2 * depth), _LEAST_AROUND)
            around = tuple(
                slice(max(part.start - room, 0), min(part.stop + room, n))
                for part, n in zip(box, missing.shape, strict=True)
            )
            mask = torch.from_numpy(labels[around] == number).to(known.device)
            holes.append(Hole(around, mask))
    return holes


def _together(holes: list[Hole], inside: Tensor) -> list[Hole]:
    """Holes that are filled at once, as that is less work: in a box, all that is missing there is filled anyhow.

    Args:
        holes: thick ones.
        inside: boolean [H, W], which pixels are any hole's.
    """

    def work(around: tuple[slice, ...]) -> int:
        """Patches to fill times patches to compare them with."""
        return int(inside[around].sum()) * inside[around].numel()

    together: list[Hole] = []
    for one in holes:
        hole, others = one, together
        while others:
            other, *others = others
            around = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop))
                for a, b in zip(hole.around, other.around, strict=True)
            )
            if work(around) <= work(hole.around) + work(other.around):
                together.remove(other)
                mask = (hole.mask_in(inside) | other.mask_in(inside))[around]
                hole, others = Hole(around, mask), together
        together.append(hole)
    return together


def _scales(known: Tensor) -> range:
    """Halvings of the picture, the smallest picture first, in which the hole is some eight pixels thick."""
    thickness = 2 * float(scipy.ndimage.distance_transform_edt(~known.cpu().numpy()).max())
    coarsest = min(max(0, math.ceil(math.log2(thickness / _START))), _MOST_LEVELS)
    return range(coarsest, -1, -1)


def _from_patches(picture: Tensor, known: Tensor, scales: range, settings: PatchFill, bar: tqdm) -> Tensor | None:
    """Fill what is not known, from an estimate; None where no patch is known.

    Args:
        picture: [channels, H, W], values of about 1; the estimate where not known.
        known: boolean [H, W].
        scales: see ``_scales``.
        settings: of patches.
        bar: of the rounds.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    texture = _TEXTURE * _texture(picture, known)
    before: Level | None = None
    for scale in scales:
        factor = 2**scale
        level = _level(picture, known, texture, factor, settings)
        if level is None:
            # Holes that nearly fill the box leave no known patch in a small picture; in a larger one they may.
            continue
        share = 1 - scale / max(scales[0], 1)
        sharpness = _SHARPNESS[0] + (_SHARPNESS[1] - _SHARPNESS[0]) * share
        level.match(before, _ROUNDS[0 if before is None else 1], sharpness, generator, bar.update)
        before = level
    return None if before is None or before.factor != 1 else before.filled[: len(picture)]


def _level(picture: Tensor, known: Tensor, texture: Tensor, factor: int, settings: PatchFill) -> Level | None:
    """The picture by block means, or None if no patch of it is known."""
    share = _smaller(known[None].float(), factor)[0]
    observed = _smaller(torch.where(known, picture, 0), factor) / share.clamp_min(1e-6)
    seen = share >= 0.5
    values = torch.where(seen, observed, _smaller(picture, factor))
    if min(seen.shape) < settings.side:
        return None
    features = torch.cat([values, _smaller(texture, factor)])
    level = Level(features, seen, settings.side, settings.neighbours, factor)
    return level if len(level.sources) and len(level.targets) else None


def _smaller(images: Tensor, factor: int) -> Tensor:
    """Block means of [channels, H, W]; the last row and column are repeated to fill blocks."""
    if factor == 1:
        return images
    pads = (0, -images.shape[2] % factor, 0, -images.shape[1] % factor)
    padded = torch.nn.functional.pad(images[None], pads, mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, factor)[0]


def _texture(picture: Tensor, known: Tensor) -> Tensor:
    """Local means of |dx| and |dy| of the grey picture, over neighbours that are both known, [2, H, W]."""
    grey = picture.mean(0)
    textures = []
    for axis in (1, 0):
        change = grey.diff(dim=axis, append=grey.narrow(axis, -1, 1)).abs()
        both = known & known.roll(-1, axis)
        both.narrow(axis, -1, 1).fill_(False)
        kept = both.float()
        textures.append(_mean_around(change * kept) / _mean_around(kept).clamp_min(1e-4))
    return torch.stack(textures)


def _mean_around(values: Tensor) -> Tensor:
    pad = _TEXTURE_WIDTH // 2
    return torch.nn.functional.avg_pool2d(values[None], _TEXTURE_WIDTH, 1, pad)[0]
