"""What a model computes, as a graph of torch.fx in which nothing is left out.

torch.fx alone loses what happens beside the calls: hooks of modules that it does not look into, ``x += y``, forward
methods of single objects, random numbers. Here all of that is in the graph, or refused.
"""

from __future__ import annotations

import inspect
import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as torch_module
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from torch_cntk.conversion.inert import reweights
from torch_cntk.layers import Layer

__all__ = ["NoRuleError", "drops_always", "in_place", "name_of", "place_of", "trace", "type_of"]

_ROOT = "model"
"""The name that the model has in the module that is traced."""

_IN_PLACE_OPERATORS = (
    *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"),
    *("iand", "ior", "ixor", "ilshift", "irshift"),
)


_TOO_DEEP = (
    "expected modules that are less deeply nested, got a {} beyond Python's limit of calls, which torch's own forward "
    "pass soon meets as well: write the parts one after another"
)


class NoRuleError(ValueError):
    """A model holds something that has no rule."""


def type_of(module: torch.nn.Module) -> type[torch.nn.Module]:
    """The class of a module, as it was before parametrisations were put on it."""
    kind: type[torch.nn.Module] = parametrize.type_before_parametrizations(module)
    return kind


def place_of(name: str) -> str:
    """Where a module of the traced one is, in words."""
    inside = name.removeprefix(_ROOT).removeprefix(".")
    return repr(inside) if inside else "the model itself"


def name_of(node: torch.fx.Node) -> str:
    """What a node of a graph calls, for messages."""
    return str(getattr(node.target, "__name__", node.target))


