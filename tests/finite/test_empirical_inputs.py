"""Empirical kernels between rows of numbers, classifiers' inputs and several images, of both kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import torch_cntk as tc
from torch_cntk.finite import ExpectedKernel, expected_kernel

Tensor = torch.Tensor


def classifier() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(64, 3))


def with_statistics() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 2))
    net(torch.randn(8, 3, 6, 6))
    return net


class Skipping(nn.Module):
    """Two branches, one number an input, without an axis for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)) + x.mean(1, keepdim=True))[:, 0]


def attention() -> tc.Layer:
    return tc.SelfAttention(2)


def attending(layer: tc.Layer) -> tc.Sequential:
    return tc.Sequential(layer, tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(2, 1))


# Network, inputs, inputs of the other side.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "fully connected": (lambda: tc.Sequential(tc.Linear(4, 9), tc.ReLU(), tc.Linear(9, 3)), (5, 4), (3, 4)),
    "bias": (lambda: tc.Sequential(tc.Linear(4, 9, bias=True), tc.Erf(), tc.Linear(9, 2, bias=True)), (4, 4), (2, 4)),
    "images": (lambda: tc.Sequential(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.Conv2d(4, 2, 3)), (3, 2, 4, 2), (2, 2, 3, 5)),
    "signals": (lambda: tc.hourglass(1, 3, 1, channels=2, in_channels=2, ndim=1), (3, 2, 4), (2, 2, 6)),
    "classifier": (classifier, (4, 3, 4, 4), (2, 3, 4, 4)),
    "statistics": (with_statistics, (4, 3, 6, 6), (3, 3, 6, 6)),
    "rows of torch's": (lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2)), (4, 6), (2, 6)),
    "flattened": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Linear(5, 2)), (4, 6, 1), (2, 6, 1)),
    "one number": (Skipping, (4, 5), (2, 5)),
    "attention": (lambda: tc.SelfAttention(2, 3, 2, head_channels=2), (3, 2, 2, 3), (2, 2, 4, 1)),
    "attention to signals": (lambda: attending(tc.Concat(attention(), attention(), dim=2)), (3, 2, 3), (2, 2, 3)),
    "attention in branches": (lambda: attending(tc.Sum(attention(), attention())), (3, 2, 2, 2), (2, 2, 1, 3)),
    "attention beside its input": (lambda: attending(tc.Residual(attention())), (3, 2, 1, 2, 2), (2, 2, 3, 1, 1)),
    "attention in torch's": (lambda: nn.Sequential(attention(), nn.Tanh()), (3, 2, 2, 2), (2, 2, 1, 3)),
    "head alone": (lambda: tc.Sequential(tc.Flatten(), tc.Linear(8, 3), tc.ReLU()), (3, 2, 2, 2), (2, 2, 2, 2)),
}  # fmt: skip


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(2)
    make, first, second = CASES[name]
    net = make().double()
    return net, torch.randn(first, dtype=torch.float64), torch.randn(second, dtype=torch.float64)


def jacobian(net: nn.Module, z: Tensor) -> Tensor:
    """[outputs, pixels of all inputs, weights], from one batched pass."""
    net.eval()
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def output(weights: dict[str, Tensor]) -> Tensor:
        values = functional_call(net, weights, (z,))
        values = values[:, None] if values.ndim == 1 else values
        return values.movedim(1, 0).flatten(1)

    parts = jacrev(output)(parameters)
    net.train()
    return torch.cat([part.flatten(2) for part in parts.values()], 2)


