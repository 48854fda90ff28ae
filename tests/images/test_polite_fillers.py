"""What users give for images, masks and fillers: copies to write into, and words where it is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk._internal import memory

IMAGE = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1))
MASK = torch.rand(8, 8, generator=torch.Generator().manual_seed(2)) < 0.6


class Rude:
    """Writes into everything that it gets, also by way of numpy, of which torch takes no notice."""

    def equations(self, given: tc.images.Observed, estimate: torch.Tensor | None) -> tc.images.Equations:
        kernel = tc.default_kernel(given.mask, given.ndim)
        canvas = tuple(-(-(n + r) // p) * p for n, r, p in zip(given.size, kernel.radius, kernel.period, strict=True))
        given.pixels.numpy()[:] = 1e9
        given.mask.numpy()[:] = True
        if estimate is not None:
            estimate.fill_(torch.nan)
        return tc.images.Equations(kernel.operator(canvas, dtype=given.pixels.dtype), ridge=1e-4)


class Polite(Rude):
    """The same equations."""

    def equations(self, given: tc.images.Observed, estimate: torch.Tensor | None) -> tc.images.Equations:
        copied = tc.images.Observed(given.pixels.clone(), given.mask.clone(), given.shape, given.wrap)
        return super().equations(copied, None)


def test_a_filler_may_write_into_what_it_gets() -> None:
    image, mask = IMAGE.clone(), MASK.clone()
    result = tc.inpaint(image, mask, passes=[Rude(), Rude()])
    assert torch.equal(result.image, tc.inpaint(image, mask, passes=[Polite(), Polite()]).image)
    assert torch.equal(result.image[:, MASK], IMAGE[:, MASK])
    assert torch.equal(image, IMAGE)
    assert torch.equal(mask, MASK)


@pytest.mark.parametrize(
    "given", [tc.images.Guided, [tc.images.Guided], [tc.Guidance], Polite, [tc.images.Guided(), Polite]]
)
def test_the_class_of_a_filler_is_none(given: Any) -> None:
    with pytest.raises(TypeError, match=r"got the class \w+; make one: \w+\(\.\.\.\)"):
        tc.inpaint(IMAGE, MASK, passes=given)
    with pytest.raises(TypeError, match="got the class"):
        tc.inpaint(IMAGE, MASK, passes=1, guidance=given)


def test_classes_elsewhere() -> None:
    with pytest.raises(TypeError, match="got the class Guided; make one"):
        tc.images.Coarse(tc.images.Guided, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got the class Periodic; make one"):
        tc.images.fill(tc.images.Observed.of(IMAGE, MASK), tc.images.Periodic)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got the class int$"):
        tc.inpaint(IMAGE, MASK, passes=[int])  # type: ignore[list-item]


STRANGE: dict[str, Any] = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "compressed": lambda tensor: tensor.to_sparse_csr(),
    "meta": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_tensors_without_numbers_in_a_row_are_refused(kind: str) -> None:
    with pytest.raises(TypeError, match=r"expected the image (as an ordinary tensor|with numbers), got a"):
        tc.inpaint(STRANGE[kind](IMAGE[0]), MASK)
    with pytest.raises(TypeError, match=r"expected observed (as an ordinary tensor|with numbers), got a"):
        tc.inpaint(IMAGE, STRANGE[kind](MASK))


def test_the_worst_of_several_parts_is_told() -> None:
    """One channel is solved in no time, the other never: the status is that of the latter, the residual the largest."""
    image = torch.stack([torch.ones(12, 12), torch.rand(12, 12, generator=torch.Generator().manual_seed(0))])
    observed = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(3)) < 0.7
    solver = tc.ConjugateGradient(1e-12, max_iterations=1, preconditioner="none")
    result = tc.inpaint(image.double(), observed, solver=solver)
    assert not result.converged
    assert result.status is tc.Status.ITERATIONS
    assert result.residual > 1e-12


@pytest.mark.parametrize(("dtype", "each"), [(torch.float32, 192), (torch.float64, 232)])
def test_an_image_without_room_is_refused_before_it_is_copied(
    dtype: Any, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.zeros(3, 512, 512, dtype=dtype)
    observed = torch.eye(512) > 0
    image[:, 0, 0] = 1
    kernel = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3)).kernel(tc.priors.Uniform())
    needed = each * image.numel()
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": needed - 1)
    given = tc.images.Observed.of(image, observed)
    with pytest.raises(tc.OutOfMemoryError, match=r"filling 3 channels of 512 x 512 pixels needs .* of one channel"):
        tc.images.fill(given, tc.images.Periodic(kernel), windows=False)
    assert "mean" not in vars(given)
