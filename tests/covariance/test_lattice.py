"""Expressions of image covariances are never changed by what is computed from them, and have no largest depth."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import random
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance import (
    Extent,
    Features,
    Filter,
    Gains,
    Geometry,
    Lattice,
    Linear,
    Nearest,
    Patches,
    Stored,
    Table,
)
from torch_cntk.covariance.duals import Gelu, Rectifier
from torch_cntk.covariance.lattice import Evaluation, evaluation
from torch_cntk.covariance.lattice.order import parents_first
from torch_cntk.covariance.table import Slab

DEEP = 5_000
RELU = Rectifier(0.0)


def features(generator: torch.Generator, *size: Any, channels: Any = 2) -> Any:
    return Features(torch.randn(channels, *size, generator=generator, dtype=torch.float64))


def layer(lattice: Lattice, width: int = 3) -> Lattice:
    return lattice.average_patches(Patches.centred((width, width)), Gains.ntk(1.0, 0.1)).activate(RELU)


def hourglass(start: Lattice) -> Lattice:
    """Two levels, with a branch around the lower one, a padded convolution and a normalisation."""
    top = layer(start)
    low = layer(layer(top.subsample((2, 2))).resample((Linear(2),) * 2))
    mixed = low.average_patches(Patches.centred((3, 3))).mix(
        (1.0, 0.5, 0.25),
        (top.average_patches(Patches.centred((1, 1))), top.average_patches(Patches.centred((3, 3), "zeros"))),
    )
    return (
        mixed.normalise(1e-3, True)
        .average_patches(Patches.centred((3, 3)))
        .activate(Gelu())
        .average_patches(Patches.centred((3, 3)))
    )


@pytest.fixture
def expression(generator: torch.Generator) -> Any:
    return hourglass(features(generator, 8, 12))


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "ntk": lambda lattice: lattice.tabulate("ntk")[0].values,
    "nngp": lambda lattice: lattice.tabulate("nngp")[0].values,
    "near ntk": lambda lattice: lattice.tabulate_window("ntk", torch.float64, (3, 4)).values,
    "near nngp": lambda lattice: lattice.tabulate_window("nngp", torch.float32, (2, 2)).values,
    "bytes": lambda lattice: torch.tensor(lattice.bytes_needed()),
}


def copied_anew(lattice: Lattice) -> Lattice:
    return pickle.loads(pickle.dumps(lattice))


def test_nodes_are_frozen_and_equal_only_to_themselves(expression: Any) -> None:
    for node in parents_first(expression, lambda node: node.parents):
        for name in ("geometry", "load", "parents"):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(node, name, None)
        assert node == node
        assert node != copied_anew(node)
        assert len({node, node}) == 1
    assert repr(expression) == "<Averaged, period 8 x 12 on 8 x 12 pixels>"


@pytest.mark.parametrize("seed", range(4))
def test_order_of_questions_does_not_matter(expression: Any, seed: Any) -> None:
    expected = {name: ask(copied_anew(expression)) for name, ask in QUESTIONS.items()}
    names = list(QUESTIONS) * 2
    random.Random(seed).shuffle(names)
    for name in names:
        assert torch.equal(QUESTIONS[name](expression), expected[name]), name


def test_an_evaluation_can_be_asked_again_and_keeps_no_tables(expression: Any) -> None:
    asked = Evaluation(expression, "ntk")
    first = asked.tabulate()[0].values
    near = asked.tabulate_window(torch.float64, (3, 4)).values
    assert torch.equal(asked.tabulate()[0].values, first)
    assert torch.equal(asked.tabulate_window(torch.float64, (3, 4)).values, near)
    assert not asked._tables


def test_slabs_may_come_in_any_order(expression: Any) -> None:
    ones = (1, 1)
    slabs = [Slab((u, v), ones, ones) for u in range(5) for v in range(12)]
    values = expression.tabulate("ntk")[0].values
    asked = Evaluation(expression, "ntk")
    random.Random(0).shuffle(slabs)
    with asked._tables_before(lambda program: asked._whole_table(program, torch.float64, None)[0]):
        for slab in slabs:
            # Only the order of additions may differ.
            torch.testing.assert_close(
                asked._last.run(slab)[:, 0, 0], values[:, slab.start[0], slab.start[1]], rtol=1e-13, atol=0
            )


def test_evaluations_of_one_expression_at_once_are_independent(
    expression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many slabs, so that the threads meet.
    monkeypatch.setattr(evaluation, "_SLAB_ENTRIES", 100)
    expected = {name: ask(copied_anew(expression)) for name, ask in QUESTIONS.items()}
    names = list(QUESTIONS) * 6
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: QUESTIONS[name](expression), names))
    for name, answer in zip(names, answers, strict=True):
        assert torch.equal(answer, expected[name]), name


def test_nodes_can_be_shared_between_expressions(generator: torch.Generator) -> None:
    trunk = layer(layer(features(generator, 6, 8)))
    ends = [
        trunk.average_patches(Patches.centred((3, 3))),
        trunk.subsample((2, 2)).average_patches(Patches.centred((3, 3))),
        trunk.resample((Nearest(2),) * 2),
        trunk.resample((Filter((0.5, 0.5), 2),) * 2).average_patches(Patches.centred((1, 1))),
        trunk.mix((0.5, 0.5), (trunk,)),
        trunk,
    ]
    expected = [copied_anew(end).tabulate("ntk")[0].values for end in ends]
    for end, values in zip([*ends, *ends[::-1]], [*expected, *expected[::-1]], strict=True):
        assert torch.equal(end.tabulate("ntk")[0].values, values)


def test_a_node_that_is_read_twice_is_not_overwritten(generator: torch.Generator) -> None:
    trunk = layer(features(generator, 6, 8))
    values, doubled = trunk.tabulate("ntk")[0].values, trunk.mix((1.0, 1.0), (trunk,)).tabulate("ntk")[0].values
    torch.testing.assert_close(doubled, 2 * values, rtol=1e-14, atol=0)
    both = layer(trunk).mix((1.0,) * 4, (trunk, layer(trunk), trunk))
    expected = 2 * layer(trunk).tabulate("ntk")[0].values + 2 * values
    torch.testing.assert_close(both.tabulate("ntk")[0].values, expected, rtol=1e-13, atol=0)


def test_a_sum_needs_a_weight_for_each_branch(generator: torch.Generator) -> None:
    start = features(generator, 4, 6)
    with pytest.raises(ValueError, match="a weight for each of 2 branches, got 3"):
        start.mix((1.0, 1.0, 1.0), (start,))


def test_a_prior_has_no_theta_before_a_weight_layer(generator: torch.Generator) -> None:
    start = features(generator, 4, 6)
    stored = Stored(Table(torch.ones(2, 3, 4, 1, 1, dtype=torch.float64), Geometry((4, 6), (1, 1), reflective=True)))
    for lattice in (start, stored, start.mix((1.0, 2.0), (stored,)), stored.mix((1.0, 2.0), (start,))):
        assert not lattice.tabulate("ntk")[0].values.any()
        assert not lattice.subsample((2, 2)).activate(RELU).tabulate("ntk")[0].values.any()
        sigma = lattice.tabulate("nngp")[0].values
        trained = lattice.average_patches(Patches.centred((1, 1)))
        torch.testing.assert_close(trained.tabulate("ntk")[0].values, sigma, rtol=1e-15, atol=0)
        # One branch with weights and one without.
        for mixed in (lattice.mix((2.0, 3.0), (trained,)), trained.mix((3.0, 2.0), (lattice,))):
            torch.testing.assert_close(mixed.tabulate("ntk")[0].values, 3 * sigma, rtol=1e-14, atol=0)
            torch.testing.assert_close(mixed.tabulate("nngp")[0].values, 5 * sigma, rtol=1e-14, atol=0)


@pytest.mark.parametrize("copier", [copied_anew, copy.deepcopy, copy.copy])
def test_copies_compute_the_same(expression: Any, copier: Any) -> None:
    other = copier(expression)
    assert type(other) is type(expression)
    assert other.geometry == expression.geometry
    assert torch.equal(other.tabulate("ntk")[0].values, expression.tabulate("ntk")[0].values)


@pytest.mark.parametrize("size", [(1,), (1, 1), (1, 3), (3, 1), (1, 1, 2)])
def test_all_channels_of_an_image_of_few_pixels_count(size: Any, generator: torch.Generator) -> None:
    start = features(generator, *size, channels=3)
    flat = start.features.flatten(1)
    values = start.tabulate("nngp")[0].values
    shown = values[(0, *(0,) * len(size))]
    torch.testing.assert_close(shown.flatten(), flat.square().mean(0), rtol=1e-14, atol=0)


def test_copies_share_what_the_original_shares(expression: Any) -> None:
    def count(lattice: Lattice) -> int:
        return len(parents_first(lattice, lambda node: node.parents))

    assert count(copied_anew(expression)) == count(copy.deepcopy(expression)) == count(expression)


def chain(generator: torch.Generator, depth: int) -> Lattice:
    lattice: Lattice = features(generator, 2, 2, channels=1)
    for _ in range(depth):
        lattice = layer(lattice)
    return lattice


def resampled_chain(generator: torch.Generator, depth: int) -> Lattice:
    lattice: Lattice = features(generator, 2, 2, channels=1)
    for _ in range(depth):
        lattice = lattice.average_patches(Patches.centred((1, 1))).resample((Filter((0.25, 0.5, 0.25)), Nearest(1)))
    return lattice


def tower(generator: torch.Generator, depth: int) -> Lattice:
    lattice: Lattice = features(generator, 2, 2, channels=1).average_patches(Patches.centred((1, 1)))
    for _ in range(depth):
        lattice = lattice.mix((0.5, 0.5), (lattice.activate(RELU).average_patches(Patches.centred((1, 1))),))
    return lattice


@pytest.mark.parametrize(("build", "depth"), [(chain, DEEP), (tower, 1_500), (resampled_chain, 1_500)])
def test_thousands_of_layers(build: Any, depth: Any, generator: torch.Generator) -> None:
    lattice = build(generator, depth)
    assert lattice.bytes_needed() > 0
    assert lattice.tabulate("ntk")[0].values.isfinite().all()
    assert lattice.tabulate_window("ntk", torch.float32, (1, 1)).values.isfinite().all()
    for other in (copied_anew(lattice), copy.deepcopy(lattice)):
        assert len(parents_first(other, lambda node: node.parents)) > depth
    # Neither does letting go of it recurse.
    del lattice, other
    gc.collect()


def test_thousands_of_linear_layers_have_the_kernel_on_paper(generator: torch.Generator) -> None:
    depth, start = DEEP, features(generator, 2, 3)
    lattice: Lattice = start
    for _ in range(depth):
        lattice = lattice.average_patches(Patches.centred((1, 1)))
    # Each layer adds Sigma to Theta.
    sigma = start.tabulate("nngp")[0].values
    torch.testing.assert_close(lattice.tabulate("ntk")[0].values, depth * sigma, rtol=1e-11, atol=0)


def test_a_thousand_layers_make_a_kernel() -> None:
    depth = sys.getrecursionlimit()
    layers = [each for _ in range(depth) for each in (tc.Conv2d(1, 1, 3), tc.ReLU())]
    kernel = tc.Sequential(*layers, tc.Conv2d(1, 1, 3)).kernel(tc.priors.Tensor(torch.rand(1, 3, 3).double()))
    assert kernel.dense().isfinite().all()


def test_extents_have_no_largest_depth() -> None:
    extent: Any = Extent.start(2)
    for _ in range(DEEP):
        extent = (
            extent.average_patches(Patches.centred((3, 3))).activate(RELU).resample((Nearest(2),) * 2).subsample((2, 2))
        )
    assert (extent.period, extent.scale, extent.granule) == ((1, 1), (1, 1), (1, 1))


def test_tables_that_nobody_reads_any_more_are_dropped(generator: torch.Generator) -> None:
    lattice: Lattice = features(generator, 16, 16).average_patches(Patches.centred((3, 3)))
    one = lattice.geometry.entries * 2 * 8
    for _ in range(12):
        lattice = lattice.resample((Filter((0.25, 0.5, 0.25)), Nearest(1))).average_patches(Patches.centred((3, 3)))
    # Two tables at a time, and slabs with their temporaries.
    assert lattice.bytes_needed() < 12 * one


def test_compiling_takes_little_memory(generator: torch.Generator) -> None:
    lattice = chain(generator, 1_000)
    tracemalloc.start()
    lattice.bytes_needed()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A kilobyte a node.
    assert peak < 2_000 * 1_500
