"""Duals as operations of autograd: their numbers as ever, their derivatives in closed form.

A dual overwrites its arguments, and its roots have infinite derivatives where two features are equal. The derivatives
here are those of the formulas, with the limits where they are finite: the value's always are. The slope of a function
with a kink is not differentiable where two features are equal, by themselves; an input with itself is always equal, so
that nothing is lost by 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.derivatives import first_order
from torch_cntk.covariance.duals.base import ROUNDING, Dual
from torch_cntk.covariance.duals.clipped import Clipped
from torch_cntk.covariance.duals.clipped_gradients import clipped_gradients
from torch_cntk.covariance.duals.closed import Erf, Gelu, Sine
from torch_cntk.covariance.duals.exponential import Bump, Exponential, Wave
from torch_cntk.covariance.duals.piecewise import Jump, Rectifier
from torch_cntk.covariance.duals.tabulated import Tabulated
from torch_cntk.covariance.duals.tabulated_gradients import tabulated_gradients
from torch_cntk.covariance.duals.tuned import Tuned

__all__ = ["Gradients", "Sensitivities", "differentiable", "gradients_of", "sensitivities_of"]

Gradients = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Given sigma, v, v' and the gradients of value and slope: those of sigma, v and v'."""
Sensitivities = Callable[[Tensor, Tensor, Tensor], list[tuple[Tensor, Tensor]]]
"""Given sigma, v, v': the derivatives of value and slope by each parameter of a ``Tuned`` dual."""
Formula = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@singledispatch
def gradients_of(dual: Any) -> Gradients:
    """How gradients pass a dual.

    Raises:
        ValueError: there is no rule.
    """
    raise ValueError(
        f"expected features that need no gradient (features.detach()), as there is no rule for that of {dual}; all "
        "activations that have a name have one"
    )


@singledispatch
def sensitivities_of(dual: Any) -> Sensitivities:
    """What the parameters of a ``Tuned`` dual change.

    Raises:
        ValueError: there is no rule.
    """
    raise ValueError(f"expected options of an activation that need no gradient, as there is no rule for that of {dual}")


def differentiable(dual: Dual) -> Dual:
    """The dual, through which gradients pass, to its parameters as well if it is ``Tuned``.

    Raises:
        ValueError: there is no rule for it.
    """
    parameters: tuple[Tensor, ...] = ()
    sensitivities: Sensitivities | None = None
    if isinstance(dual, Tuned):
        parameters, sensitivities, dual = dual.parameters, sensitivities_of(dual.dual), dual.dual
    rules = gradients_of(dual), sensitivities

    def through(sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (v.expand_as(sigma) for v in (variance, other_variance))
        pair: tuple[Tensor, Tensor] = _Through.apply(sigma, first, second, dual, rules, *parameters)
        return pair

    return through


class _Through(torch.autograd.Function):
    """A dual as one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        sigma: Tensor,
        variance: Tensor,
        other: Tensor,
        dual: Dual,
        rules: tuple[Gradients, Sensitivities | None],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Value and slope."""
        ctx.save_for_backward(sigma, variance, other)
        ctx.rules = rules
        return dual(sigma.clone(), variance.contiguous(), other.contiguous())

    @staticmethod
    @first_order
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """By the dual's rule."""
        value, slope = given
        gradients, sensitivities = ctx.rules
        of_inputs = gradients(*ctx.saved_tensors, value, slope)
        changes = [] if sensitivities is None else sensitivities(*ctx.saved_tensors)
        of_parameters = [((value * a).sum() + (slope * b).sum()).to("cpu", torch.float64) for a, b in changes]
        return (*of_inputs, None, None, *of_parameters)


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


@sensitivities_of.register
def _by_squared_frequency(dual: Wave) -> Sensitivities:
    """Of value = g^2 r / 2 and slope = b^2 g^2 r / 2, r = exp(-b^2 (v + v' - 2 sigma) / 2), by b^2: the phase is pi/4.

    Raises:
        ValueError: the phase is another one.
    """
    if abs(math.cos(2 * dual.phase)) > ROUNDING[torch.float64]:
        raise ValueError(f"expected options of an activation that need no gradient, got one of {dual}")
    square, factor = dual.frequency**2, dual.gain**2 / 2

    def sensitivities(s: Tensor, v: Tensor, w: Tensor) -> list[tuple[Tensor, Tensor]]:
        apart = ((v + w) / 2 - s).clamp_min(0)
        value = factor * torch.exp(-square * apart)
        return [(-apart * value, (1 - square * apart) * value)]

    return sensitivities


@sensitivities_of.register
def _by_bend(dual: Rectifier) -> Sensitivities:
    """Of value = sigma (1 - b t) + b n sin t and slope = 1 - b t, by b."""

    def sensitivities(s: Tensor, v: Tensor, w: Tensor) -> list[tuple[Tensor, Tensor]]:
        root = _sine(s, v, w)
        angle = torch.atan2(root, s)
        return [(root - s * angle, -angle)]

    return sensitivities


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
def _of_tabulated(dual: Tabulated) -> Gradients:
    return partial(tabulated_gradients, dual)


@gradients_of.register
def _of_clipped(dual: Clipped) -> Gradients:
    return partial(clipped_gradients, dual)


@gradients_of.register
def _of_sine(dual: Sine) -> Gradients:
    half = dual.gain**2 / 2

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        mean = (v + w) / 2
        rising, falling = torch.exp(s - mean), torch.exp(-s - mean)
        return half * (rising - falling), half * (rising + falling)

    return _by_autograd(formula)


@gradients_of.register
def _of_wave(dual: Wave) -> Gradients:
    half, square, turned = dual.gain**2 / 2, dual.frequency**2, math.cos(2 * dual.phase)

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        mean = (v + w) / 2
        rising, falling = torch.exp(square * (s - mean)), torch.exp(-square * (s + mean)) * turned
        return half * (rising - falling), half * square * (rising + falling)

    return _by_autograd(formula)


@gradients_of.register
def _of_exponential(dual: Exponential) -> Gradients:
    factor = dual.gain**2

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        value = factor * torch.exp(s + (v + w) / 2)
        return value, value.clone()

    return _by_autograd(formula)


@gradients_of.register
def _of_bump(dual: Bump) -> Gradients:
    factor = dual.gain**2

    def formula(s: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        root = (1 + v + w + (v * w - s * s)).sqrt()
        return factor / root, factor * s / root**3

    return _by_autograd(formula)
