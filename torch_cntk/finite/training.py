"""Training of finite networks: the deep image prior (Ulyanov, Vedaldi & Lempitsky, 2018) on the observed pixels.

The network's input is a sample of the feature prior, drawn once. What is trained is the function that makes the image
of it; the pixels that are not observed follow from the network's shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.files import writing
from torch_cntk.conversion.flat import flatten
from torch_cntk.covariance import Extent
from torch_cntk.images.observed import Observed, crop
from torch_cntk.layers import Layer, Sigmoid, Weighted, reparameterise
from torch_cntk.priors.base import Prior, Uniform

__all__ = ["DivergedError", "Model", "Step", "Training", "TrainingResult", "TrainingStatus", "train"]

_VERSION = 1
"""Of the checkpoints; those of another version are refused."""

Optimiser = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], LRScheduler]


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite; the message says when, and what to do."""


class TrainingStatus(Enum):
    """How training ended; the value is a sentence."""

    FINISHED = "all steps were done"
    NO_PROGRESS = "the loss on the held-out pixels did not improve any more"
    STOPPED = "stopped by the callback"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train: by default with Adam, as the deep image prior is, but in the parameterisation of the kernel.

    Attributes:
        steps: number of updates.
        lr: learning rate.
        optimiser: makes a torch optimiser of (parameters, lr=lr), such as ``torch.optim.SGD``.
        schedule: None, "cosine" (down to 0 over all steps), or what makes a torch scheduler of the optimiser.
        head: "sigmoid", for images in [0, 1], or "none". A network that ends in ``Sigmoid`` gets no second one.
        jitter: standard deviation of the noise that is added to the input, new at each step.
        batch_norm: whether batch normalisation follows every weight layer but those that give the output.
        langevin: if above 0, filters get noise of this times the learning rate after each update: stochastic gradient
            Langevin dynamics as Cheng et al. (2019) do it, with 2.
        holdout: share of the observed pixels that are left out, to judge by.
        patience: stop after so many steps without a better loss on the held-out pixels; None is never.
        iterate: "last", "best" (lowest loss, on the held-out pixels if there are any) or "average" (of the outputs).
        decay: of the average: each output counts this much less than the next one; None is the plain mean.
        burn_in: steps that the average leaves out.
        seed: of the input, the held-out pixels and all noise; the network starts with the weights that it has.
        parameterisation: "ntk" or "standard", which needs batch normalisation or a lower lr: see ``reparameterise``.
        channels_last: whether images and filters are stored that way, which some devices prefer (2 dimensions only).
        compile: whether to use ``torch.compile``.
        autocast: whether the network computes in bfloat16 where torch holds that safe.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """

    steps: int = 3000
    lr: float = 0.01
    optimiser: Optimiser = torch.optim.Adam
    schedule: str | Schedule | None = None
    head: str = "sigmoid"
    jitter: float = 0.0
    batch_norm: bool = False
    langevin: float = 0.0
    holdout: float = 0.0
    patience: int | None = None
    iterate: str = "last"
    decay: float | None = 0.99
    burn_in: int = 0
    seed: int = 0
    parameterisation: str = "ntk"
    channels_last: bool = False
    compile: bool = False
    autocast: bool = False

    def __post_init__(self) -> None:
        positive_int(self.steps, "steps")
        if finite_number(self.lr, "lr", minimum=0) == 0:
            raise ValueError("expected lr above 0, got 0")
        for name in ("optimiser", "schedule"):
            value = getattr(self, name)
            if not (callable(value) or (name == "schedule" and value in (None, "cosine"))):
                raise TypeError(f"expected {name} as a function that makes one, got {value!r}")
        for name in ("jitter", "langevin", "holdout"):
            finite_number(getattr(self, name), name, minimum=0)
        if self.holdout >= 1:
            raise ValueError(f"expected holdout below 1, as a share of the observed pixels, got {self.holdout:g}")
        if self.patience is not None:
            positive_int(self.patience, "patience")
            if self.holdout == 0:
                raise ValueError("expected a holdout above 0 for patience to judge by, got 0")
        choices = {"head": ("sigmoid", "none"), "iterate": ("last", "best", "average")}
        choices["parameterisation"] = ("standard", "ntk")
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"expected {name} to be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.decay is not None and not 0 <= finite_number(self.decay, "decay") < 1:
            raise ValueError(f"expected decay between 0 and 1, got {self.decay:g}")
        if isinstance(self.burn_in, bool) or not isinstance(self.burn_in, int) or not 0 <= self.burn_in < self.steps:
            raise ValueError(f"expected burn_in from 0 to the number of steps, got {self.burn_in!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"expected seed to be an integer, got {self.seed!r}")


@dataclass(frozen=True)
class Step:
    """What a callback is told after each update.

    Attributes:
        number: of updates done.
        loss: mean squared error on the observed pixels that are trained on, before the update.
        holdout_loss: on the held-out ones, or None.
        seconds: since the start, interruptions left out.
        output: what the network gave before the update, [channels, *size].
    """

    number: int
    loss: float
    holdout_loss: float | None
    seconds: float
    output: Tensor


@dataclass(frozen=True)
class TrainingResult:
    """What ``train`` gives.

    Attributes:
        image: as the input, every unobserved pixel filled; observed ones are those of the input, to the bit.
        output: what the network makes of all pixels.
        model: what was trained: the network, its normalisations and its head.
        net: the network in it, with the weights of the iterate (of the last one, if outputs were averaged).
        input: the sample of the feature prior, [channels, *size].
        losses: on the observed pixels before each update, [steps].
        holdout_losses: on the held-out ones, [steps], or None.
        psnr: (step, seconds, PSNR of the filled image) now and then, where the truth was given.
        best_step: number of updates before the lowest loss.
        status: how it ended; its value is a sentence.
        seconds: wall time, interruptions left out.
    """

    image: Tensor
    output: Tensor
    model: torch.nn.Module
    net: Layer
    input: Tensor
    losses: Tensor
    holdout_losses: Tensor | None
    psnr: list[tuple[int, float, float]]
    best_step: int
    status: TrainingStatus
    seconds: float


def train(
    net: Layer,
    image: Tensor,
    observed: Tensor | None = None,
    *,
    prior: Prior | None = None,
    training: Training | None = None,
    truth: Tensor | None = None,
    measure_every: int = 50,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    callback: Callable[[Step], bool | None] | None = None,
    progress: bool = False,
    **changes: Any,
) -> TrainingResult:
    """Fit a finite network to the observed pixels of an image.

    Args:
        net: the network; a copy of it is trained.
        image: [channels, *size], float32 or float64; on the device where to train.
        observed: boolean, **True = known**, [*size]; by default the pixels that are not NaN in any channel.
        prior: the network's input; ``priors.Uniform(0, 0.1)`` by default.
        training: how to train; see ``Training``.
        truth: the whole image, to measure by.
        measure_every: steps between measurements, if there is a truth.
        checkpoint: file to write the state to, and to go on from if it is there. It is written whole or not at all, and
            read without executing what it holds. An interrupted and resumed run gives what an uninterrupted one would.
        checkpoint_every: steps between writings.
        callback: is told of each step; returns True to stop.
        progress: whether to show a bar, with the loss and the PSNR if there is a truth.
        **changes: options of ``Training`` that differ from ``training``, such as ``steps=3000, lr=0.01``.

    Returns:
        the filled image, the trained network and the course of the losses.

    Raises:
        TypeError: an argument has the wrong type, or there is no such option.
        ValueError: shapes do not fit each other or the network, values are out of range, an observed pixel is not in
            [0, 1] where the head gives no others, or the checkpoint is damaged or of another run.
        DivergedError: the loss became NaN or infinite.
        FileNotFoundError: the checkpoint's folder does not exist.
    """
    training = replace(training or Training(), **changes)
    for number, name in ((measure_every, "measure_every"), (checkpoint_every, "checkpoint_every")):
        positive_int(number, name)
    task = _Task.of(net, image, observed, prior or Uniform(0, 0.1), training, truth)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"expected the checkpoint's folder to exist, but there is no folder {path.parent}")
    devices = [task.target.device] if task.target.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        run = _Run(task, training, measure_every)
        if path is not None and path.exists():
            run.load(path)
        return run.go(path, checkpoint_every, callback, progress)


@dataclass(frozen=True)
class _Task:
    """What is to be trained on what, checked.

    Attributes:
        net: as the user gave it.
        prior: of its input.
        target: [channels, *size], zero where not observed.
        observed: [*size].
        truth: [channels, *size], or None.
        canvas: the network's output size, at least the image's.
        source: the size of its input.
        shape: of the image as the user gave it.
    """

    net: Layer
    prior: Prior
    target: Tensor
    observed: Tensor
    truth: Tensor | None
    canvas: tuple[int, ...]
    source: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls,
        net: Layer,
        image: Tensor,
        observed: Tensor | None,
        prior: Prior,
        training: Training,
        truth: Tensor | None,
    ) -> _Task:
        """Check everything that can be checked before long work.

        Raises:
            TypeError: a type is wrong.
            ValueError: shapes or values do not fit.
        """
        if not isinstance(net, Layer):
            raise TypeError(f"expected a network of torch_cntk, got {type(net).__name__}; see from_torch")
        ndim = net.ndim or 2
        given = Observed.of(image, observed, ndim)
        batch, mask = given.pixels, given.mask
        if len(batch) != 1:
            raise ValueError(f"expected one image, [channels, *size], got a batch of {len(batch)}")
        target = torch.where(mask, batch, 0)[0]
        channels, *size = target.shape
        if net.in_channels is None or net.out_channels is None:
            raise ValueError("expected a network with weights, got one that takes any number of channels")
        if net.out_channels != channels:
            raise ValueError(f"expected an image of the network's {net.out_channels} channels, got {channels}")
        extent = net.propagate(Extent.start(ndim))
        steps = [(g * s).numerator for g, s in zip(extent.granule, extent.scale, strict=True)]
        canvas = tuple(math.ceil(n / step) * step for n, step in zip(size, steps, strict=True))
        if _has_sigmoid(net, training) and not 0 <= float(target.min()) <= float(target.max()) <= 1:
            low, high = float(target.min()), float(target.max())
            raise ValueError(f"expected observed pixels in [0, 1] for the sigmoid head, got {low:g} to {high:g}")
        if training.channels_last and ndim != 2:
            raise ValueError(f"expected 2 dimensions for channels_last, got {ndim}")
        if truth is not None and (not isinstance(truth, torch.Tensor) or truth.shape != image.shape):
            raise ValueError(f"expected a truth of the image's shape {tuple(image.shape)}")
        whole = None if truth is None else truth.detach().to(target).reshape(target.shape)
        return cls(net, prior, target, mask[0], whole, canvas, extent.input_size(canvas), tuple(image.shape))

    def fingerprint(self, training: Training, given: Tensor) -> str:
        """What must be equal for a checkpoint to belong to the run with a given input, in words."""
        options = {name: value for name, value in asdict(training).items() if name not in ("compile", "steps")}
        for name in ("optimiser", "schedule"):
            value = options[name]
            options[name] = getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value
        if training.schedule is not None:
            # Where on its way a schedule is depends on their number.
            options["steps"] = training.steps
        digest = hashlib.sha256()
        for tensor in (self.target, self.observed, given):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        facts = {"net": self.net.description(), "prior": repr(self.prior), "options": options}
        return json.dumps(facts | {"image": digest.hexdigest(), "shape": self.shape}, sort_keys=True, default=str)


def _has_sigmoid(net: Layer, training: Training) -> bool:
    return training.head == "sigmoid" or any(isinstance(module, Sigmoid) for module in net.modules())


class _BatchNorm(torch.nn.Module):
    """Batch normalisation in any number of dimensions, by the batch alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(channels))
        self.offset = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.batch_norm(images, None, None, self.scale, self.offset, training=True)


