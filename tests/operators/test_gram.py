"""Kernels of fully connected networks: Theorem 1, other programs, Monte Carlo, and the operator against its matrix."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev, vmap

import torch_cntk as tc
from tests.helpers.theorem_1 import theorem_1
from torch_cntk.operators.derived import ScaledOperator

FULLY_CONNECTED = {
    "A_fc_lrelu0.2_d3_raw",
    "A_fc_relu_d2_unit",
    "A_fc_relu_d3_W1.5_b0.1_unit",
    "A_fc_relu_d3_raw",
    "A_fc_relu_d5_unit",
}
OTHER_ACTIVATIONS: dict[str, Callable[..., tc.Layer]] = {
    "A_fc_erf_d2_unit": tc.Erf,
    "A_fc_gelu_d2_raw": tc.GELU,
    "A_fc_sin_d2_raw": tc.Sin,
}


def unit_columns(generator: torch.Generator, columns: int, features: int) -> torch.Tensor:
    z = torch.randn(columns, features, generator=generator, dtype=torch.float64)
    return z / z.norm(dim=1, keepdim=True)


def relu_net(hidden_layers: int, **options: Any) -> tc.Sequential:
    hidden = [layer for _ in range(hidden_layers) for layer in (tc.Linear(1, 1, **options), tc.ReLU())]
    return tc.Sequential(*hidden, tc.Linear(1, 1, **options))


def gram(net: tc.Layer, z: torch.Tensor, *others: torch.Tensor, **options: Any) -> torch.Tensor:
    """Of a net whose width does not matter, whatever its layers say."""
    return tc.GramOperator(net.propagate, others[0] if others else z, **options).cross(z)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 7])
def test_kernel_is_that_of_theorem_1(depth: Any, generator: torch.Generator) -> None:
    z = unit_columns(generator, 9, 4)
    # Features are normalised to 1 there, and their products summed; here they are averaged.
    kernel = gram(relu_net(depth), z * math.sqrt(4))
    expected = theorem_1((z @ z.T).numpy(), depth)
    # arccos of a number that is 1 but for rounding is off by up to 1e-8, once a layer; ours is not.
    off_diagonal = ~np.eye(9, dtype=bool)
    assert np.abs(kernel.numpy() - expected)[off_diagonal].max() < 1e-11 * (depth + 1)
    assert np.abs(kernel.diagonal().numpy() - (depth + 1)).max() < 1e-13 * (depth + 1)


def read(folder: Any, name: Any) -> Any:
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("spec"))), arrays


def test_no_oracle_is_left_out(oracles: Path) -> None:
    assert {path.stem for path in oracles.glob("A_*.npz")} == FULLY_CONNECTED | OTHER_ACTIVATIONS.keys()


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", sorted(FULLY_CONNECTED))
def test_kernel_equals_neural_tangents(oracles: Path, name: Any, kind: Any) -> None:
    spec, arrays = read(oracles, name)
    dense = [layer for layer in spec["layers"] if layer["op"] == "dense"]
    std = dense[0].get("W_std", 1.0)
    layers: list[tc.Layer] = []
    for layer in spec["layers"]:
        if layer["op"] == "dense":
            # Rectifiers are homogeneous: weights of standard deviation s scale what came before, biases included.
            scale = std ** (1 + sum(isinstance(made, tc.Linear) for made in layers))
            bias = layer.get("b_std", 0.0)
            layers.append(tc.Linear(1, 1, bias=bias > 0, bias_std=bias / scale))
        else:
            slope = layer["a"] / layer["b"]
            layers.append(tc.LeakyReLU(slope))
    z = torch.from_numpy(arrays["z"])
    ours = std ** (2 * len(dense)) * gram(tc.Sequential(*layers), z, kind=kind)
    expected = torch.from_numpy(arrays[kind])
    # Both are float64; theirs takes the angle from a clamped arccos.
    assert (ours - expected).abs().max() <= 1e-10 * expected.abs().max()


def pixelwise(net: tc.Layer) -> tc.Layer:
    """The same network as convolutions of width 1 on a signal, each sample of which is an input."""
    if isinstance(net, tc.Linear):
        bias = net.bias is not None
        return tc.Conv1d(net.in_features, net.out_features, 1, bias=bias, bias_std=net.bias_std)
    if isinstance(net, tc.Sequential | tc.Residual | tc.Sum):
        return type(net)(*(pixelwise(cast(tc.Layer, child)) for child in net.children()))
    return net


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize(
    "layers",
    [
        [tc.Linear(3, 1), tc.GELU(), tc.Linear(1, 1, bias=True, bias_std=0.4), tc.Erf(), tc.Linear(1, 1)],
        [tc.Linear(3, 2), tc.Residual(tc.ReLU(), tc.Linear(2, 2)), tc.Sin(), tc.Linear(2, 1)],
        [tc.Linear(3, 2), tc.ChannelNorm(), tc.ReLU(), tc.Linear(2, 2), tc.ChannelNorm(2, affine=True)],
        [
            tc.Sum(tc.Linear(3, 2), tc.Sequential(tc.Linear(3, 1), tc.Abs(), tc.Linear(1, 2))),
            tc.ReLU(),
            tc.Linear(2, 1),
        ],
    ],
    ids=["activations", "residual", "norm", "sum"],
)
def test_kernel_is_that_of_convolutions_of_width_1(layers: Any, kind: Any, generator: torch.Generator) -> None:
    net = tc.Sequential(*layers)
    z = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    expected = pixelwise(net).kernel(tc.priors.Tensor(z.T.contiguous()), kind=kind).dense()
    torch.testing.assert_close(net.gram(z, kind=kind), expected, rtol=1e-12, atol=1e-13)


def test_branches_that_would_not_be_exact_are_refused() -> None:
    # The trunk of the residual is the output of an activation, which is not Gaussian.
    residual = tc.Residual(tc.Linear(3, 3), tc.ReLU(), tc.Linear(3, 3))
    with pytest.raises(ValueError, match="the dual would not be exact"):
        tc.Sequential(tc.Linear(3, 3), tc.ReLU(), residual, tc.ReLU(), tc.Linear(3, 1)).gram(torch.ones(4, 3))


def test_parameterisations_compute_the_same_function(generator: torch.Generator) -> None:
    net = tc.Sequential(tc.Linear(3, 8, bias=True, bias_std=0.5), tc.ReLU(), tc.Linear(8, 2))
    standard = tc.reparameterise(net, "standard")
    z = torch.randn(5, 3, generator=generator)
    torch.testing.assert_close(standard(z), net(z))
    assert torch.equal(standard.gram(z, kind="nngp"), net.gram(z, kind="nngp"))
    assert standard.layers[0].description()["parameterisation"] == "standard"


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", sorted(OTHER_ACTIVATIONS))
def test_kernel_of_other_activations_equals_neural_tangents(oracles: Path, name: Any, kind: Any) -> None:
    spec, arrays = read(oracles, name)
    layers = [
        tc.Linear(1, 1) if layer["op"] == "dense" else OTHER_ACTIVATIONS[name](normalise=False)
        for layer in spec["layers"]
    ]
    expected = torch.from_numpy(arrays[kind])
    ours = gram(tc.Sequential(*layers), torch.from_numpy(arrays["z"]), kind=kind)
    assert (ours - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_kernel_is_the_mean_of_finite_networks() -> None:
    generator = torch.Generator().manual_seed(3)
    width, count = 128, 400
    net = tc.Sequential(
        tc.Linear(3, width, bias=True, bias_std=0.5),
        tc.LeakyReLU(0.2),
        tc.Linear(width, width),
        tc.ReLU(),
        tc.Linear(width, 1, bias=True, bias_std=0.3),
    ).double()
    z = torch.randn(5, 3, generator=generator, dtype=torch.float64)

    def ntk(parameters: Any) -> Any:
        jacobians = jacrev(lambda p: functional_call(net, p, (z,))[:, 0])(parameters)
        return sum(jacobian.flatten(1) @ jacobian.flatten(1).T for jacobian in jacobians.values())

    draws = []
    for _ in range(count // 20):
        weights = {
            name: torch.randn(20, *p.shape, generator=generator, dtype=torch.float64)
            for name, p in net.named_parameters()
        }
        draws.append(vmap(ntk)(weights))
    ntks = torch.cat(draws)
    exact = net.gram(z)
    error = (ntks.mean(0) - exact).norm()
    assert error < 5 * (ntks.var(0).sum() / count).sqrt()
    assert error < 0.03 * exact.norm()


@pytest.mark.parametrize("white", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_identity_block_equals_features_with_an_identity_block(
    kind: Any, white: Any, generator: torch.Generator
) -> None:
    z = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    operator = tc.GramOperator(relu_net(2).propagate, z, kind=kind, white=white)
    block = math.sqrt(white) * torch.eye(6, dtype=torch.float64)
    # Means over 3 + 6 features: scaled so that the sum is divided by 3 and by 1.
    whole = torch.cat([z / math.sqrt(3), block], 1) * math.sqrt(9)
    everything = torch.arange(6)
    assert torch.allclose(operator.entries(everything, everything), gram(relu_net(2), whole, kind=kind), rtol=1e-12)
    assert torch.allclose(operator.diagonal, operator.entries(everything, everything).diagonal(), rtol=1e-13)


@pytest.mark.parametrize("entries", [1, 30, 1 << 17])
def test_operator_is_its_matrix_in_blocks_of_any_size(
    entries: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tc.operators.gram._BLOCK_ENTRIES, "cpu", entries)
    z = torch.randn(23, 4, generator=generator, dtype=torch.float64)
    operator = tc.GramOperator(relu_net(1, bias=True, bias_std=0.2).propagate, z, white=0.3)
    everything = torch.arange(23)
    matrix = operator.entries(everything, everything)
    assert torch.allclose(matrix, matrix.T, rtol=1e-13, atol=1e-14)
    w = torch.randn(2, 3, 23, generator=generator, dtype=torch.float64)
    assert torch.allclose(operator @ w, w @ matrix, rtol=1e-12, atol=1e-12)
    first, second = (torch.randint(23, (k,), generator=generator) for k in (7, 11))
    assert torch.allclose(operator.entries(first, second), matrix[first][:, second], rtol=1e-12)
    pairs = tc.Operator.entries(operator, first, second)
    assert torch.allclose(pairs, matrix[first][:, second], rtol=1e-12)
    some = operator.select(first)
    assert some.mean_diagonal == pytest.approx(float(matrix.diagonal()[first].mean()), rel=1e-12)
    assert some.size == (7,)
    assert torch.allclose(some @ w[0, :, :7], w[0, :, :7] @ some.entries(torch.arange(7), torch.arange(7)), rtol=1e-12)
    others = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    cross = operator.cross(others)
    plain = gram(relu_net(1, bias=True, bias_std=0.2), torch.cat([others, z]), kind="ntk")
    # The noise lowers the angle between different inputs, so only the operator without it has the plain kernel.
    bare = tc.GramOperator(relu_net(1, bias=True, bias_std=0.2).propagate, z)
    assert torch.allclose(bare.cross(others), plain[:5, 5:], rtol=1e-12)
    assert torch.allclose(operator.cross_multiply(others, w[0]), w[0] @ cross.T, rtol=1e-12, atol=1e-12)


def test_float32_operator_takes_angles_in_float64(generator: torch.Generator) -> None:
    z = unit_columns(generator, 12, 3)
    # Two inputs that differ by 1e-5: their angle would be lost in float32.
    z[1] = z[0] + 1e-5 * z[2]
    exact = tc.GramOperator(relu_net(3).propagate, z.float().double())
    single = tc.GramOperator(relu_net(3).propagate, z.float())
    everything = torch.arange(12)
    assert torch.equal(single.entries(everything, everything), exact.entries(everything, everything))
    w = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    assert single.dtype == torch.float32
    assert torch.allclose((single @ w.float()).double(), exact @ w, rtol=1e-5, atol=1e-5)
    # Images of float64 are multiplied in it: only the order of additions may differ.
    assert torch.allclose(single @ w, exact @ w, rtol=1e-13, atol=1e-12)


def test_iterations_in_float32_reach_residuals_of_float64(generator: torch.Generator) -> None:
    """Of a kernel whose largest eigenvalue is 10^6 times the ridge: rounding of float32 would leave some 10^-4."""
    z = unit_columns(generator, 1500, 30)
    y = torch.randn(1, 1500, generator=generator, dtype=torch.float64)
    operator = tc.GramOperator(relu_net(1, bias=True, bias_std=1.0).propagate, z, dtype=torch.float32)
    regression = tc.Regression(operator, torch.ones(1500, dtype=torch.bool), 1e-3)
    solution = tc.ConjugateGradient(1e-7, preconditioner=tc.Landmarks(300)).solve(regression, y)
    matrix = operator.dense() + regression.ridge * torch.eye(1500, dtype=torch.float64)
    assert solution.status is tc.Status.CONVERGED
    assert (y - solution.weights @ matrix).norm() <= 1.01e-7 * y.norm()


def test_equal_inputs_have_a_cosine_of_one(generator: torch.Generator) -> None:
    """Also where their product is not their square to the bit, as in blocks of another shape."""
    z = torch.randn(40, 300, generator=generator, dtype=torch.float64)
    kernel = gram(relu_net(4), z, z.flip(0)).flip(1)
    assert torch.allclose(kernel.diagonal(), tc.GramOperator(relu_net(4).propagate, z).diagonal, rtol=1e-13)


def test_linear_mirrors_torch(generator: torch.Generator) -> None:
    ours = tc.Linear(5, 3, bias=True, bias_std=0.5).double()
    x = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    assert ours.bias is not None
    expected = x @ ours.weight.T / math.sqrt(5) + 0.5 * ours.bias
    assert torch.allclose(ours(x), expected)
    assert (ours.in_features, ours.out_features) == (5, 3)
    assert repr(ours) == "Linear(5, 3, bias=True, bias_std=0.5)"
    assert repr(tc.Linear(5, 3)) == "Linear(5, 3)"
    made = tc.layers.from_description(ours.description())
    assert made.description() == ours.description()
    assert tc.layers.from_description(tc.Linear(2, 7).description()).description() == tc.Linear(2, 7).description()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: tc.Linear(0, 1), "expected in_features to be at least 1, got 0"),
        (lambda: tc.Linear(2, 1)(torch.zeros(3)), r"expected input of shape \[..., 2\], got \(3,\)"),
        (lambda: tc.Sequential(tc.Linear(2, 3), tc.Linear(2, 1)), "needs 2 channels"),
        (lambda: tc.Sequential(tc.Linear(2, 3), tc.Conv2d(3, 1, 1)), "2-dimensional, those before 0"),
        (lambda: tc.Linear(2, 1).kernel(tc.priors.Uniform()), "net.gram"),
        (lambda: tc.Conv2d(2, 1, 3).gram(torch.zeros(3, 2)), "expected layers of a fully connected network"),
        (lambda: tc.NearestUp(2).gram(torch.ones(3, 2)), "expected layers of a fully connected network"),
        (lambda: tc.Linear(2, 1).gram(torch.zeros(3, 4)), "expected the network's 2 features, got 4"),
        (lambda: tc.Linear(2, 1).gram(torch.full((3, 2), math.nan)), "expected finite features"),
        (lambda: tc.Linear(2, 1).gram(torch.ones(3, 2), kind="x"), 'expected kind "ntk" or "nngp"'),
        (lambda: tc.Linear(2, 1).gram(torch.ones(3, 2), torch.ones(3, 2, 1)), "expected features of shape"),
        (
            lambda: tc.Linear(2, 1).gram_operator(torch.ones(3, 2)) @ torch.ones(4),
            "expected vectors of 3 numbers",
        ),
    ],
)
def test_bad_input_is_refused(attempt: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()


def test_a_matrix_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device: 1 << 20)
    with pytest.raises(tc.OutOfMemoryError, match="gram_operator"):
        tc.Linear(2, 1).gram(torch.ones(4000, 2))


@pytest.mark.parametrize("rows", [1, 3, 1024])
@pytest.mark.parametrize("activation", [tc.ReLU(), tc.LeakyReLU(0.2), tc.GELU(), tc.Tanh()], ids=repr)
def test_gram_is_symmetric_to_the_bit(
    activation: Any, rows: Any, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_cntk.layers.between._ROWS", rows)
    net = tc.Sequential(tc.Linear(5, 8), activation, tc.Linear(8, 8), activation, tc.Linear(8, 1))
    features = torch.randn(11, 5, generator=generator, dtype=torch.float64)
    kernel = net.gram(features)
    assert torch.equal(kernel, kernel.T)
    # Two orders of rounding, of some ten operations a layer.
    torch.testing.assert_close(kernel, net.gram(features, features), rtol=1e-13, atol=1e-13)


def test_matrices_of_entries_that_would_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a fit of many rows and columns asks for them."""
    net = tc.Sequential(tc.Linear(2, 1), tc.ReLU(), tc.Linear(1, 1))
    operator = net.gram_operator(torch.randn(3000, 2))
    free = 8 * 3000**2
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": free)
    assert operator.dense().shape == (3000, 3000)
    free -= 1
    for ask in (operator.dense, lambda: operator.cross(torch.randn(3000, 2))):
        with pytest.raises(tc.OutOfMemoryError, match=r"the kernel between 3,000 and 3,000 inputs needs 72 MB"):
            ask()


