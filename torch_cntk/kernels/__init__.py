"""The finished kernel between the pixels of an image, in memory and in files."""

from torch_cntk.kernels.kernel import Kernel

__all__ = ["Kernel"]
