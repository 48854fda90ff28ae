"""Networks of finite width: their training, their empirical kernel, and the limit of their training."""

from torch_cntk.finite import presets
from torch_cntk.finite.empirical import empirical_ntk
from torch_cntk.finite.expected import ExpectedKernel, expected_kernel, monte_carlo_kernel
from torch_cntk.finite.linearised import LinearisedTraining
from torch_cntk.finite.taylor import Linearised, linearise, linearize
from torch_cntk.finite.training import DivergedError, Step, Training, TrainingResult, TrainingStatus, train

__all__ = [
    "DivergedError",
    "ExpectedKernel",
    "Linearised",
    "LinearisedTraining",
    "Step",
    "Training",
    "TrainingResult",
    "TrainingStatus",
    "empirical_ntk",
    "expected_kernel",
    "linearise",
    "linearize",
    "monte_carlo_kernel",
    "presets",
    "train",
]
