"""Networks whose kernel would not be exact are refused, with place and reason; all others are not."""

from __future__ import annotations

import copy
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

import torch_cntk as tc
from tests.helpers.monte_carlo import empirical_ntks
from torch_cntk.covariance.duals import Erf, Rectifier
from torch_cntk.covariance.signal import InexactError, Signal


def conv(*arguments: int, **options: Any) -> tc.Conv2d:
    return tc.Conv2d(*(arguments or (4, 4, 3)), **options)


def chain(*layers: tc.Layer) -> tc.Sequential:
    return tc.Sequential(*layers)


# Built with whatever comes before: the reason is inside.
BEHIND = {
    "itself": (tc.ReLU(),),
    "pooling": (tc.AvgPool2d(2),),
    "nearest": (tc.NearestUp(2),),
    "bilinear": (tc.BilinearUp(2),),
    "blur": (tc.GaussianBlur(3, 1.0),),
    "Lanczos": (tc.LanczosDown(2),),
    "dropout": (tc.Dropout(0.1),),
    "identity": (tc.Identity(), tc.Identity()),
    "nested": (chain(chain(tc.Dropout(0.1)), tc.Identity()),),
    "sum of one": (tc.Sum(tc.Identity()),),
    "concatenation of one": (tc.Concat(tc.Identity(), in_channels=4),),
    "graph": (tc.Graph(tc.Node(tc.Dropout(0.1), (0,))),),
}


@pytest.mark.parametrize("second", [tc.ReLU(), tc.Erf(), tc.Elementwise(torch.tanh)], ids=repr)
@pytest.mark.parametrize("first", [tc.LeakyReLU(0.1), tc.Abs(), tc.GELU()], ids=repr)
@pytest.mark.parametrize("name", BEHIND)
def test_activation_behind_an_activation_is_refused(name: Any, first: Any, second: Any) -> None:
    middle = () if name == "itself" else BEHIND[name]
    place = 2 + len(middle)
    with pytest.raises(
        ValueError, match=rf"layer {place}, {type(second).__name__}.*, cannot follow another activation"
    ):
        chain(conv(), first, *middle, second, conv(4, 1, 1))


def test_the_place_is_the_modules_name() -> None:
    with pytest.raises(ValueError, match=r"^layer 1\.0\.1, ReLU\(\), cannot follow another activation"):
        chain(chain(conv(), tc.Abs()), tc.Sum(chain(tc.NearestUp(1), tc.ReLU(), conv()), conv()))
    net: Any = chain(chain(conv(), tc.ReLU()), tc.Sum(chain(tc.NearestUp(1), conv()), conv()))
    net.insert(1, tc.Identity())
    net[2].branches[0].insert(0, tc.Erf())
    with pytest.raises(InexactError, match=r"layer 2\.0\.0, Erf\(\), cannot follow another activation") as caught:
        net.kernel(tc.priors.Uniform())
    assert isinstance(net.get_submodule(".".join(caught.value.path)), tc.Erf)
    # It stays refused: what has been looked at once is not taken for good.
    with pytest.raises(InexactError):
        net.kernel(tc.priors.Uniform())


