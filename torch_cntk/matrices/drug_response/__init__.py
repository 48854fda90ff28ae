"""Virtual drug screening: predict what drugs do to cell types in which they were not measured.

A drug-cell pair is a column of a matrix whose rows are genes; whole columns are missing, and their features come from
what else is known of the drug and of the cell type (Radhakrishnan et al. 2022, drug response imputation).
"""

from torch_cntk.matrices.drug_response.data import DrugResponse, read_drug_response
from torch_cntk.matrices.drug_response.ntk import MixedNTK, PaperNTK, ResidualNTK
from torch_cntk.matrices.drug_response.priors import estimate_prior, estimates, one_hot_prior, reference_prior
from torch_cntk.matrices.drug_response.protocol import METRICS, Comparison, Method, compare, folds, metrics

__all__ = [
    "METRICS",
    "Comparison",
    "DrugResponse",
    "Method",
    "MixedNTK",
    "PaperNTK",
    "ResidualNTK",
    "compare",
    "estimate_prior",
    "estimates",
    "folds",
    "metrics",
    "one_hot_prior",
    "read_drug_response",
    "reference_prior",
]
