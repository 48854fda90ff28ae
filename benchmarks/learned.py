"""Digits and five small tables, learned by kernels of networks and by what people take: rows of ``benchmarks.between``.

Every score is of folds that were not seen, five of them, shuffled (stratified by class where there are classes), the
same for all methods. Each method chooses what it has to choose on the other four: the ridge of our kernels by
leaving one out, support vectors and forests by three-fold cross-validation of a small grid, Gaussian processes by their
likelihood. Inputs of tables are standardised by the mean and deviation of the other four.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torch_cntk as tc
from benchmarks.timing import print_table, seconds_text

FOLDS, INNER = 5, 3
TABLES = ("iris", "wine", "breast_cancer", "diabetes", "friedman")
"""Three of classes and two of numbers: all that scikit-learn ships with both, and a made one."""
MADE_ROWS = 500
WIDTH, EPOCHS, BATCH, RATE = 64, 30, 64, 2e-3
"""Of the finite network: filters, and its training by Adam with a rate that falls to 0 along a cosine."""
NETWORK = "three convolutions with zeros around the image"
FINITE = f"{NETWORK}, pooled: trained, {WIDTH} filters"
Scores = Callable[[], "tuple[list[Any], float]"]
"""The score of each fold, or what else is measured, and seconds of the processor."""


class Kept:
    """Scores that a file has, so that an interrupted run goes on where it was.

    Args:
        path: of the file, lines of JSON; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found = {tuple(line["row"]): (line["scores"], line["seconds"]) for line in map(json.loads, lines)}

    def of(self, row: tuple[str, ...], measure: Scores) -> tuple[list[Any], float]:
        """The scores of a row, measured if the file does not have them."""
        if row not in self._found:
            scores, seconds = self._found[row] = measure()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"row": row, "scores": scores, "seconds": seconds}) + "\n")
        return self._found[row]


def timed(work: Callable[[], Any]) -> tuple[list[float], float]:
    """Scores of all folds, as a list, and how long they took."""
    start = time.process_time()
    scores = [float(score) for score in work()]
    return scores, time.process_time() - start


def mean_and_error(scores: list[float], factor: float, digits: int) -> str:
    """The mean of the folds and its standard error."""
    return f"{factor * np.mean(scores):.{digits}f} +- {factor * np.std(scores, ddof=1) / len(scores) ** 0.5:.{digits}f}"


def padded(channels: int, width: int) -> tc.Layer:
    return tc.Conv2d(channels, width, 3, padding_mode="zeros")


def pooled(width: int) -> list[tc.Layer]:
    """Of digits, but for the last layer."""
    first, second, third = padded(1, width), padded(width, width), padded(width, width)
    return [first, tc.ReLU(), second, tc.ReLU(), third, tc.ReLU(), tc.GlobalAvgPool()]


def bodies(width: int = 8) -> dict[str, tc.Sequential]:
    """Networks of digits, by name."""
    connected = [tc.Linear(64, width), tc.ReLU(), tc.Linear(width, width), tc.ReLU(), tc.Linear(width, 1)]
    return {
        f"{NETWORK}, pooled": tc.Sequential(*pooled(width), tc.Linear(width, 1)),
        f"{NETWORK}, flattened": tc.Sequential(*pooled(width)[:-1], tc.Flatten(), tc.Linear(64 * width, 1)),
        "fully connected, two hidden layers": tc.Sequential(tc.Flatten(), *connected),
    }


