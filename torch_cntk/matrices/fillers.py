"""Ways to fill a matrix from what is known and an estimate: means, low rank, and two kernel regressions.

A pass is one of them. What matrices have in common with images is the loop: the last estimate becomes the feature
prior of the next regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from torch_cntk.covariance import Gram
from torch_cntk.matrices.baselines.low_rank import soft_impute
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.options import PRECISIONS, Precision
from torch_cntk.matrices.sides import Side, fully_connected
from torch_cntk.operators.gram import GramOperator
from torch_cntk.operators.row_column import RowColumnOperator
from torch_cntk.solvers import ConjugateGradient, Direct, Regression, Solver
from torch_cntk.solvers.leave_one_out import residuals

__all__ = ["Columns", "Entries", "Filled", "Filler", "LowRank", "Means", "each_pass"]


@dataclass(frozen=True, eq=False)
class Filled:
    """A matrix filled.

    Attributes:
        values: [rows, columns] in the units of ``Known.values``; at observed entries the fit, if there is one.
        residual: largest relative residual of the equations; 0 where there are none.
    """

    values: Tensor
    residual: float = 0.0


@runtime_checkable
class Filler(Protocol):
    """A way to fill matrices: an immutable set of options."""

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """Fill a matrix.

        Args:
            known: what is observed, and features of rows and columns.
            estimate: of ``known.values``' shape and in its units, the last pass's result; None in the first pass.

        Returns:
            the estimate of all entries. It depends on nothing but the arguments.
        """
        ...

    def cost(self, known: Known) -> float:
        """Estimated arithmetic of ``filled``, in FLOPs."""
        ...


def each_pass(known: Known, fillers: Iterable[Filler]) -> Iterator[Filled]:
    """Fill a matrix by one filler after the other, each with the last one's result as estimate.

    Args:
        known: what is observed.
        fillers: of the passes.

    Yields:
        the result of each pass.
    """
    estimate: Tensor | None = None
    for filler in fillers:
        filled = filler.filled(known, estimate)
        estimate = filled.values
        yield filled


_ROUNDS = 10
"""Rounds in which the effects of rows and columns are found in turn; each divides what is left by five or more."""


@dataclass(frozen=True)
class Means:
    """An effect of the row plus one of the column, shrunken towards 0.

    Attributes:
        shrinkage: imaginary entries at 0 of each row and column.
    """

    shrinkage: float = 5.0

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """See ``Filler.filled``; the estimate does not matter."""
        values, seen = known.values, known.observed.to(known.table)
        rows, columns = values.new_zeros(len(values), 1), values.new_zeros(1, values.shape[1])
        for _ in range(_ROUNDS):
            left = (values - columns) * seen
            rows = left.sum(1, keepdim=True) / (seen.sum(1, keepdim=True) + self.shrinkage)
            left = (values - rows) * seen
            columns = left.sum(0, keepdim=True) / (seen.sum(0, keepdim=True) + self.shrinkage)
        return Filled(rows + columns)

    def cost(self, known: Known) -> float:
        """See ``Filler.cost``."""
        return 6.0 * _ROUNDS * known.table.numel()


@dataclass(frozen=True)
class LowRank:
    """Soft-impute (Mazumder et al. 2010): the nuclear norm is penalised. Begins from the estimate.

    Attributes:
        shrinkage: weight of the nuclear norm, as a part of the largest singular value of what is observed.
        means: whether it completes what ``Means`` leave, or the entries themselves.
    """

    shrinkage: float
    means: bool = True

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """See ``Filler.filled``."""
        base = _base(known, self.means)
        left = torch.where(known.observed, known.values - base, 0)
        weight = self.shrinkage * float(torch.linalg.matrix_norm(left, 2))
        guess = None if estimate is None else estimate - base
        low_rank = soft_impute(left, known.observed, weight, guess=guess, max_iterations=_STEPS, tolerance=_CHANGE)
        return Filled(base + low_rank)

    def cost(self, known: Known) -> float:
        """See ``Filler.cost``."""
        large, small = max(known.table.shape), min(known.table.shape)
        return _STEPS / 2 * (4.0 * large * small**2 + 12.0 * small**3)


_STEPS = 60
_CHANGE = 1e-3
"""Steps of soft-impute and the relative change at which it ends: each begins where a larger shrinkage has ended."""


@dataclass(frozen=True)
class Entries:
    """All entries as one Gaussian process: entries are alike if their rows and their columns are.

    K((i, j), (i', j')) = R(i, i') C(j, j'), both the NTK of a fully connected ReLU network of vectors of norm 1. What
    rows and columns are compared by are the lines and columns of the estimate, beside features of their own if there
    are any. One product is two products of dense matrices (``RowColumnOperator``).

    Attributes:
        hidden_layers: of the network.
        noise: variance of the noise, relative to that of an entry under the kernel; above 0.
        own: weight of what was observed in the vectors, at observed entries; the rest is the estimate's.
        means: whether the mean of the process is that of ``Means``, or 0.
        side: weight of features beside the entries.
        solver: None solves few equations directly, and more by conjugate gradients.
        precision: in which iterations multiply by the kernel; float32 takes half of the time and memory.
    """

    hidden_layers: int = 1
    noise: float = 0.3
    own: float = 0.3
    means: bool = True
    side: float = 0.5
    solver: Solver | None = None
    precision: Precision = "float64"

    def equations(self, known: Known, estimate: Tensor | None) -> tuple[Regression, Tensor]:
        """Pose the equations.

        Args:
            known: what is observed.
            estimate: see ``Filler.filled``.

        Returns:
            the regression between entries, and the mean of the process, [rows, columns].
        """
        base = _base(known, self.means)
        left = torch.where(known.observed, known.values - base, 0)
        described = left
        if estimate is not None:
            rest = estimate - base
            described = torch.where(known.observed, self.own * left + (1 - self.own) * rest, rest)
        rows, columns = self._kernel(described, known.rows), self._kernel(described.T, known.columns)
        dtype = PRECISIONS[self.precision]
        operator = RowColumnOperator(rows.to(dtype), columns.to(dtype), "product")
        return Regression(operator, known.observed, self.noise), base

    def _kernel(self, vectors: Tensor, side: Side | None) -> Tensor:
        """The kernel between lines of [n, p], with a diagonal of 1."""
        norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        parts = [vectors / torch.where(norm > 0, norm, 1)]
        if side is not None:
            parts.append(side.features * (self.side / math.sqrt(side.features.shape[1])))
        joint = torch.cat(parts, 1)
        length = torch.linalg.vector_norm(joint, dim=1, keepdim=True)
        joint = joint / torch.where(length > 0, length, 1) * math.sqrt(joint.shape[1])
        kernel = GramOperator(fully_connected(self.hidden_layers).propagate, joint).dense()
        largest = kernel.diagonal().max()
        kernel = kernel / torch.where(largest > 0, largest, 1)
        # A line without an entry or feature is like no other one.
        kernel.diagonal().fill_(1)
        return kernel

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """See ``Filler.filled``."""
        regression, base = self.equations(known, estimate)
        targets = torch.where(known.observed, known.values - base, 0)
        few = int(known.observed.sum()) <= _FEW
        solution = (self.solver or (Direct() if few else _ITERATIONS[self.precision])).solve(regression, targets)
        return Filled(base + regression.operator.multiply(solution.weights), float(solution.residual.max()))

    def cost(self, known: Known) -> float:
        """See ``Filler.cost``."""
        rows, columns = known.table.shape
        return 2.0 * (_PRODUCTS + 1) * rows * columns * (rows + columns)


_FEW = 300
"""Equations that a factorisation solves before an iteration has begun."""
_PRODUCTS = 50
"""Products with the kernel that conjugate gradients take; 25 to 45 on ratings, more where noise is small."""
_ITERATIONS: Mapping[Precision, Solver] = {
    "float64": ConjugateGradient(tolerance=1e-5, max_iterations=1000, preconditioner="none"),
    "float32": ConjugateGradient(tolerance=1e-4, max_iterations=1000, preconditioner="none"),
}
"""Rounding of float32 leaves no less. The kernel's diagonal is constant: dividing by it would change nothing."""


