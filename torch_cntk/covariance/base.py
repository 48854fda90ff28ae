"""The few verbs that every storage form of a covariance has; layers are written against them and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch_cntk.covariance.patches import Gains, Number, Patches
from torch_cntk.covariance.selection import Extended

if TYPE_CHECKING:
    from typing import Self

    from torch_cntk.covariance.attention import Attention
    from torch_cntk.covariance.duals import Dual
    from torch_cntk.covariance.resampling import Resampling

__all__ = ["NTK", "Covariance"]

NTK = Gains()
"""Weights of variance 1 / fan_in in the NTK parameterisation, without a bias."""

_NO_PIXELS_LEFT = (
    "the kernel between pixels of one image does not exist behind a layer that leaves no pixels (Flatten, "
    "GlobalAvgPool): net.gram(images) is the kernel between images"
)


class Covariance(ABC):
    """The pair (Sigma, Theta) = (NNGP, NTK) between all pixels of a feature map, on its way through a network.

    Every verb returns a new object and leaves this one as it was.
    """

    @property
    @abstractmethod
    def ndim(self) -> int:
        """Number of spatial dimensions."""

    @abstractmethod
    def average_patches(self, patches: Patches, gains: Gains = NTK) -> Self:
        """A weight layer: Sigma' = w P[Sigma] + b, Theta' = w P[Theta] + r P[Sigma] + c, at every pixel.

        P is the mean over the patch's offsets d of T(x + d, x' + d), which is 0 where one of the two is beyond a border
        of zeros; w, b, r and c are the gains. No pixel is added or left out: ``subsample`` does that.
        """

    @abstractmethod
    def activate(self, dual: Dual) -> Self:
        """A pointwise nonlinearity: Sigma' = value, Theta' = Theta * slope."""

    @abstractmethod
    def subsample(self, stride: tuple[int, ...], trim: tuple[int, ...] | None = None) -> Self:
        """Keep every stride-th pixel of each axis, from pixel 0 on, and none of the last ``trim`` ones.

        Where ``trim`` is negative, so many pixels from the other side of the axis follow the last one.

        Raises:
            ValueError: no pixel would be left.
        """

    @abstractmethod
    def resample(self, resampling: tuple[Resampling, ...]) -> Self:
        """A fixed linear map U along each axis: Sigma' = U Sigma U^T, Theta' = U Theta U^T."""

    def attend(self, attention: Attention) -> Self:
        """Self-attention: Sigma' = A Sigma A^T, Theta' = A Theta A^T, with A(a, c) a function of an image's own Sigma.

        Between two images each has its own weights A. All pixels of one image are read for each of its pixels.

        Raises:
            NotImplementedError: the form cannot.
            ValueError: there are no pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no attention")

    # Verbs of networks between inputs, which end in no pixels.

    def pool(self) -> Self:
        """The mean over all pixels, as an image of one pixel.

        Raises:
            ValueError: the form is that of one image's pixels.
        """
        raise ValueError(_NO_PIXELS_LEFT)

    def flatten(self) -> Self:
        """All pixels of all channels as features: there are no pixels afterwards.

        Raises:
            ValueError: the form is that of one image's pixels.
        """
        raise ValueError(_NO_PIXELS_LEFT)

    # Verbs of networks that branch or normalise.

    def add(self, others: tuple[Self, ...]) -> Self:
        """The covariance of a sum of features, this branch's and the others', which are uncorrelated.

        Raises:
            NotImplementedError: the form cannot.
            ValueError: the branches' images differ in size.
        """
        return self.mix((1.0,) * (1 + len(others)), others) if others else self

    def concatenate(self, shares: tuple[float, ...], others: tuple[Self, ...]) -> Self:
        """The covariance of this branch's channels and the others' side by side, given their shares of all channels.

        Raises:
            NotImplementedError: the form cannot.
            ValueError: the branches' images differ in size.
        """
        return self.mix(shares, others) if others else self

    def adjoin(self, axis: int, others: tuple[Self, ...]) -> Self:
        """The covariance of this branch's image and the others' behind it along an axis; they are uncorrelated.

        Each is surrounded by zeros, which is linear, and the sum of these images has the sum of their covariances.

        Raises:
            NotImplementedError: the form cannot.
            ValueError: there is no such axis, or the branches' images differ in size along others.
        """
        branches = (self, *others)
        if axis >= self.ndim:
            raise ValueError(f"expected images of at least {axis + 1} axes of pixels, got {self.ndim}")
        lengths = [branch._length(axis) for branch in branches]
        placed = []
        for place, branch in enumerate(branches):
            around = Extended(sum(lengths[place + 1 :]), sum(lengths[:place]))
            placed.append(branch.resample(tuple(around if k == axis else Extended(0) for k in range(self.ndim))))
        return placed[0].add(tuple(placed[1:]))

    def _length(self, axis: int) -> int:
        """Pixels of an axis, for ``adjoin``.

        Raises:
            NotImplementedError: the form has no numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be put side by side")

    def multiply(self, others: tuple[Self, ...]) -> Self:
        """The covariance of a product of features, this branch's and the others', which are independent.

        Sigma' is the product of theirs, Theta' the sum over branches of its Theta times the Sigma of all others.

        Raises:
            NotImplementedError: the form cannot.
            ValueError: the branches' images differ in size.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no products")

    def mix(self, weights: tuple[float, ...], others: tuple[Self, ...]) -> Self:
        """A weighted sum of this covariance (of the first weight) and those of other branches.

        What ``add`` and ``concatenate`` have in common.

        Raises:
            NotImplementedError: the form cannot.
            ValueError: the branches' images differ in size.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be mixed")

    def normalise(self, epsilon: Number = 0.0, affine: bool = False) -> Self:
        """Features divided by their root mean square over channels: Sigma' = Sigma / n, Theta' = Theta / n.

        Here n^2 = (Sigma(x, x) + epsilon)(Sigma(x', x') + epsilon). Features that vanish do so afterwards as well, also
        with an epsilon of 0, to which that is the limit. A scale and an offset for each channel that are
        trained from 1 and 0 (``affine``) add Sigma' + 1 to Theta'.

        Raises:
            NotImplementedError: the form cannot.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be normalised")

    def drop(self, kept: float, channels: bool = False) -> Self:
        """Features times masks, whose entries are 1 / kept with the probability kept, else 0; each input has its own.

        Sigma' = Sigma / kept and Theta' = Theta / kept for a pixel of an input with itself; with ``channels``, as masks
        of whole channels, for all pixels of the same input. Other pairs have independent masks of mean 1, and stay.

        Raises:
            NotImplementedError: the form cannot.
        """
        raise NotImplementedError(f"{type(self).__name__} knows no dropout")

    def share(self) -> Self:
        """The same covariance, to be read by several branches: a form that is computed late may keep what it can."""
        return self
