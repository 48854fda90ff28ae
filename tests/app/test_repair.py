"""What the page computes, without its processes."""

from __future__ import annotations

import pytest
import torch

from torch_cntk.app.heat_maps import around
from torch_cntk.app.repair import repair, weights
from torch_cntk.images.files import Photograph


@pytest.fixture
def photograph(generator: torch.Generator) -> Photograph:
    grid = torch.linspace(0, 9, 250)[:, None] + torch.linspace(0, 4, 60)
    phases = torch.rand(3, 1, 1, generator=generator) * 6
    return Photograph(0.5 + 0.4 * torch.sin(grid + phases))


def test_weights_are_those_of_the_fill(photograph: Photograph) -> None:
    observed = torch.ones(250, 60, dtype=torch.bool)
    observed[118:124, 10:50] = False
    # A larger hole far away chooses the kernel of all.
    observed[5:45, 10:50] = False
    repaired = repair(photograph, observed, "fast", "cpu")
    assert torch.equal(repaired.photograph.pixels[:, observed], photograph.pixels[:, observed])
    part, inside = around(observed, (120, 30))
    cut = (slice(None), *part)
    pixels, estimate = photograph.pixels[cut], repaired.photograph.pixels[cut]
    found = weights(pixels, observed[part], inside, estimate, repaired.result, observed)
    by_hand = (found * pixels).sum((1, 2))
    # What is beyond the part hardly counts, and both are solved to a residual of 1e-4: a level of 8 bits.
    assert torch.allclose(by_hand, repaired.photograph.pixels[:, 120, 30].double(), atol=1 / 255)


def test_weights_after_passes(photograph: Photograph) -> None:
    observed = torch.ones(250, 60, dtype=torch.bool)
    observed[118:124, 10:50] = False
    repaired = repair(photograph, observed, "careful", "cpu")
    assert repaired.result.passes == 3
    estimate = repaired.photograph.pixels[:, 80:160]
    found = weights(
        photograph.pixels[:, 80:160], observed[80:160], (40, 30), estimate, repaired.result, repaired.observed
    )
    radius = repaired.result.guidance[0].radius  # type: ignore[union-attr]
    far = found.clone()
    far[40 - radius : 41 + radius, 30 - radius : 31 + radius] = 0
    # Pixels beyond the window count through others alone.
    assert 0 < float(found.abs().max()) < 2
    assert float(far.abs().max()) < 0.3 * float(found.abs().max())


def test_nothing_to_fill_from(photograph: Photograph) -> None:
    with pytest.raises(ValueError, match="some known pixels"):
        repair(photograph, torch.zeros(250, 60, dtype=torch.bool), "fast", "cpu")
