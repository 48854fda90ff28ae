"""Kernels of finite networks, and what training does to wide ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.func import functional_call, jacrev

import torch_cntk as tc


def small_net(width: int = 5, out: int = 2) -> tc.Sequential:
    return tc.Sequential(
        tc.StridedConv2d(2, width, 3, bias=True, bias_std=0.5),
        tc.ReLU(),
        tc.Concat(tc.Conv2d(width, 2, 1), tc.Identity()),
        tc.NearestUp(2),
        tc.Conv2d(width + 2, out, 3),
    ).double()


def by_jacrev(net: tc.Layer, z: torch.Tensor, channels: list[int]) -> torch.Tensor:
    jacobians = jacrev(lambda p: functional_call(net, p, (z[None],))[0])(dict(net.named_parameters()))
    grams = []
    for channel in channels:
        rows = torch.cat([j[channel].flatten(2).flatten(0, 1) for j in (j.flatten(3) for j in jacobians.values())], 1)
        grams.append(rows @ rows.T)
    size = z.shape[1:]
    return torch.stack(grams).mean(0).reshape(*size, *size).detach()


@pytest.mark.parametrize("method", ["auto", "jacobian", "products"])
@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize("channel", [None, 1])
def test_empirical_ntk_is_the_gram_of_the_jacobian(
    method: Any, chunk: Any, channel: Any, generator: torch.Generator
) -> None:
    net = small_net()
    z = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    found = tc.empirical_ntk(net, z, method=method, chunk=chunk, channel=channel)
    expected = by_jacrev(net, z, [0, 1] if channel is None else [channel])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_heads_and_dropout_are_left_out_and_the_mode_is_kept(generator: torch.Generator) -> None:
    net = small_net()
    z = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    more = tc.Sequential(*net.layers[:2], tc.Dropout(0.5), *net.layers[2:], tc.Sigmoid()).train()
    torch.testing.assert_close(tc.empirical_ntk(more, z), tc.empirical_ntk(net, z))
    assert more.training


def test_empirical_ntk_approaches_the_kernel() -> None:
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    distances = []
    for width in (16, 256):
        net = tc.Sequential(
            tc.Conv2d(2, width, 3), tc.ReLU(), tc.Conv2d(width, width, 3), tc.ReLU(), tc.Conv2d(width, 1, 3)
        )
        for module in net.layers:
            if isinstance(module, tc.Conv2d):
                module.reset_parameters(generator)
        net = net.double()
        exact = net.kernel(tc.priors.Tensor(z)).dense()
        distances.append(float((tc.empirical_ntk(net, z) - exact).norm() / exact.norm()))
    # 4 times less at 16 times the width, up to chance.
    assert distances[1] < 0.6 * distances[0]
    assert distances[1] < 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "expected method"),
        ({"channel": 2}, "expected a channel from 0 to 1, got 2"),
        ({"chunk": 0}, "expected chunk to be at least 1"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        tc.empirical_ntk(small_net(), torch.zeros(2, 4, 4, dtype=torch.float64), **options)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected z as a tensor in torch.float64"):
        tc.empirical_ntk(small_net(), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="expected a network with weights"):
        tc.empirical_ntk(tc.Sequential(tc.ReLU()), torch.zeros(2, 4, 4))


def test_jacobian_that_would_not_fit_is_refused_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    net, z = small_net(), torch.zeros(2, 4, 4, dtype=torch.float64)
    expected = tc.empirical_ntk(net, z, method="jacobian")
    monkeypatch.setattr("torch_cntk.finite.empirical.available_bytes", lambda device="cpu": 40_000)
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": 20_000)
    monkeypatch.setattr("torch_cntk._internal.memory._SMALL", 1)
    with pytest.raises(tc.OutOfMemoryError, match=r'method="products" does without it'):
        tc.empirical_ntk(net, z, method="jacobian")
    torch.testing.assert_close(tc.empirical_ntk(net, z), expected)


# Linearised training.


def test_linearised_training_solves_its_differential_equation(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3))
    kernel = net.kernel(tc.priors.Normal()).dense((4, 4))
    image = torch.rand(2, 4, 4, generator=generator, dtype=torch.float64)
    start = torch.rand(2, 4, 4, generator=generator, dtype=torch.float64)
    observed = torch.rand(4, 4, generator=generator) < 0.6
    observed[0, 0] = True
    flow = tc.LinearisedTraining(kernel, image, observed, start)
    # Small Euler steps.
    matrix, seen, f = kernel.reshape(16, 16), observed.flatten(), start.flatten(1).clone()
    rate, steps = 1e-4 * flow.largest_rate, 2000
    for _ in range(steps):
        f -= rate * (f - image.flatten(1))[:, seen] @ matrix[seen]
    torch.testing.assert_close(flow.predict(rate * steps).flatten(1), f, rtol=1e-3, atol=1e-3)
    assert flow.loss(rate * steps) == pytest.approx(
        0.5 * float((f - image.flatten(1))[:, seen].square().sum()), rel=1e-2
    )
    torch.testing.assert_close(flow.predict(0.0), start)


def test_linearised_training_ends_in_the_regression(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3))
    kernel = net.kernel(tc.priors.Normal())
    image = torch.rand(1, 6, 6, generator=generator, dtype=torch.float64)
    observed = torch.rand(6, 6, generator=generator) < 0.6
    observed[0, 0] = True
    # Training starts at 0; filling starts at the mean of what is observed.
    image -= image[:, observed].mean()
    strict = tc.ConjugateGradient(tolerance=1e-12, max_iterations=2000)
    filled = tc.inpaint(image, observed, kernel, ridge=0, solver=strict, wrap=True).image
    flow = tc.LinearisedTraining(kernel, image, observed)
    for time in (math.inf, 1e9):
        torch.testing.assert_close(flow.predict(time), filled, rtol=1e-6, atol=1e-8)


def test_wide_network_follows_linearised_training() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    image = torch.rand(1, 4, 4, generator=generator, dtype=torch.float64)
    observed = torch.rand(4, 4, generator=generator) < 0.6
    net = tc.Sequential(tc.Conv2d(2, 512, 3), tc.ReLU(), tc.Conv2d(512, 1, 3)).double()
    layer: Any
    for layer in (net[0], net[2]):
        layer.reset_parameters(generator)
    start = net(z[None])[0].detach()
    exact = tc.LinearisedTraining(net.kernel(tc.priors.Tensor(z)), image, observed, start)
    own = tc.LinearisedTraining(tc.empirical_ntk(net, z), image, observed, start)
    rate, steps = 0.02 * exact.largest_rate, 100
    for _ in range(steps):
        net.zero_grad()
        loss = 0.5 * (net(z[None])[0] - image)[:, observed].square().sum()
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter.sub_(rate * parameter.grad)
    trained, moved = net(z[None])[0].detach(), exact.predict(rate * steps)
    # The network's own kernel first: what is left is its change during training, and the steps' length.
    assert (trained - own.predict(rate * steps)).norm() < 0.05 * (start - trained).norm()
    assert (trained - moved).norm() < 0.3 * (start - trained).norm()


def test_linearised_training_refuses_what_does_not_fit() -> None:
    kernel = torch.eye(16).reshape(4, 4, 4, 4)
    with pytest.raises(ValueError, match="expected a kernel of shape"):
        tc.LinearisedTraining(kernel, torch.zeros(1, 4, 5), torch.ones(4, 5, dtype=torch.bool))
    flow = tc.LinearisedTraining(kernel, torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="expected time to be at least 0"):
        flow.predict(-1.0)
    with pytest.raises(ValueError, match="expected initial of the image's shape"):
        tc.LinearisedTraining(kernel, torch.zeros(1, 4, 4), initial=torch.zeros(3))


def test_linearised_training_between_rows_solves_its_differential_equation(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Linear(8, 2)).double()
    z = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    targets = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    start = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    seen = torch.tensor([True, True, False, True, False, True, True])
    for kernel in (net.gram(z), tc.empirical_ntk(net, z)):
        flow = tc.LinearisedTraining.between_inputs(kernel, targets, seen, start)
        f, rate, steps = start.clone(), 1e-4 * flow.largest_rate, 1000
        for _ in range(steps):
            f -= rate * kernel[:, seen] @ (f - targets)[seen]
        # Euler steps of 1e-4 of the stability bound err by as much, relatively, as one step covers.
        torch.testing.assert_close(flow.predict(rate * steps), f, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(flow.predict(0.0), start)
        ridgeless = torch.linalg.lstsq(kernel[seen][:, seen], (targets - start)[seen]).solution
        torch.testing.assert_close(flow.predict(math.inf), start + kernel[:, seen] @ ridgeless, rtol=1e-6, atol=1e-6)
    # Targets that are missing are NaN, and one number an input needs no axis.
    missing = torch.where(seen, targets[:, 0], math.nan)
    found = tc.LinearisedTraining.between_inputs(kernel, missing, initial=start[:, 0]).predict(1.0)
    torch.testing.assert_close(found, flow.predict(1.0)[:, 0])


def test_linearised_training_of_several_images_is_that_of_one_with_an_axis_more(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Conv1d(2, 8, 3), tc.ReLU(), tc.Conv1d(8, 1, 3)).double()
    z = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    images = torch.randn(1, 3, 4, generator=generator, dtype=torch.float64)
    observed = torch.ones(3, 4, dtype=torch.bool)
    observed[1, 2:] = False
    kernel = tc.empirical_ntk(net, z)
    found = tc.LinearisedTraining(kernel, images, observed).predict(0.7)
    flat = tc.LinearisedTraining.between_inputs(kernel.reshape(12, 12), images.flatten(), observed.flatten())
    torch.testing.assert_close(found.flatten(), flat.predict(0.7))


def test_wide_classifiers_follow_linearised_training() -> None:
    torch.manual_seed(1)
    z, targets = torch.randn(6, 4, dtype=torch.float64), torch.eye(3, dtype=torch.float64).repeat(2, 1)
    net = tc.Sequential(tc.Linear(4, 1024), tc.ReLU(), tc.Linear(1024, 3)).double()
    start = net(z).detach()
    flow = tc.LinearisedTraining.between_inputs(tc.empirical_ntk(net, z), targets, initial=start)
    rate, steps = 0.02 * flow.largest_rate, 100
    optimiser = torch.optim.SGD(net.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (0.5 * (net(z) - targets).square().sum()).backward()
        optimiser.step()
    moved = net(z).detach()
    # Of several outputs, the mean kernel stands for all: they differ by 1/sqrt(width), as the kernel's change does.
    assert (moved - flow.predict(rate * steps)).norm() < 0.1 * (moved - start).norm()


def test_linearised_training_between_inputs_refuses_what_does_not_fit() -> None:
    kernel = torch.eye(4)
    refused: dict[str, Any] = {
        r"expected a kernel of shape \[n, n\]": (torch.zeros(2, 2, 2, 2), torch.zeros(4)),
        r"expected targets of shape \[n\] or": (kernel, torch.zeros(4, 1, 1)),
        "expected a kernel of shape": (kernel, torch.zeros(5, 1)),
        "expected initial of the targets' shape": (kernel, torch.zeros(4, 2), None, torch.zeros(2, 4)),
    }
    for message, arguments in refused.items():
        with pytest.raises(ValueError, match=message):
            tc.LinearisedTraining.between_inputs(*arguments)
