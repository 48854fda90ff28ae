"""The kernels of a network between inputs: rows of numbers, or images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from torch_cntk._internal.agreed_memory import agreed_memory, ranks_of
from torch_cntk._internal.arrays import tensor_of
from torch_cntk._internal.checks import as_precision, refuse_gradients, shape_text
from torch_cntk._internal.contexts import plain
from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.tunable import asks_for_gradients
from torch_cntk.kernels.build import check_finite
from torch_cntk.layers.recording import recording, require_reached
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.inputs import InputsOperator
from torch_cntk.operators.sharded import ShardedGram

if TYPE_CHECKING:
    from torch_cntk.layers.base import Layer

__all__ = ["Between", "Output", "Results", "gram", "gram_operator"]

Output = Literal["inputs", "pixels"]
Results = Literal["all", "first"]
"""Which ranks get a result: all of them, or rank 0."""

_MOST_DIMENSIONS = 3
"""Of images."""


@dataclass(frozen=True)
class Between:
    """See ``Layer.gram``."""

    kind: str = "ntk"
    output: Output = "inputs"
    dtype: torch.dtype = torch.float64
    progress: bool = False
    mesh: Mesh | None = None
    results: Results = "all"


def _checked(network: Layer, features: Tensor) -> None:
    """Check inputs as far as possible before they are used.

    Raises:
        TypeError: they are no floating point tensor.
        ValueError: they are not finite, or do not fit the network.
    """
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        got = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
        raise TypeError(f"expected a floating point tensor [inputs, features], got {got}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("expected finite features, got NaN or infinity among them")
    if features.ndim == 2 and network.in_channels not in (None, features.shape[1]):
        raise ValueError(f"expected the network's {network.in_channels} features, got {features.shape[1]}")


def _check_images(network: Layer, images: Tensor) -> None:
    """Check that images fit the network.

    Raises:
        ValueError: they have another number of dimensions, or sizes or channels do not fit a layer.
    """
    shape = tuple(images.shape)
    ndim = images.ndim - 2
    if network.ndim == 0:
        raise ValueError(f"expected features of shape [inputs, {network.in_channels or 'features'}], got {shape}")
    if network.ndim not in (None, ndim) or not 1 <= ndim <= _MOST_DIMENSIONS or images.numel() == 0:
        axes = {1: "channels, length", 3: "channels, depth, height, width"}
        raise ValueError(f"expected [n, {axes.get(network.ndim or 2, 'channels, height, width')}], got shape {shape}")
    if network.in_channels not in (None, images.shape[1]):
        raise ValueError(f"expected the network's {network.in_channels} channels, got {images.shape[1]}: shape {shape}")
    if not any(getattr(layer, "hides_channels", False) for layer in network.modules()):
        return
    # How many features a flattening gives is known from the size alone: the finite network is asked.
    try:
        _ask_with_none(network, images)
    except (ValueError, RuntimeError, IndexError):
        _ask_on_meta(network, images)


def _ask_with_none(network: Layer, images: Tensor) -> None:
    """Run the finite network on a batch of no images of a size, which computes next to nothing.

    Raises:
        ValueError: they do not fit a layer.
        RuntimeError: likewise, or a layer cannot take none.
        IndexError: likewise.
    """
    weight = next((value for value in network.parameters() if value.is_floating_point()), images)
    with torch.no_grad():
        network(torch.empty(0, *images.shape[1:], device=weight.device, dtype=weight.dtype))


def _ask_on_meta(network: Layer, images: Tensor) -> None:
    """Likewise on one image without numbers: at first it takes seconds, in which torch imports what it compiles with.

    Raises:
        ValueError: it does not fit a layer.
    """
    shape = tuple(images.shape)
    meta = {name: torch.empty_like(value, device="meta") for name, value in network.state_dict().items()}
    dtype = next((value.dtype for value in meta.values() if value.is_floating_point()), images.dtype)
    try:
        functional_call(network, meta, torch.empty(1, *shape[1:], device="meta", dtype=dtype))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"images of shape {shape} do not fit the network: {error}") from None


def gram_operator(
    network: Layer, features: Any, *, kind: str, white: float, dtype: torch.dtype | None, mesh: Mesh | None = None
) -> GramOperator | InputsOperator | ShardedGram:
    """As ``Layer.gram_operator``, which has the arguments.

    Raises:
        TypeError: see there.
        ValueError: see there.
    """
    if isinstance(features, np.ndarray):
        features = tensor_of(features)
    if mesh is not None:
        ranks_of(mesh)
        return _shared_operator(network, features, kind, white, dtype, mesh)
    _checked(network, features)
    refuse_gradients(features)
    if asks_for_gradients(network.modules()):
        raise ValueError(
            "expected layers whose options need no gradient, as an operator passes none on to them; net.gram(features) "
            "does, and torch.no_grad() leaves them out"
        )
    network.require_exact()
    if dtype is not None:
        as_precision(dtype)
    with plain():
        if features.ndim <= 2:
            return GramOperator(network.propagate, features, kind=kind, white=white, dtype=dtype)
    if white:
        raise ValueError(f"expected white=0 for images, got {white:g}")
    _check_images(network, features)
    with plain():
        operator = InputsOperator(network.propagate, features, kind=kind, dtype=dtype)
    _check_output(operator, "inputs")
    return operator


def _shared_operator(
    network: Layer, features: Tensor, kind: str, white: float, dtype: torch.dtype | None, mesh: Mesh
) -> ShardedGram:
    """The operator whose blocks ranks compute, all of which have the same network and features."""
    with mesh.together("the inputs of a kernel"):
        operator = gram_operator(network, features, kind=kind, white=white, dtype=dtype)
        assert not isinstance(operator, ShardedGram)
        shared = ShardedGram(operator, mesh)
    mesh.agree(network=repr(network), kind=kind, white=white, dtype=operator.dtype, features=features)
    return shared


def _check_output(operator: InputsOperator, output: str) -> None:
    """Check that the network's output is what was asked for.

    Raises:
        ValueError: it is not.
    """
    pixels = operator.output_size
    if output == "inputs" and pixels:
        raise ValueError(
            f"expected a network that ends in a head (Flatten, GlobalAvgPool) and no pixels, got one that ends in "
            f'{shape_text(pixels)} pixels; net.gram(images, output="pixels") is the kernel between all of them'
        )
    if output == "pixels" and not pixels:
        raise ValueError('expected output="inputs" for a network that ends in no pixels, got "pixels"')


def gram(network: Layer, features: Any, others: Any, asked: Between) -> Any:
    """As ``Layer.gram``, which has the arguments.

    Raises:
        TypeError: see there.
        ValueError: see there.
        OutOfMemoryError: see there.
    """
    if not isinstance(features, np.ndarray) and not isinstance(others, np.ndarray):
        return _gram(network, features, others, asked)
    given = [_as_tensor(inputs) for inputs in (features, others) if inputs is not None]
    matrix = _gram(network, given[0], given[1] if len(given) > 1 else None, asked)
    return None if matrix is None else matrix.detach().numpy()


def _as_tensor(inputs: Any) -> Tensor:
    """An array's memory as a tensor.

    Raises:
        TypeError: it is no array, or not one of floating point numbers.
        ValueError: some of it is masked.
    """
    if not isinstance(inputs, np.ndarray):
        raise TypeError(f"expected two tensors or two NumPy arrays, got an array and {type(inputs).__name__}")
    return tensor_of(inputs)


def _gram(network: Layer, features: Tensor, others: Tensor | None, asked: Between) -> Tensor | None:
    as_precision(asked.dtype)
    if asked.mesh is not None:
        ranks_of(asked.mesh)
        return _of_ranks(network, features, others, asked, asked.mesh)
    _check_results(asked)
    if asked.output not in get_args(Output):
        raise ValueError(f'expected output "inputs" or "pixels", got {asked.output!r}')
    for given in (features,) if others is None else (features, others):
        _checked(network, given)
    if features.ndim > 2:
        return _between_images(network, features, others, asked)
    if asked.output == "pixels" and features.ndim == 2:
        raise ValueError(f'expected output="inputs" for features of shape {tuple(features.shape)}, got "pixels"')
    if _recorded(network, features, others):
        return _between_images(network, features, others, asked)
    return _between_rows(network, features, others, asked.kind)


def _check_results(asked: Between) -> None:
    if asked.results not in get_args(Results):
        raise ValueError(f'expected results "all" or "first", got {asked.results!r}')


def _of_ranks(network: Layer, features: Tensor, others: Tensor | None, asked: Between, mesh: Mesh) -> Tensor | None:
    """The matrix, of which each block is computed by one rank; None on ranks that do not get it.

    Raises:
        ValueError: gradients would be recorded, or an argument is wrong or differs between ranks.
    """
    held = features if others is None else others
    with mesh.together("the inputs of a kernel"):
        _check_results(asked)
        for given in (features,) if others is None else (features, others):
            _checked(network, given)
        if _recorded(network, features, others):
            raise ValueError("expected features and layers without gradients beside mesh, got some that require them")
        operator = _operator_of(network, features, held, asked)
        shared = ShardedGram(operator, mesh)
    options = {"kind": asked.kind, "output": asked.output, "dtype": asked.dtype, "results": asked.results}
    mesh.agree(network=repr(network), options=options, features=features, others=others)
    with plain(), agreed_memory(mesh):
        matrix = shared.gathered(None if others is None else features, first=asked.results == "first")
    with mesh.together("a check of entries"):
        if matrix is None:
            return None
        if others is None and isinstance(operator, GramOperator):
            _mirrored(matrix)
        check_finite(matrix)
    return matrix


def _operator_of(network: Layer, features: Tensor, held: Tensor, asked: Between) -> GramOperator | InputsOperator:
    """The operator that holds some inputs, for a matrix between them and the features.

    Raises:
        ValueError: the inputs do not fit the network, or the output is not what it ends in.
    """
    if asked.output not in get_args(Output):
        raise ValueError(f'expected output "inputs" or "pixels", got {asked.output!r}')
    if features.ndim <= 2:
        if asked.output == "pixels":
            raise ValueError(f'expected output="inputs" for features of shape {tuple(features.shape)}, got "pixels"')
        network.require_exact()
        with plain():
            return GramOperator(network.propagate, held, kind=asked.kind)
    for given in (features, held):
        _check_images(network, given)
    network.require_exact()
    with plain():
        operator = InputsOperator(network.propagate, held, kind=asked.kind, entry_dtype=asked.dtype)
    _check_output(operator, asked.output)
    return operator


def _recorded(network: Layer, features: Tensor, others: Tensor | None) -> bool:
    """Whether gradients will be taken."""
    if not torch.is_grad_enabled():
        return False
    of_inputs = features.requires_grad or (others is not None and others.requires_grad)
    return of_inputs or asks_for_gradients(network.modules())


def _between_rows(network: Layer, features: Tensor, others: Tensor | None, kind: str) -> Tensor:
    operator = gram_operator(network, features if others is None else others, kind=kind, white=0.0, dtype=None)
    assert isinstance(operator, GramOperator)
    _require_matrix(len(features) * operator.size[0] * 8, len(features), operator.size[0], features.device)
    with plain():
        matrix = _mirrored(operator.dense()) if others is None else operator.cross(features)
    check_finite(matrix)
    return matrix


def _between_images(network: Layer, images: Tensor, others: Tensor | None, asked: Between) -> Tensor:
    held = images if others is None else others
    for given in (images, held):
        if given.ndim > 2:
            _check_images(network, given)
    network.require_exact()
    _require_matrix(len(images) * len(held) * 8, len(images), len(held), images.device)
    recorded = _recorded(network, images, others)
    with recording() if recorded else plain():
        operator = InputsOperator(network.propagate, held, kind=asked.kind, entry_dtype=asked.dtype, recorded=recorded)
        _check_output(operator, asked.output)
        _require_matrix(operator.bytes_needed(len(images), len(held)), len(images), len(held), images.device)
        matrix = (
            operator.dense(progress=asked.progress)
            if others is None
            else operator.cross(images, progress=asked.progress)
        )
    check_finite(matrix.detach())
    if recorded:
        require_reached([matrix], network.modules())
    return matrix


def _require_matrix(needed: int, rows: int, columns: int, device: torch.device) -> None:
    require_bytes(
        needed,
        f"the kernel between {rows:,} and {columns:,} inputs",
        lambda free: "net.gram_operator(features) multiplies by it without storing it",
        device,
    )


_ROWS = 1024
"""Of a matrix that are mirrored at once: some megabytes beside the matrix."""


def _mirrored(matrix: Tensor) -> Tensor:
    """Put the entries above the diagonal below it as well: rounding differs by the order of two inputs."""
    for start in range(0, len(matrix), _ROWS):
        rows, rest = slice(start, start + _ROWS), slice(start + _ROWS, None)
        block = matrix[rows, rows]
        block.copy_(block.triu() + block.triu(1).T)
        matrix[rest, rows] = matrix[rows, rest].T
    return matrix
