"""Small tables of every kind, and ratings: ``python -m benchmarks.completion tables`` and ``... ratings FILE``.

Ten tables, of which 10, 30 or 50 % of the entries are hidden, one by one or in blocks, completed by what people take:
means of columns, nearest neighbours, chained equations with linear models or boosted trees, soft-impute, and
``MatrixCompletion()`` as it comes, which is told nothing but the table. Errors are in units of each column's deviation.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import torch_cntk as tc
from benchmarks.timing import print_table
from torch_cntk import baselines

SHIPPED = ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud")
MADE = ("low rank", "smooth", "blocks", "mixed")
MOST_ROWS = 200
"""Of shipped tables, the first so many, so that chained trees end within a minute."""
SHARES = (0.1, 0.3, 0.5)
PATTERNS = ("one by one", "in blocks")
ROUNDS, TREES, NEAREST = 5, 50, 20
"""Of chained trees: rounds, trees of a model, and columns that a model sees."""
SHRINKAGES = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
OURS = "MatrixCompletion()"
Method = Callable[[np.ndarray], np.ndarray]
"""Completes [rows, columns] with NaN, standardised by what is observed of each column."""


def made(kind: str, rows: int = 200, columns: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = 0.1 * rng.normal(size=(rows, columns))
    if kind == "low rank":
        return rng.normal(size=(rows, 4)) @ rng.normal(size=(4, columns)) + 3 * noise
    if kind == "smooth":
        angles = rng.uniform(0, 1, (rows, 2)) @ (3 * rng.normal(size=(2, columns)))
        return np.sin(angles + rng.uniform(0, 2 * np.pi, columns)) + noise
    if kind == "blocks":
        groups = rng.integers(0, 5, rows)[:, None], rng.integers(0, 4, columns)
        return rng.normal(size=(5, 4))[groups] + 3 * noise
    hidden = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, columns))
    table = hidden + noise  # columns in turn: positive and skewed, two values, linear
    table[:, ::3] = np.exp(0.5 * hidden[:, ::3]) + noise[:, ::3]
    table[:, 1::3] = hidden[:, 1::3] > 0
    return table


def load(name: str) -> np.ndarray:
    """A table without constant columns."""
    if name in MADE:
        return made(name)
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    table = np.hstack([bunch.data, bunch.target]) if name == "linnerud" else bunch.data
    order = np.random.default_rng(0).permutation(len(table))[:MOST_ROWS]
    table = np.asarray(table, dtype=float)[order]
    return table[:, table.std(0) > 0]


def hide(shape: tuple[int, int], share: float, pattern: str, seed: int) -> np.ndarray:
    """Which entries to hide; each row keeps one, and each column three."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    hidden = rng.random(shape) < share if pattern == PATTERNS[0] else np.zeros(shape, bool)
    while pattern != PATTERNS[0] and hidden.mean() < share:
        some = rng.choice(rows, max(2, rows // 8), replace=False)
        wide = (rng.integers(0, columns) + np.arange(max(1, columns // 4))) % columns
        hidden[np.ix_(some, wide)] = True
    for row in np.flatnonzero(hidden.all(1)):
        hidden[row, rng.integers(columns)] = False
    for column in np.flatnonzero((~hidden).sum(0) < 3):
        hidden[rng.choice(rows, 3, replace=False), column] = False
    return hidden


def means(table: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(table), np.nanmean(table, 0), table)


def neighbours(table: np.ndarray) -> np.ndarray:
    from sklearn.impute import KNNImputer

    return np.asarray(KNNImputer(n_neighbors=5).fit_transform(table))


def linear(table: np.ndarray) -> np.ndarray:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return np.asarray(IterativeImputer(random_state=0).fit_transform(table))


def trees(table: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    model = HistGradientBoostingRegressor(max_iter=TREES, random_state=0)
    imputer = IterativeImputer(model, n_nearest_features=NEAREST, max_iter=ROUNDS, random_state=0)
    return np.asarray(imputer.fit_transform(table))


def low_rank(table: np.ndarray) -> np.ndarray:
    """Soft-impute with the shrinkage that predicts a tenth of what is known best."""
    known = torch.from_numpy(~np.isnan(table))
    values = torch.where(known, torch.from_numpy(np.nan_to_num(table)), 0)
    left_out = known & (torch.rand(known.shape, generator=torch.Generator().manual_seed(1)) < 0.1)
    largest = float(torch.linalg.matrix_norm(values, 2))

    def path(seen: torch.Tensor) -> list[torch.Tensor]:
        fits: list[torch.Tensor] = []
        for share in SHRINKAGES:
            guess = fits[-1] if fits else None
            fits.append(baselines.soft_impute(torch.where(seen, values, 0), seen, share * largest, guess=guess))
        return fits

    errors = [float((fit - values)[left_out].square().sum()) for fit in path(known & ~left_out)]
    return path(known)[int(np.argmin(errors))].numpy()


def ours(table: np.ndarray) -> np.ndarray:
    return np.asarray(tc.MatrixCompletion().fit_predict(table))


METHODS: dict[str, Method] = {
    "means": means,
    "k nearest rows": neighbours,
    "chained, linear": linear,
    "chained, trees": trees,
    "soft-impute": low_rank,
    OURS: ours,
}


def errors_of(table: np.ndarray, hidden: np.ndarray) -> dict[str, tuple[float, float]]:
    """Root mean square error at hidden entries and processor seconds of each method."""
    unit = table.std(0)
    seen = np.where(hidden, np.nan, table)
    center, scale = np.nanmean(seen, 0), np.nanstd(seen, 0)
    scale = np.where(scale > 0, scale, 1)
    found = {}
    for name, method in METHODS.items():
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chained equations say that they might go on
            filled = method((seen - center) / scale) * scale + center
        found[name] = (float(np.sqrt(np.mean(((filled - table) / unit)[hidden] ** 2))), time.process_time() - start)
    return found


def tables(options: argparse.Namespace) -> None:
    names = options.tables or (("linnerud", "blocks") if options.quick else SHIPPED + MADE)
    shares = SHARES[1:2] if options.quick else SHARES
    ranks: list[np.ndarray] = []
    rows = []
    for name in names:
        table = load(name)[: 60 if options.quick else None]
        for pattern in PATTERNS:
            for share in shares:
                found = errors_of(table, hide(table.shape, share, pattern, options.seed))
                errors = np.array([error for error, _ in found.values()])
                ranks.append(1 + np.argsort(np.argsort(errors)))
                shown = [f"{error:.3f}" + ("*" if error == errors.min() else "") for error in errors]
                rows.append((name, f"{share:.0%} {pattern}", *shown, f"{found[OURS][1]:.1f}"))
                print(*rows[-1], sep="\t", flush=True)
    print_table(("table", "hidden", *METHODS, "seconds of the last"), rows)
    mean = np.mean(ranks, 0)
    print_table(
        ("method", "mean rank", "best of all", "settings"),
        [
            (name, f"{rank:.2f}", f"{int(np.sum(np.array(ranks)[:, place] == 1))}", f"{len(ranks)}")
            for place, (name, rank) in enumerate(zip(METHODS, mean, strict=True))
        ],
    )


def read_ratings(path: Path, separator: str) -> tuple[np.ndarray, np.ndarray]:
    """User, item and rating of each line, the first two as numbers from 0: [lines, 2] and [lines]."""
    import pandas as pd

    frame = pd.read_csv(path, sep=separator, header=None, engine="python", dtype=str).iloc[:, :3]
    if pd.isna(pd.to_numeric(frame.iloc[0, 2], errors="coerce")):
        frame = frame.iloc[1:]
    places = np.stack([pd.factorize(frame.iloc[:, column])[0] for column in (0, 1)], 1)
    return places, frame.iloc[:, 2].to_numpy(dtype=float)


def ratings(options: argparse.Namespace) -> None:
    """Means, soft-impute and passes on a tenth of the ratings, held out; or on a file of them."""
    from torch_cntk.matrices.fillers import LowRank, Means, each_pass
    from torch_cntk.matrices.known import Known

    places, stars = read_ratings(options.ratings, options.separator)
    table = torch.full(tuple(places.max(0) + 1), torch.nan, dtype=torch.float64)
    table[tuple(places.T)] = torch.from_numpy(stars)
    rated = ~torch.isnan(table)
    draw = torch.rand(table.shape, generator=torch.Generator().manual_seed(options.seed))
    hidden = rated & (draw < options.held_out)
    known = Known.of(table, rated & ~hidden)
    print(f"{table.shape[0]} users, {table.shape[1]} items, {int(known.observed.sum())} ratings to learn from")

    def error(filled: torch.Tensor) -> str:
        return f"{float((filled - table)[hidden].square().mean().sqrt()):.4f}"

    rows = [("shrunken means", error(known.back(Means().filled(known, None).values)))]
    paths = [known.back(one.values) for one in each_pass(known, [LowRank(share) for share in SHRINKAGES])]
    rows.append(("soft-impute, best on the test", min(map(error, paths))))
    for passes in options.passes:
        model = tc.MatrixCompletion(passes=passes if passes == "auto" else int(passes), progress=True)
        start = time.process_time()
        filled = model.fit_predict(table.masked_fill(hidden, torch.nan))
        rows.append((f"passes={passes}", error(filled)))
        print(*rows[-1], f"{time.process_time() - start:.0f} s", model.plan_, flush=True)
    print_table(("method", "root mean square error"), rows)
