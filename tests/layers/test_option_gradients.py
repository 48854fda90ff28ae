"""Gradients of kernels by the options of layers and priors, against differences."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import torch_cntk as tc
from torch_cntk._internal.tunable import tunables_of
from torch_cntk.layers.base import Layer
from torch_cntk.priors.base import Prior


def leaf(values: Tensor | float) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).requires_grad_()


def layers(*options: Tensor) -> list[tc.Layer]:
    """A network in which each option that may be a tensor is one of these."""
    a, b, c, one = options
    return [
        tc.StridedConv1d(2, 3, 3, weight_std=b, bias=True, bias_std=c),
        tc.LeakyReLU(a),
        tc.Conv1d(3, 3, 3, padding_mode="zeros", weight_std=one),
        tc.Residual(tc.ABReLU(a, b), tc.ConvTranspose1d(3, 3, 3, weight_std=one, padding_mode="zeros"), tc.Scale(b)),
        tc.ChannelNorm(eps=c),
        tc.BilinearUp(2),
        tc.Conv1d(3, 3, 3, parameterisation="standard", weight_std=b),
        tc.ReLU(),
    ]


def options() -> tuple[Tensor, ...]:
    # 1 and 0 must be no special cases.
    return leaf(0.2), leaf(1.3), leaf(0.4), leaf(1.0)


LAYERS = [cls for cls in Layer._by_name.values() if cls.__module__.startswith("torch_cntk.")]
PRIORS = [cls for cls in Prior._by_name.values() if cls.__module__.startswith("torch_cntk.")]


def numbers_of(cls: type) -> list[str]:
    """Names of the constructor's arguments that are real numbers."""
    found = inspect.signature(cls).parameters.values()
    return [p.name for p in found if "float" in str(p.annotation) or isinstance(p.default, float)]


EXAMPLES: dict[str, dict[str, Any]] = {"GaussianBlur": {"width": 3}, "Coordinates": {"length": 2.0}}
WITHOUT = {("GaussianBlur", "sigma"), ("Dropout", "p"), ("Softplus", "beta"), ("ELU", "alpha"), ("CELU", "alpha")}
WITHOUT |= {("Hardtanh", "min_val"), ("Hardtanh", "max_val"), ("Sin", "frequency"), ("Sin", "phase")}
"""Options that pass no gradient, and say so."""


@pytest.mark.parametrize("cls", [*LAYERS, *PRIORS], ids=lambda cls: cls.__name__)
def test_options_pass_gradients_or_refuse_tensors(cls: type) -> None:
    """A number is an option of which gradients are tested below, or a tensor in its place is refused."""
    for name in numbers_of(cls):
        if name in tunables_of(cls):
            assert (cls.__name__, name) not in WITHOUT
            continue
        assert (cls.__name__, name) in WITHOUT
        needed = {
            p.name: 3
            for p in inspect.signature(cls).parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_POSITIONAL
        }
        with pytest.raises(TypeError, match=f"expected {name} to be a number"):
            cls(**{**needed, name: leaf(0.5)})


@pytest.mark.parametrize("cls", LAYERS, ids=lambda cls: cls.__name__)
def test_what_is_true_or_false_is_no_word_or_number(cls: type) -> None:
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    needed = {p.name: torch.sin if p.name == "function" else 3 for p in parameters if p.default is p.empty}
    needed |= {p.name: 3 for p in parameters if p.name == "channels" and p.default is None}
    for name in [p.name for p in parameters if isinstance(p.default, bool) or p.name == "bias"]:
        for value in ("yes", 1, 0.5):
            with pytest.raises(TypeError, match=f"expected {name} to be True(, | or )False.*, got"):
                cls(**{**needed, name: value})
        assert isinstance(cls(**{**needed, name: np.bool_(True)}), Layer)


