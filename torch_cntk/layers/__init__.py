"""Layers that mirror ``torch.nn`` and know their kernel."""

from torch_cntk.layers.activation import (
    GELU,
    ABReLU,
    Abs,
    Activation,
    Elementwise,
    Erf,
    LeakyReLU,
    ReLU,
    Sign,
    Sin,
    Step,
)
from torch_cntk.layers.attention import SelfAttention
from torch_cntk.layers.base import Layer, from_description
from torch_cntk.layers.branch import Concat, Product, Residual, Sum
from torch_cntk.layers.conv import Conv1d, Conv2d, Conv3d, StridedConv1d, StridedConv2d, StridedConv3d
from torch_cntk.layers.graph import Graph
from torch_cntk.layers.heads import Flatten, GlobalAvgPool
from torch_cntk.layers.linear import Linear
from torch_cntk.layers.network import Network, Node
from torch_cntk.layers.norm import ChannelNorm
from torch_cntk.layers.plain import Dropout, Identity, MultipleOf, Sigmoid
from torch_cntk.layers.registry import ACTIVATIONS, activation_of
from torch_cntk.layers.resample import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BilinearUp,
    GaussianBlur,
    LanczosDown,
    NearestUp,
    SumPool1d,
    SumPool2d,
    SumPool3d,
)
from torch_cntk.layers.scale import Scale
from torch_cntk.layers.sequential import Sequential
from torch_cntk.layers.smooth import (
    CELU,
    ELU,
    RBF,
    SELU,
    Exp,
    Gaussian,
    Hardtanh,
    Logistic,
    Mish,
    ReLU6,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
)
from torch_cntk.layers.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from torch_cntk.layers.weights import Weighted, reparameterise

__all__ = [
    "ACTIVATIONS",
    "CELU",
    "ELU",
    "GELU",
    "RBF",
    "SELU",
    "ABReLU",
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
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Dropout",
    "Elementwise",
    "Erf",
    "Exp",
    "Flatten",
    "Gaussian",
    "GaussianBlur",
    "GlobalAvgPool",
    "Graph",
    "Hardtanh",
    "Identity",
    "LanczosDown",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Logistic",
    "Mish",
    "MultipleOf",
    "NearestUp",
    "Network",
    "Node",
    "Product",
    "ReLU",
    "ReLU6",
    "Residual",
    "Scale",
    "SelfAttention",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Step",
    "StridedConv1d",
    "StridedConv2d",
    "StridedConv3d",
    "Sum",
    "SumPool1d",
    "SumPool2d",
    "SumPool3d",
    "Tanh",
    "Weighted",
    "activation_of",
    "from_description",
    "reparameterise",
]