class _Model(torch.nn.Module):
    """The model as a part, so that its hooks, its defaults and a forward method of its own count as they do in use."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.add_module(_ROOT, model)

    def forward(self, input: Any) -> Any:  # noqa: A002 - torch.nn's name
        return self._modules[_ROOT](input)  # type: ignore[misc]


class _Proxy(torch.fx.Proxy):
    """A tensor of the model while it is traced: what is done to it in place is a step of the graph as well."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node"):
            raise NoRuleError(f"from_torch knows no rule for setting the attribute {name!r} of a tensor")
        super().__setattr__(name, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


def _operator_in_place(name: str) -> Callable[[_Proxy, Any], Any]:
    function = getattr(operator, name)
    return lambda proxy, other: proxy.tracer.create_proxy("call_function", function, (proxy, other), {})


for _name in _IN_PLACE_OPERATORS:
    # torch.fx would take ``x += y`` for ``x = x + y``, which other names of the same tensor do not see.
    setattr(_Proxy, f"__{_name}__", _operator_in_place(_name))


def _contexts() -> tuple[bool, ...]:
    """What surrounds a step: whether gradients are recorded, and whether dtypes are chosen by torch."""
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _Tracer(torch.fx.Tracer):
    """Looks into everything but the modules of torch.nn and those that are left out."""

    def __init__(self, ignore: tuple[type[torch.nn.Module], ...]) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self._ignore = ignore
        self._mode = _contexts()

    def create_node(self, *arguments: Any, **options: Any) -> torch.fx.Node:
        # The graph would not tell of them.
        if _contexts() != self._mode:
            raise NoRuleError(
                "from_torch knows no rule for torch.no_grad, inference_mode or autocast within the forward pass: leave "
                "them out, as the kernel is that of training all layers, in one dtype"
            )
        return super().create_node(*arguments, **options)

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, self._ignore):
            return True
        # A forward method of the object's own is not that of its class.
        ours = type_of(m).__module__.startswith(("torch.nn", "torch.ao.nn")) and "forward" not in vars(m)
        return ours and not isinstance(m, torch.nn.Sequential)

    def call_module(self, m: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not isinstance(m, self._ignore):
            try:
                name = self.path_of_module(m)
            except NameError:
                # Made on the way, such as a part of a Sequential.
                _require_plain(m, "")
                return forward(*args, **kwargs)
            _require_plain(m, name)
            wrapped = _wrapped(m)
            if wrapped is not None:
                return self.call_module(wrapped, wrapped.forward, args, kwargs)
        return super().call_module(m, forward, args, kwargs)


def _wrapped(module: torch.nn.Module) -> torch.nn.Module | None:
    """What a module runs that only says where or how: on several devices, or compiled."""
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        inside = module.module
    else:
        inside = module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None
    return inside if isinstance(inside, torch.nn.Module) else None


def _require_plain(module: torch.nn.Module, name: str) -> None:
    """Check that a module that is called does what its class says.

    Raises:
        NoRuleError: it has hooks, or no weights yet, or is a program.
    """
    where = f"{type_of(module).__name__}, at {place_of(name)}"
    if isinstance(module, Layer):
        raise NoRuleError(f"expected a model of torch.nn, got a layer of torch_cntk: {where}")
    if isinstance(module, torch.jit.ScriptModule):
        raise NoRuleError(
            f"from_torch cannot look into the TorchScript of {where}: give the module that it was made of"
        )
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        raise NoRuleError(f"expected a model that knows its sizes, got {where}: run it once")
    hooks = [hook for hook in module._forward_pre_hooks.values() if not reweights(hook)]
    hooks += module._forward_hooks.values()
    if hooks:
        hook = getattr(hooks[0], "__qualname__", type(hooks[0]).__name__)
        raise NoRuleError(
            f"from_torch knows no rule for forward hooks, such as {hook} on {where}: remove it, or write what it does "
            "into the forward pass"
        )


@contextmanager
def _as_before(module: torch.nn.Module) -> Iterator[None]:
    """Leave the attributes of a model's parts as they are: a forward pass may note things in them."""
    kept: list[dict[str, Any]] = []
    for part in module.modules():
        parts = vars(part), part._parameters, part._buffers, part._modules
        # Those of TorchScript are none.
        kept += [now for now in parts if isinstance(now, dict)]
    states = [(now, dict(now)) for now in kept]
    try:
        yield
    finally:
        for now, state in states:
            if len(now) != len(state) or any(now.get(key) is not value for key, value in state.items()):
                now.clear()
                now.update(state)


@contextmanager
def _no_random_numbers() -> Iterator[None]:
    """Leave the global generators as they are.

    Raises:
        NoRuleError: something was drawn from them.
    """
    # numpy's old generator is the one that models would draw from.
    state, python = torch.get_rng_state(), random.getstate()
    old = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        moved = not torch.equal(state, torch.get_rng_state()) or python != random.getstate()
        moved = moved or str(old) != str(np.random.get_state())  # noqa: NPY002
        torch.set_rng_state(state)
        random.setstate(python)
        np.random.set_state(old)  # noqa: NPY002
    if moved:
        raise NoRuleError("expected a forward pass that draws no random numbers, got one that does: call eval() first")


def trace(module: torch.nn.Module, ignore: tuple[type[torch.nn.Module], ...]) -> tuple[torch.nn.Module, torch.fx.Graph]:
    """The graph of a model's forward pass, and the module that its names belong to.

    Raises:
        NoRuleError: it holds something that a graph cannot say.
        ValueError: torch.fx cannot trace it.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise NoRuleError("from_torch knows no rule for forward hooks of all modules: remove them first")
    root = _Model(module)
    try:
        with _no_random_numbers(), _as_before(module):
            return root, _Tracer(ignore).trace(root)
    except NoRuleError:
        raise
    except RecursionError:
        raise NoRuleError(_TOO_DEEP.format(type(module).__name__)) from None
    except Exception as error:  # whatever the model's code raises when it meets a proxy
        raise ValueError(
            f"torch.fx cannot trace {type(module).__name__}: {error}. Expected a forward pass of one input, without "
            "branching on the values or shapes of tensors"
        ) from error


def drops_always(module: torch.nn.Module, ignore: tuple[type[torch.nn.Module], ...]) -> bool:
    """Whether a model calls dropout in eval mode as well: ``functional.dropout`` does, unless it is told the mode.

    Raises:
        ValueError: the model cannot be traced in eval mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        _, graph = trace(module, ignore)
    finally:
        for part, training in modes:
            part.training = training
    calls = [node for node in graph.nodes if node.target is torch.nn.functional.dropout]
    return any(_bound(node).get("training", True) for node in calls)


def _bound(node: torch.fx.Node) -> dict[str, Any]:
    return dict(inspect.signature(torch.nn.functional.dropout).bind(*node.args, **node.kwargs).arguments)


def in_place(node: torch.fx.Node, modules: dict[str, torch.nn.Module], named: dict[str, Any]) -> bool:
    """Whether a step changes its first argument.

    Args:
        node: of the graph.
        modules: by name.
        named: arguments of the call by their names, as far as they are known.
    """
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = name_of(node)
    if named.get("out") is not None:
        return True
    if node.op == "call_function" and name in (*_IN_PLACE_OPERATORS, "setitem"):
        return True
    return (name.endswith("_") and not name.endswith("__")) or bool(named.get("inplace", False))
