"""Choose the options of a network and a prior, and the ridge, by gradient."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import scipy.optimize
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.memory import allocating
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior
from torch_cntk.priors.base import named_prior
from torch_cntk.tuning.data import Data, Pixels, Rows
from torch_cntk.tuning.objectives import Objective, score
from torch_cntk.tuning.parameters import (
    RIDGE,
    Parameter,
    copied_prior,
    inner_of,
    parameters_of,
    ridge_parameter,
    values_of,
)
from torch_cntk.tuning.result import Tuning

__all__ = ["tune"]

_NO_EFFECT = 1e-9
"""Derivative of the objective by the logarithm of an option that is rounding: others have some 0.01 at the start."""
_IMPOSSIBLE = 1e6
"""The loss where the equations are singular: no optimum is near."""
_AT_BOUND = 1e-6
"""Of the distance between the bounds."""


@allocating("tuning the kernel")
def tune(
    network: Layer,
    prior: Prior | str | None = None,
    image: Tensor | np.ndarray | None = None,
    observed: Tensor | np.ndarray | None = None,
    *,
    x: Tensor | np.ndarray | None = None,
    y: Tensor | np.ndarray | None = None,
    options: Sequence[str] | None = None,
    objective: Objective = "left-out",
    kind: Literal["ntk", "nngp"] = "ntk",
    ridge: float = 1e-3,
    steps: int = 50,
    points: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Tuning:
    """Choose options of a network and its prior, and the ridge, so that the kernel explains what is known.

        tuned = tc.tune(net, tc.priors.Uniform(0, 0.1), image, observed)
        tc.inpaint(image, observed, tuned.network.kernel(tuned.prior), ridge=tuned.ridge)

        tuned = tc.tune(net, x=table, y=targets)
        tc.KernelRegressor(tuned.network, ridge=tuned.ridge).fit(table, targets)

    The objective's gradient takes about as long as the objective itself, however many options there are; steps are
    those of L-BFGS within bounds (Byrd, Lu, Nocedal & Zhu 1995, as in SciPy). The same call gives the same result.

    Args:
        network: for pixels one that ends in pixels; for x and y one with a head, or of Linear layers.
        prior: of the image, or its name.
        image: one image [channels, *size], floating point; a tensor or an array, as the others.
        observed: boolean, True = known, [*size]; by default the pixels that are not NaN.
        x: inputs [n, ...] instead of an image.
        y: their targets, [n] or [n, k].
        options: names of what to tune beside the ridge, such as ["negative_slope", "Coordinates.length"]; by default
            all options that are numbers, except those that only scale the kernel, or would but for the biases that they
            make larger or smaller from layer to layer. Layers of one class with the same number share it. Options that
            are 0 and must not be negative stay 0.
        objective: "left-out" (the log probability of each point given the others), "likelihood" (of all points
            together) or "error" (the squared error of each point given the others, for the best predictions alone).
        kind: "ntk" or "nngp".
        ridge: where to begin, relative to the mean of the kernel's diagonal; tuned between 1e-8 and 10.
        steps: at most.
        points: pixels or inputs that are looked at, at most about so many; of an image those of a few blocks.
        seed: of the choice of them.
        progress: whether to show a bar. Ctrl-C ends the search with the best that was found.

    Returns:
        the network and the prior with plain numbers, the ridge, and how the search went.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, an image comes with x and y or neither is there, or what is known is
            constant; or an activation has no rule for gradients.
    """
    start = time.perf_counter()
    _check(network, objective, kind)
    if options is not None and (isinstance(options, str) or not isinstance(options, Sequence)):
        raise TypeError(f'expected options as names, such as ["negative_slope"], got {options!r}')
    number = finite_number(ridge, "ridge", minimum=0)
    most, count = positive_int(steps, "steps"), positive_int(points, "points", least=8)
    generator = torch.Generator().manual_seed(positive_int(seed, "seed", least=0))
    prior = named_prior(prior) if isinstance(prior, str) else prior
    network = copy.deepcopy(network)
    prior = None if prior is None else copied_prior(prior)
    data = _data(network, prior, (image, observed), (x, y), count, generator)
    parameters = [*parameters_of(network, prior, options), ridge_parameter(number)]
    search = _Search(network, prior, data, parameters, objective, kind)
    with torch.inference_mode(False), torch.enable_grad(), tqdm(total=most, disable=not progress, desc="tune") as bar:
        status, converged = search.run(most, bar, hold=options is None)
    return search.result(status, converged, time.perf_counter() - start)


def _check(network: object, objective: object, kind: object) -> None:
    """Check what is no data.

    Raises:
        TypeError: the network is none.
        ValueError: a word is unknown.
    """
    if not isinstance(network, Layer):
        raise TypeError(f"expected a network of torch_cntk, got {type(network).__name__}")
    if objective not in get_args(Objective):
        raise ValueError(f"expected an objective of {', '.join(get_args(Objective))}, got {objective!r}")
    if kind not in ("ntk", "nngp"):
        raise ValueError(f'expected kind "ntk" or "nngp", got {kind!r}')


def _data(
    network: Layer,
    prior: Prior | None,
    picture: tuple[Any, Any],
    table: tuple[Any, Any],
    points: int,
    generator: torch.Generator,
) -> Data:
    """What to tune on.

    Raises:
        TypeError: the prior is none.
        ValueError: there is neither an image with a prior nor x and y, or both.
    """
    image, observed = picture
    if image is not None and prior is not None and table[0] is None and table[1] is None:
        if not isinstance(prior, Prior):
            raise TypeError(f"expected a feature prior, such as priors.Uniform(), got {type(prior).__name__}")
        return Pixels.of(network, prior, image, observed, points, generator)
    if image is None and observed is None and prior is None and table[0] is not None and table[1] is not None:
        return Rows.of(table[0], table[1], points, generator)
    raise ValueError("expected an image with a prior, or x and y, got neither or a part of both")


class _Search:
    """The steps, and the best numbers so far."""

    def __init__(
        self,
        network: Layer,
        prior: Prior | None,
        data: Data,
        parameters: list[Parameter],
        objective: Objective,
        kind: str,
    ) -> None:
        self._network, self._prior, self._data = network, prior, data
        self._objective: Objective = objective
        self._kind = kind
        self._parameters = parameters
        self._trace: list[float] = []
        self._idle: tuple[str, ...] = ()
        self._held: tuple[str, ...] = ()
        self._best = inner_of(parameters)
        self._best_loss = math.inf

    def run(self, steps: int, bar: tqdm, *, hold: bool) -> tuple[str, bool]:
        """Search.

        Args:
            steps: at most.
            bar: to go on after each.
            hold: whether what only scales the kernel without its biases is left as it is.

        Returns:
            how it ended, and whether no step makes the objective larger.

        Raises:
            ValueError: the equations are singular at the start.
        """
        loss, gradient = self._loss(self._best.numpy())
        if loss >= _IMPOSSIBLE:
            raise ValueError("expected equations that can be solved at the start, got singular ones: raise the ridge")
        self._trace.append(-loss)
        moving = [k for k, slope in enumerate(gradient) if abs(slope) > _NO_EFFECT]
        self._idle = tuple(p.name for k, p in enumerate(self._parameters) if k not in moving)
        if hold:
            self._held = self._scales({self._parameters[k].name for k in moving})
            moving = [k for k in moving if self._parameters[k].name not in self._held]
        if not moving:
            return "nothing that was to be tuned has an effect", True
        whole = self._best.numpy().copy()

        def of_moving(inner: np.ndarray) -> tuple[float, np.ndarray]:
            whole[moving] = inner
            loss, gradient = self._loss(whole)
            return loss, gradient[moving]

        def after_step(intermediate_result: Any) -> None:
            self._trace.append(-float(intermediate_result.fun))
            bar.update()

        try:
            found = scipy.optimize.minimize(
                of_moving,
                whole[moving].copy(),
                jac=True,
                method="L-BFGS-B",
                bounds=[self._parameters[k].inner_bounds for k in moving],
                options={"maxiter": steps, "ftol": 1e-9, "gtol": 1e-6},
                callback=after_step,
            )
        except KeyboardInterrupt:
            return f"interrupted after {len(self._trace) - 1} steps", False
        converged = found.status == 0
        return ("converged" if converged else f"out of steps after {found.nit}: raise steps"), converged

    def _scales(self, moving: set[str]) -> tuple[str, ...]:
        """Options that only scale the kernel of the network without its biases, by name.

        A factor c of the weights of all layers divides the share of the l-th bias by c^l, if activations leave factors
        as they are: beside a scale that the biases share it says how they fade with depth. Data tell little of that,
        so that both would run off together.

        Args:
            moving: names of options that have an effect.
        """
        biases = [parameter for parameter in self._parameters if parameter.of("bias_std")]
        others = [parameter for parameter in self._parameters if not parameter.of("bias_std")]
        scales = {p.name for p in others if p.of("weight_std", "factor")} & moving
        if not biases or not scales:
            return ()
        for parameter in biases:
            parameter.set(0.0)
        without = _Search(self._network, self._prior, self._data, others, self._objective, self._kind)
        loss, gradient = without._loss(inner_of(others).numpy())
        idle = {p.name for p, slope in zip(others, gradient, strict=True) if abs(slope) <= _NO_EFFECT}
        return () if loss >= _IMPOSSIBLE else tuple(sorted(scales & idle))

    def _loss(self, inner: np.ndarray) -> tuple[float, np.ndarray]:
        """Minus the objective, and its derivatives."""
        given = torch.from_numpy(np.array(inner)).requires_grad_()
        values = values_of(self._parameters, given)
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.set(value)
        parts = [
            (score(kernel, targets, values[-1], self._objective), len(kernel))
            for kernel, targets in self._data.parts(self._network, self._prior, self._kind)
        ]
        loss = -torch.stack([n * value for value, n in parts]).sum() / sum(n for _, n in parts)
        (gradient,) = torch.autograd.grad(loss, given)
        number = loss.item()
        if not math.isfinite(number) or not bool(torch.isfinite(gradient).all()):
            return _IMPOSSIBLE, np.zeros(len(inner))
        if number < self._best_loss:
            self._best_loss, self._best = number, given.detach().clone()
        return number, gradient.numpy()

    def result(self, status: str, converged: bool, seconds: float) -> Tuning:
        """The best numbers, put into the network and the prior."""
        numbers: dict[str, float] = {}
        at_bounds = []
        for parameter, inner in zip(self._parameters, self._best, strict=True):
            value = parameter.outer(inner).item()
            # By what rounding put beyond.
            value = min(max(value, parameter.bounds[0]), parameter.bounds[1])
            parameter.set(value)
            low, high = parameter.inner_bounds
            if parameter.name not in self._idle + self._held:
                numbers[parameter.name] = value
                if min(inner.item() - low, high - inner.item()) <= _AT_BOUND * (high - low):
                    at_bounds.append(parameter.name)
        ridge = numbers.pop(RIDGE, self._parameters[-1].start)
        if self._held:
            held = ", ".join(self._held)
            status += f"; held, as they would only scale the kernel if the network had no biases: {held}"
        if at_bounds:
            status += f"; at a bound: {', '.join(at_bounds)}"
        return Tuning(
            self._network,
            self._prior,
            ridge,
            numbers,
            -self._best_loss,
            tuple(self._trace),
            tuple(at_bounds),
            self._idle,
            self._held,
            converged,
            status,
            seconds,
        )
