"""The share of a patch fill is the one that fills copies of thick holes best, found by filling them with each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images import PatchFill, blending
from torch_cntk.images.fill import fill
from torch_cntk.images.how import How
from torch_cntk.images.leaving_out import near_copies, parts_with_near_copies
from torch_cntk.images.masks import thick
from torch_cntk.images.observed import Observed
from torch_cntk.images.periodic import Periodic

KERNEL = tc.default_network(3).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)
SIZE = (64, 72)

Picture: TypeAlias = Callable[[torch.Generator], Tensor]


def hole() -> Tensor:
    observed = torch.ones(SIZE, dtype=torch.bool)
    observed[10:22, 40:53] = False
    observed[30:42, 12:26] = False
    return observed


def tiles(generator: torch.Generator) -> Tensor:
    """What repeats every 7 x 9 pixels, and is not smooth: patches fill it, no kernel does."""
    return torch.rand(2, 7, 9, generator=generator).repeat(1, 10, 8)[:, : SIZE[0], : SIZE[1]]


def blobs(generator: torch.Generator) -> Tensor:
    """A smooth picture of which no part is like another one: a kernel fills it better than patches do."""
    noise = torch.rand(1, 1, *SIZE, generator=generator)
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(noise, (4, 4, 4, 4), mode="circular"), 9, 1)[0]


def errors_by_hand(image: Tensor, observed: Tensor) -> dict[float, float]:
    """Squared errors in the two copies of the holes, each filled with each share."""
    errors = dict.fromkeys((0.3, 0.6, 1.0), 0.0)
    for copy in near_copies(observed, ~observed):
        known = observed & ~copy
        judged = copy & thick(known)
        for share in errors:
            filled = tc.inpaint(torch.where(known, image, 0), known, KERNEL, passes=PatchFill(blend=share)).image
            errors[share] += float((filled - image)[:, judged].double().square().sum())
    return errors


def test_copies_are_whole_holes_beside_them_where_all_is_known() -> None:
    observed = torch.ones(60, 80, dtype=torch.bool)
    observed[22:32, 30:45] = observed[30:38, 30:36] = False
    pixels = (~observed).nonzero()
    places = []
    for copy in near_copies(observed, ~observed):
        assert not bool((copy & ~observed).any())
        move = copy.nonzero()[0] - pixels[0]
        assert torch.equal(copy.nonzero(), pixels + move)
        places.append(move)
        # Three extents of 16 x 15 pixels at most.
        assert abs(int(move[0])) <= 48 and abs(int(move[1])) <= 45
    assert len(places) == 2
    assert bool(((places[0] - places[1]).abs() >= 0.7 * torch.tensor([16, 15])).any())
    # Where everything around is missing there is no place for any.
    lonely = torch.zeros(60, 60, dtype=torch.bool)
    lonely[:10] = True
    holes = torch.zeros_like(lonely)
    holes[30:45, 20:45] = True
    assert not any(bool(copy.any()) for copy in near_copies(lonely, holes))


@pytest.mark.parametrize("picture", [tiles, blobs])
def test_the_share_is_the_best_by_hand(picture: Picture, generator: torch.Generator) -> None:
    image, observed = picture(generator), hole()
    errors = errors_by_hand(image, observed)
    best = min(errors, key=lambda share: errors[share])
    less = 1 - errors[best] / errors[0.6]
    result = tc.inpaint(torch.where(observed, image, 0), observed, KERNEL, passes="auto")
    (patches,) = result.guidance
    assert isinstance(patches, PatchFill)
    if abs(less - 0.1) > 1e-3:  # either may be chosen where rounding decides
        assert patches == PatchFill(blend=best if less > 0.1 else 0.6)
    if picture is tiles:
        assert patches.blend == 1
    if patches.blend == 0.6:
        assert "first fill at 0.6 (no other share" in result.choice
    else:
        said = float(result.choice.split("had ")[1].split("%")[0])
        assert said == pytest.approx(100 * less, abs=0.6)  # the sentence rounds to a percent
        assert ("unblended (left-out" if best == 1 else "first fill at 0.3 (left-out") in result.choice
    # The trial's errors, of a linear mixture, are those of fills with each share.
    found = sum_of_errors(image, observed)
    assert found == pytest.approx([errors[share] for share in (0.3, 0.6, 1.0)], rel=1e-3)
    assert tc.inpaint(image, observed, KERNEL, passes="quick").guidance == (PatchFill(),)


def sum_of_errors(image: Tensor, observed: Tensor) -> list[float]:
    """What is compared, in the image's units."""
    given = Observed.of(image, observed)
    places = parts_with_near_copies(observed, ~observed)
    found = [blending._errors(given, place, lambda part: fill(part, Periodic(KERNEL)).image, 1.0) for place in places]
    return [sum(column) for column in zip(*found, strict=True)][1:]