def test_arrays_give_arrays(generator: torch.Generator) -> None:
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(3, 1), tc.ReLU(), tc.Linear(1, 1))
    matrix = net.gram(features).numpy()
    operator = net.gram_operator(features.numpy())
    w = torch.randn(5, 2, generator=generator, dtype=torch.float64).numpy()
    for one, times in ((operator, 1), (2 * operator, 2), (operator + operator, 2)):
        for given, expected in ((w, matrix @ w), (w.T, w.T @ matrix), (w[:, 0], matrix @ w[:, 0])):
            product = one @ given
            assert isinstance(product, np.ndarray)
            np.testing.assert_allclose(product, times * expected, rtol=1e-11, atol=1e-11)
        single = one.multiply(w.T.astype(np.float32))
        assert single.dtype == np.float32
        with pytest.raises(ValueError, match="expected vectors as rows"):
            one @ matrix
    with pytest.raises(TypeError, match="expected an array of float64 or float32, got int64"):
        operator @ np.arange(5)
    with pytest.raises(ValueError, match="expected inputs without missing numbers, got a masked array"):
        net.gram_operator(np.ma.masked_less(features.numpy(), 0))


def test_operators_are_told_in_a_line() -> None:
    operator = tc.Linear(2, 1).gram_operator(torch.ones(3, 2))
    assert repr(operator) == "GramOperator(size=(3,), dtype=float32)"
    assert repr(2 * operator) == "MultipleOperator(size=(3,), dtype=float32)"
    with pytest.raises(ValueError, match="expected two operators of one size and device, got 3 on cpu and 4 on cpu"):
        operator + tc.Linear(2, 1).gram_operator(torch.ones(4, 2))


