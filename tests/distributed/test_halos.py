"""Images in bands of several ranks, which exchange what their kernels reach of each other's."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers.operator_contract import keep_contract
from tests.helpers.ranks import Launcher, launcher
from tests.helpers.regressions import deep
from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators import Operator
from torch_cntk.operators.layout import Banded
from torch_cntk.operators.over_ranks import BandedOperator, BandOperator

SIZES = (2, 3, 4)
TOLERANCE = 1e-12
"""Relative to the largest number of a product: additions in another order."""


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def windowed(seed: int, size: tuple[int, ...], radius: int | tuple[int, ...]) -> Operator:
    """A stencil; its offsets have both signs along the second axis."""
    prior = tc.priors.White(0.1) + tc.priors.Tensor(draw(seed, 2, *size))
    return deep(1).kernel(prior, radius=radius).operator()


def phased() -> tc.Layer:
    """Its far part depends on the phases."""
    return tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(1, 1, 3))


UNIFORM = tc.priors.Uniform()
OPERATORS: dict[str, Callable[[int], Operator]] = {
    "stencil of uneven bands": lambda seed: windowed(seed, (11, 8), 3),
    "stencil along the second axis": lambda seed: windowed(seed, (8, 13), 3),
    "bands thinner than the radius": lambda seed: windowed(seed, (9, 7), (4, 2)),
    "a row a rank": lambda seed: windowed(seed, (3, 3), 1),
    "periodic": lambda seed: deep(2).kernel(UNIFORM).operator((20, 16)),
    "more ranks than cells": lambda seed: deep(3).kernel(UNIFORM).operator((16, 24)),
    "phases": lambda seed: phased().kernel(UNIFORM).operator((20, 24)),
    "signal": lambda seed: (
        tc.Sequential(tc.Conv1d(1, 1, 5), tc.ReLU(), tc.Conv1d(1, 1, 3)).kernel(UNIFORM).operator((21,))
    ),
    "video": lambda seed: (
        tc.Sequential(tc.Conv3d(1, 1, 3), tc.ReLU(), tc.Conv3d(1, 1, 3)).kernel(UNIFORM).operator((4, 9, 5))
    ),
}


def products(seed: int) -> dict[str, Any]:
    mesh, found = tc.distributed.mesh(60), {}
    for name, make in OPERATORS.items():
        single = make(seed)
        divided = single.divided(mesh)
        assert type(divided) is BandedOperator, name
        bands = divided.in_bands()
        w = draw(seed + 1, 2, *single.size)
        expected = single @ w
        band = bands @ bands.layout.own(w)
        assert band.shape == (2, *bands.size)
        whole = bands.layout.joined(band)
        assert torch.equal(whole, divided @ w), name
        narrow = bands.layout.joined(bands @ bands.layout.own(w).float())
        assert (narrow - expected).abs().max() <= 1e-5 * expected.abs().max()
        found[name] = whole, float((whole - expected).abs().max() / expected.abs().max()), math.prod(bands.size)
        assert bands.mean_diagonal == single.mean_diagonal
    return found


@pytest.mark.parametrize("size", SIZES)
def test_products_in_bands_are_those_of_one_process(ranks: Launcher, size: int, generator: torch.Generator) -> None:
    found = ranks.values(products, size, int(torch.randint(10**6, (), generator=generator)))
    for name in OPERATORS:
        wholes, errors, held = zip(*(one[name] for one in found), strict=True)
        assert max(errors) <= TOLERANCE, name
        assert all(torch.equal(whole, wholes[0]) for whole in wholes)
        assert sum(held) == wholes[0][0].numel()
    if size == 4:
        assert any(one["more ranks than cells"][2] == 0 for one in found)


def contracts(seed: int) -> int:
    mesh = tc.distributed.mesh(60)
    return sum(
        keep_contract(OPERATORS[name](seed).divided(mesh), torch.Generator().manual_seed(seed))
        for name in ("stencil of uneven bands", "bands thinner than the radius", "periodic", "phases")
    )


@pytest.mark.parametrize("size", SIZES)
def test_several_ranks_keep_the_contract_of_operators(ranks: Launcher, size: int, generator: torch.Generator) -> None:
    seed = int(torch.randint(10**6, (), generator=generator))
    assert all(count > 4 * 15 for count in ranks.values(contracts, size, seed))


SOLVED: dict[str, tuple[str, Callable[[], Any]]] = {
    "jacobi": ("stencil of uneven bands", lambda: tc.ConjugateGradient(1e-11, 1000, preconditioner="jacobi")),
    "thin": ("bands thinner than the radius", lambda: tc.ConjugateGradient(1e-11, 1000, preconditioner="jacobi")),
    "none": ("periodic", lambda: tc.ConjugateGradient(1e-11, 1000, preconditioner="none")),
    "whole images": ("periodic", lambda: tc.ConjugateGradient(1e-11, 1000, preconditioner="circulant")),
    "settled": ("stencil along the second axis", lambda: tc.Settled(1e-12, 1000)),
    "no rows": ("more ranks than cells", lambda: tc.ConjugateGradient(1e-11, 1000, preconditioner="jacobi")),
}


def solutions(seed: int) -> dict[str, Any]:
    mesh, found = tc.distributed.mesh(60), {}
    for name, (operator, solver) in SOLVED.items():
        single = OPERATORS[operator](seed)
        observed = draw(seed + 2, 2, *single.size) < 0.5
        observed[(0,) * observed.ndim] = True
        y = draw(seed + 3, 2, *single.size) * observed
        y[1] *= 1e-40  # each right-hand side has a scale of its own, whatever a band has
        alone = solver().solve(tc.Regression(single, observed, 0.1), y)
        regression = tc.Regression(single.divided(mesh), observed, 0.1)
        factorisation = solver().factorise(regression)
        together = factorisation.solve(y)
        again = factorisation.solve(y, guess=together.weights)
        assert again.iterations <= together.iterations
        scale = alone.weights.flatten(1).norm(dim=1).clamp_min(1e-300)
        error = float(((together.weights - alone.weights).flatten(1).norm(dim=1) / scale).max())
        assert together.status is alone.status and together.image is not None
        product = single @ together.weights
        assert (together.image - product).abs().amax() <= 1e-9 * product.abs().max()
        found[name] = together.weights, error, together.iterations, alone.iterations
    return found


@pytest.mark.parametrize("size", SIZES)
def test_solutions_are_those_of_one_process(ranks: Launcher, size: int, generator: torch.Generator) -> None:
    found = ranks.values(solutions, size, int(torch.randint(10**6, (), generator=generator)))
    for name in SOLVED:
        weights, errors, iterations, alone = zip(*(one[name] for one in found), strict=True)
        assert len(set(iterations)) == 1, name
        assert abs(iterations[0] - alone[0]) <= 2 + 0.1 * alone[0], name  # rounding, in many of them
        assert max(errors) <= 1e-8, name  # the tolerance times the condition number
        assert all(torch.equal(one, weights[0]) for one in weights)


def nested(seed: int) -> Any:
    """An image with room for overlapping bands, of the preconditioner and of the vectors."""
    mesh = tc.distributed.mesh(60)
    single = tc.load_kernel("uniform-3x128-leaky0.1").to(torch.float64).operator((304, 16))
    observed = draw(seed, *single.size) < 0
    observed[:10] = False  # whole rows
    y = draw(seed + 1, 2, *single.size) * observed
    found = []
    for operator in (single, single.divided(mesh)):
        solver = tc.ConjugateGradient(1e-9, preconditioner="nested")
        found.append(solver.solve(tc.Regression(operator, observed, 1e-2), y))
    alone, together = found
    error = float((together.weights - alone.weights).norm() / alone.weights.norm())
    return error, together.iterations, alone.iterations, float(together.residual.max())


@pytest.mark.parametrize("size", SIZES)
def test_nested_iterations_keep_their_bands(ranks: Launcher, size: int, generator: torch.Generator) -> None:
    found = ranks.values(nested, size, int(torch.randint(10**6, (), generator=generator)))
    for error, iterations, alone, residual in found:
        assert residual <= 1e-9 and iterations == found[0][1]
        assert iterations <= 1.5 * alone + 2
        assert error <= 1e-6  # the tolerance times the condition number


def traffic() -> dict[str, int]:
    """Bytes that this rank sends in a product, of bands and of whole images."""
    mesh, found = tc.distributed.mesh(60), {}
    for name, operator in {"stencil": windowed(0, (96, 20), 3), "periodic": OPERATORS["periodic"](0)}.items():
        divided = operator.divided(mesh)
        bands = divided.in_bands()
        assert isinstance(bands, BandOperator)
        w = draw(1, 2, *operator.size)
        own = bands.layout.own(w)
        before = mesh.bytes_sent
        bands @ own
        found[name] = mesh.bytes_sent - before
        divided @ w
        found[f"{name}, whole"] = mesh.bytes_sent - before - found[name]
    return found


def test_bytes_of_a_product(ranks: Launcher) -> None:
    report = 3 * 8 * 2  # of each rank to the two others
    for found in ranks.values(traffic, 3):
        # Two rows (beyond a taper of three) of two images of 20 pixels to one neighbour, and what was found for two
        # rows of the other.
        assert found["stencil"] == 2 * (2 * 2 * 20 * 8) + report
        assert found["stencil, whole"] > 2 * 32 * 2 * 20 * 8


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_bands_cover_an_image(count: int, seed: int) -> None:
    shape = [(7, 4), (3, 12), (2, 3, 5)][seed]
    image = draw(seed, *shape)
    layouts = [Banded(Mesh(rank, count), shape, (1,) * len(shape)) for rank in range(count)]
    assert torch.equal(torch.cat([layout.own(image) for layout in layouts], layouts[0].axis), image)


def failing(way: str) -> None:
    mesh = tc.distributed.mesh(timeout=6)
    operator = windowed(0, (12, 8), 2).divided(mesh)
    if mesh.rank == 1:
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        vars(operator.in_bands())["_of_band"] = _full
    solver = tc.ConjugateGradient(1e-9, preconditioner="jacobi")
    solver.solve(tc.Regression(operator, torch.ones(12, 8, dtype=torch.bool), 0.1), draw(1, 12, 8))


def _full(wide: Tensor) -> Tensor:
    raise tc.OutOfMemoryError("no room")


@pytest.mark.parametrize("way", ["error", "killed", "stopped"])
def test_a_rank_that_fails_ends_all(ranks: Launcher, way: str) -> None:
    outcomes = ranks.run(failing, 3, way, within=60.0)
    others = [outcomes[0].error, outcomes[2].error]
    assert all(error is not None for error in others)
    if way == "error":
        assert {outcome.error for outcome in outcomes} == {("OutOfMemoryError", "on rank 1: no room")}
    else:
        assert all(error is not None and "rank 1 ended, or did not come within 6 s" in error[1] for error in others)
        assert max(outcome.seconds for outcome in (outcomes[0], outcomes[2])) < 40
