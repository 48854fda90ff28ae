"""Options chosen by gradient: the objectives against their definitions, and searches that find what is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import torch_cntk as tc
from torch_cntk.tuning import data, parameters
from torch_cntk.tuning.objectives import Objective, score

NETWORK = tc.Sequential(tc.Conv2d(2, 4, 3), tc.LeakyReLU(0.3), tc.Conv2d(4, 1, 3, bias=True, bias_std=0.5))
ROWS = tc.Sequential(tc.Linear(3, 8, bias=True), tc.LeakyReLU(0.3), tc.Linear(8, 1))


def slope_of(network: tc.Layer) -> float:
    (layer,) = (layer for layer in network.modules() if isinstance(layer, tc.LeakyReLU))
    return layer.negative_slope


def problem(generator: torch.Generator, n: int = 7) -> tuple[Tensor, Tensor]:
    root, targets = (torch.randn(k, n, generator=generator, dtype=torch.float64) for k in (n, 2))
    return root.T @ root, targets - targets.mean(1, keepdim=True)


def test_left_out_is_the_probability_of_each_point_given_the_others(generator: torch.Generator) -> None:
    kernel, targets = problem(generator)
    equations = kernel + 0.3 * kernel.diagonal().mean() * torch.eye(7, dtype=torch.float64)
    errors, variances = torch.empty(2, 7, dtype=torch.float64), torch.empty(7, dtype=torch.float64)
    for i in range(7):
        others = torch.arange(7) != i
        weights = torch.linalg.solve(equations[others][:, others], equations[others, i])
        errors[:, i] = targets[:, i] - targets[:, others] @ weights
        variances[i] = equations[i, i] - equations[i, others] @ weights
    scale = (errors.square() / variances).mean(1, keepdim=True)
    # Logarithms of normal densities, less their constants.
    spread = scale * variances
    expected = -(spread.log() + errors.square() / spread).mean() / 2 + 0.5
    torch.testing.assert_close(score(kernel, targets, 0.3, "left-out"), expected)
    expected = -errors.square().mean(1).log().mean() / 2
    torch.testing.assert_close(score(kernel, targets, 0.3, "error"), expected)


def test_likelihood_is_that_of_the_best_scale(generator: torch.Generator) -> None:
    kernel, targets = problem(generator)
    equations = kernel + 0.3 * kernel.diagonal().mean() * torch.eye(7, dtype=torch.float64)
    scales = torch.logspace(-4, 4, 8001, dtype=torch.float64)
    # A quadratic form at each scale, instead of a factorisation.
    forms = (targets.T * torch.linalg.solve(equations, targets.T)).sum(0)
    base = -equations.logdet() / 2
    best = [float((base - 3.5 * scales.log() - form / scales / 2).max()) / 7 for form in forms]
    expected = sum(best) / 2 + 0.5
    # The scales are a grid with steps of a quarter of a per cent, whose square is the error.
    assert float(score(kernel, targets, 0.3, "likelihood")) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("objective", ["left-out", "likelihood", "error"])
def test_objectives_have_gradients_and_no_scale(objective: Objective, generator: torch.Generator) -> None:
    kernel, targets = problem(generator)
    torch.testing.assert_close(score(kernel, targets, 0.3, objective), score(5 * kernel, targets, 0.3, objective))
    torch.testing.assert_close(
        score(kernel, targets, 0.3, objective) - math.log(5), score(kernel, 5 * targets, 0.3, objective)
    )
    ridge = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    symmetric = kernel.clone().requires_grad_()
    assert gradcheck(lambda k, r: score((k + k.T) / 2, targets, r, objective), (symmetric, ridge))


def test_blocks_hold_observed_pixels_once(generator: torch.Generator) -> None:
    mask = torch.rand(30, 40, generator=generator) < 0.5
    blocks = list(data._blocks(mask, 200, generator))
    assert len(blocks) == 4
    for rows, columns in blocks:
        assert bool(mask[rows, columns].all())
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows) <= 100
    (every,) = data._blocks(mask, 2000, generator)
    assert len(every[0]) == int(mask.sum())


def test_an_image_chooses_the_length_that_it_was_drawn_with() -> None:
    generator = torch.Generator().manual_seed(0)
    net = tc.Conv2d(1, 1, 1)
    kernel = net.kernel(tc.priors.Coordinates(2.0), (16, 16)).dense().reshape(256, 256)
    root = torch.linalg.cholesky(kernel + 0.01 * torch.eye(256, dtype=torch.float64))
    image = (root @ torch.randn(256, 6, generator=generator, dtype=torch.float64)).T.reshape(6, 16, 16)
    observed = torch.rand(16, 16, generator=generator) < 0.6
    tuned = tc.tune(net, tc.priors.Coordinates(0.7), image, observed, options=["length"], points=150)
    assert tuned.converged
    assert tuned.options["Coordinates.length"] == pytest.approx(2.0, rel=0.15)
    assert tuned.ridge == pytest.approx(0.01, rel=0.5)
    assert all(after >= before - 1e-12 for before, after in zip(tuned.trace, tuned.trace[1:], strict=False))
    assert tuned.objective == pytest.approx(tuned.trace[-1], abs=1e-9)
    assert repr(tuned.prior).startswith("Coordinates(")
    again = tc.tune(net, tc.priors.Coordinates(0.7), image, observed, options=["length"], points=150)
    assert (again.options, again.trace) == (tuned.options, tuned.trace)


@pytest.mark.parametrize("objective", ["left-out", "likelihood", "error"])
def test_a_table_is_predicted_no_worse(objective: Any, generator: torch.Generator) -> None:
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = torch.sin(2 * x[:, 0]) + 0.1 * torch.randn(40, generator=generator, dtype=torch.float64)
    tuned = tc.tune(ROWS, x=x, y=y, objective=objective, steps=8)
    assert tuned.objective >= tuned.trace[0]
    assert tuned.prior is None
    assert {"Linear.bias_std", "LeakyReLU.negative_slope"} <= tuned.options.keys()
    assert slope_of(ROWS) == 0.3
    assert slope_of(tuned.network) == tuned.options["LeakyReLU.negative_slope"]
    assert not tuned.network.gram(x).requires_grad
    targets = (y - y.mean())[None]
    found = score(tuned.network.gram(x), targets, tuned.ridge, objective)
    assert float(found) == pytest.approx(tuned.objective, abs=1e-8)


def test_bounds_and_what_has_no_effect_are_told(generator: torch.Generator) -> None:
    x = torch.rand(30, 3, generator=generator, dtype=torch.float64) + 1
    y = x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    net = tc.Sequential(tc.Linear(3, 8, bias=True), tc.Linear(8, 1), tc.Scale(2.0))
    tuned = tc.tune(net, x=x, y=y)
    # Linear targets of a linear network: there is no noise.
    assert "ridge" in tuned.at_bounds
    assert tuned.ridge == pytest.approx(1e-8)
    assert "at a bound: " in tuned.status
    assert "Scale.factor" in tuned.without_effect
    assert "Scale(2)" in repr(tuned.network)


def test_parameters_are_shared_by_equal_options_of_a_class() -> None:
    net = tc.Sequential(tc.Conv1d(1, 2, 3, bias=True), tc.LeakyReLU(0.1), tc.Conv1d(2, 2, 3), tc.LeakyReLU(0.2))
    prior = tc.priors.Uniform(0, 0.1) + tc.priors.White(0.5) + tc.priors.Constant(0.0)
    names = [p.name for p in parameters.parameters_of(net, prior, None)]
    assert names == [
        "Conv1d.weight_std",
        "Conv1d.bias_std",
        "LeakyReLU.negative_slope (0.1)",
        "LeakyReLU.negative_slope (0.2)",
        "Uniform.low",
        "White.variance",
    ]
    chosen = [p.name for p in parameters.parameters_of(net, prior, ["White.variance", "high"])]
    assert chosen == ["Uniform.high", "White.variance"]
    with pytest.raises(ValueError, match="expected options among bias_std, high, low"):
        parameters.parameters_of(net, prior, ["length"])


def test_an_interrupt_ends_with_the_best_so_far(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    calls = []

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr("torch_cntk.tuning.search.score", interrupted)
    tuned = tc.tune(ROWS, x=x, y=x[:, 0] * x[:, 1])
    assert tuned.status.startswith("interrupted after")
    assert not tuned.converged
    assert tuned.objective >= tuned.trace[0]


def test_what_cannot_be_tuned_is_refused() -> None:
    image, table = torch.rand(1, 6, 6), torch.rand(5, 3)
    prior = tc.priors.Uniform()
    calls: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, "expected an image with a prior, or x and y", {}),
        (ValueError, "expected an image with a prior, or x and y", {"image": image}),
        (ValueError, "expected an image with a prior, or x and y", {"prior": prior, "image": image, "x": table}),
        (ValueError, "expected an objective of", {"x": table, "y": table, "objective": "cv"}),
        (ValueError, "expected x .* and y", {"x": table, "y": table[:3]}),
        (TypeError, "expected y as a tensor", {"x": table, "y": [1.0] * 5}),
        (ValueError, "expected targets that vary, got target 0", {"x": table, "y": torch.ones(5)}),
        (ValueError, "expected observed pixels that differ", {"prior": prior, "image": torch.ones(1, 6, 6)}),
        (ValueError, "expected options among", {"x": table, "y": table, "options": ["depth"]}),
        (ValueError, "expected points to be at least 8", {"x": table, "y": table, "points": 2}),
    ]
    for error, text, options in calls:
        with pytest.raises(error, match=text):
            tc.tune(ROWS if "x" in options and "image" not in options else NETWORK, **options)
    with pytest.raises(TypeError, match="expected a network"):
        tc.tune("relu", x=table, y=table)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["left-out", "likelihood", "error"])
def test_scales_of_weights_that_only_make_biases_fade_are_held(objective: Any, generator: torch.Generator) -> None:
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    x[4] = 0  # an input whose kernel is that of the biases alone
    y = torch.sin(x[:, 0]) + 0.3 * torch.randn(30, generator=generator, dtype=torch.float64)
    tuned = tc.tune(ROWS, x=x, y=y, objective=objective, steps=5)
    assert tuned.held == ("Linear.weight_std",)
    assert "held, as they would only scale the kernel if the network had no biases: Linear.weight_std" in tuned.status
    assert "weight_std" not in repr(tuned.network)
    assert "Linear.weight_std" not in tuned.options
    asked = tc.tune(ROWS, x=x, y=y, objective=objective, steps=5, options=["weight_std", "bias_std"])
    assert not asked.held
    assert asked.options.keys() == {"Linear.weight_std", "Linear.bias_std"}
    # A scale before erf says how linear it is, and one within a branch how much the branch weighs.
    bent = tc.Sequential(tc.Linear(3, 8, bias=True), tc.Erf(), tc.Linear(8, 1))
    branch = tc.Sequential(tc.Linear(3, 8, bias=True), tc.Residual(tc.ReLU(), tc.Linear(8, 8)), tc.Linear(8, 1))
    for net in (bent, branch):
        assert "Linear.weight_std" in tc.tune(net, x=x, y=y, objective=objective, steps=2).options


def test_what_is_held_has_an_equal_in_scales_of_the_biases(generator: torch.Generator) -> None:
    """A factor c of all weights is one of c^-l of the l-th bias: the kernel is multiplied by c^2L."""
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)

    def net(scale: float) -> tc.Sequential:
        stds = [0.7 * scale ** (k + 1) for k in range(3)]
        return tc.Sequential(
            tc.Linear(3, 8, bias_std=stds[0], weight_std=scale),
            tc.ReLU(),
            tc.Linear(8, 8, bias_std=stds[1], weight_std=scale),
            tc.LeakyReLU(0.3),
            tc.Linear(8, 1, bias_std=stds[2], weight_std=scale),
        )

    # Rounding of a product of seven factors.
    torch.testing.assert_close(net(1.7).gram(x), 1.7**6 * net(1.0).gram(x), rtol=1e-12, atol=0)


def test_arrays_are_tuned_as_tensors_are(generator: torch.Generator) -> None:
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    counts = torch.randint(5, (20,), generator=generator)
    expected = tc.tune(ROWS, x=x, y=counts.double(), steps=3)
    for y in (counts, counts.numpy(), counts.double().numpy()):
        found = tc.tune(ROWS, x=x.numpy(), y=y, steps=3)
        assert (found.options, found.ridge) == (expected.options, expected.ridge)
    image = torch.rand(1, 6, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(6, 6, generator=generator) < 0.7
    of_tensors, of_arrays = (
        tc.tune(NETWORK, tc.priors.Uniform(), *given, steps=2)
        for given in ((image, mask), (image.numpy(), mask.numpy()))
    )
    assert of_tensors.options == of_arrays.options
    with pytest.raises(TypeError, match="expected x as a tensor or an array of floating point numbers, got int64"):
        tc.tune(ROWS, x=np.ones((5, 3), dtype=np.int64), y=np.ones(5))
    with pytest.raises(ValueError, match="expected inputs without missing numbers, got a masked array"):
        tc.tune(ROWS, x=np.ma.masked_less(np.arange(15.0).reshape(5, 3), 3), y=np.arange(5.0))
