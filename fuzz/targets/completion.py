"""``MatrixCompletion``: what is observed stays, and what is filled is what the kernel's textbook formula says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from torch import Tensor

import torch_cntk as tc
from fuzz.oracle import require
from tests.helpers import brute_force, conditioning
from tests.helpers.strategies.tables import Grid, grids, silly_arguments
from torch_cntk.layers.registry import ACTIVATIONS
from torch_cntk.matrices.completion import fully_connected

__all__ = ["Case", "Silly", "cases", "check"]

_QUADRATURE = 3
"""Columns for which an activation without a formula is integrated in milliseconds, in one layer."""
_ROUNDING = 1e-11
"""Of numbers relative to the largest ones that are added on the way."""
_QUICK = sorted(set(ACTIVATIONS) - {"hardtanh", "relu6"})
"""Those whose tables take milliseconds."""
_FORMULA = ("relu", "leaky_relu", "abs", "erf", "sin", "rbf", "exp", "gaussian")


@dataclass(frozen=True)
class Case:
    """A completion that must succeed, but for features whose squares are no numbers."""

    grid: Grid
    row_features: bool
    options: dict[str, Any]

    @property
    def ordinary(self) -> bool:
        """Whether it must not be refused: exponentials of exponentials may be infinite."""
        grows = self.options.get("activation") == "exp" and not self.options.get("normalize", True)
        usual = self.grid.feature_scale == 1 and self.options["ridge"] != "cv" and not grows
        return usual and not (self.row_features and self.grid.form == "frame")


@dataclass(frozen=True)
class Silly:
    """Arguments of which one at least is none."""

    table: Any
    observed: Any
    features: Any
    options: dict[str, Any]


_solvers = st.sampled_from(
    ["auto", "auto", "auto", tc.Direct(), tc.ConjugateGradient(1e-10, 1000), tc.EigenPro(epochs=10)]
)


@st.composite
def _grids(draw: Any) -> Case:
    options = {
        "hidden_layers": draw(st.integers(0, 3)),
        "activation": draw(st.sampled_from(_FORMULA) | st.sampled_from(_QUICK)),
        "ridge": draw(st.sampled_from([1e-3, 1e-3, 0.0, 1e-8, 1.0, 1e5, "cv"])),
        "identity": draw(st.sampled_from([0.0, 0.0, 0.1, 10.0])),
        "row_identity": draw(st.sampled_from([0.0, 1.0])),
        "normalize": draw(st.booleans()),
        "center": draw(st.booleans()),
        "combine": draw(st.sampled_from(["product", "sum"])),
        "solver": draw(_solvers),
    }
    return Case(draw(grids()), draw(st.sampled_from([False, False, True])), options)


cases = _grids() | _grids() | silly_arguments().map(lambda arguments: Silly(*arguments))


def check(case: Case | Silly) -> None:
    """Fit, predict, and look at the result."""
    if isinstance(case, Silly):
        model = tc.MatrixCompletion(**case.options)
        filled = _array(model.fit(case.table, case.observed, case.features).predict())
        require(np.isfinite(filled).all(), "an entry is not finite")
        return
    grid = case.grid
    table, observed, features = grid.held()
    rows = grid.of_rows() if case.row_features else None
    model = tc.MatrixCompletion(**case.options)
    completed = model.fit(table, observed, features, rows).predict()
    require(type(completed) is type(table) or not isinstance(table, Tensor | pd.DataFrame), "the type was changed")
    filled = _array(completed)
    values, known = grid.numbers()
    exact = torch.float32 if grid.form == "single" else torch.float64
    require(np.array_equal(filled[known], torch.from_numpy(values).to(exact).double().numpy()[known]), "observed")
    require(np.isfinite(filled).all(), "a filled entry is not finite")
    require(np.isfinite(model.residual_) and model.residual_ >= 0, f"the residual is {model.residual_}")
    _check_numbers(model, case, filled, values, known)


def _array(table: Any) -> np.ndarray:
    if isinstance(table, Tensor):
        return table.detach().double().numpy()
    return np.asarray(table, dtype=np.float64)


def _kernel(features: np.ndarray, identity: float, case: Case) -> tuple[np.ndarray, float] | None:
    """The textbook kernel between lines of features, and how far the entries of another may be off the largest."""
    count, options = len(features), case.options
    if options["activation"] not in _FORMULA and (count > _QUADRATURE or options["hidden_layers"] > 1):
        return None
    if options["normalize"] and features.shape[1] == 1:
        return None  # a number by itself is not divided by its norm, but taken as a position
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        whole = (1 + identity**2) if options["normalize"] else 1.0
        sigma = features / (norms if options["normalize"] else 1.0)
        sigma = (sigma @ sigma.T + identity**2 * np.eye(count)) / whole
    if not np.isfinite(sigma).all() or not 1e-6 < np.diag(sigma).max() < 1e6:
        return None
    with torch.random.fork_rng(devices=[]):  # weights are drawn, of which a kernel needs none
        network = fully_connected(options["hidden_layers"], options["activation"])
    kernel = brute_force.propagate(network, torch.from_numpy(sigma))[1]
    if not torch.isfinite(kernel).all():
        return None
    return kernel.numpy(), max(_ROUNDING, conditioning.bound(network, torch.from_numpy(sigma), "ntk", kernel))


def _check_numbers(
    model: tc.MatrixCompletion, case: Case, filled: np.ndarray, values: np.ndarray, known: np.ndarray
) -> None:
    """Each row, or all entries at once, against the solution of the textbook equations."""
    of_columns = _kernel(case.grid.of_columns(), case.options["identity"], case)
    if of_columns is None:
        return
    columns, off = of_columns
    centre = case.options["center"]
    everything = values[known].mean() if centre else 0.0
    if not case.row_features:
        ridge = model.ridge_ * np.diag(columns).mean()
        for y, seen, got in zip(values, known, filled, strict=True):
            mean = y[seen].mean() if centre and seen.any() else everything
            _check_system(columns, off, y, seen, got, mean, ridge, model, case)
        return
    of_rows = _kernel(case.grid.of_rows(), case.options["row_identity"], case)
    if of_rows is None:
        return
    rows, off = of_rows[0], off + of_rows[1]
    both = np.kron(rows, columns)
    if case.options["combine"] == "sum":
        both = np.kron(rows, np.ones_like(columns)) + np.kron(np.ones_like(rows), columns)
    ridge = model.ridge_ * np.diag(both).mean()
    _check_system(both, off, values.ravel(), known.ravel(), filled.ravel(), everything, ridge, model, case)


def _length(target: np.ndarray) -> float:
    """The Euclidean norm, also of numbers whose squares vanish."""
    largest = float(np.abs(target).max())
    return 0.0 if largest == 0 else largest * float(np.linalg.norm(target / largest))


def _check_system(
    kernel: np.ndarray,
    off: float,
    y: np.ndarray,
    seen: np.ndarray,
    got: np.ndarray,
    mean: float,
    ridge: float,
    model: tc.MatrixCompletion,
    case: Case,
) -> None:
    """What is filled is off the solution by what the residual and rounding allow, not more."""
    if seen.all():
        return
    if not seen.any():
        near = (1e-6 if case.grid.form == "single" else 1e-9) * (abs(mean) + abs(y).max())
        require(abs(got - mean).max() <= near, "a row without entries is not its mean")
        return
    matrix = kernel[np.ix_(seen, seen)] + ridge * np.eye(seen.sum())
    spectrum, vectors = np.linalg.eigh(matrix)
    if spectrum[0] <= 1e-7 * spectrum[-1]:
        return
    inverse = vectors / spectrum @ vectors.T
    lift = kernel[np.ix_(~seen, seen)] @ inverse
    target = y[seen] - mean
    error = np.abs(got[~seen] - lift @ target - mean).max()
    norm, length = np.linalg.norm(lift, 2), _length(target)
    worst = spectrum[-1] / spectrum[0]
    slack = off * (worst * max(norm, 1.0) * length + abs(mean) + abs(y[seen]).max())
    single = 1e-6 * (abs(got).max() + abs(mean)) if case.grid.form == "single" else 0.0
    allowed = 1.01 * norm * model.residual_ * length + slack + single
    require(not error > allowed, f"{error} off the solution, allowed are {allowed} ({model.solver_})")
