"""Finite networks, drawn many times: their NTK approaches the kernel of the very same layers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force, expectations
from tests.helpers.monte_carlo import BATCH, empirical_ntks

# Seeds are fixed: these are tests of statistics, which fresh seeds would fail now and then.


def as_matrix(kernel: torch.Tensor) -> torch.Tensor:
    return kernel.reshape(math.isqrt(kernel.numel()), -1)


def exact_ntk(net: tc.layers.Network, z: torch.Tensor) -> torch.Tensor:
    return as_matrix(net.kernel(tc.priors.Tensor(z)).dense())


def border(factor: int = 2) -> tc.BilinearUp:
    return tc.BilinearUp(factor, padding_mode="border")


def corners(factor: int = 2) -> tc.BilinearUp:
    return tc.BilinearUp(factor, align_corners=True)


def chain(*layers: tc.Layer) -> tc.Sequential:
    return tc.Sequential(*layers).double()


W = 64
CASES = {
    "1d, stride, nearest": (
        chain(tc.StridedConv1d(2, W, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv1d(W, W, 3), tc.ReLU(), tc.Conv1d(W, 1, 3)),
        (2, 6),
    ),
    "1d, bilinear": (
        chain(
            tc.Conv1d(2, W, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv1d(W, W, 3), tc.LeakyReLU(0.2), tc.Conv1d(W, 1, 1)
        ),
        (2, 4),
    ),
    "1d, bilinear 3, bias": (
        chain(tc.Conv1d(1, W, 3, bias=True, bias_std=0.5), tc.ReLU(), tc.BilinearUp(3), tc.Conv1d(W, 1, 3, bias=True)),
        (1, 3),
    ),
    "1d, border": (
        chain(tc.StridedConv1d(2, W, 5), tc.ReLU(), border(), tc.Conv1d(W, W, 3), tc.ReLU(), tc.Conv1d(W, 1, 3)),
        (2, 6),
    ),
    "1d, corners": (
        chain(tc.Conv1d(2, W, 3), tc.ReLU(), corners(3), tc.Conv1d(W, W, 3, bias=True), tc.ReLU(), tc.Conv1d(W, 1, 3)),
        (2, 3),
    ),
    "2d, stride, nearest": (
        chain(tc.StridedConv2d(3, W, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv2d(W, 1, 3)),
        (3, 4, 4),
    ),
    "2d, bilinear": (chain(tc.Conv2d(2, W, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(W, 1, 3)), (2, 2, 3)),
    "2d, border": (chain(tc.Conv2d(2, W, (1, 3)), tc.ReLU(), border(), tc.Conv2d(W, 1, 3)), (2, 3, 2)),
    "2d, corners": (chain(tc.Conv2d(2, W, 3, bias=True), tc.ReLU(), corners(), tc.Conv2d(W, 1, 3)), (2, 3, 2)),
    "2d, average": (chain(tc.Conv2d(2, W, 3), tc.ReLU(), tc.AvgPool2d(2), tc.Conv2d(W, 1, 3)), (2, 4, 4)),
    "1d, blur, Lanczos": (
        chain(tc.Conv1d(2, W, 3), tc.ReLU(), tc.GaussianBlur(3, 1.0), tc.LanczosDown(2), tc.Conv1d(W, 1, 3)),
        (2, 8),
    ),
    "1d, residual": (
        chain(tc.Conv1d(2, W, 3), tc.Residual(tc.ReLU(), tc.Conv1d(W, W, 3)), tc.ReLU(), tc.Conv1d(W, 1, 3)),
        (2, 6),
    ),
    "1d, residual around a level": (
        chain(
            tc.Conv1d(2, W, 3),
            tc.Residual(tc.StridedConv1d(W, W, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv1d(W, W, 3)),
            tc.ReLU(),
            tc.Conv1d(W, 1, 3),
        ),
        (2, 6),
    ),
    "1d, sum of two": (
        chain(
            tc.Conv1d(2, W, 3),
            tc.ReLU(),
            tc.Sum(tc.Conv1d(W, W, 5), chain(tc.AvgPool1d(2), tc.Conv1d(W, W, 1, bias=True), tc.NearestUp(2))),
            tc.ReLU(),
            tc.Conv1d(W, 1, 1),
        ),
        (2, 4),
    ),
    "1d, graph": (
        tc.Graph(
            tc.Node(tc.Conv1d(2, W, 3), (0,)),
            tc.Node(tc.ReLU(), (1,)),
            tc.Node(tc.Conv1d(W, W, 3), (2,)),
            tc.Node("sum", (1, 3)),
            tc.Node(tc.Erf(), (4,)),
            tc.Node("concat", (5, 2)),
            tc.Node(tc.Conv1d(2 * W, 1, 3), (6,)),
        ).double(),
        (2, 5),
    ),
    "1d, concatenation": (
        chain(
            tc.Conv1d(2, W, 3),
            tc.ReLU(),
            tc.Concat(chain(tc.Conv1d(W, 3 * W, 1), tc.ReLU()), tc.Identity()),
            tc.Conv1d(4 * W, W, 3),
            tc.ReLU(),
            tc.Conv1d(W, 1, 3),
        ),
        (2, 5),
    ),
    "1d, channel norm": (
        chain(tc.Conv1d(2, W, 3), tc.ChannelNorm(), tc.ReLU(), tc.Conv1d(W, W, 3), tc.ReLU(), tc.Conv1d(W, 1, 1)),
        (2, 5),
    ),
    "1d, affine channel norm": (
        chain(tc.Conv1d(2, W, 3), tc.ChannelNorm(W, affine=True), tc.Conv1d(W, W, 1), tc.ReLU(), tc.Conv1d(W, 1, 3)),
        (2, 4),
    ),
    "1d, zeros": (
        chain(
            tc.Conv1d(2, W, 3, padding_mode="zeros", bias=True, bias_std=0.5),
            tc.ReLU(),
            tc.NearestUp(2),
            tc.Conv1d(W, W, 5, padding_mode="zeros"),
            tc.LeakyReLU(0.1),
            tc.Conv1d(W, 1, 3, padding_mode="zeros"),
        ),
        (2, 4),
    ),
    "2d, zeros": (
        chain(tc.StridedConv2d(2, W, 3, padding_mode="zeros"), tc.ReLU(), tc.Conv2d(W, 1, 3, padding_mode="zeros")),
        (2, 6, 4),
    ),
    "1d, erf": (chain(tc.Conv1d(2, W, 3), tc.Erf(), tc.Conv1d(W, W, 3), tc.Erf(), tc.Conv1d(W, 1, 3)), (2, 5)),
    "1d, GELU": (chain(tc.Conv1d(2, W, 3), tc.GELU(), tc.Conv1d(W, W, 3), tc.GELU(), tc.Conv1d(W, 1, 3)), (2, 5)),
    "1d, sine": (chain(tc.Conv1d(2, W, 3), tc.Sin(normalise=False), tc.NearestUp(2), tc.Conv1d(W, 1, 3)), (2, 5)),
    "1d, absolute value": (
        chain(tc.Conv1d(2, W, 3), tc.Abs(), tc.Conv1d(W, W, 1), tc.Abs(), tc.Conv1d(W, 1, 3)),
        (2, 5),
    ),
    "1d, SiLU": (
        chain(tc.Conv1d(2, W, 3), tc.Elementwise(torch.nn.functional.silu), tc.NearestUp(2), tc.Conv1d(W, 1, 3)),
        (2, 5),
    ),
    "2d, hourglass": (tc.hourglass(1, W, W, channels=1, in_channels=2).double(), (2, 4, 2)),
    "3d, stride, bilinear": (
        chain(tc.StridedConv3d(2, W, 3, (2, 1, 2)), tc.ReLU(), tc.BilinearUp(2), tc.Conv3d(W, 1, 1)),
        (2, 2, 2, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_finite_networks_have_the_kernel_on_average(name: Any) -> None:
    net, shape = CASES[name]
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(*shape, generator=generator, dtype=torch.float64)
    exact = exact_ntk(net, z)
    bound, most = 0.03, 400
    ntks = empirical_ntks(net, z, 4 * BATCH, generator)
    while (error := (ntks.mean(0) - exact).norm()) > bound * exact.norm():
        assert len(ntks) < most, f"off by {float(error / exact.norm()):.3f} after {len(ntks)} seeds"
        ntks = torch.cat([ntks, empirical_ntks(net, z, 2 * BATCH, generator)])
    # Entries move together, so that all of them may be off by the same number of standard errors: allow five.
    standard_error = (ntks.var(0).sum() / len(ntks)).sqrt()
    assert error < 5 * standard_error
    # And the standard error itself must be small for the bound to say something.
    assert standard_error < 2 * bound * exact.norm()


@pytest.mark.parametrize("up", [tc.NearestUp(2), tc.BilinearUp(2)], ids=repr)
def test_deviation_falls_with_the_root_of_the_width(up: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    widths, seeds = (16, 64, 256), (400, 200, 80)
    deviations = []
    for width, count in zip(widths, seeds, strict=True):
        layers = [tc.StridedConv1d(2, width, 3), tc.ReLU(), up, tc.Conv1d(width, width, 3), tc.ReLU()]
        net = chain(*layers, tc.Conv1d(width, 1, 3))
        exact = exact_ntk(net, z)
        errors = (empirical_ntks(net, z, count, generator) - exact).norm(dim=(1, 2)) / exact.norm()
        deviations.append(float(errors.square().mean()))
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (widths, deviations))
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    assert slope == pytest.approx(-1, abs=0.35)


def published_ntk(z: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """Conv 3, ReLU, up, conv 3, with k0 and Theta resampled separately and multiplied afterwards: not the NTK."""
    ndim = z.ndim - 1
    sigma = brute_force.average_patches(brute_force.feature_prior(z), (3,) * ndim)
    theta = sigma
    sigma, slope = expectations.rectify(sigma, torch.ones_like(sigma), 0.0)
    sigma, theta, slope = (brute_force.apply_both_sides(kernel, matrices) for kernel in (sigma, theta, slope))
    return as_matrix(brute_force.average_patches(sigma + theta * slope, (3,) * ndim))


@pytest.mark.parametrize("up", [tc.BilinearUp(2), border(), corners()], ids=repr)
@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3)], ids=["1d", "2d"])
def test_sampling_tells_the_bilinear_rule_from_the_published_one(up: Any, shape: Any) -> None:
    conv = tc.Conv1d if len(shape) == 2 else tc.Conv2d
    # The mean over seeds of a network with one hidden layer is the kernel at any width: there is no bias to allow for.
    net = chain(conv(shape[0], 128, 3), tc.ReLU(), up, conv(128, 1, 3))
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(*shape, generator=generator, dtype=torch.float64)
    options = (up.scale_factor, up.align_corners, up.padding_mode)
    matrices = [brute_force.linear_matrix(n, *options) for n in shape[1:]]
    exact, published = exact_ntk(net, z), published_ntk(z, matrices)
    apart = published - exact
    assert apart.norm() > 1e-3 * exact.norm()
    # Where on the line from the exact kernel (0) to the published one (1) each draw lies.
    places = ((empirical_ntks(net, z, 40 * BATCH, generator) - exact) * apart).sum((1, 2)) / apart.square().sum()
    standard_error = float(places.std() / math.sqrt(len(places)))
    assert abs(float(places.mean())) < 4 * standard_error
    assert abs(float(places.mean()) - 1) > 6 * standard_error


def test_published_rule_is_right_for_nearest_upsampling() -> None:
    # Copying commutes with the product, so the mistake needs interpolation: the code above makes no other one.
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    net = chain(tc.Conv1d(2, 8, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv1d(8, 1, 3))
    published = published_ntk(z, [brute_force.nearest_matrix(4, 2)])
    torch.testing.assert_close(published, exact_ntk(net, z), rtol=1e-12, atol=1e-12)


def refused(build: Any, monkeypatch: pytest.MonkeyPatch) -> tc.Sequential:
    """A network that would be refused, for its rule is not exact."""
    with pytest.raises(ValueError, match=r"exact|uncorrelated"):
        build()
    for verb in ("activate", "normalise"):
        monkeypatch.setattr(tc.covariance.signal.Signal, verb, lambda signal, *arguments: signal)
    monkeypatch.setattr(tc.covariance.signal, "_correlated", lambda first, second: False)
    return build()


REFUSED = {
    "activation of trained scales": lambda: chain(
        tc.Conv1d(2, 256, 3), tc.ChannelNorm(256, affine=True), tc.ReLU(), tc.Conv1d(256, 1, 3)
    ),
    "activation of a concatenation": lambda: chain(
        tc.Concat(tc.Conv1d(2, 256, 3), chain(tc.Conv1d(2, 256, 1), tc.Identity())), tc.ReLU(), tc.Conv1d(512, 1, 3)
    ),
    "correlated branches": lambda: chain(
        tc.Conv1d(2, 256, 3), tc.Sum(tc.GaussianBlur(3, 1.0), tc.Identity()), tc.ReLU(), tc.Conv1d(256, 1, 3)
    ),
    "activation of an activation": lambda: chain(tc.Conv1d(2, 256, 3), tc.ReLU(), tc.Erf(), tc.Conv1d(256, 1, 3)),
    "activation of pooled activations": lambda: chain(
        tc.Conv1d(2, 256, 3), tc.ReLU(), tc.GaussianBlur(5, 2.0), tc.Erf(), tc.Conv1d(256, 1, 3)
    ),
    "norm of an activation": lambda: chain(tc.Conv1d(2, 256, 3), tc.ReLU(), tc.ChannelNorm(), tc.Conv1d(256, 1, 3)),
    "activation of a sum with an activation": lambda: chain(
        tc.Conv1d(2, 256, 3), tc.ReLU(), tc.Residual(tc.Conv1d(256, 256, 3)), tc.ReLU(), tc.Conv1d(256, 1, 3)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_would_not_be_exact(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = refused(REFUSED[name], monkeypatch)
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    ntks = empirical_ntks(net, z, 12 * BATCH, generator)
    wrong = exact_ntk(net, z)
    standard_error = (ntks.var(0).sum() / len(ntks)).sqrt()
    assert (ntks.mean(0) - wrong).norm() > 5 * standard_error
