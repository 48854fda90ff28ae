"""Side information as features: what ``MatrixCompletion`` is told of the columns, and of the rows, of a matrix.

Features are [n, p], one column (or row) of the matrix a line; the feature prior Z of the paper is their transpose. A
table that another method completed is a feature prior as well: pass its transpose.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.memory import allocating

__all__ = ["TableEncoder", "concatenate", "laplacian", "one_hot", "unit"]


def one_hot(labels: Iterable[Hashable]) -> Tensor:
    """One feature a category: 1 where the label is it, else 0.

    Args:
        labels: n of them.

    Returns:
        [n, categories] in float64, categories in the order in which they first appear.

    Raises:
        ValueError: there are no labels.
    """
    given = list(labels)
    if not given:
        raise ValueError("expected at least one label, got none")
    places = {label: place for place, label in enumerate(dict.fromkeys(given))}
    index = torch.tensor([places[label] for label in given])
    return torch.nn.functional.one_hot(index, len(places)).double()


def unit(features: Tensor) -> Tensor:
    """Each line of [n, p] divided by its norm; lines of zeros stay as they are."""
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / torch.where(norm > 0, norm, 1)


def concatenate(*blocks: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Features side by side: their covariances add, in proportion to the squares of the weights.

    Args:
        *blocks: [n, p_k] each.
        weights: each block is multiplied by; 1 by default. For weights to compare, make the blocks ``unit`` first.

    Returns:
        [n, sum of p_k].

    Raises:
        TypeError: a weight is no number.
        ValueError: blocks differ in their number of lines, or there is not a weight for each.
    """
    if not blocks or any(block.ndim != 2 or len(block) != len(blocks[0]) for block in blocks):
        shapes = ", ".join(str(tuple(block.shape)) for block in blocks) or "none"
        raise ValueError(f"expected blocks of shape [n, features] with the same n, got {shapes}")
    factors = [1.0] * len(blocks) if weights is None else [finite_number(w, "a weight", minimum=0) for w in weights]
    if len(factors) != len(blocks):
        raise ValueError(f"expected a weight for each of {len(blocks)} blocks, got {len(factors)}")
    return torch.cat([factor * block for factor, block in zip(factors, blocks, strict=True)], 1)


@allocating("the Laplacian")
def laplacian(adjacency: Tensor, shift: float = 0.0) -> Tensor:
    """Features whose products are a graph's kernel: F F^T = (L + shift I)^+, with L = diag(degrees) - adjacency.

    With ``MatrixCompletion(hidden_layers=0, normalize=False, center=False, ridge=0)`` and shift > 0, completion then is
    Laplacian semi-supervised learning: it minimises f^T (L + shift I) f given the observed entries of f. Towards shift
    0 it is the harmonic function of Zhu, Ghahramani & Lafferty (2003). With hidden layers the graph's nodes are
    compared through a network.

    Args:
        adjacency: [n, n], symmetric, entries at least 0; the diagonal does not matter.
        shift: at least 0. At 0 the pseudo-inverse is taken: functions then sum to zero over each component of the
            graph.

    Returns:
        [n, n] in float64.

    Raises:
        TypeError: the shift is no number.
        ValueError: the adjacency is not square, symmetric, finite and not negative, or the shift is negative.
    """
    given = torch.as_tensor(adjacency).double()
    if given.ndim != 2 or given.shape[0] != given.shape[1] or given.numel() == 0:
        raise ValueError(f"expected an adjacency matrix [n, n], got shape {tuple(given.shape)}")
    if not bool(torch.isfinite(given).all()) or float(given.min()) < 0 or not torch.allclose(given, given.T):
        raise ValueError("expected a symmetric adjacency matrix of finite numbers that are not negative")
    shift = finite_number(shift, "shift", minimum=0)
    matrix = torch.diag(given.sum(1)) - given
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0)
    floor = float(values.max()) * len(values) * torch.finfo(torch.float64).eps
    inverse = torch.where(values + shift > floor, 1 / (values + shift), 0)
    features: Tensor = vectors * inverse.sqrt()
    return features


