"""The page in a real browser: Debian's Chromium, driven by Playwright. Skips where one of them, or gradio, is missing.

With TORCH_CNTK_SCREENSHOTS=FOLDER in the environment it writes the pictures of docs/app.md there.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

SCREENSHOTS = os.environ.get("TORCH_CNTK_SCREENSHOTS")
MEGAPIXELS = 0.2
PATIENCE = 300_000
"""Milliseconds. Other programs may hold the cores; on an idle machine each step takes a second or two."""
HEIGHT, WIDTH = 90, 140


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server puts its files."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """That of a server, which leaves nothing behind when Ctrl-C ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch_cntk", "app", "--port", str(port), "--threads", "1"]
    command += ["--max-megapixels", str(MEGAPIXELS)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        said = []
        try:
            for line in server.stdout:
                said.append(line)
                if "the page is at" in line:
                    break
            else:
                pytest.fail(f"no page: {said}")
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.send_signal(signal.SIGINT)
            status = server.wait(60)
    assert status == 0
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=options)
        yield chromium
        chromium.close()


class User:
    """Somebody at the page, with a browser's window of their own, which reaches the page and nothing else."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 1000}, **options})
        self.context.set_default_timeout(PATIENCE)
        self.elsewhere: list[str] = []
        self.context.route(re.compile(f"^(?!{re.escape(address)}|data:|blob:)"), self._refuse)
        self.page = self.context.new_page()
        self.page.goto(address)
        self.page.wait_for_selector("#picture")

    def _refuse(self, route: Any) -> None:
        self.elsewhere.append(route.request.url)
        route.abort()

    def give(self, path: Path, to: str = "#picture") -> None:
        self.page.set_input_files(f"{to} input[type=file]", str(path))

    def reads(self, text: str, where: str = "#status") -> str:
        """Wait until the page says something, and return all of what it says there."""
        sync_api.expect(self.page.locator(where)).to_contain_text(text, timeout=PATIENCE)
        return str(self.page.inner_text(where))

    def open(self, path: Path) -> None:
        self.give(path)
        self.reads(path.name)
        self.page.wait_for_selector("#editor canvas")
        self._settle()

    def _settle(self) -> None:
        """Wait until the picture is on the canvas, which nothing on the page tells: until it stays where it is."""
        last = None
        for _ in range(100):
            now = self.page.locator("#editor").screenshot()
            if now == last and len(set(np.asarray(PIL.Image.open(io.BytesIO(now)).convert("L")).ravel())) > 32:
                return
            last = now
            time.sleep(0.3)

    def paint(self, across: int = 40, down: int = 0) -> None:
        """A stroke whose middle is that of the picture."""
        box = self.page.locator("#editor canvas").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse = self.page.mouse
        mouse.move(x - across, y - down)
        mouse.down()
        mouse.move(x + across, y + down, steps=8)
        mouse.up()
        self._settle()

    def fill(self, method: str = "fast") -> None:
        self.page.check(f"#method input[value={method}]")
        self.page.click("#fill")

    def download(self, to: Path) -> Path:
        with self.page.expect_download() as waiting:
            self.page.click("#download")
        path = to / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def scratch(self, *corners: tuple[float, float]) -> None:
        """A stroke through corners, counted from the middle of the canvas in its width and height."""
        box = self.page.locator("#editor canvas").first.bounding_box()
        points = [(box["x"] + box["width"] * (x + 0.5), box["y"] + box["height"] * (y + 0.5)) for x, y in corners]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=6)
        self.page.mouse.up()


@pytest.fixture
def users(browser: Any, address: str) -> Iterator[Any]:
    """Makes users; none of them may have asked another machine for anything."""
    made: list[User] = []

    def make(**options: Any) -> User:
        made.append(User(browser, address, **options))
        return made[-1]

    yield make
    for user in made:
        user.context.close()
    assert [user.elsewhere for user in made if user.elsewhere] == []


def picture(path: Path, phase: float = 0.0, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> Path:
    rows, columns = np.mgrid[: size[0], : size[1]] / 20
    waves = [np.sin(rows + columns * k / 2 + phase + k) for k in range(3)]
    PIL.Image.fromarray((127 + 100 * np.stack(waves, -1)).astype(np.uint8)).save(path, **options)
    return path


def changed(before: Path, after: Path) -> np.ndarray:
    """Where two pictures differ, boolean [H, W]."""
    first, second = (np.asarray(PIL.Image.open(path)) for path in (before, after))
    assert first.shape == second.shape and first.dtype == second.dtype
    return np.asarray((first != second).any(2))


def test_paint_fill_compare_click_and_download(users: Any, tmp_path: Path) -> None:
    user = users()
    exif = PIL.Image.Exif()
    exif[0x013B] = "A. Painter"
    path = picture(tmp_path / "waves.png", dpi=(300, 300), exif=exif)
    user.open(path)
    user.paint()
    user.fill()
    assert "by the kernel alone" in user.reads("filled")
    # Both pictures of the slider are there.
    user.page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('#compare img')];"
        " return all.length >= 2 && all.every(image => image.naturalWidth > 0); }"
    )
    got = user.download(tmp_path)
    assert got.name == "waves-filled.png"
    where = np.argwhere(changed(path, got))
    # A stroke through the middle: outside of a part of the picture all is as it was.
    assert 50 < len(where) < HEIGHT * WIDTH / 4
    assert np.abs(where.mean(0) - (HEIGHT / 2, WIDTH / 2)).max() < 4
    difference = np.asarray(PIL.Image.open(path)).astype(int) - np.asarray(PIL.Image.open(got))
    assert np.abs(difference).max() < 40  # waves go on under the stroke
    with PIL.Image.open(got) as image:
        assert image.getexif()[0x013B] == "A. Painter"
        assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    user.page.locator("#filled img").click()
    assert "is filled from" in user.reads("have half of the weight", "#sentence")
    user.page.wait_for_selector("#map img")


def test_wrong_and_huge_files_get_a_sentence(users: Any, tmp_path: Path) -> None:
    user = users()
    wrong = tmp_path / "wrong.png"
    wrong.write_text("this is no picture")
    user.give(wrong)
    assert str(wrong.parent) not in user.reads("expected a")
    large = picture(tmp_path / "large.png", size=(500, 500))
    user.give(large)
    user.reads(f"at most {MEGAPIXELS} megapixels, got 0.2")
    heavy = tmp_path / "heavy.tif"
    heavy.write_bytes(bytes(int(MEGAPIXELS * 8e6) + (2 << 20)))
    user.give(heavy)
    user.reads("maximum allowed size", "body")
    # And the page still works.
    user.open(picture(tmp_path / "good.png"))


def test_a_mask_is_given_and_taken_away(users: Any, tmp_path: Path) -> None:
    user = users()
    path = picture(tmp_path / "masked.png")
    user.open(path)
    values = np.full((HEIGHT, WIDTH), 255, np.uint8)
    values[30:36, 50:70] = 0
    PIL.Image.fromarray(values).save(tmp_path / "mask.png")
    user.page.click("#more")
    user.give(tmp_path / "mask.png", "#mask")
    user.reads("120 of 12,600 pixels are missing")
    user.fill()
    user.reads("filled 176 of 12,600")  # it grew by one pixel
    where = np.argwhere(changed(path, user.download(tmp_path)))
    assert where.min(0).tolist() >= [29, 49] and where.max(0).tolist() <= [36, 70]
    user.page.click("#mask button[aria-label=Clear]")
    user.reads("no mask but what is painted")
    user.page.click("#fill")
    user.reads("paint over what shall be filled first")


def test_cancelled_runs(users: Any, tmp_path: Path) -> None:
    user = users()
    path = picture(tmp_path / "cancelled.png", size=(300, 400))
    user.open(path)
    user.paint()
    user.fill("automatic")
    user.page.wait_for_selector("#progress progress")
    user.page.click("#cancel:enabled")
    user.reads("nothing was changed")
    sync_api.expect(user.page.locator("#fill")).to_be_enabled()
    sync_api.expect(user.page.locator("#download")).to_be_disabled()
    user.page.wait_for_selector("#progress progress", state="detached")
    user.fill("fast")
    user.reads("filled")


def test_two_users_at_once(users: Any, folder: Path, tmp_path: Path) -> None:
    both = [users(), users()]
    paths = [picture(tmp_path / "one.png"), picture(tmp_path / "two.png", phase=2.0)]
    for user, path, down in zip(both, paths, (0, 30), strict=True):
        user.open(path)
        user.paint(down=down)
    for user in both:
        user.fill()
    for user, path in zip(both, paths, strict=True):
        user.reads("filled")
        got = user.download(tmp_path)
        assert got.name == f"{path.stem}-filled.png"
        assert 50 < changed(path, got).sum() < HEIGHT * WIDTH / 4
    # A page that is closed leaves no photograph.
    kept = set(folder.rglob("*-filled.png"))
    both[0].page.close()
    deadline = time.monotonic() + PATIENCE / 1000
    while set(folder.rglob("*-filled.png")) >= kept and time.monotonic() < deadline:
        time.sleep(0.1)
    names = {path.name for path in folder.rglob("*-filled.png")}
    assert "one-filled.png" not in names and "two-filled.png" in names


def test_a_phone(users: Any, tmp_path: Path) -> None:
    user = users(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2)
    user.open(picture(tmp_path / "phone.png"))
    assert user.page.evaluate("document.documentElement.scrollWidth") <= 390
    box = user.page.locator("#editor canvas").first.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    user.paint(across=20)
    user.fill()
    user.reads("filled")
    assert user.page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.skipif(not SCREENSHOTS, reason="TORCH_CNTK_SCREENSHOTS names no folder")
def test_picture_of_the_page(users: Any, tmp_path: Path) -> None:
    chelsea = pytest.importorskip("skimage.data").chelsea()
    PIL.Image.fromarray(chelsea).save(tmp_path / "chelsea.png")
    user = users(viewport={"width": 1080, "height": 900})
    user.open(tmp_path / "chelsea.png")
    user.scratch((-0.3, -0.25), (-0.1, 0.1), (-0.15, 0.3))
    user.scratch((0.1, -0.3), (0.2, -0.15), (0.3, 0.2))
    user.fill("careful")
    user.reads("filled")
    box = user.page.locator("#filled img").bounding_box()
    user.page.locator("#filled img").click(position={"x": 0.75 * box["width"], "y": 0.43 * box["height"]})
    user.reads("is filled from", "#sentence")
    user.page.wait_for_selector("#map img")
    user.page.mouse.move(0, 0)
    time.sleep(1)  # the browser fades things in
    seen = PIL.Image.open(io.BytesIO(user.page.screenshot(full_page=True))).convert("RGB")
    assert SCREENSHOTS is not None
    path = Path(SCREENSHOTS) / "app.png"
    seen.quantize(96, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < 200_000
