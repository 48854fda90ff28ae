"""Preconditioned conjugate gradients on images, all right-hand sides at once."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import plain
from torch_cntk.solvers.base import Factorisation, Regression, Solution, Solver, Status, of_any_scale
from torch_cntk.solvers.checkpoint import Keeper, check_checkpoint, without_checkpoint
from torch_cntk.solvers.conjugate_run import Run
from torch_cntk.solvers.landmarks import Landmarks
from torch_cntk.solvers.preconditioners import NAMES, Choice, Name, Preconditioner, choose, precondition, works_in_bands

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
            "none", or "auto", which takes what the operator's cost suggests; or ``Landmarks(...)``, for thousands of
            inputs without displacements.
        checkpoint: a file that holds the state of a solve while it goes on: a process that was killed and does the same
            again goes on from it, to the same bits. It is removed in the end. A solve of something else refuses it.
            Ranks do not cut images into bands beside it.
        checkpoint_seconds: at least so many between two writes of it.

    Raises:
        TypeError: an option is no number.
        ValueError: an option is out of range, or the preconditioner unknown.
    """

    tolerance: float = 1e-4
    max_iterations: int = 500
    refresh: int = 50
    preconditioner: Choice | Landmarks = "auto"
    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if finite_number(self.tolerance, "tolerance", minimum=0) == 0:
            raise ValueError("expected tolerance > 0, got 0: rounding leaves a residual")
        if self.tolerance < _LEAST_TOLERANCE:
            least = f"expected tolerance of at least {_LEAST_TOLERANCE:g}"
            raise ValueError(f"{least}, got {self.tolerance:g}: rounding leaves a residual")
        positive_int(self.max_iterations, "max_iterations")
        positive_int(self.refresh, "refresh")
        if not isinstance(self.preconditioner, Landmarks) and self.preconditioner not in NAMES:
            raise ValueError(f"expected Landmarks, or one of {', '.join(NAMES)}, got {self.preconditioner!r}")
        check_checkpoint(self.checkpoint, self.checkpoint_seconds)

    def factorise(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Choose and make the preconditioner.

        Raises:
            ValueError: the preconditioner needs the pixels of an image, and the operator has none.
        """
        bands = self.checkpoint is None
        name = choose(regression, bands=bands) if self.preconditioner == "auto" else self.preconditioner
        return _Preconditioned(self, regression, name)


class _Preconditioned(Factorisation):
    """A preconditioner and the equations it is for."""

    def __init__(self, options: ConjugateGradient, regression: Regression, name: Name | Landmarks) -> None:
        self._options = options
        self._size = regression.operator.size
        self._name = name
        apart = options.checkpoint is None and works_in_bands(name, regression)
        self._regression = regression.in_bands() if apart else regression
        self._preconditioner = precondition(name, self._regression, bands=options.checkpoint is None)
        self._text = f"conjugate gradients ({name}, {str(regression.operator.dtype).removeprefix('torch.')})"

    def unsaved(self) -> Factorisation:
        """See ``Factorisation.unsaved``."""
        other = copy(self)
        other._options = without_checkpoint(self._options)
        return other

    @plain()
    @of_any_scale
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``.

        Every right-hand side has its own step and stops on its own. A run ends early when the true residuals have not
        improved for long; the best weights so far are returned.
        """
        start = time.perf_counter()
        layout = self._regression.operator.layout
        batch = targets.shape[: targets.ndim - len(self._size)]
        flat = layout.own(targets.reshape(-1, *self._size))
        first = None if guess is None else layout.own(guess.reshape(-1, *self._size))
        regression = self._regression.flattened(batch)
        keeper = Keeper(self._options, regression, flat, first)
        end = self._solved(regression, flat, first, keeper, progress)
        keeper.done()
        return Solution(
            layout.joined(end.weights).reshape(targets.shape),
            end.residual.reshape(batch),
            end.iterations,
            time.perf_counter() - start,
            Status[end.status],
            self._text,
            layout.joined(end.image).reshape(targets.shape),
        )

    def _solved(self, regression: Regression, targets: Tensor, guess: Tensor | None, keeper: Keeper, bar: bool) -> _End:
        """Iterate; and once more with a sound ridge, where rounding has won."""
        state = keeper.resumed()
        before = None if state is None else state["before"]
        if before is None:
            end = self._run(regression, self._preconditioner, targets, guess, _Saved(keeper, None, state), bar)
        else:
            end = _End(**before)
        if not end.rough or regression.relative_ridge >= _SOUND_RIDGE:
            return end
        sound = regression.with_ridge(_SOUND_RIDGE)
        saved = _Saved(keeper, end, None if before is None else state)
        second = self._run(
            sound, precondition(self._name, sound, bands=self._options.checkpoint is None), targets, None, saved, bar
        )
        iterations = end.iterations + second.iterations
        if not float(second.residual.max()) < float(end.residual.max()):
            return replace(end, iterations=iterations)
        lengths = regression.norm(targets.double() * regression.mask)
        left = targets - regression.multiply(second.weights)
        true = regression.norm(left) / torch.where(lengths > 0, lengths, 1)
        status = Status.RIDGE.name if second.status == Status.CONVERGED.name else end.status
        return replace(second, iterations=iterations, residual=true, status=status)

    def _run(
        self,
        regression: Regression,
        preconditioner: Preconditioner,
        targets: Tensor,
        guess: Tensor | None,
        saved: _Saved,
        bar: bool,
    ) -> _End:
        run = Run(regression, preconditioner, targets, guess, self._options.tolerance)
        judge = _Judge(run.best.clone())
        if saved.state is not None:
            run.restore(saved.state["run"])
            judge = _Judge(**saved.state["judge"])
        most = self._options.max_iterations
        with tqdm(
            total=most, initial=run.iterations, disable=not bar, desc="conjugate gradients", unit="it", leave=False
        ) as progress:
            status = self._iterate(run, judge, saved, progress)
        rough = status is Status.STAGNATED and (run.weights_grow_too_large or float(run.best.max()) > _ROUGH)
        return _End(run.best_weights, run.best_image, run.best, run.iterations, status.name, rough)

    def _iterate(self, run: Run, judge: _Judge, saved: _Saved, bar: tqdm) -> Status:
        while bool((run.best > run.tolerance).any()):
            out_of_iterations = run.iterations == self._options.max_iterations
            if run.worth_a_refresh or out_of_iterations or judge.since_refresh == self._options.refresh:
                restarted = run.refresh()
                judge.since_refresh = 0
                waiting = run.best > run.tolerance
                if run.weights_grow_too_large:
                    return Status.STAGNATED
                if not bool(waiting.any()):
                    break
                if out_of_iterations:
                    return Status.ITERATIONS
                if judge.in_vain(run, waiting, restarted):
                    return Status.STAGNATED
            left = min(self._options.refresh - judge.since_refresh, self._options.max_iterations - run.iterations)
            taken = run.advance(min(run.unasked_steps, left))
            judge.since_refresh += taken
            saved.offer(run, judge)
            bar.update(taken)
            if not bar.disable:
                bar.set_postfix(residual=f"{float(run.relative.max()):.1e}", refresh=False)
        return Status.CONVERGED


@dataclass(frozen=True)
class _End:
    """How a run ended: the best weights, K times them, their residuals, and whether a sound ridge is worth a try."""

    weights: Tensor
    image: Tensor
    residual: Tensor
    iterations: int
    status: str
    rough: bool


@dataclass
class _Judge:
    """Sees whether a run gains.

    Attributes:
        mark: the residuals at the last gain.
        since_refresh: iterations since the true residual was found.
        futile_restarts: that did not gain.
        gained_at: the iteration of the last gain.
    """

    mark: Tensor
    since_refresh: int = 0
    futile_restarts: int = 0
    gained_at: int = 0

    def in_vain(self, run: Run, waiting: Tensor, restarted: bool) -> bool:
        """Whether to give up, after a refresh."""
        if bool((run.best < _GAIN * self.mark)[waiting].any()):
            self.mark, self.gained_at, self.futile_restarts = run.best.clone(), run.iterations, 0
        elif run.iterations - self.gained_at > _PATIENCE or self.futile_restarts == _FUTILE_RESTARTS:
            return True
        elif restarted:
            self.futile_restarts += 1
        return False


@dataclass(frozen=True)
class _Saved:
    """Where a run is kept, how the one before it ended, and what it goes on from."""

    keeper: Keeper
    before: _End | None
    state: dict[str, Any] | None

    def offer(self, run: Run, judge: _Judge) -> None:
        """Give the file the present state, if it is time to."""
        self.keeper.offer(
            lambda: {
                "before": None if self.before is None else vars(self.before),
                "run": run.state(),
                "judge": vars(judge),
            }
        )


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
