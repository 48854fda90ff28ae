"""What an image is measured in does not matter: offsets, scales, and what lies at the border of even areas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.images import Observed

KERNEL = tc.hourglass(3, 1, 0, channels=1, in_channels=1, slope=0.3, up_filter=(3, 3), one_by_one=False).kernel(
    tc.priors.Uniform(0, 0.1), dtype=torch.float32
)
GENTLE = tc.Guidance(radius=4)


def picture(*size: Any, dtype: Any = torch.float64) -> Any:
    """Range 1, no symmetry."""
    grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    values: Any = sum(torch.sin(grid / (7 + 2 * axis) + axis) for axis, grid in enumerate(grids))
    return ((values - values.min()) / (values.max() - values.min()))[None].to(dtype)


def with_hole(*size: Any) -> Any:
    observed = torch.ones(size, dtype=torch.bool)
    observed[tuple(slice(n // 3, n // 3 + max(n // 4, 2)) for n in size)] = False
    return observed


def scattered(*size: Any, generator: torch.Generator) -> Any:
    return torch.rand(size, generator=generator) < 0.6


@pytest.mark.parametrize(
    "border",
    [
        (slice(None, 24), slice(None)),
        (slice(-12, None), slice(None)),
        (slice(None), slice(None, 20)),
        (slice(None, 16), slice(-16, None)),
    ],
    ids=["upper half", "lower quarter", "left", "corner"],
)
@pytest.mark.parametrize("value", [235 / 255, 0.1, -3.0, 65535.0])
def test_an_even_area_is_continued_to_the_border_to_the_bit(border: Any, value: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        image, observed = torch.full((1, 48, 32), value, dtype=dtype), torch.ones(48, 32, dtype=torch.bool)
        observed[border] = False
        result = tc.inpaint(torch.where(observed, image, 0), observed, KERNEL)
        assert torch.equal(result.image, image)
        assert result.converged and result.residual == 0


def test_an_even_sky_above_a_dark_field_stays_even() -> None:
    """With the default kernel, whose mean would be 0: an even area beside another."""
    image = torch.full((1, 56, 40), 0.92)
    image[:, 44:] = 0.2
    observed = torch.ones(56, 40, dtype=torch.bool)
    observed[:16] = False
    filled = tc.inpaint(image, observed).image
    # The mean of what is known is 0.7; far from what is known the fill may lean to it, but to nothing darker.
    assert filled[:, :16].min() > 0.7 and filled[:, :16].max() < 1


def test_a_sky_with_some_noise_does_not_darken(generator: torch.Generator) -> None:
    image = 0.9 + 0.02 * torch.randn(3, 64, 48, generator=generator)
    observed = torch.ones(64, 48, dtype=torch.bool)
    observed[:28] = False
    for passes in (0, 2):
        filled = tc.inpaint(image, observed, KERNEL, passes=passes, guidance=GENTLE if passes else None).image
        # Three standard deviations of the noise, 28 rows away from what is known.
        assert (filled[:, :28] - 0.9).abs().max() < 0.06


@pytest.mark.parametrize("offset", [293.0, -1e6, 1e9])
@pytest.mark.parametrize("size", [(40, 36), (400,), (5, 16, 18)], ids=["image", "signal", "video"])
def test_an_offset_is_added_again(size: Any, offset: Any) -> None:
    image, observed = picture(*size), with_hole(*size)
    plain, moved = tc.inpaint(image, observed), tc.inpaint(image + offset, observed)
    assert moved.converged and moved.residual <= 1e-4
    # Ten times the tolerance: rounding sends inexact inner iterations another way.
    torch.testing.assert_close(moved.image - offset, plain.image, rtol=0, atol=1e-3)
    assert moved.image.amin() > offset - 0.5 and moved.image.amax() < offset + 1.5


@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e-10, 1e18, 1e30, 1e37])
def test_float32_of_any_scale(factor: Any, generator: torch.Generator) -> None:
    image, observed = picture(48, 44, dtype=torch.float32), scattered(48, 44, generator=generator)
    plain = tc.inpaint(image, observed, KERNEL)
    scaled = tc.inpaint((image.double() * factor).float(), observed, KERNEL)
    assert scaled.converged and scaled.residual <= 1e-4
    # The tolerance; numbers below 1.2e-38 have fewer digits.
    torch.testing.assert_close(scaled.image.double() / factor, plain.image.double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("offset", [1e6, -1e6, 65536.0])
@pytest.mark.parametrize("passes", [0, 2])
def test_float32_with_a_large_offset(offset: Any, passes: Any, generator: torch.Generator) -> None:
    # Range 100, of which an offset of 1e6 leaves three digits.
    image, observed = 100 * picture(48, 44), scattered(48, 44, generator=generator)
    counts = (image + offset).float()
    options = {"passes": passes, "guidance": GENTLE if passes else None}
    moved = tc.inpaint(counts, observed, KERNEL, **options)
    plain = tc.inpaint((counts.double() - offset).float(), observed, KERNEL, **options)
    assert moved.converged
    assert torch.equal(moved.image[:, observed], counts[:, observed])
    # Two steps of float32 at the offset, and the tolerance of a pass on a range of 100.
    bound = 2 * 0.0625 + (1.0 if passes else 0.02)
    assert (moved.image.double() - offset - plain.image.double()).abs().max() <= bound


@pytest.mark.parametrize("solver", [tc.Direct(), tc.EigenPro(epochs=30), tc.ConjugateGradient(1e-5)], ids=repr)
def test_every_solver_is_given_what_is_left_of_the_mean(solver: Any, generator: torch.Generator) -> None:
    image, observed = picture(24, 26), scattered(24, 26, generator=generator)
    plain = tc.inpaint(image, observed, KERNEL, solver=solver, ridge=1e-3)
    moved = tc.inpaint(1e5 + 1e-3 * image, observed, KERNEL, solver=solver, ridge=1e-3)
    torch.testing.assert_close((moved.image - 1e5) / 1e-3, plain.image, rtol=0, atol=1e-3)
    assert moved.residual <= 2 * plain.residual + 1e-6


def test_ridge_that_is_chosen_does_not_see_scale_and_offset(generator: torch.Generator) -> None:
    noisy = picture(40, 44) + 0.1 * torch.randn(1, 40, 44, generator=generator, dtype=torch.float64)
    observed = scattered(40, 44, generator=generator)
    ridges = [
        tc.inpaint(f * noisy + o, observed, KERNEL, ridge="cv").ridge for f, o in ((1, 0), (1e-9, 3), (1e9, -1e10))
    ]
    assert len(set(ridges)) == 1


@pytest.mark.parametrize("passes", [1, "auto"])
def test_passes_do_not_see_scale_and_offset(passes: Any, generator: torch.Generator) -> None:
    image, observed = picture(40, 44), scattered(40, 44, generator=generator)
    plain = tc.inpaint(image, observed, KERNEL, passes=passes, guidance=GENTLE)
    for factor, offset in ((1.0, 293.0), (2.0**100, 0.0), (2.0**-600, 0.0), (50.0, 1e5)):
        moved = tc.inpaint(factor * image + offset, observed, KERNEL, passes=passes, guidance=GENTLE)
        assert moved.passes == plain.passes
        torch.testing.assert_close((moved.image - offset) / factor, plain.image, rtol=0, atol=1e-4)


def test_images_of_a_batch_have_means_and_scales_of_their_own(generator: torch.Generator) -> None:
    images = torch.stack(
        [picture(32, 30), 1e4 + picture(32, 30).flip(1), 1e-20 * picture(32, 30), torch.full((1, 32, 30), 7.0)]
    )
    masks = torch.stack([scattered(32, 30, generator=generator) for _ in images])
    together = tc.inpaint(images, masks, KERNEL, solver=tc.ConjugateGradient(1e-10)).image
    for image, mask, filled in zip(images, masks, together, strict=True):
        alone = tc.inpaint(image, mask, KERNEL, solver=tc.ConjugateGradient(1e-10)).image
        torch.testing.assert_close(filled, alone, rtol=0, atol=1e-7 * float(image.max() - image.min()) + 1e-30)


def test_channels_have_means_and_scales_of_their_own(generator: torch.Generator) -> None:
    """Kelvins, a share, and counts in one image."""
    parts = [293 + picture(36, 40), 1e-3 * picture(40, 36).mT, 4e4 + 1e4 * picture(36, 40).flip(1)]
    image, observed = torch.cat(parts), scattered(36, 40, generator=generator)
    strict = tc.ConjugateGradient(1e-10)
    together = tc.inpaint(image, observed, KERNEL, solver=strict).image
    for channel in range(3):
        alone = tc.inpaint(image[channel], observed, KERNEL, solver=strict).image
        bound = 1e-8 * float(image[channel].max() - image[channel].min())
        torch.testing.assert_close(together[channel], alone, rtol=0, atol=bound)


def test_a_single_value_is_all_there_is() -> None:
    observed = torch.zeros(20, 24, dtype=torch.bool)
    observed[3, 5] = True
    result = tc.inpaint(torch.full((3, 20, 24), 0.7), observed)
    assert torch.equal(result.image, torch.full((3, 20, 24), 0.7))


def test_mean_is_that_of_observed_pixels(generator: torch.Generator) -> None:
    image, observed = picture(9, 8).expand(2, 3, 9, 8) * 5 + 3, torch.rand(2, 9, 8, generator=generator) < 0.5
    observed[:, 0, 0] = True
    given = Observed.of(torch.where(observed[:, None], image, math.nan), None, 2)
    for k in range(2):
        expected = image[k][:, observed[k]].mean(1)
        torch.testing.assert_close(given.mean[k].flatten(), expected, rtol=1e-14, atol=0)
    rest = given.normalised
    assert rest.mean.abs().max() < 1e-15
    assert bool(((rest.pixels.abs().flatten(2).amax(2) >= 0.5) & (rest.pixels.abs().flatten(2).amax(2) < 1)).all())
    scales = given.scale.flatten().log2()
    assert torch.equal(scales, scales.round())


def test_numbers_whose_mean_overflows_are_refused() -> None:
    image = torch.tensor([[[1.7e308, -1.7e308, 0.0, 1.0]]], dtype=torch.float64)
    observed = torch.tensor([[True, True, False, True]])
    with pytest.raises(ValueError, match=r"expected observed pixels below 1e307, got 1.7e\+308"):
        tc.inpaint(image, observed, KERNEL)
    # In float32 these are still numbers of float64.
    largest = torch.tensor([[[3e38, -3e38, 0.0, 1.0]]])
    assert bool(torch.isfinite(tc.inpaint(largest, observed, KERNEL).image).all())
