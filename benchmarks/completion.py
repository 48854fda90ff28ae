"""Matrix completion beside what a user would pick instead, and at scale: ``python -m benchmarks.completion``.

``prism``: areas under the dose-response curve of 1396 drugs in 489 cell lines (PRISM), of which a share of the entries,
or whole cell lines, are hidden. ``scale``: made-up data of many columns, half of them observed, solved directly, by
EigenPro or by conjugate gradients, each row with a mask of its own by ``--scattered``. ``tables``: ten small tables
beside scikit-learn's imputers. ``ratings``: a file of user, item, rating. Times are processor seconds, which other
programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.tables import ratings, tables
from benchmarks.timing import print_table
from torch_cntk import baselines

SHRINKAGES = (4.0, 3.0, 2.4, 1.9, 1.5, 1.2, 0.95, 0.75, 0.6, 0.45)
"""Candidates of soft-impute, largest first: each begins where the one before has ended."""
Method = Callable[[Tensor, Tensor], Tensor]
"""Completes [rows, columns] given a mask, True = known."""


def two_way_means(table: Tensor, known: Tensor) -> Tensor:
    """A mean for each row plus one for each column, by least squares; columns without an entry have the rows' means."""
    values, seen = torch.where(known, table, 0), known.double()
    rows, columns = torch.zeros(len(table), 1, dtype=torch.float64), torch.zeros(1, table.shape[1], dtype=torch.float64)
    for _ in range(30):
        rows = ((values - seen * columns).sum(1) / seen.sum(1).clamp_min(1))[:, None]
        columns = ((values - seen * rows).sum(0) / seen.sum(0).clamp_min(1))[None]
    return rows + columns


def soft_impute(left: Tensor, known: Tensor) -> Tensor:
    """With the shrinkage that predicts a twentieth of what is known best."""
    hidden = known & (torch.rand(known.shape, generator=torch.Generator().manual_seed(1)) < 0.05)
    fit, errors, fits = None, [], []
    for shrinkage in SHRINKAGES:
        fit = baselines.soft_impute(left, known & ~hidden, shrinkage, guess=fit, max_iterations=50, tolerance=1e-3)
        errors.append(float((fit - left)[hidden].square().mean()))
        fits.append(fit)
        if errors[-1] > min(errors):
            break
    best = int(np.argmin(errors))
    filled: torch.Tensor = baselines.soft_impute(
        left, known, SHRINKAGES[best], guess=fits[best], max_iterations=100, tolerance=1e-3
    )
    return filled


def knn(table: Tensor, known: Tensor) -> Tensor:
    """Rows are the samples: an entry is the mean over the ten nearest rows that have it, else its column's."""
    from sklearn.impute import KNNImputer

    return torch.from_numpy(
        KNNImputer(n_neighbors=10, weights="distance", keep_empty_features=True).fit_transform(holes(table, known))
    )


def iterative(table: Tensor, known: Tensor) -> Tensor:
    """Rows are the samples: each column is regressed on ``NEAREST`` others, ``ROUNDS`` times."""
    from sklearn.impute import IterativeImputer  # needs the experimental import in main()

    imputer = IterativeImputer(n_nearest_features=NEAREST, max_iter=ROUNDS, keep_empty_features=True, random_state=0)
    return torch.from_numpy(imputer.fit_transform(holes(table, known)))


def holes(table: Tensor, known: Tensor) -> np.ndarray:
    return torch.where(known, table, torch.nan).numpy()


def turned(method: Method) -> Method:
    """With the columns as samples."""
    return lambda table, known: method(table.T, known.T).T


def told(method: Method, features: Tensor) -> Method:
    """With features of the columns as further rows, known everywhere; the columns are the samples."""

    def work(table: Tensor, known: Tensor) -> Tensor:
        seen = torch.ones(len(features), features.shape[1], dtype=torch.bool)
        filled = method(torch.cat([table.T, features], 1), torch.cat([known.T, seen], 1))
        return filled[:, : len(table)].T

    return work


def group_means(left: Tensor, known: Tensor, groups: Tensor) -> Tensor:
    """In each row the mean over the columns of the same group, else 0; groups are one-hot, [columns, groups]."""
    counts = known.double() @ groups
    return (torch.where(known, left, 0) @ groups / counts.clamp_min(1)) @ groups.T


def kernel(left: Tensor, known: Tensor, lineage: Tensor, *, residual: bool = True) -> Tensor:
    """Cell lines are described by soft-impute's output and by their lineage; with or without it as the prior mean."""
    low_rank = soft_impute(left, known)
    features = tc.features.concatenate(tc.features.unit(low_rank.T), lineage, weights=(1, 0.3))
    start = low_rank if residual else torch.zeros_like(low_rank)
    model = tc.MatrixCompletion(1, ridge="cv", identity=0.5, center=False).fit(left - start, known, features)
    return start + torch.where(known, 0, model.predict())


