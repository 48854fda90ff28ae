"""Models of torch.nn brought in, and networks taken out as plain torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_cntk as tc

CIRCULAR: dict[str, Any] = {"padding": 1, "padding_mode": "circular"}


def conv(given: int, out: int, width: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(given, out, width, padding=width // 2, **{"padding_mode": "circular", **options})


class SkipNet(nn.Module):
    """The deep image prior's skip network of two levels, as one writes it."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        options: dict[str, Any] = {"bias": bias}
        self.skip0 = nn.Sequential(conv(4, 2, 1, **options), nn.LeakyReLU(0.2))
        self.down0 = nn.Sequential(
            conv(4, 6, stride=2, **options), nn.LeakyReLU(0.2), conv(6, 6, **options), nn.LeakyReLU(0.2)
        )
        self.skip1 = nn.Sequential(conv(6, 2, 1, **options), nn.LeakyReLU(0.2))
        self.down1 = nn.Sequential(
            conv(6, 6, stride=2, **options), nn.LeakyReLU(0.2), conv(6, 6, **options), nn.LeakyReLU(0.2)
        )
        self.up1 = nn.Sequential(conv(8, 6, **options), nn.LeakyReLU(0.2), conv(6, 6, 1, **options), nn.LeakyReLU(0.2))
        self.up0 = nn.Sequential(conv(8, 6, **options), nn.LeakyReLU(0.2), conv(6, 6, 1, **options), nn.LeakyReLU(0.2))
        self.dropout = nn.Dropout(0.1)
        self.last = conv(6, 3, 1, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down0(x)
        deeper = functional.interpolate(self.down1(first), scale_factor=2)
        back = self.up1(torch.cat([self.skip1(first), deeper], dim=1))
        back = functional.interpolate(back, scale_factor=2, mode="nearest")
        return torch.sigmoid(self.last(self.dropout(self.up0(torch.cat((self.skip0(x), back), 1)))))


class ResNet(nn.Module):
    """Pre-activation blocks, normalised over channels, in PyTorch's default padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.LayerNorm(5, elementwise_affine=False)
        self.first, self.second = nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 5, 5, padding="same")
        self.third, self.head = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 1, 1)
        self.act, self.pool = nn.GELU(), nn.AvgPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + self.second(functional.relu(self.first(self.act(y))))
        x = torch.add(x, self.up(self.third(self.pool(x))))
        return self.head(torch.relu(x))


class Branch(nn.Module):
    """A trunk behind an activation, whose gain the other branch must take over; and channels of different gains."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv(2, 4), conv(4, 4), conv(4, 4, 1), conv(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        trunk = functional.leaky_relu(self.a(x), 0.1)
        total = trunk + self.b(trunk)
        return self.d(torch.concat([self.c(total), functional.avg_pool2d(self.up(trunk), kernel_size=2)], 1))

    def up(self, x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, scale_factor=2)


class Normed(nn.Module):
    """Trained scales between two convolutions, moved to and fro by movedim."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(2, 4), conv(4, 4), conv(4, 1)
        self.norm = nn.LayerNorm(4, eps=1e-3)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = x + self.b(torch.movedim(self.norm(x.movedim(1, -1)), -1, 1).contiguous())
        return self.c(functional.gelu(x))


class Correlated(nn.Module):
    """A sum of a feature map and a linear map of it: their covariances do not add up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = conv(2, 5), nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return x + functional.interpolate(self.pool(x), scale_factor=2)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: nn.Sequential(
        conv(2, 4), nn.ReLU(), conv(4, 4, 5), nn.LeakyReLU(0.3), conv(4, 3, 1), nn.Sigmoid()
    ),
    "zero padding": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 5, 2, padding=2)),
    "in place": lambda: nn.Sequential(conv(2, 4), nn.ReLU(inplace=True), conv(4, 1)),
    "valid 1x1": lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.GELU(), nn.Conv2d(4, 1, 1)),
    "padding before": lambda: nn.Sequential(
        nn.CircularPad2d(1), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ZeroPad2d(2), nn.Conv2d(4, 1, 5)
    ),
    "up and down": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.UpsamplingBilinear2d(scale_factor=2),
        conv(4, 4),
        nn.Identity(),
        nn.Tanh(),
        nn.AvgPool2d(2),
        conv(4, 1),
    ),
    "ends in an activation": lambda: nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 3, 1), nn.LeakyReLU(0.2)),
    "gains in branches": Branch,
    "residual network": ResNet,
    "normalised": Normed,
    "skip network": SkipNet,
    "skip network with biases": lambda: SkipNet(bias=True),
    "1d": lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3, **CIRCULAR), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv1d(4, 1, 3, padding=1)
    ),
    "3d": lambda: nn.Sequential(nn.Conv3d(2, 4, 3, 2, **CIRCULAR), nn.Softplus(), nn.AvgPool3d(2), nn.Conv3d(4, 1, 1)),
}


