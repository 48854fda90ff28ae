"""The scripts of the paper's experiments run, save what they find, and go on from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

from benchmarks import experiment, images, large_holes, methods, reconstruction
from benchmarks.images import cropped, psnr, shrunk, square_hole, ssim, strokes
from torch_cntk.images import random_mask
from torch_cntk.images.files import read_image


@pytest.fixture(autouse=True)
def _without_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_CNTK_DATA", raising=False)


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_reconstruction_from_run_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs make one table; the report needs no run, and tells what is in the rows."""
    common = ["--fast", "--out", str(tmp_path), "--missing", "0.4"]
    reconstruction.main([*common, "--methods", "biharmonic", "cntk", "guided"])
    reconstruction.main([*common, "--methods", "wide", "finite", "--seeds", "0"])
    rows = {row["method"]: row for row in rows_in(tmp_path)}
    assert set(rows) == {"biharmonic", "cntk", "guided", "wide", "finite"}
    assert rows["finite"]["told"]["steps"] == experiment.FAST["steps"]
    assert rows["finite"]["network"] == "uniform-2x4-leaky0.1"
    assert rows["wide"]["network"] == "uniform-2x128-leaky0.1"
    for row in rows.values():
        assert (row["height"], row["width"], row["seed"], row["kind"]) == (32, 32, 0, "40 % missing")
        assert row["seconds"] > 0
    # Three steps of training are worse than anything else.
    assert min(rows.values(), key=lambda row: row["psnr"]) is rows["finite"]

    capsys.readouterr()
    reconstruction.main([*common, "--report"])
    told = capsys.readouterr().out
    for row in rows.values():
        assert f"{row['psnr']:.2f} / {row['ssim']:.3f}" in told
    assert "mask seeds 0" in told
    assert f"{rows['cntk']['cores']} cores" in told
    assert "--methods wide finite" in told
    assert str(tmp_path) not in told
    assert (tmp_path / "reconstruction.md").read_text() == told.removesuffix("\n")
    # Five methods, what is known, and the truth.
    page = read_image(tmp_path / "reconstruction.jpg").pixels
    assert page.shape[2] == 7 * 256
    assert float(page.std()) > 0.1


def test_a_resumed_run_measures_what_is_missing(tmp_path: Path) -> None:
    common = ["--fast", "--out", str(tmp_path)]
    reconstruction.main([*common, "--methods", "biharmonic"])
    before = rows_in(tmp_path)
    reconstruction.main([*common, "--methods", "biharmonic", "cntk", "--resume"])
    first, second = rows_in(tmp_path)
    assert [first] == before
    assert second["method"] == "cntk"
    assert "--resume" not in second["command"]


def test_numbers_are_those_of_the_fills(tmp_path: Path) -> None:
    """PSNR and SSIM belong to the saved picture, whose observed pixels are the truth's."""
    page = tmp_path / "p.jpg"
    common = ["--fast", "--out", str(tmp_path), "--page", str(page)]
    large_holes.main([*common, "--kinds", "strokes", "--methods", "biharmonic"])
    (row,) = rows_in(tmp_path)
    made = experiment.parser(None, "large_holes", kinds=["strokes"], seed=0, images=None).parse_args([])
    vars(made).update(experiment.FAST, fast=True)
    (task,) = large_holes.tasks(made)
    fill = read_image(tmp_path / "fills" / f"{experiment.Record(**row).slug}.png").pixels
    assert torch.equal(fill[:, task.observed], task.truth[:, task.observed].mul(255).round() / 255)
    # Saved with 8 bits, measured without.
    assert psnr(fill, task.truth) == pytest.approx(row["psnr"], abs=0.3)
    assert ssim(fill, task.truth) == pytest.approx(row["ssim"], abs=0.01)
    assert row["missing"] == pytest.approx(1 - float(task.observed.double().mean()))
    assert page.exists()


def test_methods_do_not_see_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def fill(image: Any, observed: Any, options: Any) -> Any:
        seen.append((image, observed))
        return methods.Filled(image)

    monkeypatch.setitem(methods.METHODS, "biharmonic", methods.Method("biharmonic", fill))
    reconstruction.main(["--fast", "--out", str(tmp_path), "--methods", "biharmonic"])
    ((image, observed),) = seen
    assert not bool(observed.all())
    assert bool((image[:, ~observed] == 0).all())


def test_an_interrupted_run_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(image: Any, observed: Any, options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(methods.METHODS, "cntk", methods.Method("CNTK", interrupted))
    with pytest.raises(SystemExit, match="interrupted"):
        reconstruction.main(["--fast", "--out", str(tmp_path), "--methods", "biharmonic", "cntk", "guided"])
    assert [row["method"] for row in rows_in(tmp_path)] == ["biharmonic"]
    assert "biharmonic" in capsys.readouterr().out


def test_a_row_takes_the_place_of_its_like(tmp_path: Path) -> None:
    for seeds in (["0"], ["0", "1"]):
        reconstruction.main(["--fast", "--out", str(tmp_path), "--methods", "biharmonic", "--seeds", *seeds])
    assert [row["seed"] for row in rows_in(tmp_path)] == [0, 1]
    first, second = rows_in(tmp_path)
    told = (tmp_path / "reconstruction.md").read_text()
    assert f"{(first['psnr'] + second['psnr']) / 2:.2f}" in told


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    options = ["--fast", "--out", str(tmp_path), "--methods", "finite"]
    reconstruction.main(options)
    (before,) = rows_in(tmp_path)
    reconstruction.main(options)
    (after,) = rows_in(tmp_path)
    # Nothing was left to do, and that is no reason to claim less time.
    assert after["psnr"] == before["psnr"]
    assert after["told"]["steps"] == before["told"]["steps"]
    assert after["seconds"] == after["told"]["training seconds"] == before["told"]["training seconds"]
    assert after["processor_seconds"] == before["processor_seconds"] > 0


def test_unknown_images_and_damaged_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected images among coffee"):
        reconstruction.main(["--fast", "--out", str(tmp_path), "--only", "tea"])
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="expected rows of this benchmark"):
        reconstruction.main(["--fast", "--out", str(tmp_path), "--report"])


