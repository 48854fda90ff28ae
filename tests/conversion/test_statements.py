"""What the forward pass of a model does between its layers: in place, with constants, copies and sizes."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import torch_cntk as tc
from tests.helpers import brute_force


def conv(given: int, out: int, width: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(given, out, width, padding=width // 2, **{"padding_mode": "circular", **options})


class Net(nn.Module):
    """Some convolutions, and what a test does with them."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.a, self.b, self.c, self.last = conv(2, 4), conv(4, 4), conv(4, 4), conv(4, 1)
        self.wide, self.norm, self.mix = conv(8, 1), nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 4)
        self.row, self.flat = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4)), nn.Conv2d(4, 4, (1, 3))
        self.noted = 0
        self.act, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.drop_here, self.drop_maps = nn.Dropout(0.5, inplace=True), nn.Dropout2d(0.5, inplace=True)
        self.register_buffer("one_half", torch.tensor(0.5))
        self.register_buffer("mean", torch.randn(4, 1, 1))
        self.gamma = nn.Parameter(torch.tensor(0.3))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, self.a(x))


def statements(*changes: Any) -> Any:
    """A forward pass that does something to ``h`` as a statement, whose value nobody takes."""

    def forward(net: Net, h: torch.Tensor) -> torch.Tensor:
        for change in changes:
            change(net, h)
        return net.last(h)

    return forward


def augmented(net: Net, h: torch.Tensor) -> torch.Tensor:
    other = h
    h += net.b(torch.relu(h))
    return net.wide(torch.cat([other, net.c(h)], 1))


def unpacked(net: Net, h: torch.Tensor) -> torch.Tensor:
    _, _, height, width = h.shape
    low = net.b(functional.avg_pool2d(h, 2))
    return net.last(functional.interpolate(low, size=(height, width)) + torch.relu(net.c(h)))


def built_in_sum(net: Net, h: torch.Tensor) -> torch.Tensor:
    return net.last(torch.relu(sum([h, net.b(torch.relu(h))])))  # type: ignore[arg-type]


def view_changed(net: Net, h: torch.Tensor) -> torch.Tensor:
    last = h.permute(0, 2, 3, 1)
    last.relu_()
    return net.last(h)


def channels_last_block(net: Net, h: torch.Tensor) -> torch.Tensor:
    y = net.norm(h.permute(0, 2, 3, 1))
    return net.last(functional.gelu(h + 0.5 * net.mix(y).permute(0, 3, 1, 2)))


def smaller_and_back(net: Net, h: torch.Tensor) -> torch.Tensor:
    small = functional.avg_pool2d(h, kernel_size=2, ceil_mode=True)
    return net.last(torch.relu(functional.interpolate(small, size=h.size()[2:], mode="bilinear") + net.b(h.relu())))


def concatenated_and_back(net: Net, h: torch.Tensor) -> torch.Tensor:
    y = torch.cat([net.b(h), h], 3)
    return net.last(functional.interpolate(y, size=y.shape[2:]) + net.c(y.relu()))


def noting(net: Any, h: torch.Tensor) -> torch.Tensor:
    net.noted = h
    return net.last(h.relu())


