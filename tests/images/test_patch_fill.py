"""Thick holes are filled from patches; thin ones and all that is known stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from tqdm import tqdm

import torch_cntk as tc
from torch_cntk.images import GroupFlow, Observed, PatchFill
from torch_cntk.images.patch_fill import _from_patches, _scales, _together, thick_holes
from torch_cntk.images.patches import _DRAWN, Level, _fitted_shares


def tiles(*size: int) -> Tensor:
    """A pattern that repeats every 11 x 13 pixels, which is no smooth function, [2, *size]."""
    tile = torch.rand(2, 11, 13)
    return tile.repeat(1, size[0] // 11 + 1, size[1] // 13 + 1)[:, : size[0], : size[1]]


def square_hole(*size: int, side: int = 18) -> Tensor:
    observed = torch.ones(size, dtype=torch.bool)
    observed[30 : 30 + side, 33 : 33 + side] = False
    return observed


def test_what_repeats_is_continued() -> None:
    image, observed = tiles(90, 95), square_hole(90, 95)
    first = tc.inpaint(image, observed)
    result = tc.inpaint(image, observed, passes=[PatchFill(blend=1)])
    before, after = (float((r.image - image)[:, ~observed].square().mean()) for r in (first, result))
    assert after < 0.2 * before
    assert torch.equal(result.image[:, observed], image[:, observed])
    half = tc.inpaint(image, observed, passes=[PatchFill(blend=0.5)])
    torch.testing.assert_close(half.image, (first.image + result.image) / 2)


def test_equal_seeds_give_equal_bits_and_global_state_is_left_alone() -> None:
    image, observed = torch.rand(1, 70, 71), square_hole(70, 71)
    before = torch.random.get_rng_state()
    one, two = (tc.inpaint(image, observed, passes=[PatchFill()]).image for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.random.get_rng_state())


def test_holes_are_told_by_their_thickness() -> None:
    observed = torch.ones(120, 130, dtype=torch.bool)
    observed[10:14, 5:100] = False  # a scratch
    observed[40:60, 20:45] = False  # a hole
    observed[118:, 128:] = False  # a corner
    (hole,) = thick_holes(observed)
    assert int(hole.mask.sum()) == 20 * 25
    assert bool((~hole.mask_in(observed) | ~observed).all())
    scattered = torch.rand(120, 130) < 0.1
    assert thick_holes(scattered) == []
    image = torch.rand(1, 120, 130)
    first = tc.inpaint(image, observed)
    filled = tc.inpaint(image, observed, passes=[PatchFill()])
    changed = ((filled.image - first.image).abs() > 1e-5)[0]  # more than rounding
    assert bool(changed[40:60, 20:45].any())
    changed[40:60, 20:45] = False
    assert not bool(changed.any())


def test_the_nearest_patches_are_those_of_loops() -> None:
    picture, known = torch.rand(2, 16, 17), torch.ones(16, 17, dtype=torch.bool)
    known[6:10, 7:11] = False
    level = Level(picture, known, 4, 3, 1)
    width = 17 - 3
    depth = {(r, c): 0.0 for r in range(16) for c in range(17)}
    outside = [(r, c) for (r, c) in depth if known[r, c]]
    for r, c in depth:
        if not known[r, c]:
            depth[r, c] = min(((r - a) ** 2 + (c - b) ** 2) ** 0.5 for a, b in outside)
    weights = torch.rand(len(level.targets), 2 * 16)
    distances = level._compare_all(weights)

    def patch(corner: int) -> Tensor:
        r, c = divmod(corner, width)
        return picture[:, r : r + 4, c : c + 4].movedim(0, 2).flatten()

    for row in torch.randperm(len(level.targets))[:10].tolist():
        every = [
            (float((weights[row] * (patch(s) - patch(int(level.targets[row]))).square()).sum()), s)
            for s in level.sources.tolist()
        ]
        nearest = sorted(every)[:3]
        assert [s for _, s in nearest] == level.matches[row].tolist()
        torch.testing.assert_close(distances[row], torch.tensor([d for d, _ in nearest]), rtol=1e-3, atol=1e-4)
    for r in range(16):
        for c in range(17):
            assert float(level._depth[r, c]) == pytest.approx(depth[r, c])


def test_some_candidates_find_what_all_pairs_find() -> None:
    image = tiles(60, 60)
    known = torch.ones(60, 60, dtype=torch.bool)
    known[20:32, 22:34] = False
    level = Level(image, known, 5, 4, 1)
    weights = torch.full((len(level.targets), 2 * 25), 1 / 50)
    best = level._compare_all(weights)[:, 0]
    generator = torch.Generator().manual_seed(0)
    level.matches = level.sources[torch.randint(len(level.sources), (len(level.targets), 4), generator=generator)]
    for _ in range(25):
        found = level._compare_some(weights, generator)[:, 0]
    # All copies of a tile are equally good: nearly all targets have found one.
    assert float((found <= best + 1e-4).double().mean()) > 0.9


def test_fitted_shares_are_the_best_of_those_that_add_up_to_one() -> None:
    found, wanted = torch.rand(6, 4, 30, dtype=torch.float64), torch.rand(6, 30, dtype=torch.float64)
    weights, usual = torch.rand(6, 30, dtype=torch.float64), torch.rand(6, 4, dtype=torch.float64)
    usual = usual / usual.sum(1, keepdim=True)
    shares = _fitted_shares(found, wanted, weights, usual)
    for n in range(6):
        # The last share is what the others leave; the others solve an ordinary least-squares problem.
        drawn = _DRAWN * (weights[n] * (found[n] - wanted[n]).square()).sum(1).mean() + 1e-9
        rows = torch.cat([found[n] * weights[n].sqrt(), drawn.sqrt() * torch.eye(4, dtype=torch.float64)], 1)
        right = torch.cat([wanted[n] * weights[n].sqrt(), drawn.sqrt() * usual[n]])
        first = torch.linalg.lstsq((rows[:3] - rows[3]).T, (right - rows[3])[:, None]).solution[:, 0]
        torch.testing.assert_close(shares[n, :3], first)
        assert float(shares[n].sum()) == pytest.approx(1)


def test_equal_matches_keep_their_shares() -> None:
    wanted, usual = torch.rand(5, 12), torch.rand(5, 3)
    usual = usual / usual.sum(1, keepdim=True)
    same = wanted[:, None].expand(5, 3, 12)
    torch.testing.assert_close(_fitted_shares(same, wanted, torch.rand(5, 12), usual), usual)
    other = torch.rand(5, 1, 12).expand(5, 3, 12)
    torch.testing.assert_close(_fitted_shares(other, wanted, torch.rand(5, 12), usual), usual, rtol=0, atol=1e-3)


def test_what_lies_between_two_matches_is_predicted_by_its_place_between_them() -> None:
    """Patches of one pixel and six channels, each .3 of one known pixel and .7 of another, which are as far from it."""
    picture, known = torch.rand(6, 14, 15), torch.ones(14, 15, dtype=torch.bool)
    known[4:9, 5:9] = False
    level = Level(picture, known, 1, 2, 1)
    matches = torch.stack(
        [level.sources[torch.randperm(len(level.sources))[: len(level.targets)]] for _ in range(2)], 1
    )
    one, other = picture.flatten(1)[:, matches].unbind(2)
    between = picture.clone()
    between.flatten(1)[:, level.targets] = 0.3 * one + 0.7 * other
    distances = torch.ones(matches.shape)
    errors = []
    for weights in (None, torch.full((len(level.targets), 6), 1 / 6)):
        level.filled = between
        level._average(distances, matches, 4.0, weights)
        errors.append(float((level.filled - between).square().sum()))
    half = float((0.2 * (one - other)).square().sum())
    assert errors[0] == pytest.approx(half, rel=1e-4)
    assert errors[1] < 0.05 * half


@pytest.mark.parametrize("size", [(40, 40), (12, 60)])
def test_where_nothing_is_known_the_estimate_stays(size: tuple[int, int]) -> None:
    image, observed = torch.rand(1, *size), torch.zeros(size, dtype=torch.bool)
    observed[0] = observed[:, 0] = observed[-1] = observed[:, -1] = True
    first = tc.inpaint(image, observed)
    result = tc.inpaint(image, observed, passes=[PatchFill()])
    torch.testing.assert_close(result.image, first.image, rtol=0, atol=1e-5)
    assert result.residual == first.residual  # the quality of the last regression


def test_signals_and_videos_are_refused() -> None:
    for size, word in (((300,), "a signal"), ((6, 20, 20), "a video")):
        values, observed = torch.rand(1, *size), torch.ones(size, dtype=torch.bool)
        observed[3:5] = False
        with pytest.raises(ValueError, match=f"expected an image for PatchFill, .* got {word}"):
            tc.inpaint(values, observed, passes=[PatchFill()])


def test_scale_and_batches_do_not_matter() -> None:
    image, observed = tiles(70, 75), square_hole(70, 75)
    given = Observed.of(image, observed)
    estimate = tc.inpaint(image, observed).image
    found = tc.images.fill(given, PatchFill(), estimate).image
    scaled = tc.images.fill(Observed.of(image * 64, observed), PatchFill(), estimate * 64).image
    torch.testing.assert_close(scaled / 64, found, rtol=0, atol=1e-5)
    both = Observed.of(torch.stack([image, image]), observed)
    two = tc.images.fill(both, PatchFill(), torch.stack([estimate, estimate])).image
    torch.testing.assert_close(two[1], found)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"blend": 1.1}, ValueError),
        ({"blend": "x"}, TypeError),
        ({"side": 0}, ValueError),
        ({"neighbours": 0}, ValueError),
        ({"seed": 1.5}, TypeError),
        ({"seed": 2**70}, ValueError),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        PatchFill(**options)


def test_a_smooth_picture_with_soft_strokes_stays_finite() -> None:
    """One of its channels does not vary: it has no scale to divide by."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(160.0), indexing="ij")
    picture = torch.stack([40 + 0.2 * columns, 60 + 0.3 * rows, 50 + 0 * rows]) / 255
    observed = ~((((columns - 20) % 40 - 12).abs() < 7) & ((rows - 30).abs() < 19))
    found = tc.inpaint(picture, observed, passes=[tc.images.PatchFill()]).image
    assert float((found - picture).abs().max()) < 0.05


