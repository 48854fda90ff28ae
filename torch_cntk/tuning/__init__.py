"""Options of networks and priors, and the ridge, chosen by gradient."""

from torch_cntk.tuning.result import Tuning
from torch_cntk.tuning.search import tune

__all__ = ["Tuning", "tune"]
