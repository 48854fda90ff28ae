"""Ready networks, and kernels that have a name."""

from torch_cntk.zoo import catalogue
from torch_cntk.zoo.hourglass import hourglass
from torch_cntk.zoo.loading import load_kernel

__all__ = ["catalogue", "hourglass", "load_kernel"]