def test_names_of_named_layers_are_told() -> None:
    with pytest.raises(ValueError, match=r"layer tail, ReLU\(\), cannot follow"):
        tc.Sequential(OrderedDict(head=conv(), bend=tc.ReLU(), tail=tc.ReLU()))
    with pytest.raises(ValueError, match=r"layer 2, ReLU\(\), cannot follow another activation"):
        tc.Graph(tc.Node(conv(), (0,)), tc.Node(tc.ReLU(), (1,)), tc.Node(tc.ReLU(), (2,)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: chain(conv(), tc.Residual(tc.ReLU()), tc.ReLU()), "expected the branches of a sum"),
        (
            lambda: chain(conv(), tc.ReLU(), tc.Residual(conv()), tc.ReLU()),
            "layer 3, .* follow a sum with a branch that",
        ),
        (
            lambda: chain(conv(), tc.ReLU(), tc.Sum(conv(), tc.Identity()), tc.AvgPool2d(2), tc.Abs()),
            "layer 4, .*a sum",
        ),
        (lambda: chain(conv(), tc.Concat(tc.Identity(), conv(), in_channels=4), tc.ReLU()), "layer 2, .*concatenation"),
        (lambda: chain(conv(), tc.Erf(), tc.ChannelNorm(), tc.ReLU()), "layer 3, .*another activation"),
        (lambda: chain(conv(), tc.ReLU(), tc.ChannelNorm()), "layer 2, ChannelNorm.* cannot follow an activation or"),
        (
            lambda: chain(conv(), tc.ChannelNorm(4, affine=True), tc.NearestUp(2), tc.ReLU()),
            "layer 3, .*scales are trained",
        ),
        (lambda: chain(conv(), tc.Residual(tc.ReLU(), tc.Erf(), conv())), r"layer 1, Erf"),
        (lambda: chain(tc.Sum(chain(conv(), tc.Sigmoid()), conv())), "expected Sigmoid.* as the last layer, got sum"),
        (lambda: chain(conv(), tc.Sigmoid(), tc.Dropout(0.1)), "expected Sigmoid.* as the last layer, got Dropout"),
        (lambda: chain(chain(conv(), tc.Sigmoid()), tc.Identity()), "expected Sigmoid.* as the last layer"),
    ],
)
def test_other_places_are_refused(build: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build()


EXACT = {
    "a convolution between": lambda: chain(conv(), tc.ReLU(), conv(4, 4, 1), tc.ReLU(), conv()),
    "linear activations": lambda: chain(
        conv(), tc.ReLU(), tc.LeakyReLU(1.0), conv(), tc.LeakyReLU(1.0), tc.ReLU(), conv()
    ),
    "linear functions": lambda: chain(conv(), tc.Elementwise(lambda u: 3 * u), tc.ReLU(), conv()),
    "residual tower": lambda: chain(conv(), *(tc.Residual(tc.ReLU(), conv()) for _ in range(3)), tc.ReLU(), conv()),
    "norm, then activation": lambda: chain(conv(), tc.ChannelNorm(), tc.ReLU(), conv()),
    "norm of an odd activation": lambda: chain(conv(), tc.Elementwise(torch.tanh), tc.ChannelNorm(), conv()),
    "norm of a sum": lambda: chain(conv(), tc.Sum(conv(), tc.Identity()), tc.ChannelNorm(), tc.GELU(), conv()),
    "resampled before": lambda: chain(conv(), tc.BilinearUp(2), tc.AvgPool2d(2), tc.ReLU(), conv()),
    "activations side by side": lambda: chain(
        conv(), tc.Concat(tc.ReLU(), tc.Abs(), in_channels=4), conv(8, 4, 3), tc.ReLU()
    ),
    "zeros around": lambda: chain(conv(padding_mode="zeros"), tc.ReLU(), conv(padding_mode="zeros"), tc.ReLU(), conv()),
    "sum of resampled branches": lambda: chain(
        conv(), tc.Sum(chain(tc.ReLU(), conv(), tc.GaussianBlur(3, 1.0)), chain(tc.Abs(), conv())), tc.ReLU(), conv()
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exact_is_not_refused(name: Any) -> None:
    net = EXACT[name]()
    size = (4, 4) if name == "zeros around" else None
    assert torch.isfinite(net.kernel(tc.priors.Uniform(), size).dense((4, 4))).all()


def test_linear_activations_are_the_identity(generator: torch.Generator) -> None:
    z = tc.priors.Tensor(torch.randn(4, 4, 4, generator=generator, dtype=torch.float64))
    plain, more = (
        chain(conv(), tc.ReLU(), conv()),
        chain(conv(), tc.LeakyReLU(1.0), tc.ReLU(), tc.LeakyReLU(1.0), conv()),
    )
    torch.testing.assert_close(more.kernel(z).dense(), plain.kernel(z).dense(), rtol=1e-14, atol=1e-14)


# The input.

AT_INPUT: dict[str, Callable[[], tc.Layer]] = {
    "activation": lambda: chain(tc.ReLU(), conv()),
    "through resampling": lambda: chain(tc.NearestUp(2), tc.Dropout(0.1), chain(tc.AvgPool2d(2), tc.Erf()), conv()),
    "norm": lambda: chain(tc.ChannelNorm(), conv()),
    "in a branch": lambda: chain(tc.Sum(conv(), chain(tc.ReLU(), conv())), conv()),
    "in a graph": lambda: tc.Graph(tc.Node(conv(), (0,)), tc.Node(tc.ReLU(), (0,)), tc.Node("concat", (1, 2))),
    "sum with the input": lambda: chain(tc.Residual(conv()), tc.ReLU(), conv()),
    "alone": lambda: tc.ReLU(),
}
GIVEN = [tc.priors.Uniform(), tc.priors.Normal(0.1, 1), tc.priors.Constant(1.0), tc.priors.Tensor(torch.rand(4, 4, 4))]
GIVEN += [tc.priors.Identity(), tc.priors.Meshgrid(), tc.priors.Coordinates(3), tc.priors.White(1) + tc.priors.White(2)]
GAUSSIAN = [tc.priors.Normal(0, 2), tc.priors.White(0.3), tc.priors.Sum(tc.priors.White(1))]


@pytest.mark.parametrize("name", AT_INPUT)
def test_activation_of_a_given_input_is_refused(name: Any) -> None:
    net = AT_INPUT[name]()
    for prior in GIVEN:
        with pytest.raises(ValueError, match="the network's input"):
            net.kernel(prior, (4, 4))
        with pytest.raises(ValueError, match="the network's input"):
            net.kernel(prior, (4, 4), radius=2)
    for prior in GAUSSIAN:
        assert torch.isfinite(net.kernel(prior, (4, 4)).dense((4, 4))).all()


def test_activation_of_given_features_is_refused() -> None:
    net = tc.Sequential(tc.ReLU(), tc.Linear(3, 1))
    for call in (net.gram, net.gram_operator):
        with pytest.raises(ValueError, match=r"layer 0, ReLU\(\), cannot follow the network's input"):
            call(torch.rand(4, 3))
    assert torch.isfinite(tc.Sequential(tc.Linear(3, 3), net).gram(torch.rand(4, 3))).all()


def bell(*displacement: torch.Tensor) -> torch.Tensor:
    """Positive definite on every torus, as the coefficients of the exponential series are."""
    return cast(torch.Tensor, math.prod(torch.exp(torch.cos(2 * math.pi * u / u.numel()) - 1) for u in displacement))


@pytest.mark.parametrize(
    "prior",
    [
        tc.priors.Normal(0, 1.5),
        tc.priors.White(2.0),
        tc.priors.Stationary(bell),
        tc.priors.Autocorrelation(torch.rand(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))),
        tc.priors.Uniform(-2, 2),
        tc.priors.Normal(1, 1),
        tc.priors.Constant(1.0),
        tc.priors.Coordinates(1.5),
        tc.priors.White(2.0) + tc.priors.Coordinates(1.5),
        tc.priors.Normal(0, 0.1) + tc.priors.Stationary(bell),
    ],
    ids=repr,
)
def test_priors_say_rightly_whether_their_draws_are_gaussian(prior: Any) -> None:
    """E[phi(z) phi(z')] over the channels of a sample is the dual of Sigma_0 for Gaussian draws, and only for them."""
    size, channels, generator = (8,), 20000, torch.Generator().manual_seed(7)
    z = prior.sample(channels, size, generator=generator, dtype=torch.float64)
    dense = tc.Sequential(tc.Identity()).kernel(prior, size, kind="nngp").dense(size).reshape(8, 8)
    variance = dense.diagonal()
    wrong = False
    for function, dual in ((torch.abs, Rectifier(-1.0)), (torch.erf, Erf(normalise=False))):
        products = torch.einsum("ci,cj->cij", function(z), function(z))
        expected = dual(dense.clone(), variance[:, None].expand(8, 8), variance[None].expand(8, 8))[0]
        error = (products.mean(0) - expected).abs()
        # All of 36 entries within five standard errors: the chance to be beyond is 1e-5.
        wrong |= bool((error > 5 * products.std(0) / channels**0.5 + 1e-12).any())
    assert prior.gaussian is not wrong


@pytest.mark.parametrize(
    "first", [(tc.Abs(),), (tc.NearestUp(2), tc.Erf()), (tc.ChannelNorm(),), (tc.ChannelNorm(), tc.GELU())], ids=repr
)
@pytest.mark.parametrize("prior", [tc.priors.White(2.0), tc.priors.Stationary(bell)], ids=repr)
def test_kernel_of_an_activation_at_a_gaussian_input_is_that_of_many_channels(first: Any, prior: Any) -> None:
    channels, generator = 8000, torch.Generator().manual_seed(3)
    net = tc.Sequential(*first, tc.Conv1d(channels, 1, 3)).double()
    z = prior.sample(channels, (6,), generator=generator, dtype=torch.float64)
    # With one weight layer the NTK depends on the input alone.
    (found,) = empirical_ntks(net, z, 1, generator)
    size = (len(found),)
    exact = net.kernel(prior, size).dense(size)
    # A mean over so many channels of 12 x 12 products.
    assert (found - exact).norm() <= 5 * (len(found) / channels) ** 0.5 * exact.norm()


# Vanishing features.


@pytest.mark.parametrize("affine", [False, True])
def test_norm_without_epsilon_keeps_zeros(affine: Any, generator: torch.Generator) -> None:
    z = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    z[:, :4, :5] = 0
    z[:, 0] = 0
    z[:, :, 0] = 0
    rest = (conv(4, 4, 1), tc.ReLU(), conv(4, 1, 1)) if affine else (tc.ReLU(), conv(4, 1, 1))
    net = chain(conv(2, 4, 1), tc.ChannelNorm(4, eps=0, affine=affine), *rest)
    tiny = chain(conv(2, 4, 1), tc.ChannelNorm(4, eps=1e-13, affine=affine), *rest)
    for kind in ("ntk", "nngp"):
        found, close = (n.kernel(tc.priors.Tensor(z), kind=kind).dense() for n in (net, tiny))
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found, close, rtol=1e-5, atol=1e-5)
    windowed = net.kernel(tc.priors.Tensor(z.float()), radius=3).dense()
    assert torch.isfinite(windowed).all()
    with torch.no_grad():
        middle = net.double()[:2](z[None])
    assert (middle[..., 0] == 0).all()
    assert torch.isfinite(middle).all()
    torch.testing.assert_close(middle[0, :, 5, 5].square().mean(), torch.tensor(1.0, dtype=torch.float64))


def test_norm_without_epsilon_of_a_row_of_zeros(generator: torch.Generator) -> None:
    features = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    features[1] = 0
    net = tc.Sequential(tc.Linear(3, 8), tc.ChannelNorm(eps=0), tc.ReLU(), tc.Linear(8, 1))
    gram = net.gram(features)
    assert torch.isfinite(gram).all()
    assert (gram[1] == 0).all()
    close = tc.Sequential(tc.Linear(3, 8), tc.ChannelNorm(eps=1e-13), tc.ReLU(), tc.Linear(8, 1)).gram(features)
    torch.testing.assert_close(gram, close, rtol=1e-6, atol=1e-6)


# Deep and changing networks.


def test_deep_networks_need_no_recursion(generator: torch.Generator) -> None:
    blocks = [layer for _ in range(600) for layer in (tc.Linear(2, 2), tc.ReLU())]
    net = tc.Sequential(*blocks, tc.Linear(2, 1))
    assert torch.isfinite(net.gram(torch.randn(3, 2, generator=generator))).all()
    deep = tc.Sequential(
        conv(1, 1, 3), *(tc.Residual(tc.ReLU(), conv(1, 1, 3)) for _ in range(600)), tc.ReLU(), conv(1, 1, 3)
    )
    start = time.perf_counter()
    deep.require_exact()
    assert deep.propagate(tc.covariance.Extent.start(2)).radius == (0, 0)
    assert time.perf_counter() - start < 5
    assert tc.to_torch(tc.Sequential(*(conv(1, 1, 1) for _ in range(1200))))(torch.zeros(1, 1, 2, 2)).shape == (
        1,
        1,
        2,
        2,
    )


def test_changes_at_any_depth_are_noticed() -> None:
    inner = tc.Sequential(conv())
    net = tc.Sequential(inner, conv(4, 1, 3))
    prior = tc.priors.Uniform()
    net.kernel(prior)
    inner.append(conv(4, 5, 3))
    inner.kernel(prior)
    for _ in range(2):
        with pytest.raises(ValueError, match="needs 4 channels"):
            net.kernel(prior)
    with pytest.raises(ValueError, match="needs 4 channels"):
        copy.deepcopy(net).kernel(prior)
    inner[1] = conv(4, 4, 3)
    expected = tc.Sequential(conv(), conv(), conv(4, 1, 3)).kernel(prior).dense((4, 4))
    assert torch.equal(net.kernel(prior).dense((4, 4)), expected)
    inner[1].weight = inner[0].weight
    with pytest.raises(ValueError, match="a layer with weights appears twice"):
        net.kernel(prior)
    inner.append(torch.nn.ReLU())
    with pytest.raises(TypeError, match="expected layers of torch_cntk, got ReLU"):
        net.kernel(prior)


def test_replaced_branches_run(generator: torch.Generator) -> None:
    net = tc.Residual(tc.ReLU(), conv())
    x = torch.randn(1, 4, 4, 4, generator=generator)
    other = tc.Residual(tc.ReLU(), conv())
    net._modules["1"] = other._modules["1"]
    assert torch.equal(net(x), other(x))
    assert torch.equal(copy.deepcopy(net)(x), other(x))


def test_layers_of_others_need_nothing_but_verbs() -> None:
    class Twice(tc.layers.Layer):
        """Forgets about exactness, as all layers do."""

        def propagate(self, covariance: Any) -> Any:
            return covariance.activate(Rectifier()).activate(Rectifier())

    try:
        with pytest.raises(ValueError, match=r"layer 1, Twice\(\), cannot follow another activation"):
            chain(conv(), Twice())
        with pytest.raises(ValueError, match=r"^Twice\(\) cannot follow"):
            Twice().require_exact(gaussian=True)
    finally:
        del tc.layers.Layer._by_name["Twice"]
    assert isinstance(Signal.of_input(gaussian=True), tc.covariance.Covariance)
