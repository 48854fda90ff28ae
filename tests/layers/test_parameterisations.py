"""Scales of weights, and the two parameterisations: one function and one NNGP, and an NTK each."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force
from tests.helpers.monte_carlo import BATCH, empirical_ntks

STD: dict[str, Any] = {"bias": True, "bias_std": 0.4, "weight_std": 1.3}


def chain(*layers: tc.Layer) -> tc.Sequential:
    return tc.Sequential(*layers).double()


WEIGHTED: dict[str, Any] = {
    "Linear": lambda **options: tc.Linear(3, 4, **options),
    "Conv1d": lambda **options: tc.Conv1d(4, 6, 3, groups=2, **options),
    "StridedConv2d": lambda **options: tc.StridedConv2d(3, 4, 3, **options),
    "Conv3d": lambda **options: tc.Conv3d(3, 4, 2, **options),
    "ConvTranspose2d": lambda **options: tc.ConvTranspose2d(3, 4, 4, 2, padding_mode="zeros", **options),
}


@pytest.mark.parametrize("parameterisation", ["ntk", "standard"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_have_the_scale_that_the_layer_says(name: Any, parameterisation: Any) -> None:
    torch.manual_seed(1)
    layer: Any = WEIGHTED[name](**STD, parameterisation=parameterisation)
    draws = []
    for _ in range(300):
        layer.reset_parameters()
        weight, bias = layer.effective()
        draws.append((weight.detach().flatten().clone(), bias.detach().clone()))
    weights, biases = (torch.cat(parts) for parts in zip(*draws, strict=True))
    # 3,600 weights and 1,200 biases at the least: standard errors of 1.2 % and 2 %.
    assert float(weights.std()) == pytest.approx(1.3 / math.sqrt(layer.fan_in), rel=0.06)
    assert float(biases.std()) == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize("name", WEIGHTED)
def test_scale_is_told_and_kept(name: Any, generator: torch.Generator) -> None:
    layer: Any = WEIGHTED[name](**STD)
    assert "weight_std=1.3" in repr(layer)
    assert "weight_std" not in repr(WEIGHTED[name]())
    again: Any = tc.layers.from_description(json.loads(json.dumps(layer.description())))
    assert (repr(again), again.gains) == (repr(layer), layer.gains)
    again.load_state_dict(layer.state_dict())
    standard: Any = tc.reparameterise(layer, "standard")
    standard.reset_parameters(generator)
    standard.load_state_dict(layer.state_dict())
    for other in (again, standard):
        for ours, theirs in zip(layer.effective(), other.effective(), strict=True):
            torch.testing.assert_close(theirs, ours)
    z = torch.randn(2, layer.in_channels, *(4,) * layer.ndim, generator=generator)
    torch.testing.assert_close(standard(z), layer(z))
    torch.testing.assert_close(tc.to_torch(standard)(z), layer(z))


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_scale_out_of_range_is_refused(value: Any) -> None:
    for make in WEIGHTED.values():
        with pytest.raises(ValueError, match="expected weight_std"):
            make(weight_std=value)
    with pytest.raises(TypeError, match="expected weight_std to be a number"):
        tc.Linear(1, 1, weight_std="1")  # type: ignore[arg-type]


def test_scale_of_homogeneous_networks_comes_out(generator: torch.Generator) -> None:
    """With ReLU and no bias every factor of a layer's weights multiplies both kernels by its square."""
    z = tc.priors.Tensor(torch.randn(2, 6, generator=generator, dtype=torch.float64))
    plain = tc.Sequential(tc.Conv1d(2, 4, 3), tc.ReLU(), tc.Conv1d(4, 1, 2))
    scaled = tc.Sequential(tc.Conv1d(2, 4, 3, weight_std=1.7), tc.ReLU(), tc.Conv1d(4, 1, 2, weight_std=0.6))
    for kind in ("ntk", "nngp"):
        expected = (1.7 * 0.6) ** 2 * plain.kernel(z, kind=kind).dense()
        torch.testing.assert_close(scaled.kernel(z, kind=kind).dense(), expected, rtol=1e-12, atol=0)