def test_gradients_by_what_is_multiplied_and_by_the_width_of_a_bump(generator: torch.Generator) -> None:
    x = leaf(torch.randn(2, 2, 4, generator=generator, dtype=torch.float64))

    def body(gamma: Tensor, scale: Tensor) -> list[tc.Layer]:
        one, other = tc.Conv1d(3, 3, 1, bias=True, bias_std=scale), tc.Conv1d(3, 3, 3, weight_std=scale)
        return [tc.Conv1d(2, 3, 3), tc.RBF(gamma), tc.Product(one, other), tc.Conv1d(3, 3, 1)]

    def gram(x: Tensor, *given: Tensor) -> Tensor:
        return tc.Sequential(*body(*given), tc.GlobalAvgPool()).gram(x)

    def kernel(*given: Tensor) -> Tensor:
        return tc.Sequential(*body(*given)).kernel(tc.priors.White(0.5), (4,)).dense((4,))

    given = (leaf(0.7), leaf(1.2))
    assert gradcheck(gram, (x, *given), fast_mode=True)
    assert gradcheck(kernel, given, fast_mode=True)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_gradients_between_inputs(kind: Any, generator: torch.Generator) -> None:
    x = leaf(torch.randn(2, 2, 4, generator=generator, dtype=torch.float64))

    def gram(x: Tensor, *given: Tensor) -> Tensor:
        net = tc.Sequential(*layers(*given), tc.GlobalAvgPool(), tc.Linear(3, 1, bias=True, bias_std=given[2]))
        return net.gram(x, kind=kind)

    assert gradcheck(gram, (x, *options()), fast_mode=True)
    found = gram(x, *options())
    with torch.no_grad():
        torch.testing.assert_close(found, gram(x, *options()), rtol=1e-11, atol=1e-13)


FORMS: dict[str, Callable[..., tc.priors.Prior]] = {
    "Uniform": lambda a, b, z: tc.priors.Uniform(-a, b),
    "Normal": lambda a, b, z: tc.priors.Normal(a, b),
    "White": lambda a, b, z: tc.priors.White(a) + tc.priors.Constant(b),
    "Coordinates": lambda a, b, z: tc.priors.Coordinates(b, a) + tc.priors.White(b),
    "Tensor": lambda a, b, z: tc.priors.Tensor(z, a) + tc.priors.White(b),
    "Autocorrelation": lambda a, b, z: tc.priors.Autocorrelation(z, a) + tc.priors.White(b),
    "Stationary": lambda a, b, z: tc.priors.Stationary(lambda u: a * torch.exp(-(u**2) / b)),
}


CASES = [(prior, form) for prior in FORMS for form in ("dense", "window")]
CASES += [(prior, "periodic") for prior in ("Uniform", "Normal", "White")]


