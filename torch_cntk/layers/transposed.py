"""Transposed convolutions: zeros between the pixels, and a convolution of what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_cntk.covariance import Inserted, Patches
from torch_cntk.layers.base import C
from torch_cntk.layers.spatial import Padding, PaddingMode, Spatial, check_images, pad_circular, per_axis
from torch_cntk.layers.weights import Parameterisation

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_FUNCTIONS: dict[int, Callable[..., Tensor]] = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


class _ConvTranspose(Spatial):
    """A transposed convolution; see ``ConvTranspose2d``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        *,
        padding: Padding = "same",
        output_padding: int | Sequence[int] = 0,
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
        self.output_padding = per_axis(output_padding, "output_padding", self.ndim, least=0)
        if self.padding == "same" and any(self.output_padding):
            raise ValueError(f'expected output_padding=0 for padding="same", got {output_padding}')

    def _filters(self) -> tuple[int, int]:
        # As torch has them: those of an input channel side by side.
        return self.in_channels, self.out_channels // self.groups

    @property
    def fan_in(self) -> int:
        """Channels times pixels of a patch of the image with zeros between its pixels, which count as well."""
        return self.weight.numel() // self.weight.shape[1] // self.groups

    @property
    def cut(self) -> tuple[int, ...]:
        """Outputs that are cut off before each axis: torch's padding."""
        if self.padding == "same":
            return tuple(max(0, (reach + 2 - r) // 2) for reach, r in zip(self.span, self.stride, strict=True))
        return self.padding

    @property
    def missing(self) -> tuple[int, ...]:
        """By how many pixels the output is shorter than ``stride * n``, an entry an axis."""
        if self.padding == "same":
            return (0,) * self.ndim
        axes = zip(self.stride, self.padding, self.output_padding, self.span, strict=True)
        return tuple(r + 2 * p - extra - reach - 1 for r, p, extra, reach in axes)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Map [batch, in_channels, *size] to [batch, out_channels, *new size].

        Raises:
            ValueError: the channels are not the layer's, or no pixel is left.
        """
        check_images(input, self)
        sizes = [n * r - m for n, r, m in zip(input.shape[2:], self.stride, self.missing, strict=True)]
        if min(sizes) < 1:
            raise ValueError(f"expected larger images, of which pixels are left, got {tuple(input.shape)}")
        weight, bias = self.effective()
        starts = list(self.cut)
        if self.padding_mode == "circular":
            around = [
                self._around(axis, n, size) for axis, (n, size) in enumerate(zip(input.shape[2:], sizes, strict=True))
            ]
            input = pad_circular(input, around)  # noqa: A001
            starts = [p + low * r for p, (low, _), r in zip(starts, around, self.stride, strict=True)]
        zeros = (0,) * self.ndim
        output = _FUNCTIONS[self.ndim](input, weight, None, self.stride, zeros, zeros, self.groups, self.dilation)
        for axis, (start, size) in enumerate(zip(starts, sizes, strict=True), start=2):
            # What is asked for beyond the last tap is zero.
            beyond = max(0, start + size - output.shape[axis])
            output = output.narrow(axis, start, size - beyond)
            if beyond:
                pad = [0, 0] * (self.ndim + 1 - axis) + [0, beyond]
                output = torch.nn.functional.pad(output, pad)
        return output if bias is None else output + bias.view(-1, *(1,) * self.ndim)

    def _around(self, axis: int, length: int, size: int) -> tuple[int, int]:
        """Input pixels from around the edge that the outputs of an axis are made from, before and behind."""
        reach, r, p = self.span[axis], self.stride[axis], self.cut[axis]
        return max(0, -((p - reach) // r)), max(0, (size - 1 + p) // r - (length - 1))

    def propagate(self, covariance: C) -> C:
        """Insert zeros, average the patches, and keep the pixels that there are outputs for."""
        if any(r > 1 for r in self.stride):
            covariance = covariance.resample(tuple(Inserted(r) for r in self.stride))
        first = tuple(p - reach for p, reach in zip(self.cut, self.span, strict=True))
        patches = Patches(self.kernel_size, first, self.dilation, self.padding_mode, self.sharing)
        return self._averaged(covariance, patches, (1,) * self.ndim, self.missing)


class ConvTranspose1d(_ConvTranspose):
    """One-dimensional transposed convolution; arguments as for ``ConvTranspose2d``."""

    ndim = 1


class ConvTranspose2d(_ConvTranspose):
    """Two-dimensional transposed convolution, circular by default; weights N(0, 1) times weight_std / sqrt(fan_in).

    As ``torch.nn.ConvTranspose2d``: input pixel i adds its filter to the output pixels ``stride * i - padding +
    dilation * k``; there are (n - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1 of them. That
    is a convolution of the image with stride - 1 zeros between its pixels, which count in ``fan_in`` as those beyond
    a border do: a ``weight_std`` of the square root of all strides' product keeps the second moment.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: width of the filters; one integer or one an axis.
        stride: from where one input pixel's filter is added to where that of the next one is; one integer or one an
            axis.
        padding: outputs that are cut off on both sides; "same" for what gives stride * n outputs (torch's padding of
            half the width, and an output_padding where the stride is even and the width odd), "valid" for none.
        output_padding: outputs that are added behind the last ones.
        dilation: step between the taps of a filter; one integer or one an axis.
        groups: into which the channels are cut; see ``Conv2d``.
        bias: whether to add ``bias_std * beta`` with beta ~ N(0, 1); by default where ``bias_std`` is given.
        bias_std: standard deviation of the bias, 1 by default.
        weight_std: factor of the weights, above 0.
        padding_mode: "circular" (the filters of pixels at one edge go on at the other one), which keeps kernels
            periodic, or "zeros", the only one that torch has.
        parameterisation: "ntk" or "standard", which have different NTKs; see ``torch_cntk.layers.Weighted``.

    Raises:
        TypeError: an argument is no integer.
        ValueError: an argument is out of range or unknown, or the groups do not divide the channels.
    """

    ndim = 2


class ConvTranspose3d(_ConvTranspose):
    """Three-dimensional transposed convolution; arguments as for ``ConvTranspose2d``."""

    ndim = 3
