"""The storage form of fully connected networks: one number for each pair of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_cntk.covariance.base import NTK, Covariance
from torch_cntk.covariance.patches import Gains, Number, Patches
from torch_cntk.covariance.products import product_of

if TYPE_CHECKING:
    from torch_cntk.covariance.attention import Attention
    from torch_cntk.covariance.duals import Dual
    from torch_cntk.covariance.resampling import Resampling

__all__ = ["Gram"]


@dataclass(frozen=True)
class Gram(Covariance):
    """The pair (Sigma, Theta) between inputs x of one set and inputs x' of another, or of the same.

    The variances are kept apart, so that any block of a kernel can be propagated without its diagonal. Between m and n
    inputs Sigma is [m, n], the variances [m, 1] and [1, n]; the diagonal itself is the Gram form of n pairs (x, x), in
    which all of them are [n].

    Attributes:
        sigma: covariance (NNGP) of each pair.
        theta: NTK of each pair, or None for 0.
        variance: Sigma(x, x), broadcasts against ``sigma``.
        other_variance: Sigma(x', x'), broadcasts against ``sigma``.
        same: index into ``sigma`` of the pairs that are an input with itself; None if there is none.
    """

    sigma: Tensor
    theta: Tensor | None
    variance: Tensor
    other_variance: Tensor
    same: tuple[Any, ...] | None = None

    @classmethod
    def diagonal(cls, variance: Tensor) -> Gram:
        """The pairs (x, x), given Sigma(x, x), [n]."""
        return cls(variance, None, variance, variance, (...,))

    @property
    def ndim(self) -> int:
        """0: there are no pixels."""
        return 0

    def average_patches(self, patches: Patches, gains: Gains = NTK) -> Gram:
        """A weight layer without patches: Sigma' = w Sigma + b, Theta' = w Theta + r Sigma + c.

        Raises:
            ValueError: the layer has patches.
        """
        if patches.width:
            raise ValueError(
                f"expected layers of a fully connected network, got a convolution of width {patches.width}"
            )
        theta = _affine(self.sigma, gains.trained_weight, 0.0)
        if self.theta is not None:
            theta = _affine(self.theta, gains.weight, 0.0) + theta
        moments = (self.sigma, self.variance, self.other_variance)
        sigma, variance, other = (_affine(moment, gains.weight, gains.bias) for moment in moments)
        return Gram(sigma, _affine(theta, 1.0, gains.trained_bias), variance, other, self.same)

    def activate(self, dual: Dual) -> Gram:
        """A nonlinearity; the variances go through it as pairs of equal inputs."""
        value, slope = dual(self.sigma.clone(), self.variance, self.other_variance)
        return Gram(
            value,
            None if self.theta is None else self.theta * slope,
            dual(self.variance.clone(), self.variance, self.variance)[0],
            dual(self.other_variance.clone(), self.other_variance, self.other_variance)[0],
            self.same,
        )

    def subsample(self, stride: tuple[int, ...], trim: tuple[int, ...] | None = None) -> Gram:
        """There are no pixels to choose from.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"expected layers of a fully connected network, got a stride of {stride}")

    def resample(self, resampling: tuple[Resampling, ...]) -> Gram:
        """There are no pixels to resample.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected layers of a fully connected network, got one that resamples pixels")

    def attend(self, attention: Attention) -> Gram:
        """There are no pixels to attend to.

        Raises:
            ValueError: always.
        """
        raise ValueError("expected pixels to attend to, got inputs without pixels (rows of features, or flattened)")

    def flatten(self) -> Gram:
        """There are no pixels already."""
        return self

    def adjoin(self, axis: int, others: tuple[Gram, ...]) -> Gram:
        """There are no pixels to put side by side.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"expected images of at least {axis + 1} axes of pixels, got inputs without pixels")

    def mix(self, weights: tuple[float, ...], others: tuple[Gram, ...]) -> Gram:
        """A weighted sum, of variances as of covariances."""
        branches = (self, *others)
        trained = [(w, branch.theta) for w, branch in zip(weights, branches, strict=True) if branch.theta is not None]
        return Gram(
            _weighted_sum([(w, branch.sigma) for w, branch in zip(weights, branches, strict=True)]),
            _weighted_sum(trained) if trained else None,
            _weighted_sum([(w, branch.variance) for w, branch in zip(weights, branches, strict=True)]),
            _weighted_sum([(w, branch.other_variance) for w, branch in zip(weights, branches, strict=True)]),
            self.same,
        )

    def multiply(self, others: tuple[Gram, ...]) -> Gram:
        """A product, of variances as of covariances."""
        branches = (self, *others)
        parts = [
            branch.sigma[None] if branch.theta is None else torch.stack([branch.sigma, branch.theta])
            for branch in branches
        ]
        sigma, *theta = product_of(parts)
        variance, other = (
            product_of([getattr(branch, name)[None] for branch in branches])[0]
            for name in ("variance", "other_variance")
        )
        return Gram(sigma, theta[0] if theta else None, variance, other, self.same)

    def normalise(self, epsilon: Number = 0.0, affine: bool = False) -> Gram:
        """Divide by the root mean square over features."""
        norm = _above_zero(((self.variance + epsilon) * (self.other_variance + epsilon)).sqrt_())
        sigma = self.sigma / norm
        theta = None if self.theta is None else self.theta / norm
        if affine:
            theta = sigma + 1 if theta is None else theta + sigma + 1
        variance, other = (v / _above_zero(v + epsilon) for v in (self.variance, self.other_variance))
        return Gram(sigma, theta, variance, other, self.same)

    def drop(self, kept: float, channels: bool = False) -> Gram:
        """The variances, and the pairs that are an input with itself."""
        sigma, theta = self.sigma, self.theta
        if self.same is not None:
            sigma, theta = sigma.clone(), None if theta is None else theta.clone()
            sigma[self.same] /= kept
            if theta is not None:
                theta[self.same] /= kept
        return Gram(sigma, theta, self.variance / kept, self.other_variance / kept, self.same)


def _affine(values: Tensor, factor: float, offset: float) -> Tensor:
    """Factor * values + offset; the values themselves where that is what they are."""
    scaled = values if factor == 1 else values * factor
    return scaled + offset if offset else scaled


def _above_zero(norm: Tensor) -> Tensor:
    """Norms, in place; those of features that vanish become positive, so that 0 / 0 is 0."""
    return norm.clamp_min_(torch.finfo(norm.dtype).tiny)


def _weighted_sum(terms: list[tuple[float, Tensor]]) -> Tensor:
    (weight, first), *others = terms
    total = first * weight
    for w, term in others:
        total.add_(term, alpha=w)
    return total