class TableEncoder:
    """Features of a table whose columns hold numbers, categories or text.

    Numbers are standardised; of categories each is a feature; text is split into words (or into what stands between
    commas or semicolons), and each word is a feature, weighted by how rare it is (log(n / lines with it) + 1). Each
    column then has a mean square length of 1, times its weight. Missing numbers are set to the mean, missing
    categories and text to zeros.

    Args:
        text: names of the columns that hold text; other columns of strings hold categories.
        weights: of columns by their names, 1 by default; 0 leaves a column out.

    Raises:
        TypeError: a weight is no number.
        ValueError: a weight is negative.
    """

    def __init__(self, text: Iterable[str] = (), weights: Mapping[str, float] | None = None) -> None:
        self.text = (text,) if isinstance(text, str) else tuple(text)
        self.weights = {k: finite_number(w, f"the weight of {k}", minimum=0) for k, w in (weights or {}).items()}
        self._rules: dict[str, _Rule] = {}

    def fit(self, table: Mapping[str, Sequence[Any]]) -> TableEncoder:
        """Learn means, categories and words.

        Args:
            table: columns by name, such as a pandas DataFrame.

        Returns:
            itself.

        Raises:
            ValueError: the table has no columns, or none of a name in ``text`` or ``weights``.
        """
        columns = _columns(table)
        unknown = [name for name in (*self.text, *self.weights) if name not in columns]
        if unknown or not columns:
            raise ValueError(f"expected columns named {unknown or 'somehow'}, got {sorted(map(str, columns))}")
        self._rules = {
            name: _Rule(values, name in self.text, self.weights.get(name, 1.0))
            for name, values in columns.items()
            if self.weights.get(name, 1.0) > 0
        }
        return self

    def transform(self, table: Mapping[str, Sequence[Any]]) -> Tensor:
        """Encode a table of the same columns; categories and words that ``fit`` did not see are zeros.

        Args:
            table: columns by name, n entries each.

        Returns:
            [n, features] in float64.

        Raises:
            ValueError: a column is missing, or ``fit`` was not called.
        """
        if not self._rules:
            raise ValueError("expected fit() before transform()")
        columns = _columns(table)
        missing = [name for name in self._rules if name not in columns]
        if missing:
            raise ValueError(f"expected the columns {missing} as well, got {sorted(map(str, columns))}")
        return torch.cat([rule.encode(columns[name]) for name, rule in self._rules.items()], 1)

    def fit_transform(self, table: Mapping[str, Sequence[Any]]) -> Tensor:
        """``fit`` and ``transform`` of the same table."""
        return self.fit(table).transform(table)


def _columns(table: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {str(name): list(values) for name, values in table.items()}


def _missing(value: Any) -> bool:
    return value is None or value != value or value == ""


class _Rule:
    """How one column becomes features."""

    def __init__(self, values: list[Any], text: bool, weight: float) -> None:
        present = [value for value in values if not _missing(value)]
        self._split = text
        self._numeric = not text and all(_is_number(value) for value in present)
        if self._numeric:
            numbers = np.array(present, dtype=np.float64)
            self._mean = float(numbers.mean()) if present else 0.0
            deviation = float(numbers.std()) if present else 0.0
            self._scale = weight / deviation if deviation > 0 else 0.0
            return
        lines = Counter(word for value in present for word in set(self._words(value)))
        rare = {word: math.log(len(values) / count) + 1 if text else 1.0 for word, count in lines.items()}
        self._places = {word: place for place, word in enumerate(sorted(rare))}
        self._weight = torch.tensor([rare[word] for word in self._places], dtype=torch.float64)
        length = float(self._raw(values).square().sum(1).mean()) if lines else 0.0
        self._weight *= weight / math.sqrt(length) if length > 0 else 0.0

    def _words(self, value: Any) -> list[str]:
        if not self._split:
            return [str(value)]
        pieces = re.split(r"[,;|]" if re.search(r"[,;|]", str(value)) else r"\s+", str(value).lower())
        return [piece.strip() for piece in pieces if piece.strip()]

    def _raw(self, values: list[Any]) -> Tensor:
        result = torch.zeros(len(values), len(self._places), dtype=torch.float64)
        for line, value in enumerate(values):
            for word in [] if _missing(value) else self._words(value):
                place = self._places.get(word)
                if place is not None:
                    result[line, place] = self._weight[place]
        return result

    def encode(self, values: list[Any]) -> Tensor:
        """Features of one column, [n, some]."""
        if self._numeric:
            numbers = torch.tensor([self._mean if _missing(v) else float(v) for v in values], dtype=torch.float64)
            return ((numbers - self._mean) * self._scale)[:, None]
        return self._raw(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)