@pytest.mark.parametrize("method", ["auto", "jacobian", "blocks", "products"])
@pytest.mark.parametrize("name", CASES)
def test_kernels_are_grams_of_jacobians(name: Any, method: Any) -> None:
    net, x, y = case(name)
    first, second = jacobian(net, x), jacobian(net, y)
    for chunk in (None, 1, 3):
        for others, gram in ((None, first @ first.mT), (y, first @ second.mT)):
            options = {"method": method, "chunk": chunk}
            found = tc.empirical_ntk(net, x, others, **options)
            size = found.shape[1 : found.ndim // 2]
            assert found.shape[0] == len(x)
            assert found.shape[1 + len(size)] == len(x if others is None else y)
            kernel = found.reshape(gram.shape[1:])
            torch.testing.assert_close(kernel, gram.mean(0), rtol=1e-10, atol=1e-12)
            found = tc.empirical_ntk(net, x, others, outputs="trace", **options).reshape(gram.shape[1:])
            torch.testing.assert_close(found, gram.sum(0), rtol=1e-10, atol=1e-12)
            last = len(gram) - 1
            found = tc.empirical_ntk(net, x, others, channel=last, **options).reshape(gram.shape[1:])
            torch.testing.assert_close(found, gram[last], rtol=1e-10, atol=1e-12)


def test_blocks_of_a_large_jacobian_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, y = case("fully connected")
    expected = tc.empirical_ntk(net, x), tc.empirical_ntk(net, x, y)
    # Free memory for the Jacobian of two inputs a side.
    weights = sum(parameter.numel() for parameter in net.parameters())
    monkeypatch.setattr("torch_cntk.finite.empirical.available_bytes", lambda device="cpu": 2 * 8 * weights * 8)
    for method in ("auto", "blocks"):
        torch.testing.assert_close(tc.empirical_ntk(net, x, method=method), expected[0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(tc.empirical_ntk(net, x, y, method=method), expected[1], rtol=1e-12, atol=1e-14)


def test_one_image_is_one_of_several() -> None:
    net, x, y = case("images")
    several = tc.empirical_ntk(net, x, y)
    assert several.shape == (3, 4, 2, 2, 3, 5)
    torch.testing.assert_close(tc.empirical_ntk(net, x[1], y[0]), several[1, :, :, 0])
    torch.testing.assert_close(tc.empirical_ntk(net, x[1], y), several[1])
    one, rows, _ = case("fully connected")
    torch.testing.assert_close(tc.empirical_ntk(one, rows[2], rows), tc.empirical_ntk(one, rows)[2])
    assert tc.empirical_ntk(one, rows[2]).shape == ()


def test_statistics_over_a_batch_are_over_each_input_alone() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU(), nn.Conv2d(3, 1, 1))
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    found = tc.empirical_ntk(net.double(), x)
    alone = torch.cat([jacobian(net, image[None]) for image in x], 1)[0]
    torch.testing.assert_close(found.reshape(27, 27), alone @ alone.T, rtol=1e-10, atol=1e-12)


def test_models_that_were_trained_have_a_kernel() -> None:
    net = tc.Sequential(tc.Conv2d(2, 4, 3), tc.Dropout(0.2), tc.ReLU(), tc.Conv2d(4, 1, 3))
    result = tc.train(net, torch.rand(1, 4, 6), steps=2, batch_norm=True)
    found = tc.empirical_ntk(result.model, result.input)
    expected = jacobian(result.model, result.input[None])[0]
    torch.testing.assert_close(found.reshape(24, 24), (expected @ expected.T), rtol=1e-4, atol=1e-5)


# The last layer alone.


def last_layer(name: str) -> tuple[tc.Sequential, Tensor, tuple[str, ...]]:
    torch.manual_seed(4)
    nets = {
        "rows": (tc.Sequential(tc.Linear(4, 9), tc.ReLU(), tc.Linear(9, 3, bias=True, bias_std=0.5)), (5, 4), ("2.",)),
        "head": (tc.Sequential(tc.Conv2d(2, 5, 3), tc.ReLU(), tc.Conv2d(5, 2, 3), tc.Sigmoid()), (2, 2, 4, 4), ("2.",)),
        "linear behind it": (
            tc.Sequential(tc.Conv1d(2, 5, 3), tc.ReLU(), tc.Conv1d(5, 2, 3), tc.AvgPool1d(2), tc.BilinearUp(2)),
            (2, 2, 6),
            ("2.",),
        ),
        "two branches": (
            tc.Sequential(
                tc.Conv1d(2, 5, 3),
                tc.ReLU(),
                tc.Sum(tc.Conv1d(5, 2, 3), tc.Sequential(tc.AvgPool1d(1), tc.Conv1d(5, 2, 1))),
            ),
            (2, 2, 6),
            ("2.0", "2.1.1"),
        ),
    }
    net, shape, places = nets[name]
    return net.double(), torch.randn(shape, dtype=torch.float64), places


@pytest.mark.parametrize("parameterisation", ["ntk", "standard"])
@pytest.mark.parametrize("name", ["rows", "head", "linear behind it", "two branches"])
def test_kind_nngp_is_the_expectation_over_the_last_weights(name: Any, parameterisation: Any) -> None:
    """f is linear in them, so that E[f f'] = sum of f(e) f'(e) over the unit vectors e of the last layers' weights."""
    net, z, places = last_layer(name)
    found = tc.empirical_ntk(tc.reparameterise(net, parameterisation), z, kind="nngp")
    plain = tc.Sequential(*(layer for layer in net.layers if not isinstance(layer, tc.Sigmoid)))
    parameters = {key: value.detach() for key, value in plain.named_parameters()}
    last = [key for key in parameters if key.startswith(places)]
    assert len(last) == len(places) + ("rows" in name)
    total = torch.zeros(found.shape, dtype=torch.float64)
    for key in last:
        for k in range(parameters[key].numel()):
            unit = {other: torch.zeros_like(parameters[other]) for other in last}
            unit[key].view(-1)[k] = 1
            values = functional_call(plain, parameters | unit, (z,)).detach()
            flat = values.movedim(1, 0).flatten(1)
            total += (flat.T @ flat / len(flat)).reshape(found.shape)
    torch.testing.assert_close(found, total, rtol=1e-10, atol=1e-12)


def test_kind_nngp_of_what_is_not_linear_is_refused() -> None:
    z = torch.randn(2, 2, 4)
    refused = {
        "behind the last ReLU": tc.Sequential(tc.Conv1d(2, 3, 3), tc.ReLU()),
        "behind the last ChannelNorm": tc.Sequential(tc.Conv1d(2, 3, 3), tc.ChannelNorm()),
        "between input and output": tc.Sum(tc.Identity(), tc.Conv1d(2, 2, 3)),
        "see from_torch": nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 1, 1)),
    }
    for message, net in refused.items():
        with pytest.raises(ValueError, match=message):
            tc.empirical_ntk(net, z, kind="nngp")


