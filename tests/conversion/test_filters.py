"""Models with every kind of filter, into our layers and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_cntk as tc
from tests.helpers import brute_force
from tests.helpers.monte_carlo import BATCH, empirical_ntks

MODELS: dict[str, Any] = {
    "valid, even": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 2, stride=2), nn.LeakyReLU(0.1), nn.Conv2d(8, 3, 1)
    ),
    "discriminator": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 1, 2)
    ),
    "generator": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.Tanh(),
        nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, 1, 1),
    ),
    "dilated": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(8, 3, 3, padding="same", dilation=2)
    ),
    "groups behind activations": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.SiLU(),
        nn.ConvTranspose2d(8, 12, 2, 2, groups=4), nn.ReLU(), nn.Conv2d(12, 2, 1),
    ),
    "separable": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.Conv2d(16, 8, 1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False), nn.Conv2d(8, 2, 1),
    ),
    "pools": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(8, 8, 1), nn.ReLU(),
        nn.AvgPool2d(2, 2, ceil_mode=True), nn.AvgPool2d(2, 1, divisor_override=1), nn.Conv2d(8, 2, 1),
    ),
    "padded twice": lambda: nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)
    ),
    "circular": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 4, padding=2, padding_mode="circular"), nn.ReLU(), nn.CircularPad2d(2), nn.Conv2d(8, 1, 3)
    ),
    "videos": lambda: nn.Sequential(nn.Conv3d(2, 4, 2, stride=(1, 2, 2)), nn.ReLU(), nn.ConvTranspose3d(4, 1, 2, 2)),
    "signals": lambda: nn.Sequential(
        nn.Conv1d(2, 4, 4, stride=3), nn.ReLU(), nn.AvgPool1d(3, 1, 1), nn.ConvTranspose1d(4, 1, 5, 3, 2, dilation=2)
    ),
    "a scaled tanh at the end": lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 2), _Scaled()),
}  # fmt: skip
SIZES = {"videos": (4, 5, 6), "signals": (13,)}


class _Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * torch.tanh(x)


def images(name: str, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 2, *SIZES.get(name, (9, 12)), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_output_is_the_models_there_and_back(name: Any, generator: torch.Generator) -> None:
    model, x = MODELS[name]().double(), images(name, generator)
    net = tc.from_torch(model)
    torch.testing.assert_close(net(x), model(x), rtol=1e-9, atol=1e-11)
    plain = tc.to_torch(net)
    assert not any(type(part).__module__.startswith("torch_cntk") for part in plain.modules())
    torch.testing.assert_close(plain(x), model(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_kernel_is_the_textbooks(name: Any, generator: torch.Generator) -> None:
    net: Any = tc.from_torch(MODELS[name]().double(), bias_std=0.3)
    # Of functions without a closed form the recursion has quadrature for each pair of pixels: small images.
    sizes = {"videos": (3, 4, 4), "signals": (9,), "discriminator": (8, 8), "generator": (1, 2)}
    small = sizes.get(name, (4, 5) if "groups" in name or "tanh" in name else (5, 6))
    z = torch.randn(2, *small, generator=generator, dtype=torch.float64)
    expected = brute_force.propagate(net, brute_force.feature_prior(z))[1]
    found = net.kernel(tc.priors.Tensor(z)).dense()
    # By quadrature the recursion has some eight digits.
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("name", ["generator", "separable", "signals"])
def test_wide_models_have_the_kernel_on_average(name: Any) -> None:
    """Wider networks of the same layers, drawn anew; with fixed seeds, as these are statistics."""
    generator = torch.Generator().manual_seed(11)
    net: Any = tc.conversion.with_width(tc.from_torch(MODELS[name]().double(), bias_std=0.5), 64)
    size = {"signals": (8,), "generator": (1, 1)}.get(name, (2, 3))
    z = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    exact = net.kernel(tc.priors.Tensor(z)).dense()
    ntks = empirical_ntks(net, z, 8 * BATCH, generator)
    error = (ntks.mean(0) - exact.reshape(ntks.shape[1:])).norm()
    standard_error = (ntks.var(0).sum() / len(ntks)).sqrt()
    # Entries move together: five standard errors, and one over the width.
    assert error < 5 * standard_error + exact.norm() / 64
    assert standard_error < 0.08 * exact.norm()


def test_functions_of_parameters_of_the_models_own(generator: torch.Generator) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(torch.randn(4, 2, 4, 4)), nn.Parameter(torch.randn(4, 3, 2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = functional.relu(functional.conv2d(x, self.first, None, 2, 1, groups=1))
            return functional.conv_transpose2d(hidden, self.second, None, 2, groups=2)

    model, x = Model().double(), images("", generator)
    torch.testing.assert_close(tc.from_torch(model)(x), model(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("way", ["torch", "ours"])
def test_too_deep_a_nest_is_a_sentence(way: Any) -> None:
    with pytest.raises(ValueError, match="less deeply nested"):
        if way == "torch":
            model: nn.Module = nn.Conv2d(1, 1, 1)
            for _ in range(600):
                model = nn.Sequential(model)
            tc.from_torch(model)
        net: tc.Layer = tc.Conv2d(1, 1, 1)
        for _ in range(600):
            net = tc.Sequential(net)


def test_width_of_groups(generator: torch.Generator) -> None:
    net = tc.from_torch(MODELS["groups behind activations"]())
    for width in (5, 64):
        wide: Any = tc.conversion.with_width(net, width)
        assert [layer.groups for layer in wide.layers if hasattr(layer, "groups")] == [1, 2, 4, 1]
        assert wide(torch.randn(1, 2, 4, 4, generator=generator)).shape == (1, 2, 8, 8)
    deep: Any = tc.conversion.with_width(tc.from_torch(MODELS["separable"]()), 32)
    shapes = [(conv.in_channels, conv.out_channels, conv.groups) for conv in deep.layers if hasattr(conv, "groups")]
    assert shapes == [(2, 16, 1), (16, 32, 16), (32, 16, 1), (16, 16, 16), (16, 2, 1)]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (tc.Conv2d(1, 1, 2, 2), "pads both sides by as much"),
        (tc.ConvTranspose2d(1, 1, 2, 2), "no circular"),
        (tc.ConvTranspose2d(1, 1, 2, padding_mode="zeros"), "output_padding is less than the stride"),
        (tc.SumPool1d(2), "no divisor_override"),
    ],
)
def test_what_torch_has_not_is_refused(layer: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        tc.to_torch(layer)
