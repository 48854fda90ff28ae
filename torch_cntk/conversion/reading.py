"""Goes through a traced model step by step: what each value is, where it lies in memory, and who reads it later."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torch_cntk.conversion.hints import hint_for
from torch_cntk.conversion.inert import Source
from torch_cntk.conversion.tracing import NoRuleError, in_place, name_of, place_of, type_of
from torch_cntk.covariance import Extent
from torch_cntk.covariance.lengths import Change
from torch_cntk.covariance.lengths import Length as Chain
from torch_cntk.layers import GlobalAvgPool, Layer, Node
from torch_cntk.layers.joins import Join

__all__ = ["Length", "Reader", "Result", "Sizes", "Value", "lengths_after", "options_of"]


@dataclass(frozen=True)
class Value:
    """A feature map of the model.

    Attributes:
        place: among the values of the new network.
        memory: where it lies: what is done in place to one value of a memory is done to all.
        lengths: what has become of the length of each of up to three axes.
        channels_last: whether the model has permuted its axes.
        padding: what has been put around the image for the next convolution: mode and pixels an axis.
        flat: whether there are no pixels any more.
    """

    place: int
    memory: int
    lengths: tuple[Chain, ...] = (Chain(),) * 3
    channels_last: bool = False
    padding: tuple[str, tuple[int, ...]] | None = None
    flat: bool = False


@dataclass(frozen=True)
class Length:
    """The length of a spatial axis, as a function of that of the input's."""

    axis: int
    chain: Chain


@dataclass(frozen=True)
class Sizes:
    """The shape of a value, or the part of it from an axis on: 0 is the batch, -2 the last but one."""

    value: Value
    first: int = 0


@dataclass(frozen=True)
class Images:
    """The number of images, which no step changes."""


Result = Value | Length | Sizes | Images | Tensor
"""What a step of the model gives: a tensor is one of its parameters or buffers."""


