"""A network is its nodes: what each does, and what it reads. Every question about it is one walk over them."""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from torch_cntk.covariance.signal import InexactError, Signal
from torch_cntk.layers.base import C, Layer
from torch_cntk.layers.dimensions import common_dimension, flattened, hidden_channels
from torch_cntk.layers.joins import JOINS, Join, agreed
from torch_cntk.layers.plain import Identity

__all__ = ["Network", "Node", "channels_of", "check_distinct_weights", "flatten"]

_VERSIONS = itertools.count(1)
_SHARED = "a layer with weights appears twice; the kernel takes all layers' weights as independent"

V = TypeVar("V")


class Node(NamedTuple):
    """A step of a network.

    Attributes:
        does: a layer, "sum", "concat" or "product".
        inputs: the values that it gets: 0 is the network's input, k what the k-th node gives. One for a layer.
    """

    does: Layer | Join
    inputs: tuple[int, ...]


class _Step(NamedTuple):
    """A node, and what a walk over all of them needs to know at it.

    Attributes:
        does: as the node.
        inputs: as the node.
        name: of the layer among the network's modules; of what joins branches "" where that is the network itself.
        gives: the number of its value.
        shared: whether several nodes read that.
        done: the inputs that no later node reads.
        channels: of the inputs.
        plain: whether it is a network that is read as all are, and has just been looked at with this one.
    """

    does: Layer | Join
    inputs: tuple[int, ...]
    name: str
    gives: int
    shared: bool
    done: tuple[int, ...]
    channels: tuple[int | None, ...]
    plain: bool


class _Reading(Protocol[V]):
    """What a question about a network asks at each of its steps."""

    def share(self, value: V) -> V: ...

    def at(self, step: _Step, given: list[V]) -> V: ...


class _Forward:
    """The finite network: tensors [batch, channels, *size]. Modules may have been replaced (as for several devices)."""

    def __init__(self, modules: Mapping[str, torch.nn.Module | None]) -> None:
        self._modules = modules

    def share(self, value: Tensor) -> Tensor:
        return value

    def at(self, step: _Step, given: list[Tensor]) -> Tensor:
        if isinstance(step.does, str):
            return JOINS[step.does].tensors(given)
        module = self._modules[step.name]
        assert module is not None
        output: Tensor = module(given[0])
        return output


class _Propagation(Generic[C]):
    """The infinitely wide network: covariances, in whatever form they are stored."""

    def share(self, value: C) -> C:
        return value.share()

    def at(self, step: _Step, given: list[C]) -> C:
        try:
            if isinstance(step.does, str):
                joined: C = JOINS[step.does].covariances(given, step.channels)
                return joined
            if isinstance(step.does, Network) and step.plain:
                return step.does._read(given[0], self)
            return step.does.propagate(given[0])
        except InexactError as error:
            text = "" if isinstance(step.does, Network | str) else str(step.does)
            raise error.at(text, step.name or None) from None


M = TypeVar("M", bound=Callable[..., Any])


