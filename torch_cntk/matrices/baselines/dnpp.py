"""Drug Neighbor Profile Prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.matrices.baselines._observed import completed, observed_profiles
from torch_cntk.matrices.baselines.means import cell_mean

__all__ = ["dnpp"]


def dnpp(tensor: Tensor, observed: Tensor, neighbours: int = 10) -> Tensor:
    """Each missing profile is a weighted mean over similar drugs in the same cell type (Hodos et al. 2018).

    Two drugs are as similar as their profiles correlate, on average over the cell types in which both are observed. Of
    the drugs observed in the cell type, the most similar ones are averaged, weighted by their similarity. Where none is
    similar (all similarities at or below 0, or unknown), the mean over the cell type is taken.

    Args:
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.
        neighbours: number of drugs that are averaged.

    Returns:
        [drugs, cells, genes].

    Raises:
        TypeError: ``neighbours`` is no integer, or the mask not boolean.
        ValueError: ``neighbours`` is below 1, or shapes do not fit.
    """
    positive_int(neighbours, "neighbours")
    values = observed_profiles(tensor, observed)
    filled = cell_mean(values, observed)
    # Unknown similarities are below all known ones, and weigh nothing.
    similarity = _similarity(values, observed)
    for cell in range(observed.shape[1]):
        known, missing = observed[:, cell].nonzero()[:, 0], (~observed[:, cell]).nonzero()[:, 0]
        if not len(known) or not len(missing):
            continue
        nearest = similarity[missing][:, known].topk(min(neighbours, len(known)), dim=1)
        weights = nearest.values.clamp_min(0)
        total = weights.sum(1, keepdim=True)
        profiles = values[known[nearest.indices], cell]
        means = torch.einsum("mk,mkg->mg", weights / torch.where(total > 0, total, 1), profiles)
        filled[missing, cell] = torch.where(total > 0, means, filled[missing, cell])
    return completed(tensor, observed, filled)


def _similarity(values: Tensor, observed: Tensor) -> Tensor:
    """Mean correlation of each pair of drugs over the cell types that they share; -inf if they share none, [d, d]."""
    centred = values - values.mean(2, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    units = torch.where(observed[..., None], centred / torch.where(norm > 0, norm, 1), 0)
    flat = units.flatten(1)
    seen = observed.double()
    shared = seen @ seen.T
    return torch.where(shared > 0, flat @ flat.T / shared.clamp_min(1), -torch.inf)