def test_an_image_without_a_batch_is_refused_where_its_axes_are_not_known() -> None:
    with pytest.raises(ValueError, match=r"expected input of shape \[batch, 2, \*size\], got \(1, 4, 4\)"):
        tc.empirical_ntk(tc.SelfAttention(2), torch.randn(2, 4, 4))


# Against the exact kernel.


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("others", [False, True])
def test_wide_networks_approach_the_exact_kernel_as_one_over_the_root_of_the_width(kind: Any, others: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (4, 3))
    widths, squares = (16, 64, 256), []
    for width in widths:
        net = tc.Sequential(tc.Linear(4, width), tc.ReLU(), tc.Linear(width, width), tc.ReLU(), tc.Linear(width, 1))
        net = net.double()
        exact = net.gram(x, y if others else None, kind=kind)
        errors = []
        for _ in range(60):
            for layer in net.layers:
                if isinstance(layer, tc.Linear):
                    layer.reset_parameters(generator)
            found = tc.empirical_ntk(net, x, y if others else None, kind=kind)
            errors.append(float((found - exact).square().sum() / exact.square().sum()))
        squares.append(sum(errors) / len(errors))
    # Of 60 draws, the mean square is known to a fifth or so, and its logarithm's slope over 4 doublings to 0.1.
    slope = math.log(squares[2] / squares[0]) / math.log(widths[2] / widths[0])
    assert slope == pytest.approx(-1, abs=0.3)


