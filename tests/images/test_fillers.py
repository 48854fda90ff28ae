"""What every filler must do, a user's own included: one regression, checked against the same equations as a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images import (
    Autocorrelated,
    Coarse,
    Equations,
    Filler,
    Guided,
    Observed,
    Periodic,
    Series,
    each_pass,
    fill,
)
from torch_cntk.operators import DenseOperator

TIGHT = tc.ConjugateGradient(tolerance=1e-12, max_iterations=5000, preconditioner="jacobi")
# float64, condition 1e5 at most, and solutions to 1e-12.
CLOSE = 1e-7
SIZE = (18, 22)


@dataclass(frozen=True)
class Bells:
    """A user's filler, which inherits from nothing: a Gaussian of the distance between two pixels."""

    length: float = 2.0
    ridge: float | Literal["cv"] = 1e-3
    solver: tc.Solver | None = None

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        grids = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in given.size), indexing="ij")
        places = torch.stack(grids, -1).reshape(-1, given.ndim)
        matrix = torch.exp(-torch.cdist(places, places).square() / (2 * self.length**2)).to(given.pixels)
        return Equations(DenseOperator(matrix.reshape(*given.size, *given.size)), self.ridge, solver=self.solver)


@dataclass(frozen=True)
class Lookalikes:
    """Another: pixels whose estimates are alike, in a regression of what is left of the estimate's mean."""

    solver: tc.Solver | None = None

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        assert estimate is not None
        values = given.in_one_unit(estimate)[0].flatten(1).T
        values = values / values.std()
        matrix = torch.exp(-torch.cdist(values, values).square()) + 0.1 * torch.eye(len(values)).to(values)
        mean = estimate.flatten(2).mean(2).reshape(*estimate.shape[:2], *(1,) * given.ndim)
        return Equations(DenseOperator(matrix.reshape(*given.size, *given.size)), 1e-2, mean, self.solver)


KERNEL = tc.hourglass(2, 1, 0, channels=1, in_channels=1, slope=0.3, one_by_one=False).kernel(
    tc.priors.Uniform(0, 0.1), dtype=torch.float64
)
FILLERS: dict[str, Any] = {
    "periodic": Periodic(KERNEL, 1e-3, replace(TIGHT, preconditioner="circulant")),
    "guided": Guided(radius=4, solver=TIGHT),
    "autocorrelated": Autocorrelated(white=1e-2, ridge=1e-2, solver=TIGHT),
    "bells": Bells(solver=tc.Direct()),
    "lookalikes": Lookalikes(TIGHT),
    "coarse guided": Coarse(Guided(radius=4, solver=TIGHT), 2),
    "coarse bells": Coarse(Bells(solver=tc.Direct()), 3),
}
every_filler = pytest.mark.parametrize("name", FILLERS)


def picture(size: Any = SIZE, channels: Any = 2) -> Any:
    """Smooth, with a wave; different in each channel."""
    grids = torch.meshgrid(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in size), indexing="ij")
    waves: list[Any] = [sum((1 + k + axis) * grid for axis, grid in enumerate(grids)) for k in range(channels)]
    return torch.stack([0.4 + 0.1 * k + 0.3 * torch.sin(4 * wave) for k, wave in enumerate(waves)])


def masked(generator: torch.Generator, size: Any = SIZE, channels: Any = 2) -> Any:
    image, observed = picture(size, channels), torch.rand(size, generator=generator) < 0.6
    observed.view(-1)[:2] = torch.tensor([True, False])
    noise = 0.1 * torch.rand(image.shape, generator=generator, dtype=image.dtype)
    return image, observed, torch.where(observed, image, image.mean((-2, -1), keepdim=True) + noise)


def by_matrix(given: Observed, equations: Equations) -> Tensor:
    """The same regression as a dense matrix, factorised; in the units of ``given``."""
    canvas = equations.operator.size
    identity = torch.eye(math.prod(canvas), dtype=torch.float64).reshape(-1, *canvas)
    matrix = equations.operator.multiply(identity).reshape(len(identity), -1)
    place = torch.arange(len(identity)).reshape(canvas)[tuple(slice(n) for n in given.size)]
    known = place[given.mask[0]]
    mean = torch.zeros(given.pixels.shape[:2] + (1,) * given.ndim) if equations.mean is None else equations.mean
    mean = mean.expand(*given.pixels.shape[:2], *canvas).flatten(2).double()
    block = matrix[known][:, known]
    assert not isinstance(equations.ridge, str)
    block = block + equations.ridge * matrix.diagonal().mean() * torch.eye(len(known), dtype=torch.float64)
    targets = given.pixels[:, :, given.mask[0]] - mean[..., known]
    weights = torch.linalg.solve(block, targets.flatten(0, 1).T).T.reshape(targets.shape)
    return (weights @ matrix[known] + mean)[..., place]


