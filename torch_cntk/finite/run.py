"""The steps of a training, and its state between them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from tqdm import tqdm

from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.finite import checkpoint
from torch_cntk.finite.draws import Draws
from torch_cntk.finite.model import Masks, Model
from torch_cntk.finite.options import Training
from torch_cntk.finite.results import DivergedError, Step, TrainingResult, TrainingStatus
from torch_cntk.finite.task import Task
from torch_cntk.images.canvas import crop

__all__ = ["Run"]

_KEPT = ("losses", "holdout_losses", "psnr", "best", "best_state", "average", "weight", "seconds")
"""Fields of a run that a checkpoint holds as they are."""


class Run:
    """The state of a training."""

    def __init__(self, task: Task, training: Training, measure_every: int) -> None:
        self.task, self.training, self.measure_every = task, training, measure_every
        device, dtype = task.target.device, task.target.dtype
        self.draws = Draws(training.seed, device)
        assert task.net.in_channels is not None
        # On the CPU, so that all devices are given the same input.
        given = task.prior.sample(
            task.net.in_channels, task.source, generator=self.draws.cpu, dtype=dtype, device="cpu"
        )
        self.input = given.to(device)
        self.fingerprint = task.fingerprint(training, self.input)
        self.kept, self.held_out = self._split()
        layout = torch.channels_last if training.channels_last else torch.contiguous_format
        self.model = Model(task.net, training).to(device=device, dtype=dtype).to(memory_format=layout).train()
        self.batch = self.input[None].to(memory_format=layout)
        self.masks = Masks(self.model, lambda: self._output(self.batch, self.model))
        self.forward = torch.compile(self.model) if training.compile else self.model
        self.optimiser = training.optimiser(self.model.parameters(), lr=training.lr)
        self.schedule = self._schedule()
        self.losses: list[float] = []
        self.holdout_losses: list[float] = []
        self.psnr: list[tuple[int, float, float]] = []
        self.best = (math.inf, 0)
        self.best_state: dict[str, Tensor] | None = None
        self.average = torch.zeros_like(task.target)
        self.weight = 0.0
        self.seconds = 0.0
        self.unsaved = False

    def _split(self) -> tuple[Tensor, Tensor | None]:
        """The observed pixels to train on, and those to judge by.

        Raises:
            ValueError: there are too few of them.
        """
        if self.training.holdout == 0:
            return self.task.observed, None
        draws = self.draws.uniform(tuple(self.task.observed.shape)).to(self.task.observed.device)
        held_out = self.task.observed & (draws < self.training.holdout)
        kept = self.task.observed & ~held_out
        if not (bool(held_out.any()) and bool(kept.any())):
            raise ValueError("expected observed pixels to train on and some to hold out, got too few")
        return kept, held_out

    def _schedule(self) -> LRScheduler | None:
        given = self.training.schedule
        if given is None or callable(given):
            return None if given is None else given(self.optimiser)
        return CosineAnnealingLR(self.optimiser, self.training.steps)

    @property
    def done(self) -> int:
        """Updates so far."""
        return len(self.losses)

    def go(
        self, path: Path | None, every: int, callback: Callable[[Step], bool | None] | None, progress: bool
    ) -> TrainingResult:
        """Train to the end.

        Raises:
            DivergedError: the loss became NaN or infinite.
        """
        status = self._out_of_patience() or TrainingStatus.FINISHED
        begun = time.perf_counter() - self.seconds
        with tqdm(total=self.training.steps, initial=self.done, disable=not progress, desc="training") as bar:
            while self.done < self.training.steps and status is TrainingStatus.FINISHED:
                output = self._update()
                self.seconds = time.perf_counter() - begun
                self._measure(output, last=self.done == self.training.steps)
                bar.update()
                bar.set_postfix(self._postfix(), refresh=False)
                if path is not None and self.done % every == 0:
                    self.save(path)
                if callback is not None and callback(self._told(output)):
                    status = TrainingStatus.STOPPED
                status = self._out_of_patience() or status
        if path is not None:
            self.save(path)
        return self._result(status)

    def _update(self) -> Tensor:
        """One step; returns the output before it, [channels, *size].

        Raises:
            DivergedError: the loss became NaN or infinite.
        """
        training = self.training
        noise = self.draws.normal_like(self.batch) * training.jitter if training.jitter else None
        self.masks.draw(self.draws)
        self.optimiser.zero_grad(set_to_none=True)
        output = self._output(self.batch if noise is None else self.batch + noise, self.forward)
        error = (output - self.task.target).square()
        loss = self._mean(error, self.kept)
        held_out = None if self.held_out is None else float(self._mean(error.detach(), self.held_out))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss became {value} at step {self.done + 1}; try a lower lr (it is {training.lr:g}), "
                f"{'' if training.batch_norm else 'batch_norm=True, '}or no autocast"
            )
        self._keep_best(value if held_out is None else held_out)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        if training.langevin:
            self._shake()
        if self.schedule is not None:
            self.schedule.step()
        self.losses.append(value)
        if held_out is not None:
            self.holdout_losses.append(held_out)
        output = output.detach()
        if self.done > training.burn_in and training.iterate == "average":
            self._take_into_average(output)
        return output

    def _output(self, batch: Tensor, model: Callable[[Tensor], Tensor]) -> Tensor:
        """Of the network, cropped to the image."""
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.training.autocast):
            output = model(batch)
        return crop(output[0], tuple(self.task.target.shape[1:])).to(batch.dtype)

    def _mean(self, error: Tensor, where: Tensor) -> Tensor:
        """Over the channels of some pixels."""
        return torch.where(where, error, 0).sum() / (where.sum() * error.shape[0])

    def _keep_best(self, loss: float) -> None:
        if loss < self.best[0]:
            self.best = (loss, self.done)
            if self.training.iterate == "best":
                self.best_state = {name: value.clone() for name, value in self.model.state_dict().items()}

    def _shake(self) -> None:
        """Langevin noise on the filters, not on biases and normalisations."""
        with torch.no_grad():
            for group in self.optimiser.param_groups:
                for parameter in group["params"]:
                    if parameter.ndim > 2:
                        parameter.add_(self.draws.normal_like(parameter), alpha=self.training.langevin * group["lr"])

    def _take_into_average(self, output: Tensor) -> None:
        decay = 1.0 if self.training.decay is None else self.training.decay
        self.weight = decay * self.weight + 1
        self.average += (output - self.average) / self.weight

    def _out_of_patience(self) -> TrainingStatus | None:
        patience = self.training.patience
        if patience is not None and self.done - self.best[1] > patience:
            return TrainingStatus.NO_PROGRESS
        return None

    def _measure(self, output: Tensor, *, last: bool) -> None:
        if self.task.truth is not None and (last or self.done % self.measure_every == 0):
            shown = self.average if self.training.iterate == "average" and self.weight else output
            filled = torch.where(self.task.observed, self.task.truth, shown)
            error = float((filled - self.task.truth).square().mean())
            self.psnr.append((self.done, self.seconds, -10 * math.log10(error) if error else math.inf))

    def _postfix(self) -> dict[str, str]:
        shown = {"loss": f"{self.losses[-1]:.2e}"}
        if self.holdout_losses:
            shown["held out"] = f"{self.holdout_losses[-1]:.2e}"
        return shown | ({"PSNR": f"{self.psnr[-1][2]:.2f}"} if self.psnr else {})

    def _told(self, output: Tensor) -> Step:
        held_out = self.holdout_losses[-1] if self.holdout_losses else None
        return Step(self.done, self.losses[-1], held_out, self.seconds, output)

    def _result(self, status: TrainingStatus) -> TrainingResult:
        if self.best_state is not None:
            self.model.load_state_dict(self.best_state)
        self.masks.remove()
        self.model.eval()
        if self.training.iterate == "average" and self.weight:
            output = self.average
        else:
            with torch.no_grad():
                output = self._output(self.batch, self.model)
        filled = torch.where(self.task.known, self.task.measured, output)
        return TrainingResult(
            filled.reshape(self.task.shape),
            output.reshape(self.task.shape),
            self.model,
            self.model.net,
            self.input,
            torch.tensor(self.losses, dtype=torch.float64),
            torch.tensor(self.holdout_losses, dtype=torch.float64) if self.held_out is not None else None,
            self.psnr,
            self.best[1],
            status,
            self.seconds,
        )

    # Checkpoints.

    def _state(self) -> dict[str, Any]:
        """Everything needed to resume."""
        cpu, own = self.draws.state()
        return {
            "run": self.fingerprint,
            "model": dict(self.model.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "random": cpu,
            "random_cuda": own,
            **{name: getattr(self, name) for name in _KEPT},
        }

    def save(self, path: Path) -> None:
        """Write everything needed to resume; where that fails, warn once and let training go on."""
        try:
            checkpoint.write(path, self._state())
        except OSError as error:
            if not self.unsaved:
                warn_user(f"the checkpoint was not written, training goes on without it: {error}")
            self.unsaved = True
        else:
            self.unsaved = False

    def load(self, path: Path) -> None:
        """Resume from a checkpoint, of which nothing is executed.

        Raises:
            ValueError: it is damaged, of another version or of another run.
        """
        state = checkpoint.read(path)
        run = str(state["run"])
        if not checkpoint.same_run(run, self.fingerprint):
            differs = checkpoint.what_differs(run, self.fingerprint)
            raise ValueError(f"expected a checkpoint of this run, got one of another: {path}; {differs}")
        try:
            done = len(state["losses"])
            self._restore(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # Sound but of a user's other optimiser or schedule of the same name, or damaged before it had a checksum.
            raise ValueError(f"expected a checkpoint that fits this run, got {path}: {error}") from error
        if done > self.training.steps:
            raise ValueError(
                f"expected steps of at least {done}, which {path} has behind it, got {self.training.steps}"
            )

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.draws.restore(state["random"], state["random_cuda"])
        for name in _KEPT:
            setattr(self, name, state[name])
        self.average = self.average.to(self.task.target)
