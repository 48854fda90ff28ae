"""Branches that get the same input: sums, products, skip connections and concatenations."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, cast

from torch_cntk._internal.checks import positive_int
from torch_cntk.layers.base import Layer, from_description
from torch_cntk.layers.joins import Join
from torch_cntk.layers.network import Network, Node
from torch_cntk.layers.plain import Identity
from torch_cntk.layers.sequential import Sequential

__all__ = ["Concat", "Product", "Residual", "Sum"]


class _Branches(Network):
    """Layers that get the same input, and whose outputs are joined."""

    _noun = "branch"
    _join: Join

    def __init__(self, *branches: Layer, in_channels: int | None = None) -> None:
        super().__init__()
        if not branches:
            raise ValueError("expected at least one branch, got none")
        for place, branch in enumerate(branches):
            if not isinstance(branch, Layer):
                raise TypeError(f"expected layers of torch_cntk, got {type(branch).__name__} as branch {place}")
            self.add_module(str(place), branch)
        self._given = None if in_channels is None else positive_int(in_channels, "in_channels")
        self._refresh()

    @property
    def branches(self) -> list[Layer]:
        """The branches."""
        return self.layers

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Each branch reads the input; the last node joins them."""
        branches = [Node(branch, (0,)) for branch in self.layers]
        return (*branches, Node(self._join, tuple(range(1, 1 + len(branches)))))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the descriptions of its branches."""
        branches = [from_description(branch) for branch in options["branches"]]
        return cls(*branches, in_channels=options.get("in_channels"))

    def description(self) -> dict[str, Any]:
        """The branches' descriptions, in order."""
        options = {} if self._given is None else {"in_channels": self._given}
        branches = [branch.description() for branch in self.layers]
        return {"layer": type(self).__name__, "branches": branches, **options}

    def extra_repr(self) -> str:
        """The input's channels, where they were given."""
        return "" if self._given is None else f"in_channels={self._given}"


class Sum(_Branches):
    """The sum of branches that get the same input: Sigma' and Theta' are sums as well.

    That needs uncorrelated branches: all but one must end in weights of their own (a convolution, and nothing but
    resampling after it). If an activation follows, the output must be Gaussian: a branch that is the output of an
    activation needs a convolution between the sum and the next activation.

    Args:
        *branches: layers whose outputs have the same channels and size.
        in_channels: of the input; needed only where no branch knows it.

    Raises:
        TypeError: a branch is not a layer of torch_cntk.
        ValueError: there is no branch, or the branches do not fit each other, share weights or are correlated.
    """

    _join = "sum"


class Residual(Sum):
    """The input plus what layers make of it.

    Args:
        *layers: one after another, the last one with weights: ``Residual(ReLU(), Conv2d(64, 64, 3))``.

    Raises:
        TypeError: something is not a layer of torch_cntk.
        ValueError: the layers do not fit each other, or do not end in a weight layer.
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(Identity(), layers[0] if len(layers) == 1 else Sequential(*layers))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the description of its branch."""
        return cls(from_description(options["branches"][1]))


class Concat(_Branches):
    """The channels of all branches, one after another, or their images, along an axis of pixels.

    Of channels Sigma' and Theta' are means, weighted by the branches' channels. They differ in variance afterwards: an
    activation must be put into each branch, not behind the concatenation. Otherwise every layer may follow.

    Along an axis of pixels (``dim=2`` is the first one) pixels of two branches must be uncorrelated: all branches but
    one must end in weights of their own, as those of a ``Sum``. An activation may follow if all of them are Gaussian.
    The kernel belongs to one image size.

    Args:
        *branches: layers whose outputs have the same size, or the same channels and the same size along other axes;
            ``Identity()`` passes the input on.
        in_channels: of the input; needed only where no branch knows it.
        dim: axis of the tensors [batch, channels, *size], as of ``torch.cat``: 1 for channels, 2 to 4 for pixels. Not
            0: what a batch holds are inputs, between which there are kernels.

    Raises:
        TypeError: a branch is not a layer of torch_cntk, or the axis no integer.
        ValueError: there is no branch, the branches do not fit each other, share weights or are correlated, the axis is
            another, or a number of channels is not known.
    """

    dim: int

    def __init__(self, *branches: Layer, in_channels: int | None = None, dim: int = 1) -> None:
        # Before the branches are looked at.
        vars(self)["dim"] = _checked_dim(dim)
        super().__init__(*branches, in_channels=in_channels)

    @property
    def _join(self) -> Join:  # type: ignore[override]
        return "concat" if self.dim == 1 else cast("Join", f"concat:{self.dim}")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make it from the descriptions of its branches."""
        branches = [from_description(branch) for branch in options["branches"]]
        return cls(*branches, in_channels=options.get("in_channels"), dim=options.get("dim", 1))

    def description(self) -> dict[str, Any]:
        """The branches' descriptions, in order, and the axis where it is one of pixels."""
        return super().description() | ({} if self.dim == 1 else {"dim": self.dim})

    def extra_repr(self) -> str:
        """The input's channels, where they were given, and the axis where it is one of pixels."""
        return ", ".join(part for part in (super().extra_repr(), "" if self.dim == 1 else f"dim={self.dim}") if part)


def _checked_dim(dim: object) -> int:
    """An axis of tensors along which there is a concatenation.

    Raises:
        TypeError: it is no integer.
        ValueError: there is none along this one, or it is counted from the end.
    """
    if isinstance(dim, bool) or not isinstance(dim, Integral):
        raise TypeError(f"expected dim to be an integer, got {dim!r}")
    if dim < 0:
        raise ValueError(
            "expected dim 1 (channels) or 2 to 4 (pixels), counted from the first axis, as layers serve images of any "
            f"number of axes, got {dim}"
        )
    if dim not in (1, 2, 3, 4):
        raise ValueError(
            f"expected dim 1 (channels) or 2 to 4 (pixels), got {dim}; for a batch, concatenate the inputs"
        )
    return int(dim)


class Product(_Branches):
    """The product of branches that get the same input, pixel by pixel and channel by channel: a gate, for example.

    Sigma' is the product of the branches' Sigma; Theta' is the sum over branches of its Theta times the Sigma of all
    others. That needs independent branches: all but one must end in weights of their own over all channels (a full
    convolution, and nothing but resampling after it). They may have a common trunk, whose channels are infinitely many:
    given it, the branches are independent. The network's input as a branch is refused, as its channels are few. What
    follows must be a weight layer before the next activation.

    Args:
        *branches: layers whose outputs have the same channels and size.
        in_channels: of the input; needed only where no branch knows it.

    Raises:
        TypeError: a branch is not a layer of torch_cntk.
        ValueError: there is no branch, or the branches do not fit each other, share weights or are not independent.
    """

    _join = "product"
