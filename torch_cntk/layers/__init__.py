"""Layers that mirror ``torch.nn`` and know their kernel."""

from torch_cntk.layers.activation import LeakyReLU, ReLU
from torch_cntk.layers.base import Layer, from_description
from torch_cntk.layers.conv import Conv1d, Conv2d, Conv3d, StridedConv1d, StridedConv2d, StridedConv3d
from torch_cntk.layers.linear import Linear
from torch_cntk.layers.resample import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BilinearUp,
    GaussianBlur,
    LanczosDown,
    NearestUp,
)
from torch_cntk.layers.sequential import Sequential

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BilinearUp",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "GaussianBlur",
    "LanczosDown",
    "Layer",
    "LeakyReLU",
    "Linear",
    "NearestUp",
    "ReLU",
    "Sequential",
    "StridedConv1d",
    "StridedConv2d",
    "StridedConv3d",
    "from_description",
]