def far(found: ExpectedKernel, exact: Tensor) -> float:
    """Distance from an exact kernel, in standard errors of all entries together."""
    return float((found.kernel - exact).norm() / found.standard_error.norm())


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_expected_kernels_of_rows_are_exact_ones(kind: Any) -> None:
    torch.manual_seed(6)
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    # With one hidden layer, the expectation is the limit at every width.
    net = tc.Sequential(tc.Linear(3, 16, bias=True, bias_std=0.3), tc.ReLU(), tc.Linear(16, 2)).double()
    before = [parameter.clone() for parameter in net.parameters()]
    for others in (None, y):
        found = expected_kernel(net, x, others, kind=kind, draws=150, seed=1)
        exact = net.gram(x, others, kind=kind)
        # Entries err together: the norm of all errors may be a few times that of the standard errors.
        assert far(found, exact) < 4
        assert found.standard_error.norm() < 0.2 * exact.norm()
        assert found.draws == 150
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_expected_kernels_of_images_are_exact_ones() -> None:
    torch.manual_seed(7)
    z = torch.randn(2, 4, 2, dtype=torch.float64)
    net = tc.Sequential(tc.Conv2d(2, 8, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(8, 1, 3), tc.Sigmoid()).double()
    for kind in ("nngp", "ntk"):
        exact = net.kernel(tc.priors.Tensor(z), kind=kind).dense()
        assert far(expected_kernel(net, z, kind=kind, draws=200), exact) < 4


def test_expected_kernels_of_attention_are_near_the_exact_ones() -> None:
    torch.manual_seed(8)
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    net = tc.Sequential(tc.SelfAttention(2, 8, head_channels=64), tc.GlobalAvgPool(), tc.Linear(8, 2)).double()
    exact = net.gram(x)
    found = expected_kernel(net, x, kind="ntk", draws=60)
    # Beside the chance, logits vary by some 1 / sqrt(64), and the kernel by the square of that.
    assert (found.kernel - exact).norm() < 4 * found.standard_error.norm() + 4 / 64 * exact.norm()
    assert found.standard_error.norm() < 0.1 * exact.norm()


def test_standard_errors_are_those_of_the_mean() -> None:
    """Many runs scatter as each says that it does."""
    net, x, _ = case("fully connected")
    runs = [expected_kernel(net, x, draws=20, seed=seed) for seed in range(60)]
    scatter = torch.stack([run.kernel for run in runs]).std(0)
    said = torch.stack([run.standard_error.square() for run in runs]).mean(0).sqrt()
    # A standard deviation of 60 runs is known to 9 %; of heavy-tailed products to a little less.
    torch.testing.assert_close(said, scatter, rtol=0.35, atol=0)


def test_expected_kernels_are_means_of_draws_that_a_seed_gives_again() -> None:
    net, x, y = case("classifier")
    seen: list[Tensor] = []

    def redraw(module: nn.Module, generator: torch.Generator) -> None:
        for parameter in module.parameters():
            parameter.data.normal_(generator=generator)
        module.eval()
        values = (module(z).detach() for z in (x, y))
        seen.append(torch.einsum("io,jo->ij", *values) / 3)
        module.train()

    found = expected_kernel(net, x, y, draws=5, redraw=redraw, chunk=3)
    draws = torch.stack(seen)
    torch.testing.assert_close(found.kernel, draws.mean(0))
    torch.testing.assert_close(found.standard_error, draws.std(0) / math.sqrt(5))
    again = [expected_kernel(net, x, draws=3, seed=seed).kernel for seed in (1, 1, 2)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])
    trace = expected_kernel(net, x, draws=3, seed=1, outputs="trace").kernel
    torch.testing.assert_close(trace, 3 * again[0])


