"""What ``tune`` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_cntk._internal.brief import Brief
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior

__all__ = ["Tuning"]


@dataclass(frozen=True, repr=False)
class Tuning(Brief):
    """What ``tune`` gives.

    Attributes:
        network: a copy of the network with the options that were found, as plain numbers; its weights are as they were.
        prior: likewise; None for tables.
        ridge: relative to the kernel's mean diagonal.
        options: what was tuned, by class and option, such as "LeakyReLU.negative_slope".
        objective: what was made as large as possible, the mean of a logarithm for each point.
        trace: the objective at the start and after each step.
        at_bounds: options that ran to a bound, where the largest objective may lie beyond.
        without_effect: options that the objective does not depend on, such as a factor of the whole kernel.
        held: options that were left as they are, as they would only scale the kernel if the network had no biases; name
            them in ``options`` to have them tuned.
        converged: whether no step makes the objective larger.
        status: how it ended, a sentence.
        seconds: wall time.
    """

    network: Layer = field(repr=False)
    prior: Prior | None
    ridge: float
    options: Mapping[str, float]
    objective: float
    trace: tuple[float, ...] = field(repr=False)
    at_bounds: tuple[str, ...]
    without_effect: tuple[str, ...]
    held: tuple[str, ...]
    converged: bool
    status: str
    seconds: float
