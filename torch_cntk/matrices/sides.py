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
from torch_cntk.matrices.tables import Features, Matrix, aligned, name_of
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
    "exp",
    "gaussian",
    "rbf",
]
"""The names among ``layers.ACTIVATIONS``."""


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
    """

    features: Tensor
    white: float
    labels: Sequence[Any] | None

    def operator(self, network: Layer, dtype: torch.dtype = torch.float64) -> GramOperator:
        """K between them, which multiplies in ``dtype``."""
        return GramOperator(network.propagate, self.features, white=self.white, dtype=dtype)

    def kernel(self, network: Layer, new: Side | None = None) -> Tensor:
        """K between new columns or rows and these, or between these; [m, n] in float64."""
        operator = self.operator(network)
        return operator.dense() if new is None or new is self else operator.cross(new.features)


def side(
    features: Features,
    what: Literal["column", "row"],
    *,
    identity: float,
    normalize: bool,
    device: torch.device,
) -> Side:
    """Make inputs of the network of the features of one side.

    Args:
        features: of the n columns or rows.
        what: which side.
        identity: weight of the identity block behind the features.
        normalize: whether to divide each line by its norm.
        device: where they shall be.

    Raises:
        ValueError: they are zero and cannot be normalised, or their squares too large.
    """
    # A frame lies by columns, an array by rows: sums in another order would differ in their last digit.
    values = features.values.to(device).contiguous()
    return Side(*_prior(values, what, features.labels, identity, normalize), features.labels)


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


def roots_of_weights(weight: Any, matrix: Matrix) -> Tensor:
    """Roots of the columns' weights, whose mean over the columns with an observed entry is set to 1.

    Raises:
        TypeError: they are not numbers.
        ValueError: there is not one for each column, or one is not positive.
    """
    known = matrix.observed.any(0)
    given = aligned(weight, matrix.columns, "column weights")
    # A copy: arrays of pandas may not be written to, of which torch warns.
    weights = torch.as_tensor(np.array(given) if isinstance(given, np.ndarray) else given).to(known.device).double()
    if weights.shape != known.shape or not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise ValueError(f"expected {len(known)} column weights, finite and above 0, got shape {tuple(weights.shape)}")
    return (weights / weights[known].mean()).sqrt()