def test_torchs_layers_are_redrawn_as_their_constructors_do() -> None:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): moments of outputs against networks that torch made."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    found = expected_kernel(make(), x, draws=1500)
    made = torch.stack([(f := make()(x).detach()) @ f.T for _ in range(1500)])
    error = (found.standard_error.square() + made.var(0) / len(made)).sqrt()
    assert ((found.kernel - made.mean(0)) / error).abs().max() < 5


# What does not fit.

ROWS = tc.Sequential(tc.Linear(3, 4), tc.ReLU(), tc.Linear(4, 2))
REFUSED: dict[str, Callable[[], Any]] = {
    r"cannot take an input of z, \(5,\).*expected input of shape": lambda: tc.empirical_ntk(ROWS, torch.zeros(2, 5)),
    r"expected z as one input, \[features\]": lambda: tc.empirical_ntk(ROWS, torch.zeros(2, 2, 3)),
    r"expected z as one input, \[channels, \*size\] with 2 spatial": lambda: tc.empirical_ntk(
        tc.Conv2d(1, 1, 3), torch.zeros(4, 4)
    ),
    r"cannot take an input of others": lambda: tc.empirical_ntk(ROWS, torch.zeros(2, 3), torch.zeros(2, 4)),
    r"cannot take an input of z, \(3, 5, 5\): mat1": lambda: tc.empirical_ntk(classifier(), torch.zeros(3, 5, 5)),
    r"expected z as \[n, \.\.\.\]": lambda: tc.empirical_ntk(nn.Linear(3, 1), torch.zeros(3)),
    r"expected at least one input in z": lambda: tc.empirical_ntk(ROWS, torch.zeros(0, 3)),
    r"expected others as a tensor in torch.float32": lambda: tc.empirical_ntk(ROWS, torch.zeros(1, 3), [[1.0] * 3]),  # type: ignore[type-var]
    r'expected kind "ntk" or "nngp"': lambda: tc.empirical_ntk(ROWS, torch.zeros(1, 3), kind="ck"),  # type: ignore[arg-type]
    r'expected outputs "mean" or "trace"': lambda: tc.empirical_ntk(ROWS, torch.zeros(1, 3), outputs="sum"),  # type: ignore[arg-type]
    r"expected a channel from 0 to 1": lambda: tc.empirical_ntk(ROWS, torch.zeros(1, 3), channel=-1),
    r"expected at least 2 draws": lambda: expected_kernel(ROWS, torch.zeros(1, 3), draws=1),
    r"expected redraw, which says how the weights of PReLU": lambda: expected_kernel(
        nn.Sequential(nn.Linear(3, 2), nn.PReLU()), torch.zeros(1, 3)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_wrong_types_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a network of torch_cntk or a torch module, got function"):
        tc.empirical_ntk(lambda x: x, torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected seed to be an integer"):
        expected_kernel(ROWS, torch.zeros(1, 3), seed=0.5)  # type: ignore[arg-type]

    class Pair(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return x, super().forward(x)

    with pytest.raises(TypeError, match="expected a network that gives one tensor, got tuple"):
        tc.empirical_ntk(Pair(3, 1), torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_give_arrays(dtype: Any, generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Linear(8, 1)).to(dtype)
    x, others = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 2))
    found = tc.empirical_ntk(net, x.numpy(), others.numpy())
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, tc.empirical_ntk(net, x.to(dtype), others.to(dtype)).numpy())
    mean = tc.monte_carlo_kernel(net, x.numpy()[::-1], draws=3)
    expected = tc.monte_carlo_kernel(net, x.to(dtype).flip(0), draws=3)
    assert np.array_equal(mean.kernel, expected.kernel.numpy())
    assert np.array_equal(mean.standard_error, expected.standard_error.numpy())
    with pytest.raises(ValueError, match=r"expected z as a tensor in .*, got ndarray"):
        tc.empirical_ntk(net, np.ones((4, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="expected inputs without missing numbers, got a masked array"):
        tc.monte_carlo_kernel(net, np.ma.masked_less(x.numpy(), 0), draws=2)