def test_vectors_are_columns_as_of_a_matrix_or_rows(generator: torch.Generator) -> None:
    features = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(3, 1), tc.ReLU(), tc.Linear(1, 1))
    signal = tc.Conv1d(1, 1, 3).kernel(tc.priors.Uniform()).operator((7,))
    matrix = net.gram(features)
    operator = net.gram_operator(features)
    every = torch.arange(7)
    for one, dense in (
        (operator, matrix),
        (2 * operator, 2 * matrix),
        (operator + operator, 2 * matrix),
        (ScaledOperator(operator, torch.full((7,), 3.0)), 9 * matrix),
        (tc.operators.DenseOperator(matrix), matrix),
        (signal, signal.entries(every, every)),
    ):
        columns = torch.randn(7, 4, generator=generator, dtype=one.dtype)
        torch.testing.assert_close(one @ columns, (dense @ columns.double()).to(one.dtype))
        torch.testing.assert_close(one @ columns[:, 0], (dense @ columns[:, 0].double()).to(one.dtype))
        torch.testing.assert_close(one @ columns.T, (columns.T.double() @ dense).to(one.dtype))
        square = torch.randn(7, 7, generator=generator, dtype=one.dtype)
        # The products of a symmetric one differ too, unless it commutes with K.
        for either in (square, square + square.T, torch.eye(7, dtype=one.dtype)):
            with pytest.raises(ValueError, match=r"expected vectors as rows \[k, 7\] or columns \[7, k\]"):
                one @ either
            torch.testing.assert_close(one.multiply(either), (either.double() @ dense).to(one.dtype))
            torch.testing.assert_close(one.multiply(either.T).T, (dense @ either.double()).to(one.dtype))
        assert (one @ columns[:, :0]).shape == (7, 0)
    alone = net.gram_operator(features[:1])
    torch.testing.assert_close(alone @ features[:1, :1], net.gram(features[:1]) * features[0, 0])
