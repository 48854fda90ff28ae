"""The kernel between images: brute force on random networks, Monte Carlo, and the kernel between pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

import torch_cntk as tc
from tests.helpers import between_inputs
from torch_cntk.covariance.pairs import evaluation

CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}
POOL = {1: tc.AvgPool1d, 2: tc.AvgPool2d, 3: tc.AvgPool3d}
UP = {1: tc.ConvTranspose1d, 2: tc.ConvTranspose2d, 3: tc.ConvTranspose3d}
SUM = {1: tc.SumPool1d, 2: tc.SumPool2d, 3: tc.SumPool3d}
SIZES = {1: (6,), 2: (4, 2), 3: (2, 4, 2)}
# float64 on both sides; angles of features that are close by chance have some digits less.
EXACT = 1e-11


def images(generator: torch.Generator, n: int, size: tuple[int, ...], channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, *size, generator=generator, dtype=torch.float64)


def conv(ndim: int, channels: int = 4, width: int = 3, **options: Any) -> tc.Layer:
    return CONV[ndim](channels, 4, width, **options)


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = EXACT) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def assert_is_the_recursion(net: tc.Layer, x: torch.Tensor, y: torch.Tensor, tolerance: float = EXACT) -> None:
    """Both kinds, between one set and another, and within one of them."""
    joint = between_inputs.propagate(net, torch.cat([x, y]))
    for kind, expected in zip(("nngp", "ntk"), joint, strict=True):
        n = len(x)
        if expected.ndim > 2:
            expected = expected.movedim(expected.ndim // 2, 1)
            found = [net.gram(x, kind=kind, output="pixels"), net.gram(x, y, kind=kind, output="pixels")]
        else:
            found = [net.gram(x, kind=kind), net.gram(x, y, kind=kind)]
        assert_close(found[0], expected[:n, :n], tolerance)
        assert_close(found[1], expected[:n, n:], tolerance)


def flatten_head(ndim: int) -> list[tc.Layer]:
    return [tc.Flatten()]


def pool_head(ndim: int) -> list[tc.Layer]:
    return [tc.GlobalAvgPool(), tc.Linear(4, 4, bias=True, bias_std=0.3), tc.LeakyReLU(0.2), tc.Linear(4, 1)]


def pixel_head(ndim: int) -> list[tc.Layer]:
    return [conv(ndim, width=1)]


def kept_head(ndim: int) -> list[tc.Layer]:
    return [tc.GlobalAvgPool(keepdim=True), conv(ndim, width=1), tc.ReLU(), tc.Flatten(), tc.Linear(4, 1)]


BODIES: dict[str, Callable[[int], list[tc.Layer]]] = {
    "conv": lambda d: [conv(d, 3), tc.ReLU(), conv(d, bias=True, bias_std=0.5), tc.LeakyReLU(0.1)],
    "zeros": lambda d: [conv(d, 3, padding_mode="zeros"), tc.ReLU(), conv(d, 4, 5, padding_mode="zeros"), tc.ReLU()],
    "stride": lambda d: [CONV[d](3, 4, 3, stride=2), tc.Erf(), tc.NearestUp(2), conv(d), tc.ReLU()],
    "pool": lambda d: [conv(d, 3), tc.ReLU(), POOL[d](2), conv(d, padding_mode="zeros"), tc.ReLU()],
    "sum": lambda d: [conv(d, 3), SUM[d](2), tc.Sin()],
    "up": lambda d: [conv(d, 3), tc.ReLU(), tc.BilinearUp(2, padding_mode="border"), conv(d), tc.ReLU()],
    "blur": lambda d: [conv(d, 3), tc.GaussianBlur(3, 0.7), tc.ReLU(), conv(d), tc.ReLU()],
    "residual": lambda d: [
        conv(d, 3),
        tc.Residual(tc.ReLU(), conv(d)),
        tc.ChannelNorm(4, eps=0.1, affine=True),
        conv(d),
    ],
    "branches": lambda d: [
        conv(d, 3),
        tc.Sum(
            tc.Sequential(tc.ReLU(), CONV[d](4, 4, 3, stride=2)), tc.Sequential(POOL[d](2), conv(d, width=1, bias=True))
        ),
        tc.ReLU(),
    ],
    "concat": lambda d: [conv(d, 3), tc.Concat(tc.ReLU(), tc.Abs(), in_channels=4), CONV[d](8, 4, 1), tc.ReLU()],
    "valid": lambda d: [conv(d, 3, 2, padding=0), tc.ReLU(), conv(d, 4, 3, padding_mode="zeros"), tc.ReLU()],
    "dilated": lambda d: [conv(d, 3, 3, dilation=2), tc.ReLU(), conv(d, 4, 2, weight_std=1.3, bias=True), tc.Erf()],
    "grouped": lambda d: [conv(d, 3), CONV[d](4, 4, 3, groups=2), conv(d, 4, 1), tc.ReLU()],
    "transposed": lambda d: [UP[d](3, 4, 3, stride=2, padding_mode="zeros"), tc.ReLU(), conv(d), tc.ReLU()],
    "overlap": lambda d: [conv(d, 3), tc.ReLU(), POOL[d](3, 1, 1), conv(d), tc.ReLU()],
    "standard": lambda d: [conv(d, 3, parameterisation="standard", bias=True, bias_std=0.5), tc.ReLU(), conv(d)],
    "nothing": lambda d: [],
}
HEADS = (flatten_head, pool_head, kept_head, pixel_head)


@pytest.mark.parametrize(
    ("body", "ndim"), [*((body, ndim) for body in BODIES for ndim in (1, 2)), ("conv", 3), ("zeros", 3), ("pool", 3)]
)
def test_gram_is_the_textbook_recursion(
    body: str, ndim: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks and boxes of a few numbers: all seams are met.
    monkeypatch.setitem(evaluation._SLAB_ENTRIES, "cpu", int(torch.randint(50, 3000, (), generator=generator)))
    x, y = images(generator, 3, SIZES[ndim]), images(generator, 2, SIZES[ndim])
    # Images of twice as many pixels: the recursion holds the square of them.
    for head in HEADS if ndim == 1 or body not in ("up", "transposed") else HEADS[:2]:
        layers = [*BODIES[body](ndim), *head(ndim)]
        if body == "nothing":
            layers = [tc.Flatten()] if head is flatten_head else [conv(ndim, 3), *head(ndim)]
        assert_is_the_recursion(tc.Sequential(*layers), x, y)


@st.composite
def networks(draw: st.DrawFn) -> tuple[tc.Sequential, tuple[int, ...]]:
    """A stack of random steps behind a convolution, under a random head, and a size that fits."""
    ndim = draw(st.sampled_from([1, 1, 2]))
    layers: list[tc.Layer] = [conv(ndim, 3, draw(st.sampled_from([1, 3, 5])))]
    factor = 1
    for _ in range(draw(st.integers(1, 3))):
        layers.append(draw(st.sampled_from([tc.ReLU(), tc.LeakyReLU(0.3), tc.Abs(), tc.Erf()])))
        step = draw(st.sampled_from(["plain", "zeros", "stride", "pool", "up", "residual"]))
        if step in ("stride", "pool"):
            factor *= 2
        steps: dict[str, list[tc.Layer]] = {
            "plain": [conv(ndim)],
            "zeros": [conv(ndim, padding_mode="zeros", bias=True)],
            "stride": [CONV[ndim](4, 4, 3, stride=2)],
            "pool": [POOL[ndim](2), conv(ndim)],
            "up": [tc.NearestUp(2), conv(ndim)],
            "residual": [conv(ndim), tc.Residual(tc.ReLU(), conv(ndim), tc.ReLU(), conv(ndim))],
        }
        layers += steps[step]
    head = draw(st.sampled_from(HEADS))
    size = tuple(factor * draw(st.integers(1, 2)) for _ in range(ndim))
    return tc.Sequential(*layers, *head(ndim)), size


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(networks(), st.integers(0, 2**31))
def test_random_networks(case: tuple[tc.Sequential, tuple[int, ...]], seed: int) -> None:
    net, size = case
    generator = torch.Generator().manual_seed(seed)
    x, y = images(generator, 2, size), images(generator, 2, size)
    # Few pixels in few channels: chance brings features close, and their angles lose digits.
    assert_is_the_recursion(net, x, y, 1e-9)


def test_blocks_do_not_show(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tc.Sequential(conv(2, 3), tc.ReLU(), conv(2), tc.ReLU(), tc.Flatten(), tc.Linear(4 * 24, 1))
    x = images(generator, 9, (4, 6))
    whole = net.gram(x)
    monkeypatch.setitem(evaluation._SLAB_ENTRIES, "cpu", 24 * 4)
    assert_close(net.gram(x), whole, 1e-14)
    assert_close(net.gram(x[:5], x[5:]), whole[:5, 5:], 1e-14)
    assert torch.equal(whole, whole.T)


@pytest.mark.parametrize("head", [tc.GlobalAvgPool(), tc.Flatten()])
@pytest.mark.parametrize("after", ["nothing", "both"])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_last_activation_under_a_bare_head(
    head: tc.Layer, after: str, depth: int, generator: torch.Generator
) -> None:
    """Nobody reads Sigma of the last activation but where another branch reads it too."""
    body = [conv(2, 3), tc.ReLU(), conv(2), tc.LeakyReLU(0.3)][: 2 * depth]
    features = 4 * 8 if isinstance(head, tc.Flatten) else 4
    other = [conv(2), tc.ReLU(), head, tc.Linear(features, features)]
    ends: dict[str, list[tc.Layer]] = {
        "nothing": [head],
        "both": [tc.Sum(tc.Sequential(head), tc.Sequential(*other))],
    }
    x, y = images(generator, 3, (4, 2)), images(generator, 2, (4, 2))
    assert_is_the_recursion(tc.Sequential(*body, *ends[after]), x, y)


def test_an_image_with_itself_is_the_kernel_between_its_pixels(generator: torch.Generator) -> None:
    """The same images, several times: every entry is the pixel kernel, reduced as the head does it."""
    body = [conv(2, 3), tc.ReLU(), conv(2), tc.ReLU(), conv(2, width=1)]
    (image,) = images(generator, 1, (4, 6))
    x = image.expand(3, 3, 4, 6)
    pixels = tc.Sequential(*body).kernel(tc.priors.Tensor(image)).dense().reshape(24, 24)
    pooled, flat = (tc.Sequential(*body, head).gram(x) for head in (tc.GlobalAvgPool(), tc.Flatten()))
    assert_close(pooled, pixels.mean().expand(3, 3), 1e-13)
    assert_close(flat, pixels.diagonal().mean().expand(3, 3), 1e-13)
    assert_close(tc.Sequential(*body).gram(x, output="pixels")[0, 2], pixels.reshape(4, 6, 4, 6), 1e-13)


def test_flattened_images_are_rows(generator: torch.Generator) -> None:
    rows = [tc.Linear(3 * 24, 8), tc.ReLU(), tc.Linear(8, 8, bias=True), tc.GELU(), tc.Linear(8, 1)]
    x, y = images(generator, 5, (4, 6)), images(generator, 3, (4, 6))
    found = tc.Sequential(tc.Flatten(), *rows).gram(x, y)
    assert_close(found, tc.Sequential(*rows).gram(x.flatten(1), y.flatten(1)), 1e-13)
    # Rows of numbers are flat already.
    assert torch.equal(tc.Sequential(tc.Flatten(), *rows).gram(x.flatten(1)), tc.Sequential(*rows).gram(x.flatten(1)))


def test_float32_is_as_close_as_its_digits(generator: torch.Generator) -> None:
    net = tc.Sequential(conv(2, 3), tc.ReLU(), conv(2), tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(4, 1))
    x = images(generator, 4, (4, 6))
    found = net.gram(x, dtype=torch.float32)
    assert found.dtype == torch.float64
    # Seven digits, some of which the angles take.
    assert_close(found, net.gram(x), 1e-4)


def test_vanishing_images_are_like_others(generator: torch.Generator) -> None:
    net = tc.Sequential(conv(1, 3), tc.ReLU(), conv(1), tc.ReLU(), tc.GlobalAvgPool())
    x = images(generator, 3, (6,))
    x[1] = 0
    x[2, :, :4] = 0
    kernel = net.gram(x)
    assert torch.isfinite(kernel).all()
    assert (kernel[1] == 0).all()


@pytest.mark.parametrize("head", [flatten_head, pool_head])
def test_finite_networks_come_close(head: Any, generator: torch.Generator) -> None:
    """The mean of empirical kernels of the same layers, drawn anew each time, within its own standard error."""
    width, draws = 64, 24
    x = images(generator, 2, (4, 4), 2)
    body = [
        tc.Conv2d(2, width, 3),
        tc.ReLU(),
        tc.AvgPool2d(2),
        tc.Conv2d(width, width, 3, padding_mode="zeros"),
        tc.ReLU(),
    ]
    last = [tc.Linear(4 * width, 1)] if head is flatten_head else [tc.Linear(width, 1)]
    net = tc.Sequential(*body, head(2)[0], *last).double()
    kernels = []
    for _ in range(draws):
        for layer in net.modules():
            if isinstance(layer, tc.layers.Weighted):
                layer.reset_parameters(generator)
        kernels.append(tc.empirical_ntk(net, x))
    drawn = torch.stack(kernels)
    expected = net.gram(x)
    error = drawn.std(0) / math.sqrt(draws)
    # Five standard errors, and what a width of 64 is off by itself.
    assert ((drawn.mean(0) - expected).abs() <= 5 * error + 2 / width * expected.abs().max()).all()


def test_what_does_not_fit_is_refused(generator: torch.Generator) -> None:
    net = tc.Sequential(conv(2, 3), tc.ReLU(), tc.Flatten(), tc.Linear(96, 1))
    pixels = tc.Sequential(conv(2, 3), tc.ReLU(), conv(2))
    x = images(generator, 2, (4, 6))
    for call, message in (
        (lambda: pixels.gram(x), "expected a network that ends in a head .* got one that ends in 4 x 6 pixels"),
        (lambda: net.gram(x, output="pixels"), 'expected output="inputs" for a network that ends in no pixels'),
        (lambda: net.gram(x, output="images"), 'expected output "inputs" or "pixels"'),  # type: ignore[call-overload]
        (lambda: net.gram(x[0]), r"expected \[n, channels, height, width\], got shape \(3, 4, 6\)"),
        (lambda: net.gram(x[:, :2]), "expected the network's 3 channels, got 2"),
        (lambda: net.gram(x, x[..., :5]), "do not fit the network"),
        (lambda: net.gram(images(generator, 2, (5, 6))), "do not fit the network: .*96"),
        (lambda: net.gram(x, kind="both"), 'expected kind "ntk" or "nngp"'),
        (lambda: net.gram(x.where(x < 1, math.nan)), "expected finite features"),
        (lambda: net.gram_operator(x, white=1.0), "expected white=0 for images"),
        (lambda: net.kernel(tc.priors.White(1.0), (4, 6)), "the network ends in no pixels"),
        (lambda: tc.Sequential(conv(2), tc.Flatten(), tc.ReLU()), "cannot follow a flattening"),
        (lambda: tc.Sequential(tc.Flatten(), conv(2)), "expected layers without pixels after a flattening"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="expected a floating point tensor"):
        net.gram(x.long())


def test_rows_stay_as_they_are(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Linear(5, 8), tc.ReLU(), tc.Linear(8, 1))
    x = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    assert isinstance(net.gram_operator(x), tc.GramOperator)
    with pytest.raises(ValueError, match='expected output="inputs" for features of shape'):
        net.gram(x, output="pixels")
