"""The examples run as a reader would run them."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.GifImagePlugin
import PIL.Image
import pytest
import scipy.io.wavfile
import torch

from torch_cntk.images.files import read_image, write_image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / arguments[0], *arguments[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("channels", [1, 3])
def test_inpaint(tmp_path: Path, channels: int) -> None:
    height, width = 24, 31
    rows, columns = torch.meshgrid(torch.linspace(0.2, 0.8, height), torch.linspace(0.3, 0.7, width), indexing="ij")
    image = torch.stack([rows, columns, (rows + columns) / 2])[:channels]
    write_image(tmp_path / "photo.png", image)
    printed = run_example(tmp_path, "inpaint.py", "photo.png", "--missing", "0.4", "-o", "out.png")
    found = re.search(r"PSNR ([\d.]+) dB", printed)
    assert found is not None, printed
    assert float(found[1]) > 35
    picture = read_image(tmp_path / "out.png").pixels
    assert picture.shape == (channels, height, 2 * width)
    before, after = picture[..., :width], picture[..., width:]
    assert 0.2 < float((before == 0).float().mean()) < 0.6
    # Less strict than the printed PSNR: the picture is rounded to 8 bits.
    assert -10 * torch.log10((after - image).square().mean()) > 33


def test_drug_response(tmp_path: Path) -> None:
    told = run_example(tmp_path, "drug_response.py", "--folds", "3")
    scores = dict(re.findall(r"^(\S[\w -]*?) {2,}(-?[\d.]+) \+-", told, re.MULTILINE))
    assert set(scores) == {"mean over cell type", "DNPP", "FaLRTC", "NTK"}
    assert float(scores["NTK"]) > float(scores["mean over cell type"])
    (tmp_path / "long.csv").write_text(
        "cell,drug,g1,g2,g3\nMCF7,a,1,2,3.5\nMCF7,b,2,1,0\nMCF7,c,0,1,5\nPC3,a,1,2,4\nPC3,b,2,1,0.5\nX,b,1,1,1\n"
    )
    run_example(tmp_path, "drug_response.py", "long.csv", "--predict", "c", "PC3", "-o", "out.csv")
    header, line = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "cell,drug,g1,g2,g3"
    assert line.startswith("PC3,c,")


def test_ratings(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    told = run_example(tmp_path, "ratings.py")
    scores = {
        name: (float(a), float(b)) for name, a, b in re.findall(r"^(\w[\w -]*?) {2,}([\d.]+) +([\d.]+)", told, re.M)
    }
    assert set(scores) == {"means", "soft-impute", "matrix factorisation", "NTK"}
    # Without features nothing but the mean can be said of items that nobody has rated.
    for name in ("soft-impute", "matrix factorisation"):
        assert scores["NTK"][1] < 0.9 * scores[name][1]
    assert scores["NTK"][0] < scores["means"][0]


def test_train(tmp_path: Path) -> None:
    out = run_example(tmp_path, "train.py", "--levels", "2", "--width", "8", "--steps", "20")
    infinite, finite = re.search(r"CNTK: ([\d.]+) dB", out), re.search(r"best: ([\d.]+) dB after (\d+) steps", out)
    assert infinite is not None, out
    assert finite is not None, out
    # 20 steps of a small network make something; the kernel fills a smooth pattern well.
    assert float(infinite[1]) > 25
    assert float(finite[1]) > 15


def test_width(tmp_path: Path) -> None:
    out = run_example(tmp_path, "width.py", "--widths", "4", "32", "--draws", "6", "--steps", "10")
    near, far = (float(found) for found in re.findall(r"off by ([\d.]+), times", out))
    assert far < near
    assert (tmp_path / "width.png").stat().st_size > 10_000


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_feature_priors(tmp_path: Path) -> None:
    out = run_example(tmp_path, "feature_priors.py", "--fast", "-o", "out")
    rows = {(row["prior"], row["method"]): row for row in read_rows(tmp_path / "out" / "translation.csv")}
    assert set(rows) == {(prior, method) for prior in ("identity", "uniform") for method in ("CNTK", "finite")}
    for method, alike in (("CNTK", 0.999), ("finite", 0.8)):
        row = rows["identity", method]
        # Four levels: copies of what is 16 pixels further down and to the right.
        assert (row["down"], row["right"]) == ("16", "16"), out
        assert float(row["alike"]) > alike
        # Batch normalisation rounds.
        assert float(row["asymmetry"]) < 1e-4
        assert float(rows["uniform", method]["asymmetry"]) > 0.1
    assert "identity: CNTK and trained network take it from the same place" in out
    for name in ("heatmaps.png", "translation.png"):
        assert read_image(tmp_path / "out" / name).pixels.shape[0] == 3


def test_audio(tmp_path: Path) -> None:
    out = run_example(tmp_path, "audio.py", "--fast", "-o", "out")
    rows = read_rows(tmp_path / "out" / "audio.csv")
    assert len(rows) == 2 * 6
    for missing in ("gaps of 2 ms", "50% scattered"):
        scores = {row["method"]: float(row["snr_db"]) for row in rows if row["missing"] == missing}
        assert scores["CNTK, autocorrelation"] > 3 + max(scores["linear"], scores["cubic"], scores["CNTK"]), out
    assert (tmp_path / "out" / "audio.png").stat().st_size > 10_000

    run_example(tmp_path, "audio.py", "--fast", "--flow", "--clicks", "5", "-o", "flow")
    rows = read_rows(tmp_path / "flow" / "audio.csv")
    assert len(rows) == 3 * 8
    assert {"CNTK, quick", "CNTK, autocorrelation, flow"} < {row["method"] for row in rows}

    # The file that it writes is one that it reads; two channels, 16 bits.
    rate, samples = scipy.io.wavfile.read(tmp_path / "out" / "8000-gaps-of-2-ms-filled.wav")
    assert (rate, samples.shape, samples.dtype) == (8000, (3200,), "int16")
    scipy.io.wavfile.write(tmp_path / "two.wav", rate, np.stack([samples[:1600], samples[1600:]], 1))
    run_example(
        tmp_path, "audio.py", "two.wav", "--gaps", "2", "--missing", "--count", "2", "--passes", "1", "-o", "two"
    )
    assert len(read_rows(tmp_path / "two" / "audio.csv")) == 6
    rate, filled = scipy.io.wavfile.read(tmp_path / "two" / "8000-gaps-of-2-ms-filled.wav")
    _, missing = scipy.io.wavfile.read(tmp_path / "two" / "8000-gaps-of-2-ms-missing.wav")
    assert filled.shape == missing.shape == (1600, 2)
    same = (filled == missing).all(1)
    # Two gaps of 16 samples; a filled sample may be zero by chance.
    assert 1600 - 32 <= same.sum() < 1600


def test_video(tmp_path: Path) -> None:
    out = run_example(tmp_path, "video.py", "--fast", "-o", "out")
    scores = {row["method"]: float(row["psnr_hole_db"]) for row in read_rows(tmp_path / "out" / "video.csv")}
    assert len(scores) == 7
    simple = max(scores["biharmonic, 2-D"], scores["CNTK, 2-D"], scores["CNTK, 3-D"])
    assert scores["CNTK, 3-D, autocorrelation"] > simple + 5, out
    assert scores["registered frames"] > simple, out
    assert read_image(tmp_path / "out" / "video.png").pixels.shape[0] == 3

    run_example(tmp_path, "video.py", "--fast", "--flow", "--missing", "0.3", "-o", "flow")
    scores = {row["method"]: float(row["psnr_hole_db"]) for row in read_rows(tmp_path / "flow" / "video.csv")}
    assert scores["CNTK, 3-D, auto"] >= scores["CNTK, 3-D, guided"], scores

    # A folder of frames with masks.
    frames = torch.rand(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in ("frames", "masks"):
        (tmp_path / name).mkdir()
    for t in range(4):
        write_image(tmp_path / "frames" / f"{t}.png", frames[:, t])
        write_image(tmp_path / "masks" / f"{t}.png", (torch.rand(1, 16, 16) < 0.9).float())
    run_example(tmp_path, "video.py", "frames", "--masks", "masks", "--passes", "1", "--guided", "1", "-o", "own")
    assert len(read_rows(tmp_path / "own" / "video.csv")) == 7
    # A GIF, and the one that is written: five videos of 16 x 16 side by side, twice as large.
    pictures = [PIL.Image.open(tmp_path / "frames" / f"{t}.png") for t in range(4)]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:])
    run_example(tmp_path, "video.py", "clip.gif", "--hole", "4", "--passes", "1", "--guided", "1", "-o", "clip")
    with PIL.Image.open(tmp_path / "clip" / "video.gif") as opened:
        assert isinstance(opened, PIL.GifImagePlugin.GifImageFile)
        assert (opened.n_frames, opened.size) == (4, (2 * 5 * 16, 2 * 16))


def test_preprocess(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    told = run_example(tmp_path, "preprocess.py", "--steps", "10", "--side", "16")
    plain, _, clipped = (float(found) for found in re.findall(r": ([\d.]+) dB", told))
    assert clipped > plain + 1


def test_recommend(tmp_path: Path) -> None:
    told = run_example(tmp_path, "recommend.py")
    scores = {name: float(score) for name, score in re.findall(r"^(\w[\w ]*?) {2,}([\d.]+) ", told, re.MULTILINE)}
    assert set(scores) == {"popularity", "EASE", "infinite autoencoder"}
    assert scores["infinite autoencoder"] > 1.1 * scores["popularity"]
    rng = np.random.default_rng(0)
    lines = {(f"u{rng.integers(12)}", f"film {rng.integers(9)}"): rng.integers(1, 6) for _ in range(120)}
    (tmp_path / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::99\n" for (u, i), r in lines.items()))
    told = run_example(
        tmp_path, "recommend.py", "ratings.dat", "--separator", "::", "--header", "none", "--least", "3", "-k", "4"
    )
    assert "nDCG@4" in told
    assert "user u0 will like film" in told
