"""Every activation in finite residual networks of 16 blocks, whose variances grow from block to block."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.layers.registry import ACTIVATIONS

# Seeds are fixed: these are tests of statistics, which fresh seeds would fail now and then.
BLOCKS = 16
# Tables of activations without a closed form take seconds at so many variances.
CLOSED = ("relu", "leaky_relu", "abs", "erf", "gelu", "sin", "abrelu", "sign", "step")


def slow_but(*fast: str) -> list[Any]:
    """The names of all activations; those that are not fast are tried only if one asks for slow tests."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in ACTIVATIONS]


def residual(name: str, width: int) -> tc.Sequential:
    # Exponentials of exponentials are no numbers: they are fed with features of variance 1.
    first = (tc.ChannelNorm(),) if name == "exp" else ()
    blocks = (tc.Residual(*first, ACTIVATIONS[name](), tc.Linear(width, width)) for _ in range(BLOCKS))
    return tc.Sequential(tc.Linear(4, width), *blocks, tc.Linear(width, 1)).double()


def redraw(net: tc.Sequential, generator: torch.Generator) -> None:
    for layer in net.modules():
        if isinstance(layer, tc.Linear):
            layer.reset_parameters(generator)


@pytest.mark.parametrize("name", slow_but(*CLOSED))
def test_features_have_the_nngp(name: Any) -> None:
    """The mean over the channels before the last layer, for inputs of the variances 0.01, 1 and 25."""
    width, draws = 256, 16
    generator = torch.Generator().manual_seed(8)
    directions = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    x = torch.cat([variance**0.5 * directions for variance in (0.01, 1.0, 25.0)])
    with torch.device("meta"):
        net = residual(name, width)
    net = net.to_empty(device="cpu")
    exact, found = net.gram(x, kind="nngp"), []
    for _ in range(draws):
        redraw(net, generator)
        with torch.no_grad():
            features = x
            for layer in net.layers[:-1]:
                features = layer(features)
        found.append(features @ features.T / width)
    for start in (0, 3, 6):
        rows = slice(start, start + 3)
        part, nngps = exact[rows, rows], torch.stack(found)[:, rows, rows]
        standard_error = (nngps.var(0).sum() / draws).sqrt()
        # Entries move together, and 16 draws know their own error to a fifth: five of them, and one over the width for
        # each block.
        assert (nngps.mean(0) - part).norm() <= 5 * standard_error + BLOCKS / width * part.norm()
        assert standard_error <= 0.2 * part.norm()


@pytest.mark.parametrize("name", slow_but("erf"))
def test_gradients_have_the_ntk(name: Any) -> None:
    width, draws = 64, 60
    generator = torch.Generator().manual_seed(9)
    x, net = torch.randn(3, 4, dtype=torch.float64, generator=generator), residual(name, width)
    exact = net.gram(x)
    found = []
    for _ in range(draws):
        redraw(net, generator)
        found.append(tc.empirical_ntk(net, x))
    ntks = torch.stack(found)
    error = (ntks.mean(0) - exact).norm()
    standard_error = (ntks.var(0).sum() / draws).sqrt()
    # A network of 16 blocks of 64 channels has another mean than the infinitely wide one, by some blocks / width. The
    # NTKs of such networks scatter by more than their mean where the activation grows without bound.
    assert error <= 4 * standard_error + BLOCKS / width * exact.norm()
    assert standard_error <= 0.25 * exact.norm()


def test_exponentials_of_exponentials_are_refused() -> None:
    blocks = (tc.Residual(tc.Exp(), tc.Linear(8, 8)) for _ in range(BLOCKS))
    net = tc.Sequential(tc.Linear(4, 8), *blocks, tc.Linear(8, 1)).double()
    with pytest.raises(ValueError, match="expected a finite kernel"):
        net.gram(torch.ones(2, 4, dtype=torch.float64))
