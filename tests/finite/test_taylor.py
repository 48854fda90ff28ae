"""Networks that are linear in their weights: against the network, its empirical kernel, and the closed form."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

import torch_cntk as tc


def network(generator: torch.Generator) -> tc.Layer:
    net = tc.Sequential(tc.Linear(3, 20, bias_std=0.5), tc.Tanh(), tc.Linear(20, 20), tc.ReLU(), tc.Linear(20, 2))
    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters(generator)  # type: ignore[operator]
    return net.double()


def test_at_its_weights_it_is_the_network(generator: torch.Generator) -> None:
    net, x = network(generator), torch.randn(5, 3, generator=generator, dtype=torch.float64)
    linear = tc.linearise(net)
    torch.testing.assert_close(linear(x), net(x))
    assert [tuple(w.shape) for w in linear.parameters()] == [tuple(w.shape) for w in net.parameters()]


def test_it_is_linear_and_touches_the_network(generator: torch.Generator) -> None:
    net, x = network(generator), torch.randn(5, 3, generator=generator, dtype=torch.float64)
    linear, start = tc.linearise(net), net(x).detach()
    step = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in net.parameters()]

    def at(size: float) -> tuple[Tensor, Tensor]:
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for w, own, change in zip(linear.parameters(), moved.parameters(), step, strict=True):
                w.copy_(own + size * change)
                own.add_(size * change)
        return (linear(x) - start).detach(), (moved(x) - start).detach()

    (one, _), (two, _) = at(1.0), at(2.0)
    torch.testing.assert_close(two, 2 * one)
    near, true = at(1e-6)
    # What is left of the series is of the square of the step.
    torch.testing.assert_close(near, true, rtol=0, atol=1e-9)


def test_its_kernel_is_the_empirical_one_wherever_it_is(generator: torch.Generator) -> None:
    net, x = network(generator), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    linear = tc.linearise(net)
    with torch.no_grad():
        for w in linear.parameters():
            w.add_(torch.randn(w.shape, generator=generator, dtype=torch.float64))
    rows = []
    for n in range(4):
        gradients = torch.autograd.grad(linear(x)[n, 1], list(linear.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    torch.testing.assert_close(jacobian @ jacobian.T, tc.empirical_ntk(net, x, channel=1))


def test_trained_it_follows_the_closed_form(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Linear(3, 30), tc.ReLU(), tc.Linear(30, 1)).double()
    x, new = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (6, 3))
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    kernel, cross = tc.empirical_ntk(net, x), tc.empirical_ntk(net, new, x)
    rate = 0.01 * tc.max_learning_rate(kernel)
    linear = tc.linearise(net)
    begun, there = linear(x)[:, 0].detach(), linear(new)[:, 0].detach()
    optimizer = torch.optim.SGD(linear.parameters(), lr=rate)
    for _ in range(120):
        optimizer.zero_grad()
        ((linear(x)[:, 0] - y).square().mean() / 2).backward()
        optimizer.step()
    flow = tc.TrainingDynamics("precomputed", kernel, y, learning_rate=rate, initial=begun)
    # Steps of 2 % of the time constant, at most: Euler's method is off by a hundredth of the change.
    change = float((y - begun).abs().max())
    assert float((linear(x)[:, 0].detach() - flow.predict(time=120)).abs().max()) <= 0.02 * change
    far = flow.predict(cross, 120, initial=there)
    assert float((linear(new)[:, 0].detach() - far).abs().max()) <= 0.05 * change


def test_images_and_torch_modules(generator: torch.Generator) -> None:
    image = torch.rand(2, 1, 6, 6, generator=generator)
    convolutional = tc.Sequential(tc.Conv2d(1, 3, 3), tc.ReLU(), tc.Conv2d(3, 1, 3))
    torch.testing.assert_close(tc.linearize(convolutional)(image), convolutional(image))
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten()).eval()
    torch.testing.assert_close(tc.linearise(plain)(image), plain(image))


def test_it_can_be_kept_and_moved(generator: torch.Generator) -> None:
    net, x = network(generator), torch.randn(5, 3, generator=generator, dtype=torch.float64)
    linear, other = tc.linearise(net), tc.linearise(network(generator))
    with torch.no_grad():
        for w in linear.parameters():
            w.mul_(1.1)
    other.load_state_dict(linear.state_dict())
    torch.testing.assert_close(other(x), linear(x))
    assert linear.float()(x.float()).dtype == torch.float32


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a network"):
        tc.linearise(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a network with weights"):
        tc.linearise(torch.nn.ReLU())


def test_the_kernel_by_monte_carlo_comes_near_the_exact_one(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Linear(3, 256), tc.ReLU(), tc.Linear(256, 1)).double()
    x = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    found = tc.monte_carlo_kernel(net, x, kind="ntk", draws=60)
    # One hidden layer: no bias of the width. Six standard errors for nine entries.
    assert float(((found.kernel - net.gram(x)) / found.standard_error).abs().max()) <= 6


@pytest.mark.slow
def test_wide_networks_end_up_as_the_ensemble_says(generator: torch.Generator) -> None:
    width, count, rate, steps = 512, 60, 0.5, 60
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    new = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(5, generator=generator, dtype=torch.float64)
    outputs = []
    for _ in range(count):
        net = tc.Sequential(tc.Linear(2, width), tc.ReLU(), tc.Linear(width, 1)).double()
        for layer in (net[0], net[2]):
            layer.reset_parameters(generator)  # type: ignore[operator]
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            ((net(x)[:, 0] - y).square().mean() / 2).backward()
            optimizer.step()
        outputs.append(net(new)[:, 0].detach())
    found = torch.stack(outputs)
    mean, std = tc.TrainingDynamics(net, x, y, learning_rate=rate).predict(new, steps, return_std=True)
    # Five standard errors, and a part for the width and for steps that are not small.
    slack = 0.1 * float(y.abs().max())
    assert float((found.mean(0) - mean).abs().max()) <= 5 * float(std.max()) / math.sqrt(count) + slack
    assert float((found.std(0) - std).abs().max()) <= 5 * float(std.max()) / math.sqrt(2 * count) + slack
