"""Groups of similar patches and their gradient flow, against loops and matrix exponentials."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images import Observed, group_flow
from torch_cntk.images import groups as patch_groups
from torch_cntk.images.filler import of_pass
from torch_cntk.images.group_flow import Followed, GroupFlow
from torch_cntk.images.groups import flow_in_groups, groups, narrowed


def patch(image: Tensor, corner: tuple[int, ...], sides: tuple[int, ...]) -> Tensor:
    return image[(slice(None), *(slice(k, k + n) for k, n in zip(corner, sides, strict=True)))].flatten()


def brute_force_groups(image: Tensor, sides: tuple[int, ...], step: int, reach: int, members: int) -> list[set[int]]:
    size = tuple(image.shape[1:])
    grids = [sorted({*range(0, n - s, step), n - s}) for n, s in zip(size, sides, strict=True)]
    everywhere = product(*(range(n - s + 1) for n, s in zip(size, sides, strict=True)))
    patches = {corner: patch(image, corner, sides) for corner in everywhere}
    # Long patches are compared by their 24 principal components.
    directions = torch.linalg.svd(torch.stack([*patches.values()]))[2][:24]
    seen = {corner: directions @ values for corner, values in patches.items()}
    found = []
    for corner in product(*grids):
        near = [
            range(max(k - reach, 0), min(k + reach, n - s) + 1) for k, n, s in zip(corner, size, sides, strict=True)
        ]
        ranked = sorted(product(*near), key=lambda c: float((seen[c] - seen[corner]).square().sum()))
        found.append({sum(k * math.prod(size[a + 1 :]) for a, k in enumerate(c)) for c in ranked[:members]})
    return found


@pytest.mark.parametrize(
    ("size", "channels", "sides", "step", "reach"),
    [((40,), 2, (7,), 3, 9), ((13, 17), 1, (3, 4), 2, 4), ((12, 11), 3, (5, 5), 4, 3), ((7, 6, 8), 1, (2, 3, 2), 2, 2)],
)
@pytest.mark.parametrize("block", [10**6, 1])
def test_groups_are_the_nearest_patches(
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, ...],
    channels: int,
    sides: tuple[int, ...],
    step: int,
    reach: int,
    block: int,
) -> None:
    monkeypatch.setattr(patch_groups, "_REFERENCES", block)  # all reference patches at once, or few
    image = torch.rand(channels, *size, dtype=torch.float64)
    found = groups(image, sides, step, reach, 6)
    found = found[found[:, 0].argsort()]  # blocks come one after the other
    assert [set(row) for row in found.tolist()] == brute_force_groups(image, sides, step, reach, 6)


@pytest.mark.parametrize(("size", "reach"), [((3, 200), 15), ((40, 10), 60), ((64, 64), 1), ((3, 5, 40), 9)])
def test_groups_hold_no_patch_that_is_not_there(size: tuple[int, ...], reach: int) -> None:
    """In thin images and within a short reach there are fewer patches than members."""
    image, observed = texture(*size), torch.rand(size) < 0.5
    filled = refined(Observed.of(image, observed), torch.where(observed, image, 0), GroupFlow(2, reach=reach))
    assert bool(torch.isfinite(filled).all())
    sides = tuple(min(9, n) for n in size)
    members = groups(image, sides, 4, reach, 48)
    corners = torch.stack(torch.unravel_index(members, size))
    assert all(int(at.max()) <= n - side for at, n, side in zip(corners, size, sides, strict=True))
    away = (corners - corners[:, :, :1]).abs()
    assert int(away.max()) <= reach


def test_only_patches_with_wanted_pixels_get_groups() -> None:
    image = torch.rand(2, 31, 29)
    every = groups(image, (4, 4), 3, 5, 6)
    wanted = torch.zeros(31, 29, dtype=torch.bool)
    wanted[7:9, 20] = wanted[30, 0] = True
    corners = [divmod(int(row[0]), 29) for row in every]
    near = [bool(wanted[r : r + 4, c : c + 4].any()) for r, c in corners]
    assert 0 < sum(near) < len(near)
    found = groups(image, (4, 4), 3, 5, 6, wanted)
    assert torch.equal(found.sort(0).values, every[torch.tensor(near)].sort(0).values)


def flow_in_loops(image: Tensor, members: Tensor, sides: tuple[int, int], level: float) -> Tensor:
    """As ``flow_in_groups``, by an explicit inverse and one patch after the other."""
    channels, _, width = image.shape
    total, weight = torch.zeros_like(image), torch.zeros_like(image)
    for group in members.tolist():
        corners = [divmod(k, width) for k in group]
        table = torch.stack([patch(image, corner, sides) for corner in corners])
        kernel = table @ table.T * 49 / table.shape[1]
        step = torch.linalg.inv(torch.eye(len(group), dtype=image.dtype) + kernel / (8 * level**2))
        share = torch.eye(len(group), dtype=image.dtype) - torch.linalg.matrix_power(step, 8)
        own = 1 / (share.square().sum() + 0.5)
        for corner, row in zip(corners, share @ table, strict=True):
            place = (slice(None), *(slice(k, k + n) for k, n in zip(corner, sides, strict=True)))
            total[place] += own * row.reshape(channels, *sides)
            weight[place] += own
    return total / weight


@pytest.mark.parametrize("channels", [1, 3])
def test_the_flow_is_that_of_loops(channels: int) -> None:
    image = torch.rand(channels, 14, 15, dtype=torch.float64) - 0.5
    members = groups(image, (4, 3), 2, 5, 7)
    found = flow_in_groups(image, members, (4, 3), 0.4)
    torch.testing.assert_close(found, flow_in_loops(image, members, (4, 3), 0.4), rtol=1e-10, atol=1e-12)


def test_eight_steps_are_close_to_the_flow_itself() -> None:
    table = torch.randn(9, 30, dtype=torch.float64)
    kernel = table @ table.T / 30
    exact = torch.eye(9, dtype=torch.float64) - torch.linalg.matrix_exp(-kernel / 0.7**2)
    # The implicit Euler method errs by at most max |e^-x - (1 + x / 8)^-8| = .033, at x = 2.
    assert float((patch_groups._learnt(kernel[None], 0.7)[0] - exact).abs().max()) < 0.034


def test_a_network_takes_the_place_of_the_linear_one() -> None:
    image = torch.rand(1, 12, 12, dtype=torch.float64) - 0.5
    members = groups(image, (4, 4), 4, 4, 5)
    linear = tc.Sequential(tc.Linear(16, 8))
    torch.testing.assert_close(
        flow_in_groups(image, members, (4, 4), 0.4, linear), flow_in_groups(image, members, (4, 4), 0.4)
    )
    deep = tc.Sequential(tc.Linear(16, 8), tc.ReLU(), tc.Linear(8, 1))
    assert not torch.allclose(
        flow_in_groups(image, members, (4, 4), 0.4, deep), flow_in_groups(image, members, (4, 4), 0.4)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_flows_of_a_network(dtype: torch.dtype, channels: int) -> None:
    """A linear network is the usual flow; a deep one is a pass as well, in the image's precision."""
    image, observed = texture(20, 21).to(dtype).expand(channels, -1, -1), torch.rand(20, 21) < 0.6
    first = tc.inpaint(image, observed).image
    numbers = 16 * channels
    linear, deep = tc.Linear(numbers, 1), tc.Sequential(tc.Linear(numbers, 8), tc.LeakyReLU(0.1), tc.Linear(8, 1))
    usual, same, other = (
        refined(Observed.of(image, observed), first, GroupFlow(2, side=4, members=6, network=network))
        for network in (None, tc.Sequential(linear), deep)
    )
    assert other.dtype == dtype
    torch.testing.assert_close(same, usual, rtol=0, atol=1e-4)
    assert bool(torch.isfinite(other).all())
    assert not torch.allclose(other, usual, atol=1e-4)


