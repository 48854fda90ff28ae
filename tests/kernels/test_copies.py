"""Kernels are values: they can be copied and sent, and depend on nothing that is switched on around them."""

from __future__ import annotations

import copy
import dataclasses
import io
import multiprocessing
import pickle
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.networks import NETS
from tests.helpers.regressions import deep, problem


def features(*size: int, **options: Any) -> torch.Tensor:
    return torch.rand(2, *size, generator=torch.Generator().manual_seed(0), **options)


def loaded() -> tc.Kernel:
    buffer = NETS["nearest"].kernel(tc.priors.Uniform())
    return pickle.loads(pickle.dumps(buffer))


KERNELS = {
    "periodic": lambda: NETS["nearest"].kernel(tc.priors.Uniform()),
    "with phases": lambda: NETS["bilinear"].kernel(tc.priors.Normal(0.3, 1.0), kind="nngp"),
    "shipped": lambda: tc.load_kernel("uniform-2x128-relu"),
    "converted": lambda: NETS["nearest"].kernel(tc.priors.Uniform()).to(torch.float32),
    "dense": lambda: NETS["nearest"].kernel(tc.priors.Tensor(features(8, 12))),
    "windowed": lambda: NETS["nearest"].kernel(tc.priors.White(0.1) + tc.priors.Tensor(features(8, 12)), radius=3),
    "average": lambda: NETS["nearest"].kernel(tc.priors.Uniform()).stationary_average(),
    "copied twice": loaded,
}


def copied(value: Any, way: str) -> Any:
    match way:
        case "pickle":
            return pickle.loads(pickle.dumps(value))
        case "deepcopy":
            return copy.deepcopy(value)
        case "torch.save":
            buffer = io.BytesIO()
            torch.save(value, buffer)
            buffer.seek(0)
            return torch.load(buffer, weights_only=False)
    raise ValueError(way)


