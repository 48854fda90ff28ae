"""Networks are ranked on one's own image, with the spread of the ranking."""

from __future__ import annotations

import math

import pytest
import torch

import torch_cntk as tc
from torch_cntk.images import leaving_out, psnr, random_mask, sweep


def smooth(size: tuple[int, int] = (40, 36)) -> torch.Tensor:
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    return torch.stack([torch.sin(rows / 7) * torch.cos(columns / 5), torch.cos(rows / 9)])


def networks() -> dict[str, tc.Layer | tc.Kernel | str]:
    local = tc.Sequential(tc.Conv2d(1, 4, 1))  # pixels tell it nothing of each other
    deep = tc.Sequential(tc.Conv2d(1, 4, 5), tc.ReLU(), tc.Conv2d(4, 4, 5), tc.ReLU(), tc.Conv2d(4, 1, 5))
    prior = tc.priors.Uniform(0, 0.1)
    return {"local": local, "named": "uniform-3x128-leaky0.1", "deep": deep, "the same": deep.kernel(prior)}


@pytest.mark.parametrize("hole", [False, True])
def test_the_better_network_is_first_and_ties_are_said(hole: bool) -> None:
    image = smooth()
    observed = random_mask((40, 36), 0.4, seed=3)
    if hole:
        observed = torch.ones(40, 36, dtype=torch.bool)
        observed[10:18, 12:20] = False
    found = sweep(networks(), image, observed, truth=image, trials=4)
    by_name = {row.name: row for row in found.rows}
    assert found.rows[0].name == "named"
    assert not by_name["local"].tied
    assert by_name["deep"].error == by_name["the same"].error
    assert by_name["local"].truth is not None
    assert [row.error for row in found.rows] == sorted(row.error for row in found.rows)
    assert len(str(found).splitlines()) == 5


def test_errors_are_those_of_fills_by_hand() -> None:
    image, observed = smooth(), random_mask((40, 36), 0.5, seed=1)
    found = sweep({"a": "uniform-3x128-leaky0.1"}, image, observed, trials=2, seed=5)
    generator = torch.Generator().manual_seed(5 ^ leaving_out.UNUSUAL_SEED)
    squares = []
    for _ in range(2):
        hidden = observed & (torch.rand(40, 36, generator=generator) < 0.1)
        filled = tc.inpaint(image, observed & ~hidden, "uniform-3x128-leaky0.1").image
        squares.append((filled - image)[:, hidden].square().mean())
    assert found.rows[0].error == pytest.approx(float(torch.stack(squares).mean().sqrt()))


def test_what_is_no_number_is_missing() -> None:
    image, observed = smooth(), random_mask((40, 36), 0.5, seed=1)
    holed = torch.where(observed, image, torch.nan)
    holed[0, observed] = image[0, observed]
    found = sweep({"a": "uniform-3x128-leaky0.1"}, holed, trials=2, seed=5)
    assert (
        found.rows[0].error == sweep({"a": "uniform-3x128-leaky0.1"}, image, observed, trials=2, seed=5).rows[0].error
    )


def test_bad_input_is_refused() -> None:
    image, observed = smooth(), random_mask((40, 36), 0.5)
    with pytest.raises(TypeError, match="expected networks by name"):
        sweep({}, image, observed)
    with pytest.raises(ValueError, match="at least 2 trials"):
        sweep(networks(), image, observed, trials=1)
    with pytest.raises(ValueError, match="expected an image"):
        sweep(networks(), image[..., 1:], observed)
    with pytest.raises(ValueError, match="expected the truth of the image's shape"):
        sweep(networks(), image, observed, truth=image[:1])
    with pytest.raises(ValueError, match="enough to leave out"):
        sweep(networks(), image, torch.zeros(40, 36, dtype=torch.bool))


def test_psnr_and_random_masks() -> None:
    a = torch.zeros(3, 8, 8)
    assert psnr(a, a) == math.inf
    assert psnr(a + 0.1, a) == pytest.approx(20, abs=1e-5)
    where = torch.zeros(8, 8, dtype=torch.bool)
    where[0, 0] = True
    b = a.clone()
    b[:, 0, 0] = 1
    assert psnr(b, a, where) == pytest.approx(0, abs=1e-6)
    before = torch.random.get_rng_state()
    mask = random_mask((100, 100), 0.25, seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    # Five standard deviations of a share of 10,000 draws.
    assert abs(float((~mask).double().mean()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 10_000)
    with pytest.raises(ValueError, match="from 0 to 1"):
        random_mask((3, 3), 25)
    with pytest.raises(ValueError, match="one shape"):
        psnr(a, a[0])


def test_a_mask_of_the_same_seed_leaves_something_to_leave_out() -> None:
    """Both are drawn with ``torch.rand``: with one seed the pixels to leave out were just those that are missing."""
    image, observed = smooth(), random_mask((40, 36), 0.5)
    found = sweep({"a": "uniform-3x128-leaky0.1"}, image, observed, trials=2)
    assert found.rows[0].name == "a"
