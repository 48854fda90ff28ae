"""What convolutions and transposed convolutions share: their options, and what they read of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.covariance import Extended, Patches
from torch_cntk.covariance.patches import Sharing
from torch_cntk.layers.base import C
from torch_cntk.layers.weights import Parameterisation, Weighted, biased, checked_parameterisation

__all__ = ["Padding", "PaddingMode", "Spatial", "check_images", "pad_circular", "per_axis"]

PaddingMode = Literal["circular", "zeros"]
Padding = int | Sequence[int] | Literal["same", "valid"]


class Spatial(Weighted, abstract=True):
    """A layer with filters, [.., .., *kernel_size], and the options that all of those have; see ``Conv2d``."""

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
        padding: Padding = "same",
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool | None = None,
        bias_std: float | Tensor | None = None,
        weight_std: float | Tensor = 1.0,
        padding_mode: PaddingMode = "circular",
        parameterisation: Parameterisation = "ntk",
    ) -> None:
        super().__init__()
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.kernel_size = per_axis(kernel_size, "kernel_size", self.ndim)
        self.stride = per_axis(stride, "stride", self.ndim)
        self.padding = _padding(padding, self.ndim)
        self.dilation = per_axis(dilation, "dilation", self.ndim)
        self.groups = positive_int(groups, "groups")
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise ValueError(f"expected {name} that {groups} groups divide, got {channels}")
        if padding_mode not in get_args(PaddingMode):
            raise ValueError(f'expected padding_mode "circular" or "zeros", got {padding_mode!r}')
        has_bias, self.bias_std = biased(bias, bias_std)
        self.weight_std = weight_std
        self.padding_mode = padding_mode
        self.parameterisation = checked_parameterisation(parameterisation)
        self.weight = torch.nn.Parameter(torch.empty(*self._filters(), *self.kernel_size))
        self.bias = torch.nn.Parameter(torch.empty(out_channels)) if has_bias else None
        self.reset_parameters()

    def _filters(self) -> tuple[int, int]:
        """How many filters the weight holds, along its first two axes."""
        return self.out_channels, self.in_channels // self.groups

    @property
    def fan_in(self) -> int:
        """Channels times pixels of a patch; those beyond the border, and zeros between pixels, count as well."""
        return self.weight.numel() // self.weight.shape[0]

    @property
    def span(self) -> tuple[int, ...]:
        """Pixels from the first to the last tap of a filter, an entry an axis."""
        return tuple(d * (q - 1) for q, d in zip(self.kernel_size, self.dilation, strict=True))

    @property
    def sharing(self) -> Sharing:
        """Which channels of the input an output is made from."""
        if self.groups == 1:
            return "all"
        return "channel" if self.groups == self.in_channels else "group"

    def _averaged(self, covariance: C, patches: Patches, stride: tuple[int, ...], trim: tuple[int, ...]) -> C:
        """Average patches, then keep every ``stride``-th pixel, but for the last ``trim`` of each axis."""
        if patches.edge == "zeros" and min(trim) < 0:
            # More outputs than inputs: the zeros that are the middle of a patch.
            covariance = covariance.resample(tuple(Extended(max(-t, 0)) for t in trim))
            trim = tuple(max(t, 0) for t in trim)
        return covariance.average_patches(patches, self.gains).subsample(stride, trim)


def per_axis(value: int | Sequence[int], name: str, ndim: int, *, least: int = 1) -> tuple[int, ...]:
    """One integer an axis.

    Raises:
        TypeError: an entry is no integer.
        ValueError: an entry is too small, or there are not as many as axes.
    """
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * ndim
    if len(values) != ndim:
        raise ValueError(f"expected {name} to be one integer or {ndim}, got {value!r}")
    return tuple(positive_int(entry, name, least=least) for entry in values)


def _padding(padding: Padding, ndim: int) -> tuple[int, ...] | Literal["same"]:
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'expected padding "same", "valid" or pixels, got {padding!r}')
        return "same" if padding == "same" else (0,) * ndim
    return per_axis(padding, "padding", ndim, least=0)


def check_images(images: Tensor, layer: Spatial) -> None:
    """Check that images are what a layer takes.

    Raises:
        ValueError: they have other channels or another number of dimensions.
    """
    if images.ndim != layer.ndim + 2 or images.shape[1] != layer.in_channels:
        expected = f"[batch, {layer.in_channels}, {layer.ndim} spatial dimensions]"
        raise ValueError(f"expected input of shape {expected}, got {tuple(images.shape)}")


def pad_circular(images: Tensor, margins: Sequence[tuple[int, int]]) -> Tensor:
    """Continue the image around its edges, by any number of pixels before and behind each axis."""
    for axis, (low, high) in enumerate(margins, start=images.ndim - len(margins)):
        if low or high:
            n = images.shape[axis]
            images = images.index_select(axis, torch.arange(-low, n + high, device=images.device) % n)
    return images
