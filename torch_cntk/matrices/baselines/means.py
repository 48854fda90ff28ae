"""Means over what is observed of the same cell type or drug."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk.matrices.baselines._observed import completed, observed_profiles

__all__ = ["additive", "cell_mean", "drug_mean"]


def cell_mean(tensor: Tensor, observed: Tensor) -> Tensor:
    """Each missing profile is the mean over the drugs observed in the same cell type.

    Args:
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.

    Returns:
        [drugs, cells, genes]; cell types without a profile get the mean of the cell types' means.
    """
    means = _means(observed_profiles(tensor, observed), observed, 0)
    return completed(tensor, observed, means[None].expand(tensor.shape))


def drug_mean(tensor: Tensor, observed: Tensor) -> Tensor:
    """Each missing profile is the mean over the cell types in which the same drug was observed.

    Args:
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.

    Returns:
        [drugs, cells, genes]; drugs without a profile get the mean of the drugs' means.
    """
    means = _means(observed_profiles(tensor, observed), observed, 1)
    return completed(tensor, observed, means[:, None].expand(tensor.shape))


def _means(values: Tensor, observed: Tensor, axis: int) -> Tensor:
    counts = observed.sum(axis)[:, None]
    means = values.sum(axis) / counts.clamp_min(1)
    known = counts[:, 0] > 0
    return torch.where(counts > 0, means, means[known].mean(0))


def additive(tensor: Tensor, observed: Tensor) -> Tensor:
    """An effect of the drug plus one of the cell type, fitted by least squares to each gene.

    Args:
        tensor: [drugs, cells, genes].
        observed: boolean [drugs, cells], True = known.

    Returns:
        [drugs, cells, genes]; of drugs or cell types without a profile, the effect is the mean of the others'.
    """
    values = observed_profiles(tensor, observed)
    drugs, cells = observed.shape
    places = observed.nonzero()
    design = torch.zeros(len(places), drugs + cells, dtype=values.dtype, device=values.device)
    every = torch.arange(len(places), device=values.device)
    design[every, places[:, 0]] = 1
    design[every, drugs + places[:, 1]] = 1
    # Of minimal norm, as a constant may move from one effect to the other.
    effects = torch.linalg.pinv(design) @ values[observed]
    parts = []
    for effect, known in ((effects[:drugs], observed.any(1)), (effects[drugs:], observed.any(0))):
        parts.append(torch.where(known[:, None], effect, effect[known].mean(0)))
    return completed(tensor, observed, parts[0][:, None] + parts[1][None])
