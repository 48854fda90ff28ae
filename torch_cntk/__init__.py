"""Complete images and matrices with infinitely wide neural networks.

A network is defined once from layers that mirror ``torch.nn`` and read two ways: ``forward`` is the finite network,
``kernel`` gives the exact convolutional neural tangent kernel of the infinitely wide one (Radhakrishnan, Stefanakis,
Belkin, Uhler, PNAS 2022). Masks are called ``observed`` everywhere: boolean, True = known.
"""

from importlib.metadata import PackageNotFoundError, version

from torch_cntk import catalogue, features, plotting, presets, priors
from torch_cntk._memory import OutOfMemoryError
from torch_cntk.autocorrelation import autocorrelation_network, autocorrelation_passes
from torch_cntk.completion import MatrixCompletion
from torch_cntk.conversion import from_torch, to_torch, with_width
from torch_cntk.empirical import empirical_ntk
from torch_cntk.gram_operator import GramOperator
from torch_cntk.guided import Guidance, guided_network
from torch_cntk.inpainting import InpaintingResult, default_kernel, default_network, inpaint, levels_for
from torch_cntk.kernel import Kernel
from torch_cntk.layers import (
    ELU,
    GELU,
    SELU,
    ABReLU,
    Abs,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BilinearUp,
    ChannelNorm,
    Concat,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout,
    Elementwise,
    Erf,
    GaussianBlur,
    Graph,
    Hardtanh,
    Identity,
    LanczosDown,
    Layer,
    LeakyReLU,
    Linear,
    Logistic,
    Mish,
    NearestUp,
    Node,
    ReLU,
    ReLU6,
    Residual,
    Sequential,
    Sigmoid,
    Sign,
    SiLU,
    Sin,
    Softplus,
    Softsign,
    Step,
    StridedConv1d,
    StridedConv2d,
    StridedConv3d,
    Sum,
    Tanh,
    reparameterise,
)
from torch_cntk.linearised import LinearisedTraining
from torch_cntk.networks import hourglass
from torch_cntk.operators import Operator
from torch_cntk.saved import load_kernel
from torch_cntk.solvers import (
    ConjugateGradient,
    Direct,
    EigenPro,
    Factorisation,
    Regression,
    Solution,
    Solver,
    Status,
)
from torch_cntk.training import DivergedError, Training, TrainingResult, TrainingStatus, train
from torch_cntk.trials import leave_out_error

try:
    __version__ = version("torch-cntk")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "ABReLU",
    "Abs",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BilinearUp",
    "ChannelNorm",
    "Concat",
    "ConjugateGradient",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Direct",
    "DivergedError",
    "Dropout",
    "EigenPro",
    "Elementwise",
    "Erf",
    "Factorisation",
    "GaussianBlur",
    "GramOperator",
    "Graph",
    "Guidance",
    "Hardtanh",
    "Identity",
    "InpaintingResult",
    "Kernel",
    "LanczosDown",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LinearisedTraining",
    "Logistic",
    "MatrixCompletion",
    "Mish",
    "NearestUp",
    "Node",
    "Operator",
    "OutOfMemoryError",
    "ReLU",
    "ReLU6",
    "Regression",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Solution",
    "Solver",
    "Status",
    "Step",
    "StridedConv1d",
    "StridedConv2d",
    "StridedConv3d",
    "Sum",
    "Tanh",
    "Training",
    "TrainingResult",
    "TrainingStatus",
    "autocorrelation_network",
    "autocorrelation_passes",
    "catalogue",
    "default_kernel",
    "default_network",
    "empirical_ntk",
    "features",
    "from_torch",
    "guided_network",
    "hourglass",
    "inpaint",
    "leave_out_error",
    "levels_for",
    "load_kernel",
    "plotting",
    "presets",
    "priors",
    "reparameterise",
    "to_torch",
    "train",
    "with_width",
]
