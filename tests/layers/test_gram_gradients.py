"""Gradients of kernels between inputs, against differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance.duals.gradients import differentiable
from torch_cntk.layers.registry import ACTIVATIONS

SMOOTH = [tc.ReLU(), tc.LeakyReLU(0.3), tc.ABReLU(-0.4, 1.2), tc.Abs(), tc.Erf(), tc.GELU(), tc.Sin(), tc.Sign()]


def conv(channels: int = 3, width: int = 3, **options: Any) -> tc.Layer:
    return tc.Conv1d(channels, 3, width, **options)


BODIES = {
    "circular": [conv(2), tc.ReLU(), conv(bias=True), tc.LeakyReLU(0.2)],
    "zeros": [conv(2, padding_mode="zeros"), tc.Erf(), conv(padding_mode="zeros"), tc.GELU()],
    "pool": [conv(2), tc.ReLU(), tc.AvgPool1d(2), conv(), tc.Abs()],
    "stride": [tc.Conv1d(2, 3, 3, stride=2), tc.Sin(), tc.BilinearUp(2), conv(), tc.ReLU()],
    "residual": [
        conv(2),
        tc.Residual(tc.ReLU(), conv(), tc.Scale(0.7)),
        tc.ChannelNorm(3, eps=0.1, affine=True),
        conv(),
    ],
    "concat": [conv(2), tc.Concat(tc.ReLU(), tc.Erf(), in_channels=3), conv(6)],
}


@pytest.mark.parametrize(("body", "kind"), [*((body, "ntk") for body in BODIES), ("residual", "nngp")])
def test_gradients_are_those_of_differences(body: str, kind: Any, generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    for head in (tc.Flatten(), tc.GlobalAvgPool()):
        net = tc.Sequential(*BODIES[body], head)
        assert torch.autograd.gradcheck(lambda a, b, n=net: n.gram(a, b, kind=kind), (x, y))
        assert torch.autograd.gradcheck(lambda a, n=net: n.gram(a, kind=kind), (x,))
        with torch.no_grad():
            plain = net.gram(x, y, kind=kind)
        assert not plain.requires_grad
        torch.testing.assert_close(net.gram(x, y, kind=kind).detach(), plain, rtol=1e-11, atol=1e-13)


def test_gradients_between_pixels(generator: torch.Generator) -> None:
    x = torch.randn(1, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    net = tc.Sequential(conv(2), tc.ReLU(), conv(1 + 2))
    assert torch.autograd.gradcheck(lambda a: net.gram(a, output="pixels"), (x,))


@pytest.mark.parametrize("layer", SMOOTH, ids=repr)
def test_gradients_of_rows(layer: Any, generator: torch.Generator) -> None:
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(4, 5), layer, tc.Linear(5, 5), layer, tc.Linear(5, 1))
    assert torch.autograd.gradcheck(lambda a: net.gram(a, y), (x,))
    assert torch.autograd.gradcheck(lambda a: net.gram(a), (x,))
    torch.testing.assert_close(net.gram(x).detach(), net.gram(x.detach()), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("layer", SMOOTH, ids=repr)
def test_gradients_of_duals(layer: Any, generator: torch.Generator) -> None:
    v, w = (torch.rand(6, generator=generator, dtype=torch.float64) + 0.3 for _ in range(2))
    rho = 1.8 * torch.rand(6, generator=generator, dtype=torch.float64) - 0.9
    given = tuple(t.requires_grad_() for t in (rho * (v * w).sqrt(), v, w))
    assert torch.autograd.gradcheck(differentiable(layer._dual()), given)


def test_vanishing_features_have_finite_gradients() -> None:
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    net = tc.Sequential(tc.Linear(3, 4), tc.ReLU(), tc.Linear(4, 1))
    (gradient,) = torch.autograd.grad(net.gram(x).sum(), x)
    assert torch.isfinite(gradient).all()


def differences(dual: Any, given: tuple[torch.Tensor, ...], k: int) -> list[torch.Tensor]:
    """Derivatives of value and slope by one of sigma, v and v', to the fourth order."""
    step = 2e-3 * given[1].detach()

    def moved(by: float) -> tuple[torch.Tensor, ...]:
        found = [part.detach().clone() for part in given]
        found[k] += by * step
        values: tuple[torch.Tensor, ...] = dual(*found)
        return values

    sides = [[a - b for a, b in zip(moved(h), moved(-h), strict=True)] for h in (1.0, 2.0)]
    return [(8 * one - two) / (12 * step) for one, two in zip(*sides, strict=True)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_the_derivatives_of_its_dual_or_says_that_it_has_none(
    name: str, generator: torch.Generator
) -> None:
    dual = ACTIVATIONS[name].dual
    try:
        through = differentiable(dual)
    except ValueError as error:
        assert "expected features that need no gradient" in str(error)
        return
    v, w = (1.5 * torch.rand(12, generator=generator, dtype=torch.float64) + 0.2 for _ in range(2))
    rho = 1.6 * torch.rand(12, generator=generator, dtype=torch.float64) - 0.8
    given = tuple(part.requires_grad_() for part in (rho * (v * w).sqrt(), v, w))
    for which in range(2):
        found = torch.autograd.grad(through(*given)[which].sum(), given, allow_unused=True, materialize_grads=True)
        for k in range(3):
            expected = differences(dual, given, k)[which]
            # Tables have errors of 1e-9, of which the differences take some 1e-7; near the bounds of rho, where slopes
            # of functions with kinks turn, the differences' own error is as large.
            torch.testing.assert_close(found[k], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("layer", [tc.Tanh(), tc.ELU(0.5), tc.ReLU6()], ids=repr)
def test_gradients_of_equal_and_of_nearly_equal_inputs(layer: Any, generator: torch.Generator) -> None:
    """The kernel of an input with itself, by one of two layers' rules for the pair, and of one that is next to it."""
    net = tc.Sequential(tc.Linear(3, 4), layer, tc.Linear(4, 4), layer, tc.Linear(4, 1))
    x = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    direction = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    for shift in (0.0, 0.02):
        y = x + shift * x.flip(1)

        def along(by: float, y: torch.Tensor = y) -> torch.Tensor:
            return net.gram(x + by * direction, y + by * direction)[0, 0]

        by = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(along(by), by)  # type: ignore[arg-type]
        expected = (8 * (along(2e-3) - along(-2e-3)) - (along(4e-3) - along(-4e-3))) / (12 * 2e-3)
        assert float(found) == pytest.approx(float(expected), rel=1e-4, abs=1e-5)


def test_activations_without_a_rule_say_so(generator: torch.Generator) -> None:
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    net = tc.Sequential(tc.Linear(4, 5), tc.Elementwise(torch.tanh), tc.Linear(5, 1))
    with pytest.raises(ValueError, match=r"expected features that need no gradient \(features.detach\(\)\)"):
        net.gram(x)
    assert not net.gram(x.detach()).requires_grad


def test_a_loss_falls_along_its_gradient(generator: torch.Generator) -> None:
    """A preprocessing of images that is trained through the kernel."""
    images = torch.randn(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(6, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.GlobalAvgPool())
    filters = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        seen = torch.nn.functional.conv2d(images, filters, padding=1)
        kernel = net.gram(seen) + 0.1 * torch.eye(6, dtype=torch.float64)
        return targets @ torch.linalg.solve(kernel, targets) + torch.logdet(kernel)

    first = loss()
    (gradient,) = torch.autograd.grad(first, filters)
    with torch.no_grad():
        filters -= 1e-3 * gradient / gradient.norm()
    assert loss() < first