def texture(*size: int) -> Tensor:
    """A pattern that repeats, with random phases, [1, *size]."""
    grids = torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij")
    pace = 0.2 if len(size) == 1 else 0.9  # what a first fill of half of the samples can follow
    waves = [torch.cos(grid * (pace + 0.35 * k) + torch.rand(()) * 6) for k, grid in enumerate(grids)]
    return torch.stack(waves).prod(0)[None]


def test_a_flow_is_a_pass() -> None:
    image, observed = texture(40, 44), torch.rand(40, 44) < 0.5
    flow = GroupFlow.for_share(0.5)
    guided = tc.inpaint(image, observed, passes=2)
    result = tc.inpaint(image, observed, passes=[*(of_pass(guided.guidance[0], k) for k in range(2)), flow])
    torch.testing.assert_close(result.image, refined(Observed.of(image, observed), guided.image))
    assert result.passes == 3
    assert result.residual == guided.residual
    with pytest.raises(ValueError, match="behind another pass"):
        tc.images.fill(Observed.of(image, observed), flow)
    bad = type("Bad", (), {"refine": lambda self, given, estimate: estimate[..., 1:]})()
    with pytest.raises(ValueError, match="keep the shape"):
        tc.inpaint(image, observed, passes=[bad])


def test_automatic_passes_end_in_a_flow_where_it_helps() -> None:
    image, observed = texture(64, 64), torch.rand(64, 64) < 0.3
    result = tc.inpaint(image, observed, passes="auto")
    plan = result.guidance[0]
    assert isinstance(plan, Followed)
    assert plan.passes + 1 == result.passes
    before = (
        tc.inpaint(image, observed, passes=plan.passes, guidance=plan.series)
        if plan.passes
        else tc.inpaint(image, observed)
    )
    errors = [float((r.image - image)[:, ~observed].square().mean()) for r in (before, result)]
    assert errors[1] < errors[0]


