"""The kernel between training inputs, kept for the next fit, and between them and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import as_device, check_dense
from torch_cntk._internal.memory import available_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.layers import Layer
from torch_cntk.operators import DenseOperator, Operator

__all__ = ["Settings", "TrainingKernel", "as_columns", "as_inputs", "checked_network", "returned"]

_MATRIX_SHARE = 3
"""Of the free memory, the matrix may take one in so many parts: a factorisation and a copy take two more."""


@dataclass(frozen=True)
class Settings:
    """What a kernel depends on beside its inputs.

    Attributes:
        network: its network, or "precomputed".
        kind: "ntk" or "nngp".
        dtype: of the computation between images.
        progress: whether to show bars.
    """

    network: Layer | str
    kind: str
    dtype: torch.dtype
    progress: bool
    _layers: tuple[torch.nn.Module, ...] = field(init=False, repr=False, compare=False)
    _key: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        network = self.network
        layers: tuple[torch.nn.Module, ...] = () if isinstance(network, str) else tuple(network.modules())
        # Both are kept as they are now: the network may be changed in place before the next fit.
        object.__setattr__(self, "_layers", layers)
        object.__setattr__(self, "_key", (repr(network), self.kind, self.dtype))

    def same(self, other: Settings) -> bool:
        """Whether a kernel is that of other settings: of the very same layers, as functions may share a name."""
        ours, theirs = self._layers, other._layers
        return (
            self._key == other._key
            and len(ours) == len(theirs)
            and all(layer is its for layer, its in zip(ours, theirs, strict=True))
        )


def as_inputs(inputs: Any, device: torch.device | str | None, *, name: str = "inputs") -> Tensor:
    """Inputs, or targets, as a floating point tensor on a device.

    Raises:
        TypeError: they are not numbers.
        ValueError: there are none, or one is not finite.
    """
    tensor = inputs if isinstance(inputs, Tensor) else _tensor(inputs, name)
    check_dense(tensor, name)
    tensor = tensor.detach().to(tensor.device if device is None else as_device(device))
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"expected real numbers, got {tensor.dtype}")
    if not tensor.is_floating_point() or tensor.dtype.itemsize < 4:
        tensor = tensor.double()
    if tensor.ndim < 2 or tensor.numel() == 0:
        raise ValueError(f"expected {_shapes(name)} as {name}, got shape {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"expected finite {name}, got NaN or infinity among them")
    return tensor


def as_columns(values: Any, device: torch.device | str | None, *, name: str) -> Tensor:
    """Targets [n] or [n, k] as [n, k] in float64; see ``as_inputs``."""
    if isinstance(values, Tensor):
        return as_inputs(values[:, None] if values.ndim == 1 else values, device, name=name).double()
    array = _array(values, name)
    return as_inputs(array[:, None] if array.ndim == 1 else values, device, name=name).double()


def _shapes(name: str) -> str:
    known = {"inputs": "[n, features] or [n, channels, *size]", "the kernel": "[n, n]"}
    return known.get(name, "[n] or [n, k]")


def _array(inputs: Any, name: str) -> np.ndarray[Any, Any]:
    """An array of what is none.

    Raises:
        TypeError: it cannot be one, as its rows differ in length.
    """
    try:
        return np.asarray(inputs)
    except ValueError:
        raise TypeError(
            f"expected {name} to be an array of numbers, {_shapes(name)}, got rows of different lengths"
        ) from None


def _tensor(inputs: Any, name: str) -> Tensor:
    """What is no tensor as one, contiguous, and writable, as arrays of pandas may not be.

    Raises:
        TypeError: it has no numbers.
    """
    array = _array(inputs, name)
    if isinstance(inputs, Operator):
        raise TypeError(f"expected {name} as a matrix, got {type(inputs).__name__}, which stores none: its dense() is")
    if array.dtype.kind not in "biufc":
        # Frames of numbers in columns of objects are numbers.
        array = _of_objects(array, inputs, name)
    array = np.ascontiguousarray(array)
    wide = array.dtype.kind == "f" and array.dtype.itemsize > torch.float64.itemsize
    array = array.astype(np.float64 if wide else array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    tensor: Tensor = torch.from_numpy(array)
    return tensor


def _of_objects(array: np.ndarray[Any, Any], given: Any, name: str) -> np.ndarray[Any, Any]:
    """Numbers that came as objects.

    Raises:
        TypeError: some of them are none.
    """
    if array.ndim and all(isinstance(entry, Real) for entry in array.ravel().tolist()):
        return array.astype(np.float64)
    words = {"U": "text", "S": "text", "M": "dates", "m": "spans of time"}
    got = words.get(array.dtype.kind, "objects" if array.ndim else type(given).__name__)
    raise TypeError(f"expected {name} to be an array of numbers, {_shapes(name)}, got {got}")


def checked_network(network: Any) -> None:
    """Refuse what is neither a network nor "precomputed".

    Raises:
        TypeError: so it is.
    """
    if not isinstance(network, Layer) and not (isinstance(network, str) and network == "precomputed"):
        got = repr(network) if isinstance(network, str) else type(network).__name__
        raise TypeError(f'expected a network of torch_cntk, or "precomputed", got {got}')


def returned(values: Tensor, inputs: Any) -> Any:
    """Results as the inputs came: a tensor for a tensor, else an array."""
    return values if isinstance(inputs, Tensor) else values.cpu().numpy()


class TrainingKernel:
    """The kernel between training inputs, as a matrix where it fits.

    Args:
        settings: of the kernel.
        inputs: [n, ...]; the matrix itself if it is precomputed.
        before: of an earlier fit: what it has of the same inputs is not computed again.
        mesh: ranks that compute blocks of it.
    """

    def __init__(
        self, settings: Settings, inputs: Tensor, before: TrainingKernel | None = None, mesh: Mesh | None = None
    ) -> None:
        self._mesh = mesh
        # Inputs that the caller changes later would be compared with themselves in the next fit.
        self.settings, self.inputs = settings, inputs if isinstance(settings.network, str) else inputs.clone()
        if isinstance(settings.network, str):
            n = len(inputs)
            if inputs.shape != (n, n):
                raise ValueError(f"expected a precomputed kernel [n, n], got shape {tuple(inputs.shape)}")
            self.matrix: Tensor | None = inputs.double()
            self.operator: Operator = DenseOperator(self.matrix)
            return
        free = available_bytes(inputs.device)
        if free is not None and _MATRIX_SHARE * 8 * len(inputs) ** 2 > free:
            self.matrix = None
            self.operator = settings.network.gram_operator(self.inputs, kind=settings.kind, mesh=mesh)
            return
        self.matrix = self._matrix(before)
        self.operator = DenseOperator(self.matrix)

    def _matrix(self, before: TrainingKernel | None) -> Tensor:
        known = 0 if before is None else self._known(before)
        if before is None or before.matrix is None or not known:
            return self._gram(self.inputs, None)
        if known == len(self.inputs):
            return before.matrix[:known, :known]
        new = self.inputs[known:]
        beside = self._gram(new, self.inputs[:known])
        above = torch.cat((before.matrix[:known, :known], beside.T), 1)
        return torch.cat((above, torch.cat((beside, self._gram(new, None)), 1)))

    def _known(self, before: TrainingKernel) -> int:
        """How many of the first inputs are those of an earlier fit."""
        old = before.inputs
        if not before.settings.same(self.settings) or old.shape[1:] != self.inputs.shape[1:]:
            return 0
        if old.dtype != self.inputs.dtype or old.device != self.inputs.device:
            return 0
        n = min(len(old), len(self.inputs))
        different = (old[:n] != self.inputs[:n]).flatten(1).any(1).nonzero()
        return int(different[0]) if len(different) else n

    def _gram(self, inputs: Tensor, others: Tensor | None) -> Tensor:
        network = self.settings.network
        assert isinstance(network, Layer)
        options: Mapping[str, Any] = {"kind": self.settings.kind, "mesh": self._mesh}
        if inputs.ndim > 2:
            options = {**options, "dtype": self.settings.dtype, "progress": self.settings.progress}
        matrix: Tensor = network.gram(inputs, others, **options)
        return matrix

    def cross(self, others: Tensor) -> Tensor:
        """K between other inputs, [m, ...], and the training inputs, [m, n].

        Raises:
            ValueError: the other inputs have another shape.
        """
        if others.shape[1:] != self.inputs.shape[1:]:
            expected = ", ".join(map(str, self.inputs.shape[1:]))
            raise ValueError(f"expected inputs of shape [m, {expected}], got {tuple(others.shape)}")
        if isinstance(self.settings.network, str):
            return others.double()
        return self._gram(others.to(self.inputs), self.inputs)

    def between(self, others: Tensor) -> Tensor:
        """K between other inputs, [m, m].

        Raises:
            ValueError: the kernel is precomputed, which does not tell.
        """
        self._require_network()
        return self._gram(others.to(self.inputs), None)

    def _require_network(self) -> Layer:
        """The network.

        Raises:
            ValueError: the kernel is precomputed.
        """
        if isinstance(self.settings.network, str):
            raise ValueError("expected a network, whose kernel tells the prior variance of new inputs, got a matrix")
        return self.settings.network

    def diagonal_of(self, others: Tensor) -> Tensor:
        """K between each of other inputs and itself, [m].

        Raises:
            ValueError: the kernel is precomputed, which does not tell.
        """
        operator = self._require_network().gram_operator(others.to(self.inputs), kind=self.settings.kind)
        return operator.diagonal
