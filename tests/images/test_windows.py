"""Holes in windows of their own: the same as the whole, whatever the holes are, and only where that is cheaper."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import torch_cntk as tc
from torch_cntk._internal.threads import side_by_side
from torch_cntk.images import Coarse, Equations, Guided, Observed, Periodic, each_pass, fill, piecewise, windows
from torch_cntk.images.common import common_part
from torch_cntk.images.decay import near_kernel
from torch_cntk.images.filler import Locality
from torch_cntk.images.windows import Cut, cut
from torch_cntk.operators import DenseOperator

HALF_A_GREY_LEVEL = 0.5 / 255
TIGHT = tc.ConjugateGradient(tolerance=1e-7, max_iterations=2000)


def kernel_of(levels: int, ndim: int, dtype: torch.dtype = torch.float64) -> tc.Kernel:
    net = tc.hourglass(
        levels, 1, 0, channels=1, in_channels=1, slope=0.3, up_filter=(3, 3), one_by_one=False, ndim=ndim
    )
    return net.kernel(tc.priors.Uniform(0, 0.1), dtype=dtype)


@pytest.fixture(autouse=True)
def _small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a window costs beside its pixels would keep small images whole.
    monkeypatch.setattr(windows, "_EACH", 0)


def picture(size: tuple[int, ...], generator: torch.Generator, channels: int = 2) -> Tensor:
    """Waves, an edge and some noise, between 0 and 1."""
    grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    wave: Any = sum(torch.sin(grid / (5 + 3 * axis)) for axis, grid in enumerate(grids))
    edge = (grids[0] > size[0] * 0.45).double()
    images = torch.stack([(k + 1) * wave + 2 * edge for k in range(channels)])
    images += 0.1 * torch.rand(images.shape, generator=generator, dtype=images.dtype)
    images -= images.min()
    return images / images.max()


def with_holes(kind: str, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Masks of kinds: see the names."""
    observed = torch.ones(size, dtype=torch.bool)
    middle = [int(torch.randint(n // 3, 2 * n // 3, (1,), generator=generator)) for n in size]
    if kind == "spot":
        observed[tuple(slice(m, m + 4) for m in middle)] = False
    elif kind == "corner":
        observed[tuple(slice(0, 3) for _ in size)] = False
        observed[tuple(slice(-2, None) for _ in size)] = False
    elif kind == "islands":
        for _ in range(3):
            observed[tuple(int(torch.randint(0, n, (1,), generator=generator)) for n in size)] = False
    elif kind == "scratch":
        observed[middle[0] : middle[0] + 2, middle[1] - 20 : middle[1] + 20] = False
    else:
        assert kind == "ring"
        y, x = (torch.arange(n, dtype=torch.float64) - m for n, m in zip(size, middle, strict=True))
        observed[((y[:, None] ** 2 + x**2).sqrt() - 9).abs() < 1.5] = False
    return observed


def windows_of(result: tc.InpaintingResult) -> bool:
    return "window" in result.solver


@pytest.mark.parametrize("kind", ["spot", "corner", "islands", "scratch", "ring"])
@pytest.mark.parametrize("levels", [1, 2])
def test_windows_give_what_the_whole_gives(levels: Any, kind: Any, generator: torch.Generator) -> None:
    size = (150, 132)
    image, observed = picture(size, generator), with_holes(kind, size, generator)
    kernel = kernel_of(levels, 2)
    found = tc.inpaint(image, observed, kernel, solver=TIGHT)
    whole = tc.inpaint(image, observed, kernel, solver=TIGHT, windows=False)
    assert windows_of(found) and not windows_of(whole)
    assert found.converged and found.residual <= 1e-7
    assert float((found.image - whole.image).abs().max()) < HALF_A_GREY_LEVEL
    assert torch.equal(found.image[:, observed], image[:, observed])


@pytest.mark.parametrize(("ndim", "size"), [(1, (600,)), (2, (58, 50)), (3, (76, 60, 64))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_any_number_of_dimensions_and_both_precisions(
    ndim: Any, size: Any, dtype: Any, generator: torch.Generator
) -> None:
    image = picture(size, generator, 1).to(dtype)
    observed = with_holes("islands" if ndim == 2 else "spot", size, generator)
    if ndim == 2:  # few enough pixels for one window
        observed[:] = True
        observed[20, 24] = False
    kernel = kernel_of(1, ndim, dtype)
    # Signals and small images are solved directly, as a matrix.
    solver = tc.Direct() if ndim < 3 else tc.ConjugateGradient(1e-5)
    found = tc.inpaint(image, observed, kernel, solver=solver)
    whole = tc.inpaint(image, observed, kernel, solver=solver, windows=False)
    assert windows_of(found) and found.image.dtype == dtype
    assert float((found.image - whole.image).abs().max()) < HALF_A_GREY_LEVEL


def test_offset_and_scale_do_not_matter(generator: torch.Generator) -> None:
    size = (150, 132)
    image, observed, kernel = picture(size, generator), with_holes("spot", size, generator), kernel_of(1, 2)
    plain = tc.inpaint(image, observed, kernel, solver=TIGHT).image
    other = tc.inpaint(image * 1e4 - 7e6, observed, kernel, solver=TIGHT).image
    # The pixels themselves are rounded at 7e6.
    torch.testing.assert_close((other + 7e6) / 1e4, plain, rtol=0, atol=1e-6)
    even = tc.inpaint(torch.full_like(image, 0.3), observed, kernel)
    assert windows_of(even) and bool((even.image == 0.3).all())


def test_each_image_of_a_batch_has_windows_of_its_own(generator: torch.Generator) -> None:
    size = (140, 132)
    images = torch.stack([picture(size, generator) for _ in range(3)])
    masks = torch.stack([with_holes(kind, size, generator) for kind in ("spot", "corner", "spot")])
    masks[2] = True
    kernel = kernel_of(1, 2)
    found = tc.inpaint(images, masks, kernel, solver=TIGHT)
    assert windows_of(found)
    for image, mask, filled in zip(images, masks, found.image, strict=True):
        alone = tc.inpaint(image, mask, kernel, solver=TIGHT, windows=False).image
        assert float((alone - filled).abs().max()) < HALF_A_GREY_LEVEL
    together = tc.inpaint(images, masks[0], kernel, solver=TIGHT)
    alone = tc.inpaint(images[1], masks[0], kernel, solver=TIGHT).image
    torch.testing.assert_close(together.image[1], alone, rtol=0, atol=1e-6)


def test_the_whole_is_solved_where_that_is_cheaper_or_asked_for(generator: torch.Generator) -> None:
    size, kernel = (96, 90), kernel_of(1, 2)
    image = picture(size, generator)
    scattered = torch.rand(size, generator=generator) < 0.5
    spot = with_holes("spot", size, generator)
    for observed, options in (
        (scattered, {}),
        (spot, {"ridge": "cv"}),
        (spot, {"wrap": True}),
        (spot[:30, :30], {}),
    ):
        part = image[:, : observed.shape[0], : observed.shape[1]]
        found: Any = tc.inpaint(part, observed, kernel, **options)
        whole: Any = tc.inpaint(part, observed, kernel, windows=False, **options)
        assert not windows_of(found)
        assert torch.equal(found.image, whole.image)


@pytest.mark.parametrize("radius", [3, 5])
def test_guided_windows_give_what_the_whole_gives(radius: Any, generator: torch.Generator) -> None:
    size = (130, 122)
    image, observed = picture(size, generator).float(), with_holes("spot", size, generator)
    given = Observed.of(image, observed)
    start = tc.inpaint(image, observed, kernel_of(1, 2, torch.float32)).image
    solver = tc.ConjugateGradient(1e-5, preconditioner="jacobi")
    fillers = [Guided(radius=radius, solver=solver)] * 2
    found, whole = ([*each_pass(given, fillers, start, windows=use)][-1] for use in (True, False))
    assert len(found.parts) == 1 and not whole.parts
    assert float((found.image - whole.image).abs().max()) < HALF_A_GREY_LEVEL
    # What a pass changes is far more than that.
    assert float((found.image - start).abs().max()) > 4 * HALF_A_GREY_LEVEL
    coarse = fill(given, Coarse(fillers[0], 2), start)
    assert torch.isfinite(coarse.image).all()


@hypothesis_given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_windows_cover_what_is_missing_once_and_know_what_is_around(data: Any) -> None:
    ndim = data.draw(st.integers(1, 3))
    size = tuple(data.draw(st.integers(1, (4000, 130, 40)[ndim - 1])) for _ in range(ndim))
    margin = tuple(data.draw(st.integers(0, 9)) for _ in range(ndim))
    step = tuple(data.draw(st.integers(1, 4)) for _ in range(ndim))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    missing = rng.random(size) < data.draw(st.sampled_from([1e-3, 0.01, 0.1, 1.0]))
    missing.reshape(-1)[rng.integers(missing.size)] = True
    plan = Cut(margin, step, lambda n: tuple(k + 2 for k in n))
    found = cut(missing, plan)
    if found is None:
        return
    counts = np.zeros(size, int)
    for window in found:
        counts[window.core] += 1
        for core, place, n, m, s in zip(window.core, window.place, size, margin, step, strict=True):
            assert 0 <= place.start <= max(core.start - m, 0) and place.start % s == 0
            assert place.stop == min(core.stop + m, n)
    assert (counts[missing] == 1).all()
    assert sum(map(plan.cost, found)) <= math.prod(k + 2 for k in size) / 2


def test_far_holes_are_apart_and_near_ones_together() -> None:
    missing = np.zeros((400, 400), bool)
    missing[50:54, 60:63] = missing[58:60, 70:72] = missing[300:310, 310:311] = True
    plan = Cut((20, 20), (1, 1), lambda n: n)
    found = cut(missing, plan)
    assert found is not None
    assert sorted((window.core for window in found), key=str) == [
        (slice(300, 310), slice(310, 311)),
        (slice(50, 60), slice(60, 72)),
    ]
    # A long scratch is a chain of windows, not one with all of the image.
    missing = np.eye(600, dtype=bool)
    found = cut(missing, plan)
    assert found is not None and len(found) > 5 and sum(map(plan.cost, found)) < 600**2 / 3


def test_threads_change_no_bit_and_are_put_back(generator: torch.Generator) -> None:
    size = (150, 132)
    image, observed = picture(size, generator).float(), with_holes("corner", size, generator)
    kernel, before = kernel_of(1, 2, torch.float32), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(tc.inpaint(image, observed, kernel))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert windows_of(results[0])
    assert torch.equal(results[0].image, results[1].image)


def test_work_side_by_side_overlaps_and_ends_well() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = threading.Barrier(2, timeout=20)

        def meet(part: int) -> int:
            both.wait()
            return torch.get_num_threads() * 10 + part

        assert list(side_by_side(meet, range(2))) == [10, 11]

        # Two calls that overlap: the first to begin ends first.
        first, second = iter(side_by_side(abs, [1, 2], 1)), iter(side_by_side(abs, [3], 1))
        assert (next(first), next(second)) == (1, 3)
        assert list(first) == [2] and torch.get_num_threads() == 1
        assert list(second) == [] and torch.get_num_threads() == 2

        def fail(part: int) -> int:
            raise ValueError(f"part {part}")

        with pytest.raises(ValueError, match="part 0"):
            list(side_by_side(fail, range(5)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Bells:
    """A user's filler: a Gaussian of the distance, which says too small a margin."""

    margin: int
    length: float = 3.0

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in given.size), indexing="ij")
        places = torch.stack(grids, -1).reshape(-1, given.ndim)
        matrix = torch.exp(-torch.cdist(places, places).square() / (2 * self.length**2)).to(given.pixels)
        return Equations(DenseOperator(matrix.reshape(*given.size, *given.size)), 1e-2, solver=tc.Direct())

    def locality(self, given: Observed, estimate: Tensor | None) -> Locality:
        return Locality(lambda: self, Cut((self.margin,), (1,), lambda n: n), 1e-2)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of the windows that were solved, in order."""
    seen: list[int] = []
    solve = piecewise._Solve.__call__

    def noted(self: Any, job: Any, *bar: bool) -> Any:
        seen.append(job.window.place[0].stop - job.window.place[0].start)
        return solve(self, job, *bar)

    monkeypatch.setattr(piecewise._Solve, "__call__", noted)
    yield seen


def test_a_margin_that_is_too_small_grows(places: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    # Between the hole and a wall of the other sign, three pixels away, a margin of two misses what matters.
    image = torch.zeros(1, 400, dtype=torch.float64)
    image[0, :197], image[0, 203:] = 1.0, -0.5
    image += 0.2 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
    observed = torch.ones(400, dtype=torch.bool)
    observed[199:201] = False
    given = Observed.of(image, observed, 1)
    found = fill(given, Bells(4))
    assert sorted(places)[-1] > 10  # of a core of 2 and margins of 4
    whole = fill(given, Bells(4), windows=False)
    monkeypatch.setattr(piecewise, "_SAME", float("inf"))
    unchecked = fill(given, Bells(4))
    # Two margins can agree by chance: the check of one far too small leaves two grey levels at most in 40 draws,
    # half of one in most of them. So the draw is fixed.
    wrong = [float((filled.image - whole.image).abs().max()) for filled in (found, unchecked)]
    assert wrong[0] < HALF_A_GREY_LEVEL < wrong[1]
    assert found.parts and found.solution.weights.numel() == 0


def test_a_guess_serves_the_same_window_again(generator: torch.Generator) -> None:
    size = (150, 132)
    image, observed = picture(size, generator), with_holes("spot", size, generator)
    given, filler = Observed.of(image, observed), Periodic(kernel_of(1, 2), solver=tc.ConjugateGradient(1e-6))
    first = fill(given, filler)
    again = fill(given, filler, guess=first)
    assert first.parts and first.solution.iterations > 0
    assert again.solution.iterations == 0
    torch.testing.assert_close(again.image, first.image)


def test_the_worst_window_is_what_is_reported(generator: torch.Generator) -> None:
    size = (170, 150)
    image, observed = picture(size, generator), with_holes("corner", size, generator)
    found = tc.inpaint(image, observed, kernel_of(1, 2), solver=tc.ConjugateGradient(1e-12, max_iterations=12))
    assert found.solver.startswith("2 windows, ")
    assert not found.converged and found.iterations == 12 and found.residual > 1e-12
    assert found.status is tc.solvers.Status.ITERATIONS


@pytest.mark.parametrize("levels", [1, 2])
def test_weights_are_those_of_the_inverse_as_a_matrix(levels: Any) -> None:
    kernel, ridge = kernel_of(levels, 1), 1e-3
    near = near_kernel(kernel, ridge)
    assert near is not None
    size = (64 * kernel.period[0],)
    average = near.kernel.stationary_average().dense(size).double()
    whole = kernel.stationary_average().dense(size)
    noise = ridge * float(whole[0, 0])
    assert noise == pytest.approx(near.ridge * float(average[0, 0]), rel=1e-9)
    inverse = torch.linalg.inv(average + noise * torch.eye(size[0], dtype=torch.float64))[size[0] // 2]
    weights = inverse / inverse[size[0] // 2]
    far = (torch.arange(size[0]) - size[0] // 2).abs() > near.margin[0]
    nearly = (torch.arange(size[0]) - size[0] // 2).abs() >= near.margin[0] - 1
    assert float(weights[far].norm()) <= 3e-4 < float(weights[nearly].norm())


def test_kernels_that_look_everywhere_have_no_windows() -> None:
    dense = tc.Sequential(tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.Conv2d(1, 1, 3)).kernel(
        tc.priors.Tensor(torch.rand(1, 12, 12, dtype=torch.float64))
    )
    image, observed = torch.rand(1, 12, 12, dtype=torch.float64), torch.ones(12, 12, dtype=torch.bool)
    observed[4, 4] = False
    assert Periodic(dense).locality(Observed.of(image, observed)) is None
    few = Observed.of(image[:, :2, :2], torch.tensor([[True, False], [True, True]]))
    assert replace(Periodic(kernel_of(1, 2)), ridge="cv").locality(few) is None


@pytest.mark.parametrize(("levels", "size"), [(1, (51,)), (2, (300,)), (1, (64, 49))])
def test_the_common_part_is_that_of_the_whole(levels: Any, size: Any, generator: torch.Generator) -> None:
    image, kernel, ridge = picture(size, generator), kernel_of(levels, len(size)), 1e-3
    near = near_kernel(kernel, ridge)
    assert near is not None
    image[..., 0] += 1  # edges count more than their pixels do: next to them, less is known
    given = Observed.of(image, torch.ones(size, dtype=torch.bool), len(size))
    normal, equations = given.normalised, Periodic(kernel, ridge).equations(given.normalised)
    targets, known = normal.on(equations.operator.size)
    weights = tc.Direct().solve(tc.solvers.Regression(equations.operator, known, ridge), targets).weights
    expected = weights.flatten(2).sum(2) * near.common
    found = common_part(given, near).flatten(1)
    # The weights are found to 1e-3, and periodic beyond the margin to what that leaves out: of deviations below 1.
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-4)
    # The plain mean, 0, is further off.
    assert float(expected.abs().max()) > 1e-3
