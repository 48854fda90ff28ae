"""Models written in torch.nn as networks of torch_cntk."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from torch_cntk._internal.checks import finite_number
from torch_cntk.conversion.flat import Scales, assemble, channels_of
from torch_cntk.layers import (
    GELU,
    Abs,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BilinearUp,
    ChannelNorm,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout,
    Elementwise,
    Erf,
    Layer,
    LeakyReLU,
    NearestUp,
    Node,
    ReLU,
    Sigmoid,
    Sin,
    Weighted,
)
from torch_cntk.layers.joins import Join

__all__ = ["from_torch"]

_nn = torch.nn
_CONVOLUTIONS = {_nn.Conv1d: Conv1d, _nn.Conv2d: Conv2d, _nn.Conv3d: Conv3d}
_POOLS = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}
_LINEAR_MODES = ("linear", "bilinear", "trilinear")
_HINTS: Mapping[type | str, str] = {
    _nn.ReflectionPad1d: "pad circularly or with zeros",
    _nn.ReflectionPad2d: "pad circularly or with zeros",
    _nn.ReflectionPad3d: "pad circularly or with zeros",
    _nn.BatchNorm1d: "leave it out (ignore=(torch.nn.BatchNorm1d,)), or normalise over channels",
    _nn.BatchNorm2d: "leave it out (ignore=(torch.nn.BatchNorm2d,)), or normalise over channels",
    _nn.BatchNorm3d: "leave it out (ignore=(torch.nn.BatchNorm3d,)), or normalise over channels",
    _nn.MaxPool1d: "take average pooling or a strided convolution",
    _nn.MaxPool2d: "take average pooling or a strided convolution",
    _nn.MaxPool3d: "take average pooling or a strided convolution",
    _nn.GroupNorm: "only LayerNorm over the channels of channels-last images has a rule",
    _nn.ConvTranspose1d: "upsample, then convolve",
    _nn.ConvTranspose2d: "upsample, then convolve",
    _nn.ConvTranspose3d: "upsample, then convolve",
    "getattr": "sizes of feature maps are not known; upsample by scale_factor",
}


@dataclass(frozen=True)
class _Value:
    """What a node of the traced model gives.

    Attributes:
        place: among the values of the new network.
        channels_last: whether the model has permuted its axes.
        padding: what has been put around the image for the next convolution: mode and pixels an axis.
    """

    place: int
    channels_last: bool = False
    padding: tuple[str, tuple[int, ...]] | None = None


def from_torch(
    module: torch.nn.Module,
    *,
    bias_std: float = 1.0,
    weights: bool = True,
    ignore: tuple[type[torch.nn.Module], ...] = (),
) -> Layer:
    """Make a network of torch_cntk from a model that torch.fx can trace.

    Understood are Conv1d/2d/3d (circular or zero padding of half the width), ReLU, LeakyReLU, GELU, Tanh, SiLU,
    Softplus, Upsample and F.interpolate (nearest, bilinear) by a factor, AvgPool of disjoint blocks, sums,
    concatenations of channels, LayerNorm over the channels of permuted images, circular and zero padding before a
    convolution, Dropout, Identity, and Sigmoid at the end. The kernel is that of normalised activations, as everywhere
    in torch_cntk; if the weights are mapped, they make up for it, and the new network's output is the model's.

    Args:
        module: the model, of one input image and one output image.
        bias_std: standard deviation of the biases, for the kernel, where the model has any.
        weights: whether the model's weights are mapped, or new ones drawn.
        ignore: types of modules to leave out, as if they were Identity.

    Returns:
        a ``Sequential``, or a ``Graph`` if the model branches.

    Raises:
        TypeError: ``module`` is no torch.nn.Module.
        ValueError: the model cannot be traced or holds something that has no rule (it is named, with its place), its
            kernel would not be exact, or its weights cannot be mapped.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(module).__name__}")
    finite_number(bias_std, "bias_std", minimum=0)
    if isinstance(module, tuple(_MODULES)) or not list(module.children()):
        module = torch.nn.Sequential(module)
    try:
        graph = _Tracer(ignore).trace(module)
    except Exception as error:  # whatever the model's code raises when it meets a proxy
        raise ValueError(
            f"torch.fx cannot trace {type(module).__name__}: {error}. Expected a forward pass without branching on the "
            "values or shapes of tensors"
        ) from error
    reader = _Reader(module, graph, bias_std, ignore)
    nodes = reader.read()
    given = _in_channels(nodes)
    net = assemble(nodes, given)
    parameter = next(module.parameters(), None)
    if parameter is not None:
        net = net.to(dtype=parameter.dtype, device=parameter.device)
    if weights:
        _map_weights(nodes, reader.sources, given)
    return net


