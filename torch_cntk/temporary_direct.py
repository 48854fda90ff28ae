"""Stands in for the direct solver until it is there."""

from dataclasses import dataclass

import torch

from torch_cntk.solvers import Factorisation, Solution, Solver, Status


@dataclass(frozen=True)
class Direct(Solver):
    """Cholesky."""

    def factorise(self, regression, *, progress=False):
        """Factorise."""
        return _Cholesky(regression)


class _Cholesky(Factorisation):
    def __init__(self, regression):
        self.index = regression.observed.flatten().nonzero()[:, 0]
        matrix = regression.operator.entries(self.index, self.index)
        matrix.diagonal().add_(regression.ridge)
        self.factor = torch.linalg.cholesky(matrix)
        self.size = regression.operator.size

    def solve(self, targets, *, guess=None, progress=False):
        """Solve."""
        flat = targets.reshape(-1, targets.numel() if len(self.size) == targets.ndim else targets.shape[-1])
        weights = torch.zeros_like(flat)
        weights[:, self.index] = torch.cholesky_solve(flat[:, self.index].T, self.factor).T
        return Solution(weights.reshape(targets.shape), torch.zeros(()), 1, 0.0, Status.CONVERGED, "direct")
