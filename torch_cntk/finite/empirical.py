"""The neural tangent kernel of a finite network: the Gram matrix of its Jacobian."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap
from tqdm import tqdm

from torch_cntk._internal.arrays import Given, given_back
from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.forward_mode import load_forward_mode
from torch_cntk._internal.memory import allocating, available_bytes, require_bytes
from torch_cntk.finite.functions import Function, Kind, Parameters, Side

__all__ = ["Method", "Outputs", "checked_channels", "checked_sides", "empirical_ntk"]

Method: TypeAlias = Literal["auto", "jacobian", "blocks", "products"]
Outputs: TypeAlias = Literal["mean", "trace"]

_SHARE = 4
"""Of the free memory, the Jacobian may take one in so many parts: as much again is needed to fill it, and the caller
has the kernel to work on."""

_LARGEST_CHUNK = 1 << 30
"""Bytes of gradients at once, at most: larger chunks are no faster, as each operation already fills the device."""


@allocating("the empirical kernel")
def empirical_ntk(
    net: torch.nn.Module,
    z: Given,
    others: Given | None = None,
    *,
    kind: Kind = "ntk",
    channel: int | None = None,
    outputs: Outputs = "mean",
    method: Method = "auto",
    chunk: int | None = None,
    progress: bool = False,
) -> Given:
    """The NTK of a finite network between its outputs, for its present weights.

    K(x, x') = sum over the weights of df(x)/dw df(x')/dw, averaged over the output channels f. Its mean over weights
    approaches ``net.kernel(priors.Tensor(z))``, or ``net.gram(z)`` if the network is fully connected, as the width
    grows, and its deviation falls with the root of the width. A ``Sigmoid`` head is left out and dropout is off, as in
    the kernel. Each input passes through the network alone.

    Args:
        net: the network, in the NTK parameterisation: in the standard one its Gram matrix is another. Or any torch
            module of one input and one output, as it is; its parameters are in the standard parameterisation.
        z: its input, of the weights' dtype and device: one image, [channels, *size]; several, [n, channels, *size];
            or rows of numbers, [n, features]. A torch module without convolutions takes [n, ...], and so does a network
            whose layers work in any number of dimensions (attention, ``Flatten``). An array is taken in the weights'
            dtype, and gives one.
        others: inputs of the other side, in the same form; ``z`` by default.
        kind: "ntk", or "nngp": the sum goes over the last weight layers alone. That is the expectation of f(x) f(x')
            over their weights, given all others, and approaches the kernel of that kind. Only for networks of
            torch_cntk in which everything behind those layers is linear; ``expected_kernel`` serves all.
        channel: of the output; by default all of them.
        outputs: what is made of several channels or classes: their "mean", or the "trace", which is their sum.
        method: "jacobian" holds the Jacobian of one output channel, pixels of all inputs times weights. "blocks" holds
            that of two groups of inputs at a time, which is computed again for each pair. "products" takes one product
            with the transposed Jacobian and one with the Jacobian for each pixel, which needs the memory of a few
            passes through the network only. "auto" is the first one where it fits into a quarter of the free memory,
            else what takes fewer passes.
        chunk: pixels, or inputs without pixels, that are worked on at once; by default as many as fit.
        progress: whether to show a bar.

    Returns:
        [n, *size, n, *size] of the outputs' size; n is left out for one image, and the size for outputs without
        pixels: one image gives [*size, *size], rows of numbers and classifiers give [n, n]. With others, the second
        half is theirs.

    Raises:
        TypeError: ``net`` is no torch module or does not give one tensor, or ``chunk`` is no integer.
        ValueError: an input does not fit the network, there is no such channel, kind or method, or there are no
            weights.
        OutOfMemoryError: the kernel, or the Jacobian that was asked for, would not fit.

    Example:
        >>> import torch
        >>> import torch_cntk as tc
        >>> net = tc.Sequential(tc.Linear(3, 64), tc.ReLU(), tc.Linear(64, 1))
        >>> tc.empirical_ntk(net, torch.randn(5, 3)).shape
        torch.Size([5, 5])
    """
    for name, value, choices in (("method", method, Method), ("outputs", outputs, Outputs)):
        if value not in get_args(choices):
            *most, last = (f'"{choice}"' for choice in get_args(choices))
            raise ValueError(f"expected {name} {', '.join(most)} or {last}, got {value!r}")
    function = Function(net, kind)
    first, second = function.tensors(z, others)
    sides: tuple[Side, Side] = checked_sides(function, first, second)
    channels = checked_channels(sides[0], channel)
    problem = _Problem(function, *sides, symmetric=others is None)
    with torch.no_grad(), allocating(f"the empirical kernel of {sides[0].text}", first.device, lambda: _HINT):
        total = problem.gram(channels, method, chunk, progress)
    if outputs == "mean":
        total.div_(len(channels))
    return given_back(total.reshape((*sides[0].axes, *sides[1].axes)), z)


_HINT = 'take fewer or smaller inputs, a smaller chunk, or method="products"'


def checked_sides(function: Function, z: Tensor, others: Tensor | None) -> tuple[Side, Side]:
    """Both sides of a kernel.

    Raises:
        ValueError: inputs do not fit the network, or the outputs differ in number.
    """
    first = function.side(z, "z")
    second = first if others is None else function.side(others, "others")
    if first.outputs != second.outputs:
        raise ValueError(f"expected as many outputs on both sides, got {first.outputs} and {second.outputs}")
    return first, second


def checked_channels(side: Side, channel: int | None) -> list[int]:
    """The output channels that count.

    Raises:
        ValueError: there is no such channel.
    """
    if channel is None:
        return list(range(side.outputs))
    if isinstance(channel, bool) or not isinstance(channel, int) or not 0 <= channel < side.outputs:
        raise ValueError(f"expected a channel from 0 to {side.outputs - 1}, got {channel}")
    return [channel]


class _Problem:
    """The Gram matrix of a Jacobian, [rows of the first side, rows of the second]."""

    def __init__(self, function: Function, first: Side, second: Side, *, symmetric: bool) -> None:
        self.function, self.first, self.second, self.symmetric = function, first, second, symmetric
        self.weights = function.weights
        self.dtype, self.device = first.inputs.dtype, first.inputs.device
        self.itemsize = self.dtype.itemsize
        self._passing = max(
            function.saved_numbers(side) for side in {id(side): side for side in (first, second)}.values()
        )

    def gram(self, channels: list[int], method: Method, chunk: int | None, progress: bool) -> Tensor:
        """The sum over channels."""
        shape = (self.first.rows, self.second.rows)
        require_bytes(
            shape[0] * shape[1] * self.itemsize,
            f"the empirical kernel of {self.first.text}",
            lambda free: f"take {'a smaller image' if self.first.single else 'fewer inputs'}",
            self.device,
        )
        free = available_bytes(self.device)
        if method == "auto":
            method = self._automatic(free)
        if method == "jacobian":
            needed = self._jacobian_bytes()
            require_bytes(needed, "the Jacobian", lambda free: 'method="products" does without it', self.device)
        count = self._chunk() if chunk is None else positive_int(chunk, "chunk")
        inputs = len(self.first.inputs) if method == "jacobian" else self._inputs_a_block(free)
        total = torch.zeros(shape, dtype=self.dtype, device=self.device)
        with tqdm(total=shape[0] * len(channels), disable=not progress, unit="pixel", desc="empirical NTK") as bar:
            for channel in channels:
                if method == "products":
                    self._by_products(total, channel, count, bar)
                else:
                    self._by_blocks(total, channel, count, inputs, bar)
        return total

    def _jacobian_bytes(self) -> int:
        return (self.first.rows + (0 if self.symmetric else self.second.rows)) * self.weights * self.itemsize

    def _automatic(self, free: int | None) -> Method:
        """What takes the fewest passes in the memory that there is."""
        if free is None or self._jacobian_bytes() <= free / _SHARE:
            return "jacobian"
        # For B rows, a block takes as many passes as the other side has rows, products as it has inputs times B.
        return "blocks" if self._inputs_a_block(free) * self.first.pixels > self.second.pixels else "products"

    def _inputs_a_block(self, free: int | None) -> int:
        """Inputs of each side whose Jacobians fit: two of them."""
        rows = (free or _LARGEST_CHUNK) // (2 * _SHARE * self.weights * self.itemsize)
        return max(1, rows // max(self.first.pixels, self.second.pixels))

    def _chunk(self) -> int:
        """Rows at once: a gradient and the numbers that a pass backwards (or forwards) holds, each."""
        rows = max(self.first.rows, self.second.rows)
        return max(1, min(rows, self._budget() // (2 * self.itemsize * (self.weights + self._passing))))

    def _budget(self) -> int:
        """Bytes for what is worked on at once."""
        free = available_bytes(self.device)
        return min((_LARGEST_CHUNK if free is None else free) // (2 * _SHARE), _LARGEST_CHUNK)

    def _pulled(self, side: Side, channel: int, count: int) -> Iterator[tuple[slice, Parameters]]:
        """Gradients of a channel's pixels, chunk by chunk, [rows, *shape] a parameter."""
        group = max(1, count // side.pixels)
        if group == 1:
            for number, x in enumerate(side.inputs):
                yield from self._pulled_pixels(side, x, number * side.pixels, channel, count)
            return
        units = self._units(side, channel, 0, side.pixels)

        def pull_all(x: Tensor) -> Parameters:
            _, pull, *_ = vjp(partial(self.function.of_one, x=x), self.function.parameters)
            (gradients,) = vmap(pull)(units)
            result: Parameters = gradients
            return result

        for start in range(0, len(side.inputs), group):
            inputs = side.inputs[start : start + group]
            if len(inputs) == 1:
                yield from self._pulled_pixels(side, inputs[0], start * side.pixels, channel, count)
                continue
            gradients = vmap(pull_all)(inputs)
            rows = slice(start * side.pixels, (start + len(inputs)) * side.pixels)
            yield rows, {name: gradient.flatten(0, 1) for name, gradient in gradients.items()}

    def _pulled_pixels(
        self, side: Side, x: Tensor, first: int, channel: int, count: int
    ) -> Iterator[tuple[slice, Parameters]]:
        """Gradients of the pixels of one input, whose rows begin at ``first``."""
        _, pull, *_ = vjp(partial(self.function.of_one, x=x), self.function.parameters)
        for start in range(0, side.pixels, count):
            stop = min(start + count, side.pixels)
            (gradients,) = vmap(pull)(self._units(side, channel, start, stop))
            yield slice(first + start, first + stop), gradients

    def _units(self, side: Side, channel: int, start: int, stop: int) -> Tensor:
        """1 at one of some pixels each, [pixels, outputs, all pixels]."""
        units = torch.zeros(stop - start, side.outputs, side.pixels, dtype=self.dtype, device=self.device)
        units[:, channel].diagonal(start).fill_(1)
        return units

    def _by_blocks(self, total: Tensor, channel: int, count: int, inputs: int, bar: tqdm) -> None:
        """Jacobians of so many inputs at a time; below the diagonal, blocks are those above it, transposed."""
        for start in range(0, len(self.first.inputs), inputs):
            part = _part(self.first, start, inputs)
            rows = slice(start * self.first.pixels, start * self.first.pixels + part.rows)
            jacobian = self._jacobian(part, channel, count)
            bar.update(part.rows)
            for begin in range(start if self.symmetric else 0, len(self.second.inputs), inputs):
                other = _part(self.second, begin, inputs)
                columns = slice(begin * self.second.pixels, begin * self.second.pixels + other.rows)
                if self.symmetric and begin == start:
                    total[rows, columns].addmm_(jacobian, jacobian.T)
                    continue
                block = jacobian @ self._jacobian(other, channel, count).T
                total[rows, columns] += block
                if self.symmetric:
                    total[columns, rows] += block.T

    def _jacobian(self, side: Side, channel: int, count: int) -> Tensor:
        """[rows, weights]."""
        jacobian = torch.empty(side.rows, self.weights, dtype=self.dtype, device=self.device)
        for rows, gradients in self._pulled(side, channel, count):
            torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1, out=jacobian[rows])
        return jacobian

    def _by_products(self, total: Tensor, channel: int, count: int, bar: tqdm) -> None:
        pixels, inputs = self.second.pixels, self.second.inputs
        group, at_once = self._pushed_at_once(count)
        load_forward_mode()

        def push(direction: Parameters, part: Tensor) -> Tensor:
            function = partial(self.function.of_several, inputs=part)
            _, pushed, *_ = jvp(function, (self.function.parameters,), (direction,))
            row: Tensor = pushed[:, channel].flatten()
            return row

        for rows, gradients in self._pulled(self.first, channel, count):
            for first in range(rows.start, rows.stop, at_once):
                last = min(first + at_once, rows.stop)
                some = {name: tensor[first - rows.start : last - rows.start] for name, tensor in gradients.items()}
                for start in range(0, len(inputs), group):
                    part = inputs[start : start + group]
                    columns = slice(start * pixels, (start + len(part)) * pixels)
                    total[first:last, columns] += vmap(partial(push, part=part))(some)
            bar.update(rows.stop - rows.start)

    def _pushed_at_once(self, count: int) -> tuple[int, int]:
        """Inputs and directions of one product with the Jacobian.

        Work on the weights is done once a direction, so that all inputs that fit come first.
        """
        inputs = len(self.second.inputs)
        if inputs == 1:
            return 1, count
        # What a second input adds; the weights as they are applied are held once.
        each = self.function.saved_numbers(self.second, 2) - self.function.saved_numbers(self.second)
        pairs = max(1, self._budget() // (2 * self.itemsize * max(1, each)))
        group = min(inputs, pairs)
        return group, min(count, max(1, pairs // group))


def _part(side: Side, start: int, count: int) -> Side:
    """Some of the inputs."""
    return Side(side.inputs[start : start + count], side.single, side.outputs, side.size)
