"""Kernels of finite networks on average over their weights, with standard errors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.arrays import Given, given_back
from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.memory import allocating, require_bytes
from torch_cntk.finite.empirical import Method, Outputs, checked_channels, checked_sides, empirical_ntk
from torch_cntk.finite.functions import Function, Kind, Side, headless
from torch_cntk.layers import Layer

__all__ = ["ExpectedKernel", "Redraw", "expected_kernel", "monte_carlo_kernel"]

Redraw: TypeAlias = Callable[[torch.nn.Module, torch.Generator], None]
"""Gives a network new weights, in place, of the generator's numbers."""

_INPUTS_AT_ONCE = 64
"""In a pass without gradients: enough to fill a CPU's cores, and few enough that a pass needs little memory."""


@dataclass(frozen=True)
class ExpectedKernel(Generic[Given]):
    """What ``expected_kernel`` gives.

    Attributes:
        kernel: mean over draws, [n, *size, n, *size] as ``empirical_ntk`` has it.
        standard_error: of each entry: standard deviation over draws / sqrt(draws). Entries err together.
        draws: number of networks.
    """

    kernel: Given
    standard_error: Given
    draws: int


def expected_kernel(
    net: torch.nn.Module,
    z: Given,
    others: Given | None = None,
    *,
    kind: Kind = "nngp",
    draws: int = 100,
    seed: int = 0,
    redraw: Redraw | None = None,
    channel: int | None = None,
    outputs: Outputs = "mean",
    method: Method = "auto",
    chunk: int | None = None,
    progress: bool = False,
) -> ExpectedKernel[Given]:
    """The expected kernel of a finite network over its weights, by Monte Carlo.

    "nngp" is E[f(x) f(x')], "ntk" the expectation of ``empirical_ntk``; both are averaged over output channels. For
    networks of torch_cntk they approach the exact kernels, ``net.kernel(priors.Tensor(z), kind=kind)`` and
    ``net.gram(z, kind=kind)``, as the width grows. The network that is given keeps its weights; a copy gets new ones
    for each draw, from a generator of its own on its device.

    Args:
        net: the network, as for ``empirical_ntk``.
        z: its inputs, as there.
        others: of the other side; ``z`` by default.
        kind: "nngp" or "ntk".
        draws: number of networks, at least 2.
        seed: of the weights.
        redraw: draws the weights, called with the network and a generator. By default all layers of torch_cntk,
            ``torch.nn.Linear`` and torch's convolutions get what their constructors give, and normalisations 1 and 0.
        channel: of the output; by default all of them.
        outputs: what is made of several channels: "mean" or "trace".
        method: of ``empirical_ntk``, for "ntk".
        chunk: of ``empirical_ntk``, for "ntk"; for "nngp" the inputs that pass through the network at once.
        progress: whether to show a bar.

    Returns:
        the mean and its standard error.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an input does not fit the network, an option is unknown or out of range, or nothing says how a
            layer's weights are drawn.
        OutOfMemoryError: the kernel and its standard error would not fit.
    """
    if positive_int(draws, "draws") < 2:
        raise ValueError(f"expected at least 2 draws, which a standard error needs, got {draws}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"expected seed to be an integer, got {seed!r}")
    if outputs not in ("mean", "trace"):
        raise ValueError(f'expected outputs "mean" or "trace", got {outputs!r}')
    if redraw is not None and not callable(redraw):
        raise TypeError(f"expected redraw to be a function of the network and a generator, got {redraw!r}")
    # Refuses what is no network, and inputs that do not fit, before anything is copied.
    function = Function(net, "ntk" if kind == "nngp" else kind)
    inputs: tuple[Tensor, Tensor | None] = function.tensors(z, others)
    sides = checked_sides(function, *inputs)
    channels = checked_channels(sides[0], channel)
    count = _INPUTS_AT_ONCE if chunk is None else positive_int(chunk, "chunk")
    copied = copy.deepcopy(headless(net) if isinstance(net, Layer) else net)
    generator = torch.Generator(inputs[0].device).manual_seed(seed)

    def one() -> Tensor:
        (redraw or _redraw)(copied, generator)
        if kind == "ntk":
            return empirical_ntk(copied, *inputs, channel=channel, outputs=outputs, method=method, chunk=chunk)
        total = _products(Function(copied, "ntk"), sides, channels, count)
        return total.div_(len(channels)) if outputs == "mean" else total

    with allocating(
        f"the expected kernel of {sides[0].text}", inputs[0].device, lambda: "take fewer or smaller inputs"
    ):
        mean, error = _average(one, sides, draws, progress)
    return ExpectedKernel(given_back(mean, z), given_back(error, z), draws)


monte_carlo_kernel = expected_kernel
"""Under the name that it has in neural-tangents."""


def _average(one: Callable[[], Tensor], sides: tuple[Side, Side], draws: int, progress: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard error of so many matrices, one at a time (Welford, 1962)."""
    shape, sample = (sides[0].rows, sides[1].rows), sides[0].inputs
    require_bytes(
        # Mean, squares, a draw and its difference.
        4 * shape[0] * shape[1] * sample.dtype.itemsize,
        f"the expected kernel of {sides[0].text} with its standard error",
        lambda free: "take fewer or smaller inputs",
        sample.device,
    )
    mean, squares = (torch.zeros(shape, dtype=sample.dtype, device=sample.device) for _ in range(2))
    for number in tqdm(range(1, draws + 1), disable=not progress, unit="draw", desc="expected kernel"):
        difference = one().reshape(shape) - mean
        mean.add_(difference, alpha=1 / number)
        squares.addcmul_(difference, difference, value=(number - 1) / number)
    error = squares.div_((draws - 1) * draws).sqrt_()
    axes = (*sides[0].axes, *sides[1].axes)
    return mean.reshape(axes), error.reshape(axes)


def _products(function: Function, sides: tuple[Side, Side], channels: list[int], count: int) -> Tensor:
    """Sum over channels of f(x) f(x'), [rows of the first side, rows of the second]."""
    first = _values(function, sides[0], channels, count)
    second = first if sides[1] is sides[0] else _values(function, sides[1], channels, count)
    return first.T @ second


def _values(function: Function, side: Side, channels: list[int], count: int) -> Tensor:
    """Outputs, [channels, rows]."""
    with torch.no_grad():
        parts = [
            function.of_several(function.parameters, side.inputs[start : start + count])[:, channels]
            for start in range(0, len(side.inputs), count)
        ]
    return torch.cat(parts).movedim(1, 0).flatten(1)


_NORMALISATIONS = (
    torch.nn.LayerNorm,
    torch.nn.GroupNorm,
    torch.nn.modules.batchnorm._NormBase,
)


def _redraw(net: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all layers as their constructors do.

    Raises:
        ValueError: nothing says how those of a layer are drawn.
    """
    for module in net.modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        if isinstance(module, Layer) and hasattr(module, "reset_parameters"):
            module.reset_parameters(generator)  # type: ignore[operator]
        elif isinstance(module, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            _redraw_as_torch(module, generator)
        elif isinstance(module, _NORMALISATIONS):
            module.reset_parameters()
        else:
            raise ValueError(f"expected redraw, which says how the weights of {type(module).__name__} are drawn")


def _redraw_as_torch(module: torch.nn.Linear | torch.nn.modules.conv._ConvNd, generator: torch.Generator) -> None:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases, which torch's default initialisation comes to."""
    fan_in, _ = torch.nn.init._calculate_fan_in_and_fan_out(module.weight)
    bound = 1 / math.sqrt(fan_in)
    with torch.no_grad():
        module.weight.uniform_(-bound, bound, generator=generator)
        if module.bias is not None:
            module.bias.uniform_(-bound, bound, generator=generator)