def trained(pictures: torch.Tensor, labels: torch.Tensor, folds: Any) -> Iterator[float]:
    """The share of right labels of a finite network of the same layers as the pooled kernel's, fold by fold."""
    for number, (seen, unseen) in enumerate(folds.split(pictures, labels)):
        torch.manual_seed(number)
        net = tc.reparameterise(tc.Sequential(*pooled(WIDTH), tc.Linear(WIDTH, 10)), "standard")
        optimizer = torch.optim.Adam(net.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
        x, y = pictures[seen].float(), labels[seen]
        for _ in range(EPOCHS):
            for batch in torch.split(torch.randperm(len(x)), BATCH):
                optimizer.zero_grad()
                torch.autograd.backward(torch.nn.functional.cross_entropy(net(x[batch]), y[batch]))
                optimizer.step()
            schedule.step()
        with torch.no_grad():
            yield float((net(pictures[unseen].float()).argmax(1) == labels[unseen]).double().mean())


def digits(count: int, path: Path | None = None) -> None:
    """A table of scikit-learn's digits."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    x, y = x[chosen] / 16, y[chosen]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    pictures, labels = torch.as_tensor(x).reshape(-1, 1, 8, 8), torch.as_tensor(y)
    kept = Kept(path)

    def of_kernel(net: tc.Layer, name: str) -> Any:
        dtype = torch.float32 if "pooled" in name else torch.float64
        kernel = net.gram(pictures, dtype=dtype).numpy()
        return cross_val_score(tc.KernelClassifier("precomputed"), kernel, y, cv=folds)

    def of_vectors() -> Any:
        grid = {"C": [1, 10, 100], "gamma": [0.01, 0.03, 0.1]}
        return cross_val_score(GridSearchCV(SVC(), grid, cv=INNER), x, y, cv=folds)

    works: dict[str, Callable[[], Any]] = {name: partial(of_kernel, net, name) for name, net in bodies().items()}
    works["SVC, RBF"] = of_vectors
    works[FINITE] = partial(trained, pictures, labels, folds)
    rows: list[list[object]] = []
    for name, work in works.items():
        scores, seconds = kept.of(("digits", str(count), name), partial(timed, work))
        rows.append([name, mean_and_error(scores, 100, 2), seconds_text(seconds)])
    print(f"\n{count} of scikit-learn's 1,797 digits, five folds:\n")
    print_table(["method", "right, %", "processor time of all folds"], rows)


def load(name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Inputs [n, features], targets [n], and whether they are classes."""
    from sklearn import datasets

    if name == "friedman":
        return (*datasets.make_friedman1(MADE_ROWS, noise=1.0, random_state=0), False)
    return (*getattr(datasets, f"load_{name}")(return_X_y=True), name != "diabetes")


def connected(features: int) -> tc.Sequential:
    """Two hidden layers with biases."""
    return tc.Sequential(
        *(tc.Linear(features, 8, bias=True), tc.ReLU(), tc.Linear(8, 8, bias=True), tc.ReLU()), tc.Linear(8, 1)
    )


def methods(features: int, classes: bool) -> dict[str, Any]:
    """Estimators by name, each with all that it chooses by itself."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.model_selection import GridSearchCV

    network, kernel = connected(features), ConstantKernel() * RBF()
    grid = {"max_features": ["sqrt", 1 / 3, 1.0], "min_samples_leaf": [1, 3]}
    forest = RandomForestClassifier(random_state=0) if classes else RandomForestRegressor(random_state=0)
    return {
        "NTK, ridge by leaving one out": tc.KernelClassifier(network) if classes else tc.KernelRegressor(network),
        "random forest": GridSearchCV(forest, grid, cv=INNER),
        "Gaussian process, RBF": GaussianProcessClassifier(kernel, random_state=0)
        if classes
        else GaussianProcessRegressor(kernel + WhiteKernel(), normalize_y=True, n_restarts_optimizer=2, random_state=0),
    }


def tables(names: tuple[str, ...] = TABLES, path: Path | None = None, repeats: int = 1) -> None:
    """A table of small tables: shares of right classes, or R^2."""
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept, rows, columns = Kept(path), [], list(methods(1, True))
    for name in names:
        x, y, classes = load(name)
        split = RepeatedStratifiedKFold if classes else RepeatedKFold
        folds = split(n_splits=FOLDS, n_repeats=repeats, random_state=0)
        row: list[object] = [name, "x".join(map(str, x.shape)), "right, %" if classes else "R^2, %"]
        for column, method in methods(x.shape[1], classes).items():
            model = make_pipeline(StandardScaler(), method)

            work = partial(cross_val_score, model, x, y, cv=folds)
            scores, seconds = kept.of((name, str(repeats), column), partial(timed, work))
            row.append(f"{mean_and_error(scores, 100, 1)} ({seconds_text(seconds)})")
        rows.append(row)
    print("\nSmall tables, five folds" + (f", {repeats} times:\n" if repeats > 1 else ":\n"))
    print_table(["table", "rows x columns", "score", *(f"{column} (time)" for column in columns)], rows)
