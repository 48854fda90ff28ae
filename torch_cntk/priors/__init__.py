"""Feature priors: what a network is fed with, as samples for the finite one and as Sigma_0 for the kernel."""

from torch_cntk.priors.base import (
    Autocorrelation,
    Constant,
    Coordinates,
    Identity,
    Meshgrid,
    Normal,
    Prior,
    Stationary,
    Sum,
    Tensor,
    Uniform,
    White,
    from_description,
)

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
]
