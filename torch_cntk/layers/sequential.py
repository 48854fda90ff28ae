"""Layers one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torch_cntk.covariance.signal import Signal
from torch_cntk.layers.base import C, Layer, from_description

__all__ = ["Sequential", "check_distinct_weights"]


def check_distinct_weights(layers: Sequence[Layer]) -> None:
    """Check that no weight belongs to two layers.

    Raises:
        ValueError: one does.
    """
    parameters = [id(parameter) for layer in layers for parameter in layer.parameters()]
    if len(set(parameters)) < len(parameters):
        raise ValueError("a layer with weights appears twice; the kernel takes all layers' weights as independent")


class Sequential(torch.nn.Sequential, Layer):
    """``torch.nn.Sequential`` of layers, with ``propagate`` and ``kernel``.

    Args:
        *layers: the layers, first one first, or one ordered mapping of names to layers; their channels must chain.

    Raises:
        TypeError: something is not a layer of torch_cntk.
        ValueError: there is no layer, the channels do not chain, the layers differ in dimension, or a layer with
            weights appears twice.
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
        self._chain()

    def _chain(self) -> None:
        """Check that each layer fits the one before, and take the ends' channels as this network's.

        Raises:
            ValueError: the layers do not fit each other.
        """
        self.in_channels = self.out_channels = self.ndim = None
        giver = -1
        check_distinct_weights(self.layers)
        for place, layer in enumerate(self.layers):
            if layer.ndim is not None:
                if self.ndim not in (None, layer.ndim):
                    raise ValueError(f"layer {place}, {layer}, is {layer.ndim}-dimensional, those before {self.ndim}")
                self.ndim = layer.ndim
            if layer.in_channels is not None:
                if self.out_channels is None:
                    self.in_channels = layer.in_channels
                elif layer.in_channels != self.out_channels:
                    raise ValueError(
                        f"layer {place}, {layer}, needs {layer.in_channels} channels, "
                        f"but layer {giver}, {self.layers[giver]}, gives {self.out_channels}"
                    )
            if layer.out_channels is not None:
                self.out_channels, giver = layer.out_channels, place
        self.trace(Signal())

    def trace(self, signal: Signal) -> Signal:
        """Through one layer after the other.

        Raises:
            ValueError: a layer's rule would not be exact at its place.
        """
        for place, layer in enumerate(self.layers):
            if signal.head is not None:
                raise ValueError(f"expected {signal.head} as the last layer, got {layer} after it as layer {place}")
            signal = layer.trace(signal)
        return signal

    @property
    def layers(self) -> list[Layer]:
        """The layers, first one first."""
        # Not children(), which leaves out an activation that is used twice.
        return [layer for layer in self._modules.values() if isinstance(layer, Layer)]

    def propagate(self, covariance: C) -> C:
        """Through one layer after the other."""
        # Once more: ``append`` and its like may have changed the layers.
        self._chain()
        for layer in self.layers:
            covariance = layer.propagate(covariance)
        return covariance

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make the network from the descriptions of its layers."""
        return cls(*(from_description(layer) for layer in options["layers"]))

    def description(self) -> dict[str, Any]:
        """The layers' descriptions, in order."""
        return {"layer": "Sequential", "layers": [layer.description() for layer in self.layers]}
