"""Products of branches: against the product rule written out, finite networks, gradients, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force
from tests.helpers.monte_carlo import empirical_ntks


def gate(channels: int = 4) -> tc.Sequential:
    """A gated layer: activations of a trunk times a linear map of it, as GLU."""
    return tc.Sequential(
        tc.Conv2d(2, channels, 3),
        tc.Product(tc.Gaussian(), tc.Conv2d(channels, channels, 3)),
        tc.Conv2d(channels, channels, 1),
        tc.ReLU(),
        tc.Conv2d(channels, 1, 1),
    )


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_pixels_by_the_product_rule(kind: Any, generator: torch.Generator) -> None:
    image = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    net = gate()
    sigma = brute_force.feature_prior(image)
    expected = brute_force.propagate(net, sigma)[0 if kind == "nngp" else 1]
    found = net.kernel(tc.priors.Tensor(image), kind=kind).dense((3, 4))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    between = net.gram(image[None], output="pixels", kind=kind)[0, 0]
    torch.testing.assert_close(between, expected, atol=1e-12, rtol=1e-12)


def test_expanded_kernel() -> None:
    net = tc.Sequential(
        tc.StridedConv2d(2, 4, 3),
        tc.Product(tc.Sequential(tc.ReLU(), tc.NearestUp(1)), tc.Conv2d(4, 4, 3)),
        tc.Conv2d(4, 1, 3),
        tc.NearestUp(2),
    )
    kernel = net.kernel(tc.priors.Uniform(0, 0.1))
    assert kernel.period == (2, 2)
    expected = brute_force.propagate(net, brute_force.independent_prior((8, 8), 0.05, 1 / 300))[1]
    torch.testing.assert_close(kernel.dense((8, 8)), expected, atol=1e-13, rtol=1e-12)


def test_rows(generator: torch.Generator) -> None:
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    net = tc.Sequential(
        tc.Linear(3, 8),
        tc.Product(tc.Sequential(tc.ReLU(), tc.Linear(8, 8)), tc.Linear(8, 8), tc.Sequential(tc.Tanh())),
        tc.Linear(8, 1),
    )
    first = tc.Sequential(tc.Linear(3, 8))
    sigma = x @ x.T / 3
    relu, tanh = tc.Sequential(tc.Linear(3, 8), tc.ReLU()), tc.Sequential(tc.Linear(3, 8), tc.Tanh())
    s = [relu.gram(x, kind="nngp"), sigma, tanh.gram(x, kind="nngp")]
    t = [relu.gram(x) + s[0], first.gram(x) + sigma, tanh.gram(x)]
    product = s[0] * s[1] * s[2]
    trained = t[0] * s[1] * s[2] + s[0] * t[1] * s[2] + s[0] * s[1] * t[2]
    torch.testing.assert_close(net.gram(x, kind="nngp"), product, atol=1e-12, rtol=0)
    torch.testing.assert_close(net.gram(x), trained + product, atol=1e-12, rtol=0)
    torch.testing.assert_close(net.gram(x[:2], x[2:]), (trained + product)[:2, 2:], atol=1e-12, rtol=0)


def test_finite_networks_have_the_kernel_on_average(generator: torch.Generator) -> None:
    z = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    exact = gate().kernel(tc.priors.Tensor(z)).dense((3, 3)).reshape(9, 9)
    samples = empirical_ntks(gate(64).double(), z, 32, generator).reshape(32, 9, 9)
    error = samples.std(0) / 32**0.5
    # Five standard errors, and 1/width of the products' fourth moments.
    assert ((samples.mean(0) - exact).abs() <= 5 * error + 6 / 64 * exact.abs().max()).all()


def test_gradients(generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    net = tc.Sequential(*gate(), tc.Flatten())
    assert torch.autograd.gradcheck(lambda x: net.gram(x), (x,))


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ((tc.ReLU(), tc.Tanh()), "independent; got branches 0 and 1"),
        ((tc.Identity(), tc.Identity()), "independent"),
        ((tc.ReLU(), tc.Conv2d(4, 4, 3, groups=4)), "independent"),
        ((tc.Conv2d(4, 4, 1), tc.Sequential(tc.Conv2d(4, 4, 1), tc.ReLU()), tc.ReLU()), "branches 1 and 2"),
    ],
)
def test_dependent_branches_are_refused(branches: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tc.Sequential(tc.Conv2d(2, 4, 3), tc.Product(*branches), tc.Conv2d(4, 1, 1))


def test_few_channels_and_activations_behind_are_refused() -> None:
    image = tc.priors.Tensor(torch.ones(2, 3, 3))
    with pytest.raises(ValueError, match="as many as the network's input"):
        tc.Product(tc.Identity(), tc.Conv2d(2, 2, 3)).kernel(image)
    with pytest.raises(ValueError, match="a product of branches, which is not Gaussian"):
        tc.Sequential(tc.Product(tc.Conv2d(2, 2, 1), tc.Conv2d(2, 2, 3)), tc.ReLU()).kernel(image)
    with pytest.raises(ValueError, match="one size"):
        tc.Product(tc.Conv2d(2, 2, 1), tc.StridedConv2d(2, 2, 3)).kernel(tc.priors.White(1.0))


def test_torch_multiplies_as_well(generator: torch.Generator) -> None:
    net = gate()
    net = tc.Sequential(
        tc.Conv2d(2, 4, 3), tc.Product(tc.ReLU(), tc.Conv2d(4, 4, 3)), tc.Scale(0.5), tc.Conv2d(4, 1, 1)
    )
    x = torch.randn(2, 2, 5, 6, generator=generator)
    torch.testing.assert_close(tc.to_torch(net)(x), net(x))
