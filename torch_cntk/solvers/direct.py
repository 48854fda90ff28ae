"""Factorise the observed block of K: Cholesky, in place; a rank-revealing route where K is singular."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy.linalg.lapack
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.contexts import plain
from torch_cntk._internal.memory import available_bytes, require_bytes
from torch_cntk.solvers.base import Factorisation, MaskSolver, Regression, Solution, Status, of_any_scale
from torch_cntk.solvers.shared_inverse import inverse_pays, restricted_inverse

__all__ = ["Direct"]

_BLOCK = 512
"""Rows and columns that are dealt with at a time."""
_DIGITS_LEFT = 0.7
"""Share of their digits that K's entries keep: they go through roots of differences, and 16 digits become 11, 7 become
5. An eigenvalue of K that is smaller than this part of the largest entry is taken for rounding."""
_EXACT = 1e-9
"""Largest relative residual of a direct solution."""
_NEGLECTED = 10
"""A kernel may be so many times further off its factor of low rank than rounding is: beyond, it is none."""


@dataclass(frozen=True)
class Direct(MaskSolver):
    """Cholesky factorisation of K_OO + ridge in float64, with one step of iterative refinement.

    n^3 / 3 operations and 8 n^2 bytes for n observed pixels. What differs from the textbook:

    1. In place: the factor takes the lower triangle of the one matrix in memory, and K stays in the upper one, of which
       the true residual is found.
    2. One step of iterative refinement, with that residual.
    3. Where K is singular to the precision of its entries, a pivoted factorisation finds its rank, and the answer is
       that of least squares and least norm; this takes a few more copies.
    4. Many masks that leave out little share the inverse of K + ridge between all pixels: each costs a factorisation of
       the size of what it leaves out.
    """

    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """See ``Solver.factorise``."""
        return _ManyMasks.of(regression, self) or super().factorise(regression, progress=progress)

    def solve(self, regression: Regression, targets: Tensor, *, progress: bool = False) -> Solution:
        """As ``Solver.solve``; unless masks share an inverse, only one mask's factorisation is held at a time."""
        together = _ManyMasks.of(regression, self)
        if together is None:
            return super().solve(regression, targets, progress=progress)
        return together.solve(targets, progress=progress)

    def factorise_mask(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Fill the matrix and factorise it.

        Raises:
            OutOfMemoryError: the matrix would not fit.
        """
        observed = regression.observed.reshape(-1).nonzero()[:, 0]
        count = len(observed)
        require_bytes(
            8 * count**2,
            f"the direct solution of {count:,} equations",
            lambda free: f"{math.isqrt(free // 8):,} would fit; ConjugateGradient() needs no matrix",
            regression.operator.device,
        )
        with tqdm(total=2 * count, disable=not progress, desc="direct", unit="row", leave=False) as bar:
            matrix = _Matrix(regression, observed, bar)
            rounding = _rounding(regression, matrix.values)
            if matrix.factorise(bar) > rounding:
                return _Triangular(regression, observed, matrix)
            return _LowRank(regression, observed, matrix.restore(), rounding)


def _rounding(regression: Regression, matrix: Tensor) -> float:
    """What rounding may put into an eigenvalue."""
    return float(torch.finfo(regression.operator.entry_dtype).eps ** _DIGITS_LEFT * matrix.diagonal().abs().max())


class _Matrix:
    """K_OO + ridge, and after ``factorise`` its Cholesky factor beside it.

    The factor takes the blocks on and below the diagonal; those above stay K's, and those on the diagonal are kept
    apart, so that one n x n matrix holds both.
    """

    def __init__(self, regression: Regression, observed: Tensor, bar: tqdm) -> None:
        count = len(observed)
        self._blocks = [(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
        self.values = torch.empty(count, count, dtype=torch.float64, device=observed.device)
        for first, last in self._blocks:
            # Each pair of pixels is looked up once.
            rows = regression.operator.entries(observed[first:last], observed[first:])
            self.values[first:last, first:] = rows
            self.values[last:, first:last] = rows[:, last - first :].T
            bar.update(last - first)
        self.values.diagonal().add_(regression.ridge)
        self._diagonals = [self.values[first:last, first:last].clone() for first, last in self._blocks]

    def factorise(self, bar: tqdm) -> float:
        """Make the factor.

        Returns:
            the smallest pivot, or 0 if one would not be positive: there is no factor then.
        """
        smallest = math.inf
        for first, last in self._blocks:
            factor, info = torch.linalg.cholesky_ex(self.values[first:last, first:last])
            if int(info):
                return 0.0
            smallest = min(smallest, float(factor.diagonal().min()) ** 2)
            self.values[first:last, first:last] = factor
            panel = self.values[last:, first:last]
            panel.copy_(torch.linalg.solve_triangular(factor.mT, panel, upper=True, left=False))
            for start, stop in self._blocks:
                if start >= last:
                    left, right = panel[start - last :], panel[start - last : stop - last]
                    self.values[start:, start:stop].addmm_(left, right.mT, alpha=-1)
            bar.update(last - first)
        return smallest

    def restore(self) -> Tensor:
        """K_OO + ridge again, in the same memory."""
        for (first, last), diagonal in zip(self._blocks, self._diagonals, strict=True):
            self.values[first:last, first:last] = diagonal
            self.values[last:, first:last] = self.values[first:last, last:].T
        return self.values

    def multiply(self, vectors: Tensor) -> Tensor:
        """(K_OO + ridge) @ [n, k], from the blocks that the factor leaves alone."""
        product = torch.zeros_like(vectors)
        for (first, last), diagonal in zip(self._blocks, self._diagonals, strict=True):
            right = self.values[first:last, last:]
            product[first:last] += diagonal @ vectors[first:last] + right @ vectors[last:]
            product[last:] += right.mT @ vectors[first:last]
        return product

    def solve(self, vectors: Tensor) -> Tensor:
        """(K_OO + ridge)^-1 @ [n, k], by the factor."""
        half = torch.linalg.solve_triangular(self.values, vectors, upper=False)
        solved: Tensor = torch.linalg.solve_triangular(self.values.mT, half, upper=True)
        return solved


class _OnPixels(Factorisation):
    """Equations on the observed pixels alone: the subclass solves for columns [n, k]."""

    _text: str
    _status: Status

    def __init__(self, regression: Regression, observed: Tensor) -> None:
        self._size = regression.operator.size
        self._observed = observed

    @abstractmethod
    def _columns(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Weights for targets [n, k], and what they leave of the targets."""

    @plain()
    @of_any_scale
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``; a guess is of no use.

        Raises:
            ValueError: the kernel has negative eigenvalues.
        """
        start = time.perf_counter()
        shape = targets.shape[: targets.ndim - len(self._size)]
        columns = targets.double().reshape(-1, math.prod(self._size))[:, self._observed].T
        solved, left = self._columns(columns)
        weights = torch.zeros(columns.shape[1], math.prod(self._size), dtype=torch.float64, device=targets.device)
        weights[:, self._observed] = solved.T
        norm = columns.norm(dim=0)
        residual = left.norm(dim=0) / torch.where(norm > 0, norm, 1)
        exact = self._status is not Status.CONVERGED or bool((residual <= _EXACT).all())
        return Solution(
            weights.reshape(*shape, *self._size),
            residual.reshape(shape),
            0,
            time.perf_counter() - start,
            self._status if exact else Status.STAGNATED,
            self._text,
        )


class _Triangular(_OnPixels):
    """By the Cholesky factor."""

    _text = "direct (Cholesky, float64)"
    _status = Status.CONVERGED

    def __init__(self, regression: Regression, observed: Tensor, matrix: _Matrix) -> None:
        super().__init__(regression, observed)
        self._matrix = matrix

    def _columns(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        solved = self._matrix.solve(targets)
        # Once more for what rounding has left.
        solved += self._matrix.solve(targets - self._matrix.multiply(solved))
        return solved, targets - self._matrix.multiply(solved)


class _LowRank(_OnPixels):
    """By P K P^T = L L^T with L [n, rank], then L = Q R: the pseudo-inverse of K is Q (R R^T)^-1 Q^T."""

    _status = Status.SINGULAR

    def __init__(self, regression: Regression, observed: Tensor, matrix: Tensor, rounding: float) -> None:
        # Of the same pixels in the order of their pivots. LAPACK reads by columns: its lower triangle is our upper one.
        kept = matrix.cpu().numpy()
        factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(kept.T, tol=rounding, lower=1, overwrite_a=1)
        super().__init__(regression, observed[torch.from_numpy(pivots - 1).long().to(observed.device)])
        self._regression, self._rounding = regression, rounding
        lower = torch.from_numpy(np.ascontiguousarray(np.tril(factor)[:, :rank])).to(observed.device)
        self._basis, self._triangle = torch.linalg.qr(lower)
        self._text = f"direct (pivoted Cholesky, rank {rank} of {len(observed)}, float64)"

    def _columns(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        inside = self._basis.mT @ targets
        half = torch.linalg.solve_triangular(self._triangle, inside, upper=True)
        solved = self._basis @ torch.linalg.solve_triangular(self._triangle.mT, half, upper=False)
        product = self._basis @ (self._triangle @ (self._triangle.mT @ (self._basis.mT @ solved)))
        true = self._multiply(solved)
        allowed = _NEGLECTED * len(solved) * self._rounding * solved.norm(dim=0)
        if not bool(((true - product).norm(dim=0) <= allowed).all()):
            raise ValueError(
                "expected a positive semi-definite kernel, got one with negative eigenvalues: it is no kernel, or its "
                "entries are rounded too much"
            )
        return solved, targets - true

    def _multiply(self, vectors: Tensor) -> Tensor:
        """(K_OO + ridge) @ [n, k], of the entries."""
        operator, pixels = self._regression.operator, self._observed
        rows = [operator.entries(some, pixels) @ vectors for some in torch.split(pixels, _BLOCK)]
        return torch.cat(rows).add_(vectors, alpha=self._regression.ridge)


class _ManyMasks(Factorisation):
    """By the inverse of K + ridge between all pixels; where it is not good enough, mask by mask."""

    @classmethod
    def of(cls, regression: Regression, solver: Direct) -> _ManyMasks | None:
        """None where masks are dealt with one by one sooner, or K + ridge is singular."""
        size = regression.operator.size
        if regression.observed.ndim == len(size):
            return None
        masks = regression.observed.flatten(-len(size)).flatten(0, -2)
        pixels = masks.shape[1]
        free = available_bytes(regression.operator.device)
        # The inverse, a copy on the way to it, and the matrix.
        if not inverse_pays(masks) or (free is not None and 3 * 8 * pixels**2 > free):
            return None
        every = torch.arange(pixels, device=masks.device)
        matrix = regression.operator.entries(every, every)
        rounding = _rounding(regression, matrix)
        matrix.diagonal().add_(regression.ridge)
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) or float(factor.diagonal().min()) ** 2 <= rounding:
            return None
        return cls(regression, solver, matrix, torch.cholesky_inverse(factor))

    def __init__(self, regression: Regression, solver: Direct, matrix: Tensor, inverse: Tensor) -> None:
        self._regression, self._solver = regression, solver
        self._size = regression.operator.size
        self._matrix, self._inverse = matrix, inverse

    @plain()
    @of_any_scale
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``; a guess is of no use."""
        start = time.perf_counter()
        shape = targets.shape[: targets.ndim - len(self._regression.operator.size)]
        masks = self._regression.flattened(shape).observed.flatten(1)
        wanted = targets.double().reshape(masks.shape)
        weights, left = torch.zeros_like(wanted), wanted
        for _ in range(2):  # once more for what rounding has left
            weights = weights + restricted_inverse(self._inverse, masks, left)[0]
            left = torch.where(masks, wanted - weights @ self._matrix, 0)
        norm = wanted.norm(dim=1)
        residual = left.norm(dim=1) / torch.where(norm > 0, norm, 1)
        if not bool((residual <= _EXACT).all()):
            return MaskSolver.solve(self._solver, self._regression, targets, progress=progress)
        text = "direct (Cholesky of the whole, less what is missing, float64)"
        seconds = time.perf_counter() - start
        return Solution(weights.reshape(targets.shape), residual.reshape(shape), 0, seconds, Status.CONVERGED, text)
