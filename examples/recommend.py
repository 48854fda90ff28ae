"""Recommendation from clicks: the infinite autoencoder beside popularity and a linear autoencoder.

    python examples/recommend.py ratings.csv --least 4
    python examples/recommend.py ratings.dat --separator :: --header none

The file has a line for each rating: user, item, rating (the first three columns, whatever they are called; without a
third one, each line is a click). Ratings of at least ``--least`` count as clicks. A share of each user's clicks is held
out, and the lists of ten are judged by what they find of it. Without a file, made-up clicks are taken.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import torch_cntk as tc
from torch_cntk.matrices import held_out_clicks
from torch_cntk.matrices.ranking import judged

EASE_RIDGES = (10.0, 100.0, 300.0, 1000.0)


def made_up(users: int = 200, items: int = 80) -> pd.DataFrame:
    """Users who click what lies near them on a plane of tastes."""
    generator = torch.Generator().manual_seed(0)
    tastes, places = (torch.randn(n, 2, generator=generator) for n in (users, items))
    liking = 5 * torch.exp(-2 * torch.cdist(tastes, places).square()) + 0.5 * torch.randn(items, generator=generator)
    clicked = (torch.rand(users, items, generator=generator) < torch.sigmoid(liking - 3)).nonzero()
    return pd.DataFrame(clicked.numpy(), columns=["user", "item"])


def read(path: Path, separator: str, header: str) -> pd.DataFrame:
    engine = "python" if len(separator) > 1 else None
    frame = pd.read_csv(path, sep=separator, header=None if header == "none" else 0, engine=engine)
    return frame.iloc[:, :3].set_axis(["user", "item", "rating"][: min(frame.shape[1], 3)], axis=1)


def ease(clicks: torch.Tensor, ridge: float) -> torch.Tensor:
    """Scores of the linear autoencoder with an empty diagonal (Steck 2019)."""
    rows = clicks.double()
    inverse = torch.linalg.inv(rows.T @ rows + ridge * torch.eye(rows.shape[1], dtype=rows.dtype))
    weights = -inverse / inverse.diagonal()
    weights.fill_diagonal_(0)
    scores: torch.Tensor = rows @ weights
    return scores


def best(scores: torch.Tensor, clicks: torch.Tensor, k: int) -> torch.Tensor:
    return scores.masked_fill(clicks, -torch.inf).topk(k, dim=1).indices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path, nargs="?", help="user, item, rating; made-up clicks by default")
    parser.add_argument("--separator", default=",", help="between columns")
    parser.add_argument("--header", choices=("first", "none"), default="first", help="whether there is a line of names")
    parser.add_argument("--least", type=float, default=0.0, help="ratings from which on a line counts as a click")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of each user's clicks")
    parser.add_argument("-k", type=int, default=10, help="length of the lists")
    parser.add_argument("--user", help="whose list to print; the first one's by default")
    options = parser.parse_args()
    frame = made_up() if options.ratings is None else read(options.ratings, options.separator, options.header)
    if "rating" in frame:
        frame = frame[frame["rating"] >= options.least]
    users, items = (pd.Categorical(frame[name].astype(str)) for name in ("user", "item"))
    clicks = torch.zeros(len(users.categories), len(items.categories), dtype=torch.bool)
    clicks[np.array(users.codes, dtype=int), np.array(items.codes, dtype=int)] = True

    known, hidden = held_out_clicks(clicks, options.held_out)
    k = min(options.k, clicks.shape[1])
    print(f"{clicks.shape[0]} users, {clicks.shape[1]} items, {int(known.sum())} clicks to learn from")
    print(f"{'':32s}{f'nDCG@{k}':>10s}{f'HR@{k}':>10s}{'seconds':>10s}")
    popular = known.double().mean(0).expand(known.shape)
    rows = [("popularity", judged(best(popular, known, k), hidden), 0.0)]
    start = time.perf_counter()
    inner, inside = held_out_clicks(known, 0.2, seed=1)
    ridge = max(EASE_RIDGES, key=lambda ridge: judged(best(ease(inner, ridge), inner, k), inside).ndcg)
    rows.append(("EASE", judged(best(ease(known, ridge), known, k), hidden), time.perf_counter() - start))
    start = time.perf_counter()
    table = pd.DataFrame(known.numpy(), index=users.categories, columns=items.categories)
    model = tc.InfiniteAutoencoder().fit(table)
    rows.append(("infinite autoencoder", model.evaluate(hidden, k), time.perf_counter() - start))
    for name, ranking, seconds in rows:
        print(f"{name:32s}{ranking.ndcg:10.4f}{ranking.hit_rate:10.4f}{seconds:10.1f}")
    user = str(users.categories[0] if options.user is None else options.user)
    print(f"user {user} will like {', '.join(map(str, model.recommend(user, k)))}")


if __name__ == "__main__":
    main()
