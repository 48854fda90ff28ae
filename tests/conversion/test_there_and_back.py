"""Networks that are written in torch.nn and read again, or the other way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torch_cntk as tc
from torch_cntk.conversion.rules import NO_COUNTERPART
from torch_cntk.layers.registry import ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_go_there_and_back(name: Any, generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Conv2d(2, 4, 3), ACTIVATIONS[name](), tc.Conv2d(4, 1, 1)).double()
    if type(net.layers[1]) in NO_COUNTERPART:
        with pytest.raises(ValueError, match=r"torch\.nn has no .*take"):
            tc.to_torch(net)
        return
    again = tc.from_torch(tc.to_torch(net))
    assert again.description() == net.description()
    x = torch.randn(1, 2, 4, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(again(x), net(x), rtol=1e-10, atol=1e-12)


def between(*layers: tc.Layer, ndim: int = 2) -> tc.Sequential:
    """Layers of four channels between convolutions."""
    conv = (tc.Conv1d, tc.Conv2d, tc.Conv3d)[ndim - 1]
    return tc.Sequential(conv(2, 4, 3), *layers, conv(4, 1, 1))


def conv(**options: Any) -> tc.Conv2d:
    return tc.Conv2d(4, 4, 3, bias=True, bias_std=0.3, **options)


JOINED: dict[str, Callable[[], tc.Layer]] = {
    "rows of pixels": lambda: between(tc.Concat(conv(), conv(), dim=2), tc.ReLU()),
    "columns": lambda: between(tc.ReLU(), tc.Concat(tc.Identity(), tc.Sequential(conv(), tc.NearestUp(1)), dim=3)),
    "both": lambda: between(tc.Concat(tc.Concat(conv(), conv(), dim=2), tc.Concat(conv(), conv(), dim=2), dim=3)),
    "signals": lambda: between(tc.ReLU(), tc.Concat(tc.Conv1d(4, 4, 3), tc.Identity(), dim=2), ndim=1),
    "volumes": lambda: between(tc.Concat(tc.Conv3d(4, 4, 1), tc.Conv3d(4, 4, 1), dim=4), tc.Tanh(), ndim=3),
    "a gate": lambda: between(tc.Product(tc.Logistic(), conv())),
    "three factors": lambda: between(
        tc.ReLU(), tc.Product(tc.Identity(), conv(), tc.Sequential(conv(), tc.NearestUp(1)))
    ),
    "a product in a sum": lambda: between(tc.Residual(tc.Product(tc.ReLU(), conv()), conv())),
    "rows beside each other": lambda: tc.Sequential(
        tc.Linear(2, 4), tc.Concat(tc.ReLU(), tc.Sequential(tc.Linear(4, 3), tc.Tanh())), tc.Linear(7, 1)
    ),
    "a gate of rows": lambda: tc.Sequential(tc.Linear(2, 4), tc.Product(tc.Erf(), tc.Linear(4, 4)), tc.Linear(4, 1)),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined_branches_go_there_and_back(name: Any, generator: torch.Generator) -> None:
    net = JOINED[name]().double()
    plain = tc.to_torch(net)
    again = tc.from_torch(plain, bias_std=0.3)
    x = torch.randn(2, 2, *(2, 3, 4)[: net.ndim], generator=generator, dtype=torch.float64)
    torch.testing.assert_close(plain(x), net(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(again(x), net(x), rtol=1e-10, atol=1e-12)
    for kind in ("ntk", "nngp"):
        kernels = [each.gram(x, output="pixels" if net.ndim else "inputs", kind=kind) for each in (net, again)]
        # The same layers in another order of nodes.
        torch.testing.assert_close(*kernels, rtol=1e-12, atol=1e-14)


class Beside(nn.Module):
    """Two layers of rows, and what they say along an axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.first, self.second, self.last = dim, nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(9, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beside = torch.cat([self.first(x).relu(), self.second(x).tanh()], self.dim)
        result: torch.Tensor = self.last(beside)
        return result


def test_the_last_axis_of_rows_is_that_of_their_features(generator: torch.Generator) -> None:
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    for dim in (1, -1):
        module = Beside(dim).double()
        torch.testing.assert_close(tc.from_torch(module)(x), module(x), rtol=1e-10, atol=1e-12)
    for dim in (0, 2, -2):
        with pytest.raises(ValueError, match=rf"cat, at .*, got dim={dim}"):
            tc.from_torch(Beside(dim))
    flat = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), Beside(-1)).double()
    images = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    flat[2].first, flat[2].second = (nn.Linear(2, n, dtype=torch.float64) for n in (4, 5))
    torch.testing.assert_close(tc.from_torch(flat)(images), flat(images), rtol=1e-10, atol=1e-12)


def test_fully_connected_models(generator: torch.Generator) -> None:
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 8), nn.SELU(), nn.Linear(8, 2))
    module = module.double().eval()
    net = tc.from_torch(module, bias_std=0.4)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)
    by_hand = tc.Sequential(
        tc.Linear(3, 8, bias=True, bias_std=0.4),
        tc.Tanh(),
        tc.Linear(8, 8, bias=True, bias_std=0.4),
        tc.SELU(),
        tc.Linear(8, 2, bias=True, bias_std=0.4),
    )
    torch.testing.assert_close(net.gram(x), by_hand.gram(x), rtol=1e-13, atol=0)
    plain = tc.to_torch(net)
    assert not any(m.training for m in plain.modules())
    torch.testing.assert_close(tc.from_torch(plain)(x), module(x), rtol=1e-10, atol=1e-12)
