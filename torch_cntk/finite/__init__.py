"""Networks of finite width: their training, their empirical kernel, and the limit of their training."""

from torch_cntk.finite import presets
from torch_cntk.finite.empirical import empirical_ntk
from torch_cntk.finite.linearised import LinearisedTraining
from torch_cntk.finite.training import DivergedError, Training, TrainingResult, TrainingStatus, train

__all__ = [
    "DivergedError",
    "LinearisedTraining",
    "Training",
    "TrainingResult",
    "TrainingStatus",
    "empirical_ntk",
    "presets",
    "train",
]
