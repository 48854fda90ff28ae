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


@pytest.mark.parametrize("channels", [1, 3])
def test_inpaint(tmp_path: Path, channels: int) -> None:
    height, width = 24, 31
    rows, columns = torch.meshgrid(torch.linspace(0.2, 0.8, height), torch.linspace(0.3, 0.7, width), indexing="ij")
    image = torch.stack([rows, columns, (rows + columns) / 2])[:channels]
    write_image(tmp_path / "photo.png", image)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "inpaint.py", "photo.png", "--missing", "0.4", "-o", "out.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"PSNR ([\d.]+) dB", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) > 35
    picture = read_image(tmp_path / "out.png").pixels
    assert picture.shape == (channels, height, 2 * width)
    before, after = picture[..., :width], picture[..., width:]
    assert 0.2 < float((before == 0).float().mean()) < 0.6
    # Less strict than the printed PSNR: the picture is rounded to 8 bits.
    assert -10 * torch.log10((after - image).square().mean()) > 33


def run(example: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / example, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_drug_response(tmp_path: Path) -> None:
    told = run("drug_response.py", "--folds", "3", folder=tmp_path)
    scores = dict(re.findall(r"^(\S[\w -]*?) {2,}(-?[\d.]+) \+-", told, re.MULTILINE))
    assert set(scores) == {"mean over cell type", "DNPP", "FaLRTC", "NTK"}
    assert float(scores["NTK"]) > float(scores["mean over cell type"])
    (tmp_path / "long.csv").write_text(
        "cell,drug,g1,g2,g3\nMCF7,a,1,2,3.5\nMCF7,b,2,1,0\nMCF7,c,0,1,5\nPC3,a,1,2,4\nPC3,b,2,1,0.5\nX,b,1,1,1\n"
    )
    run("drug_response.py", "long.csv", "--predict", "c", "PC3", "-o", "out.csv", folder=tmp_path)
    header, line = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "cell,drug,g1,g2,g3"
    assert line.startswith("PC3,c,")


def test_ratings(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    told = run("ratings.py", folder=tmp_path)
    scores = {
        name: (float(a), float(b)) for name, a, b in re.findall(r"^(\w[\w -]*?) {2,}([\d.]+) +([\d.]+)", told, re.M)
    }
    assert set(scores) == {"means", "soft-impute", "matrix factorisation", "NTK"}
    # Without features nothing but the mean can be said of items that nobody has rated.
    for name in ("soft-impute", "matrix factorisation"):
        assert scores["NTK"][1] < 0.9 * scores[name][1]
    assert scores["NTK"][0] < scores["means"][0]