class _Hook:
    """Puts a normalisation behind a layer."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        normed: Tensor = self.norm(output)
        return normed


class Model(torch.nn.Module):
    """A copy of a network with what training adds: normalisations and a head.

    ``Model(net, training).load_state_dict(result.model.state_dict())`` is the trained one again.

    Args:
        net: the network.
        training: how it is, or was, trained.
    """

    def __init__(self, net: Layer, training: Training) -> None:
        super().__init__()
        self.net = reparameterise(net, training.parameterisation)
        has_head = any(isinstance(module, Sigmoid) for module in net.modules())
        self.head = Sigmoid() if training.head == "sigmoid" and not has_head else torch.nn.Identity()
        self.norms = torch.nn.ModuleList()
        if training.batch_norm:
            for layer in _inner_weights(self.net):
                norm = _BatchNorm(layer.out_channels or 1)
                self.norms.append(norm)
                layer.register_forward_hook(_Hook(norm))

    def forward(self, images: Tensor) -> Tensor:
        """Output for [batch, channels, *size]."""
        result: Tensor = self.head(self.net(images))
        return result


def _inner_weights(net: Layer) -> list[Weighted]:
    """Weight layers that do not give the network's output."""
    nodes = flatten(net)
    outer = {len(nodes)}
    for place in range(len(nodes), 0, -1):
        if place in outer and not isinstance(nodes[place - 1].does, Weighted):
            outer.update(nodes[place - 1].inputs)
    steps = enumerate(nodes, start=1)
    return [node.does for place, node in steps if isinstance(node.does, Weighted) and place not in outer]


