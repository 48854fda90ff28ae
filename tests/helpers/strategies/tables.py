"""Matrices with features of their columns and rows, in every form in which users hold them; and what is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st

__all__ = ["Grid", "grids", "silly_arguments"]


@dataclass(frozen=True)
class Grid:
    """A matrix with missing entries, and features, as numbers from which all are made.

    Attributes:
        rows: number of rows.
        columns: number of columns.
        width: features of each column; rows have one more.
        scale: numbers are multiplied by it.
        offset: and moved by this many scales.
        share: of the entries that are known, roughly; one at least is.
        features: noise, or noise in which some columns are the same, or a positive number each.
        feature_scale: features are multiplied by it.
        form: how the matrix is held.
        seed: of all random numbers.
    """

    rows: int
    columns: int
    width: int
    scale: float
    offset: float
    share: float
    features: str
    feature_scale: float
    form: str
    seed: int

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix, and which entries are known."""
        random = np.random.default_rng(self.seed)
        values = (random.standard_normal((self.rows, self.columns)) + self.offset) * self.scale
        known = random.random(values.shape) < self.share
        known.flat[random.integers(known.size)] = True
        if self.form == "single":
            values = values.astype(np.float32).astype(np.float64)
        if self.form == "integers":
            values = np.round(values)
        return values, known

    def of_columns(self) -> np.ndarray:
        """Their features."""
        return self._features(self.columns, self.width, 1)

    def of_rows(self) -> np.ndarray:
        """Their features."""
        return self._features(self.rows, self.width + 1, 2)

    def _features(self, count: int, width: int, stream: int) -> np.ndarray:
        random = np.random.default_rng((self.seed, stream))
        values = random.standard_normal((count, width))
        if self.features == "same":
            values[count // 2 :] = values[0]
        if self.features == "positive":
            values = np.abs(values[:, :1]) + 0.1
        return values * self.feature_scale

    def held(self) -> tuple[Any, Any, Any]:
        """Matrix, mask and features of the columns as arguments of ``MatrixCompletion.fit``."""
        values, known = self.numbers()
        features: Any = self.of_columns()
        missing = np.where(known, values, np.nan)
        match self.form:
            case "tensor":
                return torch.from_numpy(missing), None, torch.from_numpy(features)
            case "single":
                return torch.from_numpy(missing).float(), None, features
            case "mask":
                return values, known, features
            case "integers":
                return torch.from_numpy(np.clip(values, -1e15, 1e15)).long(), torch.from_numpy(known), features
            case "lists":
                return [[v if np.isfinite(v) else None for v in row] for row in missing], None, features.tolist()
            case "masked":
                return np.ma.MaskedArray(values, mask=~known), None, features
            case "frame":
                names = [f"c{k}" for k in range(self.columns)]
                lines = pd.DataFrame(features, index=names).iloc[::-1]
                return pd.DataFrame(missing, columns=names, index=[f"r{k}" for k in range(self.rows)]), None, lines
        return missing, None, features


@st.composite
def grids(draw: Any) -> Grid:
    """Matrices that must be completed, whatever their scale and form."""
    form = draw(st.sampled_from(["tensor", "array", "single", "mask", "integers", "lists", "masked", "frame", "frame"]))
    scales = [1.0, 1.0, 100.0, 1e-5, 1e5] if form in ("single", "integers") else [1.0, 1.0, 100.0, 1e-200, 1e150]
    return Grid(
        draw(st.integers(1, 5)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from(scales)),
        draw(st.sampled_from([0.0, 0.0, 3.0, 1000.0])),
        draw(st.sampled_from([0.0, 0.3, 0.6, 1.0])),
        draw(st.sampled_from(["noise", "noise", "same", "positive"])),
        draw(st.sampled_from([1.0, 1.0, 1e-100, 1e100])),
        form,
        draw(st.integers(0, 2**31)),
    )


_square = np.arange(9.0).reshape(3, 3)
_NO_TABLES: list[Any] = [
    None,
    "table.csv",
    5,
    [],
    [[]],
    [[1, 2], [3]],
    [["a", "b"], ["c", "d"]],
    _square[0],
    _square[None],
    _square[:0],
    _square * np.nan,
    _square + np.inf,
    np.full((3, 3), 1e308),
    _square.astype(complex),
    _square > 3,
    _square.astype(object),
    _square.astype("datetime64[D]"),
    torch.ones(3, 3, dtype=torch.bool),
    torch.ones(3, 3, dtype=torch.complex64),
    torch.ones(3, 3, device="meta"),
    torch.ones(3, 3).to_sparse(),
    torch.full((3, 3), 2**62),
    torch.ones(3, 3, dtype=torch.float16),
    pd.DataFrame(_square, columns=["a", "a", "b"]),
    pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}),
    pd.DataFrame({"a": pd.to_datetime(["2020-01-01", "2020-01-02"]), "b": [1.0, 2.0]}),
    pd.DataFrame(),
    pd.Series([1.0, 2.0, 3.0]),
    {"a": [1, 2]},
    np.ma.MaskedArray(np.zeros((3, 3)), mask=True),
]
_NO_FEATURES: list[Any] = [
    *_NO_TABLES,
    np.zeros((3, 2)),
    np.ones((3, 2)),
    np.ones((4, 2)),
    np.ones((2, 3)),
    np.ones((3, 0)),
    _square.T * 1e-320,
    _square * 1e200,
    pd.DataFrame(_square, index=["a", "b", "b"]),
]
_NO_OPTIONS: list[dict[str, Any]] = [
    {"hidden_layers": -1},
    {"hidden_layers": 1.5},
    {"hidden_layers": None},
    {"hidden_layers": True},
    {"hidden_layers": np.int64(2)},
    {"activation": "rulu"},
    {"activation": None},
    {"activation": torch.nn.ReLU()},
    {"activation": torch.relu},
    {"ridge": -1},
    {"ridge": "loo"},
    {"ridge": np.nan},
    {"ridge": None},
    {"ridge": 1e308},
    {"ridge": 5e-324},
    {"ridge": [1e-3]},
    {"identity": -0.1},
    {"identity": np.inf},
    {"identity": 1e200},
    {"identity": "much"},
    {"row_identity": None},
    {"combine": "max"},
    {"combine": None},
    {"solver": "fast"},
    {"solver": None},
    {"solver": int},
    {"precision": "float16"},
    {"precision": torch.float32},
    {"device": "tpu"},
    {"device": 3},
    {"device": "cuda:99"},
    {"seed": -1},
    {"seed": 1.5},
    {"seed": None},
    {"normalize": "yes"},
    {"progress": None},
]


def silly_arguments() -> Any:
    """(table, mask, features, options) of which one at least is none."""
    table = np.where(np.eye(3) > 0, np.nan, _square)
    features = np.arange(6.0).reshape(3, 2) + 1
    usual = st.just(None)
    return (
        st.tuples(st.sampled_from(_NO_TABLES), usual, st.just(features), st.just({}))
        | st.tuples(st.just(table), usual, st.sampled_from(_NO_FEATURES), st.just({}))
        | st.tuples(st.just(table), st.sampled_from(_NO_TABLES), st.just(features), st.just({}))
        | st.tuples(st.just(table), usual, st.just(features), st.sampled_from(_NO_OPTIONS))
    )