def sample(module: nn.Module, generator: torch.Generator) -> torch.Tensor:
    first = next(m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    size = {1: (12,), 2: (8, 12), 3: (4, 4, 8)}[first.weight.ndim - 2]
    return torch.randn(2, first.in_channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_forward_is_the_models(name: Any, generator: torch.Generator) -> None:
    module = MODULES[name]().double().eval()
    net = tc.from_torch(module, bias_std=0.3).eval()
    x = sample(module, generator)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)
    # And again as plain torch.nn.
    plain = tc.to_torch(net).eval()
    assert not any(type(m).__module__.startswith("torch_cntk") for m in plain.modules())
    torch.testing.assert_close(plain(x), module(x), rtol=1e-10, atol=1e-12)
    again = tc.from_torch(plain, bias_std=0.3).eval()
    torch.testing.assert_close(again(x), module(x), rtol=1e-10, atol=1e-12)
    prior = tc.priors.Tensor(x[0])
    torch.testing.assert_close(again.kernel(prior).dense(), net.kernel(prior).dense(), rtol=1e-12, atol=0)


def test_correlated_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the branches of a sum"):
        tc.from_torch(Correlated())


def skip_by_hand(activation: tc.Layer, bias: bool) -> tc.Sequential:
    """The network of ``SkipNet``, written in torch_cntk."""
    options: dict[str, Any] = {"bias": bias, "bias_std": 0.5}

    def block(*convolutions: tuple) -> tc.Sequential:
        layers = [(tc.Conv2d(*arguments, **options), activation) for arguments in convolutions]
        return tc.Sequential(*(layer for pair in layers for layer in pair))

    inner = tc.Concat(block((6, 2, 1)), tc.Sequential(block((6, 6, 3, 2), (6, 6, 3)), tc.NearestUp(2)))
    middle = tc.Sequential(block((4, 6, 3, 2), (6, 6, 3)), inner, block((8, 6, 3), (6, 6, 1)), tc.NearestUp(2))
    outer = tc.Concat(block((4, 2, 1)), middle)
    return tc.Sequential(outer, block((8, 6, 3), (6, 6, 1)), tc.Conv2d(6, 3, 1, **options))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_kernel_of_a_skip_network_is_that_of_the_one_built_by_hand(bias: Any, kind: Any) -> None:
    net = tc.from_torch(SkipNet(bias), bias_std=0.5)
    by_hand = skip_by_hand(tc.LeakyReLU(0.2), bias)
    prior = tc.priors.Uniform(0, 0.1)
    kernel, expected = (n.kernel(prior, kind=kind) for n in (net, by_hand))
    assert kernel.period == expected.period == (4, 4)
    torch.testing.assert_close(kernel.dense((8, 12)), expected.dense((8, 12)), rtol=1e-13, atol=0)
    if not bias:
        ready = tc.hourglass(2, 6, 2, in_channels=4, slope=0.2).kernel(prior, kind=kind)
        torch.testing.assert_close(kernel.dense((8, 12)), ready.dense((8, 12)), rtol=1e-13, atol=0)


def test_weights_of_a_skip_network_map_onto_the_one_built_by_hand(generator: torch.Generator) -> None:
    module = SkipNet(bias=True).double().eval()
    net, by_hand = tc.from_torch(module, bias_std=0.5), skip_by_hand(tc.LeakyReLU(0.2), bias=True).double()

    def convolutions(n: tc.Layer) -> list[tc.Conv2d]:
        return [node.does for node in tc.layers.network.flatten(n) if isinstance(node.does, tc.Conv2d)]

    # Both run layers of one shape in the same order, from the outer level in and out again.
    waiting: dict[tuple, list[tc.Conv2d]] = {}
    for layer in convolutions(net):
        waiting.setdefault((*layer.weight.shape, layer.stride), []).append(layer)
    for layer in convolutions(by_hand):
        layer.load_state_dict(waiting[*layer.weight.shape, layer.stride].pop(0).state_dict())
    x = sample(module, generator)
    torch.testing.assert_close(torch.sigmoid(by_hand(x)), module(x), rtol=1e-10, atol=1e-12)


def test_chain_becomes_a_sequential_and_a_branching_model_a_graph() -> None:
    assert isinstance(tc.from_torch(MODULES["chain"]()), tc.Sequential)
    assert isinstance(tc.from_torch(SkipNet()), tc.Graph)
    assert isinstance(tc.to_torch(tc.from_torch(MODULES["chain"]())), nn.Sequential)


def test_options_of_from_torch() -> None:
    module: Any = nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 1))
    net: Any = tc.from_torch(module, bias_std=0.2, weights=False, ignore=(nn.BatchNorm2d,))
    assert [type(layer) for layer in net.layers] == [tc.Conv2d, tc.ReLU, tc.Conv2d]
    assert net.layers[0].bias_std == 0.2
    assert not torch.equal(net.layers[0].effective()[0], module[0].weight)


