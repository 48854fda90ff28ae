"""How sure a fill is, told after it: the regression that stands for it, its deviations, and their picture."""

from __future__ import annotations

import pytest
import torch

import torch_cntk as tc
from torch_cntk.images import Guided, Periodic
from torch_cntk.images.certainty import posterior_after, settled, std_picture


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
