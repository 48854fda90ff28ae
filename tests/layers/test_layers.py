"""Layers as finite networks: the forward pass, and what a layer says about itself."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import torch_cntk as tc
from tests.helpers import brute_force
from torch_cntk.layers import from_description

CONV = {1: (tc.Conv1d, tc.StridedConv1d), 2: (tc.Conv2d, tc.StridedConv2d), 3: (tc.Conv3d, tc.StridedConv3d)}
TORCH_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
SIZES = {1: (12,), 2: (12, 6), 3: (6, 4, 6)}
# float64 sums of some hundred terms.
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def randn(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def circular(images: torch.Tensor, widths: tuple[int, ...]) -> torch.Tensor:
    return functional.pad(images, [q // 2 for q in reversed(widths) for _ in range(2)], mode="circular")


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_is_circular_and_scaled_by_fan_in(
    ndim: Any, width: Any, bias: Any, generator: torch.Generator
) -> None:
    layer = CONV[ndim][0](3, 4, width, bias=bias, bias_std=0.3).double()
    images = randn(2, 3, *SIZES[ndim], generator=generator)
    shift = None if layer.bias is None else 0.3 * layer.bias
    assert (shift is not None) == bias
    scaled = layer.weight / math.sqrt(3 * width**ndim)
    expected = TORCH_CONV[ndim](circular(images, (width,) * ndim), scaled, shift)
    torch.testing.assert_close(layer(images), expected, **EXACT)


@pytest.mark.parametrize("widths", [(3, 5), (5, 1), (1, 3)])
def test_convolution_may_be_oblong(widths: Any, generator: torch.Generator) -> None:
    layer = tc.Conv2d(2, 3, widths).double()
    images = randn(2, 2, 6, 8, generator=generator)
    expected = functional.conv2d(circular(images, widths), layer.weight / math.sqrt(2 * math.prod(widths)))
    torch.testing.assert_close(layer(images), expected, **EXACT)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_strided_convolution_keeps_every_second_pixel_from_the_first_on(
    ndim: Any, width: Any, generator: torch.Generator
) -> None:
    strided = CONV[ndim][1](3, 4, width).double()
    plain = CONV[ndim][0](3, 4, width).double()
    plain.load_state_dict(strided.state_dict())
    images = randn(2, 3, *SIZES[ndim], generator=generator)
    expected = plain(images)[(..., *(slice(None, None, 2),) * ndim)]
    torch.testing.assert_close(strided(images), expected, **EXACT)


@pytest.mark.parametrize("stride", [(2, 1), (1, 3), (3, 2)])
def test_stride_may_differ_between_axes(stride: Any, generator: torch.Generator) -> None:
    layer = tc.StridedConv2d(2, 2, 3, stride).double()
    images = randn(1, 2, 6, 12, generator=generator)
    padded = circular(images, (3, 3))
    expected = functional.conv2d(padded, layer.weight / math.sqrt(18), stride=stride)
    torch.testing.assert_close(layer(images), expected, **EXACT)
    torch.testing.assert_close(tc.Conv2d(2, 2, 3, stride).double()(images).shape, expected.shape)


def test_filter_wider_than_the_image_goes_around_it(generator: torch.Generator) -> None:
    layer = tc.Conv1d(1, 1, 7).double()
    images = randn(1, 1, 2, generator=generator)
    expected = functional.conv1d(images.repeat(1, 1, 5)[..., 1:9], layer.weight / math.sqrt(7))
    torch.testing.assert_close(layer(images), expected, **EXACT)


def test_convolution_commutes_with_shifts(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Conv2d(2, 3, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(3, 1, 5)).double()
    images = randn(1, 2, 6, 8, generator=generator)
    torch.testing.assert_close(net(images.roll((1, 3), (2, 3))), net(images).roll((2, 6), (2, 3)), **EXACT)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_nearest_upsampling_equals_torch(ndim: Any, factor: Any, generator: torch.Generator) -> None:
    images = randn(2, 3, *SIZES[ndim], generator=generator)
    assert torch.equal(tc.NearestUp(factor)(images), functional.interpolate(images, scale_factor=factor))


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_upsampling_equals_torch(
    ndim: Any, factor: Any, align_corners: Any, generator: torch.Generator
) -> None:
    images = randn(2, 3, *SIZES[ndim], generator=generator)
    layer = tc.BilinearUp(factor, align_corners, padding_mode="circular" if align_corners else "border")
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[ndim]
    expected = functional.interpolate(images, scale_factor=factor, mode=mode, align_corners=align_corners)
    torch.testing.assert_close(layer(images), expected, **EXACT)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(5,), (1,), (2,), (4, 3)])
def test_bilinear_upsampling_is_circular_by_default(factor: Any, size: Any, generator: torch.Generator) -> None:
    images = expected = randn(2, 3, *size, generator=generator)
    for axis, n in enumerate(size, start=2):
        matrix = brute_force.linear_matrix(n, factor, align_corners=False, padding_mode="circular")
        expected = torch.movedim(torch.tensordot(expected, matrix.T, dims=([axis], [0])), -1, axis)
    torch.testing.assert_close(tc.BilinearUp(factor)(images), expected, **EXACT)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 1.0])
def test_activation_is_the_normalised_rectifier(slope: Any, generator: torch.Generator) -> None:
    values = randn(1000, generator=generator)
    layer = tc.LeakyReLU(slope)
    expected = torch.where(values > 0, values, slope * values) * math.sqrt(2 / (1 + slope**2))
    torch.testing.assert_close(layer(values), expected, **EXACT)
    if slope == 0:
        torch.testing.assert_close(tc.ReLU()(values), expected, **EXACT)


@pytest.mark.parametrize("layer", [tc.ReLU(), tc.LeakyReLU(), tc.LeakyReLU(0.5)])
def test_activation_keeps_the_second_moment(layer: Any) -> None:
    # By quadrature: the mean of phi(u)^2 over the normal density.
    u = torch.linspace(-12, 12, 200001, dtype=torch.float64)
    density = torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    assert float(torch.trapezoid(layer(u) ** 2 * density, u)) == pytest.approx(1, rel=1e-7)


@pytest.mark.parametrize("ndim", [1, 2])
def test_network_keeps_the_variance(ndim: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    conv, strided = CONV[ndim]
    layers = [strided(300, 300, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), conv(300, 300, 3), tc.ReLU(), conv(300, 300, 3)]
    net = tc.Sequential(*layers)
    layer: Any
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters(generator)
    images = torch.randn(4, 300, *SIZES[ndim], generator=generator)
    # The mean square of 300 channels fluctuates by sqrt(2 / 300) = 8 % a layer and pixel, less over all pixels.
    with torch.no_grad():
        output = net(images)
    assert float(output.square().mean() / images.square().mean()) == pytest.approx(1, abs=0.25)


def test_weights_are_standard_normal() -> None:
    layer = tc.Conv2d(100, 100, 3, bias=True)
    # 90,000 draws: standard errors of 0.0033 and 0.0024; 100 biases of 0.1 and 0.07.
    assert abs(float(layer.weight.detach().mean())) < 0.02
    assert float(layer.weight.detach().std()) == pytest.approx(1, abs=0.015)
    assert layer.bias is not None
    assert float(layer.bias.detach().std()) == pytest.approx(1, abs=0.4)


def test_reset_draws_the_same_weights_from_the_same_generator() -> None:
    first, second = (tc.Conv1d(2, 3, 3, bias=True) for _ in range(2))
    assert not torch.equal(first.weight, second.weight)
    for layer in (first, second):
        layer.reset_parameters(torch.Generator().manual_seed(5))
    assert torch.equal(first.weight, second.weight)
    assert first.bias is not None and second.bias is not None
    assert torch.equal(first.bias, second.bias)


def test_bias_exists_on_request_only() -> None:
    assert tc.Conv2d(1, 1, 3).bias is None
    bias = tc.Conv2d(1, 2, 3, bias=True).bias
    assert bias is not None and bias.shape == (2,)
    assert {name for name, _ in tc.Conv2d(1, 2, 3).named_parameters()} == {"weight"}


REPRS = {
    "Conv2d(3, 8, kernel_size=5)": tc.Conv2d(3, 8, 5),
    "Conv2d(3, 8, kernel_size=(3, 5))": tc.Conv2d(3, 8, (3, 5)),
    "Conv1d(3, 8, kernel_size=3, bias=True, bias_std=0.1)": tc.Conv1d(3, 8, 3, bias=True, bias_std=0.1),
    "StridedConv2d(3, 8, kernel_size=3, stride=2)": tc.StridedConv2d(3, 8, 3),
    "StridedConv3d(3, 8, kernel_size=3, stride=(1, 2, 2))": tc.StridedConv3d(3, 8, 3, (1, 2, 2)),
    "Conv2d(1, 1, kernel_size=3, stride=2)": tc.Conv2d(1, 1, 3, 2),
    "ReLU()": tc.ReLU(),
    "LeakyReLU(0.3)": tc.LeakyReLU(0.3),
    "NearestUp(3)": tc.NearestUp(3),
    "BilinearUp(2)": tc.BilinearUp(2),
    "BilinearUp(2, align_corners=True)": tc.BilinearUp(2, align_corners=True),
    "BilinearUp(2, padding_mode='border')": tc.BilinearUp(2, padding_mode="border"),
}
OPTIONS = ["stride", "kernel_size", "bias_std", "negative_slope", "scale_factor", "padding_mode", "align_corners"]
STRIDE_ONE = [tc.StridedConv1d(1, 1, 3, 1), tc.StridedConv2d(1, 1, 3, stride=1), tc.StridedConv3d(1, 1, 3, (1, 1, 1))]


@pytest.mark.parametrize("text", REPRS)
def test_repr_can_be_typed(text: Any) -> None:
    assert repr(REPRS[text]) == text


@pytest.mark.parametrize("layer", [*REPRS.values(), *STRIDE_ONE], ids=repr)
def test_repr_makes_the_layer_anew(layer: Any) -> None:
    again = eval(repr(layer), vars(tc))
    assert type(again) is type(layer)
    for name in OPTIONS:
        assert getattr(again, name, None) == getattr(layer, name, None)


def test_repr_of_a_network_lists_its_layers() -> None:
    text = repr(tc.Sequential(tc.Conv2d(3, 8, 3), tc.ReLU()))
    assert text == "Sequential(\n  (0): Conv2d(3, 8, kernel_size=3)\n  (1): ReLU()\n)"


@pytest.mark.parametrize("layer", [*REPRS.values(), *STRIDE_ONE], ids=repr)
def test_description_makes_the_layer_anew(layer: Any) -> None:
    description = json.loads(json.dumps(layer.description()))
    again = from_description(description)
    assert type(again) is type(layer)
    assert again.description() == layer.description()
    for name in OPTIONS:
        assert getattr(again, name, None) == getattr(layer, name, None)
    assert [p.shape for p in again.parameters()] == [p.shape for p in layer.parameters()]


def test_description_makes_a_network_anew() -> None:
    inner = tc.Sequential(tc.NearestUp(2), tc.Conv2d(4, 4, (3, 5), bias=True, bias_std=0.2), tc.LeakyReLU(0.2))
    net = tc.Sequential(tc.StridedConv2d(3, 4, 3), tc.ReLU(), inner, tc.Conv2d(4, 1, 3))
    again = from_description(json.loads(json.dumps(net.description())))
    assert repr(again) == repr(net)
    again.load_state_dict(net.state_dict())
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(again(images), net(images))
    assert torch.equal(again.kernel(tc.priors.Uniform()).dense((8, 8)), net.kernel(tc.priors.Uniform()).dense((8, 8)))


@pytest.mark.parametrize("description", [{}, {"layer": "Conv7d"}, {"layer": None}, {"layer": "_Conv"}])
def test_unknown_description_is_refused(description: Any) -> None:
    with pytest.raises(ValueError, match="expected one of the layers"):
        from_description(description)


def test_state_dict_round_trip(tmp_path: Path, generator: torch.Generator) -> None:
    def build() -> tc.Sequential:
        return tc.Sequential(tc.StridedConv2d(3, 4, 3, bias=True), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(4, 2, 3))

    first, second = build(), build()
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    images = torch.randn(2, 3, 8, 8, generator=generator)
    assert set(first.state_dict()) == {"0.weight", "0.bias", "3.weight"}
    assert torch.equal(first(images), second(images))


def test_network_knows_its_ends() -> None:
    net = tc.Sequential(tc.ReLU(), tc.Conv2d(3, 4, 3), tc.NearestUp(2), tc.Sequential(tc.Conv2d(4, 5, 3), tc.ReLU()))
    assert (net.in_channels, net.out_channels, net.ndim) == (3, 5, 2)


def test_network_takes_named_layers(generator: torch.Generator) -> None:
    net: Any = tc.Sequential(OrderedDict(first=tc.Conv2d(1, 2, 3), bend=tc.ReLU(), last=tc.Conv2d(2, 1, 3)))
    assert net.first.out_channels == 2
    assert [type(layer) for layer in net.layers] == [tc.Conv2d, tc.ReLU, tc.Conv2d]
    assert net(torch.randn(1, 1, 4, 4, generator=generator)).shape == (1, 1, 4, 4)


def test_part_of_a_network_is_a_network() -> None:
    net = tc.Sequential(tc.Conv2d(1, 2, 3), tc.ReLU(), tc.Conv2d(2, 5, 3))
    part = net[:2]
    assert isinstance(part, tc.Sequential)
    assert part.out_channels == 2
    assert part.kernel(tc.priors.Normal()).period == (1, 1)


def test_nested_networks_are_one_network() -> None:
    parts = [tc.Conv2d(1, 2, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(2, 1, 3)]
    flat, nested = tc.Sequential(*parts), tc.Sequential(tc.Sequential(*parts[:2]), tc.Sequential(*parts[2:]))
    kernels = [net.kernel(tc.priors.Normal()).dense((4, 4)) for net in (flat, nested)]
    assert torch.equal(*kernels)


def test_activation_may_be_used_twice(generator: torch.Generator) -> None:
    bend = tc.LeakyReLU(0.2)
    first, second, third = tc.Conv2d(1, 2, 3), tc.Conv2d(2, 2, 3), tc.Conv2d(2, 1, 3)
    shared = tc.Sequential(first, bend, second, bend, third)
    apart = tc.Sequential(first, tc.LeakyReLU(0.2), second, tc.LeakyReLU(0.2), third)
    images = torch.randn(1, 1, 4, 4, generator=generator)
    assert torch.equal(shared(images), apart(images))
    assert len(shared.layers) == 5
    assert torch.equal(*(net.kernel(tc.priors.Uniform()).dense((4, 4)) for net in (shared, apart)))


def test_forward_and_kernel_keep_no_state() -> None:
    net = tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(1, 1, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    kernels = [net.kernel(tc.priors.Uniform()).dense((8, 8)) for _ in range(2)]
    assert torch.equal(*kernels)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


# Errors.


def test_channels_that_do_not_chain_are_refused_with_both_layers() -> None:
    with pytest.raises(ValueError) as error:
        tc.Sequential(tc.Conv2d(3, 8, 3), tc.ReLU(), tc.Conv2d(4, 2, 5))
    text = str(error.value)
    assert "Conv2d(3, 8, kernel_size=3)" in text
    assert "Conv2d(4, 2, kernel_size=5)" in text
    assert "needs 4 channels" in text
    assert "gives 8" in text
    assert "layer 2" in text
    assert "layer 0" in text


def test_channels_are_checked_across_nested_networks() -> None:
    with pytest.raises(ValueError, match=r"needs 4 channels, but layer 0, (.|\n)*gives 8"):
        tc.Sequential(tc.Sequential(tc.Conv2d(3, 8, 3), tc.ReLU()), tc.Conv2d(4, 2, 5))


def test_mixed_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 1, Conv1d.*, is 1-dimensional, those before 2"):
        tc.Sequential(tc.Conv2d(1, 1, 3), tc.Conv1d(1, 1, 3))


def test_shared_weights_are_refused() -> None:
    conv = tc.Conv2d(2, 2, 3)
    with pytest.raises(ValueError, match="a layer with weights appears twice"):
        tc.Sequential(conv, tc.ReLU(), conv)


def test_shared_weights_are_refused_in_nested_networks() -> None:
    conv = tc.Conv2d(2, 2, 3)
    with pytest.raises(ValueError, match="a layer with weights appears twice"):
        tc.Sequential(tc.Sequential(conv, tc.ReLU()), conv)


def test_empty_network_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one layer"):
        tc.Sequential()


@pytest.mark.parametrize("stranger", [torch.nn.ReLU(), torch.nn.Conv2d(1, 1, 3), 3, None])
def test_layers_of_torch_are_refused(stranger: Any) -> None:
    with pytest.raises(TypeError, match=rf"expected layers of torch_cntk, got {type(stranger).__name__} as layer 1"):
        tc.Sequential(tc.ReLU(), stranger)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 1, 3), {}, "expected in_channels to be at least 1, got 0"),
        ((1, -1, 3), {}, "expected out_channels to be at least 1, got -1"),
        ((1, 1, -3), {}, "expected kernel_size to be at least 1, got -3"),
        ((1, 1, 3, 0), {}, "expected stride to be at least 1, got 0"),
        ((1, 1, (3, 3, 3)), {}, "expected kernel_size to be one integer or 2"),
        ((1, 1, 3, (2,)), {}, "expected stride to be one integer or 2"),
        ((1, 1, 3), {"bias_std": -0.1}, "expected bias_std to be at least 0, got -0.1"),
        ((1, 1, 3), {"bias_std": math.nan}, "expected bias_std to be finite, got nan"),
    ],
)
def test_convolution_out_of_range_is_refused(arguments: Any, options: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        tc.Conv2d(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "name"),
    [
        (("1", 1, 3), {}, "in_channels"),
        ((1, 1.0, 3), {}, "out_channels"),
        ((True, 1, 3), {}, "in_channels"),
        ((1, 1, 3.0), {}, "kernel_size"),
        ((1, 1, None), {}, "kernel_size"),
        ((1, 1, 3, 2.0), {}, "stride"),
        ((1, 1, 3), {"bias_std": "1"}, "bias_std"),
    ],
)
def test_convolution_of_a_wrong_type_is_refused(arguments: Any, options: Any, name: Any) -> None:
    with pytest.raises(TypeError, match=f"expected {name} to be"):
        tc.Conv2d(*arguments, **options)


@pytest.mark.parametrize("layer", [tc.NearestUp, tc.BilinearUp])
def test_wrong_factor_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match="expected scale_factor to be at least 1, got 0"):
        layer(0)
    for factor in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="expected scale_factor to be an integer"):
            layer(factor)


def test_unknown_padding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected padding_mode .*got 'zeros'"):
        tc.BilinearUp(2, padding_mode="zeros")  # type: ignore[arg-type]


@pytest.mark.parametrize("slope", [math.nan, math.inf, -math.inf])
def test_slope_out_of_range_is_refused(slope: Any) -> None:
    with pytest.raises(ValueError, match="expected negative_slope to be"):
        tc.LeakyReLU(slope)


@pytest.mark.parametrize("slope", ["0.1", None, True])
def test_slope_of_a_wrong_type_is_refused(slope: Any) -> None:
    with pytest.raises(TypeError, match="expected negative_slope to be a number"):
        tc.LeakyReLU(slope)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (3, 8, 8), (1, 3, 8), (1, 3, 8, 8, 8)])
def test_input_of_a_wrong_shape_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"expected input of shape \[batch, 3, 2 spatial dimensions\]"):
        tc.Conv2d(3, 1, 3)(torch.zeros(shape))


@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_outputs_of_a_stride_are_rounded_up(size: Any) -> None:
    assert tc.StridedConv2d(1, 1, 3)(torch.zeros(1, 1, *size)).shape == (1, 1, 4, 4)


def test_image_that_is_shorter_than_a_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 pixels"):
        tc.Conv2d(1, 1, 3, padding="valid")(torch.zeros(1, 1, 4, 2))


@pytest.mark.parametrize("layer", [tc.NearestUp(2), tc.BilinearUp(2)])
def test_upsampling_without_a_spatial_axis_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match=r"expected input of shape \[batch, channels, \*size\]"):
        layer(torch.zeros(2, 3))


def test_layers_appended_later_are_checked_when_used() -> None:
    net = tc.Sequential(tc.Conv2d(1, 2, 3))
    net.append(tc.ReLU())
    net.append(tc.Conv2d(3, 1, 3))
    with pytest.raises(ValueError, match="needs 3 channels"):
        net.kernel(tc.priors.Uniform())
