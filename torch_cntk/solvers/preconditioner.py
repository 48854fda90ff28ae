"""What every preconditioner is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Map", "Preconditioner", "Resumable"]

Map = Callable[[Tensor], Tensor]
"""Of images, [n, *size]."""


class Preconditioner(ABC):
    """A symmetric positive definite map on images that are zero at unobserved pixels, perhaps only nearly linear.

    Its numbers are those of the operator's precision; the iteration around it forgives their rounding.

    Attributes:
        iterates: whether it is an iteration itself, each of which takes long.
    """

    iterates: ClassVar[bool] = False

    @abstractmethod
    def restricted(self, mask: Tensor) -> Map:
        """The map of [n, *size] for the right-hand sides' masks, [n or 1, *size]."""


@runtime_checkable
class Resumable(Protocol):
    """A map that changes from call to call, by a state of its own."""

    def state(self) -> dict[str, Any]:
        """What ``restore`` goes on from, of numbers and truth values."""

    def restore(self, state: Any) -> None:
        """Go on from there."""
