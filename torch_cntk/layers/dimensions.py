"""Where in a network there are pixels, and of how many dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_cntk.layers.network import Node

__all__ = ["common_dimension", "flattened", "hidden_channels"]


def flattened(nodes: Sequence[Node], place: Callable[[int], str]) -> list[bool]:
    """Whether the pixels of the input, and of what each node gives, have been flattened or pooled away.

    Raises:
        ValueError: branches meet of which some have pixels.
    """
    flat = [False]
    for index, node in enumerate(nodes):
        given = {flat[k] for k in node.inputs}
        if len(given) > 1:
            raise ValueError(f"expected branches with outputs of one size, got some without pixels at {place(index)}")
        flat.append(given.pop() or (not isinstance(node.does, str) and node.does.flattens))
    return flat


def common_dimension(nodes: Sequence[Node], flat: Sequence[bool], place: Callable[[int], str]) -> int | None:
    """The number of spatial dimensions of the layers that have pixels.

    Raises:
        ValueError: they differ, or a layer needs pixels where there are none.
    """
    known: int | None = None
    for index, node in enumerate(nodes):
        ndim = None if isinstance(node.does, str) else node.does.ndim
        if ndim is None:
            continue
        if flat[node.inputs[0]]:
            if ndim:
                raise ValueError(
                    f"expected layers without pixels after a flattening, got {node.does} as {place(index)}"
                )
            continue
        if known not in (None, ndim):
            raise ValueError(
                "expected layers of the same number of spatial dimensions: "
                f"{place(index)}, {node.does}, is {ndim}-dimensional, those before {known}"
            )
        known = ndim
    return known


def hidden_channels(nodes: Sequence[Node]) -> bool:
    """Whether the number of channels of the output depends on the size of the image, which flattening makes it do."""
    hidden = [False]
    for node in nodes:
        before = any(hidden[k] for k in node.inputs)
        if isinstance(node.does, str):
            hidden.append(before)
        else:
            hidden.append(node.does.hides_channels or (before and node.does.out_channels is None))
    return hidden[-1]