def _in_channels(nodes: Sequence[Node]) -> int | None:
    """What the first weight layers on the way need."""
    reaches = {0}
    for place, node in enumerate(nodes, start=1):
        if not reaches & set(node.inputs):
            continue
        if isinstance(node.does, Layer) and node.does.in_channels is not None:
            return node.does.in_channels
        if node.does != "concat":
            reaches.add(place)
    return None


def _map_weights(nodes: Sequence[Node], sources: Mapping[int, Any], in_channels: int | None) -> None:
    """Copy the model's weights, multiplied by what makes up for normalised activations.

    Raises:
        ValueError: some gain cannot be made up for.
    """
    scales = Scales(nodes, channels_of(nodes, in_channels))
    for place, source in sources.items():
        layer = nodes[place].does
        if isinstance(layer, Weighted):
            factor, bias_factor = (f.to(source.weight.device) for f in scales.of_weights(place, source.weight.ndim - 2))
            bias = None if source.bias is None else (source.bias.detach() * bias_factor).to(source.bias.dtype)
            layer.set_effective((source.weight.detach() * factor).to(source.weight.dtype), bias)
        elif isinstance(layer, ChannelNorm):
            layer.eps *= float(scales.incoming[place]) ** 2
            if layer.scale is not None and layer.offset is not None:
                with torch.no_grad():
                    layer.scale.copy_(source.weight)
                    if source.bias is not None:
                        layer.offset.copy_(source.bias)


class _Tracer(torch.fx.Tracer):
    """Modules that are left out are not looked into."""

    def __init__(self, ignore: tuple[type[torch.nn.Module], ...]) -> None:
        super().__init__()
        self._ignore = ignore

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._ignore) or super().is_leaf_module(m, module_qualified_name)


