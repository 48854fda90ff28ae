"""Normalisation over channels."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int, truth_value
from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.layers.base import C, Layer

__all__ = ["ChannelNorm"]


class ChannelNorm(Layer):
    """Layer normalisation over the channels of each pixel: as ``torch.nn.LayerNorm`` on channels-last images.

    The mean over channels is subtracted and the result divided by sqrt(variance + eps). In the limit of infinite width
    Sigma' = Sigma / n and Theta' = Theta / n with n^2 = (Sigma(x, x) + eps)(Sigma(x', x') + eps), for features whose
    mean over channels is zero; it may therefore follow a weight layer, not an activation.

    Args:
        channels: of the input; needed for ``affine`` only.
        eps: added to the variance. With 0, features that vanish at a pixel do so afterwards as well: the limit to 0.
            A tensor of one number passes gradients of the kernel on.
        affine: whether each channel has a scale and an offset, trained from 1 and 0, which add Sigma' + 1 to Theta'.
            That is exact if a weight layer comes before the next activation, and refused otherwise.

    Raises:
        TypeError: an argument is no number, or ``affine`` neither True nor False.
        ValueError: the channels are missing or below 1, or eps is negative.
    """

    eps = Tunable(minimum=0)

    def __init__(self, channels: int | None = None, *, eps: float | Tensor = 1e-5, affine: bool = False) -> None:
        super().__init__()
        self.affine = truth_value(affine, "affine")
        if self.affine and channels is None:
            raise ValueError("expected the number of channels for a scale and an offset each, got None")
        self.in_channels = self.out_channels = None if channels is None else positive_int(channels, "channels")
        self.eps = eps
        self.scale = torch.nn.Parameter(torch.empty(self.in_channels or 0)) if affine else None
        self.offset = torch.nn.Parameter(torch.empty(self.in_channels or 0)) if affine else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set scales to 1 and offsets to 0."""
        if self.scale is not None and self.offset is not None:
            torch.nn.init.ones_(self.scale)
            torch.nn.init.zeros_(self.offset)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Normalise [batch, channels, *size].

        Raises:
            ValueError: the channels are not the layer's.
        """
        if input.ndim < 2 or self.in_channels not in (None, input.shape[1]):
            channels = "channels" if self.in_channels is None else self.in_channels
            raise ValueError(f"expected input of shape [batch, {channels}, *size], got {tuple(input.shape)}")
        last = input.movedim(1, -1)
        # Instead of 0 the least positive number, which gives 0 / 0 = 0.
        eps = self.eps or torch.finfo(input.dtype).tiny
        return torch.nn.functional.layer_norm(last, last.shape[-1:], self.scale, self.offset, eps).movedim(-1, 1)

    def propagate(self, covariance: C) -> C:
        """Divide by the root mean square over channels."""
        return covariance.normalise(live(self, "eps"), self.affine)

    @property
    def channels(self) -> int | None:
        """Those of the input, where they are known."""
        return self.in_channels
