"""Complete matrices from features of their rows and columns."""

from torch_cntk.matrices import features
from torch_cntk.matrices.completion import MatrixCompletion

__all__ = ["MatrixCompletion", "features"]