@pytest.mark.parametrize(("prior", "form"), CASES)
def test_gradients_by_the_prior(prior: str, form: str, generator: torch.Generator) -> None:
    z = leaf(torch.randn(2, 4, generator=generator, dtype=torch.float64))
    made = FORMS[prior]
    size, radius = {"dense": ((4,), None), "periodic": (None, None), "window": ((4,), 2)}[form]

    def kernel(a: Tensor, b: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        net = tc.Sequential(
            tc.StridedConv1d(2, 3, 3), tc.LeakyReLU(a), tc.NearestUp(2), tc.Conv1d(3, 3, 3, weight_std=b)
        )
        kernel = net.kernel(made(a, b, z), size, radius=radius, dtype=torch.float64)
        return kernel.dense((4,) if size else (12,)), *(table.values for table in kernel.storage.tables.values())

    given = (leaf(0.3), leaf(1.2), z if prior in ("Tensor", "Autocorrelation") else z.detach())
    assert gradcheck(kernel, given, fast_mode=True)
    with torch.no_grad():
        plain = kernel(*given)
    for found, expected in zip(kernel(*given), plain, strict=True):
        assert found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_gradients_of_a_kernel_by_all_layers() -> None:
    def kernel(*given: Tensor) -> Tensor:
        return tc.Sequential(*layers(*given)).kernel(tc.priors.White(given[1]), (4,)).dense()

    assert gradcheck(kernel, options(), fast_mode=True)


def test_a_tensor_is_described_by_its_number(tmp_path: Path) -> None:
    slope, scale = leaf(0.2), torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    net = tc.Sequential(tc.Conv1d(2, 3, 3, bias=True, bias_std=scale), tc.LeakyReLU(slope))
    prior = tc.priors.White(scale)
    plain = tc.Sequential(tc.Conv1d(2, 3, 3, bias=True, bias_std=0.5), tc.LeakyReLU(0.2))
    assert repr(net) == repr(plain)
    assert net.description() == plain.description()
    assert prior.description() == tc.priors.White(0.5).description()
    assert net.state_dict().keys() == plain.state_dict().keys()
    kernel = net.kernel(prior)
    assert kernel.origin == plain.kernel(tc.priors.White(0.5)).origin
    kernel.save(tmp_path / "k.safetensors")
    for copied in (
        tc.load_kernel(tmp_path / "k.safetensors"),
        pickle.loads(pickle.dumps(kernel)),
        copy.deepcopy(kernel),
    ):
        assert not copied.requires_grad
        assert torch.equal(copied.near.values, kernel.near.values)
    assert kernel.detach().operator((8,)) @ torch.ones(8) is not None
    assert pickle.loads(pickle.dumps(net))[1].negative_slope == 0.2
    assert copy.deepcopy(net).kernel(tc.priors.White(1.0)).requires_grad


def test_the_number_is_that_of_the_moment(generator: torch.Generator) -> None:
    slope, x = leaf(0.2), torch.randn(3, 2, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(2, 3), tc.LeakyReLU(slope), tc.Linear(3, 1))
    with torch.no_grad():
        slope.fill_(0.7)
        assert torch.equal(net.gram(x), tc.Sequential(tc.Linear(2, 3), tc.LeakyReLU(0.7), tc.Linear(3, 1)).gram(x))
    assert net[1].negative_slope == 0.7
    output = net(x.float())
    (found,) = torch.autograd.grad(output.sum(), slope)
    assert found != 0
    with torch.no_grad():
        assert torch.allclose(output, net(x.float()))
        slope.fill_(torch.nan)
    with pytest.raises(ValueError, match="expected negative_slope to be finite"):
        net.gram(x)


def _operators_refuse_gradients_of_inputs(rows: Tensor) -> None:
    """As matrices have them; other inputs, later, likewise."""
    images = rows[:, :, None].repeat(1, 1, 4)
    of_rows = tc.Sequential(tc.Linear(2, 3), tc.ReLU(), tc.Linear(3, 1))
    of_images = tc.Sequential(tc.Conv1d(2, 3, 3), tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(3, 1))
    for net, inputs in ((of_rows, rows), (of_images, images)):
        tracked, operator = leaf(inputs.clone()), net.gram_operator(inputs)
        weights = torch.ones(1, 3, dtype=torch.float64)
        calls: dict[Callable[..., Any], tuple[Tensor, ...]] = {
            net.gram_operator: (tracked,),
            operator.cross: (tracked,),
            operator.cross_multiply: (tracked, weights),
        }
        for call, given in calls.items():
            with pytest.raises(ValueError, match=r"expected inputs that need no gradient, .*net.gram\(features\) does"):
                call(*given)
            with torch.no_grad():
                call(*given)
        assert torch.equal(net.gram_operator(tracked.detach()).dense(), operator.dense())
        assert net.gram(tracked).requires_grad


def test_what_would_be_a_silent_zero_is_refused(generator: torch.Generator) -> None:
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(2, 3, bias=False, bias_std=leaf(0.5)), tc.ReLU(), tc.Linear(3, 1))
    with pytest.raises(ValueError, match=r"got bias_std of Linear\(2, 3\), which does not: give it as a number"):
        net.gram(x)
    slope = leaf(0.5)
    net = tc.Sequential(tc.Linear(2, 3), tc.LeakyReLU(slope), tc.Linear(3, 1))
    with pytest.raises(ValueError, match="expected layers whose options need no gradient, as an operator"):
        net.gram_operator(x)
    _operators_refuse_gradients_of_inputs(x)
    conv = tc.Sequential(tc.Conv1d(2, 3, 3), tc.LeakyReLU(slope), tc.Conv1d(3, 1, 3))
    with pytest.raises(ValueError, match="expected a kernel without gradients, as an operator passes none on"):
        conv.kernel("uniform").operator((8,))
    with torch.no_grad():
        assert net.gram_operator(x).size == (3,)
    with pytest.raises(TypeError, match="a tensor of one floating point number, got one of"):
        tc.LeakyReLU(torch.ones(2))
    with pytest.raises(ValueError, match="expected weight_std > 0, got 0"):
        tc.Linear(2, 3, weight_std=leaf(0.0))
    net = tc.Sequential(tc.Linear(2, 3), tc.LeakyReLU(slope), tc.Linear(3, 3), tc.LeakyReLU(slope), tc.Linear(3, 1))
    (first,) = torch.autograd.grad(net.gram(x).sum(), slope, create_graph=True)
    with pytest.raises(NotImplementedError, match="expected first derivatives"):
        torch.autograd.grad(first, slope)
