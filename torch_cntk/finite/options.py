"""How a finite network is trained: the options, their defaults and their checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch.optim.lr_scheduler import LRScheduler

from torch_cntk._internal.checks import finite_number, positive_int

__all__ = ["AS_GIVEN", "AsGiven", "Head", "Iterate", "Optimiser", "Parameterisation", "Schedule", "Training", "changed"]

Optimiser: TypeAlias = Callable[..., torch.optim.Optimizer]
"""Makes an optimiser of (parameters, lr=lr)."""
Schedule: TypeAlias = Literal["cosine"] | Callable[[torch.optim.Optimizer], LRScheduler]
"""The name of a schedule, or what makes a torch scheduler of the optimiser."""
Head: TypeAlias = Literal["sigmoid", "none"]
Iterate: TypeAlias = Literal["last", "best", "average"]
Parameterisation: TypeAlias = Literal["ntk", "standard"]


class AsGiven(Enum):
    """The type of ``AS_GIVEN``."""

    AS_GIVEN = "as in training"

    def __repr__(self) -> str:
        return self.value


AS_GIVEN = AsGiven.AS_GIVEN
"""Stands for an option that ``train`` takes from its ``training``; None has a meaning of its own."""


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
    schedule: Schedule | None = None
    head: Head = "sigmoid"
    jitter: float = 0.0
    batch_norm: bool = False
    langevin: float = 0.0
    holdout: float = 0.0
    patience: int | None = None
    iterate: Iterate = "last"
    decay: float | None = 0.99
    burn_in: int = 0
    seed: int = 0
    parameterisation: Parameterisation = "ntk"
    channels_last: bool = False
    compile: bool = False
    autocast: bool = False

    def __post_init__(self) -> None:
        self._check_course()
        self._check_noise()
        self._check_choices()

    def _check_course(self) -> None:
        positive_int(self.steps, "steps")
        if finite_number(self.lr, "lr", minimum=0) == 0:
            raise ValueError("expected lr above 0, got 0")
        for name in ("optimiser", "schedule"):
            value = getattr(self, name)
            if not (callable(value) or (name == "schedule" and value in (None, "cosine"))):
                raise TypeError(f"expected {name} as a function that makes one, got {value!r}")

    def _check_noise(self) -> None:
        for name in ("jitter", "langevin", "holdout"):
            finite_number(getattr(self, name), name, minimum=0)
        if self.holdout >= 1:
            raise ValueError(f"expected holdout below 1, as a share of the observed pixels, got {self.holdout:g}")
        if self.patience is not None:
            positive_int(self.patience, "patience")
            if self.holdout == 0:
                raise ValueError("expected a holdout above 0 for patience to judge by, got 0")

    def _check_choices(self) -> None:
        for name, choices in (("head", Head), ("iterate", Iterate), ("parameterisation", Parameterisation)):
            allowed, value = get_args(choices), getattr(self, name)
            if value not in allowed:
                raise ValueError(f"expected {name} to be one of {', '.join(allowed)}, got {value!r}")
        if self.decay is not None and not 0 <= finite_number(self.decay, "decay") < 1:
            raise ValueError(f"expected decay between 0 and 1, got {self.decay:g}")
        if isinstance(self.burn_in, bool) or not isinstance(self.burn_in, int) or not 0 <= self.burn_in < self.steps:
            raise ValueError(f"expected burn_in from 0 to the number of steps, got {self.burn_in!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"expected seed to be an integer, got {self.seed!r}")


def changed(training: Training | None, **options: Any) -> Training:
    """A training, with those options that are not ``AS_GIVEN`` in the place of its own.

    Raises:
        TypeError: ``training`` is something else, or a value has the wrong type.
        ValueError: a value is out of range.
    """
    if training is not None and not isinstance(training, Training):
        raise TypeError(f"expected training as a Training, got {type(training).__name__}")
    return replace(training or Training(), **{name: value for name, value in options.items() if value is not AS_GIVEN})
