"""Convolutions of every padding, width, stride, dilation and grouping, transposed ones, and pools that overlap."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import between_inputs, brute_force
from tests.helpers.monte_carlo import BATCH, empirical_ntks
from tests.helpers.networks import CONV

TRANSPOSED: dict[int, Any] = {1: tc.ConvTranspose1d, 2: tc.ConvTranspose2d, 3: tc.ConvTranspose3d}
SIZES = {1: (11,), 2: (6, 5), 3: (3, 4, 3)}
# float64 on both sides; a close angle of two features may cost some digits.
EXACT = 1e-10
OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": "valid", "stride": 2},
    {"kernel_size": 2},
    {"kernel_size": 2, "padding_mode": "zeros"},
    {"kernel_size": 4, "stride": 2, "padding": 1, "padding_mode": "zeros"},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "dilation": 2},
    {"kernel_size": 3, "dilation": 2, "padding_mode": "zeros", "stride": 2},
    {"kernel_size": 2, "dilation": 3, "padding": 2, "padding_mode": "zeros"},
    {"kernel_size": 1, "padding": 1, "padding_mode": "zeros", "bias": True, "bias_std": 0.3},
    {"kernel_size": 2, "padding": 2, "padding_mode": "zeros"},
    {"kernel_size": 2, "padding": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "weight_std": 1.7, "bias": True, "bias_std": 0.3},
    {"kernel_size": 3, "stride": 3, "padding_mode": "zeros", "weight_std": 0.5},
    {"kernel_size": 3, "stride": 2, "parameterisation": "standard", "weight_std": 1.3, "bias": True},
    {"kernel_size": 2, "stride": 2, "groups": 2, "padding": "valid"},
    {"kernel_size": 3, "groups": 2, "bias": True, "parameterisation": "standard"},
]
TRANSPOSED_OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 4, "stride": 2, "padding_mode": "zeros"},
    {"kernel_size": 2, "stride": 2, "padding": 0, "padding_mode": "zeros", "weight_std": 2.0},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "padding_mode": "zeros"},
    {"kernel_size": 3, "stride": 2, "padding": "valid", "padding_mode": "zeros"},
    {"kernel_size": 3, "stride": 2, "padding": "valid"},
    {"kernel_size": 2, "dilation": 2, "bias": True, "bias_std": 0.4},
    {"kernel_size": 1, "stride": 3, "bias": True},
    {"kernel_size": 3, "padding": 2, "padding_mode": "zeros"},
    {"kernel_size": 2, "stride": 2, "groups": 2, "parameterisation": "standard"},
]
POOLS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
    {"kernel_size": 1, "stride": 2},
]


def ids(options: Any) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def features(size: tuple[int, ...], generator: torch.Generator, channels: int = 3) -> torch.Tensor:
    return torch.randn(channels, *size, generator=generator, dtype=torch.float64)


def assert_exact(net: tc.layers.Network, z: torch.Tensor) -> None:
    for kind, expected in zip(("nngp", "ntk"), brute_force.propagate(net, brute_force.feature_prior(z)), strict=True):
        found = net.kernel(tc.priors.Tensor(z), kind=kind).dense()
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= EXACT * expected.abs().max()


def before_weights(ndim: int, layer: tc.Layer) -> tc.Sequential:
    """The layer between an activation and a weight layer, and an activation behind that."""
    conv = CONV[ndim]
    return tc.Sequential(conv(3, 4, 1), tc.ReLU(), layer, conv(4, 4, 1), tc.ReLU(), conv(4, 1, 1))


def between(ndim: int, layer: tc.Layer) -> tc.Sequential:
    """The layer behind a weight layer and an activation, and an activation behind it."""
    conv = CONV[ndim]
    return tc.Sequential(conv(3, 4, 1), tc.ReLU(), layer, tc.ReLU(), conv(4, 1, 1))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_convolution_has_the_textbooks_kernel(options: Any, ndim: Any, generator: torch.Generator) -> None:
    assert_exact(between(ndim, CONV[ndim](4, 4, **options)), features(SIZES[ndim], generator))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("options", TRANSPOSED_OPTIONS, ids=ids)
def test_transposed_convolution_has_the_textbooks_kernel(options: Any, ndim: Any, generator: torch.Generator) -> None:
    size = (
        {1: (5,), 2: (3, 4), 3: (3, 3, 3)}[ndim]
        if options["kernel_size"] == 3 and options.get("padding") == 2
        else {1: (5,), 2: (3, 2), 3: (2, 2, 1)}[ndim]
    )
    assert_exact(between(ndim, TRANSPOSED[ndim](4, 4, **options)), features(size, generator))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("options", POOLS, ids=ids)
def test_pool_has_the_textbooks_kernel(options: Any, ndim: Any, generator: torch.Generator) -> None:
    size = {1: (9,), 2: (5, 4), 3: (3, 2, 3)}[ndim]
    if options["kernel_size"] > min(size):
        size = (3,) * ndim
    assert_exact(before_weights(ndim, getattr(tc, f"AvgPool{ndim}d")(**options)), features(size, generator))
    if options.keys() <= {"kernel_size", "stride", "padding"}:
        assert_exact(before_weights(ndim, getattr(tc, f"SumPool{ndim}d")(**options)), features(size, generator))


@pytest.mark.parametrize("prior", [tc.priors.Uniform(0, 1), tc.priors.Normal(0.0, 0.7)], ids=repr)
@pytest.mark.parametrize(
    ("layers", "size"),
    [
        ((tc.Conv1d(1, 4, 2, padding="valid"), tc.Conv1d(4, 1, 3)), (7,)),
        ((tc.Conv1d(1, 4, 2), tc.Conv1d(4, 1, 4, 2)), (6,)),
        ((tc.Conv1d(1, 4, 3, dilation=3), tc.StridedConv1d(4, 4, 3), tc.ConvTranspose1d(4, 1, 3, 2)), (8,)),
        ((tc.StridedConv1d(1, 4, 3), tc.ConvTranspose1d(4, 4, 4, 2), tc.Conv1d(4, 1, 2)), (12,)),
        ((tc.StridedConv2d(1, 4, 2), tc.ConvTranspose2d(4, 4, 2, 2), tc.Conv2d(4, 1, 3)), (4, 6)),
        ((tc.ConvTranspose2d(1, 4, 3, 2), tc.Sequential(tc.AvgPool2d(3, 2, 1), tc.Conv2d(4, 1, 3))), (2, 3)),
        ((tc.Conv1d(1, 4, 3, padding_mode="zeros"), tc.Conv1d(4, 1, 4, 3, padding=1, padding_mode="zeros")), (11,)),
    ],
    ids=repr,
)
def test_stationary_priors(layers: Any, size: Any, prior: Any) -> None:
    """Periodic kernels too: computed once for all sizes, and read at one of them."""
    net = tc.Sequential(*itertools.chain.from_iterable((layer, tc.ReLU()) for layer in layers))
    mean, second = (0.5, 1 / 3) if isinstance(prior, tc.priors.Uniform) else (0.0, 0.49)
    sigma = brute_force.independent_prior(size, mean, second)
    for kind, expected in zip(("nngp", "ntk"), brute_force.propagate(net, sigma), strict=True):
        after = tuple(expected.shape[: len(size)])
        found = net.kernel(prior, input_size=size, kind=kind).dense(after)
        assert (found - expected).abs().max() <= EXACT * expected.abs().max()


@pytest.mark.parametrize(
    "net",
    [
        tc.Sequential(tc.StridedConv2d(1, 4, 4), tc.ReLU(), tc.ConvTranspose2d(4, 4, 4, 2), tc.ReLU()),
        tc.Sequential(tc.Conv2d(1, 4, 3, dilation=2), tc.ReLU(), tc.Conv2d(4, 4, 2), tc.ReLU()),
        tc.Sequential(tc.Conv2d(1, 4, 3, padding="valid"), tc.ReLU(), tc.AvgPool2d(3, 1, 1), tc.Conv2d(4, 1, 2)),
    ],
    ids=["transposed", "dilated, even", "valid"],
)
def test_windowed_kernels_are_the_whole_one_under_the_taper(net: Any, generator: torch.Generator) -> None:
    """A window holds near displacements of a table, also of those that an image with a border is read from."""
    prior = tc.priors.Tensor(features((8, 12), generator, 1))
    radius = 3
    whole = net.kernel(prior).dense()
    size = tuple(whole.shape[:2])
    near = net.kernel(prior, radius=radius).dense(size)
    rows, columns = ((torch.arange(n)[:, None] - torch.arange(n) + n // 2) % n - n // 2 for n in size)
    distance = torch.sqrt(rows[:, None, :, None] ** 2 + columns[None, :, None, :] ** 2) / radius
    rest = (1 - distance).clamp_min(0)
    expected = whole * (rest**4 * (4 * distance + 1))
    assert (near - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("head", [tc.Flatten(), tc.GlobalAvgPool()], ids=repr)
@pytest.mark.parametrize(
    "kind, options",
    [
        *(("Conv", options) for options in OPTIONS),
        *(("ConvTranspose", options) for options in TRANSPOSED_OPTIONS),
        *(("AvgPool", options) for options in POOLS),
    ],
)
def test_kernels_between_images(kind: Any, options: Any, head: Any, generator: torch.Generator) -> None:
    """The same verbs of another storage form."""
    for ndim, size in ((1, (5,)), (2, (3, 4))):
        own = getattr(tc, f"{kind}{ndim}d")
        layer = own(**options) if kind == "AvgPool" else own(4, 4, **options)
        net = tc.Sequential(CONV[ndim](3, 4, 1), tc.ReLU(), layer, CONV[ndim](4, 4, 2), tc.ReLU(), head)
        images = torch.randn(3, 3, *size, generator=generator, dtype=torch.float64)
        for name, expected in zip(("nngp", "ntk"), between_inputs.propagate(net, images), strict=True):
            found = net.gram(images, kind=name)
            assert (found - expected).abs().max() <= EXACT * expected.abs().max()


DEPTHWISE = tc.Conv1d(8, 8, 3, groups=8)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((tc.Conv1d(3, 8, 1), DEPTHWISE, tc.ReLU()), "a depthwise convolution, whose channels each come from one"),
        ((tc.Conv1d(3, 8, 1), tc.Residual(DEPTHWISE), tc.ReLU()), "a depthwise convolution, whose channels"),
        ((tc.Concat(tc.Conv1d(3, 4, 1), tc.Conv1d(3, 4, 1)), tc.Conv1d(8, 8, 1, groups=2), tc.ReLU()), "a grouped"),
    ],
)
def test_activation_that_would_not_be_exact_is_refused(layers: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=rf"ReLU\(\), cannot follow {message}"):
        tc.Sequential(*layers, tc.Conv1d(8, 1, 1))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((tc.Conv1d(4, 8, 3, groups=2), tc.ReLU()), "a grouped convolution of channels that are not alike"),
        ((tc.Conv1d(4, 8, 3, groups=2), tc.Conv1d(8, 8, 1, groups=4), tc.ReLU()), "a grouped convolution"),
        (
            (tc.Conv1d(4, 8, 3, groups=4), tc.Conv1d(8, 8, 1), tc.ReLU()),
            "a depthwise convolution of the network's input",
        ),
        (
            (tc.Conv1d(4, 8, 3, groups=4), tc.Conv1d(8, 8, 1), tc.ChannelNorm()),
            "a depthwise convolution of the network",
        ),
    ],
)
def test_channels_of_a_given_input_are_not_alike(layers: Any, message: Any, generator: torch.Generator) -> None:
    net = tc.Sequential(*layers, tc.Conv1d(8, 1, 1))
    z = features((5,), generator, 4)
    with pytest.raises(ValueError, match=rf"cannot follow {message}"):
        net.kernel(tc.priors.Tensor(z))
    # Each channel of this prior is a draw of one Gaussian process, and there are as many as it takes.
    assert net.kernel(tc.priors.Normal(), (5,)).size is None
    assert_exact(tc.Sequential(*layers[:-1], tc.Conv1d(8, 1, 1)), z)


# Finite networks of the very same layers, with fixed seeds.

W = 48


def chain(*layers: tc.Layer) -> tc.Sequential:
    return tc.Sequential(*layers).double()


FINITE = {
    "valid, stride": (
        chain(tc.Conv1d(2, W, 3, padding="valid"), tc.ReLU(), tc.Conv1d(W, 1, 2, 2, padding="valid")),
        (2, 8),
    ),
    "even, dilated, zeros": (
        chain(
            tc.Conv1d(2, W, 4, padding_mode="zeros"), tc.ReLU(), tc.Conv1d(W, 1, 2, dilation=2, padding_mode="zeros")
        ),
        (2, 6),
    ),
    "even, strided, circular": (chain(tc.Conv2d(2, W, 4, 2, padding=1), tc.ReLU(), tc.Conv2d(W, 1, 2)), (2, 4, 5)),
    "odd sizes": (
        chain(tc.StridedConv1d(2, W, 3, padding_mode="zeros"), tc.ReLU(), tc.StridedConv1d(W, 1, 3)),
        (2, 9),
    ),
    "transposed": (
        chain(tc.StridedConv1d(2, W, 3), tc.ReLU(), tc.ConvTranspose1d(W, W, 4, 2), tc.ReLU(), tc.Conv1d(W, 1, 1)),
        (2, 6),
    ),
    "transposed, zeros": (
        chain(
            tc.Conv2d(2, W, 1),
            tc.ReLU(),
            tc.ConvTranspose2d(W, 1, 3, 2, padding=1, output_padding=1, padding_mode="zeros", bias=True, weight_std=2),
        ),
        (2, 2, 3),
    ),
    "groups": (
        chain(
            tc.Conv1d(2, 2 * W, 1),
            tc.ReLU(),
            tc.Conv1d(2 * W, 2 * W, 3, groups=2),
            tc.ReLU(),
            tc.Conv1d(2 * W, 1, 1),
        ),
        (2, 5),
    ),
    "depthwise": (
        chain(
            tc.Conv1d(2, 2 * W, 1),
            tc.ReLU(),
            tc.Conv1d(2 * W, 2 * W, 3, groups=2 * W),
            tc.Conv1d(2 * W, W, 1),
            tc.ReLU(),
            tc.Conv1d(W, 1, 1),
        ),
        (2, 5),
    ),
    "depthwise, transposed": (
        chain(
            tc.Conv1d(2, 2 * W, 1),
            tc.ReLU(),
            tc.ConvTranspose1d(2 * W, 2 * W, 3, 2, groups=2 * W),
            tc.Conv1d(2 * W, 1, 1),
        ),
        (2, 4),
    ),
    "overlapping pool": (
        chain(tc.Conv2d(2, W, 3), tc.ReLU(), tc.AvgPool2d(3, 2, 1, count_include_pad=False), tc.Conv2d(W, 1, 1)),
        (2, 4, 5),
    ),
    "sum pool, weight_std": (
        chain(tc.Conv1d(2, W, 3, weight_std=0.7), tc.ReLU(), tc.SumPool1d(3, 2), tc.Conv1d(W, 1, 1, weight_std=1.4)),
        (2, 7),
    ),
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_networks_have_the_kernel_on_average(name: Any) -> None:
    net, shape = FINITE[name]
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(*shape, generator=generator, dtype=torch.float64)
    exact = net.kernel(tc.priors.Tensor(z)).dense().flatten(0, len(shape) - 2).flatten(1)
    bound, most = 0.04, 320
    ntks = empirical_ntks(net, z, 4 * BATCH, generator)
    while (error := (ntks.mean(0) - exact).norm()) > bound * exact.norm():
        assert len(ntks) < most, f"off by {float(error / exact.norm()):.3f} after {len(ntks)} draws"
        ntks = torch.cat([ntks, empirical_ntks(net, z, 2 * BATCH, generator)])
    # Entries move together, so that all of them may be off by the same number of standard errors: allow five.
    standard_error = (ntks.var(0).sum() / len(ntks)).sqrt()
    assert error < 5 * standard_error
    assert standard_error < 2 * bound * exact.norm()
