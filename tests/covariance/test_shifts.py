"""Sums of neighbours around the edge, against shifted copies."""

from __future__ import annotations

import pytest
import torch

from torch_cntk.covariance.lattice.shifts import circular_sum


@pytest.mark.parametrize("offsets", [[0, -1, 1], [0, -1, 1, -2, 2], [0, 1, -1, 2, -2, 3, -3], [-1, 1], [0, 1, 2]])
@pytest.mark.parametrize("shape", [(3, 5, 6, 4), (2, 100, 90), (2, 5, 2000), (2, 2000, 5), (1, 3, 9000)])
@pytest.mark.parametrize("axis", [-2, -1])
def test_sums_of_neighbours(offsets: list[int], shape: tuple[int, ...], axis: int, generator: torch.Generator) -> None:
    images = torch.rand(shape, dtype=torch.float64, generator=generator)
    expected = torch.stack([images.roll(-offset, axis) for offset in offsets]).sum(0)
    found = circular_sum(images.clone(), offsets, axis, torch.full_like(images, torch.nan))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