def test_all_of_them_are_fillers_by_their_one_method() -> None:
    for filler in FILLERS.values():
        assert isinstance(filler, Filler)
    assert not isinstance(Bells(), Series)
    assert isinstance(tc.Guidance(), Series)
    assert not isinstance(KERNEL, Filler)


@pytest.mark.parametrize("name", [name for name in FILLERS if not name.startswith("coarse")])
def test_a_fill_is_the_regression_of_its_equations(name: Any, generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    given = Observed.of(image, observed)
    normal, start = given.normalised, given.normalise(estimate[None])
    expected = given.denormalise(by_matrix(normal, FILLERS[name].equations(normal, start)))[0]
    filled = fill(given, FILLERS[name], estimate)
    assert filled.converged and filled.residual <= 1e-12
    torch.testing.assert_close(filled.image[:, ~observed], expected[:, ~observed], rtol=0, atol=CLOSE)


@pytest.mark.parametrize(("filler", "factor"), [(Guided(radius=4, solver=TIGHT), 2), (Bells(solver=tc.Direct()), 3)])
def test_a_coarse_fill_adds_what_changes_in_means_of_blocks(
    filler: Any, factor: Any, generator: torch.Generator
) -> None:
    # Blocks are observed whole or not at all, and the size is a multiple: means are plain ones.
    size = tuple(6 * factor + factor * axis for axis in range(2))
    image = picture(size)
    blocks = torch.rand([n // factor for n in size], generator=generator) < 0.7
    blocks[0, :2] = torch.tensor([True, False])
    observed = blocks.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    estimate = torch.where(observed, image, 0.5)
    means, start = (torch.nn.functional.avg_pool2d(x, factor) for x in (image, estimate))
    change = fill(Observed.of(means, blocks), filler, start).image - start
    expected = estimate + torch.nn.functional.interpolate(change[None], scale_factor=factor, mode="bilinear")[0]
    filled = fill(Observed.of(image, observed), Coarse(filler, factor), estimate).image
    # Guided features see the estimate in units of the blocks' range: rounding only.
    torch.testing.assert_close(filled[:, ~observed], expected[:, ~observed], rtol=0, atol=1e-6)


@every_filler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_observed_pixels_are_kept(name: Any, dtype: Any, generator: torch.Generator) -> None:
    image, observed, estimate = (x.to(dtype) if x.is_floating_point() else x for x in masked(generator))
    filler = replace_solver(FILLERS[name], tc.ConjugateGradient(1e-4, preconditioner="jacobi"))
    filled = fill(Observed.of(image, observed), filler, estimate).image
    assert filled.dtype == dtype and filled.shape == image.shape
    assert torch.equal(filled[:, observed], image[:, observed])
    assert bool(torch.isfinite(filled).all())
    assert not torch.equal(filled[:, ~observed], estimate[:, ~observed])


def replace_solver(filler: Any, solver: Any) -> Any:
    if isinstance(filler, Coarse):
        return replace(filler, filler=replace_solver(filler.filler, solver))
    return replace(filler, solver=solver)


@every_filler
@pytest.mark.parametrize("junk", [math.nan, -math.inf, 1e200])
def test_what_is_missing_does_not_matter(name: Any, junk: Any, generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    filled = fill(Observed.of(image, observed), FILLERS[name], estimate).image
    dirty = torch.where(observed, image, junk)
    assert torch.equal(fill(Observed.of(dirty, observed), FILLERS[name], estimate).image, filled)


@every_filler
@pytest.mark.parametrize(
    ("factor", "offset"), [(1.0, 1e6), (-300.0, 20.0), (1e-200, 0.0), (1e250, -1e250), (1.0, 293.0)]
)
def test_scale_and_offset_pass_through(name: Any, factor: Any, offset: Any, generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    plain = fill(Observed.of(image, observed), FILLERS[name], estimate).image
    moved = fill(Observed.of(factor * image + offset, observed), FILLERS[name], factor * estimate + offset)
    assert moved.converged
    # An offset of 1e6 leaves ten digits of the picture.
    torch.testing.assert_close((moved.image - offset) / factor, plain, rtol=0, atol=1e-5)


@every_filler
@pytest.mark.parametrize(("factor", "offset"), [(1e-30, 0.0), (1e30, 0.0), (1.0, 1e6), (1e-36, 1e-30)])
def test_float32_of_any_scale_and_offset_is_filled(
    name: Any, factor: Any, offset: Any, generator: torch.Generator
) -> None:
    image, observed, estimate = masked(generator)
    image, estimate = ((factor * x + offset).float() for x in (image, estimate))
    filler = replace_solver(FILLERS[name], tc.ConjugateGradient(1e-4, preconditioner="jacobi"))
    filled = fill(Observed.of(image, observed), filler, estimate)
    # Float32 has seven digits, of which a condition of up to 1e5 may leave no more than three to the residual.
    assert 0 < filled.residual <= 1e-3
    # The same pixels, as they were rounded, in float64.
    double = fill(Observed.of(image.double(), observed), filler, estimate.double()).image
    spread = double.flatten(1).std(1).max()
    # Ten times the residual, and half a unit in the last place of the result.
    bound = 10 * max(filled.residual, 1e-4) * spread + torch.finfo(torch.float32).eps * double.abs().max()
    assert (filled.image.double() - double).abs().max() <= bound


@every_filler
def test_a_constant_channel_stays_constant_to_the_bit(name: Any, generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    for value in (0.1, 1 / 3, -1e5, 235.0):
        flat = image.clone()
        flat[1] = value
        start = torch.where(observed, flat, estimate)
        filled = fill(Observed.of(flat, observed), FILLERS[name], start).image
        if name.startswith("coarse"):  # what the estimate lacks is added in blocks
            assert (filled[1] - value).abs().max() <= (estimate[1] - value).abs().max()
        else:
            assert torch.equal(filled[1], flat[1])


@every_filler
def test_channels_of_different_units_do_not_disturb_one_another(name: Any, generator: torch.Generator) -> None:
    """A channel of noise at 1e-30 and one of kelvins: each is filled, and the small one guides nothing."""
    image, observed, estimate = masked(generator)
    units = torch.tensor([1e-30, 1.0], dtype=torch.float64).reshape(2, 1, 1)
    small = fill(Observed.of(units * image, observed), FILLERS[name], units * estimate).image / units
    alone = fill(Observed.of(image[1:], observed), FILLERS[name], estimate[1:]).image
    # Features are scaled by a mean over channels, of which one is nearly 0 now.
    tolerance = 0.05 if "guided" in name or name == "lookalikes" else 1e-5
    torch.testing.assert_close(small[1:], alone, rtol=0, atol=tolerance)
    assert (small[0] - image[0]).abs().max() < 1


@every_filler
def test_the_last_weights_are_a_start(name: Any, generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    given = Observed.of(image, observed)
    filler = replace_solver(FILLERS[name], tc.ConjugateGradient(1e-8, max_iterations=5000, preconditioner="jacobi"))
    first = fill(given, filler, estimate)
    start = first.coarse.start if first.coarse else None
    again = fill(given, filler, estimate, guess=None if first.coarse else first)
    assert first.solution.iterations > 0 and (start is not None or again.solution.iterations == 0)
    torch.testing.assert_close(again.image, first.image, rtol=0, atol=1e-6)


@every_filler
def test_passes_auto_and_bars_work(name: Any, generator: torch.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    image, observed = picture((30, 32)).float(), torch.rand(30, 32, generator=generator) < 0.5
    filler = replace_solver(FILLERS[name], None)
    if name == "periodic":
        filler = replace(filler, kernel=None)
    if name == "bells":
        filler = replace(filler, ridge="cv")
    twice = tc.inpaint(image, observed, passes=[filler, filler])
    assert (twice.passes, twice.guidance) == (2, ())
    assert 0 < twice.residual < 0.1 and twice.converged and twice.iterations >= 0
    counted = tc.inpaint(image, observed, passes=2, guidance=filler)
    assert torch.equal(counted.image, twice.image)
    assert counted.guidance == (filler,)
    assert capsys.readouterr().err == ""
    chosen = tc.inpaint(image, observed, passes="auto", guidance=filler, progress=True)
    shown = capsys.readouterr().err
    assert "leaving out" in shown and (chosen.passes == 0 or "passes" in shown)
    first = tc.inpaint(image, observed)
    assert chosen.passes > 0 or torch.equal(chosen.image, first.image)
    assert torch.equal(chosen.image[:, observed], image[:, observed])


def test_auto_takes_the_best_of_several_fillers(generator: torch.Generator) -> None:
    image, observed = picture((30, 32)), torch.rand(30, 32, generator=generator) < 0.5
    flat = Bells(length=0.01)  # fills in the mean
    good = Bells(length=3.0)
    result = tc.inpaint(image, observed, KERNEL, passes="auto", guidance=[flat, good])
    assert result.guidance == (good,) and result.passes > 0
    error = [(x - image).square().mean() for x in (result.image, tc.inpaint(image, observed, KERNEL).image)]
    assert error[0] < error[1]


@pytest.mark.parametrize("name", ["guided", "lookalikes", "coarse guided"])
def test_each_image_of_a_batch_gets_equations_of_its_own(name: Any, generator: torch.Generator) -> None:
    images = torch.stack([picture(), 100 - 50 * picture().flip(1)])
    masks = torch.rand(2, *SIZE, generator=generator) < 0.6
    masks[:, 0, 0] = True
    together = tc.inpaint(images, masks, KERNEL, solver=TIGHT, passes=[FILLERS[name]])
    for image, mask, filled in zip(images, masks, together.image, strict=True):
        alone = tc.inpaint(image, mask, KERNEL, solver=TIGHT, passes=FILLERS[name]).image
        torch.testing.assert_close(filled, alone, rtol=1e-6, atol=1e-6)


def test_an_operator_for_all_images_of_a_batch(generator: torch.Generator) -> None:
    images = torch.stack([picture(), 3 - picture()])
    masks = torch.rand(2, *SIZE, generator=generator) < 0.6
    masks[:, 0, 0] = True
    for filler in (FILLERS["periodic"], FILLERS["bells"]):
        together = fill(Observed.of(images, masks), filler).image
        for image, mask, filled in zip(images, masks, together, strict=True):
            torch.testing.assert_close(filled, fill(Observed.of(image, mask), filler).image, rtol=0, atol=1e-8)


def test_coarse_passes_go_on_on_the_smaller_image(generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    given, coarse = Observed.of(image, observed), Coarse(Guided(radius=4), 2)
    results = list(each_pass(given, [coarse, coarse], estimate))
    first, second = results[0].coarse, results[1].coarse
    assert first is not None and second is not None
    assert torch.equal(second.start, first.start)
    assert torch.equal(second.estimate, first.estimate)
    assert not torch.equal(second.filled.image, first.filled.image)


def test_one_two_and_three_dimensions(generator: torch.Generator) -> None:
    for size in ((60,), (14, 15), (6, 7, 8)):
        image, observed = picture(size, 1), torch.rand(size, generator=generator) < 0.7
        observed.view(-1)[:2] = torch.tensor([True, False])
        for filler in (Guided(radius=3), Autocorrelated(), Bells(), Lookalikes(), Coarse(Bells(), 2)):
            result = tc.inpaint(image, observed, passes=[filler])
            assert torch.equal(result.image[:, observed], image[:, observed])
            assert bool(torch.isfinite(result.image).all())


def test_what_is_no_filler_is_refused(generator: torch.Generator) -> None:
    image, observed, estimate = masked(generator)
    given = Observed.of(image, observed)

    class Wrong:
        def equations(self, given: Any, estimate: Any) -> Any:
            return DenseOperator(torch.eye(4).reshape(2, 2, 2, 2))

    class Small(Wrong):
        def equations(self, given: Any, estimate: Any) -> Any:
            return Equations(super().equations(given, estimate))

    with pytest.raises(TypeError, match="expected a filler, with a method equations, got str"):
        fill(given, "guided", estimate)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a filler to give Equations, got DenseOperator"):
        fill(given, Wrong(), estimate)
    with pytest.raises(ValueError, match=r"at least the image's \(18, 22\) pixels, got one on \(2, 2\)"):
        fill(given, Small(), estimate)
    with pytest.raises(TypeError, match="expected a filler, with a method equations, got int"):
        Coarse(3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected factor to be at least 1"):
        Coarse(Bells(), 0)
    for filler in (Guided(), Autocorrelated()):
        with pytest.raises(ValueError, match=r"expected an estimate, whose .* got None"):
            fill(given, filler)
        with pytest.raises(ValueError, match="expected one image, got a batch of 2"):
            fill(Observed.of(torch.stack([image, image]), observed), filler, torch.stack([estimate, estimate]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"passes": []}, ValueError, "at least one filler in passes"),
        ({"passes": [3, Bells()]}, TypeError, "expected passes as a Guidance or another filler, got int"),
        ({"passes": Bells(), "guidance": Bells()}, ValueError, "no guidance beside passes"),
        ({"passes": 2, "guidance": [Bells(), Guided()]}, ValueError, 'passes="auto" to choose from 2 kinds'),
        ({"passes": "auto", "guidance": [Bells(), 3]}, TypeError, "expected guidance as a Guidance or another filler"),
    ],
)
def test_passes_that_make_no_sense_are_refused(options: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        tc.inpaint(picture(), torch.eye(*SIZE) == 0, KERNEL, **options)


def test_guidance_may_stand_in_a_list_of_fillers(generator: torch.Generator) -> None:
    image, observed, _ = masked(generator)
    settings = tc.Guidance(radius=4)
    listed = tc.inpaint(image, observed, KERNEL, passes=[settings, settings])
    assert torch.equal(listed.image, tc.inpaint(image, observed, KERNEL, passes=2, guidance=settings).image)


WITHOUT_WEIGHTS = tc.Sequential(tc.Identity()).kernel(tc.priors.Uniform())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ridge": "x"}, ValueError, 'a number or "cv"'),
        ({"ridge": -1.0}, ValueError, "at least 0"),
        ({"mean": torch.tensor(float("nan"))}, ValueError, "a finite mean"),
        ({"mean": 0.5}, TypeError, "the mean as a torch tensor"),
        ({"mean": torch.zeros(7, 7)}, ValueError, "a mean that broadcasts"),
        ({"solver": "auto"}, TypeError, "a solver such as"),
        ({"operator": 3}, TypeError, "expected an operator"),
        ({"operator": WITHOUT_WEIGHTS.operator((16, 16))}, ValueError, 'not zero everywhere; .* only the kind="nngp"'),
    ],
)
def test_equations_that_are_none_are_refused(options: Any, error: Any, message: str) -> None:
    operator = tc.load_kernel("uniform-2x128-relu").operator((16, 16))

    class Wrong:
        def equations(self, given: tc.images.Observed, estimate: torch.Tensor | None) -> tc.images.Equations:
            return tc.images.Equations(**{"operator": operator, **options})

    observed = torch.rand(16, 16) < 0.6
    with pytest.raises(error, match=message):
        tc.inpaint(torch.rand(1, 16, 16), observed, passes=[Wrong()])


@pytest.mark.parametrize("size", [(16, 16), (17, 21), (40, 9)])
def test_the_example_of_the_protocol_is_the_periodic_filler(size: Any, generator: torch.Generator) -> None:
    """As the docstring of ``Filler`` has it; the canvases differ, in pixels that are not observed."""
    kernel = tc.load_kernel("uniform-2x128-relu")

    class Fixed:
        def equations(self, given: tc.images.Observed, estimate: torch.Tensor | None) -> tc.images.Equations:
            room = [n + r for n, r in zip(given.size, kernel.radius, strict=True)]
            canvas = tuple(-(-n // p) * p for n, p in zip(room, kernel.period, strict=True))
            return tc.images.Equations(kernel.operator(canvas, dtype=given.pixels.dtype), ridge=1e-3)

    image = torch.rand(1, *size, generator=generator, dtype=torch.float64)
    observed = torch.rand(size, generator=generator) < 0.6
    given = tc.images.Observed.of(image, observed, 2)
    found = tc.images.fill(given, Fixed()).image
    expected = tc.images.fill(given, tc.images.Periodic(kernel, ridge=1e-3)).image
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


def test_the_autocorrelation_of_a_constant_fills_with_it() -> None:
    observed = torch.rand(1, 24) < 0.5
    observed[0, 0] = True
    image = torch.full((1, 1, 24), 0.3)
    result = tc.inpaint(image, observed, passes=[tc.images.Autocorrelated()]).image
    torch.testing.assert_close(result, image)