def _limited(method: M) -> M:
    """A method that goes into the networks within a network, and says so where they are too many."""

    @functools.wraps(method)
    def checked(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except RecursionError:
            raise ValueError(
                "expected networks that are less deeply nested, got some beyond Python's limit of calls: write their "
                "layers one after another"
            ) from None

    return cast("M", checked)


class Network(Layer, abstract=True):
    """Layers in some order of branching: a subclass says in which, everything else follows from its nodes.

    Its layers are its submodules. Layers that come, go or are replaced later are noticed when the network is read.
    """

    _noun: ClassVar[str] = "layer"
    """What the network calls its nodes in messages."""
    _first: ClassVar[int] = 0
    """The number of the first one."""
    _given: int | None = None
    """Channels of the input, where the user has told them."""
    _seen: list[tuple[torch.nn.Module | None, int]] | None = None
    """The layers, and the versions of those that are networks, when this one was last looked at."""
    _version: int = 0
    """Changes with the layers, at any depth."""
    _steps: tuple[_Step, ...] = ()
    _input_shared: bool = False

    @property
    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """The steps of this network, each of which may be a network itself; the last one gives the output."""

    @property
    def layers(self) -> list[Layer]:
        """The layers, first one first."""
        # Not children(), which leaves out an activation that is used twice.
        return [layer for layer in self._modules.values() if isinstance(layer, Layer)]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Run [batch, channels, *size] through all layers.

        Raises:
            ValueError: the outputs of branches that meet differ in shape.
        """
        if self._seen is None or len(self._seen) != len(self._modules):
            self._refresh()
        return self._read(input, _Forward(self._modules))

    def propagate(self, covariance: C) -> C:
        """Each layer by its own rule.

        Raises:
            ValueError: layers that have been added or changed do not fit.
        """
        self._refresh()
        reading: _Propagation[C] = _Propagation()
        return self._read(covariance, reading)

    def require_exact(self, *, gaussian: bool = False) -> None:
        """As ``Layer.require_exact``; weights that belong to two layers are refused as well.

        Raises:
            ValueError: a layer's rule would not be exact at its place, or a weight belongs to two layers.
        """
        super().require_exact(gaussian=gaussian)
        # Weights may have been shared since the layers were looked at.
        if len(set(weights := self._weights())) < len(weights):
            raise ValueError(_SHARED)

    @_limited
    def _weights(self) -> list[int]:
        """The identities of the weights of all layers, at any depth."""
        found: list[int] = []
        for step in self._steps:
            if isinstance(step.does, Network):
                found += step.does._weights()
            elif not isinstance(step.does, str) and (step.does._parameters or step.does._modules):
                found += map(id, step.does.parameters())
        return found

    @_limited
    def _read(self, value: V, reading: _Reading[V]) -> V:
        """Walk over the nodes: the only place that does."""
        steps = self._steps
        values = {0: reading.share(value) if self._input_shared else value}
        for step in steps:
            given = [values[k] for k in step.inputs]
            # Not kept for longer than it is read: the layers of a finite network are large.
            for k in step.done:
                del values[k]
            output = reading.at(step, given)
            values[step.gives] = reading.share(output) if step.shared else output
        return values[len(steps)]

    @_limited
    def _refresh(self) -> int:
        """Look at the nodes again if layers have come, gone or changed; the version of what there is now.

        Raises:
            TypeError: there is something that is no layer of torch_cntk.
            ValueError: the layers do not fit each other, or a layer's rule would not be exact at its place.
        """
        seen = [(m, m._refresh() if isinstance(m, Network) else 0) for m in self._modules.values()]
        if seen == self._seen:
            return self._version
        self._seen = None
        for name, member in self._modules.items():
            if not isinstance(member, Layer):
                raise TypeError(f"expected layers of torch_cntk, got {type(member).__name__} as {self._noun} {name}")
        nodes = self.nodes
        check_distinct_weights([node.does for node in nodes if not isinstance(node.does, str)])
        channels = channels_of(nodes, self._given, self._place)
        flat = flattened(nodes, self._place)
        # Past ``Module.__setattr__``, which takes as long as all else here.
        vars(self).update(
            ndim=common_dimension(nodes, flat, self._place),
            flattens=flat[-1],
            hides_channels=hidden_channels(nodes),
            in_channels=channels[0],
            out_channels=channels[-1],
            ends_in=_head_of(nodes, self._place),
            _steps=_steps_of(nodes, channels, self._names(nodes)),
            _input_shared=sum(node.inputs.count(0) for node in nodes) > 1,
        )
        self._read(Signal.of_input(gaussian=True), _Propagation())
        vars(self).update(_seen=seen, _version=next(_VERSIONS))
        return self._version

    def _names(self, nodes: Sequence[Node]) -> list[str]:
        """Of the nodes: those of the submodules, and "" for what joins them."""
        names = iter(self._modules)
        return ["" if isinstance(node.does, str) else next(names) for node in nodes]

    def _place(self, index: int) -> str:
        """Where the node of an index is, in words."""
        return f"{self._noun} {index + self._first}"


def check_distinct_weights(layers: Sequence[Layer]) -> None:
    """Check that no weight belongs to two layers.

    Raises:
        ValueError: one does.
    """
    # Most layers have none at all, which is seen faster like this.
    weighted = (layer for layer in layers if layer._parameters or layer._modules)
    parameters = [id(parameter) for layer in weighted for parameter in layer.parameters()]
    if len(set(parameters)) < len(parameters):
        raise ValueError(_SHARED)


def _steps_of(nodes: Sequence[Node], channels: Sequence[int | None], names: Sequence[str]) -> tuple[_Step, ...]:
    steps = []
    # Backwards: how often each value is read from here on.
    readers: dict[int, int] = {}
    for place in reversed(range(len(nodes))):
        does, inputs = nodes[place]
        steps.append(
            _Step(
                does,
                inputs,
                names[place],
                place + 1,
                readers.get(place + 1, 0) > 1,
                tuple([k for k in dict.fromkeys(inputs) if k not in readers]),
                tuple([channels[k] for k in inputs]),
                isinstance(does, Network) and type(does).propagate is Network.propagate,
            )
        )
        for k in inputs:
            readers[k] = readers.get(k, 0) + 1
    return tuple(reversed(steps))


def _head_of(nodes: Sequence[Node], place: Callable[[int], str]) -> str | None:
    """The head that the nodes end in, if they do.

    Raises:
        ValueError: something follows a head.
    """
    heads: dict[int, str] = {}
    for index, node in enumerate(nodes):
        before = next((heads[k] for k in node.inputs if k in heads), None)
        if before is not None:
            raise ValueError(f"expected {before} as the last layer, got {node.does} after it as {place(index)}")
        if not isinstance(node.does, str) and node.does.ends_in is not None:
            heads[index + 1] = node.does.ends_in
    return heads.get(len(nodes))


def channels_of(
    nodes: Sequence[Node], given: int | None, place: Callable[[int], str] = "node {}".format
) -> list[int | None]:
    """The channels of the input and of what each node gives; None where any number will do.

    Args:
        nodes: of the network.
        given: channels of the input, if they are known.
        place: words for the place of a node, given its index; for messages.

    Raises:
        ValueError: layers do not fit each other, or the channels of a concatenation are not known.
    """
    channels: list[int | None] = [_input_channels(nodes, given)]
    givers = [-1]
    for index, node in enumerate(nodes):
        before = [channels[k] for k in node.inputs]
        giver = givers[node.inputs[0]]
        if isinstance(node.does, str):
            channels.append(JOINS[node.does].channels(before))
            givers.append(index)
            continue
        needed = node.does.in_channels
        if needed is not None and before[0] not in (None, needed):
            source = "the input" if giver < 0 else f"{place(giver)}, {nodes[giver].does},"
            raise ValueError(f"{place(index)}, {node.does}, needs {needed} channels, but {source} gives {before[0]}")
        kept = node.does.out_channels is None and not node.does.hides_channels
        channels.append(before[0] if kept else node.does.out_channels)
        givers.append(giver if kept else index)
    return channels


def _input_channels(nodes: Sequence[Node], given: int | None) -> int | None:
    """The channels that the layers need which read the input, at once or through others that keep its channels.

    Raises:
        ValueError: they need different ones.
    """
    unchanged, needed = {0}, [given]
    for index, node in enumerate(nodes):
        if not unchanged.issuperset(node.inputs):
            continue
        if isinstance(node.does, str):
            keeps = node.does != "concat"
        else:
            needed.append(node.does.in_channels)
            keeps = node.does.out_channels is None and not node.does.hides_channels
        if keeps:
            unchanged.add(index + 1)
    return agreed(needed, "the same number of input channels")


def flatten(net: Layer) -> list[Node]:
    """The steps of a network, however its parts are nested; identities and joins of a single branch left out."""
    nodes: list[Node] = []
    end = _inline(net, 0, nodes)
    if end != len(nodes):
        # The last step gives the output.
        nodes.append(Node(Identity(), (end,)))
    return nodes


def _inline(layer: Layer, value: int, nodes: list[Node]) -> int:
    """Append the steps of a layer that reads a value; the number of the value that it gives."""
    if not isinstance(layer, Network):
        if type(layer) is Identity:
            return value
        nodes.append(Node(layer, (value,)))
        return len(nodes)
    values = [value]
    for node in layer.nodes:
        given = tuple(values[k] for k in node.inputs)
        if not isinstance(node.does, str):
            values.append(_inline(node.does, given[0], nodes))
        elif len(given) == 1:
            values.append(given[0])
        else:
            nodes.append(Node(node.does, given))
            values.append(len(nodes))
    return values[-1]
