"""Guided passes: what they improve, what they leave alone, and what they refuse."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import skimage.data
import torch

import torch_cntk as tc
from torch_cntk.images import Guided, Observed, each_pass, guided, leaving_out, masks
from torch_cntk.images.coarse import smaller_estimate
from torch_cntk.images.fill import fill
from torch_cntk.images.filler import Pass
from torch_cntk.images.trials import choose_passes

GENTLE = tc.Guidance(radius=6)


def stripes(size: Any, generator: torch.Generator, period: Any = 5.0) -> Any:
    """Waves and a step: what a window sees again and again."""
    grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    phase = float(torch.rand((), generator=generator)) * 6
    wave = sum((1 + 0.4 * axis) * grid for axis, grid in enumerate(grids)) / period
    texture = torch.sin(2 * math.pi * wave / 2 + phase)
    return (0.5 + 0.3 * texture + 0.2 * (grids[-1] > size[-1] / 2))[None]


def scattered(size: Any, missing: Any, generator: torch.Generator) -> Any:
    return torch.rand(size, generator=generator) >= missing


# Of images: blocky enough that passes have something to do on so few pixels.
FIRST = tc.hourglass(3, 1, 0, channels=1, in_channels=1, slope=0.3, up_filter=(3, 3), one_by_one=False).kernel(
    tc.priors.Uniform(0, 0.1), dtype=torch.float32
)


def passes_from(image: Any, observed: Any, start: Any, number: Any, guidance: Any, wrap: Any = False) -> Any:
    """Image after some passes from a first estimate."""
    *_, last = each_pass(Observed.of(image, observed, wrap=wrap), [guidance.at(k) for k in range(number)], start)
    return last.image


def error(image: Any, truth: Any) -> Any:
    return float((image - truth).square().mean())


@pytest.mark.parametrize(("size", "radius", "factor"), [((40, 48), 6, 0.5), ((600,), 60, 0.9), ((6, 20, 18), 5, 0.8)])
def test_passes_improve_a_textured_image(size: Any, radius: Any, factor: Any, generator: torch.Generator) -> None:
    truth, observed = stripes(size, generator), scattered(size, 0.5, generator)
    first = FIRST if len(size) == 2 else None
    periodic = tc.inpaint(truth, observed, first)
    settings = replace(GENTLE, radius=radius)
    result = tc.inpaint(truth, observed, first, passes=3, guidance=settings)
    assert result.passes == 3
    assert result.guidance == (settings,)
    assert result.converged
    assert error(result.image, truth) < factor * error(periodic.image, truth)
    assert torch.equal(result.image[:, observed], truth[:, observed])
    assert result.image.dtype == torch.float32


def test_automatic_passes_improve_a_textured_image(generator: torch.Generator) -> None:
    size = (48, 48)
    truth, observed = stripes(size, generator), scattered(size, 0.5, generator)
    periodic = tc.inpaint(truth, observed, FIRST)
    result = tc.inpaint(truth, observed, FIRST, passes="auto")
    assert result.passes > 0
    assert error(result.image, truth) < 0.5 * error(periodic.image, truth)


def test_passes_look_beyond_the_last_estimate(generator: torch.Generator) -> None:
    """The same by hand: fills of estimates that go on in the direction of the last change of a guided pass."""
    image = stripes((24, 22), generator)
    observed = scattered((24, 22), 0.5, generator)
    given, start = Observed.of(image, observed), tc.inpaint(image, observed, kernel=FIRST).image
    guidance, flow = replace(GENTLE, relaxation=0.4), tc.images.GroupFlow(iterations=1)
    fillers: list[Pass] = [guidance.at(0), guidance.at(1), guidance.at(2), flow, guidance.at(3), guidance.at(4)]
    found = [filled.image for filled in each_pass(given, fillers, start)]
    first = fill(given, fillers[0], start)
    second = fill(given, fillers[1], first.image, guess=first)
    third = fill(given, fillers[2], second.image + 0.4 * (second.image - first.image), guess=second)
    for one, other in zip(found, (first, second, third), strict=False):
        torch.testing.assert_close(one, other.image, rtol=0, atol=1e-6)
    # What a flow changed is no direction to go on in.
    flowed = fill(given, flow, third.image, guess=third)
    fourth = fill(given, fillers[4], flowed.image, guess=flowed)
    torch.testing.assert_close(found[4], fourth.image, rtol=0, atol=1e-6)
    assert not torch.equal(third.image, fill(given, fillers[2], second.image, guess=second).image)


def test_noise_is_left_to_the_first_estimate() -> None:
    # Nothing can be learned from it. A fixed seed: by chance a pass may seem to help.
    size, generator = (56, 56), torch.Generator().manual_seed(0)
    truth, observed = torch.rand(1, *size, generator=generator), scattered(size, 0.5, generator)
    first = lambda part: torch.full_like(part.pixels, 0.5)  # noqa: E731 - the best there is
    assert choose_passes(Observed.of(truth, observed), first, [GENTLE])[0] == 0


def test_what_is_missing_does_not_matter(generator: torch.Generator) -> None:
    size = (32, 40)
    truth, observed = stripes(size, generator), scattered(size, 0.5, generator)
    results = []
    for junk in (0.0, math.nan, 7.0):
        image = torch.where(observed, truth, junk)
        results.append(tc.inpaint(image, observed, FIRST, passes="auto", guidance=replace(GENTLE, radius=4)))
    assert results[0].passes > 0
    # To the bit: passes are reproducible, and their choice does not see the truth.
    for other in results[1:]:
        assert other.passes == results[0].passes
        assert torch.equal(other.image, results[0].image)


def test_scale_and_offset_of_the_image_do_not_matter(generator: torch.Generator) -> None:
    size = (30, 34)
    truth, observed = stripes(size, generator).double(), scattered(size, 0.5, generator)
    start = torch.where(observed, truth, 0.5)
    plain = passes_from(truth, observed, start, 2, GENTLE)
    scaled = passes_from(300 * truth - 40, observed, 300 * start - 40, 2, GENTLE)
    # Within what the solver's tolerance leaves open.
    torch.testing.assert_close((scaled + 40) / 300, plain, rtol=0, atol=1e-6)


def test_opposite_edges_do_not_meet(generator: torch.Generator) -> None:
    size = (26, 30)
    truth, observed = stripes(size, generator), scattered(size, 0.5, generator)
    start = torch.where(observed, truth, 0.5)
    other = truth.clone()
    other[:, :, -3:] += 1
    changed = torch.where(observed, other, 0.5)
    strict = tc.ConjugateGradient(1e-6, preconditioner="jacobi")
    for wrap in (False, True):
        results = [
            fill(Observed.of(image, observed, wrap=wrap), Guided(radius=6, solver=strict), estimate).image
            for image, estimate in ((truth, start), (other, changed))
        ]
        # The scale of the estimate changes with the edge, a little.
        difference = (results[1] - results[0])[:, :, 0].abs().max()
        assert (float(difference) > 0.1) is wrap


def test_images_of_a_batch_are_filled_apart(generator: torch.Generator) -> None:
    size = (24, 30)
    images = torch.stack([stripes(size, generator).expand(3, *size), stripes(size, generator, 9.0).expand(3, *size)])
    masks = torch.stack([scattered(size, 0.4, generator), scattered(size, 0.6, generator)])
    together = tc.inpaint(images, masks, passes=2, guidance=GENTLE)
    assert together.image.shape == images.shape
    for k in range(2):
        alone = passes_from(images[k], masks[k], tc.inpaint(images, masks).image[k], 2, GENTLE)
        torch.testing.assert_close(together.image[k], alone)
    assert together.guidance == (GENTLE, GENTLE)


def test_equal_channels_are_filled_alike(generator: torch.Generator) -> None:
    size = (24, 30)
    grey, observed = stripes(size, generator), scattered(size, 0.5, generator)
    colour = tc.inpaint(grey.expand(3, *size), observed, passes=1, guidance=GENTLE).image
    # The scale by the channels' number keeps their sum what it is for one: the same kernel.
    tripled = replace(GENTLE, detail=3 * GENTLE.detail, level=3 * GENTLE.level)
    expected = tc.inpaint(grey, observed, passes=1, guidance=tripled).image
    torch.testing.assert_close(colour, expected.expand(3, *size), rtol=0, atol=2e-3)


def test_float16_stencils_change_little(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (40, 44)
    truth, observed = stripes(size, generator), scattered(size, 0.5, generator)
    start = tc.inpaint(truth, observed).image
    expected = passes_from(truth, observed, start, 2, GENTLE)
    monkeypatch.setattr(guided, "_MOST_BYTES", 0)
    half = passes_from(truth, observed, start, 2, GENTLE)
    assert not torch.equal(half, expected)
    assert error(half, expected) < 0.01 * error(expected, truth)


def test_constant_images_stay_constant(generator: torch.Generator) -> None:
    observed = scattered((20, 24), 0.5, generator)
    result = tc.inpaint(torch.full((1, 20, 24), 0.3), observed, passes=2, guidance=GENTLE)
    torch.testing.assert_close(result.image, torch.full((1, 20, 24), 0.3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 9), (2, 3), (5,), (2, 2, 2)])
def test_tiny_images(size: Any, generator: torch.Generator) -> None:
    image = torch.rand(3, *size, generator=generator)
    observed = torch.ones(size, dtype=torch.bool)
    observed.view(-1)[::3] = False
    for passes in (1, "auto"):
        result = tc.inpaint(image, observed, passes=passes)
        assert torch.isfinite(result.image).all()
        assert torch.equal(result.image[:, observed], image[:, observed])


def test_holes_are_told_from_scattered_pixels(generator: torch.Generator) -> None:
    for missing in (0.1, 0.5, 0.75, 0.9):
        assert not masks.has_holes(scattered((128, 128), missing, generator))
    hole = torch.ones(128, 128, dtype=torch.bool)
    hole[40:60, 50:80] = False
    assert masks.has_holes(hole)
    assert not masks.has_holes(torch.ones(8, 8, dtype=torch.bool))


def test_holes_are_moved_to_observed_places() -> None:
    observed = torch.ones(64, 64, dtype=torch.bool)
    observed[4:20, 8:24] = False
    for part, left_out in leaving_out.parts_left_out(observed, holes=True):
        assert left_out.shape == observed[part].shape
        assert int(left_out.sum()) == 256
        assert not bool((left_out & ~observed).any())


@pytest.mark.parametrize("size", [(9,), (7, 10), (4, 5, 6)])
def test_the_fullest_box(size: Any, generator: torch.Generator) -> None:
    mask = torch.rand(size, generator=generator) < 0.4
    sides = tuple(min(3, n) for n in size)
    corners = itertools.product(*(range(n - side + 1) for n, side in zip(size, sides, strict=True)))
    boxes = [tuple(slice(start, start + side) for start, side in zip(x, sides, strict=True)) for x in corners]
    assert int(mask[leaving_out.fullest(mask, sides)].sum()) == max(int(mask[box].sum()) for box in boxes)


def test_left_out_pixels_are_observed_and_not_those_of_a_common_seed() -> None:
    for seed in range(3):
        observed = torch.rand(100, 100, generator=torch.Generator().manual_seed(seed)) >= 0.5
        for part, left_out in leaving_out._scattered_trials(observed):
            assert not bool((left_out & ~observed[part]).any())
            share = int(left_out.sum()) / int(observed[part].sum())
            assert 0.08 < share < 0.25


def test_parts_of_large_images_lie_inside_and_apart() -> None:
    parts = [leaving_out._part((300, 40), 80, k) for k in range(4)]
    assert len({part[0].start for part in parts}) == 4
    for rows, columns in parts:
        assert rows.start >= 0 and rows.stop <= 300 and rows.stop - rows.start == 80
        assert (columns.start, columns.stop) == (0, 40)


@pytest.mark.parametrize("size", [(13,), (12, 15), (4, 7, 6)])
def test_block_means(size: Any, generator: torch.Generator) -> None:
    images = torch.rand(2, *size, generator=generator)
    found: Any = smaller_estimate(images[None], 3)[0]
    for place in itertools.product(*(range(math.ceil(n / 3)) for n in size)):
        # What lies beyond the edge repeats the last pixel.
        axes = ([min(3 * b + k, n - 1) for k in range(3)] for b, n in zip(place, size, strict=True))
        block = [images[(slice(None), *x)] for x in itertools.product(*axes)]
        torch.testing.assert_close(found[(slice(None), *place)], torch.stack(block).mean(0))


@pytest.mark.parametrize("size", [(60,), (33, 38), (9, 13, 11)])
def test_coarse_passes_leave_what_is_observed(size: Any, generator: torch.Generator) -> None:
    truth, observed = stripes(size, generator), torch.ones(size, dtype=torch.bool)
    observed[tuple(slice(n // 3, n // 2) for n in size)] = False
    start = torch.where(observed, truth, 0.5)
    result = passes_from(truth, observed, start, 2, replace(GENTLE, radius=4, coarse=2))
    assert torch.equal(result[:, observed], truth[:, observed])
    assert not torch.equal(result[:, ~observed], start[:, ~observed])


def test_coarse_passes_mend_what_a_small_window_cannot_see(generator: torch.Generator) -> None:
    # A slope with a hole, whose first estimate is a plain grey: the middle is beyond the window's reach.
    size, hole = (96, 96), (slice(32, 64), slice(32, 64))
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, n) for n in size), indexing="ij")
    slope = float(torch.rand((), generator=generator))
    truth = (slope * rows + (1 - slope) * columns)[None]
    observed = torch.ones(size, dtype=torch.bool)
    observed[hole] = False
    start = torch.where(observed, truth, 0.8)
    fine = passes_from(truth, observed, start, 2, GENTLE)
    coarse = passes_from(truth, observed, start, 2, replace(GENTLE, coarse=6))
    assert error(coarse, truth) < 0.5 * error(fine, truth)


@pytest.mark.parametrize("side", [2, 30])
def test_automatic_passes_with_holes(side: Any, generator: torch.Generator) -> None:
    size = (64, 64)
    truth, observed = stripes(size, generator), torch.ones(size, dtype=torch.bool)
    observed[20 : 20 + side, 6 : 6 + side] = observed[50:58, 40:50] = False
    assert masks.has_holes(observed)
    periodic = tc.inpaint(truth, observed, FIRST)
    result = tc.inpaint(truth, observed, FIRST, passes="auto")
    assert result.passes == 0 or error(result.image, truth) < error(periodic.image, truth)


def test_settings_follow_the_share_of_observed_pixels() -> None:
    assert tc.Guidance.for_share(0.5) == tc.Guidance() == tc.Guidance.for_share(0.9)
    sparse = tc.Guidance.for_share(0.1)
    assert sparse.radius == 13
    assert sparse.ridge == pytest.approx(1e-2)
    assert 10 < tc.Guidance.for_share(0.25).radius < 13
    # The window has as many pixels, about, in any number of dimensions.
    assert [tc.Guidance.for_share(0.5, ndim).radius for ndim in (1, 2, 3)] == [60, 10, 5]


def test_bad_estimates_are_refused(generator: torch.Generator) -> None:
    image, observed = torch.rand(1, 12, 14, generator=generator), scattered((12, 14), 0.5, generator)
    with pytest.raises(ValueError, match=r"shape \(1, 12, 14\), got \(1, 14, 12\)"):
        fill(Observed.of(image, observed), GENTLE, image.mT)
    broken = image.clone()
    broken[0, 3, 3] = math.nan
    with pytest.raises(ValueError, match="finite estimate, got NaN"):
        fill(Observed.of(image, observed), GENTLE, broken)


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"passes": -1}, ValueError, "passes to be at least 1"),
        ({"passes": 1.5}, TypeError, "passes to be an integer"),
        ({"passes": "many"}, ValueError, 'a number, a filler such as .*, or one of "auto"'),
        ({"passes": 1, "guidance": 12}, TypeError, "expected guidance as a Guidance"),
    ],
)
def test_bad_options_are_refused(options: Any, error_type: Any, message: Any) -> None:
    image = torch.zeros(1, 8, 8)
    with pytest.raises(error_type, match=message):
        tc.inpaint(image, image[0] == 0, **options)


@pytest.mark.parametrize(
    ("settings", "error_type", "message"),
    [
        ({"radius": 0}, ValueError, "radius to be at least 1"),
        ({"radius": 2.5}, TypeError, "radius to be an integer"),
        ({"coarse": 0}, ValueError, "coarse to be at least 1"),
        ({"detail": -1}, ValueError, "detail to be at least 0"),
        ({"white": 0}, ValueError, "white > 0"),
        ({"length": math.inf}, ValueError, "length to be finite"),
        ({"relaxation": 1}, ValueError, "relaxation to be below 1"),
        ({"relaxation": -0.1}, ValueError, "relaxation to be at least 0"),
    ],
)
def test_bad_settings_are_refused(settings: Any, error_type: Any, message: Any) -> None:
    with pytest.raises(error_type, match=message):
        tc.Guidance(**settings)


def test_features_do_not_see_the_opposite_edge() -> None:
    """A hole in a corner is filled from what is near it: features and their local mean see nine pixels."""
    photograph = skimage.data.coffee()[:80, :100].transpose(2, 0, 1) / 255
    image = torch.from_numpy(photograph).float()
    observed = torch.ones(80, 100, dtype=torch.bool)
    observed[:4, :4] = False
    other = image.clone()
    other[:, :40, -20:] = image[:, :40, -20:].flip(0) * 0.9 + 0.02
    guided = tc.Guidance(solver=tc.ConjugateGradient(1e-6)).at(0)
    one, two = (fill(Observed.of(seen, observed), guided, seen[None], windows=False).image for seen in (image, other))
    assert float((one - two)[..., :4, :4].abs().max()) < 0.5 / 255