def refined(given: Observed, estimate: Tensor, flow: GroupFlow | None = None) -> Tensor:
    normal = given.normalised
    made = (flow or GroupFlow.for_share(0.5)).refine(normal, given.normalise(estimate.reshape(given.pixels.shape)))
    return given.shaped(given.restore(given.denormalise(made)))


@pytest.mark.parametrize(("iterations", "reaches"), [(2, (15, 60, 15)), (4, (15, 60, 15)), (4, (3, 3, 3))])
def test_iterations_are_those_of_the_equations(iterations: int, reaches: tuple[int, int, int]) -> None:
    """Sides take turns, residuals are added back, and the result is the mean of the latest one of each side."""
    image, observed = texture(26, 21).double(), torch.rand(26, 21) < 0.7
    image = image / (image[:, observed].max() - image[:, observed].min())
    low, high = image[:, observed].min(), image[:, observed].max()
    flow = GroupFlow(
        iterations, first=0.4, last=0.2, relaxation=0.3, members=4, reach=None if 60 in reaches else reaches[0]
    )
    start = torch.where(observed, image, torch.rand_like(image) * (high - low) + low)
    x, back, latest = start, torch.zeros_like(image), []
    for k in range(iterations):
        side = (5, 7, 9)[k % 3]
        found = groups(start.float(), (9, 9), (4, 5, 4)[k % 3], reaches[k % 3], 4, ~observed)
        members = narrowed(found, (26, 21), (9, 9), (side, side))
        flowed = flow_in_loops(x - back, members, (side, side), 0.4 * 0.5 ** (k / 11))
        w = torch.where(flowed.isnan(), x - back, flowed)  # in no group, as nothing around is missing
        back = torch.where(observed, back + w - image, 0)
        x = torch.where(observed, image, w + 0.3 * (w - x))
        latest.append(x.clamp(low, high))
    found = flow.refine(Observed.of(image, observed), start[None])
    # The flow is in single precision.
    torch.testing.assert_close(found[0], torch.stack(latest[-3:]).mean(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(600,), (3000,), (48, 52), (14, 15, 16)])