class _Reader:
    """Goes through a traced model, node by node."""

    def __init__(
        self, module: torch.nn.Module, graph: torch.fx.Graph, bias_std: float, ignore: tuple[type[torch.nn.Module], ...]
    ) -> None:
        self._modules = dict(module.named_modules())
        self._graph = graph
        self._bias_std = bias_std
        self._ignore = ignore
        self._values: dict[torch.fx.Node, _Value] = {}
        self._used: set[str] = set()
        self._order = {node: place for place, node in enumerate(graph.nodes)}
        self.nodes: list[Node] = []
        self.sources: dict[int, Any] = {}

    def read(self) -> list[Node]:
        """The steps of the new network.

        Raises:
            ValueError: something has no rule.
        """
        for node in self._graph.nodes:
            if node.op == "output":
                self._finish(node)
            elif node.op == "placeholder":
                self._start(node)
            elif node.users or node.op == "call_module":
                self._values[node] = self._step(node)
        return self.nodes

    def _start(self, node: torch.fx.Node) -> None:
        if self._values:
            raise ValueError(f"expected a model of one input, got another one: {node.target!r}")
        self._values[node] = _Value(0)

    def _finish(self, node: torch.fx.Node) -> None:
        (result,) = node.args
        if not isinstance(result, torch.fx.Node):
            raise ValueError(f"expected a model of one output tensor, got {result!r}")
        value = self._plain(node, self._values[result])
        if value.place != len(self.nodes):
            raise ValueError("expected the model's last step to give its output, got steps after it that nobody reads")
        if not self.nodes:
            raise ValueError("expected a model that does something, got one that returns its input")

    def _emit(self, does: Layer | Join, *inputs: _Value) -> _Value:
        self.nodes.append(Node(does, tuple(value.place for value in inputs)))
        return replace(inputs[0], place=len(self.nodes))

    def _step(self, node: torch.fx.Node) -> _Value:
        changed = node.args[0] if _in_place(node, self._modules) else None
        # The graph knows the value before, later readers get the one after.
        if isinstance(changed, torch.fx.Node) and any(self._order[user] > self._order[node] for user in changed.users):
            raise self._refuse(node, _name(node), "it changes in place what is read again later")
        if node.op == "call_module":
            return self._call_module(node)
        if node.op in ("call_function", "call_method"):
            rule = _FUNCTIONS.get(node.target)
            if rule is not None:
                return rule(self, node)
        raise self._refuse(node, _name(node), _HINTS.get(_name(node), ""))

    def _call_module(self, node: torch.fx.Node) -> _Value:
        name = str(node.target)
        module = self._modules[name]
        if next(module.parameters(), None) is not None and not isinstance(module, self._ignore):
            if name in self._used:
                raise self._refuse(node, type(module).__name__, "its weights are used twice; the kernel needs new ones")
            self._used.add(name)
        value = self._argument(node)
        if isinstance(module, self._ignore):
            return value
        rule = _MODULES.get(type(module))
        if rule is None:
            raise self._refuse(node, type(module).__name__, _HINTS.get(type(module), ""))
        return rule(self, node, module, value)

    def _argument(self, node: torch.fx.Node, index: int = 0) -> _Value:
        argument = node.args[index] if index < len(node.args) else node.kwargs.get("input")
        if not isinstance(argument, torch.fx.Node):
            raise self._refuse(node, _name(node), f"expected a feature map as its argument {index}, got {argument!r}")
        return self._values[argument]

    def _plain(self, node: torch.fx.Node, value: _Value) -> _Value:
        """A value that nothing is pending for."""
        if value.padding is not None:
            raise self._refuse(node, "padding", "it must be followed by a convolution at once")
        if value.channels_last:
            raise self._refuse(node, "permuted axes", "expected channels at axis 1 again")
        return value

    def _refuse(self, node: torch.fx.Node, what: str, hint: str = "") -> ValueError:
        stack = node.meta.get("nn_module_stack") or {}
        where = next(reversed(stack), "") if stack else ""
        place = repr(str(node.target)) if node.op == "call_module" else f"{node.name!r} in the forward pass"
        inside = "" if node.op == "call_module" or not where else f" of {where!r}"
        return ValueError(f"from_torch knows no rule for {what}, at {place}{inside}{': ' + hint if hint else ''}")

    # Rules.

    def convolution(self, node: torch.fx.Node, module: Any, value: _Value) -> _Value:
        """A convolution, with what was padded before it."""
        name, widths = type(module).__name__, module.kernel_size
        half = tuple(q // 2 for q in widths)
        if module.groups != 1 or any(d != 1 for d in module.dilation):
            raise self._refuse(node, name, "expected groups=1 and dilation=1")
        if any(q % 2 == 0 for q in widths):
            raise self._refuse(node, name, f"expected filters of odd width, got {widths}")
        mode, padding = module.padding_mode, module.padding
        if padding == "same" and all(r == 1 for r in module.stride):
            padding = half
        elif isinstance(padding, str):
            padding = (0,) * len(widths)
        if value.padding is not None:
            if any(padding):
                raise self._refuse(node, name, "padded twice")
            mode, padding = value.padding
        if tuple(padding) != half:
            raise self._refuse(node, name, f"expected padding by half the width, {half}, got {tuple(padding)}")
        if mode not in ("zeros", "circular"):
            raise self._refuse(node, name, f"padding_mode={mode!r}: pad circularly or with zeros")
        layer = _CONVOLUTIONS[type(module)](
            module.in_channels,
            module.out_channels,
            widths,
            module.stride,
            bias=module.bias is not None,
            bias_std=self._bias_std,
            padding_mode=mode if any(half) else "circular",
        )
        self.sources[len(self.nodes)] = module
        return self._emit(layer, self._plain(node, replace(value, padding=None)))

    def layer(self, node: torch.fx.Node, value: _Value, layer: Layer) -> _Value:
        """One of our layers, on a value that nothing is pending for (pointwise ones may see permuted axes)."""
        return self._emit(layer, self._plain(node, value))

    def pad(self, node: torch.fx.Node, mode: str, amounts: Sequence[int], value: _Value) -> _Value:
        """Pixels around the image, last axis first as torch has them, for the convolution that follows."""
        pairs = [tuple(amounts[k : k + 2]) for k in range(0, len(amounts), 2)]
        if any(before != after for before, after in pairs):
            raise self._refuse(node, "padding", f"expected the same on both sides, got {tuple(amounts)}")
        return replace(self._plain(node, value), padding=(mode, tuple(pair[0] for pair in reversed(pairs))))

    def upsample(self, node: torch.fx.Node, value: _Value, options: Mapping[str, Any]) -> _Value:
        """Upsample and F.interpolate."""
        name, mode = _name(node) if node.op != "call_module" else "Upsample", options["mode"]
        factor = options["scale_factor"]
        factors = set(factor) if isinstance(factor, tuple | list) else {factor}
        if options["size"] is not None or None in factors:
            raise self._refuse(node, name, "expected scale_factor, as a kernel may serve many sizes, got size")
        if len(factors) != 1 or int(next(iter(factors))) != next(iter(factors)):
            raise self._refuse(node, name, f"expected one integer as scale_factor, got {factor}")
        scale = int(next(iter(factors)))
        if mode == "nearest":
            return self.layer(node, value, NearestUp(scale))
        if mode in _LINEAR_MODES:
            corners = bool(options["align_corners"])
            up = BilinearUp(scale, align_corners=True) if corners else BilinearUp(scale, padding_mode="border")
            return self.layer(node, value, up)
        raise self._refuse(node, name, f"mode={mode!r}: take nearest or bilinear")

    def average(self, node: torch.fx.Node, value: _Value, ndim: int, options: Mapping[str, Any]) -> _Value:
        """Average pooling of disjoint blocks."""
        width, stride = options["kernel_size"], options["stride"]
        widths = set(width) if isinstance(width, tuple | list) else {width}
        strides = widths if stride in (None, ()) else set(stride) if isinstance(stride, tuple | list) else {stride}
        paddings = options["padding"] if isinstance(options["padding"], tuple | list) else (options["padding"],)
        if len(widths) != 1 or strides != widths or any(paddings) or options["ceil_mode"]:
            raise self._refuse(node, f"AvgPool{ndim}d", "expected disjoint square blocks without padding")
        return self.layer(node, value, _POOLS[ndim](next(iter(widths))))

    def norm(self, node: torch.fx.Node, module: Any, value: _Value) -> _Value:
        """LayerNorm over the channels of permuted images."""
        if not value.channels_last or len(module.normalized_shape) != 1:
            raise self._refuse(
                node, "LayerNorm", "expected one over channels, of images permuted to [batch, *size, channels]"
            )
        (channels,) = module.normalized_shape
        if module.elementwise_affine and module.bias is None:
            raise self._refuse(node, "LayerNorm", "expected scale and offset, or neither")
        self.sources[len(self.nodes)] = module
        return self._emit(ChannelNorm(channels, eps=module.eps, affine=module.elementwise_affine), value)

    def permute(self, node: torch.fx.Node) -> _Value:
        """Channels to the end, or back."""
        value, dims = self._argument(node), node.args[1:]
        if len(dims) == 1 and isinstance(dims[0], tuple | list):
            dims = tuple(dims[0])
        n = len(dims)
        last, back = (0, *range(2, n), 1), (0, n - 1, *range(1, n - 1))
        return self._moved(node, value, tuple(d % n if isinstance(d, int) else d for d in dims), last, back)

    def movedim(self, node: torch.fx.Node) -> _Value:
        """As ``permute``."""
        return self._moved(node, self._argument(node), tuple(node.args[1:]), (1, -1), (-1, 1))

    def _moved(self, node: torch.fx.Node, value: _Value, dims: tuple, last: tuple, back: tuple) -> _Value:
        if value.padding is None and dims == (back if value.channels_last else last):
            return replace(value, channels_last=not value.channels_last)
        raise self._refuse(node, _name(node), "expected channels to move to the end, and back after LayerNorm")

    def add(self, node: torch.fx.Node) -> _Value:
        """A sum of two feature maps."""
        if node.kwargs.get("alpha", 1) != 1:
            raise self._refuse(node, "add", "expected alpha=1")
        first, second = (self._plain(node, self._argument(node, index)) for index in (0, 1))
        return self._emit("sum", first, second)

    def concatenate(self, node: torch.fx.Node) -> _Value:
        """Channels side by side."""
        parts = node.args[0] if node.args else node.kwargs["tensors"]
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if dim != 1 or not isinstance(parts, tuple | list):
            raise self._refuse(node, "cat", f"expected a list of feature maps and dim=1, got dim={dim}")
        return self._emit("concat", *(self._plain(node, self._values[part]) for part in parts))


def _in_place(node: torch.fx.Node, modules: Mapping[str, torch.nn.Module]) -> bool:
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = _name(node)
    return node.target is operator.iadd or name.endswith("_") or bool(node.kwargs.get("inplace", False))


def _name(node: torch.fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _arguments(node: torch.fx.Node, names: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a call of a function by name; the first argument is the input."""
    given = dict(zip(names, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k != "input"}
    return {**defaults, **given}


ModuleRule = Callable[["_Reader", torch.fx.Node, Any, _Value], _Value]
FunctionRule = Callable[["_Reader", torch.fx.Node], _Value]


def _module_layer(make: Callable[[Any], Layer | str]) -> ModuleRule:
    """The rule of a module that becomes one layer, or is refused for a reason that ``make`` gives."""

    def rule(reader: _Reader, node: torch.fx.Node, module: Any, value: _Value) -> _Value:
        layer = make(module)
        if isinstance(layer, str):
            raise reader._refuse(node, type(module).__name__, layer)
        return reader.layer(node, value, layer)

    return rule


def _function_layer(make: Callable[..., Layer | str], *names: str) -> FunctionRule:
    """The rule of a function of a feature map and some options."""

    def rule(reader: _Reader, node: torch.fx.Node) -> _Value:
        options = _arguments(node, names, {})
        layer = make(**{name: value for name, value in options.items() if name != "inplace"})
        if isinstance(layer, str):
            raise reader._refuse(node, _name(node), layer)
        return reader.layer(node, reader._argument(node), layer)

    return rule


def _keep(reader: _Reader, node: torch.fx.Node, module: Any, value: _Value) -> _Value:
    return value


def _leaky(negative_slope: float = 0.01) -> Layer | str:
    return LeakyReLU(negative_slope) if negative_slope >= 0 else "expected a slope that is not negative"


def _gelu(approximate: str = "none") -> Layer | str:
    return GELU() if approximate == "none" else 'expected approximate="none"'


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Layer | str:
    return Elementwise(functional.softplus) if (beta, threshold) == (1, 20) else "expected the default options"


def _dropout(p: float = 0.5, training: bool = True) -> Layer:
    return Dropout(p)


def _padding(mode: str) -> ModuleRule:
    return lambda reader, node, module, value: reader.pad(node, mode, module.padding, value)


def _functional_pad(reader: _Reader, node: torch.fx.Node) -> _Value:
    options = _arguments(node, ("pad", "mode", "value"), {"mode": "constant", "value": None})
    modes = {"circular": "circular", "constant": "zeros"}
    if options["mode"] not in modes or options["value"] not in (None, 0):
        raise reader._refuse(node, f"pad with mode={options['mode']!r}", "pad circularly or with zeros")
    return reader.pad(node, modes[options["mode"]], options["pad"], reader._argument(node))


_INTERPOLATE = {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": None}
_AVERAGE = {"stride": None, "padding": 0, "ceil_mode": False}


def _interpolate(reader: _Reader, node: torch.fx.Node) -> _Value:
    return reader.upsample(node, reader._argument(node), _arguments(node, tuple(_INTERPOLATE), _INTERPOLATE))


def _upsample(reader: _Reader, node: torch.fx.Node, module: Any, value: _Value) -> _Value:
    return reader.upsample(node, value, {name: getattr(module, name) for name in _INTERPOLATE})


def _pool(ndim: int) -> ModuleRule:
    names = ("kernel_size", *_AVERAGE)
    return lambda reader, node, module, value: reader.average(
        node, value, ndim, {name: getattr(module, name) for name in names}
    )


def _functional_pool(ndim: int) -> FunctionRule:
    return lambda reader, node: reader.average(
        node, reader._argument(node), ndim, _arguments(node, ("kernel_size", *_AVERAGE), _AVERAGE)
    )


_MODULES: dict[type, ModuleRule] = {
    **dict.fromkeys(_CONVOLUTIONS, _Reader.convolution),
    _nn.ReLU: _module_layer(lambda module: ReLU()),
    _nn.LeakyReLU: _module_layer(lambda module: _leaky(module.negative_slope)),
    _nn.GELU: _module_layer(lambda module: _gelu(module.approximate)),
    _nn.Tanh: _module_layer(lambda module: Elementwise(torch.tanh)),
    _nn.SiLU: _module_layer(lambda module: Elementwise(functional.silu)),
    _nn.Softplus: _module_layer(lambda module: _softplus(module.beta, module.threshold)),
    _nn.Sigmoid: _module_layer(lambda module: Sigmoid()),
    _nn.Identity: _keep,
    **dict.fromkeys(
        (_nn.Dropout, _nn.Dropout1d, _nn.Dropout2d, _nn.Dropout3d), _module_layer(lambda module: Dropout(module.p))
    ),
    **dict.fromkeys((_nn.Upsample, _nn.UpsamplingNearest2d, _nn.UpsamplingBilinear2d), _upsample),
    **{getattr(_nn, f"AvgPool{ndim}d"): _pool(ndim) for ndim in (1, 2, 3)},
    **{getattr(_nn, f"CircularPad{ndim}d"): _padding("circular") for ndim in (1, 2, 3)},
    **{getattr(_nn, f"ZeroPad{ndim}d"): _padding("zeros") for ndim in (1, 2, 3)},
    _nn.LayerNorm: _Reader.norm,
}
_FUNCTIONS: dict[Any, FunctionRule] = {
    **dict.fromkeys((functional.relu, torch.relu, "relu", "relu_"), _function_layer(ReLU)),
    functional.leaky_relu: _function_layer(_leaky, "negative_slope"),
    functional.gelu: _function_layer(_gelu),
    functional.silu: _function_layer(lambda: Elementwise(functional.silu)),
    functional.softplus: _function_layer(_softplus, "beta", "threshold"),
    **dict.fromkeys((torch.tanh, functional.tanh, "tanh"), _function_layer(lambda: Elementwise(torch.tanh))),
    **dict.fromkeys((torch.erf, "erf"), _function_layer(Erf)),
    **dict.fromkeys((torch.sin, "sin"), _function_layer(Sin)),
    **dict.fromkeys((torch.abs, "abs"), _function_layer(Abs)),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), _function_layer(Sigmoid)),
    functional.dropout: _function_layer(_dropout, "p", "training"),
    functional.interpolate: _interpolate,
    **{getattr(functional, f"avg_pool{ndim}d"): _functional_pool(ndim) for ndim in (1, 2, 3)},
    functional.pad: _functional_pad,
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _Reader.add),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _Reader.concatenate),
    **dict.fromkeys((torch.permute, "permute"), _Reader.permute),
    **dict.fromkeys((torch.movedim, "movedim"), _Reader.movedim),
    "contiguous": lambda reader, node: reader._argument(node),
}
