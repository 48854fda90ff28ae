"""What a model does beside its layers: in place, by hooks, by its mode, to its weights, with constants and sizes."""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune

import torch_cntk as tc


def conv(given: int, out: int, width: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(given, out, width, padding=width // 2, **{"padding_mode": "circular", **options})


class Net(nn.Module):
    """Some convolutions, and what a test does with them."""

    def __init__(self, function) -> None:
        super().__init__()
        self.a, self.b, self.c, self.last = conv(2, 4), conv(4, 4), conv(4, 4), conv(4, 1)
        self.wide, self.norm, self.mix = conv(8, 1), nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 4)
        self.act, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.register_buffer("one_half", torch.tensor(0.5))
        self.register_buffer("mean", torch.randn(4, 1, 1))
        self.gamma = nn.Parameter(torch.tensor(0.3))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, self.a(x))


def statements(*changes):
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
    return net.last(torch.relu(sum([h, net.b(torch.relu(h))])))


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
    "twice in place": statements(lambda net, h: h.neg_(), lambda net, h: h.relu_()),
    "in place on a view": view_changed,
    "a copy is not changed": lambda net, h: net.wide(torch.cat([h.clone().relu_(), h], 1)),
    "in place, read again": lambda net, h: net.wide(torch.cat([net.b(functional.relu(h, inplace=True)), h], 1)),
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
    "what nobody reads": lambda net, h: (net.b(h).softmax(1), net.last(h.relu()))[1],
    "F.conv2d of its own weights": lambda net, h: net.last(
        functional.conv2d(h, net.b.weight, net.b.bias, padding=1).relu()
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_output_is_the_models(name, generator):
    torch.manual_seed(0)
    module = Net(SAME[name]).double().eval()
    x = torch.randn(2, 2, 8, 12, generator=generator, dtype=torch.float64)
    before, state = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    net = tc.from_torch(module, bias_std=0.7)
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


REFUSED = {
    "x[:, 0] = 0": (changed_item, "setitem.*parts of a feature map"),
    "x.data += 1": (changed_data, "attribute 'data'|getattr"),
    "x.clamp_(0)": (statements(lambda net, h: h.clamp_(min=0)), "clamp_.*kinks"),
    "x.copy_(y)": (statements(lambda net, h: h.copy_(net.b(h))), "copy_, at 'copy_'"),
    "x.zero_()": (statements(lambda net, h: h.zero_()), "zero_, at 'zero_'"),
    "x **= 2": (lambda net, h: net.last(h.__ipow__(2)), "ipow|pow"),
    "out=": (written_out, "writes into another tensor"),
    "in place on what may be a view": (doubtful, "may be a view of"),
    "in place behind dropout": (after_dropout, "may be a view of"),
    "x * y": (lambda net, h: net.last(h * net.b(h)), "products of feature maps"),
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
    "batch size": (lambda net, h: net.last(functional.interpolate(h, size=(h.shape[0], 8))), "images or channels"),
    "flattened": (lambda net, h: h.flatten(1), "flatten.*heads"),
    "mean over the image": (lambda net, h: h.mean((2, 3)), "mean.*heads"),
    "weights that are used twice": (
        lambda net, h: net.last(net.b(functional.conv2d(h, net.b.weight, None, padding=1))),
        "used twice",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_network_cannot_do_is_refused(name):
    function, message = REFUSED[name]
    module = Net(function).eval()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        tc.from_torch(module)
    assert torch.equal(torch.get_rng_state(), before)


# Hooks.


def hooked(part: str, kind: str) -> nn.Module:
    module = nn.Sequential(nn.Sequential(conv(2, 4), nn.ReLU()), conv(4, 1))
    target = module.get_submodule(part)
    if kind == "pre":
        target.register_forward_pre_hook(lambda m, given: (given[0] * 2,))
    elif kind == "with kwargs":
        target.register_forward_hook(lambda m, args, kwargs, out: out * 2, with_kwargs=True)
    else:
        target.register_forward_hook(lambda m, given, out: out * 2, always_call=kind == "always")
    return module


@pytest.mark.parametrize("kind", ["post", "pre", "with kwargs", "always"])
@pytest.mark.parametrize("part", ["", "0", "0.0", "0.1", "1"])
def test_hooks_are_refused_by_place(part, kind):
    with pytest.raises(ValueError, match=f"forward hooks.*, at {repr(part) if part else 'the model itself'}"):
        tc.from_torch(hooked(part, kind))


def test_hooks_of_all_modules_are_refused():
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    for register in (torch_module.register_module_forward_hook, torch_module.register_module_forward_pre_hook):
        handle = register(lambda *given: None)
        try:
            with pytest.raises(ValueError, match=r"forward hooks of all modules"):
                tc.from_torch(module)
        finally:
            handle.remove()
    assert isinstance(tc.from_torch(module), tc.Sequential)


def test_hooks_that_are_not_called_or_change_no_output_do_not_matter(generator):
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    module[0].register_full_backward_hook(lambda *given: None)
    module[0].weight.register_hook(lambda gradient: gradient)
    x = torch.randn(1, 2, 4, 4, generator=generator)
    torch.testing.assert_close(tc.from_torch(module)(x), module(x))


class Own(nn.Conv2d):
    """A class of one's own that is a convolution."""


class Doubled(nn.Conv2d):
    """One that does something else as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Called(nn.Sequential):
    """What is called is not what is traced by name."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return -super().__call__(x)


def with_own_forward() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    layer = module[0]
    layer.forward = lambda x: 3 * nn.Conv2d.forward(layer, x)
    return module


def whole_with_own_forward() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    module.forward = lambda x: -nn.Sequential.forward(module, x)
    return module


def weight_normed() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    parametrizations.weight_norm(module[0])
    with torch.no_grad():
        module[0].parametrizations.weight.original0.mul_(2)
    return module


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(conv(2, 4))
    with torch.no_grad():
        layer.weight_g.mul_(2)  # the weight itself is out of date until the next forward pass
    return nn.Sequential(layer, nn.ReLU(), conv(4, 1))


def pruned() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    prune.random_unstructured(module[0], "weight", 0.5)
    with torch.no_grad():
        module[0].weight_orig.add_(0.1)
    return module


class Symmetric(nn.Module):
    """A parametrisation of one's own."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return (weight + weight.flip(2, 3)) / 2


def symmetric() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    parametrize.register_parametrization(module[0], "weight", Symmetric())
    return module


def spectral(old: bool) -> nn.Module:
    put = nn.utils.spectral_norm if old else parametrizations.spectral_norm
    return nn.Sequential(put(conv(2, 4)), nn.ReLU(), put(conv(4, 1)))


WEIGHTS = {
    "weight norm": weight_normed,
    "weight norm by a hook": old_weight_norm,
    "spectral norm": lambda: spectral(False).eval(),
    "spectral norm by a hook": lambda: spectral(True).eval(),
    "pruned": pruned,
    "a parametrisation of one's own": symmetric,
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(nn.Conv2d(2, 4, 1)), nn.ReLU(), conv(4, 1)),
    "a class of one's own": lambda: nn.Sequential(Own(2, 4, 3, padding=1, padding_mode="circular"), Own(4, 1, 1)),
    "a subclass that does more": lambda: nn.Sequential(Doubled(2, 4, 3, padding=1), nn.ReLU(), Doubled(4, 1, 1)),
    "a call of one's own": lambda: Called(conv(2, 4), nn.ReLU(), conv(4, 1)),
    "forward of one object": with_own_forward,
    "forward of the whole model": whole_with_own_forward,
    "DataParallel inside": lambda: nn.Sequential(nn.DataParallel(conv(2, 4)), nn.ReLU(), conv(4, 1)),
    "half precision inside": lambda: nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1)),
    "transposed of stride 1": lambda: nn.Sequential(
        nn.ConvTranspose2d(2, 4, (3, 5), padding=(1, 2)), nn.ReLU(), nn.ConvTranspose2d(4, 1, 1, bias=False)
    ),
    "frozen PReLU": lambda: nn.Sequential(conv(2, 4), nn.PReLU().requires_grad_(False), conv(4, 1)),
    "RReLU in eval mode": lambda: nn.Sequential(conv(2, 4), nn.RReLU(), conv(4, 1)).eval(),
    "AlphaDropout in eval mode": lambda: nn.Sequential(conv(2, 4), nn.SELU(), nn.AlphaDropout(), conv(4, 1)).eval(),
    "BatchNorm of one factor": lambda: nn.Sequential(
        conv(2, 4), nn.BatchNorm2d(4, affine=False), nn.ReLU(), conv(4, 1)
    ).eval(),
    "no width to dilate": lambda: nn.Sequential(nn.Conv2d(2, 4, 1, dilation=2), nn.ReLU(), conv(4, 1)),
    "activation module twice": lambda: (lambda act: nn.Sequential(conv(2, 4), act, conv(4, 4), act, conv(4, 1)))(
        nn.ReLU()
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_that_the_forward_pass_uses(name, generator):
    torch.manual_seed(0)
    module = WEIGHTS[name]().double()
    x = torch.randn(2, 2, 8, 12, generator=generator, dtype=torch.float64)
    before, state = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    net = tc.from_torch(module)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)


class Noisy(nn.Module):
    """A parametrisation that draws."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + torch.randn_like(weight)


def noisy() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    parametrize.register_parametrization(module[0], "weight", Noisy())
    return module


@pytest.mark.parametrize("make", [lambda: spectral(False), lambda: spectral(True), noisy])
def test_weights_that_change_at_each_pass_are_refused(make):
    module = make()
    before, state = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match="change from one forward pass to the next"):
        tc.from_torch(module)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)


def tied() -> nn.Module:
    module = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    module[2].weight = module[0].weight
    return module


def tied_memory() -> nn.Module:
    module = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    module[2].weight = nn.Parameter(module[0].weight.data)
    return module


def tied_bias() -> nn.Module:
    module = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    module[2].bias = module[0].bias
    return module


def tied_module() -> nn.Module:
    layer = conv(4, 4)
    return nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))


