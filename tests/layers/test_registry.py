"""Every layer and every prior, found in the registries: a new one that lacks a rule, a case or a line fails here."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force
from torch_cntk.conversion import rules
from torch_cntk.covariance.signal import Signal
from torch_cntk.layers.registry import ACTIVATIONS
from torch_cntk.priors.base import Prior

DOCS = Path(__file__).parents[2] / "docs"
TABLES = "".join((DOCS / page).read_text(encoding="utf-8") for page in ("layers.md", "between_inputs.md"))


def own(classes: dict[str, type]) -> list[type]:
    """Those of the package: tests may define others."""
    return [cls for cls in classes.values() if cls.__module__.startswith("torch_cntk.")]


LAYERS = {cls.__name__: cls for cls in own(tc.Layer._by_name)}


def _own_size(name: str, channels: int) -> tc.Layer:
    options = {"padding_mode": "zeros"} if "Transpose" in name else {}
    return getattr(tc, name)(channels, channels, 3, **options)


def _pool(name: str, channels: int) -> tc.Layer:
    return getattr(tc, name)(2)


# A layer of each class, from so many channels to as many. Activations that take no options need no line.
EXAMPLES: dict[str, Callable[[int], tc.Layer]] = {
    **{
        f"{kind}{n}d": functools.partial(_own_size, f"{kind}{n}d")
        for kind in ("Conv", "StridedConv", "ConvTranspose")
        for n in (1, 2, 3)
    },
    **{f"{kind}Pool{n}d": functools.partial(_pool, f"{kind}Pool{n}d") for kind in ("Avg", "Sum") for n in (1, 2, 3)},
    "Flatten": lambda c: tc.Flatten(),
    "GlobalAvgPool": lambda c: tc.GlobalAvgPool(),
    "Linear": lambda c: tc.Linear(c, c, bias=True, bias_std=0.5),
    "LeakyReLU": lambda c: tc.LeakyReLU(0.3),
    "ABReLU": lambda c: tc.ABReLU(-0.4, 1.3),
    "Elementwise": lambda c: tc.Elementwise(torch.nn.functional.softplus, terms=32),
    "NearestUp": lambda c: tc.NearestUp(3),
    "BilinearUp": lambda c: tc.BilinearUp(2, padding_mode="border"),
    "GaussianBlur": lambda c: tc.GaussianBlur(3, 0.8),
    "LanczosDown": lambda c: tc.LanczosDown(2),
    "SelfAttention": lambda c: tc.SelfAttention(c, c, 2, bias=True, bias_std=0.5, logit_scale=0.7),
    "ChannelNorm": lambda c: tc.ChannelNorm(c, eps=0.1),
    "Identity": lambda c: tc.Identity(),
    "MultipleOf": lambda c: tc.MultipleOf(2),
    "Scale": lambda c: tc.Scale(-0.3),
    "Dropout": lambda c: tc.Dropout(0.2).eval(),
    "Sigmoid": lambda c: tc.Sigmoid(),
    "Sequential": lambda c: tc.Sequential(tc.ReLU(), tc.Conv1d(c, c, 3)),
    "Sum": lambda c: tc.Sum(tc.Conv1d(c, c, 3), tc.Conv1d(c, c, 1)),
    "Product": lambda c: tc.Product(tc.Conv1d(c, c, 3), tc.Conv1d(c, c, 1)),
    "Residual": lambda c: tc.Residual(tc.ReLU(), tc.Conv1d(c, c, 3)),
    "Concat": lambda c: tc.Concat(tc.Conv1d(c, c // 2, 3), tc.Conv1d(c, c // 2, 1)),
    "Graph": lambda c: tc.Graph(
        tc.Node(tc.Conv1d(c, c, 3), (0,)), tc.Node(tc.Conv1d(c, c, 1), (0,)), tc.Node("sum", (1, 2))
    ),
}


def example(name: str, channels: int = 4) -> tc.Layer:
    if name in EXAMPLES:
        return EXAMPLES[name](channels)
    cls = LAYERS[name]
    needed = [
        p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    ]
    assert issubclass(cls, tc.layers.Activation), f"give an example of {name}"
    assert not any(p.kind is not p.VAR_KEYWORD for p in needed), f"give an example of {name}"
    return cls()


HEADS = {"Flatten", "GlobalAvgPool"}
"""Layers that leave no pixels: their kernel is one between images."""


def size_of(layer: tc.Layer) -> tuple[int, ...]:
    return {1: (12,), 2: (4, 6), 3: (2, 4, 2)}[layer.ndim or 1]


def test_there_are_layers() -> None:
    assert {"Conv2d", "Linear", "ReLU", "Graph", "ChannelNorm"} <= LAYERS.keys()
    assert EXAMPLES.keys() <= LAYERS.keys()
    assert not {"Network", "Activation", "Weighted"} & LAYERS.keys()


@pytest.mark.parametrize("name", LAYERS)
def test_layer_has_a_line_in_the_docs(name: Any) -> None:
    assert f"`{name}`" in TABLES or f"`{name}(" in TABLES


@pytest.mark.parametrize("name", LAYERS)
def test_layer_can_be_had_from_the_package(name: Any) -> None:
    assert getattr(tc, name, None) is LAYERS[name]


@pytest.mark.parametrize("name", LAYERS)
def test_description_and_repr_make_the_layer_anew(name: Any) -> None:
    layer = example(name)
    if name == "Elementwise":
        with pytest.raises(NotImplementedError):
            tc.layers.from_description(layer.description())
        return
    again = tc.layers.from_description(json.loads(json.dumps(layer.description())))
    assert again.description() == layer.description()
    assert repr(again) == repr(layer)
    if not isinstance(layer, tc.layers.Network):
        typed = eval(repr(layer), {name: getattr(tc, name) for name in tc.__all__})
        assert typed.description() == layer.description()


@pytest.mark.parametrize("name", LAYERS)
def test_layer_can_be_built_without_weights_and_then_draws_nothing(name: Any) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.device("meta"):
        layer = example(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.is_meta for parameter in layer.parameters())
    if layer.ndim != 0 and name not in HEADS:
        kernel = layer.kernel(tc.priors.White(1.0), size_after(layer))
        assert torch.isfinite(kernel.dense(size_after(layer))).all()
    assert torch.equal(torch.get_rng_state(), before)


def size_after(layer: tc.Layer) -> tuple[int, ...]:
    size = size_of(layer)
    scale = layer.propagate(tc.covariance.Extent.start(len(size))).scale
    return tuple(int(n * s) for n, s in zip(size, scale, strict=True))


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", sorted(LAYERS.keys() - HEADS))
def test_rule_is_the_textbooks(name: Any, kind: Any, generator: torch.Generator) -> None:
    layer = example(name)
    if layer.ndim == 0:
        net = tc.Sequential(tc.Linear(3, 4), layer, tc.ReLU(), tc.Linear(4, 2))
        features = 0.7 * torch.randn(7, 3, generator=generator, dtype=torch.float64)
        found, sigma = net.gram(features, kind=kind), features @ features.T / 3
    else:
        conv = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}[layer.ndim or 1]
        after = () if name == "Sigmoid" else (conv(4, 2, 3),)
        net = tc.Sequential(conv(3, 4, 1), layer, *after)
        features = 0.7 * torch.randn(3, *size_of(layer), generator=generator, dtype=torch.float64)
        found, sigma = net.kernel(tc.priors.Tensor(features), kind=kind).dense(), brute_force.feature_prior(features)
    expected = brute_force.propagate(net, sigma)[("nngp", "ntk").index(kind)]
    # float64 on both sides; of two features that are close by chance, the angle has few digits. By quadrature the
    # recursion has six to ten digits, as far as the variance goes.
    exactly = not isinstance(layer, tc.layers.Activation) or isinstance(layer, tc.ReLU | tc.LeakyReLU | tc.Abs)
    tolerance = 1e-10 if exactly or isinstance(layer, tc.Erf | tc.Sin) else 1e-6
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - HEADS))
def test_forward_and_rule_belong_together(name: Any, generator: torch.Generator) -> None:
    """The covariance over the channels of what ``forward`` makes of Gaussian images, against ``propagate``."""
    channels = 512
    layer = example(name, channels).double().eval()
    draws = [(torch.randn(channels, *size_of(layer), generator=generator, dtype=torch.float64)) for _ in range(3)]
    if layer.ndim == 0:
        z = draws[0]
        with torch.no_grad():
            output = layer(z.T)
        found = output @ output.T / channels
        sigma = z.T @ z / channels
        # The bias has one draw for each output.
        expected = brute_force.propagate(layer, sigma)[0]
    else:
        size = size_after(layer)
        expected = layer.kernel(tc.priors.White(1.0), size, kind="nngp").dense(size)
        pixels = math.prod(size)
        expected, found = expected.reshape(pixels, pixels), torch.zeros(pixels, pixels, dtype=torch.float64)
        for z in draws:
            with torch.no_grad():
                output = layer(z[None])[0].reshape(-1, pixels)
            if name == "Sigmoid":
                # The kernel is that of what comes before the head.
                output = torch.logit(output)
            found += output.T @ output / len(output) / len(draws)
    # The mean over the channels is off by some sqrt(pixels / channels), relative; a wrong rule by more.
    assert (found - expected).norm() <= 4 * math.sqrt(len(expected) / channels / len(draws)) * expected.norm()


WITH_BIASES = [name for name, cls in LAYERS.items() if "bias_std" in inspect.signature(cls).parameters]


@pytest.mark.parametrize("name", WITH_BIASES)
def test_a_scale_of_the_bias_means_that_there_is_one(name: Any) -> None:
    others = {key: value for key, value in example(name).description().items() if key not in ("bias", "bias_std")}

    def made(**options: Any) -> Any:
        return tc.layers.from_description(others | options)

    layer = made(bias_std=0.4)
    assert layer.bias is not None
    assert repr(layer) == repr(made(bias=True, bias_std=0.4))
    assert layer.gains == made(bias=True, bias_std=0.4).gains
    assert made().bias is None
    assert made(bias=False, bias_std=0.4).bias is None
    assert made(bias=True).bias_std == 1
    with pytest.raises(TypeError, match=r"expected bias to be True, False or None, got 0\.4"):
        made(bias=0.4)


def test_every_weight_layer_has_a_scale_of_the_bias() -> None:
    assert set(WITH_BIASES) == {name for name, cls in LAYERS.items() if issubclass(cls, tc.layers.Weighted)}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_has_a_counterpart_in_torch_or_a_reason_why_not(name: Any) -> None:
    layer = example(name)
    rule = rules.rule_for(layer)
    if rule is None:
        assert len(rules.NO_COUNTERPART[type(layer)]) > 10
        return
    assert type(layer) not in rules.NO_COUNTERPART
    assert rule.write is not None
    place = rules.Place(layer.ndim or 1, 4)
    written = rule.write(layer, place)
    if isinstance(written, torch.nn.Module):
        assert type(written).__module__.startswith("torch.nn")
        assert rules.rule_of_module(written) is rule
        again = rule.read(rule.options_of_module(written))
    elif name == "Elementwise":
        again = rule.read({"function": written.function})
    else:
        assert rules.rule_of_function(written.function) is rule
        again = rule.read({**rule.options, **dict(zip(rule.options, written.constants, strict=False))})
    if name == "Logistic":
        # By itself it is read as a head; in the middle of a model as what it is.
        assert type(again) is tc.Sigmoid
        return
    if name == "MultipleOf":
        # Other sizes are for torch to take.
        assert type(again) is tc.Identity
        return
    # Strided convolutions are torch's convolutions.
    same = again.description() | {"layer": layer.description()["layer"]}
    assert same == layer.description() | ({"bias_std": 1.0} if "bias_std" in same else {})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_named_activation_is_known_everywhere(name: Any) -> None:
    entry = ACTIVATIONS[name]
    assert isinstance(entry(), entry.layer)
    assert entry.dual == entry()._dual()
    completion = tc.MatrixCompletion(activation=name)
    y = torch.tensor([[1.0, 2.0, math.nan]], dtype=torch.float64)
    assert torch.isfinite(completion.fit(y, features=torch.eye(3, dtype=torch.float64)).predict()).all()
    assert any(isinstance(layer, entry.layer) for layer in tc.hourglass(1, 4, 0, activation=name).layers)
    recipe: Any = tc.catalogue.recipe(f"uniform-1x4-{name.replace('leaky_relu', 'leaky0.1')}")
    assert any(isinstance(layer, entry.layer) for layer in recipe.network.layers)


def test_every_activation_has_a_name() -> None:
    named = {entry.layer for entry in ACTIVATIONS.values()} | {tc.Elementwise}
    assert {cls for cls in LAYERS.values() if issubclass(cls, tc.layers.Activation)} == named


def test_activations_by_name_or_not_at_all() -> None:
    assert tc.layers.activation_of("relu").description() == {"layer": "ReLU"}
    layer = tc.GELU()
    assert tc.layers.activation_of(layer) is layer
    with pytest.raises(ValueError, match="expected an activation among relu"):
        tc.layers.activation_of("swoosh")
    with pytest.raises(TypeError, match="a name or a layer"):
        tc.hourglass(1, 4, activation=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYERS)
def test_layer_says_what_it_does_to_gaussian_features(name: Any) -> None:
    assert isinstance(example(name).propagate(Signal.of_input(gaussian=True)), Signal)


PRIORS: list[tc.priors.Prior] = [
    tc.priors.Uniform(0, 2),
    tc.priors.Normal(0.1, 3),
    tc.priors.White(2.0),
    tc.priors.Constant(0.5),
]
PRIORS += [tc.priors.Identity(), tc.priors.Meshgrid(), tc.priors.Coordinates(3, 0.2)]
PRIORS += [tc.priors.White(1.0) + tc.priors.Coordinates(2.5)]


def test_every_prior_that_can_be_described_is_tried() -> None:
    assert {type(prior) for prior in PRIORS} == set(own(Prior._by_name))


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_priors_come_back_from_their_descriptions(prior: Any) -> None:
    description = prior.description()
    again = tc.priors.from_description(json.loads(json.dumps(description)))
    assert type(again) is type(prior)
    assert again.description() == description
    assert repr(again) == repr(prior)
    assert repr(eval(repr(prior), vars(tc.priors))) == repr(prior)


@pytest.mark.parametrize(
    "name", [name for name in tc.priors.__all__ if name not in ("Prior", "Sum", "from_description")]
)
def test_prior_has_a_line_in_the_readme(name: Any) -> None:
    assert f"`priors.{name}" in TABLES or f"priors.{name}(" in TABLES
