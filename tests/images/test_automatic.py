"""Passes that are chosen for the user: each hole by its thickness, and a sentence that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images.automatic import passes_in_words
from torch_cntk.images.fill import each_pass
from torch_cntk.images.filler import of_pass
from torch_cntk.images.group_flow import Followed
from torch_cntk.images.guided import guided_series
from torch_cntk.images.masks import thick
from torch_cntk.images.observed import Observed
from torch_cntk.images.patch_fill import thick_holes

KERNEL = tc.default_network(3).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)


def stripes(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A picture with structure, and a little of what no method can know."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = 0.5 + 0.25 * torch.sin(rows / 2.0 + columns / 5.0) + 0.1 * torch.sin(columns / 3.0)
    return (picture + 0.01 * torch.randn(height, width, generator=generator))[None].float()


def torn(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A mask with a torn corner, a scratch that runs into it, and dust; the corner, and the dust."""
    corner = torch.zeros(height, width, dtype=torch.bool)
    corner[-20:, -24:] = True
    dust = torch.zeros_like(corner)
    dust[5:40:9, 4:50:7] = True
    scratch = torch.zeros_like(corner)
    scratch[-10:-8, 20:] = True
    return ~(corner | dust | scratch), corner, dust


def test_thick_holes_are_squares_of_missing_pixels() -> None:
    observed, corner, dust = torn(64, 72)
    found = thick(observed)
    assert bool(found[corner].all())
    assert not bool(found[dust].any())
    # Of the scratch no more than what is right beside the corner.
    assert int((found & ~corner).sum()) == 2 * 4
    # What is 8 pixels wide is thin, 9 are thick; both agree with what the patch fill takes for a hole.
    for side, is_thick in ((8, False), (9, True)):
        one = torch.ones(64, 64, dtype=torch.bool)
        one[20 : 20 + side, 10:50] = False
        assert bool(thick(one).any()) == is_thick == bool(thick_holes(one))


def test_no_hole_is_thick_where_pixels_are_missing_at_random(generator: torch.Generator) -> None:
    for share in (0.5, 0.9, 0.98):
        assert not bool(thick(torch.rand(128, 128, generator=generator) > share).any())
    assert not bool(thick(torch.ones(8, 8, dtype=torch.bool)).any())


@pytest.mark.parametrize("word", ["quick", "sharp"])
def test_mixed_masks_are_treated_hole_by_hole(word: str, generator: torch.Generator) -> None:
    truth = stripes(64, 72, generator)
    observed, corner, dust = torn(64, 72)
    known = torch.where(observed, truth, 7.0)
    plain = tc.inpaint(known, observed, KERNEL)
    result = tc.inpaint(known, observed, KERNEL, passes=word)  # type: ignore[arg-type]
    assert torch.equal(result.image[:, observed], truth[:, observed])
    assert "guided passes" in result.choice and "patches from elsewhere" in result.choice
    assert ("sharp" if word == "sharp" else "least error") in result.choice
    assert result.passes == 5

    def error(image: Tensor, where: Tensor) -> float:
        return float((image - truth)[:, where].square().mean())

    assert error(result.image, corner) < error(plain.image, corner)
    if word == "quick":
        # Thin holes are filled by passes that take the thick one as known, from the first fill.
        known = torch.where(thick(observed), plain.image, known)
        alone = Observed.of(known, observed | thick(observed))
        guidance = guided_series(alone.single_mask)[0]
        *_, last = each_pass(alone, [of_pass(guidance, k) for k in range(4)], plain.image)
        assert torch.equal(result.image[:, dust], last.image[:, dust])


def test_colours_go_on_across_the_border_of_a_thick_hole(generator: torch.Generator) -> None:
    truth = stripes(64, 72, generator)
    observed, corner, _ = torn(64, 72)
    image = tc.inpaint(torch.where(observed, truth, 0), observed, KERNEL, passes="quick").image[0]
    step = (image[-20, -24:-2] - image[-21, -24:-2]).abs().mean()
    usual = truth[0].diff(dim=0).abs().mean()
    assert float(step) < 2 * float(usual)
    assert corner.any()


