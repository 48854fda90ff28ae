"""Training of finite networks: the deep image prior (Ulyanov, Vedaldi & Lempitsky, 2018) on the observed pixels.

The network's input is a sample of the feature prior, drawn once. What is trained is the function that makes the image
of it; the pixels that are not observed follow from the network's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.files import check_writable
from torch_cntk._internal.guesses import MASK, understands
from torch_cntk._internal.memory import allocating
from torch_cntk.finite.footprint import HINT, require_memory
from torch_cntk.finite.model import Model
from torch_cntk.finite.options import (
    AS_GIVEN,
    AsGiven,
    Head,
    Iterate,
    Optimiser,
    Parameterisation,
    Schedule,
    Training,
    changed,
)
from torch_cntk.finite.results import DivergedError, Step, TrainingResult, TrainingStatus
from torch_cntk.finite.run import Run
from torch_cntk.finite.task import Task
from torch_cntk.images.arrays import read
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior, Uniform, named_prior

__all__ = ["DivergedError", "Model", "Step", "Training", "TrainingResult", "TrainingStatus", "train"]


_SPELLINGS = {
    "optimizer": "optimiser",
    "parameterization": "parameterisation",
    "epochs": "steps",
    "iterations": "steps",
    "learning_rate": "lr",
}
"""Arguments that other packages have, and ours."""
_GUESSES = {"mask": MASK}


@understands(_SPELLINGS, _GUESSES)
@allocating("the training")
def train(
    net: Layer,
    image: Tensor | np.ndarray,
    observed: Tensor | np.ndarray | None = None,
    *,
    prior: Prior | str | None = None,
    training: Training | None = None,
    truth: Tensor | None = None,
    measure_every: int = 50,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    callback: Callable[[Step], bool | None] | None = None,
    progress: bool = False,
    steps: int | AsGiven = AS_GIVEN,
    lr: float | AsGiven = AS_GIVEN,
    optimiser: Optimiser | AsGiven = AS_GIVEN,
    schedule: Schedule | AsGiven | None = AS_GIVEN,
    head: Head | AsGiven = AS_GIVEN,
    jitter: float | AsGiven = AS_GIVEN,
    batch_norm: bool | AsGiven = AS_GIVEN,
    langevin: float | AsGiven = AS_GIVEN,
    holdout: float | AsGiven = AS_GIVEN,
    patience: int | AsGiven | None = AS_GIVEN,
    iterate: Iterate | AsGiven = AS_GIVEN,
    decay: float | AsGiven | None = AS_GIVEN,
    burn_in: int | AsGiven = AS_GIVEN,
    seed: int | AsGiven = AS_GIVEN,
    parameterisation: Parameterisation | AsGiven = AS_GIVEN,
    channels_last: bool | AsGiven = AS_GIVEN,
    compile: bool | AsGiven = AS_GIVEN,  # noqa: A002 - as in torch
    autocast: bool | AsGiven = AS_GIVEN,
) -> TrainingResult:
    """Fit a finite network to the observed pixels of an image.

    All random numbers come from generators of the run's own. torch's global ones are neither read nor moved, unless a
    layer of your own does so.

    Args:
        net: the network; a copy of it is trained.
        image: [channels, *size], floating point; on the device where to train. A tensor or a NumPy array, as which the
            result comes back; half precision is trained on in single.
        observed: boolean, **True = known**, [*size]; by default the pixels that are not NaN in any channel.
            Values beside NaN in other channels are not trained on, but the result has them.
        prior: the network's input, or its name, such as "normal"; ``priors.Uniform(0, 0.1)`` by default.
        training: how to train, ``Training()`` by default. The options below take the place of its own.
        truth: the whole image, to measure by.
        measure_every: steps between measurements, if there is a truth.
        checkpoint: file to write the state to, and to resume from if it is there. It is written whole or not at all,
            carries a checksum, and is read without executing what it holds. An interrupted and resumed run gives what
            an uninterrupted one would. If it cannot be written, since the disk is full, say, there is a warning and
            training goes on.
        checkpoint_every: steps between writings.
        callback: is told of each step; returns True to stop.
        progress: whether to show a bar, with the loss and the PSNR if there is a truth.
        steps: number of updates; this and all that follow are described in ``Training``, with their defaults.
        lr: learning rate.
        optimiser: makes a torch optimiser of (parameters, lr=lr).
        schedule: of the learning rate.
        head: what the model ends in.
        jitter: standard deviation of the noise on the input.
        batch_norm: whether batch normalisation follows the inner weight layers.
        langevin: noise on the filters, in learning rates.
        holdout: share of the observed pixels to judge by.
        patience: steps without progress on them before training stops.
        iterate: which output and weights are the result.
        decay: of the average of the outputs.
        burn_in: steps that the average leaves out.
        seed: of the input, the held-out pixels and all noise.
        parameterisation: of the weights.
        channels_last: the memory format.
        compile: whether to use ``torch.compile``.
        autocast: whether to compute in bfloat16.

    Returns:
        the filled image, the trained network and the course of the losses.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes do not fit each other or the network, values are out of range, an observed pixel is not in
            [0, 1] where the head gives no others, or the checkpoint is damaged or of another run.
        DivergedError: the loss became NaN or infinite.
        FileNotFoundError: the checkpoint's folder does not exist.
        OSError: the checkpoint is a folder, cannot be read, or nothing may be written in its folder.
        OutOfMemoryError: the training does not fit into the device's memory. Where that can be counted, nothing has
            been trained then.

    Example:
        >>> import torch
        >>> import torch_cntk as tc
        >>> net = tc.Sequential(tc.Conv2d(4, 8, 3), tc.ReLU(), tc.Conv2d(8, 1, 3))
        >>> run = tc.train(net, torch.rand(1, 8, 8), torch.rand(8, 8) < 0.5, steps=10, seed=0)
        >>> run.image.shape, len(run.losses)
        (torch.Size([1, 8, 8]), 10)
    """
    training = changed(
        training,
        steps=steps,
        lr=lr,
        optimiser=optimiser,
        schedule=schedule,
        head=head,
        jitter=jitter,
        batch_norm=batch_norm,
        langevin=langevin,
        holdout=holdout,
        patience=patience,
        iterate=iterate,
        decay=decay,
        burn_in=burn_in,
        seed=seed,
        parameterisation=parameterisation,
        channels_last=channels_last,
        compile=compile,
        autocast=autocast,
    )
    positive_int(measure_every, "measure_every")
    positive_int(checkpoint_every, "checkpoint_every")
    given = named_prior(prior) if isinstance(prior, str) else prior or Uniform(0, 0.1)
    pixels_given, mask, form = read(image, observed)
    task = Task.of(net, pixels_given, mask, given, training, truth)
    path = None if checkpoint is None else _checked_path(Path(checkpoint))
    assert net.in_channels is not None
    require_memory(net, training, (net.in_channels, *task.source), task.target)
    pixels = math.prod(task.target.shape[1:])
    what = f"the training of {_count(net):,} weights on {pixels:,} pixels"
    with allocating(what, task.target.device, lambda: HINT):
        result = _begun(task, training, measure_every, path).go(path, checkpoint_every, callback, progress)
    assert form is not None
    return replace(result, image=form.give(result.image), output=form.give(result.output))


def _begun(task: Task, training: Training, measure_every: int, path: Path | None) -> Run:
    """A run from its checkpoint, or from the start where there is none."""
    run = Run(task, training, measure_every)
    if path is not None and path.exists():
        run.load(path)
    return run


def _checked_path(path: Path) -> Path:
    """Find out before long work whether the checkpoint could be written.

    Raises:
        FileNotFoundError: its folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected the checkpoint's folder to exist, but there is no folder {path.parent}")
    check_writable(path)
    return path


def _count(net: Layer) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
