"""The state of conjugate gradients on images, all right-hand sides at once, and one step of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torch_cntk.solvers.base import Regression
from torch_cntk.solvers.batches import answers_at_once, ratio, spread
from torch_cntk.solvers.preconditioner import Preconditioner, Resumable

__all__ = ["Run"]

_LARGEST = {torch.float32: (1e-4, 30.0), torch.float64: (1e-6, 1e4)}
"""Below this ridge, weights of more than so many times |y| / mean(diag K) are those of a singular kernel, fitted to its
rounding; regular kernels have less than 10."""
_UNASKED_STEPS = 8
"""Steps between two questions to a device that the host would have to wait for."""
_DRIFT = 0.1
"""Begin anew when rounding has put the updated residual further off than this share of the true one."""

_STATE = ("_targets", "_norms", "weights", "residual", "relative", "_image", "_curvature", "_direction", "_broke_down")
"""What a run holds for each right-hand side that it still works on."""
_KEPT = ("best_weights", "best_image", "best", "iterations", "worth_a_refresh", "_index", *_STATE[2:])
"""What cannot be found again from the equations and the preconditioner."""


class Run:
    """The state of one solve, updated in place. Right-hand sides are [n, *size], scalars [n].

    Weights are float64, whatever the operator multiplies in: rounded weights would put an error into the sum over the
    image that meets K's largest eigenvalue, some 10^5 times the smallest ones. Residuals and directions have the
    operator's precision; the true residual is recomputed from the weights now and then.

    Attributes:
        best_weights: of all right-hand sides, those of the smallest true residual so far.
        best_image: K @ best_weights.
        best: that residual, relative.
        norms: of the right-hand sides, 1 for zeros.
        relative: the updated relative residuals of the right-hand sides that are still worked on.
        worth_a_refresh: whether enough of them seem to be done, or something went wrong.
        unasked_steps: how many should be taken before the host asks for that. Those in vain change nothing but take
            their time; where each has a long inner iteration, the host asks after every one.
    """

    def __init__(
        self,
        regression: Regression,
        preconditioner: Preconditioner,
        targets: Tensor,
        guess: Tensor | None,
        tolerance: float,
    ) -> None:
        self.tolerance = tolerance
        self._preconditioner = preconditioner
        self._all = regression
        # What a target holds at unobserved pixels is no equation.
        self._all_targets = targets.double() * regression.mask
        lengths = self._all.norm(self._all_targets)
        # A right-hand side of zeros is solved by zeros.
        self.norms = torch.where(lengths > 0, lengths, 1)
        self.best_weights = torch.zeros_like(self._all_targets)
        self.best_image = torch.zeros_like(self._all_targets)
        self.best = lengths / self.norms
        self.iterations = 0
        self.worth_a_refresh = False
        at_once = answers_at_once(targets.device) or preconditioner.iterates
        self.unasked_steps = 1 if at_once else _UNASKED_STEPS
        if guess is not None:
            image, left = regression.image_and_left(guess.double())
            relative = self._all.norm(self._all_targets - left) / self.norms
            better = relative < self.best
            self.best_weights = torch.where(spread(better, guess), guess.double(), self.best_weights)
            self.best_image = torch.where(spread(better, guess), image, self.best_image)
            self.best = torch.where(better, relative, self.best)
        self._index = torch.arange(len(self.best), device=self.best.device)
        self._keep(self.best > tolerance)

    @property
    def weights_grow_too_large(self) -> bool:
        """Whether a ridge should keep them smaller."""
        least_ridge, largest = _LARGEST[self._all.operator.dtype]
        if self._all.relative_ridge >= least_ridge:
            return False
        share = self._all.norm(self.best_weights) * self._all.operator.mean_diagonal / self.norms
        return bool((share > largest).any())

    def _keep(self, kept: Tensor) -> None:
        """Go on with some of the current right-hand sides, from their best weights."""
        self._index = self._index[kept]
        self._regression = self._all.select(self._index)
        self._targets = self._all_targets[self._index]
        self._norms = self.norms[self._index]
        self._direction: Tensor | None = None
        self._image = self._curvature = self._targets  # of the last direction; there is none yet
        self._broke_down = torch.zeros_like(self._index, dtype=torch.bool)
        self.weights = self.best_weights[self._index]
        if len(self._index):
            self._precondition = self._preconditioner.restricted(self._regression.mask)
            self._set_residual(self._targets - self._regression.multiply(self.weights))

    def state(self) -> dict[str, Any]:
        """What ``restore`` goes on from, to the same bits."""
        inner = self._precondition.state() if isinstance(self._precondition, Resumable) else None
        return {**{name: getattr(self, name) for name in _KEPT}, "preconditioner": inner}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same equations, whose tensors are on the operator's device."""
        for name in _KEPT:
            setattr(self, name, state[name])
        self._regression = self._all.select(self._index)
        self._targets, self._norms = self._all_targets[self._index], self.norms[self._index]
        self._precondition = self._preconditioner.restricted(self._regression.mask)
        if isinstance(self._precondition, Resumable):
            self._precondition.restore(state["preconditioner"])

    def _set_residual(self, true: Tensor) -> None:
        self.residual = true.to(self._all.operator.dtype)
        self.relative = self._all.norm(true) / self._norms
        self.worth_a_refresh = False

    def refresh(self) -> bool:
        """Replace the updated residual by the true one, keep the best weights, retire what is solved.

        Returns:
            whether the two differed so much that the iteration begins anew, from the best weights.
        """
        image, left = self._regression.image_and_left(self.weights)
        true = self._targets - left
        length = self._all.norm(true)
        drifted = self._all.norm(true - self.residual) > _DRIFT * length
        relative = length / self._norms
        better = relative < self.best[self._index]
        self.best_weights[self._index[better]] = self.weights[better]
        self.best_image[self._index[better]] = image[better]
        self.best[self._index[better]] = relative[better]
        waiting = self.best[self._index] > self.tolerance
        restart = bool((self._broke_down | (drifted | ~torch.isfinite(relative)) & waiting).any())
        if restart:
            self._keep(waiting)
            return True
        self._set_residual(true)
        if not bool(waiting.all()):
            self._retire(waiting)
        return False

    def _retire(self, kept: Tensor) -> None:
        """Leave out what is solved, without losing the directions of the rest."""
        self._index = self._index[kept]
        self._regression = self._all.select(self._index)
        for name in _STATE:
            setattr(self, name, getattr(self, name)[kept])
        if len(self._index):
            self._precondition = self._preconditioner.restricted(self._regression.mask)

    def advance(self, most: int) -> int:
        """Take up to so many steps; the host asks once, after the last one.

        When the first of them makes a refresh worth while, the others leave everything as it is.

        Returns:
            how many there were till then.
        """
        self._step()
        taken, paused = torch.ones((), dtype=torch.int64, device=self.residual.device), self._pause()
        for _ in range(most - 1):
            taken += ~paused
            self._step(paused)
            paused = paused | self._pause()
        self.worth_a_refresh = bool(paused)
        self.iterations += int(taken)
        return int(taken)

    def _pause(self) -> Tensor:
        """Whether a refresh is worth while, on the device."""
        done = self.relative <= self.tolerance
        return self._broke_down.any() | (2 * done.sum() >= len(done))

    def _step(self, paused: Tensor | None = None) -> None:
        """One iteration; right-hand sides within the tolerance stay where they are, and all of them if ``paused``."""
        preconditioned = self._precondition(self.residual)
        active = self.relative > self.tolerance
        if paused is not None:
            active &= ~paused
        if self._direction is None:
            self._direction = preconditioned
        else:
            # Conjugate to the last direction, however inexact or nonlinear the preconditioner is.
            factor = -ratio(self._all.dot(preconditioned, self._image), self._curvature)
            if paused is not None:
                factor, preconditioned = factor.where(~paused, 1), preconditioned.where(~paused, 0)
            self._direction = preconditioned.addcmul_(spread(factor, self.residual), self._direction)
        self._image = self._regression.multiply(self._direction)
        self._curvature, falling = self._all.dots(self._direction, self._image, self.residual)
        length = ratio(falling, self._curvature) * active
        self.weights.addcmul_(spread(length, self.weights), self._direction.double())
        self.residual.addcmul_(spread(length, self.residual), self._image, value=-1)
        self.relative = self._all.norm(self.residual) / self._norms
        self._broke_down |= active & ~(self._curvature > 0)
