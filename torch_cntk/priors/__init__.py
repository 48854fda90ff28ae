"""Feature priors: what a network is fed with, as samples for the finite one and as Sigma_0 for the kernel."""

from torch_cntk.priors.base import Prior, Sum, from_description, named_prior
from torch_cntk.priors.given import Identity, Meshgrid, Tensor
from torch_cntk.priors.independent import Constant, Normal, Uniform, White
from torch_cntk.priors.stationary import Autocorrelation, Coordinates, Stationary

__all__ = [
    "Autocorrelation",
    "Constant",
    "Coordinates",
    "Identity",
    "Meshgrid",
    "Normal",
    "Prior",
    "Stationary",
    "Sum",
    "Tensor",
    "Uniform",
    "White",
    "from_description",
    "named_prior",
]
