"""Collaborative filtering with features of the items.

    python examples/ratings.py ratings.csv --items items.csv --text title genres

The ratings are a table with the columns user, item and rating; the items one whose first column is the item and whose
others are numbers, categories or, by name, text. Without files, made-up ratings are taken. A share of the ratings is
held out, and all ratings of a share of the items: nobody has rated those, and only features can tell.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

import torch_cntk as tc
from torch_cntk import baselines


def made_up(users: int = 80, items: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users who like some genres and dislike others, and rate a third of the items."""
    generator = torch.Generator().manual_seed(0)
    genres = torch.rand(items, 5, generator=generator) < 0.4
    liking = torch.randn(users, 5, generator=generator)
    rating = 3 + liking @ genres.float().T + 0.5 * torch.randn(users, items, generator=generator)
    known = (torch.rand(users, items, generator=generator) < 1 / 3).nonzero()
    ratings = pd.DataFrame(known.numpy(), columns=["user", "item"])
    ratings["rating"] = rating[tuple(known.T)].numpy()
    names = ("drama", "comedy", "crime", "war", "music")
    words = [", ".join(name for name, has in zip(names, row, strict=True) if has) for row in genres.tolist()]
    return ratings, pd.DataFrame({"genres": words})


def center(table: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is left of the ratings after the means of users and items, and those means for all entries."""
    mean = table[known].mean()
    left = torch.where(known, table - mean, 0)
    # A few imaginary ratings at the mean keep users and items with few ratings near it.
    users = left.sum(1, keepdim=True) / (known.sum(1, keepdim=True) + 5)
    items = torch.where(known, left - users, 0).sum(0) / (known.sum(0) + 5)
    means = mean + users + items
    return torch.where(known, table - means, 0), means


def best_on_validation(
    fit: Callable[..., torch.Tensor], options: list[dict], left: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """The fit whose options predict a tenth of what is known best."""
    hidden = known & (torch.rand(known.shape, generator=torch.Generator().manual_seed(1)) < 0.1)
    errors = [float((fit(left, known & ~hidden, **choice) - left)[hidden].square().mean()) for choice in options]
    return fit(left, known, **options[min(range(len(options)), key=errors.__getitem__)])


def kernel(left: torch.Tensor, known: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Each user's rating as a function of the item's features, and factors of what those cannot tell."""
    constant = torch.ones(len(features), 1, dtype=features.dtype)
    alike = tc.features.concatenate(tc.features.unit(features), constant, weights=(1, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # users without a rating keep the mean
        model = tc.MatrixCompletion(1, ridge="cv", center=False).fit(left, known, alike)
    # What is left of a rating is what the user's other ratings did not tell: of ratings to come it will be no less.
    told = torch.where(known, model.left_out(), model.predict())
    rest = torch.where(known, left - told, 0)
    factors = best_on_validation(baselines.matrix_factorisation, FACTORS, rest, known)
    completed: torch.Tensor = told + factors
    return completed


SHRINKAGES = [{"shrinkage": value} for value in (1.0, 2.0, 4.0, 8.0, 16.0)]
FACTORS = [{"rank": rank, "ridge": ridge} for rank in (2, 5) for ridge in (0.03, 0.1, 0.3, 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path, nargs="?", help="CSV with user, item, rating; made-up ones by default")
    parser.add_argument("--items", type=Path, help="CSV of the items' features")
    parser.add_argument("--text", nargs="+", default=["genres"], help="columns of the items that hold text")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the ratings, and of the items")
    options = parser.parse_args()
    if options.ratings is None:
        ratings, items = made_up()
    else:
        ratings, items = pd.read_csv(options.ratings), pd.read_csv(options.items, index_col=0)
    frame = ratings.pivot_table(index="user", columns="item", values="rating")
    table = torch.from_numpy(frame.to_numpy(dtype="float64", copy=True))
    features = tc.features.TableEncoder(text=options.text).fit_transform(items.loc[frame.columns])

    generator = torch.Generator().manual_seed(0)
    rated = ~torch.isnan(table)
    new_items = torch.rand(table.shape[1], generator=generator) < options.held_out
    single = rated & ~new_items & (torch.rand(table.shape, generator=generator) < options.held_out)
    known = rated & ~new_items & ~single
    left, means = center(table, known)
    methods: dict[str, Callable[[], torch.Tensor]] = {
        "means": lambda: torch.zeros_like(left),
        "soft-impute": lambda: best_on_validation(baselines.soft_impute, SHRINKAGES, left, known),
        "matrix factorisation": lambda: best_on_validation(baselines.matrix_factorisation, FACTORS, left, known),
        "NTK": lambda: kernel(left, known, features),
    }
    print(f"{table.shape[0]} users, {table.shape[1]} items, {int(known.sum())} ratings to learn from")
    print(f"{'root mean square error on':24s}{'held-out ratings':>18s}{'new items':>12s}{'seconds':>10s}")
    for name, method in methods.items():
        start = time.perf_counter()
        error = means + method() - table
        seconds = time.perf_counter() - start
        scores = [float(error[place].square().mean().sqrt()) for place in (single, rated & new_items)]
        print(f"{name:24s}{scores[0]:18.3f}{scores[1]:12.3f}{seconds:10.1f}")


if __name__ == "__main__":
    main()
