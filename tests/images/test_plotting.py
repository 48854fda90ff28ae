from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import torch

import torch_cntk as tc
from torch_cntk.cli.main import main

KERNEL = tc.default_network(2).kernel(tc.priors.Uniform(0, 0.1))


def test_heat_map_shows_the_row() -> None:
    axes = tc.plotting.heatmap(KERNEL, (3, 5), (16, 12))
    picture: Any
    (picture,) = axes.images
    torch.testing.assert_close(torch.from_numpy(picture.get_array().data), KERNEL.row((3, 5), (16, 12)))
    lines: list[Any] = list(axes.lines)
    assert [list(line.get_xydata()[0]) for line in lines] == [[5, 3]]


def test_unobserved_pixels_are_blank() -> None:
    observed = torch.rand(16, 12) < 0.5
    axes = tc.plotting.heatmap(KERNEL, (3, 5), (16, 12), observed=observed)
    picture: Any = axes.images[0]
    assert torch.equal(torch.from_numpy(picture.get_array().mask), ~observed)


def test_given_axes_are_used() -> None:
    axes = matplotlib.figure.Figure().subplots()
    assert tc.plotting.heatmap(KERNEL, (0, 0), (8, 8), axes=axes, cmap="gray") is axes
    assert axes.images[0].get_cmap().name == "gray"


def test_bad_input_is_refused() -> None:
    with pytest.raises(TypeError, match="boolean"):
        tc.plotting.heatmap(KERNEL, (0, 0), (8, 8), observed=torch.ones(8, 8))
    with pytest.raises(ValueError, match="observed of shape"):
        tc.plotting.heatmap(KERNEL, (0, 0), (8, 8), observed=torch.ones(8, 9, dtype=torch.bool))
    with pytest.raises(IndexError, match="expected a pixel inside 8 x 8"):
        tc.plotting.heatmap(KERNEL, (8, 0), (8, 8))
    with pytest.raises(ValueError, match="2 dimensions"):
        tc.plotting.heatmap(tc.Conv1d(1, 1, 3).kernel(tc.priors.Uniform()), (0, 0), (8, 8))


@pytest.mark.parametrize("prior", ["uniform", "identity", "meshgrid"])
def test_command_writes_the_picture(prior: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "map.png"
    options = ["--size", "16", "16", "--pixel", "4", "7", "--prior", prior, "--levels", "2", "-o", str(output)]
    assert main(["heatmap", *options]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    assert str(output) in capsys.readouterr().out


def test_command_takes_a_saved_kernel(tmp_path: Path) -> None:
    KERNEL.save(tmp_path / "k.safetensors")
    options = ["--size", "8", "8", "--pixel", "1", "1", "--kernel", str(tmp_path / "k.safetensors")]
    assert main(["heatmap", *options, "-o", str(tmp_path / "map.svg")]) == 0
    assert "<svg" in (tmp_path / "map.svg").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel", "99", "1", "-o", "map.png"], "expected a pixel inside"),
        (["--pixel", "1", "1", "-o", "map.bmp"], "suffix"),
        (["--pixel", "1", "1", "-o", "missing/map.png"], "no folder"),
        (["--pixel", "1", "1", "--size", "9", "9", "-o", "map.png"], "multiple of 8"),
    ],
)
def test_command_tells_mistakes_and_leaves_nothing(
    options: Any, message: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["heatmap", *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
