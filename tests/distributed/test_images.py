"""Images on several processes: the same pictures as on one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers.ranks import Launcher, launcher
from tests.helpers.regressions import deep, direct, random_operator
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.averaged import Averaged
from torch_cntk.images.group_flow import GroupFlow
from torch_cntk.operators import Operator
from torch_cntk.solvers.bands import Bands, _with_overlaps, band_count

Numbers = dict[str, Any]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


def values(ranks: Launcher, work: Callable[..., Any], size: int) -> list[Any]:
    """What each rank gives, none of which may fail; processors may be busy with other things."""
    outcomes = ranks.run(work, size, within=300.0)
    assert [(outcome.error, outcome.code) for outcome in outcomes] == [(None, 0)] * size
    return [outcome.value for outcome in outcomes]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(*size: int) -> Tensor:
    return torch.randn(2, *size, generator=seeded(), dtype=torch.float64)


def given(*size: int) -> tc.priors.Prior:
    return tc.priors.White(0.1) + tc.priors.Tensor(features(*size))


def smooth(height: int, width: int) -> Tensor:
    rows, columns = torch.arange(height)[:, None] / 9, torch.arange(width) / 7
    return torch.stack([rows.sin() + columns.cos(), (rows * 2).cos() * columns.sin(), rows.sin() * columns.sin()])


def padded() -> tc.Layer:
    """Its kernel belongs to one size, whatever the prior."""
    return tc.Sequential(tc.Conv2d(2, 1, 3, padding_mode="zeros"), tc.ReLU(), tc.Conv2d(1, 1, 3))


# Operators that all ranks have, and whose products they divide.

WHOLE: dict[str, Callable[[], Operator]] = {
    "periodic": lambda: deep(2).kernel(tc.priors.Uniform()).operator((16, 12)),
    "periodic, one row of cells": lambda: deep(3).kernel(tc.priors.Uniform(), (8, 32)).operator(),
    "signal": lambda: tc.Sequential(tc.Conv1d(1, 1, 3), tc.ReLU()).kernel(tc.priors.Uniform()).operator((21,)),
    "video": lambda: tc.Sequential(tc.Conv3d(1, 1, 3), tc.ReLU()).kernel(tc.priors.Uniform()).operator((4, 5, 3)),
    "phases": lambda: (
        tc.Sequential(tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(1, 1, 3))
        .kernel(tc.priors.Uniform())
        .operator((20, 24))
    ),
    "dense": lambda: deep(1).kernel(given(6, 8)).operator(),
    "stencil": lambda: deep(1).kernel(given(10, 8), radius=3).operator(),
    "stencil of one displacement": lambda: deep(1).kernel(given(4, 4), radius=1).operator(),
    "matrix": lambda: random_operator((3, 1), 1e2, seeded()),
}


def divided_products() -> dict[str, float]:
    """The largest relative error of products that ranks divide."""
    mesh, found = tc.distributed.mesh(30), {}
    for name, make in WHOLE.items():
        operator = make()
        divided = operator.divided(mesh)
        w = torch.randn(2, *operator.size, generator=seeded(), dtype=torch.float64)
        expected = operator @ w
        found[name] = float((divided @ w - expected).abs().max() / expected.abs().max())
        assert (divided.cost, divided.iterations) == (operator.cost, operator.iterations)
        assert torch.equal(divided.diagonal, operator.diagonal)
        few = torch.arange(3)
        assert torch.equal(divided.entries(few, few), operator.entries(few, few))
        assert torch.equal(divided.select(few).entries(few, few), operator.entries(few, few))
    return found


# Kernels of which each rank holds some displacements.

SHARED: dict[str, tuple[Callable[[], tc.Layer], Callable[[], tc.priors.Prior], Numbers]] = {
    "dense": (lambda: deep(1), lambda: given(6, 8), {}),
    "dense, odd": (padded, lambda: given(5, 3), {}),
    "dense, one row": (padded, lambda: given(1, 6), {}),
    "few displacements": (padded, lambda: given(2, 1), {}),
    "borders of zeros": (padded, lambda: tc.priors.White(1.0), {"size": (6, 4)}),
    "window": (lambda: deep(1), lambda: given(12, 10), {"radius": (4, 3)}),
    "window in 16 bits": (lambda: deep(1), lambda: given(8, 10), {"radius": 3, "dtype": torch.float16}),
    "window of one": (lambda: deep(1), lambda: given(4, 4), {"radius": 1}),
}


def shared_kernels() -> dict[str, Numbers]:
    """How much kernels that ranks share differ from whole ones, relatively, and how many bytes each rank holds."""
    mesh, found = tc.distributed.mesh(30), {}
    for name, (network, prior, options) in SHARED.items():
        whole = network().kernel(prior(), **options)
        share = network().kernel(prior(), **options, mesh=mesh)
        one, many = whole.operator(), share.operator()
        w = torch.randn(2, *one.size, generator=seeded(), dtype=torch.float64)
        every = torch.arange(one.diagonal.numel())
        expected, entries = one @ w, one.entries(every, every)
        own = copy.deepcopy(many), pickle.loads(pickle.dumps(many))
        found[name] = {
            "product": float((many @ w - expected).abs().max() / expected.abs().max()),
            "copies": [torch.equal(other @ w, many @ w) for other in own],
            "entries": float((many.entries(every, every) - entries).abs().max() / entries.abs().max()),
            "diagonal": float((many.diagonal - one.diagonal).abs().max() / one.diagonal.max()),
            "row": float((share.row((0, 0)) - whole.row((0, 0))).abs().max() / entries.abs().max()),
            "stationary": _apart(one.stationary, many.stationary),
            "solved": _solved(one, many, w),
            "bytes": (share.nbytes, whole.nbytes),
        }
    return found


def _apart(first: Tensor | None, second: Tensor | None) -> float:
    if first is None or second is None:
        return 0.0
    return float((first - second).abs().max() / first.abs().max())


def _solved(one: Operator, many: Operator, w: Tensor) -> float:
    """How far solutions on many ranks are from that of the dense equations."""
    observed = torch.rand(one.size, generator=seeded()) < 0.7
    observed.view(-1)[0] = True
    every = torch.arange(one.diagonal.numel())
    expected = direct(one.entries(every, every).reshape(*one.size, *one.size), observed, w * observed, 0.1)
    worst = 0.0
    for solver in (tc.Direct(), tc.ConjugateGradient(1e-9, 2000)):
        solution = solver.solve(tc.Regression(many, observed, 0.1), w * observed)
        worst = max(worst, float((solution.weights - expected).norm() / expected.norm()))
    return worst


def test_operators(ranks: Launcher) -> None:
    for found in values(ranks, divided_products, 3):
        assert max(found.values()) <= 1e-13, found
    held: dict[str, int] = {}
    for found in values(ranks, shared_kernels, 3):
        for name, numbers in found.items():
            half = name == "window in 16 bits"
            tolerance = 1e-5 if half else 1e-12  # images of 16 bits are multiplied in float32
            assert numbers["product"] <= tolerance, (name, numbers)
            assert max(numbers[what] for what in ("entries", "diagonal", "row", "stationary")) <= tolerance, (
                name,
                numbers,
            )
            assert all(numbers["copies"])
            assert numbers["solved"] <= (1e-2 if half else 1e-6), (name, numbers)
            held[name] = held.get(name, 0) + numbers["bytes"][0]
    for name, numbers in found.items():
        # Of u and -u one is held; a whole table has less where mirroring an axis leaves it as it is.
        assert held[name] <= (1.2 if name == "borders of zeros" else 1) * numbers["bytes"][1]


# Whole fills.


def batch() -> tuple[Tensor, Tensor]:
    images = torch.stack([smooth(20, 24), smooth(20, 24).flip(1), smooth(20, 24) ** 2])
    observed = torch.rand(3, 20, 24, generator=seeded()) < 0.6
    return images, observed


def holes() -> tuple[Tensor, Tensor]:
    """An image that is filled in windows."""
    observed = torch.ones(240, 250, dtype=torch.bool)
    observed[12:17, 20:24] = observed[160:166, 200:205] = False
    return smooth(240, 250), observed


def scattered() -> tuple[Tensor, Tensor]:
    return smooth(30, 26), torch.rand(30, 26, generator=seeded()) < 0.5


def fills() -> Numbers:
    """Pictures that were filled by all ranks together."""
    mesh = tc.distributed.mesh(30)
    images, masks = batch()
    whole, mask = scattered()
    with_holes, hole = holes()
    kernel = "uniform-3x128-leaky0.1"
    guided = tc.Guidance(radius=4)
    windows = tc.inpaint(with_holes, hole, kernel, mesh=mesh)
    in_windows = tc.inpaint(with_holes, hole, kernel, passes=2, guidance=guided, mesh=mesh)
    assert (windows.solver[:9], in_windows.solver[:9]) == ("2 windows", "2 windows")
    return {
        "batch": tc.inpaint(images, masks, kernel, mesh=mesh).image,
        "batch, passes": tc.inpaint(images, masks, kernel, passes=1, guidance=guided, mesh=mesh).image,
        "windows": windows.image,
        "windows, passes": in_windows.image,
        "whole": tc.inpaint(whole, mask, kernel, mesh=mesh).image,
        "whole, passes": tc.inpaint(whole, mask, kernel, passes=2, guidance=guided, mesh=mesh).image,
        "coarse": tc.inpaint(whole, mask, kernel, passes=[tc.images.Coarse(guided, 2)], mesh=mesh).image,
        "flow": tc.inpaint(whole, mask, kernel, passes=[guided, GroupFlow(iterations=2)], mesh=mesh).image,
        "averaged": tc.inpaint(whole, mask, kernel, passes=[guided, Averaged(guided)], mesh=mesh).image,
        "dense": tc.inpaint(whole[:2], mask, padded().kernel(tc.priors.White(1.0), (30, 26)), mesh=mesh).image,
        "channels": tc.inpaint(whole, torch.stack([mask, mask, ~mask]), kernel, mesh=mesh).image,
    }


BITS = ("batch", "batch, passes", "windows", "windows, passes")
"""Where nothing but whole pictures or windows are divided."""


def test_fills(ranks: Launcher) -> None:
    (alone,) = values(ranks, fills, 1)
    images, masks = batch()
    plain = tc.inpaint(images, masks, "uniform-3x128-leaky0.1").image
    assert (plain - alone["batch"]).abs().max() <= 1e-3  # of two iterations to a residual of 1e-4
    for found in values(ranks, fills, 3):
        assert found.keys() == alone.keys()
        for name, image in found.items():
            # To rounding in float32, which an iteration takes to its tolerance.
            assert (image - alone[name]).abs().max() <= (0 if name in BITS else 1e-3), name


def pictures() -> Tensor:
    """A batch of three."""
    return tc.inpaint(*batch(), "uniform-3x128-leaky0.1", mesh=tc.distributed.mesh(30)).image


def test_more_ranks_than_pictures(ranks: Launcher) -> None:
    first, *others = values(ranks, pictures, 4)
    assert all(torch.equal(first, other) for other in others)
    assert torch.equal(first, values(ranks, pictures, 1)[0])


def in_bands() -> Numbers:
    """Weights of equations whose preconditioner is divided into bands, and how many iterations they took."""
    mesh, found = tc.distributed.mesh(30), {}
    kernel = tc.load_kernel("uniform-3x128-leaky0.1").to(torch.float64)
    for name, size in {"rows": (208, 24), "columns": (16, 304), "one band": (40, 48)}.items():
        observed = torch.rand(size, generator=seeded()) < 0.5
        observed[:10] = False  # whole rows
        y = torch.randn(2, *size, generator=seeded(), dtype=torch.float64) * observed
        operator = kernel.operator(size).divided(mesh)
        solver = tc.ConjugateGradient(1e-8, preconditioner="nested")
        solution = solver.solve(tc.Regression(operator, observed, 1e-3), y)
        found[name] = solution.weights, solution.iterations, solution.residual.max()
    return found


def test_bands(ranks: Launcher) -> None:
    (alone,) = values(ranks, in_bands, 1)
    for found in values(ranks, in_bands, 3):
        for name, (weights, iterations, residual) in found.items():
            expected, before, _ = alone[name]
            assert residual <= 1e-8
            assert iterations <= 1.5 * before + 2, name
            # The tolerance times the condition number, which the ridge bounds.
            assert (weights - expected).norm() <= 1e-4 * expected.norm(), name


@pytest.mark.parametrize(("size", "ranks"), [((208, 24), 2), ((8, 400), 3), ((704, 8), 9)])
def test_weights_of_bands_sum_to_one(size: tuple[int, int], ranks: int) -> None:
    operator = tc.load_kernel("uniform-3x128-leaky0.1").operator(size)
    regression = tc.Regression(operator, torch.ones(size, dtype=torch.bool), 1e-3)
    total, bands = torch.zeros(max(size)), 0
    for rank in range(ranks):
        weights = Bands(regression, Mesh(rank, ranks))._weights
        if weights is not None:
            bands += 1
            n, count = len(total), band_count(size, ranks)
            first, length = _with_overlaps(n, n * rank // count, n * (rank + 1) // count)
            total.index_add_(0, torch.arange(first, first + length) % n, weights.flatten().square())
    assert bands == band_count(size, ranks)
    assert (total - 1).abs().max() <= 1e-6


def choices() -> Numbers:
    """What is chosen by leaving pixels or entries out, and the tables of comparisons."""
    mesh = tc.distributed.mesh(30)
    image, mask = scattered()
    few = [tc.Guidance(radius=radius) for radius in (2, 3)]
    result = tc.inpaint(image, mask, "uniform-3x128-leaky0.1", passes="auto", guidance=few, mesh=mesh)
    hole = torch.ones(48, 50, dtype=torch.bool)
    hole[16:28, 18:31] = False
    texture = torch.rand(1, 7, 9, generator=seeded()).repeat(1, 7, 6)[:, :48, :50]
    thick = tc.inpaint(texture, hole, "uniform-3x128-leaky0.1", passes="auto", mesh=mesh)
    networks: Any = {"deep": deep(1), "deeper": deep(2), "named": "uniform-3x128-leaky0.1"}
    ranked = tc.sweep(networks, image, mask, trials=2, mesh=mesh)
    table = torch.randn(12, 3, generator=seeded(), dtype=torch.float64)
    table = table @ torch.randn(3, 9, generator=seeded(4), dtype=torch.float64)
    known = torch.rand(table.shape, generator=seeded()) < 0.7
    judged = tc.matrices.cross_validate(tc.MatrixCompletion(passes=1), table, known, folds=2, mesh=mesh)
    return {
        "passes": (result.passes, repr(result.guidance)),
        "blend": (thick.choice, repr(thick.guidance)),
        "sweep": [(row.name, row.error, row.behind) for row in ranked.rows],
        "folds": [{name: value for name, value in line.items() if name != "seconds"} for line in judged.lines],
    }


def test_choices(ranks: Launcher) -> None:
    (alone,) = values(ranks, choices, 1)
    for found in values(ranks, choices, 2):
        assert found["passes"] == alone["passes"]
        assert found["sweep"] == alone["sweep"]
        assert repr(found["folds"]) == repr(alone["folds"])  # some are NaN


# What is refused.


def mistakes() -> list[str]:
    """What ranks are told: of different images, a kernel that is not divided, and a part that cannot be filled."""
    mesh = tc.distributed.mesh(30)
    image, mask = scattered()
    calls: list[Callable[[], object]] = [
        lambda: tc.inpaint(image + mesh.rank, mask, mesh=mesh),
        lambda: tc.inpaint(image, mask.roll(mesh.rank), mesh=mesh),
        lambda: deep(1).kernel(tc.priors.Uniform(), mesh=mesh),
        lambda: deep(1).kernel(tc.priors.Uniform(), (16, 16), radius=3, mesh=mesh),
        lambda: padded().kernel(tc.priors.White(1.0), (4, 6), mesh=mesh).save("kernel.safetensors"),
        lambda: padded().kernel(tc.priors.White(1.0), (4, 6), mesh=mesh).dense(),
        lambda: deep(1).kernel(tc.priors.Tensor(features(8, 6) + mesh.rank), mesh=mesh),
    ]
    found = []
    for call in calls:
        with pytest.raises(ValueError) as told:
            call()
        found.append(str(told.value))
    return found


def test_mistakes(ranks: Launcher) -> None:
    first, *others = values(ranks, mistakes, 2)
    image, mask, periodic, window, saved, dense, prior = first
    assert "image" in image
    assert "observed" in mask
    assert periodic.startswith("expected a kernel whose period is the image")
    assert window.startswith("expected a prior that differs from pixel to pixel")
    assert saved.startswith("expected a whole kernel, got the share of rank 0 of 2")
    assert dense.startswith("expected a whole kernel, got the share of rank 0 of 2")
    assert "prior" in prior
    for other in others:
        assert (other[0], other[1], other[6]) == (image, mask, prior)
