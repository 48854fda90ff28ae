"""Standard deviations and samples of fills, against the formulas of a Gaussian process on dense matrices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images import Coarse, GroupFlow, Guided, posterior

SIZES = {1: (24,), 2: (10, 12), 3: (4, 4, 6)}
# float64 through a Cholesky factorisation of condition 1e4.
CLOSE = 1e-8


def kernel_of(ndim: int) -> tc.Kernel:
    return tc.default_network(1, ndim=ndim, width=4).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float64)


def picture(
    ndim: int, generator: torch.Generator, lead: tuple[int, ...] = (2,), share: float = 0.6
) -> tuple[Tensor, Tensor]:
    size = SIZES[ndim]
    image = torch.randn(*lead, *size, generator=generator, dtype=torch.float64) * 3 + 7
    observed = torch.rand(size, generator=generator) < share
    observed.view(-1)[:2] = True
    observed.view(-1)[-1] = False
    return image, observed


def dense_posterior(kernel: tc.Kernel, channel: Tensor, observed: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Mean of the missing pixels and their covariance, on a torus that keeps opposite edges apart."""
    size = tuple(channel.shape)
    canvas = tuple(
        math.ceil(max(n + r, 2 * r + 1) / p) * p for n, r, p in zip(size, kernel.radius, kernel.period, strict=True)
    )
    canvas = tuple(n + p for n, p in zip(canvas, kernel.period, strict=True))  # another one than the package takes
    numbers = torch.arange(math.prod(canvas)).reshape(canvas)[tuple(slice(n) for n in size)].flatten()
    pixels = math.prod(canvas)
    matrix = kernel.dense(canvas).reshape(pixels, pixels)[numbers][:, numbers]
    known = observed.flatten()
    values = channel.flatten()[known]
    left = values - values.mean()
    inner = matrix[known][:, known] + ridge * kernel_diagonal(kernel, canvas) * torch.eye(int(known.sum()))
    cross = matrix[~known][:, known]
    amplitude = left @ torch.linalg.solve(inner, left) / len(left)
    covariance = matrix[~known][:, ~known] - cross @ torch.linalg.solve(inner, cross.T)
    return cross @ torch.linalg.solve(inner, left) + values.mean(), amplitude * covariance


