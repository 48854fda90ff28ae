"""The page: what is seen, and which answer belongs to what is clicked. The only module that needs gradio."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from torch_cntk.app import answers
from torch_cntk.app.repair import METHODS
from torch_cntk.app.session import Machine, Session
from torch_cntk.app.sessions import Sessions
from torch_cntk.app.work import prepare

__all__ = ["serving"]

_CACHE = "GRADIO_TEMP_DIR"
_BYTES_A_PIXEL = 8
"""Of the largest files of photographs: four channels of 16 bits, not compressed."""
_HEADER = 1 << 20
"""Bytes of notes and profiles beside the pixels."""
_AT_ONCE = 1
"""Computations of all users: two would be slower than one after the other, and take twice the memory."""
_PAINT = "#ff2d55"
_BRUSH = 10
"""Its radius at first: scratches and dust are small."""
_HOW = {
    "fast": "Fast: the kernel alone",
    "careful": "Careful: compares what surrounds each pixel",
    "automatic": "Automatic: whichever fills known pixels better",
}
_INTRODUCTION = """# Fill in what is missing from a photograph
Open a picture, paint over what shall go, and press *Fill*. It is computed on the machine that shows this page, by an
infinitely wide neural network that has seen no other picture; nothing is sent anywhere else, and nothing is kept."""
_CSS = """
.gradio-container { max-width: 1200px !important; margin: auto; }
#progress progress { width: 100%; height: 0.8em; }
#status { min-height: 1.5em; }
"""


@contextmanager
def serving(
    machine: Machine, *, host: str = "127.0.0.1", port: int | None = None, browser: bool = False
) -> Iterator[str]:
    """Show the page until the context ends; then all that was uploaded is removed.

    Args:
        machine: what the page may use.
        host: address to listen on; 0.0.0.0 is all of the machine's.
        port: to listen on; None takes a free one from 7860 on.
        browser: whether to open the page in a browser.

    Yields:
        the page's address.

    Raises:
        OSError: the port is not free.
    """
    prepare()
    with _cache() as folder:
        sessions = Sessions(machine, folder)
        page = _page(sessions)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=browser,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                show_error=True,
                max_file_size=int(machine.megapixels * 1e6 * _BYTES_A_PIXEL) + _HEADER,
                run_history=False,
                footer_links=[],
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=_CSS,
            )
            yield str(address)
        finally:
            page.close(verbose=False)
            sessions.close()


@contextmanager
def _cache() -> Iterator[Path]:
    """A folder for all files of the page, gradio's own included, which is removed in the end."""
    before = os.environ.get(_CACHE)
    with tempfile.TemporaryDirectory(prefix="torch-cntk-", ignore_cleanup_errors=True) as folder:
        os.environ[_CACHE] = os.path.realpath(folder)
        try:
            yield Path(os.environ[_CACHE])
        finally:
            if before is None:
                del os.environ[_CACHE]
            else:
                os.environ[_CACHE] = before


def _page(sessions: Sessions) -> Any:
    """Put the page together."""
    with gr.Blocks(title="torch_cntk", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=320):
                parts = _left()
            with gr.Column(min_width=320):
                parts |= _right()
        _connect(sessions, parts)

        def left(request: gr.Request) -> None:
            sessions.end(str(request.session_hash))

        page.unload(left)
    return page


def _left() -> dict[str, Any]:
    """What the user gives."""
    parts = {
        "file": gr.File(label="Open a picture", type="filepath", height=140, elem_id="picture"),
        "status": gr.Markdown(elem_id="status"),
        "editor": gr.ImageEditor(
            label="Paint over what is missing",
            sources=(),
            transforms=(),
            layers=False,
            type="numpy",
            image_mode="RGBA",
            format="png",
            brush=gr.Brush(default_size=_BRUSH, colors=[_PAINT], default_color=_PAINT, color_mode="fixed"),
            eraser=gr.Eraser(default_size=_BRUSH),
            buttons=["fullscreen"],
            visible=False,
            elem_id="editor",
        ),
        "transparent": gr.Checkbox(label="What is transparent is missing", visible=False, elem_id="transparent"),
        "method": gr.Radio(
            [(_HOW[method], method) for method in METHODS], value="automatic", label="How", elem_id="method"
        ),
    }
    with gr.Accordion("More", open=False, elem_id="more"):
        parts["mask"] = gr.File(
            label="A mask, whose black pixels are missing", type="filepath", height=140, elem_id="mask"
        )
        parts["growth"] = gr.Slider(0, 20, value=1, step=1, label="Pixels by which all that grows", elem_id="growth")
    return parts


def _right() -> dict[str, Any]:
    """What the user gets."""
    with gr.Row():
        fill = gr.Button("Fill", variant="primary", interactive=False, elem_id="fill")
        cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")
    return {
        "fill": fill,
        "cancel": cancel,
        "progress": gr.HTML(elem_id="progress"),
        "slider": gr.ImageSlider(
            label="Before and after", interactive=False, buttons=["fullscreen"], visible=False, elem_id="compare"
        ),
        "download": gr.DownloadButton("Download", interactive=False, elem_id="download"),
        "filled": gr.Image(
            label="Click on a filled pixel to see which others fill it",
            interactive=False,
            buttons=[],
            visible=False,
            elem_id="filled",
        ),
        "sentence": gr.Markdown(elem_id="sentence"),
        "map": gr.Image(
            label="Which pixels fill it", interactive=False, buttons=["fullscreen"], visible=False, elem_id="map"
        ),
    }


def _connect(sessions: Sessions, parts: dict[str, Any]) -> None:
    """Say which answer belongs to what is done."""

    def of(request: gr.Request) -> Session:
        return sessions.of(str(request.session_hash))

    def opened(path: str | None, request: gr.Request) -> Any:
        return _updates(parts, answers.opened(of(request), path))

    def masked(path: str | None, request: gr.Request) -> Any:
        return _updates(parts, answers.masked(of(request), path))

    def dropped(request: gr.Request) -> Any:
        return _updates(parts, answers.dropped(of(request)))

    def filled(drawing: Any, transparent: bool, growth: int, method: Any, request: gr.Request) -> Any:
        for answer in answers.filled(of(request), drawing, transparent, growth, method):
            yield _updates(parts, answer)

    def cancelled(request: gr.Request) -> Any:
        return _updates(parts, answers.cancelled(of(request)))

    def clicked(request: gr.Request, event: gr.SelectData) -> Any:
        for answer in answers.clicked(of(request), *event.index):
            yield _updates(parts, answer)

    def when(event: Callable[..., Any], function: Any, *names: str, **options: Any) -> Any:
        inputs = [parts[name] for name in names]
        return event(
            function, inputs, list(parts.values()), show_progress="hidden", api_visibility="private", **options
        )

    when(parts["file"].upload, opened, "file")
    when(parts["mask"].upload, masked, "mask")
    when(parts["mask"].clear, dropped)
    options = {"concurrency_limit": _AT_ONCE, "concurrency_id": "computing"}
    running = [
        when(parts["fill"].click, filled, "editor", "transparent", "growth", "method", **options),
        when(parts["filled"].select, clicked, **options),
    ]
    when(parts["cancel"].click, cancelled, cancels=running)


def _updates(parts: dict[str, Any], answer: answers.Answer) -> dict[Any, Any]:
    return {parts[name]: gr.update(**news) for name, news in answer.items()}
