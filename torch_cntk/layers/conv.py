"""Convolutions, circular by default, in the NTK parameterisation by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk.layers.base import C
from torch_cntk.layers.weights import Parameterisation, Weighted, checked_parameterisation

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

PaddingMode = Literal["circular", "zeros"]

_FUNCTIONS = {
    1: torch.nn.functional.conv1d,
    2: torch.nn.functional.conv2d,
    3: torch.nn.functional.conv3d,
}


def _per_axis(value: int | Sequence[int], name: str, ndim: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * ndim
    if len(values) != ndim:
        raise ValueError(f"expected {name} to be one integer or {ndim}, got {value!r}")
    return tuple(positive_int(entry, name) for entry in values)


class _Conv(Weighted):
    """A convolution; see ``Conv2d``."""

    ndim: int
    in_channels: int
    out_channels: int
    _unnamed: ClassVar[int] = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        *,
        bias: bool = False,
        bias_std: float = 1.0,
        padding_mode: PaddingMode = "circular",
        parameterisation: Parameterisation = "ntk",
    ) -> None:
        super().__init__()
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.kernel_size = _per_axis(kernel_size, "kernel_size", self.ndim)
        self.stride = _per_axis(stride, "stride", self.ndim)
        for width in self.kernel_size:
            if width % 2 == 0:
                raise ValueError(f"expected an odd kernel_size, which has a centre, got {kernel_size}")
        if padding_mode not in ("circular", "zeros"):
            raise ValueError(f'expected padding_mode "circular" or "zeros", got {padding_mode!r}')
        self.bias_std = finite_number(bias_std, "bias_std", minimum=0)
        self.padding_mode = padding_mode
        self.parameterisation = checked_parameterisation(parameterisation)
        self.weight = torch.nn.Parameter(torch.empty(out_channels, in_channels, *self.kernel_size))
        self.bias = torch.nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    @property
    def fan_in(self) -> int:
        """Channels times pixels of a patch; those beyond the border count as well."""
        return self.weight.numel() // self.weight.shape[0]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Convolve [batch, in_channels, *size].

        Raises:
            ValueError: the channels are not the layer's, or the size is not a multiple of the stride.
        """
        if input.ndim != self.ndim + 2 or input.shape[1] != self.in_channels:
            expected = f"[batch, {self.in_channels}, {self.ndim} spatial dimensions]"
            raise ValueError(f"expected input of shape {expected}, got {tuple(input.shape)}")
        for n, r in zip(input.shape[-self.ndim :], self.stride, strict=True):
            if n % r:
                raise ValueError(f"expected sizes that are multiples of the stride {r}, got {tuple(input.shape)}")
        weight, bias = self.effective()
        reach = tuple(q // 2 for q in self.kernel_size)
        if self.padding_mode == "zeros":
            return _FUNCTIONS[self.ndim](input, weight, bias, stride=self.stride, padding=reach)
        return _FUNCTIONS[self.ndim](_pad_circular(input, reach), weight, bias, stride=self.stride)

    def propagate(self, covariance: C) -> C:
        """Average the patches, then keep every stride-th pixel."""
        variance = 0.0 if self.bias is None else self.bias_std**2
        inside = self.padding_mode == "zeros"
        average = covariance.average_patches_inside if inside else covariance.average_patches
        return average(self.kernel_size, variance).subsample(self.stride)


def _pad_circular(images: Tensor, reach: tuple[int, ...]) -> Tensor:
    """Continue the image around its edges, by any number of pixels."""
    for axis, r in enumerate(reach, start=images.ndim - len(reach)):
        if r:
            n = images.shape[axis]
            images = images.index_select(axis, torch.arange(-r, n + r, device=images.device) % n)
    return images


class Conv1d(_Conv):
    """One-dimensional circular convolution; arguments as for ``Conv2d``."""

    ndim = 1


class Conv2d(_Conv):
    """Two-dimensional convolution of odd width, circular by default: weights N(0, 1), output scaled by 1/sqrt(fan_in).

    With padding of half the width, output pixel i is centred on input pixel ``stride * i``, as torch does it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: width of the filters, odd; one integer or one an axis.
        stride: step between outputs; one integer or one an axis. The image must be a multiple of it.
        bias: whether to add ``bias_std * beta`` with beta ~ N(0, 1), which adds bias_std^2 to NNGP and NTK.
        bias_std: standard deviation of the bias.
        padding_mode: "circular" or "zeros", which is torch's default; the kernel then belongs to one image size.
        parameterisation: "ntk" or "standard"; see ``reparameterise``.

    Raises:
        TypeError: an argument is no integer.
        ValueError: an argument is out of range or unknown, or the kernel size is even.
    """

    ndim = 2


class Conv3d(_Conv):
    """Three-dimensional circular convolution; arguments as for ``Conv2d``."""

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
        bias: bool = False,
        bias_std: float = 1.0,
        padding_mode: PaddingMode = "circular",
        parameterisation: Parameterisation = "ntk",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            bias=bias,
            bias_std=bias_std,
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
