"""Layers that mirror ``torch.nn`` and know their kernel."""

from torch_cntk.layers.activation import GELU, Abs, Activation, Elementwise, Erf, LeakyReLU, ReLU, Sin
from torch_cntk.layers.base import Layer, from_description
from torch_cntk.layers.branch import Concat, Residual, Sum
from torch_cntk.layers.conv import Conv1d, Conv2d, Conv3d, StridedConv1d, StridedConv2d, StridedConv3d
from torch_cntk.layers.graph import Graph
from torch_cntk.layers.linear import Linear
from torch_cntk.layers.network import Network, Node
from torch_cntk.layers.norm import ChannelNorm
from torch_cntk.layers.plain import Dropout, Identity, Sigmoid
from torch_cntk.layers.registry import ACTIVATIONS, activation_of
from torch_cntk.layers.resample import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BilinearUp,
    GaussianBlur,
    LanczosDown,
    NearestUp,
)
from torch_cntk.layers.scale import Scale
from torch_cntk.layers.sequential import Sequential
from torch_cntk.layers.weights import Weighted, reparameterise

__all__ = [
    "ACTIVATIONS",
    "GELU",
    "Abs",
    "Activation",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BilinearUp",
    "ChannelNorm",
    "Concat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Dropout",
    "Elementwise",
    "Erf",
    "GaussianBlur",
    "Graph",
    "Identity",
    "LanczosDown",
    "Layer",
    "LeakyReLU",
    "Linear",
    "NearestUp",
    "Network",
    "Node",
    "ReLU",
    "Residual",
    "Scale",
    "Sequential",
    "Sigmoid",
    "Sin",
    "StridedConv1d",
    "StridedConv2d",
    "StridedConv3d",
    "Sum",
    "Weighted",
    "activation_of",
    "from_description",
    "reparameterise",
]