def kernel_of_columns(left: Tensor, known: Tensor, lineage: Tensor) -> Tensor:
    """Cell lines that nobody has measured: their lineage is all that is known."""
    return torch.where(
        known, left, tc.MatrixCompletion(1, ridge="cv", center=False).fit(left, known, lineage).predict()
    )


def on_residual(method: Callable[..., Tensor]) -> Method:
    """A method on what the means of rows and columns leave."""

    def work(table: Tensor, known: Tensor) -> Tensor:
        means = two_way_means(table, known)
        return means + method(torch.where(known, table - means, 0), known)

    return work


def competitors(lineage: Tensor, whole: bool) -> dict[str, Method]:
    """By name. scikit-learn's imputers are tried with cell lines as samples, and with drugs as samples.

    Args:
        lineage: one-hot, [cell lines, lineages].
        whole: whether cell lines are hidden whole: then it matters what a method is told of them.
    """
    methods: dict[str, Method] = {
        "means": two_way_means,
        "k nearest cell lines": turned(knn),
        "k nearest drugs": knn,
        "iterative, cell lines from each other": iterative,
        "iterative, drugs from each other": turned(iterative),
        "k nearest cell lines, on the residual": on_residual(turned(knn)),
        "k nearest drugs, on the residual": on_residual(knn),
        "iterative, cell lines from each other, on the residual": on_residual(iterative),
        "iterative, drugs from each other, on the residual": on_residual(turned(iterative)),
        "soft-impute, on the residual": on_residual(soft_impute),
    }
    if not whole:
        methods["NTK, soft-impute as features, on the residual"] = on_residual(
            partial(kernel, lineage=lineage, residual=False)
        )
        methods["NTK on what soft-impute leaves of the residual"] = on_residual(partial(kernel, lineage=lineage))
        return methods
    methods |= {
        "k nearest cell lines, told the lineage, on the residual": on_residual(told(knn, lineage)),
        "iterative, drugs from each other and the lineage, on the residual": on_residual(told(iterative, lineage)),
        "mean over the lineage, on the residual": on_residual(partial(group_means, groups=lineage)),
        "NTK, lineage as features, on the residual": on_residual(partial(kernel_of_columns, lineage=lineage)),
    }
    return methods


def prism(options: argparse.Namespace) -> None:
    with np.load(options.data / "prism_auc.npz") as file:
        table, lineages = torch.from_numpy(file["AUC"]).double(), file["lineage"].tolist()
    lineage = tc.features.one_hot(lineages)
    generator = torch.Generator().manual_seed(options.seed)
    masks = {f"{share:.0%} of entries": torch.rand(table.shape, generator=generator) < share for share in (0.1, 0.5)}
    columns = torch.rand(table.shape[1], generator=generator) < 0.1
    masks["10% of cell lines"] = columns.expand(table.shape)
    rows = []
    for name, hidden in masks.items():
        for method, work in competitors(lineage, name.endswith("lines")).items():
            if options.only and not any(text in f"{name}, {method}" for text in options.only):
                continue
            start = time.process_time()
            filled = work(table, ~hidden)
            seconds = time.process_time() - start
            error = float((filled - table)[hidden].square().mean().sqrt())
            r = float(torch.corrcoef(torch.stack([filled[hidden], table[hidden]]))[0, 1])
            rows.append((name, method, f"{error:.4f}", f"{r:.4f}", f"{seconds:.1f}"))
            print(*rows[-1], flush=True)
    print_table(("hidden", "method", "root mean square error", "r", "processor seconds"), rows)
    print(NOTES)


NEAREST, ROUNDS = 30, 5
NOTES = f"""
"On the residual": the method completes what two-way means (an effect of the drug plus one of the cell line) leave.
The NTK of hidden entries starts from soft-impute: its output is the features (beside the lineage) and, in the last row,
the prior mean as well; its time includes soft-impute's. Iterative imputation is cut to {NEAREST} features a regression
and {ROUNDS} rounds.
A cell line that is hidden whole has no entry to find neighbours or factors by: neighbours of cell lines and iterative
imputation of drugs give each drug's mean, soft-impute gives the means alone, and with drugs as samples scikit-learn's
imputers fill a column without an entry with zeros. Those that are told the lineage have what the NTK has."""


