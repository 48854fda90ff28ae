"""Classifiers of torch.nn, with their heads, become networks that have a kernel between images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_cntk as tc
from tests.helpers import between_inputs


class PreActivation(nn.Module):
    """A small residual network as it is written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(6, 6, 1, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.shortcut(x) + self.second(functional.relu(self.first(functional.relu(x))))
        result: torch.Tensor = self.head(functional.relu(x).mean(dim=(2, 3)))
        return result


def vgg() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool2d(2, divisor_override=1), nn.Flatten(), nn.Linear(4 * 2, 6), nn.ReLU(), nn.Linear(6, 5)),
    )


def pooled() -> nn.Module:
    conv = (nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), nn.LeakyReLU(0.1))
    return nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Flatten(1), nn.Linear(6, 5))


def by_view(x: torch.Tensor) -> torch.Tensor:
    return x.view(x.size(0), -1)


def by_reshape(x: torch.Tensor) -> torch.Tensor:
    images, _, _, _ = x.shape
    return torch.reshape(x, (images, -1))


def twice(x: torch.Tensor) -> torch.Tensor:
    return by_view(x.flatten(1).reshape(shape=(x.shape[0], -1)))


class Flattened(nn.Module):
    """A classifier that flattens in its forward pass."""

    def __init__(self, flatten: Callable[[torch.Tensor], torch.Tensor] = by_view) -> None:
        super().__init__()
        self.conv, self.head, self.flatten = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 32, 5), flatten

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.flatten(functional.relu(self.conv(x))))
        return result


@pytest.mark.parametrize("flatten", [by_view, by_reshape, twice])
def test_flattening_by_shape_is_flattening(flatten: Any, generator: torch.Generator) -> None:
    model = Flattened(flatten).double()
    x = torch.randn(3, 3, 4, 8, generator=generator, dtype=torch.float64)
    net, same = tc.from_torch(model), tc.from_torch(Flattened(lambda x: x.flatten(1)))
    assert torch.allclose(net(x), model(x), rtol=1e-10, atol=1e-12)
    assert torch.equal(net.gram(x), same.gram(x))


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: x.view(-1, 128),
        lambda x: x.view(-1, 4 * x.size(2) * x.size(3)),
        lambda x: x.reshape(x.size(0), 128),
        lambda x: x.view(x.size(0), 2, -1),
        lambda x: x.reshape(x.size(2), -1),
        lambda x: x.view(x.size(0) * 2, -1),
        lambda x: x.flatten(1) * x.size(0),
        lambda x: x.view(torch.float32),
    ],
)
def test_other_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="knows no rule for"):
        tc.from_torch(Flattened(shape))


@pytest.mark.parametrize("make", [vgg, pooled, PreActivation, Flattened])
def test_classifiers_convert_with_their_weights_and_kernels(make: Any, generator: torch.Generator) -> None:
    torch.manual_seed(int(torch.randint(1 << 30, (), generator=generator)))
    model = make().double()
    net = tc.from_torch(model)
    x = torch.randn(3, 3, 4, 8, generator=generator, dtype=torch.float64)
    assert torch.allclose(net(x), model(x), rtol=1e-10, atol=1e-12)
    again = tc.to_torch(net)
    assert torch.allclose(again(x), model(x), rtol=1e-10, atol=1e-12)
    if not isinstance(net, tc.Graph):
        expected = between_inputs.propagate(net, x)[1]
        assert (net.gram(x) - expected).abs().max() <= 1e-11 * expected.abs().max()
    wide = tc.with_width(net, 12)
    assert wide(x).shape == (3, 5)
    assert torch.allclose(wide.gram(x), net.gram(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (nn.Flatten(0), "start_dim=1"),
        (nn.AdaptiveAvgPool2d(2), "expected pooling to one pixel, got 2"),
        (nn.AdaptiveMaxPool2d(1), "of heads, torch.nn.Flatten"),
    ],
)
def test_other_heads_are_refused(head: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tc.from_torch(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), head))


def test_a_mean_over_some_axes_is_refused() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.conv(x).mean(2)
            return result

    with pytest.raises(ValueError, match="expected the mean over all axes of pixels"):
        tc.from_torch(Rows())
