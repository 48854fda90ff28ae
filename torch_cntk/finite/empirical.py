"""The neural tangent kernel of a finite network: the Gram matrix of its Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vjp, vmap
from tqdm import tqdm

from torch_cntk._internal.checks import positive_int, shape_text
from torch_cntk._internal.memory import allocating, available_bytes, require_bytes
from torch_cntk.conversion.flat import assemble, flatten
from torch_cntk.layers import Identity, Layer, Sequential, Sigmoid

__all__ = ["empirical_ntk"]

Parameters = dict[str, Tensor]


@allocating("the empirical kernel")
def empirical_ntk(
    net: Layer,
    z: Tensor,
    *,
    channel: int | None = None,
    method: str = "auto",
    chunk: int | None = None,
    progress: bool = False,
) -> Tensor:
    """The NTK of a finite network between the pixels of its output, for its present weights.

    K(x, x') = sum over the weights of df(x)/dw df(x')/dw, averaged over the output channels f. Its mean over weights
    approaches ``net.kernel(priors.Tensor(z))`` as the width grows, and its deviation falls with the root of the width.
    A ``Sigmoid`` head is left out and dropout is off, as in the kernel.

    Args:
        net: the network, in the NTK parameterisation: in the standard one its Gram matrix is another.
        z: its input, [channels, *size], of the weights' dtype and device.
        channel: of the output; by default the mean over all of them.
        method: "jacobian" holds the Jacobian of one output channel, pixels times weights; "products" takes one product
            with the transposed Jacobian and one with the Jacobian for each pixel, which needs the memory of a few
            passes through the network only. "auto" is the first one where it fits into a quarter of the free memory.
        chunk: pixels that are worked on at once; by default as many as fit.
        progress: whether to show a bar.

    Returns:
        [*size, *size] of the output's size.

    Raises:
        TypeError: ``chunk`` is no integer.
        ValueError: the input does not fit the network, there is no such channel or method, or there are no weights.
        OutOfMemoryError: the kernel, or the Jacobian that was asked for, would not fit.
    """
    if method not in ("auto", "jacobian", "products"):
        raise ValueError(f'expected method "auto", "jacobian" or "products", got {method!r}')
    net = _headless(net)
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    if not parameters:
        raise ValueError("expected a network with weights, got one without")
    sample = next(iter(parameters.values()))
    if not isinstance(z, torch.Tensor) or z.dtype != sample.dtype or z.device != sample.device:
        got = (z.dtype, z.device) if isinstance(z, torch.Tensor) else type(z).__name__
        raise ValueError(f"expected z as a tensor in {sample.dtype} on {sample.device}, as the weights, got {got}")
    before = net.training
    net.eval()
    try:
        problem = _Problem(net, z, parameters)
        return problem.gram(problem.channels(channel), method, chunk, progress)
    finally:
        net.train(before)


def _headless(net: Layer) -> Layer:
    """The network without the sigmoid at its end; the same weights."""
    nodes = flatten(net)
    if not any(isinstance(node.does, Sigmoid) for node in nodes):
        return net
    rest = nodes[:-1]
    return assemble(rest, net.in_channels) if rest else Sequential(Identity())


class _Problem:
    """A function of the weights, [channels, pixels]."""

    def __init__(self, net: Layer, z: Tensor, parameters: Parameters) -> None:
        self.parameters = parameters
        with torch.no_grad():
            output = net(z[None])[0]
        self.size = tuple(output.shape[1:])
        self.pixels: int = math.prod(self.size)
        self.outputs = len(output)
        self.weights: int = sum(parameter.numel() for parameter in parameters.values())
        self.itemsize, self.device, self.dtype = z.dtype.itemsize, z.device, z.dtype
        self._passing = _saved_numbers(net, z)

        def function(weights: Parameters) -> Tensor:
            result: Tensor = functional_call(net, weights, (z[None],))
            return result[0].flatten(1)

        self.function: Callable[[Parameters], Tensor] = function

    def channels(self, channel: int | None) -> list[int]:
        """The output channels to average over.

        Raises:
            ValueError: there is no such channel.
        """
        if channel is None:
            return list(range(self.outputs))
        if not 0 <= channel < self.outputs:
            raise ValueError(f"expected a channel from 0 to {self.outputs - 1}, got {channel}")
        return [channel]

    def gram(self, channels: list[int], method: str, chunk: int | None, progress: bool) -> Tensor:
        """The kernel, [*size, *size]."""
        require_bytes(
            self.pixels**2 * self.itemsize,
            f"the empirical kernel of {shape_text(self.size)} pixels",
            lambda free: "take a smaller image",
            self.device,
        )
        jacobian = self.pixels * self.weights * self.itemsize
        free = available_bytes(self.device)
        if method == "auto":
            method = "jacobian" if free is None or jacobian <= free / 4 else "products"
        if method == "jacobian":
            require_bytes(jacobian, "the Jacobian", lambda free: 'method="products" does without it', self.device)
        count = self._chunk(free) if chunk is None else positive_int(chunk, "chunk")
        fill = self._by_jacobian if method == "jacobian" else self._by_products
        total = torch.zeros(self.pixels, self.pixels, dtype=self.dtype, device=self.device)
        with tqdm(total=self.pixels * len(channels), disable=not progress, unit="pixel", desc="empirical NTK") as bar:
            for channel in channels:
                fill(total, channel, count, bar)
        return total.div_(len(channels)).reshape(*self.size, *self.size)

    def _chunk(self, free: int | None) -> int:
        """Pixels at once: a gradient and the numbers that a pass backwards (or forwards) holds, each."""
        budget = min((free or 1 << 30) // 8, 1 << 30)
        return max(1, min(self.pixels, budget // (2 * self.itemsize * (self.weights + self._passing))))

    def _pulled(self, channel: int, count: int) -> Iterator[tuple[slice, Parameters]]:
        """Gradients of a channel's pixels, chunk by chunk, [chunk, *shape] a parameter."""
        _, pull, *_ = vjp(self.function, self.parameters)
        for start in range(0, self.pixels, count):
            rows = slice(start, min(start + count, self.pixels))
            units = torch.zeros(rows.stop - start, self.outputs, self.pixels, dtype=self.dtype, device=self.device)
            units[:, channel].diagonal(start).fill_(1)
            (gradients,) = vmap(pull)(units)
            yield rows, gradients

    def _by_jacobian(self, total: Tensor, channel: int, count: int, bar: tqdm) -> None:
        jacobian = torch.empty(self.pixels, self.weights, dtype=self.dtype, device=self.device)
        for rows, gradients in self._pulled(channel, count):
            torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1, out=jacobian[rows])
            bar.update(rows.stop - rows.start)
        total.addmm_(jacobian, jacobian.T)

    def _by_products(self, total: Tensor, channel: int, count: int, bar: tqdm) -> None:
        def push(direction: Parameters) -> Tensor:
            _, pushed, *_ = jvp(self.function, (self.parameters,), (direction,))
            row: Tensor = pushed[channel]
            return row

        for rows, gradients in self._pulled(channel, count):
            total[rows] += vmap(push)(gradients)
            bar.update(rows.stop - rows.start)


def _saved_numbers(net: Layer, z: Tensor) -> int:
    """Numbers that a pass through the network holds for the way back."""
    count = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        net(z[None])
    return count
