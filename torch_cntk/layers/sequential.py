"""Layers one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torch_cntk.layers.base import Layer, from_description
from torch_cntk.layers.network import Network, Node

__all__ = ["Sequential"]


class Sequential(torch.nn.Sequential, Network):
    """``torch.nn.Sequential`` of layers, with ``propagate`` and ``kernel``.

    Args:
        *layers: the layers, first one first, or one ordered mapping of names to layers; their channels must chain.

    Raises:
        TypeError: something is not a layer of torch_cntk.
        ValueError: there is no layer, the channels do not chain, the layers differ in dimension, a layer with weights
            appears twice, or a layer's rule for covariances would not be exact at its place.

    Example:
        >>> import torch_cntk as tc
        >>> net = tc.Sequential(tc.Conv2d(3, 16, 3), tc.ReLU(), tc.Conv2d(16, 1, 3))
        >>> kernel = net.kernel(tc.priors.Uniform(0, 1))
        >>> kernel.at((0, 0), (0, 1), size=(8, 8)) < kernel.at((0, 0), (0, 0), size=(8, 8))
        True
    """

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        named = layers[0] if len(layers) == 1 and isinstance(layers[0], Mapping) else None
        members = list(layers) if named is None else list(named.values())
        if not members:
            raise ValueError("expected at least one layer, got none")
        for place, layer in enumerate(members):
            if not isinstance(layer, Layer):
                raise TypeError(f"expected layers of torch_cntk, got {type(layer).__name__} as layer {place}")
        super().__init__(*layers)  # type: ignore[arg-type]
        self._refresh()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Each layer reads the one before."""
        return tuple(Node(layer, (place,)) for place, layer in enumerate(self.layers))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make the network from the descriptions of its layers."""
        return cls(*(from_description(layer) for layer in options["layers"]))

    def description(self) -> dict[str, Any]:
        """The layers' descriptions, in order."""
        return {"layer": "Sequential", "layers": [layer.description() for layer in self.layers]}
