"""Feature priors of drug response: what is known of each pair of a drug and a cell type.

All of them are [drugs * cells, p], pairs in the order of the tensor. What a prior says of an observed pair should be
what it would say had the pair not been observed: features that hold a column's own profile promise more than those of
the columns to be predicted can keep. Means over many pairs are to be the same for all of them: a mean that leaves out
the pair itself tells its profile, with the opposite sign.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk.matrices.drug_response.protocol import Method
from torch_cntk.matrices.features import concatenate, one_hot, unit

__all__ = ["estimate_prior", "estimates", "one_hot_prior", "reference_prior"]


def one_hot_prior(observed: Tensor, cell_weight: float = 1.0, drug_weight: float = 0.75) -> Tensor:
    """Which cell type and which drug; with the cell type alone, completion is the mean over it (one-hot, no ridge).

    Args:
        observed: boolean [drugs, cells]; only its shape matters.
        cell_weight: of the block for cell types; the paper's is 1.
        drug_weight: of the block for drugs; the paper's is 0.75, and 0 leaves it out.
    """
    drugs, cells = observed.shape
    blocks = [one_hot(list(range(cells)) * drugs), one_hot([drug for drug in range(drugs) for _ in range(cells)])]
    if drug_weight == 0:
        return concatenate(blocks[0], weights=(cell_weight,))
    return concatenate(*blocks, weights=(cell_weight, drug_weight))


def reference_prior(tensor: Tensor, observed: Tensor, reference: int, cell_weight: float = 0.75) -> Tensor:
    """The paper's prior of the sparse regime: [w |drug| unit(mean profile of the cell type), drug's profile in one].

    Args:
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.
        reference: the cell type in which drugs are described; drugs that were not measured in it are described by the
            mean of those that were.
        cell_weight: w.

    Returns:
        [drugs * cells, 2 genes].

    Raises:
        ValueError: no drug was observed in the reference cell type.
    """
    values = torch.where(observed[..., None], tensor, 0)
    known = observed[:, reference]
    if not bool(known.any()):
        raise ValueError("expected drugs observed in the reference cell type, got none")
    drug = torch.where(known[:, None], values[:, reference], values[known, reference].mean(0))
    # Directions alone matter: the sum is as good as the mean.
    means = unit(values.sum(0))[None].expand(values.shape)
    cell = cell_weight * torch.linalg.vector_norm(drug, dim=1)[:, None, None] * means
    return torch.cat([cell, drug[:, None].expand(values.shape)], 2).flatten(0, 1)


def estimates(method: Method, tensor: Tensor, observed: Tensor, *, folds: int = 5, seed: int = 0) -> Tensor:
    """What another method says of each pair without having seen it: of observed ones by cross-fitting.

    Args:
        method: see ``Method``.
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.
        folds: into which the observed pairs are parted; each is estimated from the others.
        seed: of the parts.

    Returns:
        [drugs, cells, genes].
    """
    result = method(tensor, observed).clone()
    places = observed.nonzero()
    places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))]
    for fold in range(folds):
        drug, cell = places[fold::folds].T
        rest = observed.clone()
        rest[drug, cell] = False
        filled = method(torch.where(rest[..., None], tensor, torch.nan), rest)
        result[drug, cell] = filled[drug, cell]
    return result


def estimate_prior(method: Method, tensor: Tensor, observed: Tensor) -> Tensor:
    """The output of another method as features, as in the paper: of observed pairs their own profiles."""
    return method(tensor, observed).flatten(0, 1)
