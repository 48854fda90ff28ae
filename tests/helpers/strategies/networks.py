"""Random networks, the priors that feed them, and the sizes of images that they fit."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers.networks import CONV

seeds = st.integers(0, 2**31)
# Biases and priors of one scale: features that differ little have angles of few digits.
priors = st.sampled_from([tc.priors.Uniform(0, 1), tc.priors.Uniform(-1, 3), tc.priors.Normal(0.3, 0.7)])
kinds = st.sampled_from(["ntk", "nngp"])
several = st.integers(1, 3)
randomly = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
"""For tests of networks, of which many drawn ones are refused."""

smooth: Any = st.sampled_from(
    [
        tc.Erf,
        tc.GELU,
        tc.Sin,
        tc.Tanh,
        tc.Logistic,
        tc.Softsign,
        tc.SiLU,
        tc.Mish,
        tc.Softplus,
        tc.ELU,
        tc.SELU,
        tc.Hardtanh,
        tc.ReLU6,
    ]
)
"""Activations that depend on the scale of what arrives."""


def layer_options(ndim: int) -> Any:
    """Strategies of convolutions, homogeneous activations and upsamplings."""
    width = st.sampled_from([1, 3, 5] if ndim < 3 else [1, 3])
    widths = width | st.tuples(*(width for _ in range(ndim)))
    stride = st.just(1) | st.sampled_from([2, 3]) | st.tuples(*(st.sampled_from([1, 2]) for _ in range(ndim)))
    conv = st.builds(
        lambda width, stride, bias: CONV[ndim](1, 1, width, stride, bias=bias is not None, bias_std=bias or 0.0),
        widths,
        stride,
        st.none() | st.sampled_from([0.1, 0.5]),
    )
    activation = st.builds(tc.ReLU) | st.builds(tc.LeakyReLU, st.sampled_from([0.01, 0.1, 0.5, 1.0]))
    factor = st.sampled_from([2, 3])
    up = (
        st.builds(tc.NearestUp, factor)
        | st.builds(tc.BilinearUp, factor)
        | st.builds(tc.BilinearUp, factor, padding_mode=st.just("border"))
        | st.builds(tc.BilinearUp, factor, align_corners=st.just(True))
    )
    return conv, activation, up


def nets(ndim: int, most_layers: int | None = None) -> Any:
    """Chains of them, a convolution first; those of which the kernel would not be exact are left out."""
    conv, activation, up = layer_options(ndim)
    most = most_layers or (7 if ndim < 3 else 5)
    layers = st.lists(conv | activation | up, min_size=1, max_size=most)
    made = layers.map(lambda members: exact_or_none([CONV[ndim](1, 1, 3), *members]))
    return made.filter(lambda net: net is not None)


def exact_or_none(members: list[tc.Layer]) -> tc.Sequential | None:
    """An activation behind another is refused: its kernel would not be exact."""
    try:
        return tc.Sequential(*members)
    except ValueError:
        return None


def block(ndim: int) -> Any:
    """Layers of every family, one or a few at a time: branches, norms, pools, smooth activations, zero padding."""
    conv, activation, up = layer_options(ndim)
    same = st.builds(
        lambda width, mode: CONV[ndim](1, 1, width, padding_mode=mode),
        st.sampled_from([1, 3]),
        st.sampled_from(["circular", "circular", "zeros"]),
    )
    bend = activation | smooth.map(lambda cls: cls()) | st.builds(tc.ABReLU, st.sampled_from([-1.0, -0.4, 0.7]))
    pool = {1: tc.AvgPool1d, 2: tc.AvgPool2d, 3: tc.AvgPool3d}[ndim]
    residual = st.builds(lambda a, b: tc.Residual(a, b), bend, same)
    concat = st.builds(lambda a, b: tc.Sequential(tc.Concat(a, b), CONV[ndim](2, 1, 1)), same, same)
    plain = st.sampled_from([tc.Identity(), tc.Scale(-0.3), tc.ChannelNorm(), tc.ChannelNorm(eps=0.1), tc.Dropout(0.2)])
    dropout = st.builds(tc.Dropout, st.sampled_from([0.0, 0.2, 0.6]), channels=st.booleans(), in_kernel=st.booleans())
    resampling = st.sampled_from([pool(2), tc.NearestUp(2), tc.GaussianBlur(3, 0.8), tc.LanczosDown(2), tc.Abs()])
    beside = st.builds(lambda a, b, dim: tc.Concat(a, b, dim=dim), same, same, st.integers(2, 1 + ndim))
    return conv | same | bend | up | residual | concat | plain | resampling | dropout | beside


def any_nets(ndim: int) -> Any:
    """Chains of ``block``, or with attention, or what refuses to be made of them."""
    chains = st.lists(block(ndim), max_size=5)
    # Without strides, whose inputs are large: attention takes matrices of all pixels.
    scale, bend = st.sampled_from([0.3, 1.0, -2.0]), st.sampled_from([tc.ReLU(), tc.Erf(), tc.ChannelNorm(eps=0.1)])
    attention = st.builds(
        lambda mechanism, scale: tc.SelfAttention(1, 1, mechanism=mechanism, logit_scale=scale),
        st.sampled_from(["softmax", "softmax", "identity", "relu", "abs"]),
        scale,
    )
    attentive = st.lists(attention | bend | st.builds(CONV[ndim], st.just(1), st.just(1), st.just(3)), max_size=4)
    return (chains | attentive).map(lambda members: [CONV[ndim](1, 1, 3), *members])


def features_prior(ndim: int, least: int = 1, most: int = 8) -> Any:
    """Priors of one size: given features."""
    return st.builds(_features, seeds, st.integers(1, 3), st.tuples(*(st.integers(least, most) for _ in range(ndim))))


def _features(seed: int, channels: int, size: tuple[int, ...]) -> tc.priors.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return tc.priors.Tensor(torch.randn(channels, *size, dtype=torch.float64, generator=generator))
