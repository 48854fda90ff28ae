"""Kernels of random networks against the textbook recursion."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers.networks import (
    MOST_PIXELS,
    expected_of,
    granule,
    invariant,
    most_pixels,
    scales,
)
from tests.helpers.strategies.networks import kinds, nets, priors, randomly, several


def check_stationary(net: Any, ndim: Any, prior: Any, kind: Any, multiples: Any) -> None:
    source = tuple(g * m for g, m in zip(granule(net, ndim), multiples, strict=True))
    assume(most_pixels(net, source) <= MOST_PIXELS[ndim])
    size = tuple(int(n * s) for n, s in zip(source, scales(net, ndim)[-1], strict=True))
    expected = expected_of(net, prior, source, kind)
    expected.check(net.kernel(prior, size, kind=kind).dense(size))
    if invariant(net):
        expected.check(net.kernel(prior, kind=kind).dense(size))


def check_features(net: Any, ndim: Any, seed: Any, channels: Any, kind: Any, multiples: Any) -> None:
    source = tuple(g * m for g, m in zip(granule(net, ndim), multiples, strict=True))
    assume(most_pixels(net, source) <= MOST_PIXELS[ndim])
    features = torch.randn(channels, *source, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    prior = tc.priors.Tensor(features)
    expected_of(net, prior, source, kind).check(net.kernel(prior, kind=kind).dense())


@settings(randomly, max_examples=500)
@given(nets(1), priors, kinds, several)
def test_random_1d_net_equals_the_recursion(net: Any, prior: Any, kind: Any, multiple: Any) -> None:
    check_stationary(net, 1, prior, kind, (multiple,))


@settings(randomly, max_examples=500)
@given(nets(2), priors, kinds, st.tuples(several, several))
def test_random_2d_net_equals_the_recursion(net: Any, prior: Any, kind: Any, multiples: Any) -> None:
    check_stationary(net, 2, prior, kind, multiples)


# A table of one size without mirrors, so large that it is cut and its axes are exchanged.
CUT = tc.Sequential(
    tc.Conv3d(1, 1, 3), tc.NearestUp(2), tc.BilinearUp(2), tc.StridedConv3d(1, 1, 1, stride=2), tc.NearestUp(2)
)


@settings(randomly, max_examples=50)
@given(nets(3), priors, kinds, st.permutations([1, 1, 2]))
@example(CUT, tc.priors.Uniform(0, 1), "ntk", [1, 1, 2])
def test_random_3d_net_equals_the_recursion(net: Any, prior: Any, kind: Any, multiples: Any) -> None:
    check_stationary(net, 3, prior, kind, tuple(multiples))


@settings(randomly, max_examples=500)
@given(nets(1), st.integers(0, 2**31), several, kinds, st.integers(1, 6))
def test_random_1d_net_on_given_features_equals_the_recursion(
    net: Any, seed: Any, channels: Any, kind: Any, multiple: Any
) -> None:
    check_features(net, 1, seed, channels, kind, (multiple,))


@settings(randomly, max_examples=500)
@given(nets(2), st.integers(0, 2**31), several, kinds, st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_random_2d_net_on_given_features_equals_the_recursion(
    net: Any, seed: Any, channels: Any, kind: Any, multiples: Any
) -> None:
    check_features(net, 2, seed, channels, kind, multiples)


@settings(randomly, max_examples=50)
@given(nets(3), st.integers(0, 2**31), several, kinds)
def test_random_3d_net_on_given_features_equals_the_recursion(net: Any, seed: Any, channels: Any, kind: Any) -> None:
    check_features(net, 3, seed, channels, kind, (2, 1, 1))