def scale(options: argparse.Namespace) -> None:
    results = [scaled(columns, options) for columns in options.columns]
    print_table(
        ("columns", "observed", "solver", "iterations", "residual", "fit", "prediction", "a column", "error", "peak"),
        results,
    )
    print(
        "fit, prediction: processor seconds over all threads; a column: milliseconds of both; error: relative, at\n"
        "columns without an entry; peak: of the process so far. "
        f"{torch.get_num_threads()} threads, {options.precision}."
    )
    if options.compare:
        compare_with_lapack(int(results[-1][1]))


def scaled(columns: int, options: argparse.Namespace) -> tuple[str, ...]:
    """One line of the table."""
    generator = torch.Generator().manual_seed(options.seed)
    width, rows = 200, options.rows
    features = torch.randn(columns, width, generator=generator, dtype=torch.float64)
    hidden = torch.tanh(features @ torch.randn(width, 50, generator=generator, dtype=torch.float64) / width**0.5)
    table = (hidden @ torch.randn(50, rows, generator=generator, dtype=torch.float64)).T.contiguous()
    observed = (torch.rand(columns, generator=generator) < 0.5).expand(rows, columns)
    if options.scattered:
        observed = torch.rand(rows, columns, generator=generator) < 0.5
        table = table + 0.3 * torch.randn(table.shape, generator=generator, dtype=torch.float64)
    solvers: dict[str, Literal["auto"] | tc.Solver] = {
        "auto": "auto",
        "direct": tc.Direct(),
        "eigenpro": tc.EigenPro(
            epochs=options.epochs,
            tolerance=options.tolerance,
            subsample=options.subsample,
            eigenvectors=options.eigenvectors,
        ),
        "cg": tc.ConjugateGradient(options.tolerance, max_iterations=200),
    }
    solver = solvers[options.solver]
    model = tc.MatrixCompletion(
        1,
        ridge="cv" if options.scattered else options.ridge,
        identity=0.3,
        solver=solver,
        precision=options.precision,
        progress=options.progress,
    )
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(table, observed, features)
    fitted = time.process_time()
    filled = model.predict()
    done = time.process_time()
    error = float((filled - table)[~observed].norm() / table[~observed].norm())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    for warning in caught:
        print(f"warning: {warning.message}")
    line = (
        f"{columns}",
        f"{int(observed[0].sum())}",
        model.solver_,
        f"{model.n_iter_}",
        f"{model.residual_:.1e}",
        f"{fitted - start:.1f}",
        f"{done - fitted:.1f}",
        f"{1e3 * (done - start) / columns:.2f}",
        f"{error:.3f}",
        f"{peak:.1f} GB",
    )
    print(*line, flush=True)
    return line


def compare_with_lapack(count: int) -> None:
    """Processor seconds of a plain product and Cholesky factor, of at most 4,000 equations."""
    side = min(count, 4000)
    matrix = torch.randn(side, side, dtype=torch.float64)
    start = time.process_time()
    torch.linalg.cholesky(matrix @ matrix.T + side * torch.eye(side, dtype=torch.float64))
    seconds = time.process_time() - start
    print(f"a product and a Cholesky factor of {side} x {side}: {seconds:.1f} s, measured", end="")
    if side < count:
        print(f"; of {count} x {count}: {seconds * (count / side) ** 3:.0f} s, extrapolated by n^3, not run", end="")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prism", "scale", "tables", "ratings"))
    parser.add_argument("--quick", action="store_true", help="tables: two of them, to see that all works")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="tables: only these")
    parser.add_argument("--ratings", type=Path, metavar="FILE", help="ratings: lines of user, item, rating")
    parser.add_argument("--separator", default=r"\s+|::|,|;", help="ratings: a regular expression")
    parser.add_argument("--held-out", type=float, default=0.1, help="ratings: share to predict")
    parser.add_argument("--passes", nargs="+", default=["1", "2", "auto"], help="ratings: numbers, or auto")
    parser.add_argument("--scattered", action="store_true", help="scale: a mask for each row, ridge chosen")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/drug"))
    parser.add_argument("--columns", type=int, nargs="+", default=[30_000])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--solver", choices=("auto", "direct", "eigenpro", "cg"), default="auto")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64", help="of products with K")
    parser.add_argument("--ridge", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=100, help="of EigenPro")
    parser.add_argument("--subsample", type=int, default=1000, help="of EigenPro")
    parser.add_argument("--eigenvectors", type=int, help="of EigenPro")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of EigenPro and conjugate gradients")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="of PRISM: rows whose name contains one of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also time a plain product and factorisation (extrapolated by n^3 above 4,000 equations)",
    )
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    if options.what == "prism":
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401

        prism(options)
    elif options.what == "tables":
        tables(options)
    elif options.what == "ratings":
        if options.ratings is None:
            parser.error("ratings needs --ratings FILE")
        ratings(options)
    else:
        scale(options)


if __name__ == "__main__":
    main()
