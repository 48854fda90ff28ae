"""Kernels of networks in training mode: neural-tangents, arrays written out, finite networks with masks, refusals."""

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
from tests.helpers.strategies.networks import kinds, randomly, seeds


def drop(p: float, **options: Any) -> tc.Dropout:
    return tc.Dropout(p, in_kernel=True, **options)


def images_network(width: int = 4, **options: Any) -> list[tc.Layer]:
    first, second = drop(0.2, **options), drop(0.4, **options)
    return [tc.Conv2d(2, width, 3), tc.ReLU(), first, tc.Conv2d(width, width, 3), tc.ReLU(), second]


ORACLES: dict[str, list[tc.Layer]] = {
    "rows": [
        *(tc.Linear(24, 4), tc.ReLU(), drop(0.2), tc.Linear(4, 4, bias=True, bias_std=0.2), tc.ReLU(), drop(0.5)),
        tc.Linear(4, 1),
    ],
    "pooled": [*images_network(), tc.GlobalAvgPool(), tc.Linear(4, 1)],
    "flat": [*images_network(), tc.Flatten(), tc.Linear(48, 1)],
}


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", ORACLES)
def test_gram_equals_neural_tangents(name: str, kind: Any, oracles: Path) -> None:
    """Between two sets, and within one, where each input has the same masks as itself."""
    with np.load(oracles / "J_dropout.npz") as file:
        x1, x2 = (torch.from_numpy(file[key]) for key in ("x1", "x2"))
        between, within = (torch.from_numpy(file[f"{name}{which}_{kind}"]) for which in ("", "_same"))
    if name == "rows":
        x1, x2 = x1.flatten(1), x2.flatten(1)
    net = tc.Sequential(*ORACLES[name])
    # float64 on both sides, and its arccos.
    torch.testing.assert_close(net.gram(x1, x2, kind=kind), between, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(net.gram(x1, kind=kind), within, rtol=1e-11, atol=1e-13)
    operator = net.gram_operator(x1, kind=kind)
    torch.testing.assert_close(operator.diagonal, within.diagonal(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(operator.multiply(torch.eye(3, dtype=torch.float64)), within, rtol=1e-11, atol=1e-13)
    index = [torch.arange(3)[:, None], torch.arange(3)]
    torch.testing.assert_close(operator.lookup([index[0]], [index[1]]), within, rtol=1e-11, atol=1e-13)


def test_a_channel_of_rows_is_an_entry(generator: torch.Generator) -> None:
    """Forward and kernel: moments of masked rows, and the Monte Carlo of neural-tangents' rows above."""
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    layer = drop(0.4, channels=True).train()
    draws = torch.stack([layer(x) for _ in range(20_000)])
    # Moments of entries by themselves and of two of them; the deviations of 20,000 draws are below .02 of the squares.
    moments = (draws[..., :, None] * draws[..., None, :]).mean(0)
    expected = x[:, :, None] * x[:, None, :] * (1 + (1 / 0.6 - 1) * torch.eye(5, dtype=torch.float64))
    assert float((moments - expected).abs().max()) < 0.1 * float(x.square().max())
    body = tc.Linear(5, 4), tc.ReLU()
    rows, entries = (tc.Sequential(*body, drop(0.4, channels=c), tc.Linear(4, 1)) for c in (True, False))
    assert torch.equal(rows.gram(x), entries.gram(x))
    with pytest.raises(ValueError, match=r"expected input of shape \[batch, channels, \*size\] or \[batch, features\]"):
        layer(x[0])


def conv(channels: int = 1, **options: Any) -> tc.Layer:
    return tc.Conv1d(channels, 1, 3, **options)


blocks: Any = st.sampled_from(
    [
        lambda d: [conv(), tc.ReLU(), d],
        lambda d: [conv(padding_mode="zeros"), tc.Erf(), d, tc.NearestUp(2)],
        lambda d: [tc.StridedConv1d(1, 1, 3), d, tc.BilinearUp(2)],
        lambda d: [tc.Residual(tc.ReLU(), d, conv()), tc.ChannelNorm(eps=0.1), d],
        lambda d: [conv(), d, tc.SelfAttention(1, 1), tc.ReLU()],
        lambda d: [tc.Concat(tc.Sequential(tc.ReLU(), d), conv(), in_channels=1), tc.Conv1d(2, 1, 1)],
    ]
)


@settings(randomly, max_examples=15)
@given(
    st.lists(
        st.tuples(blocks, st.builds(drop, st.sampled_from([0.2, 0.6]), channels=st.booleans())), min_size=1, max_size=2
    ),
    seeds,
    kinds,
)
def test_pixels_and_images_by_arrays(parts: Any, seed: int, kind: Any) -> None:
    net = tc.Sequential(conv(2), *(layer for make, dropout in parts for layer in (*make(dropout), conv())))
    images = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    which = ("nngp", "ntk").index(kind)
    expected = between_inputs.propagate(net, images)[which]
    found = net.gram(images, output="pixels", kind=kind).movedim(1, 2)
    # float64; angles of features that are close by chance have few digits.
    scale = 1e-7 * expected.abs().max()
    assert (found - expected).abs().max() <= scale
    alone = net.kernel(tc.priors.Tensor(images[0]), kind=kind)
    assert (alone.dense() - expected[0, :, 0]).abs().max() <= scale


@pytest.mark.parametrize("channels", [False, True])
def test_periodic_and_windowed_kernels(channels: bool) -> None:
    body = [*images_network()[:2], drop(0.3, channels=channels), tc.NearestUp(2), tc.Conv2d(4, 1, 3)]
    net = tc.Sequential(*body)
    kernel = net.kernel(tc.priors.Uniform(0, 1))
    assert kernel.period == (2, 2)
    expected = brute_force.propagate(net, brute_force.independent_prior((3, 4), 0.5, 1 / 3))[1]
    torch.testing.assert_close(kernel.dense((6, 8)), expected, rtol=1e-12, atol=1e-13)
    near = net.kernel(tc.priors.Uniform(0, 1), (6, 8), radius=3, dtype=torch.float64)
    assert near.at((2, 3), (2, 3)) == pytest.approx(float(expected[2, 3, 2, 3]), rel=1e-12)


@pytest.mark.parametrize("channels", [False, True])
def test_finite_networks_in_training_have_the_kernel_on_average(channels: bool, generator: torch.Generator) -> None:
    """Masks are drawn in each pass, one for each image: the Jacobians of one pass through a batch."""
    x = torch.randn(2, 2, 2, 2, generator=generator, dtype=torch.float64)
    exact = tc.Sequential(*images_network(channels=channels), tc.Conv2d(4, 1, 1))
    expected = exact.gram(x, output="pixels").movedim(1, 3).reshape(8, 8)
    width, draws = 128, 64
    net = tc.Sequential(*images_network(width, channels=channels), tc.Conv2d(width, 1, 1)).double()
    samples = []
    torch.manual_seed(int(torch.randint(1 << 31, (1,), generator=generator)))
    for _ in range(draws):
        for layer in net.modules():
            if isinstance(layer, tc.layers.Weighted):
                layer.reset_parameters(generator)
        outputs = net(x).flatten()
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(o, list(net.parameters()), retain_graph=True)])
            for o in outputs
        ]
        jacobian = torch.stack(rows)
        samples.append(jacobian @ jacobian.T)
    kernels = torch.stack(samples)
    error = kernels.std(0) / draws**0.5
    # Five standard errors, and 1/width of the fourth moments of what is kept.
    assert ((kernels.mean(0) - expected).abs() <= 5 * error + 4 / width * expected.abs().max()).all()
    net.eval()
    plain = tc.Sequential(*(tc.Dropout(0.2) if isinstance(m, tc.Dropout) else m for m in net.layers))
    torch.testing.assert_close(net(x), plain.eval()(x))


