"""What training gives, what it tells on the way, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from torch_cntk.layers import Layer

__all__ = ["DivergedError", "Step", "TrainingResult", "TrainingStatus"]


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite; the message says when, and what to do."""


class TrainingStatus(Enum):
    """How training ended; the value is a sentence."""

    FINISHED = "all steps were done"
    NO_PROGRESS = "the loss on the held-out pixels did not improve any more"
    STOPPED = "stopped by the callback"


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
