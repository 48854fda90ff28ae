"""Convolutions, circular by default, in the NTK parameterisation by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_cntk.covariance import Patches
from torch_cntk.layers.base import C
from torch_cntk.layers.spatial import Padding, PaddingMode, Spatial, check_images, pad_circular
from torch_cntk.layers.weights import Parameterisation

__all__ = [
    "CONVOLUTIONS",
    "STRIDED_CONVOLUTIONS",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "StridedConv1d",
    "StridedConv2d",
    "StridedConv3d",
]

_FUNCTIONS: dict[int, Callable[..., Tensor]] = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}


class _Conv(Spatial):
    """A convolution; see ``Conv2d``."""

    @property
    def margins(self) -> tuple[tuple[int, int], ...]:
        """Pixels that are padded before and behind each axis."""
        if self.padding == "same":
            return tuple((reach // 2, reach - reach // 2) for reach in self.span)
        return tuple((p, p) for p in self.padding)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Convolve [batch, in_channels, *size].

        Raises:
            ValueError: the channels are not the layer's, or a filter is longer than the padded image.
        """
        check_images(input, self)
        margins, span = self.margins, self.span
        for n, (low, high), reach in zip(input.shape[2:], margins, span, strict=True):
            if n + low + high <= reach:
                raise ValueError(
                    f"expected images of at least {reach + 1 - low - high} pixels, got {tuple(input.shape)}"
                )
        weight, bias = self.effective()
        padding: tuple[int, ...] = (0,) * self.ndim
        if self.padding_mode == "circular":
            input = pad_circular(input, margins)  # noqa: A001
        elif all(low == high for low, high in margins):
            padding = tuple(low for low, _ in margins)
        else:
            input = torch.nn.functional.pad(input, [p for pair in reversed(margins) for p in pair])  # noqa: A001
        return _FUNCTIONS[self.ndim](input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def propagate(self, covariance: C) -> C:
        """Average the patches, then keep the pixels that there are outputs for."""
        margins = self.margins
        first = tuple(-low for low, _ in margins)
        edge = self.padding_mode if any(map(any, margins)) else "circular"
        patches = Patches(self.kernel_size, first, self.dilation, edge, self.sharing)
        # Patches that begin so near to the end reach beyond what is padded.
        trim = tuple(reach - low - high for (low, high), reach in zip(margins, self.span, strict=True))
        return self._averaged(covariance, patches, self.stride, trim)


class Conv1d(_Conv):
    """One-dimensional convolution; arguments as for ``Conv2d``."""

    ndim = 1


class Conv2d(_Conv):
    """Two-dimensional convolution, circular by default: weights N(0, 1), output scaled by weight_std / sqrt(fan_in).

    Output pixel i is made from the input pixels ``stride * i - padding + dilation * k``, as torch does it: there are
    floor((n + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1 of them. With the default padding, filters of
    odd width are centred on pixel ``stride * i``, those of even width half a pixel behind it, and there are n / stride
    outputs, rounded up.

    A kernel is periodic if the padding is circular and "same", and the image a multiple of the stride; in all other
    cases it belongs to one image size.

    *Groups.* Their number stays what it is while the channels of each become infinitely many: the kernel is that of the
    full convolution. In a depthwise convolution (as many groups as input channels) each output reads one channel; the
    kernel is the mean over output channels, which is what a full convolution behind it sees. An activation right behind
    a depthwise convolution, or behind a grouped one of the network's input, is refused: its input is not Gaussian.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: width of the filters; one integer or one an axis.
        stride: step between outputs; one integer or one an axis.
        padding: pixels on both sides of each axis; "same" for as many as keep the size at stride 1, "valid" for none.
        dilation: step between the taps of a filter; one integer or one an axis.
        groups: into which the channels are cut; each output reads its own group.
        bias: whether to add ``bias_std * beta`` with beta ~ N(0, 1), which adds bias_std^2 to NNGP and NTK; by default
            where ``bias_std`` is given.
        bias_std: standard deviation of the bias, 1 by default.
        weight_std: factor of the weights, above 0.
        padding_mode: what is padded: the other side of the image ("circular") or "zeros", which is torch's default.
        parameterisation: "ntk" or "standard", which have different NTKs; see ``torch_cntk.layers.Weighted``.

    Raises:
        TypeError: an argument is no integer.
        ValueError: an argument is out of range or unknown, or the groups do not divide the channels.
    """

    ndim = 2


class Conv3d(_Conv):
    """Three-dimensional convolution; arguments as for ``Conv2d``."""

    ndim = 3


class _StridedConv(_Conv):
    """A convolution whose stride must be given: ``StridedConv2d(32, 128, 3, stride=2)``. See ``Conv2d``."""

    _always_shown = ("stride",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 2,
        *,
        padding: Padding = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool | None = None,
        bias_std: float | Tensor | None = None,
        weight_std: float | Tensor = 1.0,
        padding_mode: PaddingMode = "circular",
        parameterisation: Parameterisation = "ntk",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            bias_std=bias_std,
            weight_std=weight_std,
            padding_mode=padding_mode,
            parameterisation=parameterisation,
        )


class StridedConv1d(_StridedConv):
    """One-dimensional strided convolution, stride 2 by default; see ``Conv1d``."""

    ndim = 1


class StridedConv2d(_StridedConv):
    """Two-dimensional strided convolution, stride 2 by default; see ``Conv2d``."""

    ndim = 2


class StridedConv3d(_StridedConv):
    """Three-dimensional strided convolution, stride 2 by default; see ``Conv3d``."""

    ndim = 3


CONVOLUTIONS: dict[int, type[Conv1d] | type[Conv2d] | type[Conv3d]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
"""By number of dimensions."""
STRIDED_CONVOLUTIONS: dict[int, type[StridedConv1d] | type[StridedConv2d] | type[StridedConv3d]] = {
    1: StridedConv1d,
    2: StridedConv2d,
    3: StridedConv3d,
}
"""Likewise."""
