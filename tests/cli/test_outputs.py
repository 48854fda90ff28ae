"""No file is written over another, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from torch_cntk.cli.main import main
from torch_cntk.cli.outputs import check_apart


@pytest.mark.parametrize("link", ["itself", "another way", "symbolic", "hard"])
def test_one_file_has_many_names(link: str, tmp_path: Path) -> None:
    mask, folder = tmp_path / "mask.png", tmp_path / "folder"
    mask.write_bytes(b"mask")
    folder.mkdir()
    names = {"itself": mask, "another way": folder / ".." / "mask.png", "symbolic": folder / "a", "hard": folder / "b"}
    names["symbolic"].symlink_to(mask)
    names["hard"].hardlink_to(mask)
    with pytest.raises(ValueError, match="expected another file for --std than for the mask, got"):
        check_apart({"the image": tmp_path / "photo.png", "the mask": mask}, {"--std": names[link]})
    with pytest.raises(ValueError, match="expected another file for --std than for the output, got"):
        check_apart({}, {"the output": mask, "--std": names[link]})
    check_apart({"the image": mask}, {"the output": names[link]}, replaced=("the output", "the image"))


def test_what_does_not_exist_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new.png")  # dangling: it would be written there
    with pytest.raises(ValueError, match="expected another file"):
        check_apart({}, {"the output": tmp_path / "new.png", "--std": tmp_path / "link"})
    check_apart({"the mask": None}, {"the output": tmp_path / "new.png", "--std": None, "--plot": tmp_path / "other"})


def test_devices_may_be_the_same() -> None:
    check_apart({"the image": Path("/dev/null")}, {"the output": Path("/dev/null"), "--std": Path("/dev/null")})


def test_tables_and_their_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    table, features = tmp_path / "t.csv", tmp_path / "f.csv"
    table.write_text("id,a,b\nx,1,2\ny,3,\n")
    features.write_text("id,p\na,1\nb,2\n")
    command = ["complete", str(table), "--features", str(features)]
    assert main([*command, "-o", str(features)]) == 2
    assert "expected another file for the output than for --features" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "o.csv"), "--by-row", str(table)]) == 2
    assert "expected another file for --by-row than for the table" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_a_folder_of_masks_is_none_for_filled_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), 255).save(tmp_path / name / "a.png")
    command = ["inpaint", str(tmp_path / "photos"), "--mask", str(tmp_path / "masks"), "-o", str(tmp_path / "masks")]
    assert main(command) == 2
    assert "expected a folder of its own for the filled images, got that of the masks" in capsys.readouterr().err


def test_the_picture_of_a_demo_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "original.png")
    assert main(["demo", "-o", str(tmp_path), "--image", str(tmp_path / "original.png")]) == 2
    assert "expected another file for original.png than for --image" in capsys.readouterr().err
