"""Duals of functions that are linear or constant on both sides of 0: arc-cosine kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from torch_cntk.covariance.duals.base import ROUNDING, legs, levelled, ordinary
from torch_cntk.covariance.duals.loops import arcsine_, constant, root_

__all__ = ["Jump", "Rectifier"]


@dataclass(frozen=True)
class Rectifier:
    """A rectifier of any two slopes, a below 0 and b above: the arc-cosine kernel of Cho & Saul (2009).

    With w = 2ab/(a^2 + b^2), n = sqrt(v v') and the angle t = arccos(sigma / n) between f and f', the value is
    n ((1-w) k1 + w cos t) and the slope (1-w) k0 + w, where k0 = (pi - t)/pi and
    k1 = (cos t (pi - t) + sin t)/pi. Both follow from the slope g = 1 - (1-w) t/pi: value = sigma g + (1-w)/pi n sin t.
    b = 1 makes it LeakyReLU, with a = 0 ReLU and with a = -1 the absolute value. Exact to rounding, relative to
    n, at every scale; angles below 1e-7 (float32: 5e-4) count as 0.
    """

    negative_slope: float = 0.0
    positive_slope: float = 1.0

    @cached_property
    def bend(self) -> float:
        """(1 - w) / pi = (b - a)^2 / (a^2 + b^2) / pi."""
        # By a power of 2, which changes no digit: the squares of very large or small slopes are no numbers.
        _, exponent = math.frexp(max(abs(self.negative_slope), abs(self.positive_slope)))
        below, above = (math.ldexp(slope, -exponent) for slope in (self.negative_slope, self.positive_slope))
        return (above - below) ** 2 / (above**2 + below**2) / math.pi

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value (in sigma's memory) and slope."""
        bend = self.bend
        back: tuple[Tensor, ...] = ()
        if not (ordinary(variance) and ordinary(other_variance)):
            (sigma, variance, other_variance), back = levelled(sigma, variance, other_variance)
        # n sin t as in ``legs``, but shrunk at another place.
        root = torch.mul(variance * (1 - ROUNDING[sigma.dtype]), other_variance, out=torch.empty_like(sigma))
        root.addcmul_(sigma, sigma, value=-1).clamp_min_(0).sqrt_()
        angle = torch.atan2(root, sigma)
        slope = torch.add(angle.new_ones(()), angle, alpha=-bend, out=angle)
        value = sigma.mul_(slope).add_(root, alpha=bend)
        for power in back:
            value.mul_(power)
        return value, slope

    def lengths(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """What ``by_arcsine`` wants of a variance: 1 / sqrt(v), and sqrt(v), times roots of its constants."""
        more = math.sqrt(1 + ROUNDING[variance.dtype])
        return variance.rsqrt().mul_(more), variance.sqrt().mul_(math.sqrt(self.bend))

    def by_arcsine(
        self,
        images: Tensor,
        lengths: Sequence[Tensor],
        other_lengths: Sequence[Tensor],
        cosine: Tensor,
        sine: Tensor | None,
        out: Tensor | None = None,
    ) -> None:
        """The same for Sigma and Theta, in place unless they are equal, in less time, but for the last digit.

        The angle is pi/2 - arcsin(sigma / n), whose absolute error is as that of the arctangent of a root that is a
        difference. Where variances are 0, or very large or small, the other formula has to be taken.

        Args:
            images: [1 or 2, ...]: Sigma, which becomes the value, and Theta, if there is one, which is multiplied by
                the slope.
            lengths: of the variances, which broadcast against Sigma.
            other_lengths: of the other ones.
            cosine: memory of Sigma's shape.
            sine: memory of Sigma's shape; None where the value is not wanted, whose memory stays as it is then.
            out: the images; or, where these are Sigma alone and Theta is the same, memory of both.
        """
        (inverse, length), (other_inverse, other_length) = lengths, other_lengths
        sigma = images[0]
        # Both lengths first, here and below: swapping them changes no bit.
        torch.mul(inverse.expand_as(cosine), other_inverse, out=cosine).mul_(sigma).clamp_(-1, 1)
        if sine is not None:
            root_(torch.addcmul(constant(1.0, sigma), cosine, cosine, value=-1, out=sine))
        at_right_angle = constant(1 - self.bend * math.pi / 2, sigma)
        slope = torch.add(at_right_angle, arcsine_(cosine), alpha=self.bend, out=cosine)
        if sine is None:
            images[1].mul_(slope)
            return
        if out is None or len(out) == len(images):
            images.mul_(slope)
            sigma.addcmul_(sine, torch.mul(length.expand_as(cosine), other_length, out=cosine))
            return
        value, theta = out
        torch.mul(sigma, slope, out=theta)
        torch.addcmul(theta, sine, torch.mul(length.expand_as(cosine), other_length, out=cosine), out=value)


@dataclass(frozen=True)
class Jump:
    """A function of two values, one below 0 and one above, and their mean at 0: Sign, Step.

    With their mean m, half of their difference h and sin t = sigma / sqrt(v v'), the value is m^2 + h^2 (2/pi) t. The
    slope is 0: the derivative is, except at 0, so that no gradient passes. That is the limit of the finite network as
    it is trained; the limit of ever steeper sigmoids differs, whose slope is infinite for equal features.
    """

    below: float = -1.0
    above: float = 1.0

    @property
    def gain(self) -> float:
        """The height of the jump beyond that of 0 and 1."""
        return self.above - self.below

    def __call__(self, sigma: Tensor, variance: Tensor, other_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return value (in sigma's memory) and slope."""
        mean, half = (self.above + self.below) / 2, (self.above - self.below) / 2
        cosine, sine = legs(sigma, variance, other_variance)
        value = torch.atan2(cosine, sine, out=cosine).mul_(half**2 * 2 / math.pi)
        return value.add_(mean**2), sine.zero_()
