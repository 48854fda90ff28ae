"""The command, from arguments to files."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import torch_cntk as tc
from torch_cntk.cli import demo as demo_command
from torch_cntk.cli import inpaint as inpaint_command
from torch_cntk.cli import options as command_options
from torch_cntk.cli import process
from torch_cntk.cli import train as train_command
from torch_cntk.cli.main import _parser, main
from torch_cntk.images import photographs
from torch_cntk.images.files import read_image

HEIGHT, WIDTH = 24, 31


def smooth(channels: int) -> np.ndarray:
    """Slow waves, uint8 [H, W] or [H, W, channels]; a last channel of 2 or 4 is alpha and is not smooth."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    colours = [np.sin(2 * rows + columns), np.cos(columns), np.cos(3 * rows)]
    values = np.stack([np.round(128 + 80 * c) for c in colours], axis=-1).astype(np.uint8)
    alpha = np.random.default_rng(5).integers(1, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    parts = {1: values[..., :1], 2: np.dstack([values[..., :1], alpha]), 3: values, 4: np.dstack([values, alpha])}
    return parts[channels].squeeze()


def hole() -> np.ndarray:
    """True = known: a third of the pixels missing at random, and a square."""
    known = np.random.default_rng(6).random((HEIGHT, WIDTH)) > 0.33
    known[8:12, 20:24] = False
    return known


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with photo.png (holes are red), mask.png, a small kernel k.safetensors and an empty folder out."""
    known = hole()
    values = smooth(3)
    values[~known] = (255, 0, 0)
    Image.fromarray(values).save(tmp_path / "photo.png")
    Image.fromarray(known).save(tmp_path / "mask.png")
    network = tc.default_network(2)
    network.kernel(tc.priors.Uniform(0, 0.1)).save(tmp_path / "k.safetensors")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def fill(work: Path, *more: str, image: str = "photo.png", mask: str = "mask.png", out: str = "out/a.png") -> int:
    """Run ``torch-cntk inpaint`` with the small kernel and no passes, unless ``more`` names others."""
    kernel = () if "--kernel" in more else ("--kernel", str(work / "k.safetensors"))
    passes = () if "--passes" in more else ("--fast",)
    files = str(work / image), "--mask", str(work / mask), "-o", str(work / out)
    return main(["inpaint", *files, *kernel, *passes, *more])


def outputs(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "out").rglob("*"))


def assert_filled(path: Path, original: np.ndarray, holed: np.ndarray, known: np.ndarray) -> None:
    after = np.asarray(Image.open(path))
    assert after.dtype == np.uint8
    assert after.shape == original.shape
    assert np.array_equal(after[known], holed[known])
    error = np.abs(after[~known].astype(float) - original[~known])
    assert error.max() < 40
    assert error.mean() < 6


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_inpaint_png(work: Path, capsys: pytest.CaptureFixture[str], channels: int) -> None:
    original, known = smooth(channels), hole()
    holed = original.copy()
    if channels in (2, 4):
        holed[~known, :-1] = 255
    else:
        holed[~known] = 255
    Image.fromarray(holed).save(work / "photo.png")
    assert fill(work) == 0
    assert_filled(work / "out" / "a.png", original, holed, known)
    if channels in (2, 4):
        after = np.asarray(Image.open(work / "out" / "a.png"))
        assert np.array_equal(after[..., -1], original[..., -1])
    assert outputs(work) == ["a.png"]
    captured = capsys.readouterr()
    assert captured.err == ""
    missing = int((~known).sum())
    line = (
        rf"filled {missing} of 744 pixels \(31 x 24\) in \d+\.\d s by the first fill alone; "
        r"known pixels that were left out were off by (less than 1|\d+) of 255 "
        r"\(direct \(.*\), residual \d\.\de-\d\d\): .*a\.png\n"
    )
    assert re.fullmatch(line, captured.out), captured.out


def test_inpaint_with_the_default_kernel(work: Path) -> None:
    files = str(work / "photo.png"), "--mask", str(work / "mask.png"), "-o", str(work / "out" / "a.png")
    assert main(["inpaint", *files]) == 0
    assert_filled(work / "out" / "a.png", smooth(3), np.asarray(Image.open(work / "photo.png")), hole())


def test_inpaint_is_the_python_api(work: Path) -> None:
    observed = torch.from_numpy(hole())
    photograph = read_image(work / "photo.png")
    kernel = tc.load_kernel(work / "k.safetensors")
    result = tc.inpaint(photograph.pixels, observed, kernel, ridge=0.1)
    assert fill(work, "--ridge", "0.1") == 0
    after = read_image(work / "out" / "a.png").pixels
    assert float((after - result.image.clamp(0, 1)).abs().max()) < 0.51 / 255
    assert fill(work, out="out/b.png") == 0
    assert not torch.equal(read_image(work / "out" / "b.png").pixels, after)


def test_inpaint_palette(work: Path) -> None:
    image = Image.open(work / "photo.png").quantize(32)
    image.save(work / "photo.png")
    known, values = hole(), np.asarray(image.convert("RGB"))
    assert fill(work) == 0
    assert np.array_equal(np.asarray(Image.open(work / "out" / "a.png").convert("RGB"))[known], values[known])


def test_inpaint_jpeg_to_jpeg(work: Path) -> None:
    Image.fromarray(smooth(3)).save(work / "photo.jpg", quality=95)
    assert fill(work, image="photo.jpg", out="out/a.jpg") == 0
    with Image.open(work / "out" / "a.jpg") as image:
        assert image.format == "JPEG"
        after = np.asarray(image).astype(float)
    assert np.abs(after - smooth(3)).mean() < 6
    # The red of the holes did not come from the file: they were not painted there.
    assert fill(work, image="photo.jpg") == 0
    before = np.asarray(Image.open(work / "photo.jpg"))
    assert np.array_equal(np.asarray(Image.open(work / "out" / "a.png"))[hole()], before[hole()])


def test_inverted_mask(work: Path) -> None:
    Image.fromarray(~hole()).save(work / "inverted.png")
    assert fill(work) == 0
    assert fill(work, "--invert-mask", mask="inverted.png", out="out/b.png") == 0
    assert fill(work, mask="inverted.png", out="out/c.png") == 0
    same, other = (work / "out" / "b.png").read_bytes(), (work / "out" / "c.png").read_bytes()
    assert same == (work / "out" / "a.png").read_bytes() != other


def test_a_mask_of_known_pixels_copies_the_image(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (WIDTH, HEIGHT), 255).save(work / "mask.png")
    assert fill(work) == 0
    after, before = (np.asarray(Image.open(work / name)) for name in ("out/a.png", "photo.png"))
    assert np.array_equal(after, before)
    captured = capsys.readouterr()
    assert captured.out.startswith("nothing is missing: all 744 pixels (31 x 24) are as they were, in ")
    assert "warning: there is nothing to fill: all of" in captured.err


def test_an_image_may_replace_itself(work: Path) -> None:
    holed = np.asarray(Image.open(work / "photo.png"))
    assert fill(work, out="photo.png") == 0
    assert_filled(work / "photo.png", smooth(3), holed, hole())


def test_not_converged_is_a_warning(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill(work, "--tolerance", "1e-9", "--max-iterations", "2") == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"torch-cntk: warning: {tc.Status.ITERATIONS.value}; residual ")
    assert ", 2 iterations, " in captured.out
    assert outputs(work) == ["a.png"]


def test_progress(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill(work, "--progress", "--solver", "cg") == 0
    assert "conjugate gradients" in capsys.readouterr().err
    assert fill(work, "--no-progress") == 0
    assert capsys.readouterr().err == ""


def test_threads(work: Path, threads: int) -> None:
    assert fill(work, "--threads", str(threads + 1)) == 0
    assert torch.get_num_threads() == threads + 1


def test_defaults_are_those_of_the_python_api() -> None:
    arguments = _parser().parse_args(["inpaint", "a.png", "--mask", "m.png", "-o", "b.png"])
    assert arguments.ridge == inspect.signature(tc.inpaint).parameters["ridge"].default
    assert inpaint_command._solver(arguments) == inspect.signature(tc.inpaint).parameters["solver"].default


@pytest.mark.parametrize(
    ("options", "solver"),
    [
        (["--solver", "direct"], tc.Direct()),
        (["--solver", "cg"], tc.ConjugateGradient()),
        (["--tolerance", "1e-3"], tc.ConjugateGradient(1e-3)),
        (["--solver", "eigenpro"], tc.EigenPro()),
        (["--solver", "eigenpro", "--max-iterations", "7", "--tolerance", "1e-2"], tc.EigenPro(7, 1e-2)),
    ],
)
def test_solver_options(work: Path, options: list[str], solver: tc.Solver) -> None:
    files = ["inpaint", "a.png", "--mask", "m.png", "-o", "b.png"]
    assert inpaint_command._solver(_parser().parse_args([*files, *options])) == solver
    assert fill(work, *options) == 0
    assert_filled(work / "out" / "a.png", smooth(3), np.asarray(Image.open(work / "photo.png")), hole())


def test_cross_validated_ridge(work: Path) -> None:
    assert fill(work, "--ridge", "cv") == 0
    assert_filled(work / "out" / "a.png", smooth(3), np.asarray(Image.open(work / "photo.png")), hole())


def assert_refused(work: Path, capsys: pytest.CaptureFixture[str], match: str, status: int) -> None:
    """One line on stderr that says why, and no file."""
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert re.fullmatch(rf"torch-cntk: error: .*{match}.*\n", captured.err), captured.err
    assert outputs(work) == []


@pytest.mark.parametrize(
    ("options", "names", "match"),
    [
        ([], {"image": "nothing.png"}, r"no image file .*nothing\.png"),
        ([], {"mask": "nothing.png"}, r"no image file .*nothing\.png"),
        ([], {"image": "out"}, r"a folder for the filled images of a folder, got the file .*a\.png"),
        ([], {"image": "out", "out": "no"}, "images .* in the folder .*out, got none"),
        ([], {"out": "no/a.png"}, "no folder"),
        ([], {"out": "out"}, "expected a file to write to, got the folder"),
        ([], {"out": "out/a.gif"}, r"suffix \.png, \.jpg, .*, \.avif, got the suffix '\.gif'"),
        ([], {"out": "out/a"}, r"suffix \.png, \.jpg, .*, \.avif, got none"),
        ([], {"image": "k.safetensors"}, "expected a PNG, JPEG, TIFF, WebP, BMP or AVIF image"),
        (["--ridge", "-1"], {}, "expected --ridge to be at least 0, got -1"),
        (["--ridge", "nan"], {}, "expected --ridge to be finite"),
        (["--tolerance", "0"], {}, "expected tolerance > 0"),
        (["--max-iterations", "0"], {}, "expected max_iterations to be at least 1"),
        (["--threads", "0"], {}, "expected --threads to be at least 1"),
        (["--kernel", "nothing.safetensors"], {}, r"no kernel file .*nothing\.safetensors"),
    ],
)
def test_mistakes(
    work: Path, capsys: pytest.CaptureFixture[str], options: list[str], names: dict[str, str], match: str
) -> None:
    assert_refused(work, capsys, match, fill(work, *options, **names))


def test_work_does_not_begin_before_the_checks(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("too early")

    monkeypatch.setattr(inpaint_command, "inpaint", never)
    Image.fromarray(smooth(4)).save(work / "photo.png")
    assert_refused(work, capsys, r"expected a \.png file", fill(work, out="out/a.jpg"))
    Image.new("L", (HEIGHT, WIDTH), 255).save(work / "mask.png")
    match = r"expected a mask of 31 x 24 pixels .*got 24 x 31: .*mask\.png"
    assert_refused(work, capsys, match, fill(work))


def test_a_mask_without_known_pixels(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (WIDTH, HEIGHT), 0).save(work / "mask.png")
    assert_refused(work, capsys, "expected some white .*--invert-mask", fill(work))
    Image.new("L", (WIDTH, HEIGHT), 255).save(work / "mask.png")
    assert_refused(work, capsys, "expected some black", fill(work, "--invert-mask"))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_truncated_images(work: Path, capsys: pytest.CaptureFixture[str], suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = work / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert_refused(
        work, capsys, rf"PNG, JPEG, TIFF, WebP, BMP or AVIF image, got .*cut\.{suffix}", fill(work, image=path.name)
    )
    assert_refused(
        work, capsys, rf"PNG, JPEG, TIFF, WebP, BMP or AVIF image, got .*cut\.{suffix}", fill(work, mask=path.name)
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_kernels(work: Path, capsys: pytest.CaptureFixture[str], share: float) -> None:
    path = work / "k.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert_refused(work, capsys, r"k\.safetensors is not a readable safetensors file", fill(work))


def test_foreign_kernels(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(work, capsys, "is not a readable safetensors", fill(work, "--kernel", str(work / "photo.png")))
    from safetensors.torch import save_file

    save_file({"near": torch.zeros(3)}, work / "k.safetensors")
    assert_refused(work, capsys, r"expected a file written by Kernel\.save", fill(work))


def test_kernels_that_do_not_fit(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = tc.Sequential(tc.Conv1d(1, 8, 3), tc.ReLU(), tc.Conv1d(8, 1, 3))
    line.kernel(tc.priors.Uniform(0, 1)).save(work / "k.safetensors")
    assert_refused(work, capsys, "expected a kernel for images, of 2 dimensions, got one of 1", fill(work))
    plane = tc.Sequential(tc.Conv2d(2, 8, 3), tc.ReLU(), tc.Conv2d(8, 1, 3))
    plane.kernel(tc.priors.Tensor(torch.rand(2, 8, 8))).save(work / "k.safetensors")
    assert_refused(work, capsys, "images of 8 x 8 pixels, got 24 x 31", fill(work))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(work, capsys, "expected a CUDA device", fill(work, "--device", "cuda"))
    status = main(["demo", "--device", "cuda", "-o", str(work / "out")])
    assert_refused(work, capsys, "expected a CUDA device", status)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_device(work: Path) -> None:
    assert fill(work, "--device", "cuda") == 0
    assert_filled(work / "out" / "a.png", smooth(3), np.asarray(Image.open(work / "photo.png")), hole())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tc.OutOfMemoryError("it needs 7 GB,\nbut 3 GB are free"), "it needs 7 GB, but 3 GB are free"),
        (MemoryError(), "the command needs more memory than there is"),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_errors_during_the_work(
    work: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(inpaint_command, "inpaint", fail)
    assert_refused(work, capsys, message, fill(work))
    monkeypatch.setenv("TORCH_CNTK_DEBUG", "1")
    with pytest.raises((type(error), tc.OutOfMemoryError)):
        fill(work)
    assert outputs(work) == []


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["inpaint", "write_image"])
def test_interrupted(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(inpaint_command if step == "inpaint" else photographs, step, interrupt)
    monkeypatch.setattr(demo_command, step, interrupt)
    assert fill(work) == 130
    assert capsys.readouterr().err == "torch-cntk: interrupted\n"
    assert main(["demo", "--image", str(work / "photo.png"), "-o", str(work / "out")]) == 130
    assert capsys.readouterr().err == "torch-cntk: interrupted\n"
    assert outputs(work) == []


@pytest.mark.parametrize("hidden", [False, True])
def test_interrupted_when_the_picture_is_written(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """Also where a library makes another error of it."""

    def stop(*_: Any, **__: Any) -> None:
        process._pressed.append(2)
        raise ImportError if hidden else KeyboardInterrupt

    monkeypatch.setattr(process, "_pressed", [])
    monkeypatch.setattr(inpaint_command, "write_certainty", stop)
    assert fill(work) == 130
    assert capsys.readouterr().err == f"torch-cntk: interrupted; {work / 'out' / 'a.png'} is written\n"
    assert outputs(work) == ["a.png"]


def test_interrupted_while_saving(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "save", interrupt)
    assert fill(work) == 130
    assert outputs(work) == []


def demo(work: Path, *more: str, image: str = "photo.png", out: str = "out") -> int:
    return main(["demo", "--image", str(work / image), "-o", str(work / out), *more])


@pytest.mark.parametrize("channels", [1, 4])
def test_demo(work: Path, capsys: pytest.CaptureFixture[str], channels: int) -> None:
    values = smooth(channels)
    Image.fromarray(values).save(work / "photo.png")
    assert demo(work, "--missing", "0.3", out="new/folder") == 0
    folder = work / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["after.png", "before.png", "mask.png", "original.png"]
    pictures = {path.stem: np.asarray(Image.open(path)) for path in folder.iterdir()}
    colours = values[..., :3] if channels == 4 else values
    assert np.array_equal(pictures["original"], colours)
    assert set(np.unique(pictures["mask"])) == {0, 255}
    known = pictures["mask"] == 255
    assert (~known).sum() == round(0.3 * HEIGHT * WIDTH)
    assert np.array_equal(pictures["before"][known], colours[known])
    assert not pictures["before"][~known].any()
    assert_filled(folder / "after.png", colours, pictures["before"], known)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "filled 223 of 744 pixels (31 x 24)" in captured.out
    found = re.search(r"PSNR ([\d.]+) dB, SSIM (0\.\d+|1\.0+) over the whole image", captured.out)
    assert found is not None, captured.out
    rounded = np.square((pictures["after"].astype(float) - colours) / 255).mean()
    assert float(found[1]) == pytest.approx(-10 * np.log10(rounded), abs=1)
    assert float(found[1]) > 30
    assert float(found[2]) > 0.9


def test_guided_passes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = smooth(3)
    Image.fromarray(values).save(work / "photo.png")
    assert demo(work, "--passes", "2") == 0
    pictures = {path.stem: np.asarray(Image.open(path)) for path in (work / "out").iterdir()}
    # The periodic kernel, the passes, biharmonic inpainting and the truth, side by side.
    assert pictures["comparison"].shape == (HEIGHT, 4 * WIDTH, 3)
    assert np.array_equal(pictures["comparison"][:, WIDTH : 2 * WIDTH], pictures["after"])
    assert np.array_equal(pictures["comparison"][:, 3 * WIDTH :], values)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "by 2 guided passes of radius" in captured.out
    assert re.search(r"PSNR [\d.]+ dB, SSIM [\d.]+ of the biharmonic\n", captured.out), captured.out


def test_automatic_passes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, known = smooth(3), hole()
    holed = original.copy()
    holed[~known] = 255
    Image.fromarray(holed).save(work / "photo.png")
    assert fill(work, "--passes", "auto") == 0
    assert_filled(work / "out" / "a.png", original, holed, known)


def test_the_default_is_a_better_picture_and_says_how(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, known = smooth(3), hole()
    files = "inpaint", str(work / "photo.png"), "--mask", str(work / "mask.png"), "-o", str(work / "out" / "a.png")
    assert main([*files]) == 0
    assert_filled(work / "out" / "a.png", original, np.asarray(Image.open(work / "photo.png")), known)
    told = capsys.readouterr().out
    assert re.search(
        r"\d s by .*(guided passes of radius 10( and a group flow)?, as is usual|patches from elsewhere, blended)", told
    ), told
    assert main([*files, "--fast"]) == 0
    assert "passes" not in capsys.readouterr().out
    # Passes have a ridge of their own, which would take back what another one forgave.
    assert main([*files, "--ridge", "0.1"]) == 0
    assert "passes" not in (read := capsys.readouterr()).out and "warning" not in read.err
    assert main([*files, "--ridge", "0.1", "--passes", "1"]) == 0
    assert "warning: passes have a ridge of their own, and undo --ridge 0.1" in capsys.readouterr().err
    assert main([*files, "--ridge", "cv"]) == 0
    assert re.search(r"; the ridge is [\d.e-]+; known pixels", capsys.readouterr().out)
    # The first fill is not told as a pass.
    assert main([*files, "--passes", "patch-fill"]) == 0
    assert "s by patches from elsewhere in holes of more than 8 pixels across, and" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["quick", "sharp", "patch-fill", "patch-fill-sharp"])
def test_passes_by_words(work: Path, word: str) -> None:
    arguments = _parser().parse_args(["inpaint", "a.png", "-o", "b.png", "--passes", word])
    blends = {"patch-fill": tc.images.PatchFill(), "patch-fill-sharp": tc.images.PatchFill(blend=1.0)}
    assert arguments.passes == blends.get(word, word)
    assert fill(work, "--passes", word) == 0
    assert outputs(work) == ["a.png"]


def test_fast_and_passes_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inpaint", "a.png", "-o", "b.png", "--fast", "--passes", "2"])
    assert "not allowed with" in capsys.readouterr().err


def test_demo_seeds(work: Path) -> None:
    masks = []
    for seed in ("0", "0", "1"):
        assert demo(work, "--seed", seed) == 0
        masks.append((work / "out" / "mask.png").read_bytes())
    assert masks[0] == masks[1] != masks[2]


@pytest.mark.parametrize(
    ("options", "names", "match"),
    [
        (["--missing", "0"], {}, "expected --missing between 0 and 1, .*got 0"),
        (["--missing", "1"], {}, "expected --missing between 0 and 1, .*got 1"),
        (["--missing", "-0.5"], {}, "expected --missing to be at least 0"),
        (["--missing", "nan"], {}, "expected --missing to be finite"),
        (["--seed", str(2**70)], {}, "expected --seed to fit into 64 bits"),
        ([], {"image": "nothing.png"}, "no image file"),
        ([], {"out": "photo.png"}, "expected a folder for the pictures"),
        ([], {"out": "photo.png/folder"}, "expected a folder for the pictures"),
    ],
)
def test_mistakes_in_the_demo(
    work: Path, capsys: pytest.CaptureFixture[str], options: list[str], names: dict[str, str], match: str
) -> None:
    assert_refused(work, capsys, match, demo(work, *options, **names))


def test_demo_of_a_tiny_image(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (9, 6)).save(work / "photo.png")
    assert_refused(work, capsys, "expected an image of at least 7 x 7 pixels, got 9 x 6", demo(work))


def test_demo_without_scikit_image(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    assert_refused(work, capsys, r"pip install 'torch-cntk\[examples\]'", demo(work))


def test_the_sample_photograph() -> None:
    pytest.importorskip("skimage")
    sample = demo_command._sample()
    assert sample.shape == (3, 512, 512)
    assert sample.dtype == torch.float32
    assert float(sample.min()) == 0
    assert float(sample.max()) == 1


def test_an_unfinished_demo_leaves_no_picture(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, names = Image.Image.save, []

    def fail_at_the_third(self: Image.Image, path: Path, **options: Any) -> None:
        names.append(path)
        if len(names) == 3:
            raise OSError("no space left on device")
        save(self, path, **options)

    monkeypatch.setattr(Image.Image, "save", fail_at_the_third)
    assert demo(work) == 2
    assert len(names) == 3
    assert outputs(work) == []


@pytest.mark.parametrize("arguments", [[], ["paint"], ["inpaint"], ["inpaint", "a.png"], ["inpaint", "--ridge", "x"]])
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["inpaint", "--help"], ["demo", "--help"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: torch-cntk" in capsys.readouterr().out


def test_version_of_the_module_and_nothing_heavy_before_the_command_is_on_guard() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch_cntk", "--version"], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == f"torch-cntk {tc.__version__}\n"
    heavy = "{'torch', 'numpy', 'scipy', 'torchvision', 'skimage', 'matplotlib'}"
    code = (
        f"import sys; sys.argv = ['torch-cntk']; import torch_cntk.cli.main; print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("load", "expected"), [(0.0, 4), (1.2, 3), (2.6, 1), (50.0, 1)])
def test_threads_are_the_idle_cores(load: Any, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert command_options._idle_cores() == expected


# torch-cntk train


def trained(work: Path, *more: str) -> int:
    files = str(work / "photo.png"), "--mask", str(work / "mask.png"), "-o", str(work / "out/t.png")
    small = () if "--preset" in more else ("--levels", "1", "--width", "8", "--skip", "2")
    return main(["train", *files, *small, "--steps", "8", "--threads", "1", *more])


def test_train(work: Path, capsys: pytest.CaptureFixture[str], threads: int) -> None:
    assert trained(work, "--holdout", "0.2", "--patience", "50", "--iterate", "best", "--up", "bilinear") == 0
    out = capsys.readouterr().out
    known = hole()
    missing = int((~known).sum())
    assert re.search(rf"filled {missing} of 744 pixels in 8 steps, loss [\d.e-]+, [\d.]+ s; all steps were done: ", out)
    after = np.asarray(Image.open(work / "out" / "t.png"))
    assert np.array_equal(after[known], smooth(3)[known])


def test_train_goes_on_from_its_checkpoint(work: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(work, "--seed", "4") == 0
    whole = (work / "out" / "t.png").read_bytes()
    checkpoint = work / "run.pt"
    original = tc.train

    def interrupted(*arguments: Any, **options: Any) -> tc.TrainingResult:
        def callback(step: object) -> None:
            if step.number == 5:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

        return original(*arguments, **options, checkpoint_every=1, callback=callback)

    monkeypatch.setattr(train_command, "train", interrupted)
    (work / "out" / "t.png").unlink()
    with pytest.raises(SystemExit) as ended:
        trained(work, "--seed", "4", "--checkpoint", str(checkpoint))
    assert ended.value.code == 130
    assert outputs(work) == []
    monkeypatch.setattr(train_command, "train", original)
    assert trained(work, "--seed", "4", "--checkpoint", str(checkpoint)) == 0
    assert (work / "out" / "t.png").read_bytes() == whole


def test_mistakes_in_training(work: Path, capsys: pytest.CaptureFixture[str], threads: int) -> None:
    for options, message in (
        (("--preset", "dip-vase", "--levels", "3"), "expected no --levels beside --preset"),
        (("--lr", "-1"), "expected lr to be at least 0"),
        (("--patience", "3"), "expected a holdout above 0"),
        (("--lr", "1e30"), "the loss became"),
        (("--checkpoint", str(work / "k.safetensors")), "expected a checkpoint of torch_cntk"),
        (("--checkpoint", str(work / "mask.png")), "expected another file for --checkpoint than for the mask"),
    ):
        assert trained(work, *options) == 2, options
        assert message in capsys.readouterr().err
    assert outputs(work) == []


def test_train_with_a_preset(work: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(net: tc.Layer, *arguments: Any, **options: Any) -> None:
        seen.update(net=net, **options)
        raise ValueError("seen enough")

    monkeypatch.setattr(train_command, "train", train)
    assert trained(work, "--preset", "dip-vase", "--lr", "0.02") == 2
    assert seen["net"].in_channels == 2
    assert repr(seen["prior"]) == "Meshgrid()"
    assert (seen["training"].steps, seen["training"].lr, seen["training"].jitter) == (8, 0.02, 0.03)
