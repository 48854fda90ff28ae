"""What stands between the pixels of an image and one row of features: the heads of classifiers."""

from __future__ import annotations

from torch import Tensor

from torch_cntk._internal.checks import truth_value
from torch_cntk.layers.base import C, Layer

__all__ = ["Flatten", "GlobalAvgPool"]


class Flatten(Layer):
    """All pixels of all channels as one row of features, as ``torch.nn.Flatten``: [n, C, *size] to [n, C * pixels].

    Sigma' is the mean over pixels a of Sigma(A at a, B at a): pixels at different places never meet, so that a kernel
    between images takes no more than one number for each pixel and pair of images. An activation may not follow, as
    features of different pixels differ in variance; put it before.
    """

    flattens = True
    hides_channels = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Flatten all axes but the first.

        Raises:
            ValueError: there is no axis of channels.
        """
        if input.ndim < 2:
            raise ValueError(f"expected input of shape [batch, channels, *size], got {tuple(input.shape)}")
        return input.flatten(1)

    def propagate(self, covariance: C) -> C:
        """The mean over pixels, at displacement 0."""
        return covariance.flatten()


class GlobalAvgPool(Layer):
    """The mean over all pixels of each channel: [n, C, *size] to [n, C].

    As ``torch.nn.AdaptiveAvgPool2d(1)`` and a flattening. Sigma' is the mean over all pairs of pixels, of any
    displacement: a kernel between images takes pixels^2 numbers for each pair of images.

    Args:
        keepdim: whether an image of one pixel stays, [n, C, 1, ...], as behind ``torch.nn.AdaptiveAvgPool2d(1)``.
    """

    def __init__(self, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = truth_value(keepdim, "keepdim")
        self.flattens = not self.keepdim

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Mean over the axes after the second.

        Raises:
            ValueError: there are no pixels.
        """
        if input.ndim < 3:
            raise ValueError(f"expected input of shape [batch, channels, *size], got {tuple(input.shape)}")
        return input.mean(tuple(range(2, input.ndim)), keepdim=self.keepdim)

    def propagate(self, covariance: C) -> C:
        """The mean over all pairs of pixels."""
        pooled = covariance.pool()
        return pooled if self.keepdim else pooled.flatten()