WAYS = ["pickle", "deepcopy", "torch.save"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", KERNELS)
def test_copies_are_equal(name: Any, way: Any) -> None:
    kernel = KERNELS[name]()
    other = copied(kernel, way)
    size = kernel.size or tuple(4 * p if p > 1 else 16 for p in kernel.period)
    assert repr(other) == repr(kernel)
    assert other.origin == kernel.origin
    assert torch.equal(other.dense(size), kernel.dense(size))
    w = torch.randn(2, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(other.operator(size) @ w, kernel.operator(size) @ w)
    if kernel.size is None and name != "average":
        # So small that displacements wrap: computed anew, by the copy as well.
        assert torch.equal(other.dense(kernel.period), kernel.dense(kernel.period))


def test_pickled_kernel_has_no_weights() -> None:
    wide = tc.Sequential(tc.Conv2d(300, 300, 3), tc.ReLU(), tc.Conv2d(300, 1, 3)).kernel(tc.priors.Uniform())
    assert len(pickle.dumps(wide)) < 20_000


def test_kernel_of_a_function_that_cannot_be_pickled_forgets_its_network() -> None:
    class Odd(tc.Sequential):
        """Not known by name where it is read, and with an attribute that cannot be pickled."""

        def __init__(self, *layers: Any) -> None:
            super().__init__(*layers)
            self.function = lambda x: x

        def description(self) -> Any:
            return {"layer": "a layer of somebody else"}

    kernel = Odd(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2)).kernel(tc.priors.Uniform())
    other = copied(kernel, "pickle")
    assert torch.equal(other.dense((8, 8)), kernel.dense((8, 8)))
    assert kernel.dense((2, 2)).shape == (2, 2, 2, 2)
    with pytest.raises(ValueError, match="this kernel does not know its network"):
        other.dense((2, 2))


def test_kernel_cannot_be_changed() -> None:
    kernel = KERNELS["periodic"]()
    for name in ("near", "far", "radius", "size", "origin", "rebuild", "storage"):
        with pytest.raises(AttributeError):
            setattr(kernel, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernel.storage.near = None  # type: ignore[assignment, misc]


def double(kernel: tc.Kernel, operator: tc.Operator, solution: tc.Solution) -> tuple[torch.Tensor, tc.Kernel]:
    """What another process does."""
    return 2 * (operator @ solution.weights), kernel.to(torch.float32)


def test_other_processes_take_kernels_operators_and_solutions(generator: torch.Generator) -> None:
    kernel = KERNELS["periodic"]()
    operator = kernel.operator((8, 8))
    observed, targets = problem((8, 8), (2,), generator)
    solution = tc.Direct().solve(tc.Regression(operator, observed, 1e-2), targets)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        doubled, narrow = pool.apply(double, (kernel, operator, solution))
    assert torch.equal(doubled, 2 * (operator @ solution.weights))
    assert torch.equal(narrow.near.values, kernel.to(torch.float32).near.values)


SOLVERS = {
    "direct": tc.Direct(),
    "nested": tc.ConjugateGradient(preconditioner="nested"),
    "circulant": tc.ConjugateGradient(preconditioner="circulant"),
    "laplacian": tc.ConjugateGradient(preconditioner="laplacian"),
    "jacobi": tc.ConjugateGradient(preconditioner="jacobi"),
    "none": tc.ConjugateGradient(preconditioner="none"),
    "eigenpro": tc.EigenPro(epochs=5),
    "eigenpro in batches": tc.EigenPro(epochs=5, batch=16),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_and_factorisations_are_copied(name: Any, several: Any, way: Any, generator: torch.Generator) -> None:
    operator = deep(1).kernel(tc.priors.Uniform()).operator((10, 8))
    observed = torch.rand((3, 10, 8) if several else (10, 8), generator=generator) < 0.7
    targets = torch.randn(3, 10, 8, generator=generator, dtype=torch.float64) * observed
    solver = copied(SOLVERS[name], way)
    assert solver == SOLVERS[name]
    factorisation = solver.factorise(tc.Regression(operator, observed, 1e-2))
    expected = factorisation.solve(targets)
    other = copied(factorisation, way).solve(targets)
    assert torch.equal(other.weights, expected.weights)
    again = copied(other, way)
    assert (again.status, again.solver) == (expected.status, expected.solver)
    assert torch.equal(again.weights, expected.weights)


def kernels_of(prior: Any) -> list[torch.Tensor]:
    net = NETS["bilinear"]
    return [
        net.kernel(tc.priors.Uniform()).dense((24, 24)),
        net.kernel(prior).dense(),
        net.kernel(tc.priors.White(0.1) + prior, radius=3).dense(),
    ]


def test_features_that_require_gradients_are_read() -> None:
    given = features(8, 12)
    expected = kernels_of(tc.priors.Tensor(given))
    tracked = given.clone().requires_grad_()
    with torch.no_grad():
        for kernel, other in zip(kernels_of(tc.priors.Tensor(tracked)), expected, strict=True):
            assert torch.equal(kernel, other)
    for kernel, other in zip(kernels_of(tc.priors.Tensor(tracked)), expected, strict=True):
        # Where gradients are recorded sums are taken in another order, in the features' precision.
        torch.testing.assert_close(kernel.detach(), other, rtol=1e-5, atol=1e-5)
    assert [kernel.requires_grad for kernel in kernels_of(tc.priors.Tensor(tracked))] == [False, True, True]
    assert torch.equal(tracked.detach(), given)
    net = tc.Sequential(tc.Linear(4, 8), tc.ReLU(), tc.Linear(8, 1))
    weight = torch.nn.Embedding(5, 4).weight
    others = torch.rand(3, 4, requires_grad=True)
    plain = weight.detach().clone()
    # Gradients are recorded on another route to the same numbers, which rounds in its own way.
    torch.testing.assert_close(net.gram(weight).detach(), net.gram(plain), rtol=1e-6, atol=1e-6)
    found = net.gram(others, weight).detach()
    torch.testing.assert_close(found, net.gram(others.detach(), plain), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        operator = net.gram_operator(weight)
    assert not (operator @ torch.rand(2, 5)).requires_grad


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "autocast", "float64", "float16"])
def test_modes_of_torch_change_nothing(mode: Any, generator: torch.Generator) -> None:
    given = tc.priors.Tensor(features(8, 12, dtype=torch.float32))
    expected = kernels_of(given)
    observed, targets = problem((24, 24), (2,), generator)
    kernel = NETS["bilinear"].kernel(tc.priors.Uniform(), dtype=torch.float32)
    weights = tc.ConjugateGradient().solve(tc.Regression(kernel.operator((24, 24)), observed, 1e-3), targets).weights
    default = torch.get_default_dtype()
    context: AbstractContextManager[Any]
    try:
        match mode:
            case "no_grad":
                context = torch.no_grad()
            case "inference_mode":
                context = torch.inference_mode()
            case "autocast":
                context = torch.autocast("cpu", dtype=torch.bfloat16)
            case _:
                context = torch.no_grad()
                torch.set_default_dtype(getattr(torch, mode))
        with context:
            for found, other in zip(kernels_of(given), expected, strict=True):
                assert torch.equal(found, other)
            inside = NETS["bilinear"].kernel(tc.priors.Uniform(), dtype=torch.float32)
            factorisation = tc.ConjugateGradient().factorise(tc.Regression(inside.operator((24, 24)), observed, 1e-3))
            assert torch.equal(factorisation.solve(targets).weights, weights)
    finally:
        torch.set_default_dtype(default)
    assert not inside.near.values.is_inference()
    # What was made inside serves outside.
    assert torch.equal(factorisation.solve(targets).weights, weights)


def test_targets_that_require_gradients_are_solved(generator: torch.Generator) -> None:
    operator = NETS["nearest"].kernel(tc.priors.Uniform()).operator((8, 8))
    observed, targets = problem((8, 8), (2,), generator)
    for solver in SOLVERS.values():
        expected = solver.solve(tc.Regression(operator, observed, 1e-2), targets).weights
        tracked = targets.clone().requires_grad_()
        weights = solver.solve(tc.Regression(operator, observed, 1e-2), tracked).weights
        assert torch.equal(weights, expected)
        assert not weights.requires_grad


def test_nothing_global_is_touched() -> None:
    state, threads, default = torch.random.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    for make in KERNELS.values():
        make()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, default)
