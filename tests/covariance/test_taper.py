"""The tapers of windows: the volume that two balls share, kernels that stay positive semi-definite, and their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import torch_cntk as tc
from torch_cntk.covariance.window import overlap, wendland


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_overlap_is_the_volume_that_two_balls_share(ndim: int, generator: torch.Generator) -> None:
    distances = torch.linspace(0, 1.2, 9, dtype=torch.float64)
    points = torch.rand(400_000, ndim, generator=generator, dtype=torch.float64) - 0.5
    ball = points[points.norm(dim=1) <= 0.5]
    shares = []
    for q in distances:
        moved = ball.clone()
        moved[:, 0] -= q
        shares.append((moved.norm(dim=1) <= 0.5).double().mean())
    # Shares of at least 2e5 points: standard errors are 1.1e-3 at most.
    torch.testing.assert_close(overlap(distances, ndim), torch.stack(shares), atol=6e-3, rtol=0)


@pytest.mark.parametrize(("ndim", "reach"), [(1, 6), (2, 5), (3, 3)])
def test_the_overlap_is_positive_definite_on_the_torus(ndim: int, reach: int) -> None:
    n = 2 * reach + 1
    axis = torch.arange(n)
    axis = torch.minimum(axis, n - axis).double()
    squares = sum(u.square() for u in torch.meshgrid(*[axis] * ndim, indexing="ij"))
    assert isinstance(squares, torch.Tensor)
    spectrum = torch.fft.fftn(overlap(squares.sqrt() / reach, ndim)).real
    assert float(spectrum.min()) > -1e-12 * float(spectrum.max())


@pytest.mark.parametrize("taper", ["wendland", "overlap"])
def test_a_tapered_kernel_is_the_kernel_times_its_taper(taper: str, generator: torch.Generator, tmp_path: Path) -> None:
    size, radius = (12, 13), (4, 5)
    prior = tc.priors.Tensor(torch.randn(2, *size, generator=generator, dtype=torch.float64))
    net = tc.guided_network()
    kernel = net.kernel(prior, size, radius=radius, taper=taper)  # type: ignore[arg-type]
    dense = net.kernel(prior, size).dense()
    places = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    squares = torch.zeros(*size, *size, dtype=torch.float64)
    for axis, (place, n, r) in enumerate(zip(places, size, radius, strict=True)):
        apart = (place[:, :, None, None] - place).abs()
        assert apart.shape[axis] == n
        squares += (torch.minimum(apart, n - apart).double() / r) ** 2
    weight = wendland(squares.sqrt()) if taper == "wendland" else overlap(squares.sqrt(), 2)
    torch.testing.assert_close(kernel.dense(), dense * weight, rtol=1e-12, atol=1e-12)
    assert float(torch.linalg.eigvalsh(kernel.dense().reshape(156, 156)).min()) > -1e-9
    kernel.save(tmp_path / "kernel.safetensors")
    assert torch.equal(tc.load_kernel(tmp_path / "kernel.safetensors").dense(), kernel.dense())


def test_a_taper_is_one_of_two_and_needs_a_radius() -> None:
    prior = tc.priors.White(1.0)
    with pytest.raises(ValueError, match="expected a taper among wendland, overlap, got 'box'"):
        tc.guided_network().kernel(prior, (8, 8), radius=3, taper="box")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a radius"):
        tc.guided_network().kernel(prior, (8, 8), taper="overlap")
