"""Duals as operations of autograd: their numbers as ever, their derivatives in closed form.

A dual overwrites its arguments, and its roots have infinite derivatives where two features are equal. The derivatives
here are those of the formulas, with the limits where they are finite: the value's always are. The slope of a function
with a kink is not differentiable where two features are equal, by themselves; an input with itself is always equal, so
that nothing is lost by 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import ROUNDING, Dual
from torch_cntk.covariance.duals.closed import Erf, Gelu, Sine
from torch_cntk.covariance.duals.piecewise import Jump, Rectifier

__all__ = ["Gradients", "differentiable", "gradients_of"]

Gradients = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Given sigma, v, v' and the gradients of value and slope: those of sigma, v and v'."""
Formula = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@singledispatch
def gradients_of(dual: Any) -> Gradients:
    """How gradients pass a dual.

    Raises:
        ValueError: there is no rule.
    """
    raise ValueError(
        f"expected features that need no gradient (features.detach()), as there is no rule for that of {dual}; ReLU, "
        "LeakyReLU, ABReLU, Abs, Sign, Step, Erf, GELU and Sin have one"
    )


def differentiable(dual: Dual) -> Dual:
    """The dual, through which gradients pass.

    Raises:
        ValueError: there is no rule for it.
    """
    gradients = gradients_of(dual)

    def through(sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (v.expand_as(sigma) for v in (variance, other_variance))
        pair: tuple[Tensor, Tensor] = _Through.apply(sigma, first, second, dual, gradients)
        return pair

    return through


class _Through(torch.autograd.Function):
    """A dual as one operation."""

    @staticmethod
    def forward(
        ctx: Any, sigma: Tensor, variance: Tensor, other: Tensor, dual: Dual, gradients: Gradients
    ) -> tuple[Tensor, Tensor]:
        """Value and slope."""
        ctx.save_for_backward(sigma, variance, other)
        ctx.gradients = gradients
        return dual(sigma.clone(), variance.contiguous(), other.contiguous())

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """By the dual's rule."""
        value, slope = given
        return (*ctx.gradients(*ctx.saved_tensors, value, slope), None, None)


def _over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; 0 where the denominator is."""
    return torch.where(denominator > 0, numerator / denominator, 0)


def _sine(sigma: Tensor, variance: Tensor, other: Tensor) -> Tensor:
    """sqrt(v v' - sigma^2), 0 for equal features."""
    return (variance * other * (1 - ROUNDING[sigma.dtype]) - sigma * sigma).clamp_min(0).sqrt()


def _scale_free(sigma: Tensor, variance: Tensor, other: Tensor, of_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a function of sigma / sqrt(v v'), given that of sigma."""
    shared = -sigma * of_sigma / 2
    return of_sigma, _over(shared, variance), _over(shared, other)


@gradients_of.register
def _of_rectifier(dual: Rectifier) -> Gradients:
    """Of value = sigma g + b n sin t and slope = g = 1 - b t: the value's are g, b n sin t / 2v and b n sin t / 2v'."""

    def gradients(s: Tensor, v: Tensor, w: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        root = _sine(s, v, w)
        angle = torch.atan2(root, s)
        of_slope = _scale_free(s, v, w, _over(dual.bend * slope, root))
        half = dual.bend * root / 2 * value
        return (1 - dual.bend * angle) * value + of_slope[0], _over(half, v) + of_slope[1], _over(half, w) + of_slope[2]

    return gradients


@gradients_of.register
def _of_jump(dual: Jump) -> Gradients:
    """Of value = m^2 + h^2 2/pi arcsin(sigma / n) and slope = 0."""
    height = ((dual.above - dual.below) / 2) ** 2 * 2 / math.pi
    return lambda s, v, w, value, slope: _scale_free(s, v, w, _over(height * value, _sine(s, v, w)))


def _by_autograd(formula: Formula) -> Gradients:
    """Those of a formula that is smooth everywhere."""

    def gradients(s: Tensor, v: Tensor, w: Tensor, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            given = [tensor.detach().requires_grad_() for tensor in (s, v, w)]
            found = formula(*given)
            first, second, third = torch.autograd.grad(
                found, given, (value, slope), allow_unused=True, materialize_grads=True
            )
        return first, second, third

    return gradients


@gradients_of.register
def _of_erf(dual: Erf) -> Gradients:
    factor = dual.gain**2

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        # (1 + 2v)(1 + 2v') - 4 s^2, without the difference of large numbers.
        root = (1 + 2 * v + 2 * w + 4 * (v * w - s * s)).sqrt()
        return factor * 2 / math.pi * torch.atan2(2 * s, root), factor * 4 / math.pi / root

    return _by_autograd(formula)


@gradients_of.register
def _of_gelu(dual: Gelu) -> Gradients:
    factor = dual.gain**2

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        product, above = v * w, (1 + v) * (1 + w)
        rest = 1 + v + w + (product - s * s)
        root = rest.sqrt()
        share = 0.25 + torch.atan2(s, root) / (2 * math.pi)
        value = s * share + (s * s + product * rest) / (above * root) / (2 * math.pi)
        slope = share + s * (1 / rest + (1 - product) / above + 1) / root / (2 * math.pi)
        return factor * value, factor * slope

    return _by_autograd(formula)


@gradients_of.register
def _of_sine(dual: Sine) -> Gradients:
    half = dual.gain**2 / 2

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        mean = (v + w) / 2
        rising, falling = torch.exp(s - mean), torch.exp(-s - mean)
        return half * (rising - falling), half * (rising + falling)

    return _by_autograd(formula)