class Reader:
    """The steps of the new network, and where their weights are.

    Attributes:
        nodes: the steps so far.
        sources: the weights of each step that has some.
        origins: what each step is in the model, and where.
        modes: whether each step that is a module of the model is in training.
        training: whether the model is.
        ndim: the number of spatial dimensions, once it is known.
        multiple: of which the sizes of images must be multiples, for the new network to do what the model does.
    """

    def __init__(
        self,
        root: torch.nn.Module,
        graph: torch.fx.Graph,
        bias_std: float,
        weights: bool,
        ignore: tuple[type[torch.nn.Module], ...],
    ) -> None:
        self.root = root
        self.modules = dict(root.named_modules(remove_duplicate=False))
        self.graph = graph
        self.bias_std = bias_std
        self.weights = weights
        self.ignore = ignore
        self.nodes: list[Node] = []
        self.sources: list[Source | None] = []
        self.modes: list[bool | None] = []
        self.origins: list[str] = []
        self._now = ""
        self.ndim: int | None = None
        self.multiple = 1
        self.model = next(iter(root.children()))
        self.training = self.model.training
        self._values: dict[torch.fx.Node, Result] = {}
        self._owners: list[tuple[Tensor, str]] = []
        self._memories = 0
        self._doubts: set[frozenset[int]] = set()
        self._order = {node: place for place, node in enumerate(graph.nodes)}

    # Values.

    def value(self, node: torch.fx.Node, index: int = 0) -> Value:
        """The feature map that is an argument of a call."""
        named = self.named(node)
        argument = node.args[index] if index < len(node.args) else named.get(("input", "other")[index])
        if index == 0 and not node.args:
            argument = named.get("input", named.get("self"))
        return self.feature_map(node, argument, index)

    def feature_map(self, node: torch.fx.Node, argument: Any, index: int = 0) -> Value:
        """What an argument is, which must be a feature map."""
        known = self.known(argument)
        if isinstance(known, Value):
            return known
        raise self.refuse(node, name_of(node), f"expected a feature map as its argument {index}, got {_words(known)}")

    def known(self, argument: Any) -> Any:
        """What an argument of a call is: that of a node is what it gives."""
        if isinstance(argument, tuple | list):
            return tuple(self.known(part) for part in argument)
        return self._values[argument] if isinstance(argument, torch.fx.Node) else argument

    def number(self, argument: Any) -> float | None:
        """A constant, if the argument is one: a number, or a buffer of one number."""
        known = self.known(argument)
        if isinstance(known, Tensor) and not isinstance(known, torch.nn.Parameter) and known.numel() == 1:
            return None if known.is_meta else float(known)
        return float(known) if isinstance(known, int | float) and not isinstance(known, bool) else None

    def is_constant(self, argument: Any) -> bool:
        """Whether an argument is a number or a buffer: nothing that is trained, nor a feature map."""
        known = self.known(argument)
        buffer = isinstance(known, Tensor) and not isinstance(known, torch.nn.Parameter)
        return buffer or isinstance(known, int | float)

    def named(self, node: torch.fx.Node) -> dict[str, Any]:
        """The arguments of a call by their names, those of functions written in Python all of them."""
        if node.op == "call_function" and inspect.isfunction(node.target):
            try:
                return dict(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments)
            except (TypeError, ValueError):
                pass
        return dict(node.kwargs)

    def plain(self, node: torch.fx.Node, value: Value) -> Value:
        """A value that nothing is pending for."""
        if value.padding is not None:
            raise self.refuse(node, "padding", "it must be followed by a convolution at once")
        if value.channels_last:
            raise self.refuse(node, "permuted axes", "expected channels at axis 1 again")
        return value

    def is_row(self, value: Value) -> bool:
        """Whether a value has no pixels: a flattened one, or any of a fully connected network."""
        connected = any(isinstance(node.does, Layer) and node.does.ndim == 0 for node in self.nodes)
        return value.flat or (self.ndim is None and connected)

    # Steps.

    def emit(
        self, does: Layer | Join, *inputs: Value, source: Source | None = None, training: bool | None = None
    ) -> Value:
        """One more step, and the new value that it gives."""
        self.nodes.append(Node(does, tuple(value.place for value in inputs)))
        self.sources.append(source)
        self.origins.append(self._now)
        self.modes.append(training if source is None else source.training)
        if isinstance(does, Layer) and does.ndim:
            self.ndim = does.ndim
        return replace(inputs[0], place=len(self.nodes), memory=self.new_memory())

    def new_memory(self, doubt: Value | None = None) -> int:
        """A place in memory; one of which it is not known whether it is that of another value, if one is given."""
        self._memories += 1
        if doubt is not None:
            self._doubts.add(frozenset((doubt.memory, self._memories)))
        return self._memories

    def read(self, step: Callable[[Reader, torch.fx.Node], Result]) -> int:
        """Take all steps that matter; the place of the output among the values.

        Raises:
            NoRuleError: something has no rule.
        """
        wanted = self._wanted()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = Value(0, self.new_memory())
            elif node.op == "output":
                return self._finish(node)
            elif node in wanted:
                self._now = self._where(node)
                before = self._changed(node)
                self._values[node] = step(self, node)
                if before is not None:
                    self._spread(node, before)
        raise NoRuleError("expected a model that gives something, got one without an output")

    def _wanted(self) -> set[torch.fx.Node]:
        """The steps that the output depends on, or that change something in place."""
        wanted: set[torch.fx.Node] = set()
        for node in reversed(self.graph.nodes):
            if node.op == "output" or node in wanted or self._in_place(node):
                wanted.add(node)
                wanted.update(node.all_input_nodes)
        return wanted

    def _in_place(self, node: torch.fx.Node) -> bool:
        return in_place(node, self.modules, self.named(node))

    def _changed(self, node: torch.fx.Node) -> Value | None:
        """The value that a step changes in place, if it does."""
        named = self.named(node)
        if named.get("out") is not None:
            raise self.refuse(node, name_of(node), "it writes into another tensor (out=): leave that out")
        if not self._in_place(node) or (node.args and isinstance(self.known(node.args[0]), Length)):
            return None
        return self.value(node)

    def _spread(self, node: torch.fx.Node, before: Value) -> None:
        """Change all names of what has been changed in place."""
        after = self._values[node]
        assert isinstance(after, Value)
        for other, value in self._values.items():
            if other is node or not isinstance(value, Value):
                continue
            read_later = any(self._order[user] > self._order[node] for user in other.users)
            if read_later and frozenset((value.memory, before.memory)) in self._doubts:
                raise self.refuse(
                    node, name_of(node), f"it changes in place what {other.name!r} may be a view of: clone() it before"
                )
            if value.memory == before.memory:
                self._values[other] = replace(value, place=after.place)
        self._values[node] = replace(after, memory=before.memory)

    def _finish(self, node: torch.fx.Node) -> int:
        (result,) = node.args
        known = self.known(result)
        if not isinstance(known, Value):
            raise NoRuleError(f"expected a model of one output tensor, got {_words(known)}")
        return self.plain(node, known).place

    # Weights.

    def own(self, node: torch.fx.Node, what: str, place: str, *parameters: Tensor) -> None:
        """Note that parameters are used at a place.

        Raises:
            ValueError: some of them, or the memory of some, are in use elsewhere.
        """
        for parameter in parameters:
            if parameter.is_complex():
                raise self.refuse(node, what, "expected real weights, got complex ones")
            owner = next((place for one, place in self._owners if _overlap(one, parameter)), None)
            if owner is not None:
                where = "" if owner == place else f" (also at {owner})"
                raise self.refuse(node, what, f"its weights are used twice{where}; the kernel needs new ones")
        self._owners += [(parameter, place) for parameter in parameters]

    # Messages.

    def refuse(self, node: torch.fx.Node, what: str, hint: str = "") -> NoRuleError:
        """What is raised where there is no rule."""
        place = self._where(node).partition(", at ")[2]
        return NoRuleError(f"from_torch knows no rule for {what}, at {place}{': ' + hint if hint else ''}")

    def _where(self, node: torch.fx.Node) -> str:
        """What a step is, and where."""
        if node.op == "call_module":
            name = str(node.target)
            return f"{type_of(self.modules[name]).__name__}, at {place_of(name)}"
        stack = node.meta.get("nn_module_stack") or {}
        inside = place_of(next(reversed(stack), "")) if stack else ""
        of = f" of {inside}" if inside.startswith("'") else ""
        return f"{name_of(node)}, at {node.name!r} in the forward pass{of}"

    def without_rule(self, node: torch.fx.Node) -> NoRuleError:
        """Likewise, of a module or function that no rule exists for."""
        if node.op == "call_module":
            kind = type_of(self.modules[str(node.target)])
            return self.refuse(node, kind.__name__, hint_for(kind))
        return self.refuse(node, name_of(node), hint_for(name_of(node)))


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Whether two parameters are the same, or lie in the same memory."""
    # On the meta device nothing lies anywhere.
    if first is second or first.is_meta or second.is_meta or first.device != second.device:
        return first is second
    (start, end), (other, last) = _extent(first), _extent(second)
    return start < last and other < end


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Where the memory of a tensor begins and ends."""
    if not tensor.numel():
        return 0, 0
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size()


