"""Self-attention: against matrices written out, neural-tangents, finite networks, gradients, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers import between_inputs, brute_force
from tests.helpers.monte_carlo import empirical_ntks
from tests.helpers.networks import CONV
from tests.helpers.strategies.networks import exact_or_none, kinds, layer_options, randomly, seeds
from torch_cntk.covariance import Mechanism

MECHANISMS: list[Mechanism] = ["softmax", "identity", "relu", "abs"]


def network(channels: int = 4, heads: int = 1, **options: Any) -> tc.Sequential:
    return tc.Sequential(
        *(tc.Conv2d(2, channels, 3), tc.ReLU()),
        tc.SelfAttention(channels, channels, heads, bias=True, bias_std=0.3, **options),
        *(tc.ReLU(), tc.Conv2d(channels, 1, 3)),
    )


@st.composite
def networks(draw: st.DrawFn, ndim: int) -> Any:
    """Chains with one or two attentions."""
    conv, activation, _ = layer_options(ndim)
    attention = st.builds(
        lambda mechanism, scale, bias, kind: tc.SelfAttention(
            *(1, 1), mechanism=mechanism, logit_scale=scale, bias=bias, weight_std=0.7, parameterisation=kind
        ),
        st.sampled_from(MECHANISMS),
        st.sampled_from([0.3, 1.0]),
        st.booleans(),
        st.sampled_from(["ntk", "standard"]),
    )
    last = st.sampled_from([[], [tc.BilinearUp(2)]])
    before, after = (draw(st.lists(conv | activation | attention, max_size=2)) for _ in range(2))
    return exact_or_none([CONV[ndim](1, 1, 3), *before, draw(attention), *after, *draw(last)])


@settings(randomly, max_examples=20)
@given(st.data(), st.integers(1, 2), seeds, kinds)
def test_pixels_and_images_by_matrices(data: Any, ndim: int, seed: int, kind: Any) -> None:
    """Kernels of one image in the form of displacements and in that of pairs, and those between images."""
    net = data.draw(networks(ndim).filter(lambda net: net is not None))
    generator = torch.Generator().manual_seed(seed)
    images = 0.7 * torch.randn(2, 1, *((4, 2)[:ndim] if ndim == 2 else (6,)), generator=generator, dtype=torch.float64)
    which = ("nngp", "ntk").index(kind)
    try:
        expected = between_inputs.propagate(net, images)[which]
        found = net.gram(images, output="pixels", kind=kind)
        alone = net.kernel(tc.priors.Tensor(images[0]), kind=kind).dense()
    except ValueError as error:
        assert "multiple of" in str(error)
        return
    # float64; angles of features that are close by chance have few digits.
    scale = 1e-7 * expected.abs().max()
    assert (found.movedim(1, 1 + ndim) - expected).abs().max() <= scale
    assert (alone - expected[0].select(ndim, 0)).abs().max() <= scale
    # The rest of the images makes no difference to a pair of them.
    assert (net.gram(images[:1], images[1:], output="pixels", kind=kind)[0, 0] - found[0, 1]).abs().max() <= scale


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("head", [tc.Flatten(), tc.GlobalAvgPool()], ids=repr)
def test_heads(head: Any, kind: Any, generator: torch.Generator) -> None:
    images = torch.randn(5, 2, 3, 2, generator=generator, dtype=torch.float64)
    net = tc.Sequential(*network(logit_scale=0.6), tc.Erf(), head)
    expected = between_inputs.propagate(net, images)[("nngp", "ntk").index(kind)]
    torch.testing.assert_close(net.gram(images, kind=kind), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(net.gram(images[:2], images[2:], kind=kind), expected[:2, 2:], atol=1e-12, rtol=1e-12)
    w = torch.randn(5, generator=generator, dtype=torch.float64)
    operator = net.gram_operator(images, kind=kind)
    torch.testing.assert_close(operator @ w, expected @ w, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(operator.diagonal, expected.diagonal(), atol=1e-12, rtol=1e-12)


def test_three_dimensions_and_attention_at_the_input(generator: torch.Generator) -> None:
    volume = torch.randn(2, 2, 3, 2, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.SelfAttention(2, 4), tc.Erf(), tc.Conv3d(4, 1, 3, padding_mode="zeros"))
    expected = brute_force.propagate(net, brute_force.feature_prior(volume))[1]
    found = net.kernel(tc.priors.Tensor(volume)).dense()
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("prior", [tc.priors.Uniform(-0.5, 1), tc.priors.Coordinates(2.0) + tc.priors.White(0.1)])
def test_kernels_of_stationary_priors_stay_periodic_and_belong_to_one_size(prior: Any) -> None:
    net = tc.Sequential(*network(), tc.NearestUp(2))
    with pytest.raises(ValueError, match="belongs to one image size"):
        net.kernel(prior)
    kernel = net.kernel(prior, (6, 8))
    assert kernel.period == (2, 2)
    sigma = prior.covariance((3, 4), torch.device("cpu")).tabulate("nngp")[0]
    a = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"))
    here, there = a[:, :, :, None, None], a[:, None, None]
    start = sigma.lookup(list(there - here), list(here.expand(2, 3, 4, 1, 1)))[0]
    torch.testing.assert_close(kernel.dense((6, 8)), brute_force.propagate(net, start)[1], atol=1e-12, rtol=1e-12)


def test_kernels_are_symmetric_where_pixels_become_nearly_equal() -> None:
    """Weights that are nearly equal make pixels of one direction, and a last digit of Sigma half of Theta's digits.

    Fixed draws: of these 20, eight had entries that differed by 1e-9 from those across the diagonal.
    """
    attention = [tc.SelfAttention(1, 1, mechanism="abs", logit_scale=0.3), tc.SelfAttention(1, 1, logit_scale=-2)]
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), *attention, tc.ReLU())
    for seed in range(20):
        features = 3 * torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        matrix = net.kernel(tc.priors.Tensor(features)).dense().reshape(24, 24)
        assert torch.equal(matrix, matrix.T)


def test_window_of_a_kernel_has_its_entries(generator: torch.Generator) -> None:
    z = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    net = network()
    whole = net.kernel(tc.priors.Tensor(z)).dense()
    near = net.kernel(tc.priors.Tensor(z), radius=3, dtype=torch.float64)
    taper = (1 - 1 / 3) ** 4 * (4 / 3 + 1)
    for x, other in (((0, 0), (1, 0)), ((4, 2), (4, 3)), ((5, 7), (0, 7))):
        assert near.at(x, other) == pytest.approx(taper * float(whole[(*x, *other)]), rel=1e-9)


def of_mechanism(mechanism: Mechanism) -> list[tc.Layer]:
    attention = tc.SelfAttention(4, 4, 2, mechanism=mechanism, logit_scale=0.5)
    return [tc.Conv2d(2, 4, 3), attention, tc.ReLU(), tc.Flatten(), tc.Linear(48, 1)]


ORACLES: dict[str, list[tc.Layer]] = {
    # Its ReLU is not normalised: half of the logits.
    "pooled": [
        *(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.SelfAttention(4, 4, 2, logit_scale=0.5, bias=True, bias_std=0.3)),
        *(tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(4, 1)),
    ],
    "first": [
        *(tc.SelfAttention(2, 4, 2, logit_scale=3.0, head_channels=2), tc.ReLU(), tc.SelfAttention(4, logit_scale=0.5)),
        *(tc.Flatten(), tc.Linear(48, 1, weight_std=2**0.5)),
    ],
    **{name: of_mechanism(name) for name in MECHANISMS[1:]},
}


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", ORACLES)
def test_gram_equals_neural_tangents(name: str, kind: Any, oracles: Path) -> None:
    with np.load(oracles / "J_attention.npz") as file:
        x1, x2, expected = (torch.from_numpy(file[key]) for key in ("x1", "x2", f"{name}_{kind}"))
    found = tc.Sequential(*ORACLES[name]).gram(x1, x2, kind=kind)
    # float64 on both sides, and its arccos.
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("heads", [1, 2])
def test_finite_networks_have_the_kernel_on_average(heads: int, generator: torch.Generator) -> None:
    z = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    exact = network().kernel(tc.priors.Tensor(z)).dense((3, 3)).reshape(9, 9)
    samples = empirical_ntks(network(64 * heads, heads).double(), z, 32, generator).reshape(32, 9, 9)
    error = samples.std(0) / 32**0.5
    # Five standard errors, and some 1/d of the variance of logits, which makes the weights uneven.
    assert ((samples.mean(0) - exact).abs() <= 5 * error + 8 / 64 * exact.abs().max()).all()


def test_gradients(generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    scale, std = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 1.3))

    def gram(x: torch.Tensor, scale: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        return tc.Sequential(*network(logit_scale=scale, weight_std=std), tc.Erf(), tc.Flatten()).gram(x)

    def kernel(z: torch.Tensor, scale: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        return network(logit_scale=scale, weight_std=std).kernel(tc.priors.Tensor(z)).dense()

    assert torch.autograd.gradcheck(gram, (x, scale, std), fast_mode=True)
    z = x.detach()[0].requires_grad_()
    assert torch.autograd.gradcheck(kernel, (z, scale, std), fast_mode=True)
    with torch.no_grad():
        plain = kernel(z, scale, std)
    torch.testing.assert_close(kernel(z, scale, std).detach(), plain, rtol=1e-12, atol=1e-14)


def test_forward_is_torch_attention_with_tied_weights(generator: torch.Generator) -> None:
    layer = tc.SelfAttention(6, 5, 3, logit_scale=1.7, bias=True)
    x = torch.randn(2, 6, 3, 4, generator=generator)
    pixels = x.flatten(2).mT
    weights = [part.effective()[0] for part in (layer.key, layer.key, layer.value)]
    q, k, v = ((pixels @ w.T).reshape(2, 12, 3, 2).transpose(1, 2) for w in weights)
    heads = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.7 / 2).transpose(1, 2).flatten(2)
    expected = torch.nn.functional.linear(heads, *layer.effective()).mT.reshape(2, 5, 3, 4)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    other = tc.layers.reparameterise(layer, "standard")
    torch.testing.assert_close(other(x), layer(x), atol=1e-5, rtol=1e-5)


def test_what_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="that 3 heads divide, or head_channels, got 4"):
        tc.SelfAttention(4, 4, 3)
    with pytest.raises(ValueError, match="a mechanism among softmax"):
        tc.SelfAttention(4, mechanism="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected input of shape \[batch, 4, \*size\]"):
        tc.SelfAttention(4)(torch.ones(2, 4))
    rows = tc.Sequential(tc.Linear(3, 4), tc.SelfAttention(4), tc.Linear(4, 1))
    with pytest.raises(ValueError, match="expected pixels to attend to"):
        rows.gram(torch.randn(2, 3, generator=generator))
    with pytest.raises(ValueError, match="a depthwise convolution of the network's input"):
        tc.Sequential(tc.Conv2d(2, 4, 3, groups=2), tc.SelfAttention(4)).kernel(tc.priors.Tensor(torch.ones(2, 3, 3)))
    with pytest.raises(ValueError, match="MultiheadAttention divides by the root of d"):
        tc.to_torch(network())
    guided = tc.images.Guided(network=tc.Sequential(tc.SelfAttention(3), tc.Conv2d(3, 1, 3)))
    image, observed = torch.rand(1, 16, 16, generator=generator), torch.rand(16, 16, generator=generator) < 0.5
    with pytest.raises(ValueError, match="whose pixels see a part of the image"):
        tc.inpaint(image, observed, passes=1, guidance=guided)
