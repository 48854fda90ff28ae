"""What one user of the page does, without a browser: open, paint, fill, look, download."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from torch_cntk.app import answers
from torch_cntk.app.session import Machine, Session
from torch_cntk.app.sessions import Sessions
from torch_cntk.app.work import CancelledError
from torch_cntk.images import read_image, write_image
from torch_cntk.images.files import Metadata

HEIGHT, WIDTH = 40, 56


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    folder = tmp_path / "server"
    folder.mkdir()
    made = Sessions(Machine(megapixels=0.01, threads=1), folder)
    yield made
    made.close()


def photograph(path: Path, generator: torch.Generator, channels: int = 3, **options: Any) -> Path:
    """A smooth picture."""
    grid = torch.linspace(0, 3, HEIGHT)[:, None] + torch.linspace(0, 2, WIDTH)
    phases = torch.rand(channels, 1, 1, generator=generator) * 6
    write_image(path, 0.5 + 0.4 * torch.sin(grid + phases), **options)
    return path


def strokes(place: tuple[slice, slice] = (slice(10, 16), slice(20, 30))) -> list[np.ndarray]:
    layer = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    layer[place] = 255
    return [layer]


def finished(follow: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(follow)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("name", "channels", "depth"),
    [("a.png", 3, 8), ("a.png", 1, 16), ("a.tif", 3, 16), ("a.TIFF", 1, 8), ("ein foto.png", 3, 16)],
)
def test_what_is_downloaded_differs_where_it_was_painted(
    name: str, channels: int, depth: int, sessions: Sessions, tmp_path: Path, generator: torch.Generator
) -> None:
    exif = PIL.Image.Exif()
    exif[0x013B] = "A. Painter"
    metadata = Metadata(depth=depth, exif=exif.tobytes(), dpi=(300.0, 300.0))
    path = photograph(tmp_path / name, generator, channels, metadata=metadata)
    session = sessions.of("one")
    assert f"{WIDTH} x {HEIGHT}" in session.open(path)
    observed = session.mask(strokes(), grown=2)
    assert (~observed).nonzero().amin(0).tolist() == [8, 18] and int((~observed).sum()) == 10 * 14
    finished(session.fill(observed, "fast"))
    written = session.download()
    assert written.name == f"{Path(name).stem}-filled{Path(name).suffix}"
    before, after = read_image(path), read_image(written)
    assert torch.equal(before.pixels[:, observed], after.pixels[:, observed])
    # A smooth picture is continued, to an eighth of its contrast; what was there is not what is written.
    assert 0 < float((before.pixels - after.pixels)[:, ~observed].abs().max()) < 0.1
    assert after.metadata.depth == depth and after.metadata.kind == before.metadata.kind
    assert after.metadata.exif == before.metadata.exif is not None
    assert after.metadata.dpi == pytest.approx((300, 300), rel=1e-3)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("CMYK", "a.tif"),
        ("P", "a.png"),
        ("P", "a.bmp"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("L", "a.webp"),
        ("F", "a.tif"),
    ],
)
def test_modes_are_kept(mode: str, name: str, sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / name
    with PIL.Image.open(photograph(tmp_path / "rgb.png", generator)) as image:
        made = image.convert("L").convert("F") if mode == "F" else image.convert(mode)
        options: dict[str, Any] = {"lossless": True} if name.endswith("webp") else {}
        made.save(path, **options)
    session = sessions.of("one")
    session.open(path)
    with PIL.Image.open(session.preview()) as shown:
        assert shown.size == (WIDTH, HEIGHT) and np.ptp(np.asarray(shown)) > 10
    observed = session.mask(strokes(), grown=0)
    finished(session.fill(observed, "fast"))
    session.result_preview()
    with PIL.Image.open(path) as before, PIL.Image.open(session.download()) as after:
        assert (after.mode, after.format) == (before.mode, before.format)
        first, second = (np.asarray(each.convert("RGB") if mode == "P" else each) for each in (before, after))
    assert np.array_equal(first[observed.numpy()], second[observed.numpy()])


def test_pictures_are_upright_and_jpeg_grows(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.open(photograph(tmp_path / "a.png", generator))
    image.save(tmp_path / "a.jpg", exif=exif, quality=90)
    session = sessions.of("one")
    session.open(tmp_path / "a.jpg")
    assert session.size == (WIDTH, HEIGHT) and session.usual_growth == 3
    with PIL.Image.open(session.preview()) as shown:
        assert shown.size == (HEIGHT, WIDTH)
    layer = np.zeros((WIDTH, HEIGHT, 4), np.uint8)
    layer[20, 20] = 255
    finished(session.fill(session.mask([layer]), "fast"))
    with PIL.Image.open(session.download()) as written:
        assert written.format == "JPEG" and written.size == (HEIGHT, WIDTH)
        assert written.getexif().get(0x0112, 1) == 1


def test_transparent_pixels_are_missing_where_the_user_says_so(
    sessions: Sessions, tmp_path: Path, generator: torch.Generator
) -> None:
    alpha = torch.full((1, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    alpha[:, 5:9, 5:12] = 0
    path = photograph(tmp_path / "a.png", generator, alpha=alpha)
    session = sessions.of("one")
    assert "transparency" in session.open(path)
    drawn = session.mask(strokes(), grown=0)
    assert int((~drawn).sum()) == 60
    both = session.mask(strokes(), transparent=True, grown=0)
    assert int((~both).sum()) == 60 + 28
    finished(session.fill(both, "fast"))
    opacity = read_image(session.download()).alpha
    assert opacity is not None and bool((opacity == 255).all())
    finished(session.fill(drawn, "fast"))
    opacity = read_image(session.download()).alpha
    assert opacity is not None and torch.equal(opacity, alpha)


def test_a_mask_that_is_given(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    with pytest.raises(ValueError, match="open a picture first"):
        session.take_mask(tmp_path / "mask.png")
    session.open(photograph(tmp_path / "a.png", generator))
    values = np.full((HEIGHT, WIDTH), 255, np.uint8)
    values[30:33, 2:9] = 0
    PIL.Image.fromarray(values).save(tmp_path / "mask.png")
    assert "21 of 2,240" in session.take_mask(tmp_path / "mask.png")
    assert int((~session.mask(strokes(), grown=0)).sum()) == 60 + 21
    PIL.Image.fromarray(values[1:]).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png") as error:
        session.take_mask(tmp_path / "small.png")
    assert str(tmp_path) not in str(error.value)
    session.drop_mask()
    with pytest.raises(ValueError, match="paint over"):
        session.mask([], grown=0)
    with pytest.raises(ValueError, match="all of the picture"):
        session.mask([np.full((HEIGHT, WIDTH, 4), 255, np.uint8)])


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_wrong_file_gets_a_sentence(
    content: bytes, sessions: Sessions, tmp_path: Path, generator: torch.Generator
) -> None:
    session = sessions.of("one")
    session.open(photograph(tmp_path / "good.png", generator))
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected .*bad\.png") as error:
        session.open(tmp_path / "bad.png")
    assert str(tmp_path) not in str(error.value)
    assert session.name == "good.png" and session.size == (HEIGHT, WIDTH)


def test_a_large_picture_is_refused_before_it_is_decoded(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PIL.Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    PIL.Image.new("L", (101, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr("torch_cntk.app.session.read_image", lambda path: pytest.fail("decoded"))
    for name in ("bomb.png", "large.png"):
        with pytest.raises(ValueError, match=r"at most 0.01 megapixels"):
            sessions.of("one").open(tmp_path / name)


def test_how_sure_the_fill_is(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    session.open(photograph(tmp_path / "a.png", generator))
    with pytest.raises(ValueError, match="fill the picture"):
        finished(session.uncertainty())
    finished(session.fill(session.mask(strokes(), grown=1), "fast"))
    *_, last = answers.unsure(session)
    path = Path(last["map"]["value"])
    picture = np.asarray(PIL.Image.open(path))
    assert picture.shape[0] % HEIGHT == 0
    assert picture[..., 0].max() == 255
    assert "Yellow" in last["sentence"]["value"]
    assert "exact" in last["sentence"]["value"]


def test_heat_map(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    session.open(photograph(tmp_path / "a.png", generator))
    with pytest.raises(ValueError, match="fill the picture first"):
        finished(session.heat_map((12, 22)))
    finished(session.fill(session.mask(strokes(), grown=0), "careful"))
    picture, sentence = finished(session.heat_map((12, 22)))
    assert "row 12, column 22 is filled from" in sentence
    with PIL.Image.open(picture) as image:
        values = np.asarray(image)
    # Whole pixels, one of which is marked.
    marked = (values == 255).all(2).sum()
    assert int(np.sqrt(marked)) ** 2 == marked > 1
    _, sentence = finished(session.heat_map((0, 0)))
    assert "was known" in sentence


def test_cancelled_runs_change_nothing(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    session.open(photograph(tmp_path / "a.png", generator))
    running = session.fill(session.mask(strokes()), "automatic")
    next(running)
    session.cancel()
    with pytest.raises(CancelledError):
        finished(running)
    with pytest.raises(ValueError, match="fill the picture first"):
        session.download()
    with pytest.raises(ValueError, match="expected one of fast"):
        finished(session.fill(session.mask(strokes()), "slow"))  # type: ignore[arg-type]


def test_users_do_not_mix_and_leave_nothing(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    one, two = sessions.of("one"), sessions.of("two")
    assert sessions.of("one") is one is not two
    one.open(photograph(tmp_path / "one.png", generator))
    two.open(photograph(tmp_path / "two.png", generator))
    assert one.preview().read_bytes() != two.preview().read_bytes()
    assert one.folder != two.folder and one.folder not in two.preview().parents
    sessions.end("one")
    assert not one.folder.exists() and two.preview().exists()
    assert sessions.of("one").photograph is None
    sessions.close()
    assert not sessions.folder.exists()


def test_what_is_uploaded_is_swept_away(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    session.open(photograph(tmp_path / "one.png", generator))
    preview = session.preview()
    old, new = (sessions.folder / name / "a.png" for name in ("old", "new"))
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"uploaded")
    long_ago = time.time() - 1000
    for path in (old, preview):
        os.utime(path, (long_ago, long_ago))
    sessions.sweep()
    assert not old.exists() and new.exists() and preview.exists()
    sessions.sweep()
    assert not old.parent.exists()


def test_one_file_is_shown_for_each_thing(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    session.open(photograph(tmp_path / "one.png", generator))
    before = session.preview()
    for _ in range(2):
        finished(session.fill(session.mask(strokes()), "fast"))
        session.result_preview(), session.download()
    assert session.preview() == before
    assert len([path for path in session.folder.rglob("*") if path.is_file()]) == 3
    session.open(photograph(tmp_path / "two.png", generator))
    assert not list(session.folder.iterdir())


def joined(given: Iterator[answers.Answer]) -> answers.Answer:
    """What the page shows in the end."""
    shown: answers.Answer = {}
    for answer in given:
        for part, news in answer.items():
            shown[part] = shown.get(part, {}) | news
    return shown


def test_answers(sessions: Sessions, tmp_path: Path, generator: torch.Generator) -> None:
    session = sessions.of("one")
    answer = answers.opened(session, str(photograph(tmp_path / "a_photo.png", generator)))
    assert answer["fill"]["interactive"] and answer["editor"]["visible"] and not answer["transparent"]["visible"]
    assert "a\\_photo.png" in answer["status"]["value"]
    nothing = joined(answers.filled(session, None, False, 1, "fast"))
    assert "paint over" in nothing["status"]["value"]
    drawing = {"background": None, "layers": strokes(), "composite": None}
    shown = joined(answers.filled(session, drawing, False, 1, "fast"))
    assert "filled 96 of 2,240 pixels" in shown["status"]["value"]
    assert all(Path(path).is_file() for path in shown["slider"]["value"])
    assert Path(shown["download"]["value"]).name == "a_photo-filled.png"
    shown = joined(answers.clicked(session, 22, 12))
    assert "row 12, column 22" in shown["sentence"]["value"] and shown["map"]["visible"]
    assert "**" in answers.masked(session, str(tmp_path / "none.png"))["status"]["value"]
    assert answers.cancelled(session)["fill"]["interactive"]


def test_an_empty_session_answers_in_sentences(tmp_path: Path) -> None:
    session = Session(tmp_path)
    assert "open a picture" in joined(answers.filled(session, None, False, 1, "fast"))["status"]["value"]
    assert "fill the picture" in joined(answers.clicked(session, 0, 0))["status"]["value"]
    assert answers.opened(session, None) == {"file": {"value": None}}
