"""Gradients of kernels between inputs, against differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance import duals
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


def test_activations_without_a_rule_say_so(generator: torch.Generator) -> None:
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    known = (duals.Rectifier, duals.Jump, duals.Erf, duals.Gelu, duals.Sine)
    without = [name for name, entry in ACTIVATIONS.items() if not isinstance(entry.dual, known)]
    assert "tanh" in without
    net = tc.Sequential(tc.Linear(4, 5), tc.Tanh(), tc.Linear(5, 1))
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