def test_each_place_is_filled_once_by_the_kernel_and_once_from_patches(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, observed = tiles(generator), hole()
    counts = {"first": 0, "patches": 0}
    refine_by = PatchFill.refine_by

    def counted(self: PatchFill, how: How, given: Observed, estimate: Tensor) -> Tensor:
        counts["patches"] += 1
        return refine_by(self, how, given, estimate)

    def first(part: Observed) -> Tensor:
        counts["first"] += 1
        return fill(part, Periodic(KERNEL)).image

    monkeypatch.setattr(PatchFill, "refine_by", counted)
    blending.choose_blend(Observed.of(image, observed), observed, first)
    assert counts == {"first": 2, "patches": 2}


@pytest.mark.parametrize(("less", "share"), [(0.05, 0.6), (0.15, 0.3)])
def test_a_small_gain_changes_nothing(less: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "_errors", lambda *_: [50.0, 1 - less, 1.0, 2.0])
    given = Observed.of(torch.rand(1, *SIZE), hole())
    chosen, why = blending.choose_blend(given, hole(), lambda part: part.pixels)
    assert chosen == share
    assert ("clearly better" if share == 0.6 else "15%") in why


def test_without_room_for_copies_the_share_is_the_usual_one() -> None:
    observed = torch.zeros(30, 30, dtype=torch.bool)
    observed[:11] = observed[:, :11] = True
    image = torch.rand(1, 30, 30)
    result = tc.inpaint(image, observed, KERNEL, passes="auto")
    assert result.guidance == (PatchFill(),)
    assert "blended with the first fill at 0.6 (copies of the holes fit nowhere" in result.choice


def test_only_what_is_known_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thin holes are filled before, and what stands in them is no truth."""
    observed = hole()
    scratch = torch.zeros_like(observed)
    scratch[:, 31:34] = True
    judged: list[Tensor] = []

    def noted(given: Observed, place: tuple[tuple[slice, ...], Tensor], *_: object) -> list[float]:
        judged.append(place[1])
        return [50.0, 1.0, 1.0, 1.0]

    monkeypatch.setattr(blending, "_errors", noted)
    image = torch.rand(1, *SIZE)
    blending.choose_blend(Observed.of(image, observed), observed & ~scratch, lambda part: part.pixels)
    assert len(judged) == 2
    assert all(bool(left_out.any()) and not bool((left_out & scratch).any()) for left_out in judged)


def test_each_picture_of_a_batch_has_its_own_share(generator: torch.Generator) -> None:
    observed = hole()
    both = torch.stack([blobs(generator).expand(2, -1, -1), tiles(generator)])
    result = tc.inpaint(both, observed, KERNEL, passes="auto")
    alone = tuple(tc.inpaint(image, observed, KERNEL, passes="auto").guidance[0] for image in both)
    assert result.guidance == alone
    assert alone[1] == PatchFill(blend=1.0)
    assert "unblended" in result.choice
