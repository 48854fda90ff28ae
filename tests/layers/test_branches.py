"""Branches, normalisation, zero padding and the smooth activations: kernels against the textbook recursion."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers import brute_force
from torch_cntk.covariance.lattice import steps
from torch_cntk.layers import from_description

# float64 on both sides.
EXACT = 1e-12
ZEROS: dict[str, Any] = {"padding_mode": "zeros"}


def assert_equal(kernel: torch.Tensor, expected: torch.Tensor, tolerance: float = EXACT) -> None:
    assert kernel.shape == expected.shape
    assert (kernel - expected).abs().max() <= tolerance * expected.abs().max()


def conv(*arguments: int, **options: Any) -> tc.Conv2d:
    return tc.Conv2d(*(arguments or (1, 1, 3)), **options)


def chain(*layers: tc.Layer) -> tc.Sequential:
    return tc.Sequential(*layers)


def down_up(up: tc.Layer) -> tc.Sequential:
    return chain(tc.StridedConv2d(1, 1, 3), tc.ReLU(), up, conv(), tc.ReLU(), conv())


NETS = {
    "residual": chain(conv(), tc.Residual(tc.ReLU(), conv()), tc.ReLU(), conv()),
    "residual tower": chain(
        conv(), *(tc.Residual(tc.LeakyReLU(0.2), conv(), tc.ReLU(), conv()) for _ in range(4)), tc.ReLU(), conv()
    ),
    "sum of three": chain(
        conv(), tc.Sum(chain(tc.ReLU(), conv()), chain(tc.Abs(), conv(1, 1, 5)), conv(1, 1, 1)), tc.ReLU(), conv()
    ),
    "sum in sum": chain(conv(), tc.Residual(tc.ReLU(), conv(), tc.Residual(tc.ReLU(), conv())), tc.Erf(), conv()),
    "concatenation": chain(
        conv(2, 4, 3),
        tc.ReLU(),
        tc.Concat(chain(conv(4, 1, 3), tc.ReLU()), chain(conv(4, 3, 1), tc.LeakyReLU(0.3)), tc.Identity()),
        conv(8, 1, 3),
        tc.ReLU(),
        conv(),
    ),
    "skip around a level": chain(
        conv(2, 3, 3),
        tc.ReLU(),
        tc.Concat(
            chain(conv(3, 1, 1), tc.ReLU()),
            chain(tc.StridedConv2d(3, 2, 3), tc.ReLU(), tc.NearestUp(2), conv(2, 2, 3), tc.ReLU()),
        ),
        conv(3, 3, 3),
        tc.LeakyReLU(0.1),
        conv(3, 1, 1),
    ),
    "residual around a level": chain(conv(), tc.Residual(down_up(tc.NearestUp(2))), tc.ReLU(), conv()),
    "residual around a bilinear level": chain(conv(), tc.Residual(down_up(tc.BilinearUp(2))), tc.ReLU(), conv()),
    "sum of levels 2 and 3": chain(
        tc.Sum(
            chain(tc.StridedConv2d(1, 1, 3, 2), tc.ReLU(), tc.NearestUp(2), conv()),
            chain(tc.StridedConv2d(1, 1, 3, 3), tc.ReLU(), tc.NearestUp(3), conv()),
        ),
        tc.ReLU(),
        conv(),
    ),
    "average pooling in a branch": chain(
        conv(), tc.Residual(tc.ReLU(), tc.AvgPool2d(2), conv(), tc.NearestUp(2)), tc.ReLU(), conv()
    ),
    "two strided branches": chain(
        conv(), tc.Sum(chain(tc.ReLU(), tc.StridedConv2d(1, 1, 3)), tc.StridedConv2d(1, 1, 1)), tc.ReLU(), conv()
    ),
    "hourglass": tc.hourglass(2, 4, 2),
    "bilinear hourglass": tc.hourglass(1, 4, 4, "bilinear"),
    "channel norm": chain(conv(), tc.ChannelNorm(eps=1e-3), tc.ReLU(), conv(), tc.ChannelNorm(), tc.ReLU(), conv()),
    "affine channel norm": chain(
        conv(bias=True, bias_std=0.3),
        tc.ChannelNorm(1, affine=True),
        tc.NearestUp(2),
        conv(),
        tc.ReLU(),
        conv(),
        tc.ChannelNorm(1, affine=True),
    ),
    "norm of a concatenation": chain(
        tc.Concat(conv(2, 1, 3), conv(2, 3, 5)), tc.NearestUp(2), tc.ChannelNorm(), conv(4, 1, 3), tc.ReLU(), conv()
    ),
    "erf": chain(conv(), tc.Erf(), conv(), tc.Erf(normalise=False), conv()),
    "gelu": chain(conv(), tc.GELU(), conv(), tc.GELU(normalise=False), tc.NearestUp(2), conv()),
    "sine": chain(conv(), tc.Sin(), conv(), tc.Sin(normalise=False), conv()),
    "absolute value": chain(conv(), tc.Abs(), tc.NearestUp(2), conv(), tc.Abs(), conv()),
    "dropout, identity, head": chain(conv(), tc.Dropout(0.3), tc.ReLU(), tc.Identity(), conv(), tc.Sigmoid()),
    "cubic": chain(conv(), tc.Elementwise(lambda u: u**3 - u, terms=4), tc.NearestUp(2), conv()),
    "softplus": chain(conv(), tc.Elementwise(torch.nn.functional.softplus, terms=32), conv()),
}
BORDERED = {
    "zeros": chain(conv(**ZEROS), tc.ReLU(), conv(1, 1, 5, **ZEROS), tc.LeakyReLU(0.2), conv(**ZEROS)),
    "zeros, oblong": chain(tc.Conv2d(1, 1, (3, 5), **ZEROS), tc.ReLU(), tc.Conv2d(1, 1, (1, 3), bias=True, **ZEROS)),
    "zeros, wider than the image": chain(conv(1, 1, 15, **ZEROS), tc.ReLU(), conv(1, 1, 9, **ZEROS)),
    "zeros, level": chain(
        tc.StridedConv2d(1, 1, 3, **ZEROS), tc.ReLU(), tc.NearestUp(2), conv(**ZEROS), tc.ReLU(), conv(1, 1, 1)
    ),
    "zeros, bilinear": chain(
        conv(), tc.ReLU(), tc.BilinearUp(2, padding_mode="border"), conv(**ZEROS), tc.ReLU(), tc.AvgPool2d(2), conv()
    ),
    "zeros in one branch": chain(conv(), tc.Residual(tc.ReLU(), conv(**ZEROS)), tc.ReLU(), conv()),
    "zeros in a level of one branch": chain(
        conv(), tc.Residual(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2), conv(**ZEROS)), tc.ReLU(), conv()
    ),
    "zeros, tanh": chain(conv(**ZEROS), tc.Elementwise(torch.tanh, terms=40), conv(**ZEROS)),
    "corners in one branch": chain(
        conv(),
        tc.Residual(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2, align_corners=True), conv()),
        tc.ReLU(),
        conv(),
    ),
}
# As far as quadrature of 40 points goes: tanh has poles at i pi/2.
LOOSE = {"zeros, tanh": 1e-5}


def scale_of(net: tc.Layer) -> tuple[float, ...]:
    return tuple(float(s) for s in net.propagate(tc.covariance.Extent.start(2)).scale)


def sized(net: tc.Layer, least: int) -> tuple[int, int]:
    """Sizes of input images that fit the network, not square."""
    granule = net.propagate(tc.covariance.Extent.start(2)).granule[0]
    first = -(-least // granule) * granule
    return first, first + granule


def expected(net: tc.Layer, sigma: torch.Tensor, kind: str) -> torch.Tensor:
    return brute_force.propagate(net, sigma)[("nngp", "ntk").index(kind)]


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", NETS)
def test_expanded_kernel_equals_the_recursion(name: Any, kind: Any) -> None:
    net = NETS[name]
    source = sized(net, 6)
    size = tuple(int(n * s) for n, s in zip(source, scale_of(net), strict=True))
    prior = tc.priors.Normal(0.4, 0.8)
    kernel = net.kernel(prior, kind=kind)
    assert kernel.size is None
    exact = expected(net, brute_force.independent_prior(source, 0.4, 0.8), kind)
    assert_equal(kernel.dense(size), exact)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", [*NETS, *BORDERED])
def test_dense_kernel_equals_the_recursion(name: Any, kind: Any, generator: torch.Generator) -> None:
    net = (NETS | BORDERED)[name]
    source = sized(net, 5)
    # Several channels: of two, chance brings some features so close that their angle has few digits.
    features = torch.rand(6, *source, generator=generator, dtype=torch.float64) + 0.1
    kernel = net.kernel(tc.priors.Tensor(features), kind=kind)
    assert_equal(kernel.dense(), expected(net, brute_force.feature_prior(features), kind), LOOSE.get(name, EXACT))


@pytest.mark.parametrize("name", BORDERED)
def test_zero_padded_kernel_of_independent_pixels_equals_the_recursion(name: Any) -> None:
    net = BORDERED[name]
    for source in (sized(net, 5), (8, 8)):
        size = tuple(int(n * s) for n, s in zip(source, scale_of(net), strict=True))
        kernel = net.kernel(tc.priors.Uniform(0, 1), size)
        exact = expected(net, brute_force.independent_prior(source, 0.5, 1 / 3), "ntk")
        assert_equal(kernel.dense(), exact, LOOSE.get(name, EXACT))


@pytest.mark.parametrize("ndim", [1, 3])
def test_other_dimensions(ndim: Any, generator: torch.Generator) -> None:
    plain, strided = {1: (tc.Conv1d, tc.StridedConv1d), 3: (tc.Conv3d, tc.StridedConv3d)}[ndim]
    net = chain(
        plain(1, 1, 3, **ZEROS),
        tc.Residual(tc.ReLU(), strided(1, 1, 3), tc.ReLU(), tc.NearestUp(2), plain(1, 1, 3)),
        tc.ChannelNorm(),
        tc.Erf(),
        plain(1, 1, 3, **ZEROS),
    )
    source = {1: (10,), 3: (2, 4, 2)}[ndim]
    features = torch.randn(2, *source, generator=generator, dtype=torch.float64)
    assert_equal(
        net.kernel(tc.priors.Tensor(features)).dense(), expected(net, brute_force.feature_prior(features), "ntk")
    )


def test_kernels_cut_into_slabs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net = NETS["skip around a level"]
    prior = tc.priors.Uniform(0, 1)
    whole, dense = net.kernel(prior), BORDERED["zeros in a level of one branch"].kernel(prior, (8, 8))
    monkeypatch.setattr("torch_cntk.covariance.lattice.evaluation._SLAB_ENTRIES", 40)
    assert_equal(net.kernel(prior).dense((8, 12)), whole.dense((8, 12)), 1e-14)
    assert_equal(BORDERED["zeros in a level of one branch"].kernel(prior, (8, 8)).dense(), dense.dense(), 1e-14)


def test_trunk_of_a_tower_is_computed_once_a_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    average = steps._Average.run

    def counted(step: Any, inputs: Any, slab: Any) -> Any:
        calls.append(slab)
        return average(step, inputs, slab)

    monkeypatch.setattr(steps._Average, "run", counted)
    depth = 12
    net = chain(conv(), *(tc.Residual(tc.ReLU(), conv()) for _ in range(depth)), tc.ReLU(), conv())
    net.kernel(tc.priors.Uniform(), (4, 4))
    # Without a memory, 2^12 times.
    assert 0 < len(calls) <= 2 * (depth + 1)


widths = st.sampled_from([1, 3, 5])
ends_in_weights: st.SearchStrategy[tc.Layer] = st.deferred(
    lambda: (
        st.builds(
            lambda act, q: chain(act, conv(1, 1, q)), st.sampled_from([tc.ReLU(), tc.LeakyReLU(0.3), tc.Erf()]), widths
        )
        | st.builds(down_up, st.sampled_from([tc.NearestUp(2), tc.BilinearUp(2)]))
        | st.builds(lambda inner: chain(tc.Abs(), conv(), tc.Residual(inner)), ends_in_weights)
        | st.builds(lambda inner, other: tc.Sum(inner, other), ends_in_weights, ends_in_weights)
    )
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    st.lists(ends_in_weights, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["ntk", "nngp"]),
    st.integers(0, 2**31),
)
def test_random_branches_equal_the_recursion(members: Any, identity: Any, kind: Any, seed: Any) -> None:
    total = tc.Sum(*members, *([tc.Identity()] if identity else []))
    net = chain(conv(1, 1, 3), total, tc.ReLU(), conv(1, 1, 3))
    features = torch.rand(2, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert_equal(
        net.kernel(tc.priors.Tensor(features), kind=kind).dense(),
        expected(net, brute_force.feature_prior(features), kind),
        1e-11,
    )


# What is refused.


def test_correlated_branches_are_refused() -> None:
    for branches in (
        (tc.Identity(), tc.Identity()),
        (tc.ReLU(), tc.Identity()),
        (chain(conv(), tc.ReLU()), tc.ReLU()),
        (conv(), chain(conv(), tc.ReLU()), chain(tc.NearestUp(2), tc.AvgPool2d(2))),
    ):
        with pytest.raises(ValueError, match="expected the branches of a sum to end in weight layers of their own"):
            tc.Sum(*branches)


def test_residual_that_ends_in_an_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="End one of them in a convolution"):
        tc.Residual(conv(), tc.ReLU())


def test_activation_of_a_sum_that_is_not_gaussian_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ReLU.* cannot follow a sum with a branch that is not Gaussian"):
        chain(conv(), tc.ReLU(), tc.Residual(conv()), tc.ReLU(), conv())
    # With a weight layer between them it is exact.
    chain(conv(), tc.ReLU(), tc.Residual(conv()), conv(), tc.ReLU(), conv())


def test_sum_with_the_input_is_found_out_before_the_kernel() -> None:
    net = chain(tc.Residual(conv()), tc.ReLU(), conv())
    with pytest.raises(ValueError, match="the network's input"):
        net.kernel(tc.priors.Uniform())


def test_activation_of_a_concatenation_is_refused() -> None:
    with pytest.raises(ValueError, match="put the activation into each branch"):
        chain(tc.Concat(conv(), conv()), tc.ReLU())
    assert_equal(
        chain(tc.Concat(chain(conv(), tc.ReLU()), chain(conv(), tc.ReLU())), conv(2, 1, 3))
        .kernel(tc.priors.Normal())
        .dense((4, 4)),
        chain(conv(), tc.ReLU(), conv()).kernel(tc.priors.Normal()).dense((4, 4)),
    )


def test_norm_of_features_with_a_mean_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ChannelNorm.* cannot follow an activation"):
        chain(conv(), tc.ReLU(), tc.ChannelNorm())
    with pytest.raises(ValueError, match="the network's input"):
        chain(tc.ChannelNorm(), conv()).kernel(tc.priors.Uniform())
    chain(conv(), tc.Erf(), tc.ChannelNorm(), conv()).kernel(tc.priors.Uniform())


def test_activation_of_trained_scales_is_refused() -> None:
    with pytest.raises(ValueError, match="whose scales are trained"):
        chain(conv(), tc.ChannelNorm(1, affine=True), tc.ReLU())
    chain(conv(), tc.ChannelNorm(1, affine=True), conv(), tc.ReLU())


def test_layers_after_the_head_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected Sigmoid.* as the last layer"):
        chain(conv(), tc.Sigmoid(), conv())


def test_shared_weights_are_refused() -> None:
    shared = conv()
    for build in (lambda: tc.Sum(shared, shared), lambda: tc.Concat(shared, chain(tc.ReLU(), shared))):
        with pytest.raises(ValueError, match="a layer with weights appears twice"):
            build()
    with pytest.raises(ValueError, match="a layer with weights appears twice"):
        tc.Graph(tc.Node(shared, (0,)), tc.Node(shared, (1,)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tc.Sum(), "expected at least one branch"),
        (lambda: tc.Sum(conv(1, 2, 3), conv(1, 3, 3)), "the same number of output channels, got \\[2, 3\\]"),
        (lambda: tc.Sum(conv(1, 2, 3), conv(2, 2, 3)), "the same number of input channels, got \\[1, 2\\]"),
        (lambda: tc.Sum(conv(), tc.Conv1d(1, 1, 3)), "the same number of spatial dimensions"),
        (lambda: tc.Concat(tc.Identity(), tc.ReLU()), "give in_channels"),
        (lambda: tc.Graph(), "expected at least one node"),
        (lambda: tc.Graph(tc.Node(conv(), (1,))), "expected node 1 to read some of the values 0 to 0"),
        (lambda: tc.Graph(tc.Node(conv(1, 2, 3), (0,)), tc.Node(conv(3, 1, 3), (1,))), "node 2, .* needs 3 channels"),
        (lambda: tc.Graph(tc.Node(conv(), (0, 0))), "expected one input of a layer"),
        (lambda: tc.ChannelNorm(affine=True), "expected the number of channels"),
        (lambda: tc.Elementwise(torch.relu, terms=129), "at most 128 terms"),
        (lambda: tc.Elementwise(lambda u: u.sum()), "expected a pointwise function"),
        (lambda: tc.Elementwise(lambda u: 0 * u), "second moment"),
        (lambda: tc.Dropout(1.0), "expected p below 1"),
        (lambda: conv(padding_mode="reflect"), "expected padding_mode"),
    ],
)
def test_wrong_branches_are_refused(build: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("build", [lambda: tc.Sum(torch.nn.ReLU()), lambda: tc.Graph(3), lambda: tc.Elementwise(3)])  # type: ignore[arg-type]
def test_strangers_are_refused(build: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        build()


def test_branches_of_different_sizes_are_refused() -> None:
    net = chain(conv(), tc.Sum(tc.StridedConv2d(1, 1, 3), conv()), tc.ReLU(), conv())
    with pytest.raises(ValueError, match="expected branches with outputs of one size, got 1/2 x 1/2 and 1 x 1"):
        net.kernel(tc.priors.Uniform())
    with pytest.raises(ValueError, match="expected branches with outputs of one shape"):
        net(torch.zeros(1, 1, 4, 4))


def test_zero_padding_needs_a_size() -> None:
    with pytest.raises(ValueError, match="belongs to one image size"):
        chain(conv(**ZEROS), tc.ReLU(), conv()).kernel(tc.priors.Uniform())


# As finite networks.


def test_forward_of_branches(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 4, 6, generator=generator)
    first, second = tc.Conv2d(3, 3, 3), tc.Conv2d(3, 5, 1)
    torch.testing.assert_close(tc.Residual(tc.ReLU(), first)(x), x + first(tc.ReLU()(x)))
    torch.testing.assert_close(tc.Concat(second, tc.Identity())(x), torch.cat([second(x), x], 1))
    assert tc.Concat(second, tc.Identity()).out_channels == 8
    graph = tc.Graph(tc.Node(first, (0,)), tc.Node("sum", (0, 1)), tc.Node(second, (2,)), tc.Node("concat", (3, 0)))
    torch.testing.assert_close(graph(x), torch.cat([second(x + first(x)), x], 1))
    assert (graph.in_channels, graph.out_channels, graph.ndim) == (3, 8, 2)


@pytest.mark.parametrize("affine", [False, True])
def test_channel_norm_is_torchs_layer_norm(affine: Any, generator: torch.Generator) -> None:
    x = torch.randn(2, 5, 4, 6, generator=generator)
    layer, other = tc.ChannelNorm(5, affine=affine), torch.nn.LayerNorm(5, elementwise_affine=affine)
    if affine:
        for parameter, its in zip((layer.scale, layer.offset), (other.weight, other.bias), strict=True):
            assert parameter is not None
            torch.nn.init.normal_(parameter, generator=generator)
            its.data.copy_(parameter.data)
    torch.testing.assert_close(layer(x), other(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_zero_padding_is_torchs(stride: Any, width: Any, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 4, 6, generator=generator)
    layer = tc.Conv2d(3, 2, width, stride, bias=True, **ZEROS)
    scaled = layer.weight / math.sqrt(3 * width**2)
    expected = torch.nn.functional.conv2d(x, scaled, layer.bias, stride=stride, padding=width // 2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (tc.Erf(), torch.erf),
        (tc.GELU(), torch.nn.functional.gelu),
        (tc.Sin(), torch.sin),
        (tc.Abs(), torch.abs),
        (tc.Elementwise(torch.tanh), torch.tanh),
    ],
    ids=lambda entry: getattr(entry, "__name__", repr(entry)),
)
def test_activation_is_a_gain_times_the_function(layer: Any, function: Any) -> None:
    u = torch.linspace(-12, 12, 200001, dtype=torch.float64)
    density = torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(layer(u), layer.gain * function(u))
    assert float(torch.trapezoid(layer(u) ** 2 * density, u)) == pytest.approx(1, rel=1e-7)
    if not isinstance(layer, tc.Abs):
        plain = type(layer)(*[torch.tanh] * isinstance(layer, tc.Elementwise), normalise=False)
        assert torch.equal(plain(u), function(u))


@pytest.mark.parametrize(
    ("function", "value", "slope"),
    [(torch.nn.functional.silu, 1e-13, 1e-13), (torch.tanh, 1e-10, 1e-8), (torch.relu, 1e-3, 1e-2)],
)
def test_stated_accuracy_is_that_of_the_dual(function: Any, value: Any, slope: Any) -> None:
    layer = tc.Elementwise(function, normalise=False)
    stated = layer.accuracy
    assert stated[0] < value
    assert stated[1] < slope
    if function is torch.relu:
        rho = torch.linspace(-1, 1, 101, dtype=torch.float64)
        one = torch.ones_like(rho)
        found = layer._dual()(rho.clone(), one, one)
        exact = tc.covariance.duals.Rectifier()(rho.clone(), one, one)
        for mine, theirs, bound in zip(found, exact, stated, strict=True):
            error = (mine - theirs / 2).abs().max()
            assert bound < error < 4 * bound


def test_vanishing_features_have_a_kernel() -> None:
    features = torch.zeros(1, 4, 4, dtype=torch.float64)
    features[0, 0, 0] = 1
    for activation in (tc.Erf(), tc.GELU(), tc.Sin(), tc.Abs(), tc.Elementwise(torch.tanh)):
        net = chain(conv(), activation, conv())
        assert torch.isfinite(net.kernel(tc.priors.Tensor(features)).dense()).all()


def test_descriptions_make_the_network_anew(generator: torch.Generator) -> None:
    plain = (net for name, net in (NETS | BORDERED).items() if name not in ("cubic", "softplus", "zeros, tanh"))
    graph = tc.Graph(tc.Node(conv(2, 3, 3), (0,)), tc.Node(tc.ReLU(), (1,)), tc.Node("concat", (0, 2)))
    for net in (*plain, graph, tc.hourglass(2, (4, 8), 0, down_filter=5), tc.Sum(tc.Identity(), in_channels=3)):
        description = json.loads(json.dumps(net.description()))
        again = from_description(description)
        assert again.description() == net.description()
        assert repr(again) == repr(net)
        again.load_state_dict(net.state_dict())
        channels, granule = net.in_channels or 1, net.propagate(tc.covariance.Extent.start(2)).granule[0]
        x = torch.randn(1, channels, 4 * granule, 4 * granule, generator=generator)
        assert torch.equal(again.eval()(x), net.eval()(x))


def test_kernel_of_an_elementwise_net_is_saved_without_it(tmp_path: Path) -> None:
    kernel = NETS["softplus"].kernel(tc.priors.Uniform())
    kernel.save(tmp_path / "k.safetensors")
    again = tc.load_kernel(tmp_path / "k.safetensors")
    assert torch.equal(again.near.values, kernel.near.values)


# Hourglass.


@pytest.mark.parametrize("up", ["nearest", "bilinear"])
@pytest.mark.parametrize("skip", [0, 4])
def test_hourglass(up: Any, skip: Any, generator: torch.Generator) -> None:
    net = tc.hourglass(3, 8, skip, up)
    assert net(torch.rand(1, 32, 16, 24, generator=generator)).shape == (1, 3, 16, 24)
    kernel = net.kernel(tc.priors.Uniform(0, 0.1))
    assert kernel.period == (8, 8)


def test_hourglass_of_other_shapes(generator: torch.Generator) -> None:
    net = tc.hourglass(2, (4, 6), (0, 2), channels=1, in_channels=2, down_filter=5, ndim=1, bias=True, one_by_one=False)
    assert net(torch.rand(1, 2, 16, generator=generator)).shape == (1, 1, 16)
    for options, message in (
        ({"levels": 0}, "levels"),
        ({"width": (3, 3, 3)}, "expected width"),
        ({"skip": -1}, "skip"),
        ({"up": "cubic"}, "expected up"),
    ):
        with pytest.raises(ValueError, match=message):
            tc.hourglass(**cast(dict[str, Any], {"levels": 2, **options}))