W = 64
STANDARD: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (
        chain(
            tc.Conv1d(2, W, 3, parameterisation="standard", **STD),
            tc.ReLU(),
            tc.Conv1d(W, 2 * W, 3, parameterisation="standard", weight_std=0.8),
            tc.ReLU(),
            tc.Conv1d(2 * W, 1, 1, parameterisation="standard", **STD),
        ),
        (2, 5),
    ),
    "stride, groups, transposed": (
        chain(
            tc.StridedConv1d(2, 2 * W, 3, parameterisation="standard"),
            tc.ReLU(),
            tc.Conv1d(2 * W, 2 * W, 1, groups=2, parameterisation="standard", **STD),
            tc.ReLU(),
            tc.ConvTranspose1d(2 * W, 1, 4, 2, parameterisation="standard"),
        ),
        (2, 4),
    ),
    "mixed": (
        chain(
            tc.Conv1d(2, W, 3, **STD),
            tc.Residual(tc.Tanh(), tc.Conv1d(W, W, 3, parameterisation="standard"), tc.ReLU(), tc.Conv1d(W, W, 1)),
            tc.ReLU(),
            tc.Conv1d(W, 1, 1, parameterisation="standard", bias=True, bias_std=0.0),
        ),
        (2, 4),
    ),
}


@pytest.mark.parametrize("name", STANDARD)
def test_standard_networks_have_their_own_kernel_on_average(name: Any) -> None:
    net, shape = STANDARD[name]
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(*shape, generator=generator, dtype=torch.float64)
    exact = net.kernel(tc.priors.Tensor(z)).dense()
    expected = brute_force.propagate(net, brute_force.feature_prior(z))[1]
    assert (exact - expected).abs().max() <= 1e-9 * expected.abs().max()
    ntks = empirical_ntks(net, z, 8 * BATCH, generator)
    error = (ntks.mean(0) - exact.reshape(ntks.shape[1:])).norm()
    standard_error = (ntks.var(0).sum() / len(ntks)).sqrt()
    # Entries move together: five standard errors, and 1 / W for the finite width; the NTK parameterisation's kernel is
    # off by a factor of some W / 4.
    assert error < 5 * standard_error + exact.norm() / W
    assert standard_error < 0.06 * exact.norm()


def test_fully_connected_networks(generator: torch.Generator) -> None:
    """By hand: Theta_1 = 3 x.x'/3 + 1, and so on; and as autograd has it, for a linear network of any width exactly."""
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    first = tc.Linear(3, 40, parameterisation="standard", **STD)
    net = chain(first, tc.Linear(40, 1, parameterisation="standard", weight_std=0.7))
    sigma = 1.3**2 * x @ x.T / 3 + 0.4**2
    torch.testing.assert_close(net.gram(x), 0.49 * (x @ x.T + 1) + 40 * sigma, rtol=1e-12, atol=0)
    torch.testing.assert_close(chain(first).gram(x), x @ x.T + 1, rtol=1e-12, atol=0)
    one = chain(tc.Linear(3, 1, parameterisation="standard", **STD))
    torch.testing.assert_close(tc.empirical_ntk(one, x).reshape(5, 5), one.gram(x), rtol=1e-12, atol=1e-12)


def test_kernel_of_the_standard_parameterisation_depends_on_the_width() -> None:
    def kernel(width: int, kind: str) -> torch.Tensor:
        parts: Any = {"parameterisation": "standard"}
        net = tc.Sequential(tc.Conv1d(1, width, 3, **parts), tc.ReLU(), tc.Conv1d(width, 1, 3, **parts))
        return net.kernel(tc.priors.Uniform(), kind=kind).dense((6,))

    assert torch.equal(kernel(8, "nngp"), kernel(80, "nngp"))
    # Of its two terms, that of the last layer grows with the width.
    growth = kernel(80, "ntk") - kernel(8, "ntk")
    torch.testing.assert_close(growth, 72 * 3 * kernel(8, "nngp"), rtol=1e-12, atol=0)


def test_a_scale_of_the_bias_means_that_an_hourglass_has_some() -> None:
    assert "bias_std=0.4" in repr(tc.hourglass(1, 4, 2, bias_std=0.4))
    assert "bias" not in repr(tc.hourglass(1, 4, 2))
