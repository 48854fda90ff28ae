"""Networks of every shape, what the textbook recursion says of them, and sizes that they fit."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch

import torch_cntk as tc
from tests.helpers import brute_force, conditioning

CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}
# float64 on both sides; the angle between nearly equal features has some digits less than its cosine.
EXACT = 1e-12
# Pixels of the largest image on the way: the recursion holds the square of it.
MOST_PIXELS = {1: 60, 2: 18**2, 3: 144}


def covariance_of(prior: Any, source: tuple[int, ...]) -> torch.Tensor | None:
    """A prior's covariance from its definition, [*source, *source]; None for priors that are not among these."""
    match prior:
        case tc.priors.Tensor():
            return brute_force.feature_prior(prior.features) * prior.weight
        case tc.priors.Uniform():
            second_moment = (prior.high - prior.low) ** 2 / 12 + (prior.low + prior.high) ** 2 / 4
            return brute_force.independent_prior(source, (prior.low + prior.high) / 2, second_moment)
        case tc.priors.Normal():
            return brute_force.independent_prior(source, prior.mean, prior.mean**2 + prior.std**2)
    return None


class Expected:
    """What the recursion says of a network, and how far off a kernel may be.

    Chance brings features of random networks as close as it likes, and their angle loses digits: what rounding does to
    a kernel is found out (see ``conditioning``) where it is more than usual.

    Args:
        net: the network.
        sigma: the prior's covariance.
        kind: "nngp" or "ntk".
        usual: error that needs no reason, relative to the largest entry.
        taper: what the kernel is multiplied by.
    """

    def __init__(
        self, net: tc.Sequential, sigma: torch.Tensor, kind: str, *, usual: float = EXACT, taper: Any = 1.0
    ) -> None:
        self._net, self._sigma, self._kind, self._usual, self._taper = net, sigma, kind, usual, taper
        nngp, ntk = brute_force.propagate(net, sigma)
        self._exact = {"nngp": nngp, "ntk": ntk}[kind]

    def judge(self, kernel: torch.Tensor) -> tuple[float, float]:
        """The largest error of a kernel of this shape, relative to the largest entry, and what is allowed."""
        expected = (self._exact.reshape(kernel.shape) * self._taper).to(kernel.dtype)
        error, largest = (float(part.abs().max()) for part in (kernel - expected, expected))
        error = error / largest if largest > 0 else error
        if error <= self._usual:
            return error, self._usual
        return error, max(self._usual, conditioning.bound(self._net, self._sigma, self._kind, self._exact))

    def check(self, kernel: torch.Tensor) -> None:
        """Compare a kernel of this shape."""
        error, allowed = self.judge(kernel)
        assert error <= allowed


def expected_of(net: tc.Sequential, prior: Any, source: tuple[int, ...], kind: str) -> Expected:
    sigma = covariance_of(prior, source)
    assert sigma is not None
    return Expected(net, sigma, kind)


def expected_kernel(net: tc.Sequential, prior: Any, source: tuple[int, ...], kind: str) -> torch.Tensor:
    sigma = covariance_of(prior, source)
    assert sigma is not None
    nngp, ntk = brute_force.propagate(net, sigma)
    return {"nngp": nngp, "ntk": ntk}[kind]


def assert_equal(kernel: torch.Tensor, expected: torch.Tensor, tolerance: float = EXACT) -> None:
    assert kernel.shape == expected.shape
    assert (kernel - expected).abs().max() <= tolerance * expected.abs().max()


def scales(net: tc.Sequential, ndim: int) -> list[tuple[Fraction, ...]]:
    scale: tuple[Fraction, ...] = (Fraction(1),) * ndim
    path: list[tuple[Fraction, ...]] = []
    layer: Any
    for layer in net.layers:
        if isinstance(layer, tc.NearestUp | tc.BilinearUp):
            scale = tuple(s * layer.scale_factor for s in scale)
        elif hasattr(layer, "stride"):
            scale = tuple(s / r for s, r in zip(scale, layer.stride, strict=True))
        path.append(scale)
    return path


def granule(net: tc.Sequential, ndim: int) -> tuple[int, ...]:
    return tuple(math.lcm(*(scale[axis].denominator for scale in scales(net, ndim))) for axis in range(ndim))


def most_pixels(net: tc.Sequential, source: tuple[int, ...]) -> int:
    sizes = ([n * s for n, s in zip(source, scale, strict=True)] for scale in scales(net, len(source)))
    return max(math.prod(source), *(int(math.prod(size)) for size in sizes))


def invariant(net: tc.Sequential) -> bool:
    ups = [layer for layer in net.layers if isinstance(layer, tc.BilinearUp)]
    return not any(layer.align_corners or layer.padding_mode == "border" for layer in ups)


def autoencoder(levels: int, ups: list[tc.Layer], last: tuple[tc.Layer, ...] = ()) -> tc.Sequential:
    layers: list[tc.Layer] = []
    for _ in range(levels):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    for up in ups:
        layers += [up, tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    return tc.Sequential(*layers, *last, tc.Conv2d(1, 1, 3))


NETS = {
    "nearest": autoencoder(2, [tc.NearestUp(2), tc.NearestUp(2)]),
    "nearest 3": autoencoder(1, [tc.NearestUp(3)]),
    "bilinear": autoencoder(2, [tc.BilinearUp(2), tc.BilinearUp(2)]),
    "bilinear 3": autoencoder(0, [tc.BilinearUp(3)]),
    "nearest, bilinear": autoencoder(1, [tc.NearestUp(2), tc.BilinearUp(2)]),
    "bilinear, nearest": autoencoder(1, [tc.BilinearUp(2), tc.NearestUp(2)]),
    "decoder only": autoencoder(0, [tc.NearestUp(2), tc.NearestUp(2)]),
    "decoder only, bilinear": autoencoder(0, [tc.BilinearUp(2), tc.BilinearUp(2)]),
    "encoder only": autoencoder(2, []),
    "up, then down": autoencoder(0, [tc.BilinearUp(3)], (tc.StridedConv2d(1, 1, 3), tc.ReLU())),
    "oblong": tc.Sequential(
        tc.Conv2d(1, 1, (3, 5), (2, 1), bias=True), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(1, 1, (5, 1)), tc.ReLU()
    ),
    "stride 3": tc.Sequential(tc.StridedConv2d(1, 1, 5, 3), tc.ReLU(), tc.NearestUp(3), tc.Conv2d(1, 1, 3)),
}


def smallest_size(net: tc.Sequential) -> tuple[int, ...]:
    return tuple(int(g * s) for g, s in zip(granule(net, 2), scales(net, 2)[-1], strict=True))


def sized_kernel(net: tc.Sequential, **options: Any) -> tuple[tc.Kernel, tuple[int, ...], torch.Tensor]:
    kernel = net.kernel(tc.priors.Uniform(), **options)
    size = tuple(2 * math.lcm(p, n) for p, n in zip(kernel.period, smallest_size(net), strict=True))
    return kernel, size, kernel.dense(size)


def features_for(net: tc.Sequential, generator: torch.Generator, side: int = 12) -> tc.priors.Tensor:
    """Random features for an output of about so many pixels a side."""
    path = zip(granule(net, 2), scales(net, 2)[-1], strict=True)
    source = tuple(g * max(1, int(side / s) // g) for g, s in path)
    return tc.priors.Tensor(torch.randn(2, *source, generator=generator, dtype=torch.float64))
