"""What a model does beside its forward pass: hooks, modes, weights that are computed, shared or frozen, wrappers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune

import torch_cntk as tc


def conv(given: int, out: int, width: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(given, out, width, padding=width // 2, **{"padding_mode": "circular", **options})


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
def test_hooks_are_refused_by_place(part: Any, kind: Any) -> None:
    with pytest.raises(ValueError, match=f"forward hooks.*, at {repr(part) if part else 'the model itself'}"):
        tc.from_torch(hooked(part, kind))


def test_hooks_of_all_modules_are_refused() -> None:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    for register in (torch_module.register_module_forward_hook, torch_module.register_module_forward_pre_hook):
        handle = register(lambda *given: None)
        try:
            with pytest.raises(ValueError, match=r"forward hooks of all modules"):
                tc.from_torch(module)
        finally:
            handle.remove()
    assert isinstance(tc.from_torch(module), tc.Sequential)


def test_hooks_that_are_not_called_or_change_no_output_do_not_matter(generator: torch.Generator) -> None:
    module: Any = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
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
    layer: Any = module[0]
    layer.forward = lambda x: 3 * nn.Conv2d.forward(layer, x)
    return module


def whole_with_own_forward() -> nn.Module:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    module.forward = lambda x: -nn.Sequential.forward(module, x)  # type: ignore[method-assign, no-untyped-call]
    return module


def weight_normed() -> Any:
    module: Any = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    parametrizations.weight_norm(module[0])
    with torch.no_grad():
        module[0].parametrizations.weight.original0.mul_(2)
    return module


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        layer: Any = nn.utils.weight_norm(conv(2, 4))
    with torch.no_grad():
        layer.weight_g.mul_(2)  # the weight itself is out of date until the next forward pass
    return nn.Sequential(layer, nn.ReLU(), conv(4, 1))


def pruned() -> nn.Module:
    module: Any = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    prune.random_unstructured(module[0], "weight", 0.5)  # type: ignore[no-untyped-call]
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


WEIGHTS: dict[str, Callable[[], nn.Module]] = {
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
def test_weights_are_those_that_the_forward_pass_uses(name: Any, generator: torch.Generator) -> None:
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
def test_weights_that_change_at_each_pass_are_refused(make: Any) -> None:
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
    module: Any = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    module[2].weight = nn.Parameter(module[0].weight.data)
    return module


def overlapping() -> nn.Module:
    module, memory = nn.Sequential(conv(2, 2), nn.ReLU(), conv(2, 2)), torch.randn(60)
    module[0].weight = nn.Parameter(memory[:36].view(2, 2, 3, 3))
    module[2].weight = nn.Parameter(memory[24:].view(2, 2, 3, 3))
    return module


def tied_bias() -> nn.Module:
    module = nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    module[2].bias = module[0].bias
    return module


def tied_module() -> nn.Module:
    layer = conv(4, 4)
    return nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))


@pytest.mark.parametrize("make", [tied, tied_memory, overlapping, tied_bias, tied_module])
@pytest.mark.parametrize("weights", [True, False])
def test_shared_weights_are_refused(make: Any, weights: Any) -> None:
    with pytest.raises(ValueError, match="weights are used twice"):
        tc.from_torch(make(), weights=weights)


# Modes, frozen parameters, dtypes and devices.


def test_modes_are_kept_layer_by_layer(generator: torch.Generator) -> None:
    module = nn.Sequential(conv(2, 4), nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.5), conv(4, 1))
    for training in (True, False):
        module.train(training)
        net: Any = tc.from_torch(module)
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
def test_frozen_parameters_stay_frozen(weights: Any) -> None:
    module = weight_normed()
    module[2].requires_grad_(False)
    module[2].bias.requires_grad_(True)
    net: Any = tc.from_torch(module, weights=weights)
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, True]
    module[0].requires_grad_(False)
    net = tc.from_torch(module, weights=weights)
    assert not any(p.requires_grad for p in net.layers[0].parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weights", [True, False])
def test_dtype_and_device_are_the_models(dtype: Any, weights: Any) -> None:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1)).to(dtype)
    assert {p.dtype for p in tc.from_torch(module, weights=weights).parameters()} == {dtype}
    with torch.device("meta"):
        module = nn.Sequential(conv(2, 4), nn.ReLU(), nn.Upsample(scale_factor=2), conv(4, 1))
    net = tc.from_torch(module, weights=weights)
    assert all(p.is_meta for p in net.parameters())
    assert torch.isfinite(net.kernel(tc.priors.Uniform()).dense((4, 4))).all()


def test_new_weights_are_drawn_from_torchs_generator_and_mapped_ones_from_none() -> None:
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

    def forward(self, x: Any, embedding: Any = None, *, features: bool = False, scale: float = 2.0) -> Any:
        y = self.net(x) * scale
        return (y, x) if features else y


class Needy(Flagged):
    """One without a default."""

    def forward(self, x: Any, t: Any) -> Any:  # type: ignore[override]
        return self.net(x)


def test_arguments_with_defaults_are_left_at_them(generator: torch.Generator) -> None:
    x = torch.randn(1, 2, 4, 4, generator=generator)
    module = Flagged()
    torch.testing.assert_close(tc.from_torch(module)(x), module(x))
    torch.testing.assert_close(tc.from_torch(nn.DataParallel(module))(x), module(x))
    with pytest.raises(ValueError, match=r"missing 1 required positional argument: 't'.*one input"):
        tc.from_torch(Needy())


def test_compiled_models_are_seen_through(generator: torch.Generator) -> None:
    module = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 1))
    x = torch.randn(1, 2, 4, 4, generator=generator)
    compiled: Any = torch.compile(module)
    torch.testing.assert_close(tc.from_torch(compiled)(x), module(x))


def test_networks_of_ours_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a layer of torch_cntk: Conv2d, at '1'"):
        tc.from_torch(nn.Sequential(conv(1, 2), tc.Conv2d(2, 1, 1)))


def test_dropout_that_ignores_the_mode_is_refused(generator: torch.Generator) -> None:
    class Always(nn.Module):
        def __init__(self, told: bool) -> None:
            super().__init__()
            self.a, self.told = conv(1, 1), told

        def forward(self, x: Any) -> Any:
            return nn.functional.dropout(self.a(x), 0.5, self.training) if self.told else nn.functional.dropout(x)

    with pytest.raises(ValueError, match="drops in eval mode as well"):
        tc.from_torch(Always(False).train())
    model = Always(True).train()
    net: Any = tc.from_torch(model)
    assert model.training
    assert [type(layer) for layer in net.layers] == [tc.Conv2d, tc.Dropout]
    x = torch.randn(1, 1, 4, 4, generator=generator)
    torch.testing.assert_close(net.eval()(x), model.eval()(x))


def test_dropout_of_channels_drops_channels(generator: torch.Generator) -> None:
    net = tc.from_torch(nn.Sequential(nn.Conv2d(1, 64, 1), nn.Dropout2d(0.5))).train()
    output = net(1 + torch.rand(2, 1, 4, 4, generator=generator)).flatten(2) == 0
    assert bool((output.all(2) == output.any(2)).all())
    assert 0 < output.all(2).sum() < 128
    plain: Any = tc.to_torch(net)
    assert isinstance(plain[1], nn.Dropout2d)


def test_lazy_and_scripted_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"LazyConv2d, at '0': run it once"):
        tc.from_torch(nn.Sequential(nn.LazyConv2d(4, 1)))
    scripted = torch.jit.trace(conv(2, 1), torch.zeros(1, 2, 4, 4))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"TorchScript of .*the model itself"):
        tc.from_torch(scripted)


def test_modes_and_frozen_parameters_go_back() -> None:
    module = nn.Sequential(conv(2, 4), nn.Dropout(0.5), nn.ReLU(), conv(4, 1)).train()
    module[1].eval()
    module[3].weight.requires_grad_(False)
    plain = tc.to_torch(tc.from_torch(module))
    assert [m.training for m in plain.modules()] == [True, True, False, True, True]
    assert [p.requires_grad for p in plain.parameters()] == [True, True, False, True]
    wide: Any = tc.with_width(tc.from_torch(module), 8)
    assert [layer.training for layer in wide.layers] == [True, False, True, True]
    assert [p.requires_grad for p in wide.parameters()] == [True, True, False, True]
