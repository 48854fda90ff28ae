"""The sides of a matrix: its columns or its rows, as inputs of the network whose kernel compares them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk.layers import Layer, Linear, Sequential, activation_of
from torch_cntk.matrices.tables import Features, Matrix, aligned, different, name_of, read_features
from torch_cntk.operators.gram import GramOperator

__all__ = ["Activation", "Side", "fully_connected", "roots_of_weights", "side"]

Activation = Literal[
    "relu",
    "leaky_relu",
    "abs",
    "erf",
    "gelu",
    "sin",
    "tanh",
    "logistic",
    "softsign",
    "silu",
    "mish",
    "softplus",
    "elu",
    "celu",
    "selu",
    "hardtanh",
    "relu6",
    "abrelu",
    "sign",
    "step",
]
"""The names among ``layers.ACTIVATIONS``."""

_PARALLEL = 1e-12
"""Directions that differ by less are the same but for rounding, of which a cosine has some 1e-16 a feature."""


def fully_connected(hidden_layers: int, activation: Activation | Layer = "relu") -> Sequential:
    """The network whose kernel ``MatrixCompletion`` takes; the kernel does not depend on the width, which is 1 here.

    Args:
        hidden_layers: at least 0, which gives the linear kernel.
        activation: a name among ``ACTIVATIONS``, or an activation layer.

    Raises:
        TypeError: the number is no integer, or the activation neither a name nor a layer.
        ValueError: the number is negative, or the name unknown.
    """
    if isinstance(hidden_layers, bool) or not isinstance(hidden_layers, int | np.integer):
        raise TypeError(f"expected hidden_layers to be an integer, got {hidden_layers!r}")
    if hidden_layers < 0:
        raise ValueError(f"expected hidden_layers to be at least 0, got {hidden_layers}")
    bend = activation_of(activation)
    hidden = [layer for _ in range(hidden_layers) for layer in (Linear(1, 1), bend)]
    return Sequential(*hidden, Linear(1, 1))


@dataclass(frozen=True)
class Side:
    """The columns of a matrix, or its rows.

    Attributes:
        features: as the network takes them, [n, p].
        white: variance of the identity block.
        labels: of a frame, else None.
        names: of the features, of a frame, else None.
        only_signs: whether normalising has left nothing of the features but a sign.
    """

    features: Tensor
    white: float
    labels: Sequence[Any] | None
    names: Sequence[Any] | None = None
    only_signs: bool = False

    def operator(self, network: Layer, dtype: torch.dtype = torch.float64) -> GramOperator:
        """K between them, which multiplies in ``dtype``."""
        return GramOperator(network.propagate, self.features, white=self.white, dtype=dtype)

    def kernel(self, network: Layer, new: Side | None = None) -> Tensor:
        """K between new columns or rows and these, or between these; [m, n] in float64."""
        operator = self.operator(network)
        return operator.dense() if new is None or new is self else operator.cross(new.features)

    def read_more(self, features: Any, what: Literal["column", "row"]) -> Features:
        """Read features of further columns or rows.

        Raises:
            TypeError: they are not numbers.
            ValueError: they are not those of this side.
        """
        more = read_features(features, what)
        if more.values.shape[1] != self.features.shape[1]:
            raise ValueError(
                f"expected {self.features.shape[1]} features of each {what}, as in fit(), got {more.values.shape[1]}"
            )
        if different(more.names, self.names):
            raise ValueError(
                f"expected features named {_listed(self.names)} in this order, as in fit(), got {_listed(more.names)}"
            )
        return more


def _listed(names: Sequence[Any] | None) -> list[Any]:
    return [] if names is None else list(names)


def side(
    features: Any | Features,
    what: Literal["column", "row"],
    labels: Sequence[Any] | None = None,
    count: int | None = None,
    *,
    identity: float,
    normalize: bool,
    device: torch.device,
) -> Side:
    """Read the features of one side.

    Args:
        features: [n, p], see ``read_features``, or read already.
        what: which side.
        labels: of the matrix, if it is a frame.
        count: n, if it is known.
        identity: weight of the identity block behind the features.
        normalize: whether to divide each line by its norm.
        device: where they shall be.

    Raises:
        TypeError: the features are not numbers.
        ValueError: they do not fit the matrix, are not finite, or are zero and cannot be normalised.
    """
    read = features if isinstance(features, Features) else read_features(features, what, labels, count)
    prior = _prior(read.values.to(device), what, read.labels, identity, normalize)
    return Side(*prior, read.labels, read.names, normalize and _parallel(read.values))


def _prior(
    features: Tensor, what: str, labels: Sequence[Any] | None, identity: float, normalize: bool
) -> tuple[Tensor, float]:
    """Features whose mean products are the products of the given ones, and the variance of the identity block.

    Raises:
        ValueError: features cannot be normalised: they are zero, or their squares too large for a number.
    """
    # Sigma_0 of a network is a mean over its input's features.
    root = math.sqrt(features.shape[1])
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    if not bool(torch.isfinite(norm).all()):
        place = int((~torch.isfinite(norm[:, 0])).nonzero()[0])
        raise ValueError(
            f"expected features whose squares are finite numbers, got larger ones for {what} {name_of(labels, place)}"
        )
    if not math.isfinite(identity * identity):
        raise ValueError(f"expected an identity block whose square is a finite number, got {identity:g}")
    if not normalize:
        return features * root, identity**2
    if not bool((norm > 0).all()):
        place = int((norm[:, 0] == 0).nonzero()[0])
        raise ValueError(
            f"expected features of norm above 0, got zeros for {what} {name_of(labels, place)}, among "
            f"{int((norm == 0).sum())} such; add a constant feature, or set normalize=False"
        )
    # Features and identity block together have norm 1.
    whole = 1 + identity**2
    return features / norm * (root / math.sqrt(whole)), identity**2 / whole


def _parallel(features: Tensor) -> bool:
    """Whether dividing each line of [n, p] by its norm leaves nothing but a sign: all are multiples of one line.

    So it is with a single number for each line, a dose or an age, and with several that are proportional to it. Lines
    that are all the same but for their sign have nothing to lose.
    """
    norm = torch.linalg.vector_norm(features, dim=1)
    if not bool((norm > 0).all()) or bool(((norm - norm[0]).abs() <= _PARALLEL * norm[0]).all()):
        return False
    cosine = (features @ features[0]).abs() / (norm * norm[0])
    return bool((cosine >= 1 - _PARALLEL).all())


def roots_of_weights(weight: Any, matrix: Matrix) -> Tensor:
    """Roots of the columns' weights, whose mean over the columns with an observed entry is set to 1.

    Raises:
        TypeError: they are not numbers.
        ValueError: there is not one for each column, or one is not positive.
    """
    known = matrix.observed.any(0)
    given = aligned(weight, matrix.columns, "column weights")
    weights = torch.as_tensor(given).to(known.device).double()
    if weights.shape != known.shape or not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise ValueError(f"expected {len(known)} column weights, finite and above 0, got shape {tuple(weights.shape)}")
    return (weights / weights[known].mean()).sqrt()
