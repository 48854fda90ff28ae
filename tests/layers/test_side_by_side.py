"""Images of branches side by side: neural-tangents, arrays written out, finite networks, gradients, and refusals."""

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
from tests.helpers.strategies.networks import kinds, randomly, seeds
from torch_cntk.covariance import Extent


def network(dim: int = 3, width: int = 4) -> list[tc.Layer]:
    beside = tc.Concat(tc.Conv2d(width, width, 3), tc.Conv2d(width, width, 1), dim=dim)
    return [tc.Conv2d(2, width, 3), tc.ReLU(), beside, tc.ReLU(), tc.Conv2d(width, width, 3), tc.ReLU()]


HEADS: dict[str, list[tc.Layer]] = {
    "pooled": [tc.GlobalAvgPool(), tc.Linear(4, 1)],
    "flat": [tc.Flatten(), tc.Linear(96, 1)],
}


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", HEADS)
def test_gram_equals_neural_tangents(name: str, kind: Any, oracles: Path) -> None:
    with np.load(oracles / "J_concat.npz") as file:
        x1, x2, expected = (torch.from_numpy(file[key]) for key in ("x1", "x2", f"{name}_{kind}"))
    # float64 on both sides, and its arccos.
    found = tc.Sequential(*network(), *HEADS[name]).gram(x1, x2, kind=kind)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def conv(width: int = 3, **options: Any) -> tc.Layer:
    return tc.Conv2d(1, 1, width, **options)


branches: Any = st.sampled_from(
    [
        lambda: conv(),
        lambda: conv(padding_mode="zeros", bias=True, bias_std=0.4),
        lambda: tc.Sequential(tc.ReLU(), conv(1)),
        lambda: tc.Concat(conv(), conv(1), dim=2),
        lambda: tc.Sequential(tc.Concat(conv(), conv(1), dim=3), conv(1, stride=(1, 2))),
    ]
)


@settings(randomly, max_examples=15)
@given(st.lists(branches, min_size=1, max_size=3), st.booleans(), st.sampled_from([2, 3]), seeds, kinds)
def test_pixels_and_images_by_arrays(parts: Any, passed: bool, dim: int, seed: int, kind: Any) -> None:
    made = [part() for part in parts] + [tc.Identity()] * passed
    sizes = [{tc.Concat: (4, 3)}.get(type(part), (2, 3)) for part in made]
    beside = tc.Concat(*made, in_channels=1, dim=dim)
    if len({size[3 - dim] for size in sizes}) > 1:
        with pytest.raises(ValueError, match="expected branches with outputs of one size"):
            beside.propagate(Extent.start(2))
        return
    net = tc.Sequential(tc.Conv2d(2, 1, 3), beside, tc.Erf(), conv())
    images = torch.randn(2, 2, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = between_inputs.propagate(net, images)[("nngp", "ntk").index(kind)]
    found = net.gram(images, output="pixels", kind=kind).movedim(1, 3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    alone = net.kernel(tc.priors.Tensor(images[0]), kind=kind).dense()
    torch.testing.assert_close(alone, expected[0].select(2, 0), rtol=1e-9, atol=1e-9)
    assert net.double()(images).shape[2:] == alone.shape[:2] == net.propagate(Extent.start(2)).output_size((2, 3))


def test_sizes_of_inputs_are_found_from_those_of_outputs() -> None:
    net = tc.Sequential(tc.Concat(tc.StridedConv2d(1, 1, 3), tc.Conv2d(1, 1, 3), dim=2), conv(1, stride=(3, 1)))
    with pytest.raises(ValueError, match="expected branches with outputs of one size"):
        net.kernel(tc.priors.White(1.0), (2, 4))
    net = tc.Sequential(tc.Concat(tc.Conv2d(1, 1, 3, (2, 1)), tc.Conv2d(1, 1, 3), dim=2), conv(1, stride=(3, 1)))
    with pytest.raises(ValueError, match="belongs to one image size"):
        net.kernel(tc.priors.White(1.0))
    kernel = net.kernel(tc.priors.White(1.0), (2, 4))
    expected = brute_force.propagate(net, torch.eye(16, dtype=torch.float64).reshape(4, 4, 4, 4))[1]
    torch.testing.assert_close(kernel.dense((2, 4)), expected, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="got 7"):
        tc.Sequential(tc.Concat(conv(), conv(1), dim=2)).kernel(tc.priors.White(1.0), (7, 4))


def test_finite_networks_have_the_kernel_on_average(generator: torch.Generator) -> None:
    z = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    exact = tc.Sequential(*network(), tc.Conv2d(4, 1, 1)).kernel(tc.priors.Tensor(z)).dense().reshape(8, 8)
    net = tc.Sequential(*network(width=64), tc.Conv2d(64, 1, 1)).double()
    samples = empirical_ntks(net, z, 32, generator).reshape(32, 8, 8)
    error = samples.std(0) / 32**0.5
    # Five standard errors, and 1/width.
    assert ((samples.mean(0) - exact).abs() <= 5 * error + 2 / 64 * exact.abs().max()).all()


def test_gradients(generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    net, body = tc.Sequential(*network(), tc.GlobalAvgPool()), tc.Sequential(*network())
    assert torch.autograd.gradcheck(lambda x: net.gram(x), (x,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda z: body.kernel(tc.priors.Tensor(z)).dense(), (x[0],), fast_mode=True)


def test_description_and_torch(generator: torch.Generator) -> None:
    net = tc.Sequential(*network())
    assert "dim=3" in repr(net)
    again = tc.layers.from_description(net.description())
    assert again.description() == net.description()
    x = torch.randn(2, 2, 3, 4, generator=generator)
    plain = tc.to_torch(net)
    assert plain(x).shape == (2, 4, 3, 8)
    torch.testing.assert_close(plain(x), net(x))


def test_what_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="for a batch, concatenate the inputs"):
        tc.Concat(conv(), conv(), dim=0)
    with pytest.raises(ValueError, match=r"counted from the first axis, .*, got -1"):
        tc.Concat(conv(), conv(), dim=-1)
    for dim in (2.0, True, "2", None):
        with pytest.raises(TypeError, match=f"expected dim to be an integer, got {dim!r}"):
            tc.Concat(conv(), conv(), dim=dim)  # type: ignore[arg-type]
    assert repr(tc.Concat(conv(), conv(), dim=np.int64(2))) == repr(tc.Concat(conv(), conv(), dim=2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="branches of a concatenation of pixels to end in weight layers of their own"):
        tc.Sequential(conv(), tc.Concat(tc.ReLU(), tc.Identity(), dim=2))
    with pytest.raises(ValueError, match="cannot follow a sum with a branch that is not Gaussian"):
        tc.Sequential(conv(), tc.Concat(tc.ReLU(), conv(), dim=2), tc.Erf())
    with pytest.raises(ValueError, match="at least 3 axes of pixels, got 2"):
        tc.Concat(conv(), conv(1), dim=4).kernel(tc.priors.White(1.0), (4, 4))
    with pytest.raises(ValueError, match="of one shape but for axis 3"):
        tc.Concat(conv(), tc.Sequential(conv(), tc.NearestUp(2)), dim=3)(torch.ones(1, 1, 2, 2))
    rows = tc.Concat(tc.Linear(2, 3), tc.Linear(2, 3), dim=2)
    with pytest.raises(ValueError, match="got inputs without pixels"):
        rows.gram(torch.randn(2, 2, generator=generator))