@dataclass(frozen=True)
class Columns:
    """Each column in turn, regressed on all others as the estimate has them or as they were filled by then.

    These are chained equations, as of multiple imputation (van Buuren & Groothuis-Oudshoorn 2011).

    K_j(i, i') is the NTK of a fully connected ReLU network of row i's other entries, a constant, and features of the
    row if there are any; vectors are not normalised, so that large ones are extrapolated linearly. The ridge of each
    column is the one with the smallest leave-one-out error.

    Attributes:
        hidden_layers: of the network; 0 is ridge regression on the other columns.
        seed: of the rows that are learned from, where there are many.
    """

    hidden_layers: int = 1
    seed: int = 0

    def filled(self, known: Known, estimate: Tensor | None) -> Filled:
        """See ``Filler.filled``."""
        before = torch.zeros_like(known.values) if estimate is None else estimate
        described = torch.where(known.observed, known.values, before)
        return Filled(_columns_filled(self, known, described, before))

    def cost(self, known: Known) -> float:
        """See ``Filler.cost``."""
        count, columns = known.table.shape
        learned = known.observed.sum(0).double().clamp_max(_MOST)
        work = 2 * learned.pow(3) / 3 + learned * count * (2 * columns + 60 * (self.hidden_layers + 1))
        return float((work + 25 * learned.clamp_max(_TRIED).pow(3)).sum())


