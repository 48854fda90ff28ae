"""EigenPro 2: gradient descent on the weights, with the top of the spectrum flattened on a subsample of the pixels."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import plain
from torch_cntk.solvers.base import Factorisation, MaskSolver, Regression, Solution, Status, of_any_scale
from torch_cntk.solvers.checkpoint import Keeper, check_checkpoint, without_checkpoint

__all__ = ["EigenPro"]


@dataclass(frozen=True)
class EigenPro(MaskSolver):
    """Preconditioned stochastic gradient descent in the kernel's function space (Ma & Belkin 2017, 2019).

    The top eigenvectors of K on a subsample of m pixels are damped to the level of the q-th, which raises the batch
    size and the step that still converge. What differs from the papers:

    1. Where K @ w of the whole image is cheaper than a batch's rows of K, as it is for periodic kernels, each step
       takes all pixels, with Nesterov's momentum; else it takes a batch, whose rows of K are looked up.
    2. After each epoch the true residual is found. If it rose, the step is halved and the best weights are gone back
       to, so that a step that the subsample made too long does no harm.
    3. Directions that rounding leaves nothing of are not damped.
    4. Some pixels can be left out, and the weights of the least error on them are returned ("validation").

    Attributes:
        epochs: at most so many; an epoch has as many steps as it takes batches of the largest size that is not wasteful
            (the critical one) to see all observed pixels.
        tolerance: relative residual at which it stops, at least 0 (0: never).
        subsample: pixels m that the eigenvectors are found on, at most.
        eigenvectors: how many are damped, at most; by default an eighth of the subsample, at most 160.
        batch: pixels a step; None chooses, see above.
        validation: share of the observed pixels to leave out, below 1; it stops when the error on them has not fallen
            for ``patience`` epochs and returns the best weights, whose residual is that of the other pixels. 0 leaves
            out none.
        patience: see above.
        memory: bytes that rows of K may take.
        seed: of the subsample, the batches and the pixels that are left out.
        checkpoint: a file that holds the state of a solve between its epochs; see ``ConjugateGradient``.
        checkpoint_seconds: at least so many between two writes of it.

    Raises:
        TypeError: an option is no number.
        ValueError: an option is out of range.
    """

    epochs: int = 100
    tolerance: float = 1e-4
    subsample: int = 1000
    eigenvectors: int | None = None
    batch: int | None = None
    validation: float = 0.0
    patience: int = 5
    memory: int = 1 << 30
    seed: int = 0
    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("epochs", "subsample", "patience", "memory"):
            positive_int(getattr(self, name), name)
        for name in ("eigenvectors", "batch"):
            if getattr(self, name) is not None:
                positive_int(getattr(self, name), name)
        finite_number(self.tolerance, "tolerance", minimum=0)
        if not 0 <= finite_number(self.validation, "validation") < 1:
            raise ValueError(f"expected validation between 0 and 1, got {self.validation:g}")
        check_checkpoint(self.checkpoint, self.checkpoint_seconds)

    def factorise_mask(self, regression: Regression, *, progress: bool = False) -> Factorisation:
        """Subsample, find the top eigenvectors, choose batch and step."""
        return _Prepared(self, regression)


_ALPHA = 0.95
"""Damped eigenvalues go as the q-th to the power of this: a little above it, which forgives errors of the subsample."""
_SAFETY = 0.9
"""Of the largest step that converges."""
_RISE = 2.0
"""An error that has grown by this is taken as a divergence, not as the noise of the batches."""
_HALVINGS = 20
"""Halvings of the step, each after a divergence, before it gives up."""
_SHARE_OF_SUBSAMPLE, _MOST_EIGENVECTORS = 8, 160
"""By default, an eighth of the subsample is damped, at most this many: those beyond are poorly known from it."""
_EXTRA, _POWERS = 11, 3
"""Of the randomised eigendecomposition: vectors beyond the wanted ones, and rounds of power iteration, with which it is
good to some digits (Halko et al. 2011, section 1.3, take 5 to 10 and 1 or 2)."""
_PIXEL = 200.0
"""A product with the whole image takes as long as so many operations more for each pixel than ``Operator.cost`` says:
weights are scattered into an image and gathered from it, in float64."""
_ROWS = 1024
"""Rows of K that are looked up at a time."""


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The global generators of the CPU and the device begin at a seed, and are as before afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):  # svd_lowrank draws from the global generator
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class _Prepared(Factorisation):
    """The subsample S, its damped eigenvectors, and the batch and step that follow."""

    def __init__(self, options: EigenPro, regression: Regression) -> None:
        self.options = options
        self.regression = regression
        self._size = regression.operator.size
        operator = regression.operator
        generator = torch.Generator().manual_seed(options.seed)
        observed = regression.observed.reshape(-1).nonzero()[:, 0]
        order = torch.randperm(len(observed), generator=generator).to(observed.device)
        held_out = int(options.validation * len(observed))
        self.held_out, self.trained = observed[order[:held_out]], observed[order[held_out:]].sort().values
        # The subsample's places among the trained pixels.
        self.places = torch.randperm(len(self.trained), generator=generator)[: options.subsample].to(observed.device)
        self._find_eigenvectors(operator.entries(self.trained[self.places], self.trained[self.places]))
        self._choose_batch()
        batch = "all pixels" if self.whole else f"{self.batch} pixels"
        self._text = (
            f"EigenPro ({self.vectors.shape[1]} eigenvectors of {len(self.places)} pixels, {batch} a step, "
            f"{str(operator.dtype).removeprefix('torch.')})"
        )

    def _find_eigenvectors(self, matrix: Tensor) -> None:
        """Top eigenvectors of K on the subsample, and what is taken from each."""
        size, operator = len(matrix), self.regression.operator
        wanted = min(self.options.eigenvectors or min(size // _SHARE_OF_SUBSAMPLE, _MOST_EIGENVECTORS), size - 1)
        with _seeded(self.options.seed, matrix.device):
            vectors, values, _ = torch.svd_lowrank(matrix, q=min(wanted + _EXTRA, size), niter=_POWERS)
        # Those that rounding leaves nothing of are of no use.
        rounding = float(values[0]) * size * torch.finfo(operator.entry_dtype).eps
        wanted = max(min(wanted, int((values > rounding).sum()) - 1), 0)
        vectors, kept, level = vectors[:, :wanted], values[:wanted], float(values[wanted])
        damping = (1 - (level / kept) ** _ALPHA) / kept
        self.vectors, self.damping = vectors.to(operator.dtype), damping.to(operator.dtype)
        # Of the damped kernel: the largest of the diagonal, and the largest eigenvalue over the number of pixels.
        damped = matrix.diagonal() - ((matrix @ vectors) ** 2 * damping).sum(1)
        largest = float(values[0]) ** (1 - _ALPHA) * level**_ALPHA
        self._diagonal = float(damped.max()) + self.regression.ridge
        self._top = largest / size + self.regression.ridge / len(self.trained)

    def _choose_batch(self) -> None:
        """Batch and step size: Ma & Belkin (2019), section 4."""
        operator, count = self.regression.operator, len(self.trained)
        self.critical = int(min(max(self._diagonal / self._top, 1), count))
        affordable = max(self.options.memory // (count * 8), 1)
        batch = min(self.options.batch or self.critical, affordable, count)
        # A step multiplies by K twice: the weights, and the gradient.
        rows, image = operator.entry_cost * batch * count, 2 * math.prod(operator.size) * (operator.cost + _PIXEL)
        self.whole = self.options.batch is None and image < rows
        self.batch = count if self.whole else batch
        self.step = _SAFETY * min(2 / (self._diagonal + (self.batch - 1) * self._top), 1 / self._diagonal)
        self.kept = not self.whole and 2 * count**2 * operator.dtype.itemsize <= self.options.memory

    def unsaved(self) -> Factorisation:
        """See ``Factorisation.unsaved``."""
        other = copy(self)
        other.options = without_checkpoint(self.options)
        return other

    @plain()
    @of_any_scale
    def solve(self, targets: Tensor, *, guess: Tensor | None = None, progress: bool = False) -> Solution:
        """See ``Factorisation.solve``.

        If the residual rises, the step is halved and the best weights are gone back to.
        """
        start = time.perf_counter()
        keeper = Keeper(self.options, self.regression, targets, guess)
        state = keeper.resumed()
        run = _Descent(self, targets, guess)
        if state is not None:
            run.restore(state)
        most = self.options.epochs
        with tqdm(
            total=most, initial=run.epochs, disable=not progress, desc="EigenPro", unit="epoch", leave=False
        ) as bar:
            while run.status is None and run.epochs < most:
                run.epoch()
                keeper.offer(run.state)
                bar.update()
                bar.set_postfix(residual=f"{float(run.best.max()):.1e}", refresh=False)
        keeper.done()
        return Solution(
            run.best_weights(),
            run.best,
            run.epochs,
            time.perf_counter() - start,
            run.status or Status.ITERATIONS,
            self._text,
        )


_KEPT = (
    "epochs",
    "best",
    "_weights",
    "_before",
    "_momentum",
    "_step",
    "_best_weights",
    "_best_error",
    "_stale",
    "_halvings",
)
"""What a descent cannot find again from the equations."""


class _Descent:
    """The state of one descent. Right-hand sides are [k, n] over the n trained pixels; weights are float64.

    Attributes:
        best: true relative residuals of the best weights so far, [k].
        epochs: how many there were.
        status: how it ended, or None while it may go on.
    """

    def __init__(self, prepared: _Prepared, targets: Tensor, guess: Tensor | None) -> None:
        self._prepared = prepared
        self._generator = torch.Generator().manual_seed(prepared.options.seed)
        self._shape = targets.shape
        self._targets = targets.double().flatten(1)
        self._wanted = self._targets[:, prepared.trained]
        norm = self._wanted.norm(dim=1)
        self._norm = torch.where(norm > 0, norm, 1)
        first = torch.zeros_like(self._wanted) if guess is None else guess.double().flatten(1)[:, prepared.trained]
        self._weights, self._before, self._momentum = first, first, 1.0
        self._step = prepared.step
        self._rows = self._look_up() if prepared.kept else None
        self._best_weights = self._weights.clone()
        self.best = norm / self._norm
        self._best_error, self._stale, self._halvings, self.epochs = math.inf, 0, 0, 0
        self.status: Status | None = None
        self._judge()

    def state(self) -> dict[str, Any]:
        """What ``restore`` goes on from, to the same bits."""
        status = None if self.status is None else self.status.name
        own = {name: getattr(self, name) for name in _KEPT}
        return {**own, "status": status, "generator": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same equations."""
        for name in _KEPT:
            setattr(self, name, state[name])
        self.status = None if state["status"] is None else Status[state["status"]]
        self._generator.set_state(state["generator"].cpu())

    def _look_up(self) -> Tensor:
        """K between all trained pixels, [n, n]."""
        prepared = self._prepared
        operator, trained = prepared.regression.operator, prepared.trained
        pieces = [operator.entries(rows, trained).to(operator.dtype) for rows in torch.split(trained, _ROWS)]
        return torch.cat(pieces)

    def _images(self, weights: Tensor) -> Tensor:
        images = torch.zeros_like(self._targets)
        images[:, self._prepared.trained] = weights
        return images.reshape(self._shape)

    def _product(self, weights: Tensor) -> Tensor:
        """K @ weights on the whole image, [k, pixels]."""
        product: Tensor = self._prepared.regression.operator.multiply(self._images(weights)).flatten(1)
        return product

    def best_weights(self) -> Tensor:
        """[k, *size]."""
        return self._images(self._best_weights)

    def epoch(self) -> None:
        """As many steps as it takes batches of the critical size to see all pixels; then look how good it is."""
        prepared = self._prepared
        if prepared.whole:
            for _ in range(math.ceil(len(prepared.trained) / prepared.critical)):
                self._accelerated_step()
        else:
            order = torch.randperm(len(prepared.trained), generator=self._generator)
            for batch in torch.split(order.to(self._targets.device), prepared.batch):
                self._stochastic_step(batch)
        self.epochs += 1
        self._judge()

    def _accelerated_step(self) -> None:
        """Nesterov's momentum: the gradient is exact, so it may be followed further."""
        prepared = self._prepared
        before, self._before = self._before, self._weights.clone()
        grown = (1 + math.sqrt(1 + 4 * self._momentum**2)) / 2
        self._weights.lerp_(before, -(self._momentum - 1) / grown)
        self._momentum = grown
        gradient = self._whole_gradient(self._product(self._weights))
        kernel = self._product(gradient)[:, prepared.trained[prepared.places]]
        self._descend(slice(None), gradient, kernel)

    def _restart(self, weights: Tensor) -> None:
        """Go on from these weights, without momentum."""
        self._weights = weights
        self._before, self._momentum = weights.clone(), 1.0

    def _whole_gradient(self, product: Tensor) -> Tensor:
        """(K + ridge) w - y on the trained pixels."""
        left = product[:, self._prepared.trained].add_(self._weights, alpha=self._prepared.regression.ridge)
        return left.sub_(self._wanted)

    def _stochastic_step(self, batch: Tensor) -> None:
        prepared = self._prepared
        if self._rows is not None:
            rows = self._rows[batch]
        else:
            operator = prepared.regression.operator
            rows = operator.entries(prepared.trained[batch], prepared.trained).to(operator.dtype)
        product = (self._weights.to(rows.dtype) @ rows.mT).double()
        gradient = product.add_(self._weights[:, batch], alpha=prepared.regression.ridge).sub_(self._wanted[:, batch])
        self._descend(batch, gradient, gradient.to(rows.dtype) @ rows[:, prepared.places])

    def _descend(self, where: Tensor | slice, gradient: Tensor, kernel: Tensor) -> None:
        """Subtract the gradient at some pixels, and give back to the subsample what the damping takes from it.

        Args:
            where: the pixels, places among the trained ones.
            gradient: there, [k, pixels].
            kernel: the gradient times K, on the subsample, [k, m].
        """
        prepared = self._prepared
        self._weights[:, where] -= self._step * gradient
        part = (kernel.to(prepared.vectors.dtype) @ prepared.vectors).mul_(prepared.damping) @ prepared.vectors.mT
        self._weights[:, prepared.places] += self._step * part

    def _judge(self) -> None:
        """Find the true residual, keep the best weights, and see whether to go on.

        With pixels left out, the best weights are those of the least error there.
        """
        prepared, options = self._prepared, self._prepared.options
        product = self._product(self._weights)
        residual = self._whole_gradient(product).norm(dim=1) / self._norm
        held_out = prepared.held_out
        error = float((product - self._targets)[:, held_out].norm()) if len(held_out) else float(residual.norm())
        if not error < _RISE * self._best_error:
            self._halvings += 1
            self._step /= 2
            self._restart(self._best_weights.clone())
            if self._halvings > _HALVINGS:
                self.status = Status.STAGNATED
            return
        if error < self._best_error:
            self._best_error, self._stale = error, 0
            self._best_weights, self.best = self._weights.clone(), residual
        else:
            self._stale += 1
            self._restart(self._weights)  # momentum has carried it past the valley
        if bool((residual <= options.tolerance).all()):
            self.status = Status.CONVERGED
        elif len(held_out) and self._stale >= options.patience:
            self.status = Status.EARLY