@pytest.mark.parametrize("make", [tied, tied_memory, tied_bias, tied_module])
@pytest.mark.parametrize("weights", [True, False])
def test_shared_weights_are_refused(make, weights):
    with pytest.raises(ValueError, match="weights are used twice"):
        tc.from_torch(make(), weights=weights)


# Modes, frozen parameters, dtypes and devices.


def test_modes_are_kept_layer_by_layer(generator):
    module = nn.Sequential(conv(2, 4), nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.5), conv(4, 1))
    for training in (True, False):
        module.train(training)
        net = tc.from_torch(module)
        assert net.training is training
        assert all(layer.training is training for layer in net.layers)
    module.train()
    module[1].eval()
    net = tc.from_torch(module)
    assert [layer.training for layer in net.layers] == [True, False, True, True, True]
    module.eval()
    x = torch.randn(1, 2, 4, 4, generator=generator)
    torch.testing.assert_close(tc.from_torch(module)(x), module(x))


@pytest.mark.parametrize("weights", [True, False])
def test_frozen_parameters_stay_frozen(weights):
    module = weight_normed()
    module[2].requires_grad_(False)
    module[2].bias.requires_grad_(True)
    net = tc.from_torch(module, weights=weights)
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True]
    module[0].requires_grad_(False)
    assert not any(p.requires_grad for p in tc.from_torch(module, weights=weights).layers[0].parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weights", [True, False])
def test_dtype_and_device_are_the_models(dtype, weights):
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1)).to(dtype)
    assert {p.dtype for p in tc.from_torch(module, weights=weights).parameters()} == {dtype}
    with torch.device("meta"):
        module = nn.Sequential(conv(2, 4), nn.ReLU(), nn.Upsample(scale_factor=2), conv(4, 1))
    net = tc.from_torch(module, weights=weights)
    assert all(p.is_meta for p in net.parameters())
    assert torch.isfinite(net.kernel(tc.priors.Uniform()).dense((4, 4))).all()


