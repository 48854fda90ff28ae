"""What others fill images with, as the benchmarks call it: on tiny images, and where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("skimage")

from benchmarks import gsr, methods, others, restoration
from torch_cntk.images.groups import groups

OTHERS = [name for name in methods.METHODS if name not in ("finite", "wide", "cntk", "guided")]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_methods_fill_tiny_images(name: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in methods.available():
        pytest.skip(f"{methods.METHODS[name].needs} is not installed")
    monkeypatch.setattr(others, "_DENOISED", 2)
    monkeypatch.setattr(methods, "gsr", lambda image, observed: gsr.gsr(image, observed, 3))
    rows = torch.linspace(0.2, 0.8, 33)
    image = (rows[:, None] * rows[:32]).expand(channels, 33, 32).contiguous()
    observed = torch.ones(33, 32, dtype=torch.bool)
    observed[11:22, 10:20] = False
    known = torch.where(observed, image, 0)
    filled = methods.METHODS[name].fill(known, observed, methods.Options(network="")).image
    assert filled.shape == image.shape
    assert torch.equal(filled[:, observed], image[:, observed])
    # A slope: all of them stay within the range of what is known, and come near.
    assert float((filled - image).abs().max()) < 0.35


def groups_by_svd(values: Tensor, members: Tensor, threshold: float) -> Tensor:
    """One group after the other."""
    width = values.shape[1]
    total, count = torch.zeros_like(values), torch.zeros_like(values)
    for group in members.tolist():
        places = [(slice(k // width, k // width + 8), slice(k % width, k % width + 8)) for k in group]
        left, sizes, right = torch.linalg.svd(torch.stack([values[place].flatten() for place in places]), False)
        thinned = left @ torch.diag(torch.where(sizes > threshold, sizes, 0)) @ right
        for place, patch in zip(places, thinned, strict=True):
            total[place] += patch.reshape(8, 8)
            count[place] += 1
    return total / count


def test_groups_lose_their_small_singular_values() -> None:
    values = torch.rand(20, 23) * 255
    members = groups(values[None], (8, 8), 4, 20, 60)
    found = gsr._sparse(values, members, 500.0)
    torch.testing.assert_close(found, groups_by_svd(values, members, 500.0), rtol=1e-3, atol=0.05)


def test_groups_restore_a_pattern_better_than_lines_between_pixels() -> None:
    grid = torch.arange(40.0)
    image = (0.5 + 0.4 * torch.sin(grid * 1.1)[:, None] * torch.cos(grid * 0.9))[None]
    observed = torch.rand(40, 40) < 0.6
    between = gsr._interpolated(image[0], observed)[None]
    errors = [float((x - image).square().mean()) for x in (between, gsr.gsr(image, observed, 20))]
    assert errors[1] < errors[0] / 2


def test_images_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 x 8"):
        gsr.gsr(torch.rand(1, 7, 9), torch.ones(7, 9, dtype=torch.bool))


def test_what_is_not_installed_is_left_out_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    missing = ("cv2", "bm3d", "patchmatch")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    assert {"telea", "fsr", "shift-map", "idbp", "patch-match"}.isdisjoint(methods.available())
    assert "IDBP, BM3D (module bm3d)" in methods.left_out()
    assert "pip install 'torch-cntk[benchmarks]'" in methods.left_out()
    assert "PatchMatch" not in restoration.methods()
    monkeypatch.setattr(methods, "has", lambda module: True)
    assert methods.left_out() == ""