_MOST = 1500
"""Rows that a column is learned from at most, drawn at random; the cost of a factorisation grows with their cube."""
_TRIED = 300
"""Rows that the ridge of a column is chosen on at most."""
_RIDGES = tuple(10.0 ** (k / 2) for k in range(-10, 5))
"""Candidates, relative to the kernel's mean diagonal."""


def _columns_filled(filler: Columns, known: Known, described: Tensor, before: Tensor) -> Tensor:
    """Regress each column on the others; one with fewer than two entries stays as it was."""
    root = math.sqrt(described.shape[1])
    parts = [described / root, torch.ones_like(described[:, :1])]
    if known.rows is not None:
        parts.append(known.rows.features / math.sqrt(known.rows.features.shape[1]))
    inputs, filled = torch.cat(parts, 1), torch.where(known.observed, known.values, before)
    propagate = fully_connected(filler.hidden_layers).propagate
    generator = torch.Generator().manual_seed(filler.seed)
    # Those of which most is known first: the others see what becomes of them.
    for column in known.observed.sum(0).argsort(descending=True, stable=True).tolist():
        seen, missing = (places.nonzero()[:, 0] for places in (known.observed[:, column], ~known.observed[:, column]))
        if len(seen) < 2 or not len(missing):
            continue
        seen = seen[torch.randperm(len(seen), generator=generator).to(seen.device)[:_MOST]]
        inputs[:, column] = 0
        filled[missing, column] = _column(propagate, inputs[seen], known.values[seen, column], inputs[missing])
        inputs[:, column] = filled[:, column] / root
    return filled


def _kernel(propagate: Callable[[Gram], Gram], first: Tensor, second: Tensor) -> Tensor:
    """The NTK between inputs [m, p] and others [n, p], or among the same."""
    products = first @ second.T
    variance, other = first.square().sum(1), second.square().sum(1)
    if first is second:
        # An input with itself: exactly its variance, which rounding might miss.
        products.diagonal().copy_(variance)
    kernel = propagate(Gram(products, None, variance[:, None], other[None])).theta
    assert kernel is not None
    return kernel


def _column(propagate: Callable[[Gram], Gram], inputs: Tensor, values: Tensor, others: Tensor) -> Tensor:
    """The regression of values [m] at inputs [m, p], at other inputs [n, p]."""
    mean = values.mean()
    kernel = _kernel(propagate, inputs, inputs)
    diagonal = kernel.diagonal().mean()
    kernel, targets = kernel / diagonal, (values - mean)[None]
    errors = [float(e.square().sum()) for e in residuals(kernel[:_TRIED, :_TRIED], targets[:, :_TRIED], _RIDGES)]
    ridge = _RIDGES[errors.index(min(errors))]
    # The mean diagonal is 1, and no candidate is near rounding: a plain factorisation will do.
    factor = torch.linalg.cholesky(kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device))
    weights = torch.cholesky_solve(targets.T, factor)[:, 0] / diagonal
    blocks = torch.split(others, max(_BLOCK // len(inputs), 1))
    return torch.cat([_kernel(propagate, block, inputs) @ weights for block in blocks]) + mean


_BLOCK = 1 << 21
"""Entries of a kernel that exist at a time, beside those between rows that are learned from."""


def _base(known: Known, means: bool) -> Tensor:
    return Means().filled(known, None).values if means else torch.zeros_like(known.values)
