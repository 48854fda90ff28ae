"""K with its rows and columns multiplied: least squares in which some inputs count more than others."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from torch_cntk.operators import Operator

__all__ = ["ScaledOperator"]


class ScaledOperator(Operator):
    """The kernel s(x) K(x, x') s(x').

    Weighted kernel regression, with an error at x that counts s(x)^2 times, is a plain one with this kernel and with
    targets s(x) y(x); its weights are s(x) times those found.

    Args:
        operator: K.
        scale: s, broadcasts against the operator's size.
    """

    def __init__(self, operator: Operator, scale: Tensor) -> None:
        super().__init__(
            operator.size,
            operator.dtype,
            operator.device,
            operator._lookup,
            operations=operator.operations + 2,
            entry_dtype=operator.entry_dtype,
        )
        self._operator = operator
        self._scale = scale.double().expand(operator.size)

    @cached_property
    def diagonal(self) -> Tensor:
        """s^2 K(x, x), [*size] in float64."""
        return self._operator.diagonal * self._scale.square()

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """S K s between some pixels and others, [m, n] in float64; see ``Operator.entries``."""
        scale = self._scale.flatten()
        return self._operator.entries(first, second) * scale[first, None] * scale[second]

    def _multiply(self, images: Tensor) -> Tensor:
        scale = self._scale.to(images.dtype)
        return (self._operator @ (images * scale)) * scale
