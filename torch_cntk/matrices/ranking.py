"""What a ranking is worth: clicks are held out, and are found among the first of the list or not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int

__all__ = ["Ranking", "held_out_clicks", "judged"]


@dataclass(frozen=True)
class Ranking:
    """Scores of the first ``k`` recommendations, as means over users with held-out clicks.

    Attributes:
        k: length of the lists.
        ndcg: normalised discounted cumulative gain (Järvelin & Kekäläinen 2002): held-out items count 1 / log2(1 +
            place), relative to the best list possible.
        hit_rate: share of the held-out items that are in the list; of at most k of them (as published for infinite
            autoencoders, where it is called HR).
        hits: share of users whose list has at least one.
        users: how many have held-out clicks.
    """

    k: int
    ndcg: float
    hit_rate: float
    hits: float
    users: int


def held_out_clicks(clicks: Tensor, share: float = 0.2, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split clicks into those to learn from and those to find.

    Args:
        clicks: boolean [users, items].
        share: of each user's clicks, to hold out. Each user keeps one, and users with one click lose none.
        seed: of the draw.

    Returns:
        the clicks to learn from and those that are held out, boolean [users, items].

    Raises:
        TypeError: the clicks are not boolean.
        ValueError: the share is not between 0 and 1.
    """
    if clicks.dtype != torch.bool:
        raise TypeError(f"expected boolean clicks, got {clicks.dtype}")
    if not 0 < share < 1:
        raise ValueError(f"expected the share to hold out between 0 and 1, got {share}")
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(clicks.shape, generator=generator, dtype=torch.float64).to(clicks.device)
    counts = clicks.sum(1, keepdim=True)
    wanted = torch.minimum((share * counts).ceil(), (counts - 1).clamp_min(0))
    # The places of each user's clicks in a random order, counted from 0.
    places = draw.where(clicks, torch.inf).argsort(dim=1).argsort(dim=1)
    hidden = clicks & (places < wanted)
    return clicks & ~hidden, hidden


def judged(recommended: Tensor, held_out: Tensor) -> Ranking:
    """Compare recommendations with held-out clicks.

    Args:
        recommended: items of each user, the best first, [users, k]; -1 where there is none.
        held_out: boolean [users, items].

    Returns:
        the scores; NaN if nobody has a held-out click.

    Raises:
        ValueError: there are no items in the lists, or not one list for each user.
    """
    k = positive_int(recommended.shape[1], "the length of the lists")
    if len(recommended) != len(held_out):
        raise ValueError(f"expected a list for each of {len(held_out)} users, got {len(recommended)}")
    found = held_out.gather(1, recommended.clamp_min(0)) & (recommended >= 0)
    counts = held_out.sum(1)
    tested = counts > 0
    gains = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64, device=found.device))
    most = counts.clamp(1, k)
    ndcg = (found * gains).sum(1) / gains.cumsum(0)[most - 1]
    share = found.sum(1) / most
    quality, rate, hits = (float(score.double()[tested].mean()) for score in (ndcg, share, found.any(1)))
    return Ranking(k, quality, rate, hits, int(tested.sum()))
