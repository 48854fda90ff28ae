"""K @ w without the matrix K."""

from torch_cntk.operators.base import DenseOperator, Lookup, Operator
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.inputs import InputsOperator
from torch_cntk.operators.periodic import BlockCirculantOperator, PeriodicOperator
from torch_cntk.operators.sharded import ShardedGram
from torch_cntk.operators.stencil import StencilOperator

__all__ = [
    "BlockCirculantOperator",
    "DenseOperator",
    "GramOperator",
    "InputsOperator",
    "Lookup",
    "Operator",
    "PeriodicOperator",
    "ShardedGram",
    "StencilOperator",
]
