"""Training on any loss in the limit of infinite width: an ordinary differential equation of as many numbers as targets.

The outputs f on the training inputs follow f' = -rate K g(f), with the gradient g of the loss (Lee et al. 2019). With
G, the integral of rate g, they are f_0 - K G, and those on other inputs f_0 - K_xX G: one equation serves all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.integrate
import torch
from torch import Tensor

__all__ = ["integrated_gradients"]

_SLACK = 1e-3
"""Of the relative tolerance, the absolute one relative to the largest target of integration."""


def integrated_gradients(
    gradient: Callable[[Tensor], Tensor],
    kernel: Tensor,
    initial: Tensor,
    times: Tensor,
    *,
    rate: float,
    momentum: float | None,
    tolerance: float,
) -> Tensor:
    """The integral of rate times the gradient up to each time, or its like with momentum.

    With momentum G'' = -(1 - momentum) G' + rate g: time counts steps.

    Args:
        gradient: of the loss, takes outputs [n, k] to [n, k].
        kernel: K, [n, n] in float64.
        initial: f_0, [n, k].
        times: [t], finite.
        rate: the learning rate.
        momentum: in [0, 1), or None.
        tolerance: relative error of a step of the integration (Runge-Kutta of order 5 with steps of order 4).

    Returns:
        [t, n, k].

    Raises:
        ValueError: the integration does not come to an end, or the gradient is not finite.
    """
    shape, count = tuple(initial.shape), initial.numel()

    def pushed(total: np.ndarray) -> np.ndarray:
        outputs = initial - kernel @ torch.from_numpy(total.reshape(shape)).to(kernel)
        push = gradient(outputs).double().cpu().numpy().ravel()
        # The integration would make its steps smaller for ever.
        if not np.isfinite(push).all():
            raise ValueError("expected a loss whose gradient stays finite in training, got one that is infinite or NaN")
        pushed_by: np.ndarray = rate * push
        return pushed_by

    def change(_: float, state: np.ndarray) -> np.ndarray:
        if momentum is None:
            return pushed(state)
        speed = state[count:]
        return np.concatenate([speed, pushed(state[:count]) - (1 - momentum) * speed])

    start = np.zeros(count if momentum is None else 2 * count)
    asked, places = np.unique(times.double().cpu().numpy(), return_inverse=True)
    last = float(asked[-1])
    if last == 0:
        return torch.zeros((len(times), *shape), dtype=torch.float64, device=kernel.device)
    # What a step of the kernel's largest eigenvalue changes is the measure of an error.
    least = tolerance * _SLACK * max(float(np.abs(pushed(start[:count])).max()), np.finfo(float).tiny)
    solved = scipy.integrate.solve_ivp(change, (0.0, last), start, "RK45", asked, rtol=tolerance, atol=least)
    if not solved.success:
        raise ValueError(f"expected a loss whose training can be integrated up to {last:g}, got: {solved.message}")
    found = torch.from_numpy(solved.y[:count].T[places.ravel()].copy()).to(kernel)
    return found.reshape(len(times), *shape)
