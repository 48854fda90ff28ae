"""Preconditioned conjugate gradients on images, all right-hand sides at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._checks import finite_number, positive_int
from torch_cntk.solvers.base import Regression, Solution, Solver, Status

__all__ = ["ConjugateGradient"]


@dataclass(frozen=True)
class ConjugateGradient(Solver):
    """Conjugate gradients with the circulant preconditioner: two FFTs and one K @ w an iteration.

    Attributes:
        tolerance: relative residual at which a right-hand side is done, above 0.
        max_iterations: at most so many.
        refresh: recompute the true residual after so many iterations, as the updated one drifts away from it by
            rounding, and begin anew from there if it did.

    Raises:
        TypeError: an option is no number.
        ValueError: an option is out of range.
    """

    tolerance: float = 1e-4
    max_iterations: int = 500
    refresh: int = 50

    def __post_init__(self) -> None:
        if finite_number(self.tolerance, "tolerance", minimum=0) == 0:
            raise ValueError("expected tolerance > 0, got 0: rounding leaves a residual")
        positive_int(self.max_iterations, "max_iterations")
        positive_int(self.refresh, "refresh")

    def solve(self, regression: Regression, targets: Tensor, progress: bool = False) -> Solution:
        """Solve for each of [..., *size]; see ``Solver.solve``.

        Every right-hand side has its own step and stops on its own. A run ends early when the true residuals have not
        improved for long; the best weights so far are returned.
        """
        size = regression.operator.size
        shape = targets.shape[: targets.ndim - len(size)]
        run = _Run(regression.flattened(shape), targets.reshape(-1, *size))
        bar = tqdm(total=self.max_iterations, disable=not progress, desc="conjugate gradients", unit="it")
        with bar:
            status = self._iterate(run, bar)
        return Solution(run.best_weights.reshape(targets.shape), run.best.reshape(shape), run.iterations, status)

    def _iterate(self, run: _Run, bar: tqdm) -> Status:
        since_refresh = futile_restarts = gained_at = 0
        mark = run.best
        while True:
            out_of_iterations = run.iterations == self.max_iterations
            finished = bool((run.relative <= self.tolerance).all())
            if finished or out_of_iterations or run.broke_down or since_refresh == self.refresh:
                restarted = run.refresh()
                since_refresh = 0
                waiting = run.best > self.tolerance
                if not bool(waiting.any()):
                    return Status.CONVERGED
                if out_of_iterations:
                    return Status.ITERATIONS
                if bool((run.best < _GAIN * mark)[waiting].any()):
                    mark, gained_at, futile_restarts = run.best, run.iterations, 0
                elif run.iterations - gained_at > _PATIENCE or futile_restarts == _FUTILE_RESTARTS:
                    return Status.STAGNATED
                elif restarted:
                    futile_restarts += 1
            run.step(self.tolerance)
            since_refresh += 1
            bar.update()
            if not bar.disable:
                bar.set_postfix(residual=f"{float(run.relative.max()):.1e}", refresh=False)


_GAIN = 0.9
"""A residual that has not fallen below this share of an earlier one has not gained on it."""
_PATIENCE = 200
"""Iterations without a gain that are borne: the error falls in every one, but the residual may rise for long first."""
_FUTILE_RESTARTS = 3
"""Restarts after which rounding is taken to have won, if none of them gained."""


class _Run:
    """The state of one solve, updated in place. Right-hand sides are [n, *size], scalars [n]."""

    def __init__(self, regression: Regression, targets: Tensor) -> None:
        self._regression = regression
        self._targets = targets.double()
        norm = self._norm_of(self._targets)
        # A right-hand side of zeros is solved by zeros.
        self._norm = torch.where(norm > 0, norm, 1)
        self.weights = torch.zeros_like(self._targets)
        self.residual = self._targets.clone()
        self.best_weights = torch.zeros_like(self._targets)
        self.relative = norm / self._norm
        self.best = self.relative
        self.iterations = 0
        self.broke_down = False
        self._direction: Tensor | None = None
        self._old_residual = torch.empty_like(self._targets)
        self._old_product = norm

    def _dot(self, first: Tensor, second: Tensor) -> Tensor:
        product: Tensor = torch.linalg.vecdot(first.flatten(1), second.flatten(1))
        return product

    def _norm_of(self, images: Tensor) -> Tensor:
        return self._dot(images, images).sqrt_()

    def _spread(self, scalars: Tensor) -> Tensor:
        return scalars.reshape(-1, *(1,) * (self._targets.ndim - 1))

    def refresh(self) -> bool:
        """Replace the updated residual by the true one and keep the best weights.

        Returns:
            whether the two differed so much that the iteration begins anew, from the best weights.
        """
        true = self._targets - self._regression.multiply(self.weights)
        drifted = self._norm_of(true - self.residual) > _DRIFT * self._norm_of(true)
        self.residual = true
        self.relative = self._norm_of(true) / self._norm
        better = self.relative < self.best
        torch.where(self._spread(better), self.weights, self.best_weights, out=self.best_weights)
        self.best = torch.where(better, self.relative, self.best)
        restart = self.broke_down or bool((drifted | ~torch.isfinite(self.relative)).any())
        if restart:
            self.weights.copy_(self.best_weights)
            self.residual = self._targets - self._regression.multiply(self.weights)
            self.relative = self.best
            self._direction = None
            self.broke_down = False
        return restart

    def step(self, tolerance: float) -> None:
        """One iteration; right-hand sides within the tolerance stay where they are."""
        preconditioned = self._regression.precondition(self.residual)
        product = self._dot(preconditioned, self.residual)
        if self._direction is None:
            self._direction = preconditioned
        else:
            # Polak-Ribiere: equal to the usual factor in exact arithmetic, and it forgives an inexact preconditioner.
            change = product - self._dot(preconditioned, self._old_residual)
            self._direction.mul_(self._spread(_ratio(change, self._old_product))).add_(preconditioned)
        image = self._regression.multiply(self._direction)
        curvature = self._dot(self._direction, image)
        active = self.relative > tolerance
        length = _ratio(self._dot(self._direction, self.residual), curvature) * active
        self.broke_down = bool((active & ~(curvature > 0)).any())
        self._old_residual.copy_(self.residual)
        self._old_product = product
        self.weights.addcmul_(self._spread(length), self._direction)
        self.residual.addcmul_(self._spread(length), image, value=-1)
        self.relative = self._norm_of(self.residual) / self._norm
        self.iterations += 1


_DRIFT = 0.1
"""Begin anew when rounding has put the updated residual further off than this share of the true one."""


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, and 0 where the denominator is not positive."""
    return torch.where(denominator > 0, numerator / denominator, 0)
