"""Complete images and matrices with infinitely wide neural networks.

A network is defined once from layers that mirror ``torch.nn`` and read two ways: ``forward`` is the finite network,
``kernel`` gives the exact convolutional neural tangent kernel of the infinitely wide one (Radhakrishnan, Stefanakis,
Belkin, Uhler, PNAS 2022). Masks are called ``observed`` everywhere: boolean, True = known.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from torch_cntk import finite, images, matrices, operators, priors, zoo
from torch_cntk._internal.memory import OutOfMemoryError
from torch_cntk.conversion import from_torch, to_torch, with_width
from torch_cntk.finite import (
    DivergedError,
    LinearisedTraining,
    Training,
    TrainingResult,
    TrainingStatus,
    empirical_ntk,
    presets,
    train,
)
from torch_cntk.images import (
    Guidance,
    InpaintingResult,
    autocorrelation_network,
    autocorrelation_passes,
    default_kernel,
    default_network,
    guided_network,
    inpaint,
    leave_out_error,
    levels_for,
)
from torch_cntk.images import plots as plotting
from torch_cntk.kernels import Kernel
from torch_cntk.layers import (
    GELU,
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
    Identity,
    LanczosDown,
    Layer,
    LeakyReLU,
    Linear,
    NearestUp,
    Node,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Sin,
    StridedConv1d,
    StridedConv2d,
    StridedConv3d,
    Sum,
    reparameterise,
)
from torch_cntk.matrices import MatrixCompletion, features
from torch_cntk.operators import GramOperator, Operator
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
from torch_cntk.zoo import catalogue, hourglass, load_kernel

try:
    __version__ = version("torch-cntk")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"

__all__ = [
    "GELU",
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
    "Identity",
    "InpaintingResult",
    "Kernel",
    "LanczosDown",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LinearisedTraining",
    "MatrixCompletion",
    "NearestUp",
    "Node",
    "Operator",
    "OutOfMemoryError",
    "ReLU",
    "Regression",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Sin",
    "Solution",
    "Solver",
    "Status",
    "StridedConv1d",
    "StridedConv2d",
    "StridedConv3d",
    "Sum",
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
    "finite",
    "from_torch",
    "guided_network",
    "hourglass",
    "images",
    "inpaint",
    "leave_out_error",
    "levels_for",
    "load_kernel",
    "matrices",
    "operators",
    "plotting",
    "presets",
    "priors",
    "reparameterise",
    "to_torch",
    "train",
    "with_width",
    "zoo",
]

_LATE = {"baselines": "torch_cntk.matrices.baselines", "drug_response": "torch_cntk.matrices.drug_response"}
"""Sub-packages that few users need: imported when they are asked for."""


def __getattr__(name: str) -> ModuleType:
    if name in _LATE:
        return import_module(_LATE[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
