"""What a traced model says of axes: permutations, copies, and sizes as fractions of the input's."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from torch_cntk.conversion.reading import Images, Length, Reader, Result, Sizes, Value, options_of
from torch_cntk.conversion.tracing import name_of
from torch_cntk.covariance.lengths import Change
from torch_cntk.covariance.lengths import Length as Chain

__all__ = ["SHAPES", "resized"]


def _permuted(reader: Reader, node: torch.fx.Node) -> Value:
    """Channels to the end, or back."""
    value = reader.value(node)
    dims = node.args[1:] or (node.kwargs.get("dims", ()),)
    if len(dims) == 1 and isinstance(dims[0], tuple | list):
        dims = tuple(dims[0])
    n = len(dims)
    last, back = (0, *range(2, n), 1), (0, n - 1, *range(1, n - 1))
    if reader.ndim is None and n > 2:
        reader.ndim = n - 2
    return _moved(reader, node, value, tuple(d % n if isinstance(d, int) else d for d in dims), last, back)


def _moved_axis(reader: Reader, node: torch.fx.Node) -> Value:
    """As ``_permuted``."""
    options = options_of(reader, node, {"source": None, "destination": None})
    dims = (options["source"], options["destination"])
    return _moved(reader, node, reader.value(node), dims, (1, -1), (-1, 1))


def _moved(
    reader: Reader,
    node: torch.fx.Node,
    value: Value,
    dims: tuple[Any, ...],
    last: tuple[int, ...],
    back: tuple[int, ...],
) -> Value:
    if value.padding is None and dims == (back if value.channels_last else last):
        return replace(value, channels_last=not value.channels_last)
    raise reader.refuse(node, name_of(node), "expected channels to move to the end, and back after LayerNorm")


def _copied(reader: Reader, node: torch.fx.Node) -> Value:
    return replace(reader.value(node), memory=reader.new_memory())


def _contiguous(reader: Reader, node: torch.fx.Node) -> Value:
    """The tensor itself, or a copy of it."""
    value = reader.value(node)
    return replace(value, memory=reader.new_memory(value))


def _attribute(reader: Reader, node: torch.fx.Node) -> Result:
    known = reader.known(node.args[0])
    if not isinstance(known, Value) or node.args[1] != "shape":
        raise reader.without_rule(node)
    return Sizes(known)


def _size(reader: Reader, node: torch.fx.Node) -> Result:
    value = reader.value(node)
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return Sizes(value) if dim is None else _length(reader, node, Sizes(value), dim)


def _item(reader: Reader, node: torch.fx.Node) -> Result:
    """Of a shape: an axis, or all from one on."""
    sizes, key = reader.known(node.args[0]), node.args[1]
    if not isinstance(sizes, Sizes):
        raise reader.without_rule(node)
    if isinstance(key, slice) and key.stop is None and key.step is None and isinstance(key.start, int):
        if sizes.first == 0:
            return Sizes(sizes.value, key.start)
    elif not isinstance(key, slice):
        return _length(reader, node, sizes, key)
    raise reader.refuse(node, "part of a shape", "expected an axis, or all from one on")


def _length(reader: Reader, node: torch.fx.Node, sizes: Sizes, key: Any) -> Length | Images:
    """The length of a spatial axis, or the number of images."""
    if isinstance(key, int) and key == 0 and sizes.first == 0:
        return Images()
    if isinstance(key, int) and not sizes.value.channels_last:
        of_all = key >= 0 and sizes.first >= 0
        axis = key + sizes.first - 2 if of_all else key + (reader.ndim or 0) - (sizes.first if key >= 0 else 0)
        if sizes.first < 0 and key >= 0:
            axis = key + sizes.first + (reader.ndim or 0)
        if axis >= 0 and (of_all or reader.ndim):
            return Length(axis, sizes.value.lengths[min(axis, 2)])
    raise reader.refuse(node, "the number of channels", "only sizes of images are known, as of the input's")


def resized(reader: Reader, node: torch.fx.Node, size: Any, value: Value) -> tuple[Any, Any]:
    """The options ``size`` and ``scale_factor`` for an interpolation to a size, where it is a factor.

    Args:
        reader: of the model.
        node: the interpolation.
        size: as it was given.
        value: that is interpolated.
    """
    ndim = reader.ndim or 1
    if isinstance(size, Sizes) and (size.first == 2 or size.first == -ndim) and not size.value.channels_last:
        wanted = size.value.lengths[:ndim]
    elif isinstance(size, tuple) and all(isinstance(part, Length) for part in size):
        if [part.axis for part in size] != list(range(len(size))):
            raise reader.refuse(node, name_of(node), "expected the axes of a size in their order")
        wanted = tuple(part.chain for part in size)
    elif isinstance(size, tuple) and any(isinstance(part, Images) for part in size):
        raise reader.refuse(node, name_of(node), "the number of images is no size: expected that of a feature map")
    else:
        return size, None
    pairs = list(zip(value.lengths, wanted, strict=False))
    if any(old.scale == 0 for old, _ in pairs):
        raise reader.refuse(node, name_of(node), "expected an image, got one pixel to which all have been pooled")
    factors = {new.scale / old.scale for old, new in pairs}
    factor = next(iter(factors))
    multiples = [_multiple(old, new, factor.numerator) for old, new in pairs]
    if len(factors) > 1 or factor.denominator != 1 or None in multiples:
        texts = " and ".join(sorted(map(str, factors)))
        about = "about " if None in multiples else ""
        raise reader.refuse(
            node, name_of(node), f"expected a size that is one integer times its input's, got {about}{texts}"
        )
    reader.multiple = math.lcm(reader.multiple, *(multiple or 1 for multiple in multiples))
    return None, int(factor)


def _multiple(old: Chain, new: Chain, factor: int) -> int | None:
    """Of which number an axis of the input must be a multiple for one length to be a factor times another."""
    if old.then(Change(factor)) == new:
        return 1
    granules = old.granule, new.granule
    return None if None in granules else math.lcm(*(granule or 1 for granule in granules))


SHAPES: dict[Any, Callable[[Reader, torch.fx.Node], Result]] = {
    **dict.fromkeys((torch.permute, "permute"), _permuted),
    **dict.fromkeys((torch.movedim, "movedim", torch.moveaxis, "moveaxis"), _moved_axis),
    **dict.fromkeys((torch.clone, "clone"), _copied),
    "contiguous": _contiguous,
    builtins.getattr: _attribute,
    "size": _size,
    operator.getitem: _item,
}
"""By function, or name of a method."""
