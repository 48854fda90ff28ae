"""What all dual activations share: their protocol, the rounding rule, and work that is done once for each variance."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "ROUNDING",
    "Dual",
    "Extremes",
    "Scaled",
    "extremes",
    "legs",
    "levelled",
    "of_stored",
    "once",
    "ordinary",
    "overlapping",
    "plain",
    "viewed",
]


ROUNDING = {torch.float64: 2.0**-47, torch.float32: 2.0**-22}
"""Relative rounding error of a covariance after a layer: in float64 that of some ten additions. In float32 that would
show, so that it is the least that gives features of equal numbers, as on the diagonal, angle 0."""

_PLAIN = {
    # From sqrt(smallest normal number / rounding unit) to sqrt(largest number): v v' is exact to rounding in between.
    torch.float64: (2.0**-480, 2.0**510),
    torch.float32: (2.0**-50, 2.0**62),
}
"""Variances whose products neither overflow nor lose digits."""

_HALF_POWERS = 540
"""Square roots of numbers of float64 are between 2^-540 and 2^540."""


class Dual(Protocol):
    """A dual activation; implementations are hashable and compare by their parameters."""

    def __call__(
        self,
        sigma: Tensor,  # covariance of f and f'; may be overwritten
        variance: Tensor,  # of f, broadcasts against sigma
        other_variance: Tensor,  # of f', broadcasts against sigma
    ) -> tuple[Tensor, Tensor]:
        """Return (E[phi(f) phi(f')], E[phi'(f) phi'(f')]), both of sigma's shape."""
        ...


class Scaled(Dual, Protocol):
    """The dual of a function that may be normalised."""

    @property
    def gain(self) -> float:
        """What the function is multiplied by."""
        ...


_kept: dict[tuple[int, Hashable], tuple[weakref.ref[Tensor], int, Any]] = {}
"""For a tensor that lives on, such as an image of variances: what has been computed of it, by its id and a key; the
tensor itself, as ids are used again, and its version."""


def once(tensor: Tensor, key: Hashable, compute: Callable[[Tensor], Any]) -> Any:
    """``compute(tensor)``, remembered until the tensor is changed or gone."""
    place = (id(tensor), key)
    known = _kept.get(place)
    if known is not None and known[0]() is tensor and known[1] == tensor._version:
        return known[2]
    result = compute(tensor)
    if tensor.is_inference():
        # Nobody counts its versions.
        return result
    _kept[place] = (weakref.ref(tensor, lambda _: _kept.pop(place, None)), tensor._version, result)
    return result


def overlapping(variance: Tensor) -> Tensor | None:
    """All numbers of the memory that a view reads several times, flat; None for tensors that read each once."""
    stored = variance.untyped_storage().nbytes() // variance.itemsize
    if stored >= variance.numel():
        return None
    return torch.as_strided(variance, (stored,), (1,), 0)


def of_stored(variance: Tensor, key: Hashable, compute: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Functions of the variance, each number that is stored worked on once: shifts of an image overlap in memory.

    Args:
        variance: any shape and strides.
        key: names ``compute``; its results are kept for the next shifts of the same image.
        compute: takes numbers of any shape to rows, [rows, *shape].

    Returns:
        the rows, views of the variance's shape each.
    """
    stored = overlapping(variance)
    if stored is None:
        return list(compute(variance))
    base = variance._base
    rows = compute(stored) if base is None else once(base, key, lambda _: compute(stored))
    return [viewed(row, variance) for row in rows]


def viewed(row: Tensor, variance: Tensor) -> Tensor:
    """A function of all stored numbers, flat, as the variance reads them."""
    offset = row.storage_offset() + variance.storage_offset()
    return torch.as_strided(row, variance.shape, variance.stride(), offset)


class Extremes(NamedTuple):
    """Of variances: the smallest one above 0 (infinity if there is none), the largest one, and whether any is 0."""

    low: float
    high: float
    vanish: bool


def extremes(variance: Tensor, other_variance: Tensor) -> Extremes:
    """Of two tensors' variances, or of all that the images hold which they are views of."""
    first, other = (
        once(v if (base := v._base) is None else base, "extremes", _extremes) for v in (variance, other_variance)
    )
    return Extremes(min(first.low, other.low), max(first.high, other.high), first.vanish or other.vanish)


def _extremes(numbers: Tensor) -> Extremes:
    if not numbers.numel():
        return Extremes(math.inf, 0.0, False)
    low, high = (float(bound) for bound in torch.aminmax(numbers))
    if low > 0:
        return Extremes(low, high, False)
    return Extremes(float(torch.where(numbers > 0, numbers, torch.inf).amin()), high, True)


def legs(sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return n cos t (in sigma's memory) and n sin t, for the angle t between f and f'; n is sqrt(v v') or part of it.

    n sin t = sqrt(n^2 - sigma^2) keeps its digits where arccos loses half of them. Equal features must give exactly 0:
    the root would blow a rounding error of 1e-16 up to 1e-8, hence the shrinkage by a few of them.
    """
    if not (ordinary(variance) and ordinary(other_variance)):
        (sigma, variance, other_variance), _ = levelled(sigma, variance, other_variance)
    # In sigma's layout: the variances may be overlapping views, whose strides torch would otherwise copy.
    root = torch.mul(variance, other_variance, out=torch.empty_like(sigma))
    root.addcmul_(sigma, sigma, value=-1 - ROUNDING[sigma.dtype])
    return sigma, root.clamp_min_(0).sqrt_()


def ordinary(variance: Tensor) -> bool:
    """Whether products of variances, these or others that are, neither overflow nor lose digits."""
    base = variance._base
    known: bool = once(variance if base is None else base, "ordinary", _ordinary)
    return known


def plain(variance: Tensor, other_variance: Tensor) -> bool:
    """Whether no variance is 0, or so large or small that products of two would be."""
    vanish = extremes(variance, other_variance).vanish
    return not vanish and ordinary(variance) and ordinary(other_variance)


def _ordinary(numbers: Tensor) -> bool:
    low, high, _ = _extremes(numbers)
    least, most = _PLAIN[numbers.dtype]
    return least < low and high < most


def levelled(
    sigma: Tensor, variance: Tensor, other_variance: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Features divided by powers of 2 so that their variances are ``ordinary``: between 1/4 and 1, or 0.

    Returns:
        sigma (in its memory) and the variances, divided by powers of 4; and the powers of 2 that each feature was
        divided by, to multiply by.
    """
    (shrink, back, level), (other_shrink, other_back, other_level) = (
        of_stored(v, "levelled", _levels) for v in (variance, other_variance)
    )
    return (sigma.mul_(shrink).mul_(other_shrink), level, other_level), (back, other_back)


def _levels(variance: Tensor) -> Tensor:
    """2^-k, 2^k and v 4^-k, with v 4^-k between 1/4 and 1; k = 0 where v = 0. By a table: torch's powers may round."""
    half = torch.frexp(variance).exponent.add(1).div(2, rounding_mode="floor").long()
    exponents = range(-_HALF_POWERS, _HALF_POWERS + 1)
    powers = torch.tensor([2.0**k for k in exponents], dtype=torch.float64, device=variance.device)
    half = torch.where(variance > 0, half, 0).clamp_(-_HALF_POWERS, _HALF_POWERS)
    shrink, back = (powers[_HALF_POWERS + k].to(variance.dtype) for k in (-half, half))
    return torch.stack([shrink, back, variance * shrink * shrink])