def test_a_bar_counts_the_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    image, observed = torch.rand(1, 90, 95), square_hole(90, 95)
    tc.inpaint(image, observed, passes=[PatchFill(), GroupFlow(2)], progress=True)
    said = capsys.readouterr().err
    # Sixteen rounds in the smallest picture and six in each of the two larger ones.
    assert "patches" in said
    assert "/28 " in said
    assert "group flow" in said
    tc.inpaint(image, observed, passes=[PatchFill()])
    assert capsys.readouterr().err == ""


def two_holes(width: int, *starts: int) -> Tensor:
    observed = torch.ones(80, width, dtype=torch.bool)
    for start in starts:
        observed[30:48, start : start + 18] = False
    return observed


def one_by_one(image: Tensor, observed: Tensor, estimate: Tensor) -> Tensor:
    """Each hole by itself, in a box of its own, as if there were no others to be kept."""
    result = estimate.clone()
    values = image[:, observed]
    unit = float(values.max() - values.min())
    for hole in thick_holes(observed):
        here, known = (slice(None), *hole.around), observed[hole.around]
        made = _from_patches(estimate[here] / unit, known, _scales(known), PatchFill(), tqdm(total=0, disable=True))
        assert made is not None
        result[here] = torch.where(hole.mask, made * unit, result[here])
    return result


