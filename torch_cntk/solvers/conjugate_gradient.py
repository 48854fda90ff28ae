"""Preconditioned conjugate gradients on images, all right-hand sides at once."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import plain
from torch_cntk.solvers.base import Factorisation, Regression, Solution, Solver, Status, of_any_scale
from torch_cntk.solvers.batches import answers_at_once, dot, norm, ratio, spread
from torch_cntk.solvers.preconditioners import NAMES, Choice, Name, Preconditioner, choose, precondition

__all__ = ["ConjugateGradient"]


@dataclass(frozen=True)
class ConjugateGradient(Solver):
    """Flexible conjugate gradients.

    What differs from the textbook:

    1. All right-hand sides take part in each product with K, but each has its own step and stops on its own.
    2. Flexible: a direction is made conjugate to the last one by their product itself, so that the preconditioner may
       be an inner iteration, which is neither exact nor linear.
    3. Weights are float64, residuals and directions of the operator's precision. The true residual is recomputed now
       and then ("refresh"); if rounding has put the updated one off, the iteration begins anew from the best weights.
    4. Convergence is judged by the true residual only, and the best weights so far are what is returned.
    5. A run without gains ends early, and is done again with a ridge of 0.001 if it had a smaller one; so is one whose
       weights grow beyond those of a regular kernel.
    6. On a GPU the host asks only now and then whether all is done; steps in vain change nothing.

    Attributes:
        tolerance: relative residual at which a right-hand side is done, above 0.
        max_iterations: at most so many.
        refresh: recompute the true residual after so many iterations, as the updated one drifts away from it by
            rounding, and begin anew from there if it did.
        preconditioner: "circulant" (two FFTs an iteration), "nested" (few iterations, each with an inner iteration of
            FFTs), "laplacian" (no FFTs), "nystrom" (for many masks of one kernel that has no displacements), "jacobi",
            "none", or "auto", which takes what the operator's cost suggests.

    Raises:
        TypeError: an option is no number.
        ValueError: an option is out of range, or the preconditioner unknown.
    """

    tolerance: float = 1e-4
    max_iterations: int = 500
    refresh: int = 50
    preconditioner: Choice = "auto"

    def __post_init__(self) -> None:
        if finite_number(self.tolerance, "tolerance", minimum=0) == 0:
            raise ValueError("expected tolerance > 0, got 0: rounding leaves a residual")
        if self.tolerance < _LEAST_TOLERANCE:
            least = f"expected tolerance of at least {_LEAST_TOLERANCE:g}"
            raise ValueError(f"{least}, got {self.tolerance:g}: rounding leaves a residual")
        positive_int(self.max_iterations, "max_iterations")
        positive_int(self.refresh, "refresh")
        if self.preconditioner not in NAMES:
            raise ValueError(f"expected a preconditioner among {', '.join(NAMES)}, got {self.preconditioner!r}")

    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Choose and make the preconditioner.

        Raises:
            ValueError: the preconditioner needs the pixels of an image, and the operator has none.
        """
        name = choose(regression) if self.preconditioner == "auto" else self.preconditioner
        return _Preconditioned(self, regression, name)


