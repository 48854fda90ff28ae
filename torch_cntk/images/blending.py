"""How much of a patch fill a picture's thick holes get: what predicts left-out copies of them best.

Where textures go on, patches are close; where something unique is missing, the kernel's blur is the better guess. On
the mean of many photographs a share of 0.6 errs least. Copies of the holes tell whether another one suits this picture:
copies beside the holes, as what lies far away is another texture, and chose worse shares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.dealing import by_rank
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.fill import fill
from torch_cntk.images.leaving_out import parts_with_near_copies
from torch_cntk.images.masks import thick
from torch_cntk.images.observed import Observed
from torch_cntk.images.patch_fill import PatchFill

__all__ = ["choose_blend"]

_BLENDS = (0.3, 0.6, 1.0)
"""Shares of the patches to choose from."""
_GAIN = 0.1
"""Another share than the usual one must lower the error by so much: copies are few, and lie elsewhere."""
_FEWEST = 20
"""Left-out pixels, of which fewer say little."""


def choose_blend(
    given: Observed,
    observed: Tensor,
    first: Callable[[Observed], Tensor],
    *,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> tuple[float, str]:
    """Choose the ``blend`` of ``PatchFill`` by filling copies of the thick holes, in two places beside each.

    Each place is filled once by the kernel and once from patches: all blends are between the two.

    Args:
        given: one image, of which nothing but thick holes is missing.
        observed: boolean [H, W], which of its pixels are not only taken as known.
        first: gives the first estimate of a part of the image.
        progress: whether to show a bar.
        mesh: ranks that divide the places.

    Returns:
        the share, and why in words.
    """
    usual = PatchFill().blend
    ranks = mesh or Mesh.alone()
    places = parts_with_near_copies(observed, ~given.single_mask)
    # Squares of the differences must stay finite, and not vanish.
    unit = float(given.scale.max()) or 1.0

    with tqdm(total=len(places), disable=not progress, desc="trying blends", unit="place", leave=False) as bar:

        def errors(place: tuple[tuple[slice, ...], Tensor]) -> list[float]:
            found = _errors(given, place, first, unit)
            bar.update()
            return found

        found = by_rank(ranks, errors, places)
    total = torch.tensor(found, dtype=torch.float64).reshape(-1, 1 + len(_BLENDS)).sum(0)
    if total[0] < _FEWEST:
        return usual, "copies of the holes fit nowhere, to try other shares"
    of_share = dict(zip(_BLENDS, total[1:].tolist(), strict=True))
    best = min(_BLENDS, key=lambda share: of_share[share])
    if of_share[best] >= (1 - _GAIN) * of_share[usual]:
        return usual, "no other share predicted left-out copies of the holes clearly better"
    less = 1 - of_share[best] / of_share[usual]
    return best, f"left-out copies of the holes had {less:.0%} less squared error than at {usual:g}"


def _errors(
    given: Observed, place: tuple[tuple[slice, ...], Tensor], first: Callable[[Observed], Tensor], unit: float
) -> list[float]:
    """How many pixels of thick holes are left out in a part of the image, and their squared error by each share."""
    box, left_out = place
    part = given.part(box, left_out)
    known = part.single_mask
    judged = left_out & thick(known)
    if not bool(judged.any()) or int((~known).sum()) > int(known.sum()):
        # In the second case patches would be copies of copies.
        return [0.0] * (1 + len(_BLENDS))
    blurred = first(part)
    sharp = fill(part, PatchFill(blend=1.0), blurred).image
    truth, blurred, sharp = (
        one.reshape(-1, *known.shape)[:, judged].double() / unit
        for one in (given.pixels[(slice(None), slice(None), *box)], blurred, sharp)
    )
    squares = [float((blurred + share * (sharp - blurred) - truth).square().sum()) for share in _BLENDS]
    return [float(judged.sum()), *squares]
