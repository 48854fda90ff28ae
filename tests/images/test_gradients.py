"""Gradients of filled images, against differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import torch_cntk as tc
from torch_cntk._internal.ranks import Mesh

SIZE = (4, 6)
NETWORK = tc.Sequential(
    tc.StridedConv2d(2, 3, 3), tc.LeakyReLU(0.3), tc.NearestUp(2), tc.Conv2d(3, 3, 3), tc.LeakyReLU(0.3)
)
SOLVERS = [tc.Direct(), tc.ConjugateGradient(1e-13)]


@pytest.fixture(scope="module")
def kernel() -> tc.Kernel:
    return NETWORK.kernel(tc.priors.Uniform(0, 1))


def leaf(values: Tensor | float) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).requires_grad_()


def mask_of(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    mask = torch.rand(shape, generator=generator) < 0.6
    mask[..., 0, 0] = True
    mask[..., 1, 1] = False
    return mask


@pytest.mark.parametrize("solver", SOLVERS, ids=["direct", "cg"])
@pytest.mark.parametrize("masks", [(), (2,), (2, 2)], ids=["one mask", "one an image", "one a channel"])
def test_gradients_by_pixels_and_ridge(
    masks: tuple[int, ...], solver: tc.Solver, kernel: tc.Kernel, generator: torch.Generator
) -> None:
    image = leaf(torch.randn(2, 2, *SIZE, generator=generator, dtype=torch.float64))
    mask = mask_of((*masks, *SIZE), generator)

    def fill(image: Tensor, ridge: Tensor) -> Tensor:
        return tc.inpaint(image, mask, kernel, solver=solver, ridge=ridge).image

    assert gradcheck(fill, (image, leaf(0.1)), fast_mode=True)
    assert torch.equal(fill(image, leaf(0.1)), tc.inpaint(image.detach(), mask, kernel, solver=solver, ridge=0.1).image)


def test_gradients_are_the_weights_of_influence(kernel: tc.Kernel, generator: torch.Generator) -> None:
    image, mask = leaf(torch.rand(1, *SIZE, generator=generator, dtype=torch.float64)), mask_of(SIZE, generator)
    (found,) = torch.autograd.grad(tc.inpaint(image, mask, kernel, solver="direct").image[0, 1, 1], image)
    filler = tc.images.Periodic(kernel, solver=tc.Direct())
    expected = tc.images.influence(tc.images.Observed.of(image.detach(), mask), filler, (1, 1))
    torch.testing.assert_close(found[0], expected, rtol=1e-8, atol=1e-10)


def test_default_kernel_and_pixels_that_are_nan(generator: torch.Generator) -> None:
    mask = mask_of((1, *SIZE), generator)
    image = leaf(torch.randn(1, *SIZE, generator=generator, dtype=torch.float64))
    ridge = torch.nn.Parameter(torch.tensor(0.1))
    module = tc.images.Inpaint(solver="direct", ridge=ridge)
    assert [name for name, _ in module.named_parameters()] == ["ridge"]

    def fill(image: Tensor) -> Tensor:
        filled: Tensor = module(torch.where(mask, image, torch.nan))
        return filled

    assert gradcheck(fill, (image,), fast_mode=True)
    by_ridge, by_image = torch.autograd.grad(fill(image).square().sum(), (ridge, image))
    assert by_ridge != 0
    assert bool((by_image[~mask] == 0).all())


def periodic(slope: Tensor, second: Tensor) -> tc.Kernel:
    net = tc.Sequential(
        tc.StridedConv2d(2, 3, 3), tc.LeakyReLU(slope), tc.NearestUp(2), tc.Conv2d(3, 3, 3), tc.LeakyReLU(slope)
    )
    return net.kernel(tc.priors.Uniform(0, second))


def small(slope: Tensor, second: Tensor) -> tc.Sequential:
    return tc.Sequential(tc.Conv2d(2, 3, 3), tc.LeakyReLU(slope), tc.Conv2d(3, 3, 3, bias=True, bias_std=second))


KERNELS: dict[str, Callable[[Tensor, Tensor], tc.Kernel]] = {
    "periodic": periodic,
    "dense": lambda a, b: small(a, b).kernel(tc.priors.Coordinates(b), SIZE),
    "one size": lambda a, b: small(a, b).kernel(tc.priors.White(b), SIZE),
    "windows": lambda a, b: small(a, b).kernel(tc.priors.Coordinates(b), SIZE, radius=2),
}


@pytest.mark.parametrize("form", KERNELS)
def test_gradients_by_the_kernel(form: str, generator: torch.Generator) -> None:
    image = torch.randn(2, *SIZE, generator=generator, dtype=torch.float64)
    mask = mask_of((2, *SIZE), generator)

    def fill(image: Tensor, ridge: Tensor, slope: Tensor, second: Tensor) -> Tensor:
        return tc.inpaint(image, mask, KERNELS[form](slope, second), solver="direct", ridge=ridge).image

    assert gradcheck(fill, (leaf(image), leaf(0.1), leaf(0.3), leaf(0.8)), fast_mode=True)


def test_what_is_complete_or_asked_for_without_gradients(kernel: tc.Kernel, generator: torch.Generator) -> None:
    image = leaf(torch.randn(1, *SIZE, generator=generator, dtype=torch.float64))
    whole = tc.inpaint(image, torch.ones(SIZE, dtype=torch.bool), kernel).image
    assert torch.equal(torch.autograd.grad(whole.sum(), image)[0], torch.ones_like(image))
    mask = mask_of(SIZE, generator)
    with torch.no_grad():
        assert not tc.inpaint(image, mask, kernel).image.requires_grad
    assert not tc.inpaint(image.detach(), mask, kernel, passes=1).image.requires_grad
    half = tc.inpaint(image.half(), mask, kernel).image
    assert half.dtype == torch.float16
    assert torch.autograd.grad(half.float().sum(), image)[0].shape == image.shape


def test_gradients_that_there_are_not_are_refused(kernel: tc.Kernel, generator: torch.Generator) -> None:
    image, mask = leaf(torch.randn(1, *SIZE, generator=generator, dtype=torch.float64)), mask_of(SIZE, generator)
    for option, asked in (("passes", 1), ("passes", "auto"), ("samples", 2), ("mesh", Mesh.alone())):
        with pytest.raises(ValueError, match=f"expected {option}=.* where gradients are asked for.*, got {option}="):
            tc.inpaint(image, mask, kernel, **{option: asked})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a torch tensor as image"):
        tc.inpaint(image.detach().numpy(), mask.numpy(), kernel, ridge=leaf(0.1))
    with pytest.raises(ValueError, match="expected ridge to be at least 0"):
        tc.inpaint(image, mask, kernel, ridge=leaf(-0.1))
    with pytest.raises(TypeError, match="expected ridge to be a number"):
        tc.inpaint(image, mask, kernel, ridge=torch.ones(2))
    (first,) = torch.autograd.grad(tc.inpaint(image, mask, kernel).image.square().sum(), image, create_graph=True)
    with pytest.raises(NotImplementedError, match="expected first derivatives"):
        torch.autograd.grad(first.sum(), image)