def test_new_weights_are_drawn_from_torchs_generator_and_mapped_ones_from_none():
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    torch.manual_seed(1)
    first = tc.from_torch(module, weights=False)
    torch.manual_seed(1)
    second = tc.from_torch(module, weights=False)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


# Models that are wrapped, or called with more than an image.


class Flagged(nn.Module):
    """Arguments beside the image, which have defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))

    def forward(self, x, embedding=None, *, features: bool = False, scale: float = 2.0):
        y = self.net(x) * scale
        return (y, x) if features else y


class Needy(Flagged):
    """One without a default."""

    def forward(self, x, t):
        return self.net(x)


def test_arguments_with_defaults_are_left_at_them(generator):
    x = torch.randn(1, 2, 4, 4, generator=generator)
    module = Flagged()
    torch.testing.assert_close(tc.from_torch(module)(x), module(x))
    torch.testing.assert_close(tc.from_torch(nn.DataParallel(module))(x), module(x))
    with pytest.raises(ValueError, match="missing 1 required positional argument: 't'.*one input"):
        tc.from_torch(Needy())


def test_lazy_and_scripted_modules_are_refused():
    with pytest.raises(ValueError, match=r"LazyConv2d, at '0': run it once"):
        tc.from_torch(nn.Sequential(nn.LazyConv2d(4, 1)))
    scripted = torch.jit.trace(conv(2, 1), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"TorchScript of .*the model itself"):
        tc.from_torch(scripted)


def test_sizes_that_do_not_fit_a_stride_are_refused_when_they_come():
    net = tc.from_torch(nn.Sequential(conv(1, 4, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2), conv(4, 1)))
    with pytest.raises(ValueError, match="multiples of the stride 2"):
        net(torch.zeros(1, 1, 7, 8))
    with pytest.raises(ValueError, match="multiple"):
        net.kernel(tc.priors.Tensor(torch.zeros(1, 7, 8)))


# Kernels of what is new here.


def test_fully_connected_models(generator):
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 8), nn.SELU(), nn.Linear(8, 2))
    module = module.double().eval()
    net = tc.from_torch(module, bias_std=0.4)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)
    by_hand = tc.Sequential(
        tc.Linear(3, 8, bias=True, bias_std=0.4),
        tc.Tanh(),
        tc.Linear(8, 8, bias=True, bias_std=0.4),
        tc.SELU(),
        tc.Linear(8, 2, bias=True, bias_std=0.4),
    )
    torch.testing.assert_close(net.gram(x), by_hand.gram(x), rtol=1e-13, atol=0)
    plain = tc.to_torch(net)
    assert not any(m.training for m in plain.modules())
    torch.testing.assert_close(tc.from_torch(plain)(x), module(x), rtol=1e-10, atol=1e-12)


def test_modes_and_frozen_parameters_go_back():
    module = nn.Sequential(conv(2, 4), nn.Dropout(0.5), nn.ReLU(), conv(4, 1)).train()
    module[1].eval()
    module[3].weight.requires_grad_(False)
    plain = tc.to_torch(tc.from_torch(module))
    assert [m.training for m in plain.modules()] == [True, True, False, True, True]
    assert [p.requires_grad for p in plain.parameters()] == [True, True, False, True]
    wide = tc.with_width(tc.from_torch(module), 8)
    assert [layer.training for layer in wide.layers] == [True, False, True, True]
    assert [p.requires_grad for p in wide.parameters()] == [True, True, False, True]