class Calls(nn.Module):
    """A convolution, and what a test wants to call."""

    def __init__(self, function: Any, before: Any = lambda x: x) -> None:
        super().__init__()
        self.block, self.norm = nn.Sequential(conv(1, 4), conv(4, 4)), nn.LayerNorm(4)
        self.before, self.function = before, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, self.block(self.before(x)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3)), "ReflectionPad2d, at '0': pad circularly"),
        (nn.Sequential(conv(1, 1), nn.BatchNorm2d(1)), r"BatchNorm2d, at '1': statistics over the batch.*leave it out"),
        (nn.Sequential(nn.Sequential(nn.MaxPool2d(2))), r"MaxPool2d, at '0.0': take average pooling"),
        (nn.Sequential(conv(1, 1), nn.PReLU()), r"PReLU, at '1'"),
        (nn.Sequential(conv(1, 1), nn.Linear(3, 3)), r"Linear, at '1': expected images permuted"),
        (conv(1, 1, padding_mode="reflect"), r"padding_mode='reflect': pad circularly or with zeros"),
        (nn.Upsample(size=(8, 8)), r"expected scale_factor"),
        (nn.Upsample(scale_factor=1.5), r"expected one integer as scale_factor"),
        (nn.Upsample(scale_factor=2, mode="bicubic"), r"mode='bicubic'"),
        (nn.AvgPool2d((3, 1)), r"expected blocks that are alike along all axes"),
        (nn.AvgPool2d(2, divisor_override=3), r"expected divisor_override=1"),
        (nn.AvgPool2d(3, 3, 1, ceil_mode=True), r"as long as stride and padding"),
        (nn.Sequential(conv(4, 4, groups=4), nn.ReLU(), conv(4, 1)), r"ReLU, at '1': .*depthwise convolution"),
        (nn.GELU(approximate="tanh"), r"approximate"),
        (nn.LayerNorm((4, 4)), r"expected one over channels"),
        (Calls(lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu()), r"scales are trained"),
        (Calls(lambda self, x: x * x), r"no exact rule for mul, at 'mul' in the forward pass: .*branches of a product"),
        (Calls(lambda self, x: self.block[1](x)), r"Conv2d, at 'block.1': its weights are used twice"),
        (Calls(lambda self, x: functional.interpolate(x, size=(8, 8))), r"interpolate.*: expected scale_factor"),
        (Calls(lambda self, x: x + 1), r"add.* a constant offset has no rule"),
        (Calls(lambda self, x: x.permute(0, 2, 3, 1)), r"permuted axes"),
        (Calls(lambda self, x: x.permute(0, 3, 1, 2)), r"expected channels to move to the end"),
        (Calls(lambda self, x: functional.pad(x, (1, 1, 1, 1))), r"must be followed by a convolution"),
        (Calls(lambda self, x: functional.pad(x, (1, 0, 1, 1))), r"expected the same on both sides"),
        (Calls(lambda self, x: torch.cat([x, x], 2)), r"concatenation of pixels"),
        (
            Calls(lambda self, x: x, lambda x: torch.cat([x, x], -1)),
            r"not known before the first convolution: expected dim=1, got dim=-1",
        ),
        (Calls(lambda self, x: x if x.sum() > 0 else -x), r"torch.fx cannot trace Calls"),
        (Calls(lambda self, x: (x, x)), r"expected a model of one output tensor"),
        (nn.Sequential(nn.Identity()), r"expected a model that does something"),
    ],
)
def test_what_has_no_rule_is_refused_by_name_and_place(module: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        tc.from_torch(module)


class Split(nn.Module):
    """An activation at the end, of a convolution that others read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(1, 2), conv(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        return torch.cat([self.b(y), torch.relu(y)], 1)


@pytest.mark.parametrize("module", [nn.Sequential(nn.ReLU()), Split()])
def test_gains_without_a_place_to_go_are_refused(module: Any) -> None:
    with pytest.raises(ValueError, match="the weights cannot be mapped"):
        tc.from_torch(module)
    assert isinstance(tc.from_torch(module, weights=False), tc.Layer)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module"):
        tc.from_torch(lambda x: x)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [3, 24])
def test_width_changes_hidden_channels_alone(width: Any, generator: torch.Generator) -> None:
    net = tc.hourglass(2, (8, 12), 4, channels=3, in_channels=5)
    wide = tc.with_width(net, width)
    assert (wide.in_channels, wide.out_channels) == (5, 3)
    assert max(m.out_channels for m in wide.modules() if isinstance(m, tc.Conv2d)) == width
    module = tc.to_torch(net, width=width)
    assert module(torch.randn(1, 5, 8, 8, generator=generator)).shape == (1, 3, 8, 8)
    if width == 24:  # exactly twice as wide: all proportions are kept
        prior = tc.priors.Uniform()
        torch.testing.assert_close(wide.kernel(prior).dense((8, 8)), net.kernel(prior).dense((8, 8)))
    residual = tc.Sequential(tc.Conv2d(1, 4, 3), tc.Residual(tc.ReLU(), tc.Conv2d(4, 4, 3)), tc.Conv2d(4, 1, 1))
    assert tc.with_width(residual, 7)(torch.zeros(1, 1, 4, 4)).shape == (1, 1, 4, 4)


def test_width_of_a_network_without_hidden_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a network with hidden channels"):
        tc.with_width(tc.Sequential(tc.Conv2d(1, 1, 3)), 4)


@pytest.mark.parametrize("layer", [tc.BilinearUp(2), tc.GaussianBlur(3, 1.0), tc.LanczosDown(2)])
def test_layers_that_torch_does_not_have_are_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match=r"torch.nn has no"):
        tc.to_torch(tc.Sequential(tc.Conv2d(1, 1, 3), layer))


# Parameterisations.


def test_parameterisations_compute_the_same_and_read_each_others_states(
    tmp_path: Path, generator: torch.Generator
) -> None:
    net: Any = tc.Sequential(tc.Conv2d(2, 4, 3, bias=True, bias_std=0.3), tc.ReLU(), tc.StridedConv2d(4, 3, 3)).double()
    standard: Any = tc.reparameterise(net, "standard")
    x = torch.randn(1, 2, 4, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(standard(x), net(x))
    torch.testing.assert_close(standard.layers[0].weight, net.layers[0].effective()[0])
    torch.testing.assert_close(standard.layers[0].bias, 0.3 * net.layers[0].bias)
    assert "parameterisation='standard'" in repr(standard)
    for source, target in ((net, standard), (standard, net), (standard, standard), (net, net)):
        torch.save(source.state_dict(), tmp_path / "state.pt")
        fresh: Any = tc.reparameterise(target, target.layers[0].parameterisation)
        for layer in (fresh.layers[0], fresh.layers[2]):
            layer.reset_parameters(generator)
        fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert fresh.layers[0].parameterisation == target.layers[0].parameterisation
        torch.testing.assert_close(fresh(x), net(x))
    back = tc.reparameterise(standard, "ntk")
    torch.testing.assert_close(back.state_dict(), net.state_dict())
    # So that the covariance of the output is the same; its NTK is not.
    kernels = [part.kernel(tc.priors.Uniform(), kind="nngp").dense((4, 4)) for part in (net, standard)]
    assert torch.equal(*kernels)


def test_fresh_weights_have_the_scale_of_their_parameterisation() -> None:
    torch.manual_seed(0)
    layer = tc.Conv2d(100, 100, 3, bias=True, bias_std=0.5, parameterisation="standard")
    # 90,000 draws: a standard error of 0.24 %; 100 biases: 7 %.
    assert float(layer.weight.detach().std()) == pytest.approx(1 / 30, rel=0.02)
    assert layer.bias is not None
    assert float(layer.bias.detach().std()) == pytest.approx(0.5, rel=0.35)
    with pytest.raises(ValueError, match="expected parameterisation"):
        tc.reparameterise(layer, "mup")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected parameterisation"):
        tc.Conv2d(1, 1, 3, parameterisation="mup")  # type: ignore[arg-type]


def test_flat_networks_are_the_same_function(generator: torch.Generator) -> None:
    first, inner = tc.Conv2d(2, 2, 3), tc.Residual(tc.ReLU(), tc.Conv2d(2, 2, 3))
    branch = tc.Sequential(tc.ReLU(), tc.Conv2d(2, 2, 1))
    nets = [
        tc.Sequential(tc.Identity(), tc.Conv2d(2, 2, 3), tc.Sum(branch, tc.Identity())),
        tc.Graph(tc.Node(first, (0,)), tc.Node(tc.ReLU(), (1,)), tc.Node(tc.Identity(), (1,))),
        tc.Sequential(tc.Residual(tc.Conv2d(2, 2, 3), inner), tc.Sum(tc.Conv2d(2, 1, 1))),
        tc.Sequential(tc.Identity()),
    ]
    x = torch.randn(1, 2, 4, 4, generator=generator)
    for net in nets:
        nodes = tc.layers.network.flatten(net)
        again = tc.layers.graph.assemble(nodes, 2) if nodes else torch.nn.Identity()
        assert torch.equal(again(x), net(x))