SAME = {
    "x.relu_()": statements(lambda net, h: h.relu_()),
    "F.relu(x, True)": statements(lambda net, h: functional.relu(h, True)),
    "F.relu(input=x, inplace=True)": statements(lambda net, h: functional.relu(input=h, inplace=True)),
    "torch.relu_": statements(lambda net, h: torch.relu_(h)),
    "F.leaky_relu_": statements(lambda net, h: functional.leaky_relu_(h, 0.2)),
    "F.elu_": statements(lambda net, h: functional.elu_(h)),
    "x.tanh_()": statements(lambda net, h: h.tanh_()),
    "a module in place": statements(lambda net, h: net.act(h)),
    "x.mul_(3)": statements(lambda net, h: h.mul_(3)),
    "x.add_(y)": statements(lambda net, h: h.add_(net.b(h.relu()))),
    "x.sub_(y), x.div_(2)": statements(lambda net, h: h.sub_(net.b(h.relu())), lambda net, h: h.div_(2)),
    "x.add_(y, alpha=2)": statements(lambda net, h: h.add_(net.b(h.relu()), alpha=2)),
    "x += y, which another name sees": augmented,
    "x.clamp_(min=0)": statements(lambda net, h: h.clamp_(min=0)),
    "x.clamp(-1, 2)": lambda net, h: net.last(torch.clamp(h, -1, 2)),
    "twice in place": statements(lambda net, h: h.neg_(), lambda net, h: h.relu_()),
    "in place on a view": view_changed,
    "a copy is not changed": lambda net, h: net.wide(torch.cat([h.clone().relu_(), h], 1)),
    "in place, read again": lambda net, h: net.wide(torch.cat([net.b(functional.relu(h, inplace=True)), h], 1)),
    "in place on what Identity gives": statements(lambda net, h: nn.Identity()(h).relu_()),
    "a part of a Sequential": lambda net, h: net.last(net.row[:2](h)),
    "notes": noting,
    "a checkpoint": lambda net, h: net.last(checkpoint(net.b, h, use_reentrant=False).relu()),
    "padding of the last axis": lambda net, h: net.last(net.flat(functional.pad(h, (1, 1))).relu()),
    "x - f(x)": lambda net, h: net.last(torch.relu(h - net.b(torch.relu(h)))),
    "0.1 * f(x)": lambda net, h: net.last(torch.relu(h + 0.1 * net.b(torch.relu(h)))),
    "f(x) / sqrt(2)": lambda net, h: net.last(torch.relu((h + net.b(torch.relu(h))) / math.sqrt(2))),
    "-x": lambda net, h: net.last(torch.relu(-h)),
    "torch.sub with alpha": lambda net, h: net.last(torch.sub(h, net.b(torch.relu(h)), alpha=0.3).relu()),
    "rsub": lambda net, h: net.last(torch.rsub(h, net.b(torch.relu(h))).relu()),
    "a buffer of one number": lambda net, h: net.last(torch.relu(h) * net.one_half),
    "the built-in sum": built_in_sum,
    "x + 0": lambda net, h: net.last(torch.relu(h + 0)),
    "sigmoid inside": lambda net, h: net.last(torch.sigmoid(h)),
    "hardtanh, ELU, Mish": lambda net, h: net.last(
        functional.mish(net.c(functional.elu(net.b(functional.hardtanh(h, -2.0, 1.0)), alpha=0.5)))
    ),
    "tanh at the end": lambda net, h: torch.tanh(net.last(torch.relu(h))),
    "softplus of beta 2": lambda net, h: net.last(functional.softplus(h, 2.0)),
    "clone and contiguous": lambda net, h: net.last(torch.relu(h).clone().contiguous()),
    "to the size of another map": smaller_and_back,
    "to a size that is unpacked": unpacked,
    "to twice the size": lambda net, h: net.last(
        functional.interpolate(h, size=(h.shape[2] * 2, h.size(3) * 2)).relu()
    ),
    "to its own size": lambda net, h: net.last(functional.interpolate(h, size=h.shape[-2:]).relu()),
    "a linear map of the channels": channels_last_block,
    "concatenated channels-last": lambda net, h: net.wide(
        torch.cat([h.permute(0, 2, 3, 1), net.norm(h.permute(0, 2, 3, 1))], -1).permute(0, 3, 1, 2)
    ),
    "concatenated rows of pixels": lambda net, h: net.last(torch.cat([net.b(h), net.c(h)], 2).relu()),
    "concatenated columns": lambda net, h: net.last(torch.cat([net.b(h), net.c(h), h], dim=-1)),
    "concatenated rows channels-last": lambda net, h: net.last(
        torch.cat([net.b(h).permute(0, 2, 3, 1), net.c(h).permute(0, 2, 3, 1)], 1).permute(0, 3, 1, 2)
    ),
    "to the size of what is concatenated": concatenated_and_back,
    "x * y": lambda net, h: net.last(h * net.b(h)),
    "a gate": lambda net, h: net.last(torch.sigmoid(net.b(h)) * net.c(h)),
    "three factors": lambda net, h: net.last(torch.relu(h) * net.b(torch.relu(h)) * net.c(h)),
    "a gate at the end": lambda net, h: torch.relu(net.b(h)) * net.c(h),
    "x *= y": statements(lambda net, h: h.mul_(net.b(h))),
    "dropout in place": statements(lambda net, h: net.drop_here(h)),
    "dropout of maps in place": lambda net, h: net.last(net.drop_maps(net.drop_here(h))),
    "F.dropout in place": statements(lambda net, h: functional.dropout(h, training=net.training, inplace=True)),
    "what nobody reads": lambda net, h: (net.b(h).softmax(1), net.last(h.relu()))[1],
    "F.conv2d of its own weights": lambda net, h: net.last(
        functional.conv2d(h, net.b.weight, net.b.bias, padding=1).relu()
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_output_is_the_models(name: Any, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    module = Net(SAME[name]).double().eval()
    x = torch.randn(2, 2, 8, 12, generator=generator, dtype=torch.float64)
    before, state = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    net = tc.from_torch(module, bias_std=0.7)
    assert module.noted == 0
    assert torch.equal(torch.get_rng_state(), before)
    expected = module(x.clone())
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-12)
    plain = tc.to_torch(net)
    torch.testing.assert_close(plain(x), expected, rtol=1e-10, atol=1e-12)
    again = tc.from_torch(plain, bias_std=0.7)
    torch.testing.assert_close(again(x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)


def changed_item(net: Net, h: torch.Tensor) -> torch.Tensor:
    h[:, 0] = 0
    return net.last(h)


def changed_data(net: Net, h: torch.Tensor) -> torch.Tensor:
    h.data += 1
    return net.last(h)


def doubtful(net: Net, h: torch.Tensor) -> torch.Tensor:
    other = h.contiguous()
    other.relu_()
    return net.last(h)


def after_dropout(net: Net, h: torch.Tensor) -> torch.Tensor:
    net.drop(h).relu_()
    return net.last(h)


def written_out(net: Net, h: torch.Tensor) -> torch.Tensor:
    y = net.b(h)
    torch.add(h, y, out=y)
    return net.last(y)


def without_gradients(net: Net, h: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        h = net.b(h)
    return net.last(h)


def in_autocast(net: Net, h: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        h = net.b(h)
    return net.last(h)


def counted(net: Any, h: torch.Tensor) -> torch.Tensor:
    net.one_half += 1
    return net.last(h)


REFUSED = {
    "no_grad": (without_gradients, "torch.no_grad, inference_mode or autocast"),
    "autocast": (in_autocast, "torch.no_grad, inference_mode or autocast"),
    "a buffer in place": (counted, "iadd.*a constant tensor of shape"),
    "x[:, 0] = 0": (changed_item, "setitem.*parts of a feature map"),
    "x.data += 1": (changed_data, "attribute 'data'|getattr"),
    "x.clamp_(max=1)": (statements(lambda net, h: h.clamp_(max=1)), "clamp_.*both sides of 0"),
    "x.clamp_(1, 2)": (statements(lambda net, h: h.clamp_(1, 2)), "clamp_.*min_val <= 0"),
    "x.copy_(y)": (statements(lambda net, h: h.copy_(net.b(h))), "copy_, at 'copy_'"),
    "x.zero_()": (statements(lambda net, h: h.zero_()), "zero_, at 'zero_'"),
    "x **= 2": (lambda net, h: net.last(h.__ipow__(2)), "ipow|pow"),
    "out=": (written_out, "writes into another tensor"),
    "in place on what may be a view": (doubtful, "may be a view of"),
    "in place behind dropout": (after_dropout, "may be a view of"),
    "x * x": (
        lambda net, h: net.last(h * h),
        "mul, at 'mul' .*branches of a product to end in weight layers of their own",
    ),
    "x / y": (lambda net, h: net.last(h / net.b(h)), "quotients of feature maps"),
    "squeeze and excitation": (
        lambda net, h: net.last(h * torch.sigmoid(net.b(h.mean((2, 3), keepdim=True)))),
        "mul.*feature maps of one size",
    ),
    "x + its mean": (lambda net, h: net.last(h + net.b(h.mean((2, 3), keepdim=True))), "add.*feature maps of one size"),
    "concatenated along an axis that is not there": (
        lambda net, h: net.last(torch.cat([net.b(h), net.c(h)], 4)),
        r"dim=1 \(channels\) or one of pixels, got dim=4",
    ),
    "concatenated images": (lambda net, h: net.last(torch.cat([net.b(h), net.c(h)])), "of pixels, got dim=0"),
    "concatenated pixels that are correlated": (
        lambda net, h: net.last(torch.cat([h, h], 2)),
        "cat, at 'cat' .*branches of a concatenation of pixels",
    ),
    "to the size of an image that was pooled": (
        lambda net, h: net.last(functional.interpolate(h.mean((2, 3), keepdim=True), size=h.shape[2:])),
        "got one pixel to which all have been pooled",
    ),
    "F.glu": (lambda net, h: net.last(functional.glu(h, 1)), "glu.*torch_cntk.Product"),
    "x * 0": (lambda net, h: net.last(h * 0), "mul.*not 0"),
    "1 - x": (lambda net, h: net.last(1 - h), "constant offset"),
    "x - mean": (lambda net, h: net.last(h - net.mean), "constant offset"),
    "x / std": (lambda net, h: net.last(h / net.mean), "expected a feature map and one number"),
    "x * gamma": (lambda net, h: net.last(h * net.gamma), "factors that are trained"),
    "x + gamma": (lambda net, h: net.last(h + net.gamma), "a parameter of shape"),
    "detach": (lambda net, h: net.last(h.detach()), "detach.*stops gradients"),
    "noise": (lambda net, h: net.last(h + 0.1 * torch.randn_like(h)), "randn_like.*noise"),
    "a random constant": (lambda net, h: net.last(h * float(torch.rand(()))), "draws no random numbers"),
    "a random choice": (lambda net, h: net.last(h if random.random() < 0.5 else -h), "draws no random numbers"),
    "dropout in eval mode": (lambda net, h: net.last(functional.dropout(h)), "drops in eval mode as well"),
    "half the size": (
        lambda net, h: net.last(functional.interpolate(h, size=(h.shape[2] // 2, h.shape[3] // 2))),
        "one integer times its input's, got 1/2",
    ),
    "axes out of order": (
        lambda net, h: net.last(functional.interpolate(h, size=(h.shape[3], h.shape[2]))),
        "axes of a size in their order",
    ),
    "batch size": (
        lambda net, h: net.last(functional.interpolate(h, size=(h.shape[0], 8))),
        "number of images is no size",
    ),
    "weights that are used twice": (
        lambda net, h: net.last(net.b(functional.conv2d(h, net.b.weight, None, padding=1))),
        "used twice",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_network_cannot_do_is_refused(name: Any) -> None:
    function, message = REFUSED[name]
    module = Net(function).eval()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        tc.from_torch(module)
    assert torch.equal(torch.get_rng_state(), before)


# Kernels.

BY_SERIES = (
    "a gate",
    "F.elu_",
    "x.tanh_()",
    "hardtanh, ELU, Mish",
    "softplus of beta 2",
    "sigmoid inside",
    "tanh at the end",
    "x.clamp(-1, 2)",
)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", [name for name in SAME if name not in BY_SERIES])
def test_kernel_is_the_textbooks(name: Any, kind: Any, generator: torch.Generator) -> None:
    net = tc.from_torch(Net(SAME[name]).double().eval(), bias_std=0.3)
    features = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    found = net.kernel(tc.priors.Tensor(features), kind=kind).dense()
    expected = brute_force.propagate(net, brute_force.feature_prior(features))[("nngp", "ntk").index(kind)]
    # float64 on both sides; GELU of the recursion is by quadrature, and close features have few digits of their angle.
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_kernel_of_a_scaled_branch_is_that_of_wide_networks(generator: torch.Generator) -> None:
    """Against Jacobians of random networks, as torch.nn computes them."""
    module = nn.Sequential(nn.Linear(3, 4), Branch(4), nn.Linear(4, 1)).double()
    net = tc.with_width(tc.from_torch(module, bias_std=0.3), 512)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    kernels = []
    for _ in range(24):
        for layer in net.modules():
            if isinstance(layer, tc.Linear):
                layer.reset_parameters(generator)
        output = net(x)[:, 0]
        rows = [torch.autograd.grad(y, list(net.parameters()), retain_graph=True) for y in output]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        kernels.append(jacobian @ jacobian.T)
    mean, spread = torch.stack(kernels).mean(0), torch.stack(kernels).std(0)
    # Five standard errors of the mean, and a bias of the order of 1 / width.
    difference = (mean - net.gram(x)).abs()
    assert bool((difference <= 5 * spread / 24**0.5 + 0.02 * net.gram(x).abs().max()).all())


class Branch(nn.Module):
    """A difference with a branch that counts for a third."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x - self.second(torch.relu(self.first(x))) / 3)


def test_six_hundred_layers() -> None:
    layers = [part for _ in range(300) for part in (nn.Conv2d(1, 1, 1), nn.ReLU())]
    net: Any = tc.from_torch(nn.Sequential(*layers, nn.Conv2d(1, 1, 1)))
    assert len(net.layers) == 601


def test_sizes_that_do_not_fit_a_stride(generator: torch.Generator) -> None:
    module = nn.Sequential(conv(1, 4, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), conv(4, 1)).double()
    net = tc.from_torch(module)
    x = torch.randn(1, 1, 7, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)
    assert net.kernel(tc.priors.Tensor(x[0])).size == (8, 8)


class ToTheSizeOfTheInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(1, 4, stride=2), conv(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(functional.interpolate(torch.relu(self.down(x)), size=x.shape[2:]))


def test_sizes_for_which_a_size_is_no_factor_are_refused_when_they_come(generator: torch.Generator) -> None:
    """For 7 pixels, 4 behind the stride, torch resamples by 7/4, and the factor 2 would make 8."""
    module = ToTheSizeOfTheInput().double()
    net = tc.from_torch(module)
    x = torch.randn(1, 1, 6, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(tc.to_torch(net)(x), module(x), rtol=1e-10, atol=1e-12)
    assert net.kernel(tc.priors.Tensor(x[0])).size == (6, 8)
    with pytest.raises(ValueError, match="multiples of 2"):
        net(torch.zeros(1, 1, 7, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="multiple of 2"):
        net.kernel(tc.priors.Tensor(torch.zeros(1, 7, 8)))