class _Preconditioned(Factorisation):
    """A preconditioner and the equations it is for."""

    def __init__(self, options: ConjugateGradient, regression: Regression, name: Name) -> None:
        self._options = options
        self._regression = regression
        self._size = regression.operator.size
        self._name = name
        self._preconditioner = precondition(name, regression)
        self._text = f"conjugate gradients ({name}, {str(regression.operator.dtype).removeprefix('torch.')})"

    @plain()
    @of_any_scale
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``.

        Every right-hand side has its own step and stops on its own. A run ends early when the true residuals have not
        improved for long; the best weights so far are returned.
        """
        start = time.perf_counter()
        size = self._regression.operator.size
        flat = targets.reshape(-1, *size)
        first = None if guess is None else guess.reshape(flat.shape)
        regression = self._regression.flattened(targets.shape[: targets.ndim - len(size)])
        run, status = self._run(regression, self._preconditioner, flat, first, progress)
        iterations, weights, image, residual = run.iterations, run.best_weights, run.best_image, run.best
        rough = run.weights_grow_too_large or float(residual.max()) > _ROUGH
        if status is Status.STAGNATED and rough and regression.relative_ridge < _SOUND_RIDGE:
            sound = regression.with_ridge(_SOUND_RIDGE)
            run, second = self._run(sound, precondition(self._name, sound), flat, None, progress)
            iterations += run.iterations
            if float(run.best.max()) < float(residual.max()):
                status = Status.RIDGE if second is Status.CONVERGED else status
                weights, image = run.best_weights, run.best_image
                residual = norm(flat - regression.multiply(weights)) / run.norms
        return Solution(
            weights.reshape(targets.shape),
            residual.reshape(targets.shape[: targets.ndim - len(size)]),
            iterations,
            time.perf_counter() - start,
            status,
            self._text,
            image.reshape(targets.shape),
        )

    def _run(
        self, regression: Regression, preconditioner: Preconditioner, targets: Tensor, guess: Tensor | None, bar: bool
    ) -> tuple[_Run, Status]:
        run = _Run(regression, preconditioner, targets, guess, self._options.tolerance)
        most = self._options.max_iterations
        with tqdm(total=most, disable=not bar, desc="conjugate gradients", unit="it", leave=False) as progress:
            return run, self._iterate(run, progress)

    def _iterate(self, run: _Run, bar: tqdm) -> Status:
        since_refresh = futile_restarts = gained_at = 0
        mark = run.best.clone()
        while bool((run.best > run.tolerance).any()):
            out_of_iterations = run.iterations == self._options.max_iterations
            if run.worth_a_refresh or out_of_iterations or since_refresh == self._options.refresh:
                restarted = run.refresh()
                since_refresh = 0
                waiting = run.best > run.tolerance
                if run.weights_grow_too_large:
                    return Status.STAGNATED
                if not bool(waiting.any()):
                    break
                if out_of_iterations:
                    return Status.ITERATIONS
                if bool((run.best < _GAIN * mark)[waiting].any()):
                    mark, gained_at, futile_restarts = run.best.clone(), run.iterations, 0
                elif run.iterations - gained_at > _PATIENCE or futile_restarts == _FUTILE_RESTARTS:
                    return Status.STAGNATED
                elif restarted:
                    futile_restarts += 1
            left = min(self._options.refresh - since_refresh, self._options.max_iterations - run.iterations)
            taken = run.advance(min(run.unasked_steps, left))
            since_refresh += taken
            bar.update(taken)
            if not bar.disable:
                bar.set_postfix(residual=f"{float(run.relative.max()):.1e}", refresh=False)
        return Status.CONVERGED


_GAIN = 0.9
"""A residual that has not fallen below this share of an earlier one has not gained on it."""
_PATIENCE = 200
"""Iterations without a gain that are borne: the error falls in every one, but the residual may rise for long first."""
_FUTILE_RESTARTS = 3
"""Restarts after which rounding is taken to have won, if none of them gained."""
_LEAST_TOLERANCE = 1e-15
"""Smaller residuals are below the rounding of float64: an iteration would go on in vain."""
_ROUGH = 1e-3
"""Residuals above this one are not those of a sound kernel, at whose end rounding stands."""
_SOUND_RIDGE = 1e-3
"""Taken where a smaller one does not converge: singular kernels are solved with it in float32 and float64 alike."""
_LARGEST = {torch.float32: (1e-4, 30.0), torch.float64: (1e-6, 1e4)}
"""Below this ridge, weights of more than so many times |y| / mean(diag K) are those of a singular kernel, fitted to its
rounding; regular kernels have less than 10."""
_UNASKED_STEPS = 8
"""Steps between two questions to a device that the host would have to wait for."""
_DRIFT = 0.1
"""Begin anew when rounding has put the updated residual further off than this share of the true one."""


_STATE = ("_targets", "_norms", "weights", "residual", "relative", "_image", "_curvature", "_direction", "_broke_down")
"""What a run holds for each right-hand side that it still works on."""


class _Run:
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
        lengths = norm(self._all_targets)
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
            relative = norm(self._all_targets - left) / self.norms
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
        share = norm(self.best_weights) * self._all.operator.mean_diagonal / self.norms
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

    def _set_residual(self, true: Tensor) -> None:
        self.residual = true.to(self._all.operator.dtype)
        self.relative = norm(true) / self._norms
        self.worth_a_refresh = False

    def refresh(self) -> bool:
        """Replace the updated residual by the true one, keep the best weights, retire what is solved.

        Returns:
            whether the two differed so much that the iteration begins anew, from the best weights.
        """
        image, left = self._regression.image_and_left(self.weights)
        true = self._targets - left
        length = norm(true)
        drifted = norm(true - self.residual) > _DRIFT * length
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
            factor = -ratio(dot(preconditioned, self._image), self._curvature)
            if paused is not None:
                factor, preconditioned = factor.where(~paused, 1), preconditioned.where(~paused, 0)
            self._direction = preconditioned.addcmul_(spread(factor, self.residual), self._direction)
        self._image = self._regression.multiply(self._direction)
        self._curvature = dot(self._direction, self._image)
        length = ratio(dot(self._direction, self.residual), self._curvature) * active
        self.weights.addcmul_(spread(length, self.weights), self._direction.double())
        self.residual.addcmul_(spread(length, self.residual), self._image, value=-1)
        self.relative = norm(self.residual) / self._norms
        self._broke_down |= active & ~(self._curvature > 0)