def kernel_diagonal(kernel: tc.Kernel, canvas: tuple[int, ...]) -> float:
    pixels = math.prod(canvas)
    return float(kernel.dense(canvas).reshape(pixels, pixels).diagonal().mean())


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("way", ["factorised", "one by one"])
def test_deviations_are_those_of_the_dense_formula(
    ndim: int, way: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver: Any = "auto"
    if way == "one by one":
        monkeypatch.setattr(posterior, "_FACTORISED", 0)
        # Variances err by the square of the residual.
        solver = tc.ConjugateGradient(tolerance=1e-6)
    kernel = kernel_of(ndim)
    image, observed = picture(ndim, generator)
    result = tc.inpaint(image, observed, kernel, ridge=1e-3, solver=solver, samples=2)
    assert result.std is not None
    assert result.std_error == 0
    assert result.std_how.startswith("exact")
    assert result.std.shape == image.shape
    assert bool((result.std[:, observed] == 0).all())
    for channel, std in zip(image, result.std, strict=True):
        _, covariance = dense_posterior(kernel, channel, observed, 1e-3)
        wanted = covariance.diagonal().sqrt()
        # The amplitude takes the solver's weights as they are.
        assert float((std[~observed] / wanted - 1).abs().max()) <= (CLOSE if way == "factorised" else 1e-4)


def test_few_missing_pixels_are_exact_to_the_square_of_the_residual(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "_FACTORISED", 0)
    image, observed = picture(2, generator)
    rough = tc.inpaint(image, observed, kernel_of(2), solver=tc.ConjugateGradient(1e-3), samples=1).std
    fine = tc.inpaint(image, observed, kernel_of(2), solver=tc.ConjugateGradient(1e-6), samples=1).std
    assert rough is not None
    assert fine is not None
    # Amplitudes differ by the residual; what is left of the ratio is the variances.
    ratio = (rough / fine)[:, ~observed]
    assert float((ratio / ratio.mean(1, keepdim=True) - 1).abs().max()) <= 1e-2


def test_samples_have_the_mean_and_the_covariance_of_the_process(generator: torch.Generator) -> None:
    kernel, count = kernel_of(2), 6000
    image, observed = picture(2, generator, (), share=0.9)
    result = tc.inpaint(image, observed, kernel, ridge=1e-2, samples=count, seed=torch.Generator().manual_seed(3))
    assert result.samples is not None
    assert result.samples.shape == (count, *image.shape)
    mean, covariance = dense_posterior(kernel, image, observed, 1e-2)
    drawn = result.samples[:, ~observed]
    deviation = covariance.diagonal().sqrt()
    # Six standard errors of each entry: some 200 of them are looked at.
    assert float(((drawn.mean(0) - mean) / deviation).abs().max()) <= 6 / math.sqrt(count)
    found = (drawn - mean).T @ (drawn - mean) / count
    scale = deviation[:, None] * deviation
    spread = ((1 + (covariance / scale).square()) / count).sqrt()
    assert float(((found - covariance) / scale / spread).abs().max()) <= 6


def test_channels_vary_together_as_their_observed_pixels_do(generator: torch.Generator) -> None:
    kernel, count, ridge = kernel_of(2), 4000, 1e-2
    image, observed = picture(2, generator, (3,), share=0.9)
    image[1] = image[0] + 0.3 * image[1]
    image[2] = -2 * image[0]
    drawn = tc.inpaint(image, observed, kernel, ridge=ridge, samples=count).samples
    assert drawn is not None
    # Of sums of channels, the formulas of one channel.
    for weights in ([1.0, -1.0, 0.0], [2.0, 0.0, 1.0], [0.5, 0.7, -0.2]):
        w = torch.tensor(weights, dtype=torch.float64)[:, None, None]
        mean, covariance = dense_posterior(kernel, (w * image).sum(0), observed, ridge)
        values = (w * drawn).sum(1)[:, ~observed]
        deviation = covariance.diagonal().sqrt()
        spread = (values - mean).square().mean(0).sqrt()
        floor = 1e-6 * float(image.std())  # the second sum is certain: the third channel follows the first
        assert bool(((spread - deviation).abs() <= 6 / math.sqrt(2 * count) * deviation + floor).all())


@pytest.mark.parametrize("lead", [(3,), (2, 2)])
def test_deviations_by_draws_are_off_by_what_is_said(
    lead: tuple[int, ...], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, observed = picture(2, generator, lead, share=0.3)
    kernel = kernel_of(2)
    exact = tc.inpaint(image, observed, kernel, samples=1)
    monkeypatch.setattr(posterior, "_FACTORISED", 0)
    monkeypatch.setattr(posterior, "_FEW", 0)
    found = tc.inpaint(image, observed, kernel, samples=12, seed=int(torch.randint(1 << 30, (), generator=generator)))
    assert found.std is not None
    assert exact.std is not None
    draws = 12 * math.prod(lead)
    assert found.std_error == pytest.approx(1 / math.sqrt(2 * draws))
    assert f"{draws} draws" in found.std_how
    off = (found.std / exact.std - 1)[..., ~observed].flatten(0, -2)[0]
    assert 0.5 * found.std_error <= float(off.square().mean().sqrt()) <= 2 * found.std_error


def test_a_deviation_takes_enough_draws_whatever_is_asked_for(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posterior, "_FACTORISED", 0)
    monkeypatch.setattr(posterior, "_FEW", 0)
    monkeypatch.setattr(posterior, "_NUMBERS", 3000)  # some draws at a time
    image, observed = picture(2, generator, ())
    result = tc.inpaint(image, observed, kernel_of(2), samples=2)
    assert result.std_error == pytest.approx(1 / 8)
    assert result.samples is not None
    assert len(result.samples) == 2


def test_masks_of_channels_and_of_images_have_deviations_of_their_own(generator: torch.Generator) -> None:
    image, _ = picture(2, generator, (2, 3))
    observed = torch.rand(2, 3, *SIZES[2], generator=generator) < 0.7
    kernel = kernel_of(2)
    result = tc.inpaint(image, observed, kernel, ridge=1e-3, samples=2)
    assert result.std is not None
    assert result.samples is not None
    assert result.samples.shape == (2, *image.shape)
    assert torch.equal(result.samples[:, observed], image[observed].expand(2, -1))
    for b in range(2):
        for c in range(3):
            _, covariance = dense_posterior(kernel, image[b, c], observed[b, c], 1e-3)
            wanted = covariance.diagonal().sqrt()
            found = result.std[b, c][~observed[b, c]]
            assert float((found / wanted - 1).abs().max()) <= CLOSE
            assert bool((result.std[b, c][observed[b, c]] == 0).all())


def test_one_mask_an_image(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = picture(2, generator, (3, 2))
    observed = torch.rand(3, *SIZES[2], generator=generator) < 0.7
    alone = [tc.inpaint(image[b], observed[b], kernel_of(2), samples=1).std for b in range(3)]
    together = tc.inpaint(image, observed, kernel_of(2), samples=1)
    assert together.std is not None
    torch.testing.assert_close(together.std, torch.stack([one for one in alone if one is not None]))
    monkeypatch.setattr(posterior, "_FACTORISED", 0)
    drawn = tc.inpaint(image, observed, kernel_of(2), samples=100)
    assert drawn.std is not None
    assert drawn.std_error == pytest.approx(1 / math.sqrt(2 * 200))
    missing = ~observed[:, None].expand(image.shape)
    assert float((drawn.std[missing] / together.std[missing] - 1).abs().max()) <= 6 * drawn.std_error


def test_deviations_are_in_the_images_units(generator: torch.Generator) -> None:
    image, observed = picture(2, generator)
    first = tc.inpaint(image, observed, kernel_of(2), samples=2)
    second = tc.inpaint(image * 1000 - 5e4, observed, kernel_of(2), samples=2)
    assert first.std is not None
    assert second.std is not None
    torch.testing.assert_close(second.std, 1000 * first.std, rtol=1e-9, atol=0)
    assert first.samples is not None
    assert second.samples is not None
    torch.testing.assert_close(second.samples, 1000 * first.samples - 5e4, rtol=1e-9, atol=1e-5)


def test_without_samples_nothing_changes(generator: torch.Generator) -> None:
    image, observed = picture(2, generator)
    result, drawn = (tc.inpaint(image, observed, kernel_of(2), samples=n) for n in (0, 3))
    assert result.std is None
    assert result.samples is None
    assert "std" not in repr(result)
    assert torch.equal(result.image, drawn.image)


def test_a_seed_repeats_and_a_generator_goes_on(generator: torch.Generator) -> None:
    image, observed = picture(2, generator)

    def drawn(seed: int | torch.Generator) -> Tensor:
        samples = tc.inpaint(image, observed, kernel_of(2), samples=1, seed=seed).samples
        assert samples is not None
        return samples

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))
    going_on = torch.Generator().manual_seed(5)
    assert torch.equal(drawn(going_on), drawn(5))
    assert not torch.equal(drawn(going_on), drawn(5))


@pytest.mark.parametrize("passes", [2, "auto", Guided(radius=3)])
def test_passes_give_those_of_the_last_one(passes: Any, generator: torch.Generator) -> None:
    ramp = torch.linspace(0, 1, 20, dtype=torch.float64)
    image = torch.sin(8 * ramp)[:, None] * torch.cos(5 * ramp) + 0.1 * torch.rand(20, 20, generator=generator)
    observed = torch.rand(20, 20, generator=generator) < 0.8
    guidance = None if isinstance(passes, Guided) else tc.Guidance(radius=3)
    result = tc.inpaint(image, observed, kernel_of(2), passes=passes, guidance=guidance, samples=3)
    plain = tc.inpaint(image, observed, kernel_of(2), samples=3)
    assert result.std is not None
    assert plain.std is not None
    assert bool((result.std[~observed] > 0).all())
    assert bool((result.std[observed] == 0).all())
    assert result.samples is not None
    assert torch.equal(result.samples[:, observed], image[observed].expand(3, -1))
    assert torch.equal(result.std, plain.std) == (result.passes == 0)


def test_arrays_half_precision_and_complete_images(generator: torch.Generator) -> None:
    image, observed = picture(2, generator)
    array = tc.inpaint(image.numpy(), observed.numpy(), kernel_of(2), samples=2)
    assert isinstance(array.std, np.ndarray)
    assert isinstance(array.samples, np.ndarray)
    half = tc.inpaint(image.half(), observed, kernel_of(2), samples=2)
    assert half.std is not None
    assert half.samples is not None
    assert half.std.dtype == half.samples.dtype == torch.float16
    complete = tc.inpaint(image, torch.ones_like(observed), kernel_of(2), samples=2)
    assert complete.std is not None
    assert complete.samples is not None
    assert not bool(complete.std.any())
    assert torch.equal(complete.samples, image.expand(2, *image.shape))


def test_files_have_deviations(tmp_path: Path, generator: torch.Generator) -> None:
    image = torch.rand(3, 12, 14, generator=generator)
    observed = torch.rand(12, 14, generator=generator) < 0.7
    tc.images.write_image(tmp_path / "a.png", image)
    result = tc.inpaint(tmp_path / "a.png", observed, kernel_of(2), samples=2)
    pixels = tc.images.read_image(tmp_path / "a.png").pixels
    same = tc.inpaint(pixels, observed, kernel_of(2), samples=2)
    assert result.std is not None
    assert same.std is not None
    torch.testing.assert_close(result.std, same.std)


def test_a_constant_channel_is_certain(generator: torch.Generator) -> None:
    image, observed = picture(2, generator)
    image[0] = 4.0
    result = tc.inpaint(image, observed, kernel_of(2), samples=2)
    assert result.std is not None
    assert result.samples is not None
    assert not bool(result.std[0].any())
    assert bool((result.samples[:, 0] == 4).all())
    assert bool((result.std[1][~observed] > 0).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": -1}, "samples to be at least 0, got -1"),
        ({"samples": 2.5}, "samples"),
        ({"samples": True}, "samples"),
        ({"samples": 1, "seed": "x"}, "seed"),
        ({"samples": 1, "mesh": Mesh.alone()}, "samples=0 beside a mesh"),
        ({"samples": 1, "passes": [Guided(radius=3), GroupFlow()]}, "GroupFlow"),
        ({"samples": 1, "passes": Coarse(Guided(radius=3), 2)}, "Coarse"),
        ({"samples": 1, "passes": 2, "guidance": tc.Guidance(coarse=2)}, "Coarse"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], words: str, generator: torch.Generator) -> None:
    image, observed = picture(2, generator)
    with pytest.raises((ValueError, TypeError), match=f"expected.*{words}"):
        tc.inpaint(image, observed, kernel_of(2), **options)


def test_what_excludes_each_other_is_told_before_files_are_read() -> None:
    with pytest.raises(ValueError, match="expected samples=0 beside a mesh"):
        tc.inpaint("no-such-photo.png", samples=1, mesh=Mesh.alone())