def test_a_thick_hole_alone_is_filled_from_patches_without_trials(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("no settings are to be tried")

    monkeypatch.setattr("torch_cntk.images.automatic.choose_passes", never)
    truth = stripes(64, 64, generator)
    observed = torch.ones(64, 64, dtype=torch.bool)
    observed[20:40, 24:44] = False
    result = tc.inpaint(truth, observed, KERNEL, passes="auto")
    (patches,) = result.guidance
    assert isinstance(patches, tc.images.PatchFill)
    by_hand = tc.inpaint(truth, observed, KERNEL, passes=patches)
    assert torch.equal(result.image, by_hand.image)
    assert result.choice.startswith("patches from elsewhere") and result.passes == 1
    # Nor are any for a pixel that is missing.
    observed = torch.ones(64, 64, dtype=torch.bool)
    observed[30, 31] = False
    one = tc.inpaint(truth, observed, KERNEL, passes="auto")
    assert "too few missing pixels (1)" in one.choice
    assert float((one.image - truth).abs().max()) < 0.1


def test_where_nothing_can_be_left_out_the_choice_says_so(generator: torch.Generator) -> None:
    image = torch.rand(1, 40, 40, generator=generator)
    observed = torch.zeros(40, 40, dtype=torch.bool)
    observed[11, 23] = True
    result = tc.inpaint(image, observed, passes="auto")
    assert "too few pixels are known to leave some out" in result.choice
    assert "predicted" not in result.choice


def test_choices_by_left_out_pixels_say_so(generator: torch.Generator) -> None:
    truth = stripes(48, 48, generator)
    observed = torch.rand(48, 48, generator=generator) < 0.4
    result = tc.inpaint(truth, observed, KERNEL, passes="auto")
    assert "left-out pixels" in result.choice
    assert result.passes == 0 or str(result.passes)[0] in result.choice or "flow" in result.choice
    assert tc.inpaint(truth, observed, KERNEL, passes=2).choice == ""


def test_passes_in_words() -> None:
    guidance = tc.Guidance(radius=7)
    assert passes_in_words(guidance, 1) == "1 guided pass of radius 7"
    followed = Followed(guidance, 2, tc.images.GroupFlow())
    assert passes_in_words(followed, 3) == "2 guided passes of radius 7 and a group flow"
    assert passes_in_words(Followed(guidance, 0, tc.images.GroupFlow()), 1) == "a group flow"
    mean = Followed(guidance, 1, tc.images.GroupFlow(), tc.images.Averaged(guidance))
    assert passes_in_words(mean, 3).endswith("a group flow, averaged with one more pass")
    assert passes_in_words(tc.images.PatchFill(), 1) == (
        "patches from elsewhere in holes of more than 8 pixels across, and the first fill in thinner ones"
    )
    assert passes_in_words(None, 2) == "2 passes"
    assert passes_in_words(guidance, 0) == "the first fill alone"


def test_words_are_checked_before_long_work() -> None:
    image = torch.rand(1, 8, 8)
    with pytest.raises(ValueError, match='one of "auto", "quick", "sharp", got \'slow\''):
        tc.inpaint(image, image[0] > 0.5, passes="slow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a filler such as tc.images.PatchFill\(\)"):
        tc.inpaint(image, image[0] > 0.5, passes="patch-fill")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beside guidance"):
        tc.inpaint(image, image[0] > 0.5, passes="quick", guidance=tc.Guidance())


def test_a_flow_follows_quick_passes_where_much_is_missing(generator: torch.Generator) -> None:
    truth = stripes(48, 52, generator)
    observed = torch.rand(48, 52, generator=generator) < 0.6
    known = torch.where(observed, truth, 0)
    result = tc.inpaint(known, observed, KERNEL, passes="quick")
    share = float(observed.double().mean())
    guided = [guided_series(observed)[0].at(number) for number in range(3)]
    flow = replace(tc.images.GroupFlow.for_share(share), iterations=9)
    assert torch.equal(result.image, tc.inpaint(known, observed, KERNEL, passes=[*guided, flow]).image)
    assert result.choice == "3 guided passes of radius 10 and a group flow, as is usual without trials"
    # What is off here or there is noise, which is not to be added back, and costs as much time where little is missing.
    assert "flow" not in tc.inpaint(known, observed, KERNEL, passes="quick", ridge=0.01).choice
    few = torch.rand(48, 52, generator=generator) < 0.95
    assert "4 guided passes" in tc.inpaint(truth, few, KERNEL, passes="quick").choice


def test_choices_for_several_images_are_numbered() -> None:
    image = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    observed = torch.ones(3, 40, 40, dtype=torch.bool)
    observed[0, 10, 5:30] = observed[1, 10:24, 10:24] = observed[2, 20, 5:30] = False
    choice = tc.inpaint(image, observed, KERNEL, passes="quick").choice
    thin, thick = choice.split("; ")
    assert thin.startswith("images 1, 3: 4 guided passes") and thick.startswith("image 2: patches from elsewhere")
    channels = tc.inpaint(image[:2, 0], observed[:2], KERNEL, passes="quick").choice
    assert channels == choice.replace("images 1, 3", "channel 1").replace("image 2", "channel 2")
    assert tc.inpaint(image[::2], observed[::2], KERNEL, passes="quick").choice == thin.removeprefix("images 1, 3: ")


def test_samples_are_of_regressions_alone(generator: torch.Generator) -> None:
    truth = stripes(64, 64, generator)
    observed = torch.ones(64, 64, dtype=torch.bool)
    observed[20:32, 24:36] = False
    result = tc.inpaint(truth, observed, KERNEL, passes="quick", samples=2)
    assert "patches" not in result.choice
    assert result.samples is not None and len(result.samples) == 2


def test_signals_and_videos_have_no_thick_holes(generator: torch.Generator) -> None:
    signal = torch.sin(torch.arange(400) / 7.0)[None] + 0.01 * torch.randn(1, 400, generator=generator)
    observed = torch.ones(400, dtype=torch.bool)
    observed[100:130] = False
    result = tc.inpaint(signal, observed, passes="quick")
    assert "guided passes" in result.choice and "patches" not in result.choice


def test_thick_holes_that_are_most_of_the_picture_are_left_to_the_kernel() -> None:
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    observed = torch.zeros(64, 64, dtype=torch.bool)
    observed[:8] = True
    found = tc.inpaint(image, observed, passes="quick")
    assert "first fill alone" in found.choice
    assert torch.equal(found.image, tc.inpaint(image, observed).image)
