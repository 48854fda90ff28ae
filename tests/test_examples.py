"""The examples run as a reader would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch_cntk.images import read_image, write_image

EXAMPLES = Path(__file__).parent.parent / "examples"


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
