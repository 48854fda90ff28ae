"""The facts of a node of an expression, and how expressions of thousands of nodes are printed, copied and pickled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

import torch

from torch_cntk._internal.checks import shape_text
from torch_cntk.covariance.base import Covariance
from torch_cntk.covariance.lattice.order import parents_first
from torch_cntk.covariance.table import Geometry

if TYPE_CHECKING:
    from torch_cntk.covariance.lattice.expression import Lattice

__all__ = ["Node"]


@dataclass(frozen=True, eq=False, repr=False)
class Node(Covariance):
    """What every node of an expression has; two of them are equal if they are the same.

    Attributes:
        parents: the nodes that it is made from.
        level: those of them whose slabs it is computed from, slab by slab; not those whose finished table it reads.
        geometry: size, period and symmetry of the table that it stands for.
        device: where it is computed.
        load: positions of the largest image on the way to one displacement of this node, from the last resampling on.
        untrained: whether no weight layer has been passed yet, so that Theta = 0 and only Sigma is computed.
        margin: rows on both sides of a band of positions (see ``Slab``) that get wrong values; None where the rules
            do not know bands.
    """

    parents: tuple[Lattice, ...] = field(init=False)
    level: tuple[Lattice, ...] = field(init=False)
    geometry: Geometry = field(init=False)
    device: torch.device = field(init=False)
    load: int = field(init=False)
    untrained: bool = field(init=False)
    margin: int | None = field(init=False)

    def _settle(
        self,
        parents: tuple[Lattice, ...],
        geometry: Geometry,
        *,
        level: tuple[Lattice, ...] | None = None,
        device: torch.device | None = None,
        load: int = 1,
        untrained: bool = False,
        margin: int | None = 0,
    ) -> None:
        """Set what follows from a node's arguments, once, when it is made."""
        # As ``object.__setattr__`` for each of them, which takes several times as long.
        self.__dict__.update(
            parents=parents,
            level=parents if level is None else level,
            geometry=geometry,
            device=device or parents[0].device,
            load=max(load, math.prod(geometry.period)),
            untrained=untrained,
            margin=margin,
        )

    def __repr__(self) -> str:
        """The last node only: an expression may have thousands."""
        period, size = shape_text(self.geometry.period), shape_text(self.geometry.size)
        return f"<{type(self).__name__}, period {period} on {size} pixels>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy all nodes as a list, which takes no recursion."""
        nodes = parents_first(cast("Lattice", self), lambda node: node.parents)
        places = {node: place for place, node in enumerate(nodes)}
        return _rebuilt, (
            [(type(node), tuple(places[parent] for parent in node.parents), node._options()) for node in nodes],
        )

    def _options(self) -> tuple[Any, ...]:
        """What it was made with, less the parents."""
        return tuple(getattr(self, own.name) for own in fields(self) if own.init and own.name != "parent")

    @classmethod
    def _from_parents(cls, parents: tuple[Lattice, ...], options: tuple[Any, ...]) -> Lattice:
        return cast("Lattice", cls(*parents, *options))

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.geometry.ndim

    def _length(self, axis: int) -> int:
        return self.geometry.size[axis]


def _rebuilt(records: list[tuple[type[Lattice], tuple[int, ...], tuple[Any, ...]]]) -> Lattice:
    nodes: list[Lattice] = []
    for kind, places, options in records:
        nodes.append(kind._from_parents(tuple(nodes[place] for place in places), options))
    return nodes[-1]
