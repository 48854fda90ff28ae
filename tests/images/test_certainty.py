"""How sure a fill is, told after it: the regression that stands for it, its deviations, and their picture."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

import torch_cntk as tc
from torch_cntk.cli.certainty import in_words
from torch_cntk.images import Guided, PatchFill, Periodic
from torch_cntk.images.calibration import CannotTellError, _together, factor_of
from torch_cntk.images.certainty import Missed, left_out_error, posterior_after, settled, std_picture
from torch_cntk.images.fill import fill
from torch_cntk.images.judged import left_out_part
from torch_cntk.images.leaving_out import copies_of_holes
from torch_cntk.images.masks import thick
from torch_cntk.images.observed import Observed


def case(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, tc.Kernel]:
    image = torch.rand(2, 14, 16, generator=generator, dtype=torch.float64)
    observed = torch.rand(14, 16, generator=generator) < 0.8
    network = tc.default_network(1, width=4)
    return image, observed, network.kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)


def test_without_passes_it_is_what_inpaint_gives(generator: torch.Generator) -> None:
    image, observed, kernel = case(generator)
    result = tc.inpaint(image, observed, kernel, ridge=1e-2, samples=2, seed=4)
    found = posterior_after(image, observed, kernel, result, samples=2, seed=4)
    torch.testing.assert_close(found.std[0], result.std)
    torch.testing.assert_close(found.samples[:, 0], result.samples)
    assert isinstance(settled(kernel, result), Periodic)


@pytest.mark.parametrize("coarse", [1, 2])
def test_after_passes_it_is_one_more_of_them(coarse: int, generator: torch.Generator) -> None:
    image, observed, kernel = case(generator)
    guidance = tc.Guidance(radius=3, coarse=coarse)
    result = tc.inpaint(image, observed, kernel, passes=2, guidance=guidance)
    filler = settled(kernel, result)
    assert isinstance(filler, Guided)
    assert filler.radius == 3
    found = posterior_after(image, observed, kernel, result, samples=1)
    assert bool((found.std[0][:, ~observed] > 0).all())
    assert torch.equal(found.samples[0, 0][:, observed], image[:, observed])


@pytest.mark.parametrize("passes", [0, PatchFill(side=5)])
def test_the_factor_is_the_quantile_of_errors_where_holes_are_moved_to(passes: Any, generator: torch.Generator) -> None:
    image, _, kernel = case(generator)
    observed = torch.ones(14, 16, dtype=torch.bool)
    observed[3:8, 4:10] = False
    found = tc.images.std_factor(image, observed, kernel, count=2, passes=passes)
    scores = []
    for left_out in copies_of_holes(observed, ~observed)[:2]:
        assert not bool((left_out & ~observed).any())
        known = observed & ~left_out
        filled = tc.inpaint(image, known, kernel, passes=passes)
        std = tc.inpaint(image, known, kernel, samples=1).std
        assert std is not None
        scores.append(((filled.image - image).abs() / std)[:, left_out].flatten())
    pooled = torch.cat(scores)
    # Nine of ten lie within so many deviations, and no fewer unless that is one.
    assert float((pooled <= 1.6449 * found * (1 + 1e-9)).double().mean()) >= 0.9
    assert found == 1 or float((pooled < 1.6449 * found * (1 - 1e-9)).double().mean()) <= 0.9
    assert tc.images.std_factor(image.numpy(), observed.numpy(), kernel, count=2, passes=passes) == found


def test_draws_of_the_kernel_itself_have_the_factor_one() -> None:
    """Images of the prior are what deviations are right for; factors are above 1 by chance alone."""
    kernel = tc.default_network(1, width=4).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)
    observed = torch.ones(16, 16, dtype=torch.bool)
    observed[5:10, 6:11] = False
    root = torch.linalg.cholesky(kernel.dense((16, 16)).reshape(256, 256) + 1e-9 * torch.eye(256, dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    images = (root @ torch.randn(256, 12, generator=generator, dtype=torch.float64)).T.reshape(12, 1, 16, 16)
    logarithms = [math.log(tc.images.std_factor(image, observed, kernel, ridge=1e-6)) for image in images]
    # 100 correlated pixels each: factors are off by some 15 %, and half of them are cut at 1.
    assert 0 <= sum(logarithms) / 12 < 0.2
    # A quarter that is thirty times rougher is more than the one amplitude of the image says.
    rough = torch.ones(1, 16, 16, dtype=torch.float64)
    rough[:, 8:, 8:] = 30
    assert tc.images.std_factor(images[0] * rough, observed, kernel, ridge=1e-6) > 1.2


def test_where_nothing_can_be_told_the_factor_is_one_with_a_warning(generator: torch.Generator) -> None:
    image, observed, kernel = case(generator)
    narrow = torch.ones(6, 6, dtype=torch.bool)
    narrow[3, 4] = False
    for given, mask, text in (
        (image, torch.ones_like(observed), "expected missing pixels, got none"),
        (image[:, :6, :6], narrow, "expected holes that fit into what is known, with at least 20 pixels"),
        (torch.ones_like(image), observed, "expected known pixels that are missed"),
    ):
        with pytest.warns(UserWarning, match=f"cannot be told, and is given as 1: {text}") as told:
            assert tc.images.std_factor(given, mask, kernel) == 1
        assert told[0].filename == __file__
        with pytest.raises(CannotTellError, match=text):
            factor_of(given, mask, kernel)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_of_small_holes_several_copies_are_left_out_at_once(side: int) -> None:
    for size in ((200,), (30, 40), (16, 20, 24)):
        holes = torch.zeros(size, dtype=torch.bool)
        holes[tuple(slice(7, 7 + side) for _ in size)] = True
        found = _together(holes)
        count = side ** len(size)
        for left_out in found[:2]:
            # None touches the hole or another copy; at the border one may be cut, and goes on at the other side.
            labels, boxes = scipy.ndimage.label((left_out | holes).numpy(), np.ones((3,) * len(size)))
            assert boxes >= int(left_out.sum()) // count + 1
            assert not bool((left_out & holes).any())
            assert 20 <= int(left_out.sum()) < 20 + count
            assert int(left_out.sum()) % count == 0
            assert (np.bincount(labels.ravel())[1:] <= count).all()
        assert int(torch.stack(found).sum(0).max()) == 1


def test_the_factor_of_spots_is_the_quantile_of_all_copies(generator: torch.Generator) -> None:
    image, _, kernel = case(generator)
    observed = torch.ones(14, 16, dtype=torch.bool)
    observed[5:7, 6:8] = False
    found = tc.images.std_factor(image, observed, kernel, count=2)
    scores = []
    for left_out in _together(~observed)[:2]:
        filled = tc.inpaint(image, observed & ~left_out, kernel, samples=1)
        assert filled.std is not None
        scores.append(((filled.image - image).abs() / filled.std)[:, left_out].flatten())
    share = float((torch.cat(scores) <= 1.6449 * found * (1 + 1e-9)).double().mean())
    assert share >= 0.9


def test_factors_are_of_all_forms_of_one_image(
    generator: torch.Generator, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    image, _, kernel = case(generator)
    observed = torch.ones(14, 16, dtype=torch.bool)
    observed[3:8, 4:10] = False
    kernel.save(tmp_path / "k.safetensors")

    def factor(given: Any, mask: Any = observed, by: Any = kernel, **options: Any) -> float:
        return tc.images.std_factor(given, mask, by, count=1, **options)

    expected = factor(image)
    assert factor(image[None]) == factor(image[None], observed[None]) == factor(image.clone().requires_grad_())
    assert factor(image[None]) == expected
    assert factor(torch.where(observed, image, torch.nan), None) == expected
    assert factor(image, by=tmp_path / "k.safetensors") == factor(image, by=str(tmp_path / "k.safetensors")) == expected
    assert factor(image, seed=np.int64(0)) == factor(image, seed=torch.Generator().manual_seed(0)) == expected
    assert factor(image[0]) == factor(image[:1])
    assert factor(image.float()) >= 1
    signal, known = torch.rand(2, 60, generator=generator).cumsum(1), torch.ones(60, dtype=torch.bool)
    known[20:30] = False
    assert factor(signal, known, None) >= 1
    video, known = torch.rand(1, 6, 8, 8, generator=generator), torch.ones(6, 8, 8, dtype=torch.bool)
    known[2:4, 3:5, 3:5] = False
    assert factor(video, known, None) >= 1
    assert not recwarn.list


def test_what_is_not_one_image_has_no_factor(generator: torch.Generator) -> None:
    image, observed, kernel = case(generator)
    own = torch.stack([observed, ~observed])
    for given, mask, by, error, text in (
        (torch.stack([image, image]), observed, kernel, ValueError, "expected one image, got a batch of 2"),
        (image[None, None, None], observed, kernel, ValueError, r"expected an image of shape \[channels, \*size\]"),
        (image, observed.T, kernel, ValueError, r"expected observed of shape \(14, 16\)"),
        (image, own, kernel, ValueError, "expected one mask for all channels"),
        ("photo.png", observed, kernel, TypeError, "expected the image as a tensor or an array, got str"),
        (image, observed, "nothing", ValueError, "expected a kernel's name or file, got 'nothing'"),
        (image, observed, tc.default_network(1), TypeError, "expected a kernel, got the network"),
        (image, observed, 3, TypeError, "expected a kernel of .*, got int"),
    ):
        with pytest.raises(error, match=text):
            tc.images.std_factor(given, mask, by)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected seed to be an integer"):
        tc.images.std_factor(image, observed, kernel, seed=1.5)  # type: ignore[arg-type]


def test_the_picture_is_yellow_where_least_is_known(generator: torch.Generator) -> None:
    image, observed, _ = case(generator)
    std = torch.where(observed, 0, torch.rand(2, 14, 16, generator=generator).double())
    picture, largest = std_picture(std, image[:1])
    size = std.square().mean(0).sqrt()
    assert largest == pytest.approx(float(size.max()))
    assert picture.shape == (3, 14, 16)
    place = tuple(int(x) for x in torch.unravel_index(size.argmax(), size.shape))
    assert float(picture[(0, *place)]) == pytest.approx(1.0)
    torch.testing.assert_close(picture[:, observed], 0.3 * image[:1][:, observed].expand(3, -1))
    nothing, largest = std_picture(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    assert largest == 0
    assert bool(torch.isfinite(nothing).all())


def torn(generator: torch.Generator, *, scratched: bool) -> tuple[torch.Tensor, torch.Tensor, tc.Kernel]:
    """An image with a thick hole, and perhaps a thin one."""
    image = torch.rand(1, 48, 50, generator=generator, dtype=torch.float64)
    observed = torch.ones(48, 50, dtype=torch.bool)
    observed[12:23, 15:26] = False
    if scratched:
        observed[30:33, 4:40] = False
    return image, observed, tc.default_network(1, width=4).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)


def error_of(image: torch.Tensor, observed: torch.Tensor, kernel: tc.Kernel, **options: Any) -> float:
    """Of left-out pixels, by a fill of what is left: the part is the whole image, as it is small."""
    found = left_out_part(observed, observed)
    assert not isinstance(found, str)
    place, left_out = found
    assert image[(slice(None), *place)].shape == image.shape
    assert not bool((left_out & ~observed).any())
    filled = tc.inpaint(image, observed & ~left_out, kernel, **options).image
    return float((filled - image)[:, left_out].square().mean().sqrt())


@pytest.mark.parametrize(
    ("passes", "same"),
    [
        (0, {}),
        (2, {"passes": 2}),
        ("quick", {"passes": PatchFill()}),
        (PatchFill(), {"passes": PatchFill()}),
        ("sharp", {"passes": PatchFill(blend=1.0)}),
        (PatchFill(blend=0.3), {"passes": PatchFill(blend=0.3)}),
    ],
)
def test_left_out_pixels_are_filled_as_thick_holes_were(passes: Any, same: Any, generator: torch.Generator) -> None:
    image, observed, kernel = torn(generator, scratched=False)
    result = tc.inpaint(image, observed, kernel, passes=passes)
    found = left_out_error(image, observed, observed, kernel, "auto", result, passes)
    assert isinstance(found, Missed)
    if passes == 2:
        same = same | {"guidance": result.guidance[0]}
    assert found.error == pytest.approx(error_of(image, observed, kernel, **same), rel=1e-9)


@pytest.mark.parametrize("word", ["auto", "sharp", "quick"])
def test_left_out_pixels_are_filled_as_thin_and_thick_holes_were(word: Any, generator: torch.Generator) -> None:
    image, observed, kernel = torn(generator, scratched=True)
    result = tc.inpaint(image, observed, kernel, passes=word)
    found = left_out_error(image, observed, observed, kernel, "auto", result, word)
    assert isinstance(found, Missed)
    chosen = result.chosen[0]
    assert chosen.thick
    assert chosen.patches is not None
    assert chosen.patches.blend == {"sharp": 1.0, "quick": 0.6}.get(word, chosen.patches.blend)
    # First the passes of thin holes, then patches on what they have given.
    again = replace(chosen, patches=None)
    part = left_out_part(observed, observed)
    assert not isinstance(part, str)
    left_out = part[1]
    known = observed & ~left_out
    thin = tc.inpaint(image, known, kernel, passes=again).image
    holes = thick(known)
    given = Observed.of(torch.where(known, image, thin), ~holes, 2)
    filled = fill(given, chosen.patches, thin).image
    expected = float((filled - image)[:, left_out].square().mean().sqrt())
    assert found.error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("word", ["auto", "sharp", "quick"])
def test_what_was_chosen_fills_the_same_again(word: Any, generator: torch.Generator) -> None:
    image, observed, kernel = torn(generator, scratched=True)
    result = tc.inpaint(image, observed, kernel, passes=word)
    again = tc.inpaint(image, observed, kernel, passes=result.chosen[0])
    assert torch.equal(tc.inpaint(image, observed, kernel, passes=result.chosen).image, again.image)
    with pytest.raises(ValueError, match=r"passes=result.chosen\[0\], got 2"):
        tc.inpaint(image, observed, kernel, passes=result.chosen * 2)
    assert torch.equal(again.image, result.image)
    assert again.chosen == result.chosen
    with pytest.raises(ValueError, match="expected neither guidance nor samples"):
        tc.inpaint(image, observed, kernel, passes=result.chosen[0], samples=1)


def test_it_is_said_why_nothing_was_left_out(generator: torch.Generator) -> None:
    image, observed, kernel = torn(generator, scratched=False)
    crowded, few = observed.clone(), torch.ones_like(observed)
    crowded[4:44, 4:40] = False
    few[3, 4:7] = False
    result = tc.inpaint(image, observed, kernel)
    for mask, reason in ((crowded, "more pixels would be missing"), (few, "too few known pixels"), (few | True, "")):
        told = left_out_error(image, mask, mask, kernel, "auto", result, 0)
        assert isinstance(told, str)
        assert told.startswith(reason)
        assert bool(told) == bool(in_words(told))
        assert "cannot be told" in in_words(told) or not told