@pytest.mark.parametrize("size", [(64, 96), (33, 20)])
@pytest.mark.parametrize("seed", range(5))
def test_made_up_holes(size: Any, seed: Any) -> None:
    hole = square_hole(size, seed)
    rows, columns = (~hole).any(1).nonzero(), (~hole).any(0).nonzero()
    # One rectangle, off the border.
    assert int((~hole).sum()) == len(rows) * len(columns)
    assert int(rows.min()) > 0
    assert int(rows.max()) < size[0] - 1
    assert 0.5 < len(rows) / (min(size) // 6) < 1.5
    written = strokes(size, seed)
    assert 0.03 < float((~written).double().mean()) < 0.6
    assert torch.equal(written, strokes(size, seed))
    assert not torch.equal(written, strokes(size, seed + 1))


def test_parts_of_images(generator: torch.Generator) -> None:
    image = torch.rand(1, 8, 12, generator=generator)
    observed = random_mask((8, 12), 0.1, 3)
    small, known = shrunk(image, observed, 4)
    assert known is not None
    for a in range(2):
        for b in range(3):
            block = (slice(4 * a, 4 * a + 4), slice(4 * b, 4 * b + 4))
            assert float(small[0, a, b]) == pytest.approx(float(image[0][block].mean()), abs=1e-6)
            assert bool(known[a, b]) == bool(observed[block].all())
    assert torch.equal(cropped(image, 6), image[:, 1:7, 3:9])
    assert torch.equal(cropped(image, 10), image[:, :, 1:11])


def test_measures(generator: torch.Generator) -> None:
    truth = torch.rand(1, 16, 16, generator=generator) * 0.5
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-4)
    assert psnr(truth, truth) == math.inf
    assert ssim(truth, truth) == pytest.approx(1)
    assert psnr(truth + 9, truth) == pytest.approx(psnr(torch.ones_like(truth), truth))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["uniform-2x8-leaky0.1", "uniform-plain-2x8-relu", "uniform-skip-2x8-leaky0.2"])
def test_finite_network_is_the_kernels(name: Any, channels: Any) -> None:
    """Nothing but the number of the image's channels differs from the network behind the kernel's name."""
    from torch_cntk import priors
    from torch_cntk.zoo.catalogue import recipe

    net = methods.finite_network(name, channels)
    assert net.out_channels == channels
    made = recipe(name)
    assert made is not None
    kernel, own = (part.kernel(priors.Uniform(0, 0.1), (16, 16)).dense((16, 16)) for part in (made.network, net))
    assert torch.allclose(kernel, own, rtol=1e-9)


def test_only_networks_have_finite_ones() -> None:
    with pytest.raises(ValueError, match="expected the name of a network"):
        methods.finite_network("no-such-thing", 1)


def test_filters_are_in_the_name() -> None:
    assert methods.Options(network="uniform-skip-5x128-leaky0.2", filters=32).finite_network == (
        "uniform-skip-5x32-leaky0.2"
    )


@pytest.mark.parametrize("name", ["large_holes.jpg", "reconstruction.jpg"])
def test_pages_of_the_docs_are_small(name: Any) -> None:
    page = Path(__file__).parents[2] / "docs" / name
    assert 10_000 < page.stat().st_size < 150_000
    assert float(read_image(page).pixels.std()) > 0.1


def test_holes_have_measures_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--kinds", "two holes", "--crop", "48", "--only", "camera", "coffee", "--out", str(tmp_path)]
    large_holes.main([*common, "--methods", "biharmonic", "cntk"])
    rows = rows_in(tmp_path)
    assert {(row["image"], row["channels"]) for row in rows} == {("camera", 1), ("coffee", 3)}
    told = capsys.readouterr().out
    assert "The missing pixels alone, means over 2 images (coffee, camera):" in told
    for method, title in (("biharmonic", "biharmonic"), ("cntk", "CNTK (default)")):
        psnrs = [row["holes"]["psnr"] for row in rows if row["method"] == method]
        (line,) = [text for text in told.splitlines() if text.startswith(f"| {title}") and text.count("|") == 6]
        assert f"{sum(psnrs) / 2:.2f}" in line


def test_measures_in_holes() -> None:
    truth, missing = torch.rand(3, 40, 40) * 0.5 + 0.25, torch.zeros(40, 40, dtype=torch.bool)
    missing[10:30, 12:31] = True
    same = images.in_holes(truth, truth, missing)
    assert same == pytest.approx({"psnr": 120, "ssim": 1, "gradients": 1, "fine": 1}, rel=1e-5)
    off = truth.clone()
    off[:, missing] += 0.1
    assert images.in_holes(off, truth, missing)["psnr"] == pytest.approx(20, abs=1e-3)
    flat = torch.where(missing, 0.5, truth)
    found = images.in_holes(flat, truth, missing)
    assert found["fine"] < 0.2
    assert found["gradients"] < 0.6


def test_two_holes() -> None:
    mask = images.two_holes((60, 70), 3)
    assert torch.equal(mask, square_hole((60, 70), 6) & square_hole((60, 70), 7))
