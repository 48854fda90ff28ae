"""Side information as features: what ``MatrixCompletion`` is told of the columns, and of the rows, of a matrix.

Features are [n, p], one column (or row) of the matrix a line; the feature prior Z of the paper is their transpose. A
table that another method completed is a feature prior as well: pass its transpose.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.memory import allocating, require_bytes
from torch_cntk.matrices.encoder import TableEncoder
from torch_cntk.matrices.numbers import is_missing

__all__ = ["TableEncoder", "concatenate", "laplacian", "one_hot", "unit"]


_ONE_HOT_BYTES = 16
"""Bytes of an entry in ``one_hot``: torch makes it an integer first."""
_MISSING = object()
_LAPLACIAN_MATRICES = 6
"""Matrices that ``laplacian`` holds at its peak: the Laplacian, its eigenvectors, the workspace, of two matrices' size,
of the eigendecomposition, the adjacency in float64, and a temporary."""


def one_hot(labels: Iterable[Hashable] | Tensor) -> Tensor:
    """One feature a category: 1 where the label is it, else 0.

    Args:
        labels: n of them, of any kind; numbers in tensors or arrays are compared as numbers. All missing ones (None,
            NaN) are categories of their own, one for each kind of missing.

    Returns:
        [n, categories] in float64, categories in the order in which they first appear.

    Raises:
        TypeError: a label cannot be compared, as a list.
        ValueError: there are no labels, or they are not in one line.
        OutOfMemoryError: the result does not fit into memory.
    """
    if getattr(labels, "ndim", 1) != 1:
        raise ValueError(f"expected labels in one line, [n], got shape {tuple(labels.shape)}")  # type: ignore[union-attr]
    given = [_label(label) for label in (labels.tolist() if isinstance(labels, torch.Tensor | np.ndarray) else labels)]
    if not given:
        raise ValueError("expected at least one label, got none")
    try:
        places = {label: place for place, label in enumerate(dict.fromkeys(given))}
    except TypeError as error:
        raise TypeError(
            f"expected labels that can be compared, such as text or numbers, got some that cannot: {error}"
        ) from error
    index = torch.tensor([places[label] for label in given])
    require_bytes(
        _ONE_HOT_BYTES * len(given) * len(places),
        f"one feature for each of {len(places):,} categories of {len(given):,} labels",
        lambda free: "leave out what is different for each label; identity= of MatrixCompletion stands for that",
    )
    return torch.nn.functional.one_hot(index, len(places)).double()


def _label(label: Any) -> Any:
    """A label that equals others of the same meaning.

    Raises:
        ValueError: it is several numbers.
    """
    if isinstance(label, torch.Tensor | np.ndarray):
        if len(label.shape) > 0:
            raise ValueError(f"expected single labels, got one of shape {tuple(label.shape)}")
        label = label.item()
    if label is None or isinstance(label, str) or not is_missing(label):
        return label
    # NaN does not equal itself.
    return _MISSING, type(label).__name__


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
        OutOfMemoryError: the eigendecomposition does not fit into memory.
    """
    shape = tuple(np.shape(adjacency)) if not isinstance(adjacency, torch.Tensor) else tuple(adjacency.shape)
    if len(shape) != 2 or shape[0] != shape[1] or 0 in shape:
        raise ValueError(f"expected an adjacency matrix [n, n], got shape {shape}")
    require_bytes(
        _LAPLACIAN_MATRICES * 8 * shape[0] ** 2,
        f"the eigendecomposition of a graph's Laplacian, {shape[0]:,} nodes,",
        lambda free: "take a part of the graph",
    )
    given = torch.as_tensor(adjacency).double()
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
