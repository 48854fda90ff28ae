"""Made-up ratings: what a user thinks of an item is a smooth function of where both lie on a plane of tastes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["made_up_ratings"]


def made_up_ratings(
    generator: torch.Generator, users: int = 100, items: int = 120, share: float = 0.15
) -> tuple[Tensor, Tensor, Tensor]:
    """Ratings of 1 to 5 stars in halves.

    Returns:
        the true ratings of all entries [users, items] in float64, which of them are known, and where the items lie,
        [items, 2].
    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    places, tastes = draw(items, 2), draw(users, 2)
    nearness = torch.exp(-torch.cdist(tastes, places).square() / 2)
    mean = 2.7 + 0.4 * draw(users, 1) + 0.4 * draw(1, items) + 2.5 * nearness
    stars = ((mean + 0.3 * draw(users, items)) * 2).round().clamp(2, 10) / 2
    known = torch.rand(users, items, generator=generator) < share
    return stars, known, places
