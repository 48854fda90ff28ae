"""Virtual drug screening with the neural tangent kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from torch_cntk.matrices.baselines import additive, falrtc
from torch_cntk.matrices.completion import MatrixCompletion
from torch_cntk.matrices.drug_response.priors import estimate_prior, estimates, one_hot_prior, reference_prior
from torch_cntk.matrices.drug_response.protocol import Method, metrics
from torch_cntk.matrices.features import concatenate
from torch_cntk.matrices.parameters import Parameters

__all__ = ["MixedNTK", "PaperNTK", "ResidualNTK"]


def _matrix(tensor: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Genes by pairs, and the mask of it: whole columns are observed or not."""
    values = torch.where(observed[..., None], tensor, torch.nan).flatten(0, 1).T
    return values, observed.flatten().expand(values.shape)


@dataclass(frozen=True)
class PaperNTK(Parameters):
    """The paper's method and settings: one hidden layer, no ridge, a fixed prior and an identity block behind it.

    Attributes:
        reference: the cell type in which drugs are described.
        prior: "reference" (the paper's of the sparse regime), "one-hot", or a method whose output is the prior.
        cell_weight: of the cell type's part.
        identity: weight of the identity block, in units of the profiles; lines are normalised with it.
        hidden_layers: of the network.
    """

    reference: int
    prior: Literal["reference", "one-hot"] | Method = "reference"
    cell_weight: float = 0.75
    identity: float = 1.5
    hidden_layers: int = 1

    def __call__(self, tensor: Tensor, observed: Tensor) -> Tensor:
        """Complete [drugs, cells, genes].

        Raises:
            ValueError: the prior is no known one.
        """
        if self.prior == "reference":
            features = reference_prior(tensor, observed, self.reference, self.cell_weight)
        elif self.prior == "one-hot":
            features = one_hot_prior(observed)
        elif isinstance(self.prior, str):
            raise ValueError(f'expected prior to be "reference", "one-hot" or a method, got {self.prior!r}')
        else:
            features = estimate_prior(self.prior, tensor, observed)
        block = torch.eye(len(features), dtype=features.dtype)
        model = MatrixCompletion(self.hidden_layers, ridge=0, center=False)
        model.fit(*_matrix(tensor, observed), features=concatenate(features, block, weights=(1, self.identity)))
        return _completed(tensor, observed, model.predict())


@dataclass(frozen=True)
class MixedNTK(Parameters):
    """The paper's mixed prior: another method's output for cell types with many drugs, the sparse prior for others.

    Attributes:
        sparse: completes cell types with few observed drugs.
        dense: completes the others.
        threshold: most drugs that are few.
    """

    sparse: Method
    dense: Method
    threshold: int = 150

    def __call__(self, tensor: Tensor, observed: Tensor) -> Tensor:
        """Complete [drugs, cells, genes]."""
        few = observed.sum(0) <= self.threshold
        if bool(few.all()):
            return self.sparse(tensor, observed)
        if not bool(few.any()):
            return self.dense(tensor, observed)
        return torch.where(few[:, None], self.sparse(tensor, observed), self.dense(tensor, observed))


@dataclass(frozen=True)
class ResidualNTK(Parameters):
    """The kernel regresses what another method leaves, on features that say as much of observed pairs as of others.

    The output of ``base``, cross-fitted on the observed pairs, is the prior mean. The features are those of
    ``reference_prior`` and the output of ``also``, cross-fitted as well. They keep their length, which tells weak drugs
    from strong ones, and squared errors count relative to the variance of the profile, as in its R^2. Depth, weights
    and ridge are those whose leave-one-out predictions have the largest sum of the three metrics: of what is observed
    alone.

    Attributes:
        reference: the cell type in which drugs are described.
        base: the method whose residual is regressed, or None for the mean of each gene.
        also: methods whose output is described as well.
        hidden_layers: candidates.
        cell_weights: candidates, of the cell type's part of the features.
        identities: candidates, of the identity block behind features of length 1 on average.
    """

    reference: int
    base: Method | None = falrtc
    also: Sequence[Method] = field(default=(additive,))
    hidden_layers: Sequence[int] = (1, 3)
    cell_weights: Sequence[float] = (0.75, 1.5)
    identities: Sequence[float] = (0.3,)

    def __call__(self, tensor: Tensor, observed: Tensor) -> Tensor:
        """Complete [drugs, cells, genes]."""
        return _completed(tensor, observed, self.best(tensor, observed)[1])

    def best(self, tensor: Tensor, observed: Tensor) -> tuple[MatrixCompletion, Tensor]:
        """The chosen model, and its prediction of all pairs, [genes, pairs]."""
        values, mask = _matrix(tensor, observed)
        mean = self._mean(tensor, observed)
        profiles = tensor[observed]
        length = torch.linalg.vector_norm(profiles - profiles.mean(1, keepdim=True), dim=1)
        weight = torch.ones(observed.numel(), dtype=values.dtype)
        weight[observed.flatten()] = 1 / length.clamp_min(1e-3 * float(length.mean())).square()
        others = [estimates(method, tensor, observed).flatten(0, 1) for method in self.also]
        scale = 1 / torch.linalg.vector_norm(profiles, dim=1).mean()
        best: MatrixCompletion | None = None
        best_score, filled = -torch.inf, values
        for cell_weight in self.cell_weights:
            own = reference_prior(tensor, observed, self.reference, cell_weight)
            features = scale * torch.cat([own, *others], 1)
            for depth, identity in product(self.hidden_layers, self.identities):
                model = MatrixCompletion(depth, ridge="cv", identity=identity, normalize=False, center=False)
                model.fit(values - mean, mask, features, column_weight=weight)
                left_out = (model.left_out() + mean).T[observed.flatten()]
                score = float(metrics(left_out, profiles).sum())
                if best is None or score > best_score:
                    best, best_score, filled = model, score, model.predict() + mean
        assert best is not None
        return best, filled

    def _mean(self, tensor: Tensor, observed: Tensor) -> Tensor:
        """What the regression begins from, [genes, pairs]."""
        if self.base is None:
            return tensor[observed].mean(0)[:, None].expand(tensor.shape[2], observed.numel())
        return estimates(self.base, tensor, observed).flatten(0, 1).T


def _completed(tensor: Tensor, observed: Tensor, filled: Tensor) -> Tensor:
    """From [genes, pairs] back to the tensor; observed profiles are untouched."""
    return torch.where(observed[..., None], tensor, filled.T.reshape(tensor.shape))
