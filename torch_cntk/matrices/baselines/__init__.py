"""Other methods, to compare with.

Those of drug response complete a tensor [drugs, cells, genes] of which whole profiles are missing, given
``observed`` [drugs, cells], True = known; what the tensor holds elsewhere does not matter. Those of matrices complete
[rows, columns] without features.
"""

from torch_cntk.matrices.baselines.dnpp import dnpp
from torch_cntk.matrices.baselines.falrtc import falrtc
from torch_cntk.matrices.baselines.low_rank import matrix_factorisation, soft_impute
from torch_cntk.matrices.baselines.means import additive, cell_mean, drug_mean
from torch_cntk.matrices.baselines.tables import chosen_soft_impute, nearest_rows, two_way_means

__all__ = [
    "additive",
    "cell_mean",
    "chosen_soft_impute",
    "dnpp",
    "drug_mean",
    "falrtc",
    "matrix_factorisation",
    "nearest_rows",
    "soft_impute",
    "two_way_means",
]