def _words(known: Any) -> str:
    """A result that is not what was expected, in words."""
    if isinstance(known, torch.nn.Parameter):
        return f"a parameter of shape {tuple(known.shape)}"
    if isinstance(known, Tensor):
        return f"a constant tensor of shape {tuple(known.shape)}"
    if isinstance(known, Length | Sizes | Images):
        return "a size"
    return repr(known) if isinstance(known, int | float | str | None) else f"a {type(known).__name__}"


def lengths_after(layer: Layer, lengths: tuple[Chain, ...]) -> tuple[Chain, ...]:
    """What has become of the lengths of axes behind a layer."""
    if isinstance(layer, GlobalAvgPool):
        return (Chain((Change(0, 1),)),) * len(lengths)
    ndim = layer.ndim or len(lengths)
    extent = replace(Extent.start(ndim), length=lengths[:ndim])
    return layer.propagate(extent).length + lengths[ndim:]


def options_of(reader: Reader, node: torch.fx.Node, names: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call after its feature map, by name; those of torch's functions in C by their order.

    Raises:
        ValueError: there is one that no rule knows.
    """
    given = reader.named(node)
    given = {name: value for name, value in given.items() if name not in ("input", "self", "inplace", "out")}
    if not (node.op == "call_function" and inspect.isfunction(node.target)):
        given = dict(zip(names, node.args[1:], strict=False)) | given
        if len(node.args) - 1 > len(names):
            raise reader.refuse(node, name_of(node), f"expected at most {len(names)} options")
    unknown = {name: value for name, value in given.items() if name not in names}
    if any(value not in (None, False, _default(node.target, name)) for name, value in unknown.items()):
        raise reader.refuse(node, name_of(node), f"expected no option {next(iter(unknown))}")
    return {**names, **{name: reader.known(value) for name, value in given.items() if name in names}}


def _default(function: Any, name: str) -> Any:
    """The default of an option of a function."""
    if not inspect.isfunction(function):
        return None
    return inspect.signature(function).parameters[name].default
