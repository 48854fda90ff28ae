"""Which options of a network and a prior are tuned, on what scale, and between which bounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.tunable import tunables_of
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior, Sum, Uniform

__all__ = ["Parameter", "copied_prior", "parameters_of", "ridge_parameter"]

RIDGE = "ridge"

_FACTOR = 1000.0
"""Options that are above 0 may become so many times smaller or larger."""
_SLOPE = 1.0
"""Slopes below 0 lie between -1, the absolute value, and 1, the identity: others are these, mirrored."""
_UNITS, _APART = 10.0, 1e-3
"""How far numbers of any sign may move, and how close two bounds may come, in units of the largest of a prior's."""
_RIDGES = (1e-8, 10.0)
_ALIKE = {"positive_slope", "high"}
"""Options that change a kernel as another one of the same layer or prior does, by its ratio to them."""


@dataclass(frozen=True, eq=False)
class Parameter:
    """One number that is tuned: an option that several layers may share.

    Attributes:
        name: class and option.
        start: its number.
        bounds: the least and the largest.
        logarithmic: whether its logarithm is what steps are made in.
        places: the layers or priors that have it, and the option's name there.
        unit: what it is divided by where steps are made in itself.
    """

    name: str
    start: float
    bounds: tuple[float, float]
    logarithmic: bool
    places: tuple[tuple[object, str], ...] = ()
    unit: float = 1.0

    def inner(self, number: float) -> float:
        """Where steps are made."""
        return math.log(number) if self.logarithmic else number / self.unit

    def outer(self, inner: Tensor) -> Tensor:
        """The number, given where steps are made."""
        return inner.exp() if self.logarithmic else inner * self.unit

    @property
    def inner_bounds(self) -> tuple[float, float]:
        """The bounds there."""
        return self.inner(self.bounds[0]), self.inner(self.bounds[1])

    def of(self, *options: str) -> bool:
        """Whether it is one of these options of its layers."""
        return any(option in options for _, option in self.places)

    def set(self, value: float | Tensor) -> None:
        """Put a number or a tensor into all of its places."""
        for owner, option in self.places:
            setattr(owner, option, value)


def ridge_parameter(start: float) -> Parameter:
    """The ridge."""
    low, high = _RIDGES
    return Parameter(RIDGE, min(max(start, low), high), _RIDGES, True)


def copied_prior(prior: Prior) -> Prior:
    """A prior whose options may be set without changing the original's."""
    return Sum(*(copy.copy(term) for term in prior.terms)) if isinstance(prior, Sum) else copy.copy(prior)


def parameters_of(network: Layer, prior: Prior | None, names: Sequence[str] | None) -> list[Parameter]:
    """The options to tune: those of one class that have the same number are one parameter.

    Args:
        network: whose layers.
        prior: whose terms, if there is one.
        names: of options; by default all that may be tensors and are not 0 where they must not be negative.

    Raises:
        ValueError: a name is no option of any layer or prior.
    """
    found: dict[tuple[str, str, float], list[tuple[object, str]]] = {}
    for owner, option in _options(network, prior):
        if names is None and option in _ALIKE:
            continue
        if names is None or option in names or f"{type(owner).__name__}.{option}" in names:
            number: float = getattr(owner, option)
            found.setdefault((type(owner).__name__, option, number), []).append((owner, option))
    known = sorted({option for _, option in _options(network, prior)})
    for name in names or ():
        if not any(name in (option, f"{cls}.{option}") for cls, option, _ in found):
            raise ValueError(f"expected options among {', '.join([*known, RIDGE])}, got {name!r}")
    parameters = [_parameter(*key, tuple(places), found) for key, places in found.items()]
    return [parameter for parameter in parameters if parameter is not None]


def _options(network: Layer, prior: Prior | None) -> Iterator[tuple[object, str]]:
    """All options that may be tensors, with their layers and priors."""
    terms = () if prior is None else prior.terms if isinstance(prior, Sum) else (prior,)
    for owner in (*network.modules(), *terms):
        for option in tunables_of(type(owner)):
            # A bias that is not there has no scale.
            if option != "bias_std" or getattr(owner, "bias", None) is not None:
                yield owner, option


def _parameter(
    cls: str,
    option: str,
    number: float,
    places: tuple[tuple[object, str], ...],
    found: dict[tuple[str, str, float], list],
) -> Parameter | None:
    """None for an option that is 0 and must not be negative: its logarithm is no number."""
    several = sum((cls, option) == key[:2] for key in found) > 1
    name = f"{cls}.{option}" + (f" ({number:g})" if several else "")
    owner = places[0][0]
    if option == "negative_slope":
        return Parameter(name, min(max(number, -_SLOPE), _SLOPE), (-_SLOPE, _SLOPE), False, places)
    if option in {"low", "high", "mean"}:
        unit = max(abs(getattr(owner, other)) for other in ("low", "high", "mean", "std") if hasattr(owner, other))
        return Parameter(name, number, _around(owner, option, number, unit), False, places, unit)
    if number <= 0:
        return None
    return Parameter(name, number, (number / _FACTOR, number * _FACTOR), True, places)


def _around(owner: object, option: str, number: float, unit: float) -> tuple[float, float]:
    """Bounds of a number that may have any sign, and those of ``Uniform``, of which one is below the other."""
    low, high = number - _UNITS * unit, number + _UNITS * unit
    if isinstance(owner, Uniform):
        return (low, owner.high - _APART * unit) if option == "low" else (owner.low + _APART * unit, high)
    return low, high


def values_of(parameters: Sequence[Parameter], inner: Tensor) -> list[Tensor]:
    """The numbers of all parameters, [] each."""
    return [parameter.outer(inner[k]) for k, parameter in enumerate(parameters)]


def inner_of(parameters: Sequence[Parameter]) -> Tensor:
    """Where steps begin, [parameters] in float64."""
    return torch.tensor([p.inner(p.start) for p in parameters], dtype=torch.float64)