def test_gradients(generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    net = tc.Sequential(*images_network(), tc.Conv2d(4, 4, 1), tc.Erf(), tc.GlobalAvgPool())
    assert torch.autograd.gradcheck(lambda x: net.gram(x), (x,), fast_mode=True)
    body = tc.Sequential(*images_network())
    assert torch.autograd.gradcheck(lambda z: body.kernel(tc.priors.Tensor(z)).dense(), (x[0],), fast_mode=True)
    rows = tc.Sequential(tc.Linear(4, 4), tc.ReLU(), drop(0.3), tc.Linear(4, 1))
    y = x.detach().flatten(2)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda y: rows.gram(y), (y,), fast_mode=True)


def test_by_default_and_in_either_mode_the_kernel_does_not_see_it(generator: torch.Generator) -> None:
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    nets = [
        tc.Sequential(tc.Linear(4, 4), tc.ReLU(), layer, tc.Linear(4, 1)) for layer in (tc.Dropout(), tc.Identity())
    ]
    assert torch.equal(nets[0].gram(x), nets[1].gram(x))
    seen = tc.Sequential(tc.Linear(4, 4), tc.ReLU(), drop(0.5), tc.Linear(4, 1))
    assert torch.equal(seen.gram(x), seen.eval().gram(x))
    assert (seen.gram(x).diagonal() > 1.4 * nets[0].gram(x).diagonal()).all()
    assert repr(seen[2]) == "Dropout(0.5, in_kernel=True)"
    assert tc.layers.from_description(seen.description()).description() == seen.description()


def test_what_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"cannot follow dropout that the kernel sees"):
        tc.Sequential(tc.Linear(4, 4), drop(0.5), tc.ReLU())
    early = tc.Sequential(drop(0.5), tc.Linear(4, 1))
    with pytest.raises(ValueError, match="of infinitely many channels, got as many as the network's input"):
        early.gram(torch.randn(2, 4, generator=generator))
    seen = tc.Sequential(tc.Linear(4, 4), tc.ReLU(), drop(0.5), tc.Linear(4, 1))
    for function in (tc.empirical_ntk, tc.monte_carlo_kernel):
        with pytest.raises(ValueError, match="whose kernel is that of eval mode"):
            function(seen, torch.randn(2, 4, generator=generator))
