"""Which pixels fill one: against what happens to the fill when one of them changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images import Coarse, Equations, Filler, Guided, Observed, Periodic, fill, influence

SIZE = (11, 13)
# A fill in float64 by a direct solver is linear to rounding; conditions are 1e4 (the ridge) at most.
CLOSE = 1e-9


@dataclass(frozen=True)
class AroundEstimate:
    """The regression of what differs from the estimate, with a kernel that does not move."""

    kernel: tc.Kernel

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        assert estimate is not None
        operator = self.kernel.operator(given.size, dtype=estimate.dtype)
        return Equations(operator, 0.1, estimate, tc.Direct())


def problem(generator: torch.Generator, size: tuple[int, ...] = SIZE) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """An image of two channels and unlike scales, its mask, and a missing pixel."""
    image = torch.rand(2, *size, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 300.0]).reshape(
        -1, *(1,) * len(size)
    )
    observed = torch.rand(size, generator=generator) < 0.6
    observed.flatten()[: len(size)] = True
    observed.flatten()[-1] = False
    missing = (~observed).nonzero()
    place = missing[int(torch.randint(len(missing), (), generator=generator))]
    return image, observed, tuple(int(index) for index in place)


def at(image: Tensor, place: Sequence[int]) -> Tensor:
    """All channels of one pixel; may be written to."""
    index: Any = (slice(None), *map(int, place))
    return image[index]


def differences(
    image: Tensor, observed: Tensor, filler: Filler, place: tuple[int, ...], estimate: Tensor | None = None
) -> Tensor:
    """By how much the fill at a place changes if each observed pixel is raised by 1, [channels, *size]."""
    before = at(fill(Observed.of(image, observed), filler, estimate).image, place)
    changes = torch.zeros_like(image)
    for pixel in observed.nonzero().tolist():
        raised = image.clone()
        at(raised, pixel).add_(1)
        after = at(fill(Observed.of(raised, observed), filler, estimate).image, place)
        at(changes, pixel).copy_(after - before)
    return changes


@pytest.mark.parametrize("ridge", [1e-4, 0.3])
def test_weights_are_the_derivative_of_the_fill(ridge: float, generator: torch.Generator) -> None:
    image, observed, place = problem(generator)
    kernel = tc.default_network(2).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)
    filler = Periodic(kernel, ridge, tc.Direct())
    weights = influence(Observed.of(image, observed), filler, place)
    expected = differences(image, observed, filler, place)
    assert weights.shape == SIZE and weights.dtype == torch.float64
    for channel, scale in zip(expected, (1, 300), strict=True):
        # Differences lose what the channel's own scale has before the point.
        assert torch.allclose(weights, channel, atol=CLOSE * scale, rtol=0)
    assert abs(float(weights.sum()) - 1) < CLOSE
    assert not bool(weights[~observed].any())


def test_weights_of_equations_with_a_mean_of_their_own(generator: torch.Generator) -> None:
    image, observed, place = problem(generator)
    kernel = tc.default_network(1).kernel(tc.priors.Uniform(0, 0.1), (12, 14), dtype=torch.float64)
    image, observed = (torch.nn.functional.pad(part, (0, 1, 0, 1)) for part in (image, observed))
    estimate = torch.rand(image.shape, generator=generator, dtype=torch.float64)
    filler = AroundEstimate(kernel)
    weights = influence(Observed.of(image, observed), filler, place, estimate)
    expected = differences(image, observed, filler, place, estimate)
    assert torch.allclose(weights, expected[0], atol=300 * CLOSE, rtol=0)
    assert torch.allclose(weights, expected[1], atol=300 * CLOSE, rtol=0)


def test_weights_of_a_guided_pass_give_its_result(generator: torch.Generator) -> None:
    image, observed, place = problem(generator)
    given, guided = Observed.of(image, observed), Guided(radius=4, solver=tc.Direct())
    estimate = torch.where(observed, image, image.flatten(1).mean(1)[:, None, None])
    mean = guided.equations(given.normalised, given.normalise(estimate[None])).mean
    assert mean is not None
    mean = given.denormalise(mean[..., : SIZE[0], : SIZE[1]])[0]
    weights = influence(given, guided, place, estimate)
    filled = at(fill(given, guided, estimate).image, place)
    by_hand = at(mean, place) + (weights * (image - mean)).flatten(1).sum(1)
    assert torch.allclose(by_hand, filled, rtol=1e-9)


@pytest.mark.parametrize(("size", "wrap"), [((24,), False), ((8, 12), True), ((4, 5, 6), False)])
def test_signals_videos_and_tori(size: tuple[int, ...], wrap: bool, generator: torch.Generator) -> None:
    image, observed, place = problem(generator, size)
    network = tc.default_network(2, ndim=len(size))
    kernel = network.kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)
    given = Observed.of(image, observed, len(size), wrap=wrap)
    filler = Periodic(kernel, 1e-3, tc.Direct())
    weights = influence(given, filler, place)
    filled = fill(given, filler).image
    # What the weights say is what the fill does.
    assert torch.allclose((weights * image).flatten(1).sum(1), at(filled, place), rtol=1e-9)


def test_iterative_solvers_agree_with_their_tolerance(generator: torch.Generator) -> None:
    image, observed, place = problem(generator)
    given = Observed.of(image.float(), observed)
    weights = influence(given, Periodic(), place)
    strict = influence(Observed.of(image, observed), Periodic(solver=tc.ConjugateGradient(1e-10)), place)
    # float32, and a residual of 1e-4 at most under the default ridge's condition.
    assert torch.allclose(weights, strict, atol=1e-2)
    assert abs(float(weights.sum()) - 1) < 1e-6


def test_an_observed_pixel_is_filled_by_itself(generator: torch.Generator) -> None:
    image, observed, _ = problem(generator)
    weights = influence(Observed.of(image, observed), Periodic(), (0, 0))
    assert float(weights[0, 0]) == 1 and float(weights.abs().sum()) == 1


def test_refusals(generator: torch.Generator) -> None:
    image, observed, place = problem(generator)
    given = Observed.of(image, observed)
    with pytest.raises(ValueError, match=r"inside \(11, 13\)"):
        influence(given, Periodic(), (11, 0))
    with pytest.raises(ValueError, match="inside"):
        influence(given, Periodic(), (-1, 0))
    with pytest.raises(TypeError, match="whole numbers"):
        influence(given, Periodic(), (0.5, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cv"):
        influence(given, Periodic(ridge="cv"), place)
    with pytest.raises(ValueError, match="own pixels"):
        influence(given, Coarse(Periodic(), 2), place, image)
    with pytest.raises(TypeError, match="filler"):
        influence(given, "fast", place)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one image"):
        influence(Observed.of(image[None].expand(2, -1, -1, -1), observed), Periodic(), place)
    with pytest.raises(ValueError, match="estimate"):
        influence(given, Guided(), place)
