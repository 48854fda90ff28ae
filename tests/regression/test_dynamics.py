"""Training at any time: against matrix exponentials, small steps of gradient descent, and its limits."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.regression.decay import progress

# float64, of eigenvalues over a range of 1e4.
CLOSE = 1e-9
NET = tc.Sequential(tc.Linear(3, 8, bias_std=0.3), tc.ReLU(), tc.Linear(8, 8), tc.ReLU(), tc.Linear(8, 1))
Kind = Literal["ntk", "nngp"]


def data(generator: torch.Generator, n: int = 9, m: int = 4, k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(n + m, 3, generator=generator, dtype=torch.float64)
    return x[:n], torch.randn(n, k, generator=generator, dtype=torch.float64), x[n:]


def kernels(x: Tensor, new: Tensor, kind: Kind) -> tuple[Tensor, Tensor, Tensor]:
    both = NET.gram(torch.cat((x, new)), kind=kind)
    n = len(x)
    return both[:n, :n], both[n:, :n], both[n:, n:]


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_mean_and_covariance_are_those_of_matrix_exponentials(
    kind: Kind, ridge: float, generator: torch.Generator
) -> None:
    x, y, new = data(generator)
    flow = tc.TrainingDynamics(NET, x, y, kind=kind, learning_rate=0.7, ridge=ridge)
    times = torch.tensor([[0.0, 3.0], [200.0, 1e5]])
    mean, cov = flow.predict(new, times, return_cov=True)
    assert mean.shape == (2, 2, len(new), 2)
    assert cov.shape == (2, 2, len(new), len(new))
    theta, cross, _ = kernels(x, new, kind)
    k, beside, prior = kernels(x, new, "nngp")
    eye = torch.eye(len(x), dtype=torch.float64)
    theta = theta + ridge * theta.diagonal().mean() * eye
    if kind == "nngp":
        k = theta  # the noise of the targets counts
    for place in np.ndindex(2, 2):
        exponential = torch.linalg.matrix_exp(-0.7 * float(times[place]) * theta / y.numel())
        weights = cross @ torch.linalg.solve(theta, eye - exponential)
        wanted = prior + weights @ k @ weights.T - weights @ beside.T - beside @ weights.T
        torch.testing.assert_close(mean[place], weights @ y, rtol=0, atol=CLOSE)
        torch.testing.assert_close(cov[place], wanted, rtol=0, atol=CLOSE * float(prior.max()))
    _, std = flow.predict(new, times, return_std=True)
    assert std.shape == mean.shape
    variances = cov.diagonal(dim1=-2, dim2=-1).clamp_min(0)
    torch.testing.assert_close(std.square(), variances[..., None].expand(mean.shape), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("momentum", [None, 0.0, 0.6])
def test_small_steps_of_gradient_descent_come_near(momentum: float | None, generator: torch.Generator) -> None:
    x, y, new = data(generator)
    theta, cross, _ = kernels(x, new, "ntk")
    begun, there = torch.randn(len(x), 2, generator=generator).double(), torch.randn(len(new), 2).double()
    errors = []
    for finer in (1, 4):
        # With momentum, time in steps grows with the inverse of the root of the rate.
        steps = 60 * finer
        rate = 0.02 * tc.max_learning_rate(theta, y.numel()) / (finer if momentum is None else finer**2)
        kept = None if momentum is None else 1 - (1 - momentum) * 0.1 / finer
        flow = tc.TrainingDynamics(NET, x, y, learning_rate=rate, momentum=kept, initial=begun)
        f, g, v, u = begun.clone(), there.clone(), torch.zeros_like(begun), torch.zeros_like(there)
        for _ in range(steps):
            push = rate * (y - f) / y.numel()
            v, u = (kept or 0) * v + theta @ push, (kept or 0) * u + cross @ push
            f, g = f + v, g + u
        errors.append(
            max(
                float((flow.predict(time=steps) - f).abs().max()),
                float((flow.predict(new, steps, initial=there) - g).abs().max()),
            )
        )
    # Euler's method: the error falls with the size of the step.
    assert errors[0] <= 0.3
    assert errors[1] <= 0.45 * errors[0]


def test_the_ends_are_prior_and_posterior(generator: torch.Generator) -> None:
    x, y, new = data(generator)
    for kind in ("ntk", "nngp"):
        flow = tc.TrainingDynamics(NET, x, y[:, 0], kind=kind, ridge=1e-3)
        mean, cov = flow.predict(new, 0, return_cov=True)
        assert mean.shape == (len(new),)
        assert not bool(mean.any())
        torch.testing.assert_close(cov, NET.gram(new, kind="nngp"))
        model = tc.KernelRegressor(NET, kind=kind, ridge=1e-3, center=False).fit(x, y[:, 0])
        torch.testing.assert_close(flow.predict(new), model.predict(new))
        torch.testing.assert_close(flow.predict(new, math.inf), flow.predict(new))
        torch.testing.assert_close(flow.predict(new, 1e12), flow.predict(new))
        if kind == "nngp":
            _, std = flow.predict(new, return_std=True)
            _, wanted = model.predict(new, return_std=True)
            torch.testing.assert_close(std, wanted / math.sqrt(model.amplitude_[0]), rtol=1e-6, atol=0)


def test_trained_without_a_ridge_targets_are_met_and_certain(generator: torch.Generator) -> None:
    x, y, _ = data(generator)
    mean, std = tc.TrainingDynamics(NET, x, y).predict(return_std=True)
    torch.testing.assert_close(mean, y, rtol=0, atol=1e-8)
    assert float(std.max()) <= 1e-5


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_a_loss_that_is_the_squared_error_gives_the_closed_form(
    momentum: float | None, generator: torch.Generator
) -> None:
    x, y, new = data(generator)
    rate = 0.3 * tc.max_learning_rate(NET.gram(x), y.numel())
    times = [5.0, 0.0, 15.0, 5.0]
    closed = tc.TrainingDynamics(NET, x, y, learning_rate=rate, momentum=momentum)
    found = tc.TrainingDynamics(
        NET,
        x,
        y,
        loss=lambda f, t: (f - t).square().mean() / 2,
        learning_rate=rate,
        momentum=momentum,
    )
    # A thousand times the tolerance of a step.
    torch.testing.assert_close(found.predict(new, times), closed.predict(new, times), rtol=0, atol=1e-3)


def test_cross_entropy_follows_small_steps(generator: torch.Generator) -> None:
    x, _, new = data(generator, n=12)
    labels = torch.randint(3, (12,), generator=generator)
    labels[:3] = torch.arange(3)
    theta, cross, _ = kernels(x, new, "ntk")
    f, g = torch.zeros(12, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(labels).double()
    rate, steps = 0.002, 2000
    for _ in range(steps):
        push = rate * (one_hot - f.softmax(1)) / 12
        f, g = f + theta @ push, g + cross @ push
    flow = tc.TrainingDynamics(NET, x, labels, loss="cross_entropy", learning_rate=rate)
    # A step moves outputs by 1 % at most.
    torch.testing.assert_close(flow.predict(new, steps), g, rtol=0, atol=2e-3)
    torch.testing.assert_close(flow.predict(time=steps), f, rtol=0, atol=2e-3)
    soft = tc.TrainingDynamics(NET, x, one_hot, loss="cross_entropy", learning_rate=rate)
    torch.testing.assert_close(soft.predict(new, steps), flow.predict(new, steps))


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_beyond_the_largest_rate_gradient_descent_diverges(momentum: float, generator: torch.Generator) -> None:
    x, y, _ = data(generator)
    theta = NET.gram(x)
    largest = tc.max_learning_rate(theta, y.numel(), momentum)
    for share, ends in ((0.98, True), (1.02, False)):
        f, v = torch.zeros_like(y), torch.zeros_like(y)
        for _ in range(3000):
            v = momentum * v + share * largest * theta @ (y - f) / y.numel()
            f = f + v
        assert (float((f - y).norm()) <= float(y.norm())) == ends
    assert tc.max_learning_rate(theta) == pytest.approx(2 * len(x) / float(torch.linalg.eigvalsh(theta)[-1]))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_momentum_is_that_of_the_oscillator(momentum: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    damping = (1 - momentum) / 2
    rates = [1e-12, 1e-6, *(damping**2 * part for part in (0.74, 0.76, 0.9999999, 1, 1.000001, 1.3)), 0.1, 1.0, 3.0]
    times = [0.1, 1.0, 10.0, 1000.0]
    found = progress(torch.tensor(rates, dtype=torch.float64), torch.tensor(times, dtype=torch.float64), momentum)
    with mpmath.workdps(60):
        for i, t in enumerate(times):
            for j, r in enumerate(rates):
                c, rate, time = (1 - mpmath.mpf(momentum)) / 2, mpmath.mpf(r), mpmath.mpf(t)
                root = mpmath.sqrt(c * c - rate)
                slope = mpmath.sinh(root * time) / root if root else time
                left = mpmath.exp(-c * time) * (mpmath.cosh(root * time) + c * slope)
                wanted = mpmath.re((1 - left) / rate)
                # For short times 1 - e is a difference of larger numbers: of 1 near the critical damping and beyond.
                size = c * t if r < 0.75 * damping**2 else r * t**2
                assert abs(float(float(found[i, j]) / wanted) - 1) <= 1e-14 / min(size, 1) + 1e-11


def test_images_arrays_and_a_matrix_of_ones_own(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Conv2d(1, 4, 3), tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(4, 1))
    x, new = (torch.rand(n, 1, 4, 4, generator=generator).double().numpy() for n in (6, 3))
    y = np.arange(6.0)
    flow = tc.TrainingDynamics(net, x, y)
    mean, std = flow.predict(new, [1.0, 5.0], return_std=True)
    assert isinstance(mean, np.ndarray)
    assert mean.shape == std.shape == (2, 3)
    assert isinstance(flow.predict(time=1.0), np.ndarray)
    gram, cross = net.gram(torch.from_numpy(x)), net.gram(torch.from_numpy(new), torch.from_numpy(x))
    other = tc.TrainingDynamics("precomputed", gram.numpy(), y).predict(cross.numpy(), [1.0, 5.0])
    np.testing.assert_allclose(other, mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "asked", "words"),
    [
        ({"kind": "x"}, {}, "kind"),
        ({"loss": "hinge"}, {}, "loss"),
        ({"learning_rate": 0.0}, {}, "learning_rate"),
        ({"momentum": 1.0}, {}, "momentum"),
        ({"ridge": -1.0}, {}, "ridge"),
        ({"loss": "cross_entropy", "ridge": 0.1}, {}, "ridge"),
        ({"initial": torch.zeros(3, 2)}, {}, "initial"),
        ({}, {"time": -1.0}, "times"),
        ({}, {"time": "soon"}, "time"),
        ({}, {"return_std": True, "return_cov": True}, "both"),
        ({}, {"initial": torch.zeros(4, 2)}, "initial"),
        ({"initial": torch.zeros(9, 2)}, {}, "initial"),
        ({"initial": torch.zeros(9, 2)}, {"return_std": True}, "initial"),
        ({"loss": "cross_entropy"}, {}, "finite"),
        ({"loss": "cross_entropy"}, {"time": 1.0, "return_cov": True}, "loss"),
    ],
)
def test_what_there_is_not_is_refused(
    options: dict[str, Any], asked: dict[str, Any], words: str, generator: torch.Generator
) -> None:
    x, y, new = data(generator)
    targets = y.softmax(1) if options.get("loss") == "cross_entropy" else y
    with pytest.raises((ValueError, TypeError), match=f"expected.*{words}"):
        tc.TrainingDynamics(NET, x, targets, **options).predict(new, **asked)


def test_a_matrix_has_no_covariance_over_weights(generator: torch.Generator) -> None:
    x, y, _ = data(generator)
    flow = tc.TrainingDynamics("precomputed", NET.gram(x), y)
    with pytest.raises(ValueError, match="expected a network"):
        flow.predict(return_std=True)


def test_what_are_no_probabilities_or_labels_is_refused(generator: torch.Generator) -> None:
    x, y, _ = data(generator)
    for targets in (y, torch.rand(9), torch.arange(9) - 1, torch.full((9, 2), 0.7)):
        with pytest.raises(ValueError, match=r"expected (labels|probabilities)"):
            tc.TrainingDynamics(NET, x, targets, loss="cross_entropy")
