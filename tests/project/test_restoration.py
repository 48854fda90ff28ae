"""The damages of the benchmark of restorations, and that it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("skimage")

from benchmarks import restoration
from benchmarks.damages import DAMAGES, all_at_once, drawn_mask
from torch_cntk.images.mask_files import read_mask

SIZE = (96, 120)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damages_cover_a_part_and_follow_from_their_seed(kind: str) -> None:
    damage = DAMAGES[kind](SIZE, 3)
    assert tuple(damage.cover.shape) == SIZE
    assert 0 <= float(damage.cover.min()) < 0.01 < 0.6 < float(damage.cover.max()) <= 1
    assert 0.005 < float(damage.missing.double().mean()) < 0.3
    assert torch.equal(DAMAGES[kind](SIZE, 3).cover, damage.cover)
    assert not torch.equal(DAMAGES[kind](SIZE, 4).cover, damage.cover)
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    damaged = damage.on(image)
    assert torch.equal(damaged[:, damage.cover == 0], image[:, damage.cover == 0])
    full = damage.cover == 1
    assert torch.allclose(damaged[:, full], torch.tensor(damage.colour)[:, None].expand(3, int(full.sum())))


@pytest.mark.parametrize("grown", range(4))
def test_drawn_masks_cover_the_damage(tmp_path: Path, grown: int) -> None:
    """Read as a file, too; and they go no further than the brush."""
    missing = DAMAGES["scratches"](SIZE, 1).missing
    mask = drawn_mask(missing, grown)
    touched = mask < 255
    assert bool(touched[missing].all())
    distance = torch.from_numpy(np.asarray(restoration_distance(missing)))
    assert float(distance[touched].max()) <= grown + 1
    Image.fromarray(mask.numpy()).save(tmp_path / "m.png")
    assert bool((~read_mask(tmp_path / "m.png", SIZE))[missing].all())


def restoration_distance(missing: torch.Tensor) -> np.ndarray:
    """By comparing with every missing pixel."""
    places = np.argwhere(missing.numpy())
    grid = np.stack(np.meshgrid(*map(np.arange, missing.shape), indexing="ij"), -1)
    return np.stack([np.square(grid - place).sum(-1) for place in places]).min(0) ** 0.5


def test_all_at_once() -> None:
    assert len(all_at_once(SIZE, 0)) == len(DAMAGES)


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "DAMAGES", {"dust": DAMAGES["dust"]})
    restoration.main(["--size", "48", "--images", "coffee", "--methods", "CNTK", "biharmonic"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| dB / SSIM in the holes | CNTK ")
    assert "CNTK, auto" in restoration.methods()
    assert len(lines) == 2 + 1 + 2


def test_the_truth_measures_best() -> None:
    truth = restoration.photograph("coffee", 48)
    missing = DAMAGES["dust"]((48, 48), 0).missing
    assert restoration.measured(truth, truth, missing) == pytest.approx((120, 1))
    assert restoration.measured(1 - truth, truth, missing)[0] < 20
