"""Options that are numbers, or torch tensors of one number, through which gradients pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number

__all__ = ["Tunable", "asks_for_gradients", "live", "tensors_of", "tunables_of"]


_KNOWN: dict[type, tuple[str, ...]] = {}


class _Held:
    """A tensor in the place of a number. Copies share it; a pickle holds its number alone."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self

    def __reduce__(self) -> tuple[Callable[[float], float], tuple[float]]:
        return float, (self.tensor.item(),)


class Tunable:
    """An option of a layer or a prior that may be given as a number or as a tensor of one number.

    Read as an attribute it is the number, that which the tensor has at this moment, so that whatever reads it (repr,
    description, files) sees numbers alone. ``live`` gives the tensor where gradients are asked for.

    Args:
        minimum: the least number.
        above: whether it must be above the minimum.
        but_zero: whether 0 is refused.
    """

    def __init__(self, *, minimum: float | None = None, above: bool = False, but_zero: bool = False) -> None:
        self.minimum, self.above, self.but_zero = minimum, above, but_zero

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owned: None, owner: type) -> Tunable: ...

    @overload
    def __get__(self, owned: object, owner: type) -> float: ...

    def __get__(self, owned: object | None, owner: type) -> Tunable | float:
        if owned is None:
            return self
        try:
            value = owned.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{owner.__name__} has no {self.name}") from None
        return self._checked(value.tensor.item()) if isinstance(value, _Held) else value

    def __set__(self, owned: object, value: float | Tensor) -> None:
        if isinstance(value, torch.Tensor):
            if value.numel() != 1 or not value.is_floating_point():
                raise TypeError(
                    f"expected {self.name} to be a number, or a tensor of one floating point number, got one of "
                    f"{value.dtype} of shape {tuple(value.shape)}"
                )
            self._checked(value.item())
            owned.__dict__[self.name] = _Held(value)
            return
        owned.__dict__[self.name] = self._checked(value)

    def _checked(self, value: object) -> float:
        """The number.

        Raises:
            TypeError: it is none.
            ValueError: it is out of range.
        """
        number = finite_number(value, self.name, minimum=self.minimum)
        if self.above and number == self.minimum:
            raise ValueError(f"expected {self.name} > {self.minimum:g}, got {number:g}")
        if self.but_zero and number == 0:
            raise ValueError(f"expected a {self.name} that is not 0, got 0")
        return number


def tunables_of(cls: type) -> tuple[str, ...]:
    """Names of a class's options that may be tensors, those of its bases first."""
    known = _KNOWN.get(cls)
    if known is None:
        known = _KNOWN[cls] = _read(cls)
    return known


def _read(cls: type) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        found.update((name, None) for name, value in vars(base).items() if isinstance(value, Tunable))
    # A class may have a number for good of what its base has an option for.
    return tuple(name for name in found if isinstance(getattr(cls, name), Tunable))


def tensors_of(owner: object) -> list[tuple[str, Tensor]]:
    """Names and tensors of the options of a layer or prior that require gradients."""
    held = [(name, owner.__dict__.get(name)) for name in tunables_of(type(owner))]
    return [(name, value.tensor) for name, value in held if isinstance(value, _Held) and value.tensor.requires_grad]


def asks_for_gradients(owners: Iterable[object]) -> bool:
    """Whether gradients are recorded and an option of one of the layers or priors requires them."""
    return torch.is_grad_enabled() and any(tensors_of(owner) for owner in owners)


def live(owner: object, name: str) -> float | Tensor:
    """An option: its tensor, [] in float64, where gradients are recorded and it requires them; else its number."""
    number: float = getattr(owner, name)
    value = owner.__dict__.get(name)
    if isinstance(value, _Held) and value.tensor.requires_grad and torch.is_grad_enabled():
        return value.tensor.double().reshape(())
    return number
