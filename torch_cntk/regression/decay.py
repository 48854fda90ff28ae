"""How far training has come along an eigenvector of the kernel: the linear ODEs of gradient flow, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["progress"]

_NOTHING = 1e-13
"""Share of the largest eigenvalue below which one counts as 0 in the limit of long training: the rounding errors of
some hundred rows in float64."""
_APART = 0.25
"""Of the square of the damping: roots that are further apart are treated as two, others by their middle."""


def progress(rates: Tensor, times: Tensor, momentum: float | None) -> Tensor:
    """(1 - e(t)) / r, where e is what is left of an error of 1 after a time.

    Without momentum e' = -r e. With it e'' = -(1 - momentum) e' - r e, of e(0) = 1 and e'(0) = 0: time counts steps
    of gradient descent either way, each of which changes the error by r times itself.

    Args:
        rates: r, [n], at least 0: the learning rate times an eigenvalue.
        times: t, [k], at least 0 and perhaps infinite.
        momentum: in [0, 1); None for gradient flow.

    Returns:
        [k, n]; at infinity 1 / r, and 0 where r is nothing but rounding.
    """
    tiny = torch.finfo(rates.dtype).tiny ** 0.5
    floored = rates.clamp_min(tiny)
    finite = torch.where(torch.isinf(times), 0, times)[:, None]
    done = _first_order(floored, finite) if momentum is None else _second_order(floored, finite, (1 - momentum) / 2)
    limit = torch.where(rates > rates.max() * _NOTHING, 1 / floored, 0)
    return torch.where(torch.isinf(times)[:, None], limit, done / floored)


def _first_order(rates: Tensor, times: Tensor) -> Tensor:
    """1 - exp(-r t)."""
    return -torch.expm1(-times * rates)


def _second_order(rates: Tensor, times: Tensor, damping: float) -> Tensor:
    """1 - e of e'' = -2 c e' - r e, with the damping c > 0."""
    apart = damping**2 - rates
    two = apart > _APART * damping**2
    root = torch.where(two, apart, 1).sqrt()
    # The slow root is -r / (c + root), without cancellation.
    slow, fast = -rates / (damping + root), -(damping + root)
    overdamped = (slow * torch.expm1(fast * times) - fast * torch.expm1(slow * times)) / (fast - slow)
    # Around the critical damping, and beyond it, where roots are complex.
    size = apart.abs().clamp_min(torch.finfo(rates.dtype).tiny).sqrt()
    angle = size * times
    # Only as much of the hyperbolic functions as does not overflow: those of ``two`` are not used.
    bounded = torch.where(two | (apart <= 0), 0, angle)
    decay = torch.exp(-damping * times)
    waves = decay * (torch.cos(angle) + damping * torch.where(angle > 0, torch.sin(angle) / size, times))
    grown = _hyperbolic(bounded, damping, times, size)
    return torch.where(two, overdamped, 1 - torch.where(apart > 0, grown, waves))


def _hyperbolic(angle: Tensor, damping: float, times: Tensor, size: Tensor) -> Tensor:
    """exp(-c t) (cosh(s t) + c / s sinh(s t)) for s < c, of exponents below 0."""
    up, down = torch.exp(angle - damping * times), torch.exp(-angle - damping * times)
    # sinh(s t) / s, which is t at s t = 0.
    half = torch.where(angle > 1e-4, (up - down) / (2 * size), times * torch.exp(-damping * times) * (1 + angle**2 / 6))
    return (up + down) / 2 + damping * half
