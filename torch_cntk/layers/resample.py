"""Fixed resampling: the forward pass and the kernel read the same description of a linear map along each axis."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int, truth_value
from torch_cntk._internal.options import Option
from torch_cntk.covariance import Filter, Linear, Nearest, Pooled, Resampling
from torch_cntk.layers.base import C, Layer

__all__ = ["AvgPool1d", "AvgPool2d", "AvgPool3d", "BilinearUp", "GaussianBlur", "LanczosDown", "NearestUp"]
__all__ += ["SumPool1d", "SumPool2d", "SumPool3d"]

EdgeMode = Literal["circular", "border"]


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

    def __init__(self, scale_factor: int = 2) -> None:
        super().__init__()
        self.scale_factor = positive_int(scale_factor, "scale_factor")

    def _rule(self) -> Resampling:
        return Nearest(self.scale_factor)


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

    def __init__(self, scale_factor: int = 2, align_corners: bool = False, padding_mode: EdgeMode = "circular") -> None:
        super().__init__()
        self.scale_factor = positive_int(scale_factor, "scale_factor")
        self.align_corners = truth_value(align_corners, "align_corners")
        if padding_mode not in ("circular", "border"):
            raise ValueError(f'expected padding_mode "circular" or "border", got {padding_mode!r}')
        self.padding_mode = padding_mode

    def _rule(self) -> Resampling:
        return Linear(self.scale_factor, self.align_corners, self.padding_mode)


class _Pool(_Resample):
    """One number for each block of pixels."""

    def __init__(self, kernel_size: int, stride: int | None, padding: int) -> None:
        super().__init__()
        self.kernel_size = positive_int(kernel_size, "kernel_size")
        self.stride = self.kernel_size if stride is None else positive_int(stride, "stride")
        self.padding = positive_int(padding, "padding", least=0)

    def _value_of(self, option: Option) -> Any:
        # The stride only where it is another one.
        same = option.name == "stride" and self.stride == self.kernel_size
        return None if same else super()._value_of(option)

    def _describes(self, option: Option, value: Any) -> bool:
        # What is not told has its default, so that files of versions with fewer options are understood.
        return self._shows(option, value)


class _AvgPool(_Pool):
    """Mean over blocks; see ``AvgPool2d``."""

    def __init__(
        self,
        kernel_size: int = 2,
        stride: int | None = None,
        padding: int = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.ceil_mode = truth_value(ceil_mode, "ceil_mode")
        self.count_include_pad = truth_value(count_include_pad, "count_include_pad")
        # Options that do not go together are refused.
        self._rule()

    def _rule(self) -> Resampling:
        return Pooled(self.kernel_size, self.stride, self.padding, self.count_include_pad, self.ceil_mode)


class AvgPool1d(_AvgPool):
    """Mean over blocks of samples; see ``AvgPool2d``."""

    ndim = 1


class AvgPool2d(_AvgPool):
    """Mean over blocks of ``kernel_size`` x ``kernel_size`` pixels, as ``torch.nn.AvgPool2d`` with the same arguments.

    The kernel is periodic if blocks are disjoint, nothing is padded and the image is a multiple of them. Otherwise it
    belongs to one image size.

    Args:
        kernel_size: of a block, an integer of at least 1.
        stride: from one block to the next; by default the size of a block.
        padding: zeros on both sides of the image, at most half of a block.
        ceil_mode: whether a block that reaches beyond the end counts, rather than be left out.
        count_include_pad: whether zeros on the sides count in the mean.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is out of range, or with ``ceil_mode`` a block could lie beyond the end.
    """

    ndim = 2


class AvgPool3d(_AvgPool):
    """Mean over blocks of voxels; see ``AvgPool2d``."""

    ndim = 3


class _SumPool(_Pool):
    """Sum over blocks; see ``SumPool2d``."""

    def __init__(self, kernel_size: int = 2, stride: int | None = None, padding: int = 0) -> None:
        super().__init__(kernel_size, stride, padding)
        self._rule()

    def _rule(self) -> Resampling:
        return Pooled(self.kernel_size, self.stride, self.padding, total=True)


class SumPool1d(_SumPool):
    """Sum over blocks of samples; see ``SumPool2d``."""

    ndim = 1


class SumPool2d(_SumPool):
    """Sum over blocks of ``kernel_size`` x ``kernel_size`` pixels: ``AvgPool2d`` times the pixels of a block.

    Args:
        kernel_size: of a block, an integer of at least 1.
        stride: from one block to the next; by default the size of a block.
        padding: zeros on both sides of the image, at most half of a block.

    Raises:
        TypeError: an argument is no integer.
        ValueError: an argument is out of range.
    """

    ndim = 2


class SumPool3d(_SumPool):
    """Sum over blocks of voxels; see ``SumPool2d``."""

    ndim = 3


class GaussianBlur(_Resample):
    """Gaussian blur along every axis, circular, at the same resolution.

    Args:
        kernel_size: width of the filter in pixels, odd.
        sigma: standard deviation in pixels, above 0.

    Raises:
        TypeError: an argument is no number.
        ValueError: the width is even or below 1, or sigma is not positive.
    """

    def __init__(self, kernel_size: int, sigma: float) -> None:
        super().__init__()
        self.kernel_size = positive_int(kernel_size, "kernel_size")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, which has a centre, got {kernel_size}")
        self.sigma = finite_number(sigma, "sigma", minimum=0)
        if self.sigma == 0:
            raise ValueError("expected sigma > 0, got 0")

    def _rule(self) -> Resampling:
        return _normalised(
            [math.exp(-0.5 * (place / self.sigma) ** 2) for place in _places(self.kernel_size)],
            step=1,
        )


class LanczosDown(_Resample):
    """Downsampling by an integer factor through a Lanczos filter along every axis, circular.

    The filter is sinc(x) sinc(x / lobes) for |x| < lobes, x in output pixels from the output's centre, normalised to
    sum 1; 2 * lobes * factor taps.

    Args:
        scale_factor: an integer of at least 1; the image must be a multiple of it.
        lobes: 2 or 3, usually.

    Raises:
        TypeError: an argument is no integer.
        ValueError: an argument is below 1.
    """

    _always_shown = ("lobes",)

    def __init__(self, scale_factor: int = 2, lobes: int = 2) -> None:
        super().__init__()
        self.scale_factor = positive_int(scale_factor, "scale_factor")
        self.lobes = positive_int(lobes, "lobes")

    def _rule(self) -> Resampling:
        # As many taps as lie inside, on either side of a pixel (odd factor) or of a border between two (even factor).
        count = 2 * self.lobes * self.scale_factor - self.scale_factor % 2
        places = [place / self.scale_factor for place in _places(count)]
        return _normalised([_sinc(x) * _sinc(x / self.lobes) for x in places], step=self.scale_factor)


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def _places(count: int) -> list[float]:
    """So many places, one apart, symmetric about 0."""
    return [k - (count - 1) / 2 for k in range(count)]


def _normalised(weights: list[float], step: int) -> Filter:
    # Exactly symmetric, whatever the rounding.
    symmetric = [(a + b) / 2 for a, b in zip(weights, reversed(weights), strict=True)]
    return Filter(tuple(weight / sum(symmetric) for weight in symmetric), step)