def test_what_repeats_is_found_again(size: tuple[int, ...]) -> None:
    image, observed = texture(*size), torch.rand(size) < 0.5
    first = tc.inpaint(image, observed).image
    found = refined(Observed.of(image, observed), first)
    before, after = (float((x - image)[:, ~observed].square().mean()) for x in (first, found))
    assert after < 0.7 * before
    assert torch.equal(found[:, observed], image[:, observed])


def test_scale_offset_and_batches_do_not_matter() -> None:
    image, observed = torch.cat([texture(24, 26), texture(24, 26)]), torch.rand(24, 26) < 0.5
    first = tc.inpaint(image, observed).image
    found = refined(Observed.of(image, observed), first)
    moved = refined(Observed.of(image * 3000 + 20000, observed), first * 3000 + 20000)
    torch.testing.assert_close((moved - 20000) / 3000, found, rtol=0, atol=1e-3)
    two = refined(Observed.of(torch.stack([image, image.flip(0)]), observed), torch.stack([first, first.flip(0)]))
    torch.testing.assert_close(two[0], found, rtol=0, atol=1e-5)
    torch.testing.assert_close(two[1].flip(0), found, rtol=0, atol=1e-4)  # sums over channels in another order
    assert refined(Observed.of(image.double(), observed), first.double()).dtype == torch.float64


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 1)])
def test_tiny_and_constant_images(size: tuple[int, int]) -> None:
    image = torch.full((1, *size), 5.0)
    observed = torch.ones(size, dtype=torch.bool)
    observed[-1, -1] = size == (1, 1)
    assert torch.equal(refined(Observed.of(image, observed), image), image)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"iterations": 0}, ValueError, "iterations"),
        ({"first": 0}, ValueError, "first to be above 0"),
        ({"last": -1}, ValueError, "last"),
        ({"relaxation": 1}, ValueError, "below 1"),
        ({"members": 1.5}, TypeError, "members"),
        ({"members": 0}, ValueError, "members"),
        ({"side": 0}, ValueError, "side"),
        ({"reach": -1}, ValueError, "reach"),
        ({"network": torch.nn.ReLU()}, TypeError, "network of torch_cntk"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        GroupFlow(**options)


@pytest.mark.parametrize("ndim", [0, 4])
def test_shares_are_of_one_to_three_dimensions(ndim: int) -> None:
    with pytest.raises(ValueError, match=r"ndim|dimensions"):
        GroupFlow.for_share(0.5, ndim)


@pytest.mark.parametrize("length", [1, 3, 50, 700])
@pytest.mark.parametrize("side", [None, 7])
def test_groups_reach_every_sample_of_a_signal(length: int, side: int | None) -> None:
    """Patches of short signals are shorter, and none of the samples is left between two of them."""
    (turn,) = GroupFlow(side=side)._turns((length,))
    patch_side = min(turn.side, length)
    found = groups(torch.rand(1, length), (patch_side,), turn.step, turn.reach, turn.members)
    covered = torch.zeros(length, dtype=torch.bool)
    for corner in found[:, 0].tolist():
        covered[corner : corner + patch_side] = True
    assert bool(covered.all())
    assert side is not None or length < 4 or turn.side <= length // 4


def test_short_patches_are_tried_in_signals() -> None:
    assert {flow.side for flow in group_flow.flows_for(0.5, ndim=1)} == {None, 49}
    assert {flow.side for flow in group_flow.flows_for(0.5, ndim=3)} == {None}


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_shares_are_from_0_to_1(share: float) -> None:
    with pytest.raises(ValueError, match="observed"):
        GroupFlow.for_share(share)


def test_noise_is_not_added_back() -> None:
    """As an explicit loop: what is lost comes back only while it is more than the noise."""
    clean, observed = texture(32, 36), torch.rand(32, 36) < 0.6
    image = clean + 0.1 * torch.randn(clean.shape)
    known = torch.where(observed, image, 0)
    first = tc.inpaint(known, observed).image
    values = image[:, observed]
    unit, spread = float(values.max() - values.min()), float(values.std(correction=0))
    estimate = start = torch.where(observed, image, first.clamp(values.min(), values.max()))
    members = groups(start / unit, (5, 5), 4, 15, 8)
    mean, back, losses, noise = float(values.mean()), torch.zeros_like(image), list[float](), 0.0
    for _ in range(4):
        flowed = flow_in_groups((estimate - mean - back) / unit, members, (5, 5), 0.3) * unit + mean
        lost = torch.where(observed, flowed - image, 0)
        losses.append(float(lost[:, observed].square().mean().sqrt()))
        noise = noise or 0.7 * losses[0]
        back = back + lost if losses[-1] > noise else back
        estimate = torch.where(observed, image, flowed + 0.5 * (flowed - estimate))
    assert min(losses) < noise < max(losses)
    found = refined(
        Observed.of(known, observed), first, GroupFlow(4, 0.3, 0.3, side=5, noise=noise / spread, members=8)
    )
    expected = torch.where(observed, image, estimate.clamp(values.min(), values.max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_large_ridge_tells_of_noise() -> None:
    clean, noisy = group_flow.flows_for(0.5, 1e-4), group_flow.flows_for(0.5, 0.04)
    assert noisy[: len(clean)] == clean
    assert all(flow.noise == 0 for flow in clean)
    assert all(flow.noise == pytest.approx(0.2) for flow in noisy[len(clean) :])


def test_smaller_patches_lie_within_the_larger_ones_and_cover_the_image() -> None:
    size = (61, 83)
    found = groups(torch.rand(2, *size), (9, 9), 4, 15, 8)
    inner = narrowed(found, size, (9, 9), (5, 5))
    shift = inner - found
    assert torch.equal(shift, shift[:, :1].expand_as(shift))
    rows, columns = shift // size[1], shift % size[1]
    assert {int(rows.min()), int(columns.min())} == {0}
    assert {int(rows.max()), int(columns.max())} == {4}
    covered = torch.zeros(size, dtype=torch.bool)
    for corner in inner[:, 0].tolist():
        covered[corner // 83 : corner // 83 + 5, corner % 83 : corner % 83 + 5] = True
    assert bool(covered.all())


@pytest.mark.parametrize("shape", [(3, 32, 30), (2, 1, 30, 28)])
def test_colours_and_batches_take_flows_by_themselves(shape: tuple[int, ...]) -> None:
    """The memory of the search is bounded by blocks: smaller ones give the same groups."""
    image = torch.stack([texture(*shape[-2:])[0] * (k + 1) for k in range(math.prod(shape[:-2]))]).reshape(shape)
    observed = torch.rand(shape[-2:]) < 0.5
    result = tc.inpaint(image, observed, passes=[tc.Guidance(radius=4), GroupFlow(iterations=3)])
    assert result.image.shape == image.shape
    assert torch.equal(result.image[..., observed], image[..., observed])


def test_the_mean_with_another_pass() -> None:
    image, observed = texture(30, 31), torch.rand(30, 31) < 0.5
    given, first = Observed.of(image, observed), tc.inpaint(image, observed).image
    guided = tc.Guidance(radius=6).at(2)
    other = tc.images.fill(given, guided, first).image
    found = tc.images.fill(given, tc.images.Averaged(guided, 0.25), first).image
    torch.testing.assert_close(found, first + 0.25 * (other - first), rtol=0, atol=1e-4)
    for weight in (0, 1.5):
        with pytest.raises(ValueError, match="weight"):
            tc.images.Averaged(guided, weight)
    with pytest.raises(TypeError, match="filler"):
        tc.images.Averaged(3)  # type: ignore[arg-type]


def test_a_plan_with_a_mean_is_made_in_order() -> None:
    flow, guidance = GroupFlow(), tc.Guidance()
    last = tc.images.Averaged(guidance.at(2))
    assert [Followed(guidance, 1, flow, last).at(k) for k in range(3)] == [guidance.at(0), flow, last]
    assert [Followed(guidance, 0, flow).at(k) for k in range(1)] == [flow]
