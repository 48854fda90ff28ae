"""Names that people try are understood, or answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import torch_cntk as tc


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Upsample", "NearestUp"),
        ("UNet", "hourglass"),
        ("MaxPool2d", "AvgPool2d"),
        ("relu", "ReLU"),
        ("Conv2D", "Conv2d"),
        ("in_paint", "inpaint"),
    ],
)
def test_wrong_names_say_what_there_is(name: str, answer: str) -> None:
    with pytest.raises(AttributeError, match=answer):
        getattr(tc, name)
    assert not hasattr(tc, name)


def test_a_name_like_no_other_says_only_that() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'qqqqq'$"):
        getattr(tc, "q" * 5)


def test_arguments_of_other_packages_are_answered() -> None:
    image, mask = torch.rand(1, 8, 8), torch.rand(8, 8) < 0.5
    with pytest.raises(TypeError, match="True = known"):
        tc.inpaint(image, mask=mask)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="True = known"):
        tc.train(tc.Sequential(tc.Conv2d(1, 1, 3)), image, mask=mask)  # type: ignore[call-arg]


def test_arguments_that_mean_the_same_are_understood() -> None:
    image, observed = torch.rand(1, 8, 8), torch.rand(8, 8) < 0.5
    net = tc.Sequential(tc.Conv2d(1, 4, 3), tc.ReLU(), tc.Conv2d(4, 1, 3))
    ours = tc.train(net, image, observed, steps=3, optimiser=torch.optim.SGD, lr=0.1)
    theirs = tc.train(net, image, observed, epochs=3, optimizer=torch.optim.SGD, learning_rate=0.1)  # type: ignore[call-arg]
    assert torch.equal(ours.output, theirs.output)
    with pytest.raises(TypeError, match="twice"):
        tc.train(net, image, observed, epochs=3, steps=3)  # type: ignore[call-arg]


def test_kernels_are_loaded_where_they_are_saved(tmp_path: Path) -> None:
    kernel = tc.Sequential(tc.Conv2d(1, 4, 3), tc.ReLU(), tc.Conv2d(4, 1, 3)).kernel(tc.priors.Uniform(0, 0.1))
    kernel.save(tmp_path / "k.safetensors")
    assert torch.equal(tc.Kernel.load(tmp_path / "k.safetensors").dense((9, 9)), kernel.dense((9, 9)))
