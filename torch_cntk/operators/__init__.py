"""K @ w without the matrix K."""

from torch_cntk.operators.base import BlockCirculantOperator, DenseOperator, Lookup, Operator, PeriodicOperator
from torch_cntk.operators.gram import GramOperator

__all__ = ["BlockCirculantOperator", "DenseOperator", "GramOperator", "Lookup", "Operator", "PeriodicOperator"]