class _Run:
    """The state of a training."""

    def __init__(self, task: _Task, training: Training, measure_every: int) -> None:
        self.task, self.training, self.measure_every = task, training, measure_every
        device, dtype = task.target.device, task.target.dtype
        torch.manual_seed(training.seed)
        # On the CPU, so that all devices are given the same input.
        assert task.net.in_channels is not None
        self.input = task.prior.sample(task.net.in_channels, task.source, dtype=dtype).to(device)
        self.kept, self.held_out = self._split()
        layout = torch.channels_last if training.channels_last else torch.contiguous_format
        self.model = Model(task.net, training).to(device=device, dtype=dtype).to(memory_format=layout).train()
        self.batch = self.input[None].to(memory_format=layout)
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

    def _split(self) -> tuple[Tensor, Tensor | None]:
        """The observed pixels to train on, and those to judge by.

        Raises:
            ValueError: there are too few of them.
        """
        if self.training.holdout == 0:
            return self.task.observed, None
        draws = torch.rand(self.task.observed.shape, dtype=torch.float64).to(self.task.observed.device)
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
        noise = torch.randn_like(self.batch) * training.jitter if training.jitter else None
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
                        parameter.add_(torch.randn_like(parameter), alpha=self.training.langevin * group["lr"])

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
        self.model.eval()
        if self.training.iterate == "average" and self.weight:
            output = self.average
        else:
            with torch.no_grad():
                output = self._output(self.batch, self.model)
        filled = torch.where(self.task.observed, self.task.target, output)
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
        device = self.task.target.device
        return {
            "version": _VERSION,
            "run": self.task.fingerprint(self.training, self.input),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "losses": self.losses,
            "holdout_losses": self.holdout_losses,
            "psnr": self.psnr,
            "best": self.best,
            "best_state": self.best_state,
            "average": self.average,
            "weight": self.weight,
            "seconds": self.seconds,
        }

    def save(self, path: Path) -> None:
        """Write all that goes on depends on."""
        with writing(path) as temporary:
            torch.save(self._state(), temporary)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint, of which nothing is executed.

        Raises:
            ValueError: it is damaged, of another version or of another run.
        """
        try:
            state = torch.load(path, map_location=self.task.target.device, weights_only=True)
            version, run = int(state["version"]), str(state["run"])
        except (RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise ValueError(f"expected a checkpoint of torch_cntk, got another or a damaged file: {path}") from error
        if version != _VERSION:
            raise ValueError(f"expected a checkpoint of version {_VERSION}, got {version}: {path}")
        mine = self.task.fingerprint(self.training, self.input)
        if not _same(run, mine):
            raise ValueError(f"expected a checkpoint of this run, got one of another: {path}; {_difference(run, mine)}")
        if len(state["losses"]) > self.training.steps:
            done = len(state["losses"])
            raise ValueError(
                f"expected steps of at least {done}, which {path} has behind it, got {self.training.steps}"
            )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and self.task.target.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.task.target.device)
        for name in ("losses", "holdout_losses", "psnr", "best", "best_state", "average", "weight", "seconds"):
            setattr(self, name, state[name])


def _same(other: str, mine: str) -> bool:
    """Whether two fingerprints say the same: 0 and 0.0 are no difference."""
    try:
        return bool(json.loads(other) == json.loads(mine))
    except ValueError:
        return False


def _difference(other: str, mine: str) -> str:
    """Which facts of two runs differ."""
    try:
        theirs, own = json.loads(other), json.loads(mine)
    except ValueError:
        return "it cannot be read"
    theirs, own = ({**facts.pop("options"), **facts} for facts in (theirs, own))
    names = sorted(name for name in own if theirs.get(name) != own[name])
    return f"different: {', '.join(names)}"
