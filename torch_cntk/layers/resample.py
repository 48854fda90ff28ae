"""Upsampling: the forward pass and the kernel read the same description of a linear map along each axis."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from torch_cntk._checks import positive_int
from torch_cntk.covariance import Linear, Nearest, Resampling
from torch_cntk.layers.base import C, Layer

__all__ = ["BilinearUp", "NearestUp"]


class _Resample(Layer):
    """The same linear map along every spatial axis."""

    @abstractmethod
    def _rule(self) -> Resampling:
        """The map along one axis."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Resample the axes after the second of [batch, channels, *size].

        Raises:
            ValueError: there is no spatial axis.
        """
        if input.ndim < 3:
            raise ValueError(f"expected input of shape [batch, channels, *size], got {tuple(input.shape)}")
        rule = self._rule()
        for axis in range(2, input.ndim):
            input = rule.apply(input, axis)  # noqa: A001
        return input

    def propagate(self, covariance: C) -> C:
        """Sigma' = U Sigma U^T, Theta' = U Theta U^T."""
        return covariance.resample((self._rule(),) * covariance.ndim)


class NearestUp(_Resample):
    """Repeat each pixel ``scale_factor`` times along every axis, as ``torch.nn.Upsample(mode="nearest")``.

    A kernel of a network that ends in "upsample, convolution" is singular; put an activation after the convolution.

    Args:
        scale_factor: an integer of at least 1.

    Raises:
        TypeError: the factor is no integer.
        ValueError: the factor is below 1.
    """

    _options = ("scale_factor",)

    def __init__(self, scale_factor: int = 2) -> None:
        super().__init__()
        self.scale_factor = positive_int(scale_factor, "scale_factor")

    def _rule(self) -> Resampling:
        return Nearest(self.scale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return str(self.scale_factor)


class BilinearUp(_Resample):
    """Linear interpolation along every axis (bilinear in two dimensions).

    By default pixels sit at half-integer places and the image continues around its edges, which keeps the kernel
    periodic. The two variants of ``torch.nn.Upsample``, ``align_corners=True`` and ``padding_mode="border"``, tie the
    kernel to one image size.

    Args:
        scale_factor: an integer of at least 1.
        align_corners: put the corner pixels of input and output on each other.
        padding_mode: "circular" or "border" (repeat the last pixel).

    Raises:
        TypeError: the factor is no integer.
        ValueError: the factor is below 1, or the padding mode unknown.
    """

    _options = ("scale_factor", "align_corners", "padding_mode")

    def __init__(self, scale_factor: int = 2, align_corners: bool = False, padding_mode: str = "circular") -> None:
        super().__init__()
        self.scale_factor = positive_int(scale_factor, "scale_factor")
        self.align_corners = bool(align_corners)
        if padding_mode not in ("circular", "border"):
            raise ValueError(f'expected padding_mode "circular" or "border", got {padding_mode!r}')
        self.padding_mode = padding_mode

    def _rule(self) -> Resampling:
        return Linear(self.scale_factor, self.align_corners, self.padding_mode)

    def extra_repr(self) -> str:
        """The factor, and what differs from the defaults."""
        text = str(self.scale_factor)
        if self.align_corners:
            text += ", align_corners=True"
        return text if self.padding_mode == "circular" else f"{text}, padding_mode={self.padding_mode!r}"