def test_holes_in_the_same_box_are_filled_at_once_with_the_same_result(capsys: pytest.CaptureFixture[str]) -> None:
    image, observed = torch.rand(2, 80, 90), two_holes(90, 20, 55)
    assert len(thick_holes(observed)) == 2
    estimate = torch.where(observed, image, 0.5)
    given = Observed.of(image, observed)
    # In the image's own units: those of ``fill`` would round otherwise.
    found = PatchFill(blend=1).refine(given, estimate[None])[0]
    torch.testing.assert_close(found, one_by_one(image, observed, estimate), rtol=0, atol=1e-5)
    tc.images.fill(given, PatchFill(), estimate, progress=True)
    assert "/28 " in capsys.readouterr().err  # the rounds of one hole


def test_holes_that_see_each_other_are_filled_at_once_as_well_as_one_by_one() -> None:
    image, observed = tiles(80, 220), two_holes(220, 70, 110)
    (both,) = _together(thick_holes(observed), ~observed)
    assert torch.equal(both.mask_in(observed), ~observed)
    estimate = torch.where(observed, image, 0.5)
    found = PatchFill(blend=1).refine(Observed.of(image, observed), estimate[None])[0]

    def error(filled: Tensor) -> float:
        return float((filled - image)[:, ~observed].square().mean())

    # Tiles have a variance of 1/12, of which either leaves some percent; places at random differ between them.
    assert error(found) < error(one_by_one(image, observed, estimate)) + 0.02
    assert torch.equal(found[:, observed], image[:, observed])


def test_holes_far_from_each_other_keep_their_boxes() -> None:
    observed = two_holes(300, 30, 250)
    holes = thick_holes(observed)
    assert _together(holes, ~observed) == holes
    # As do those that meet in a corner of their boxes alone: together they would be compared with twice as much.
    observed = two_holes(260, 40, 150)
    assert len(_together(thick_holes(observed), ~observed)) == 2
