"""The page: what is seen, and which answer belongs to what is clicked. The only module that needs gradio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from torch_cntk.app import answers
from torch_cntk.app.repair import METHODS
from torch_cntk.app.session import Session
from torch_cntk.app.sessions import Sessions

__all__ = ["launch"]

_BYTES_A_PIXEL = 8
"""Of the largest files of photographs: four channels of 16 bits, not compressed."""
_HEADER = 1 << 20
"""Bytes of notes and profiles beside the pixels."""
_AT_ONCE = 1
"""Computations of all users: two would be slower than one after the other, and take twice the memory."""
_NOT_WANTED = ("share", "run_history", "enable_monitoring", "ssr_mode", "pwa", "mcp_server")
"""Of what gradio would do beside: all that keeps, counts or hands out."""
_PAINT = "#ff2d55"
_BRUSH = 10
"""Its radius at first: scratches and dust are small."""
_HOW = {
    "fast": "Fast: the kernel alone",
    "careful": "Careful: compares what surrounds each pixel",
    "automatic": "Automatic: each hole by what fills it best",
}
_INTRODUCTION = """# Fill in what is missing from a photograph
Open a picture, paint over what shall go, and press *Fill*. It is computed on the machine that shows this page, by an
infinitely wide neural network that has seen no other picture; nothing is sent anywhere else, and nothing is kept."""
_CSS = """
.gradio-container { max-width: 1200px !important; margin: auto; }
#progress progress { width: 100%; height: 0.8em; }
#status { min-height: 1.5em; }
"""


def launch(sessions: Sessions, host: str, port: int | None, browser: bool) -> tuple[str, Callable[[], None]]:
    """Show the page; see ``torch_cntk.app.serve``.

    Args:
        sessions: of its users.
        host: address to listen on.
        port: to listen on; None takes a free one from 7860 on.
        browser: whether to open the page in a browser.

    Returns:
        the page's address, and what ends it.

    Raises:
        OSError: the port is not free.
    """
    page = _page(sessions)
    options = {
        "max_file_size": int(sessions.machine.megapixels * 1e6 * _BYTES_A_PIXEL) + _HEADER,
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "css": _CSS,
        "prevent_thread_lock": True,
        "quiet": True,
        "show_error": True,
        "footer_links": [],
    }
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, inbrowser=browser, **options, **dict.fromkeys(_NOT_WANTED, False)
        )
    except OSError as error:
        raise OSError(f"expected a free port of this machine, got {host}:{port or 'none from 7860 on'}") from error
    return str(address), lambda: page.close(verbose=False)


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
        "unsure": gr.Button("How sure is it?", interactive=False, elem_id="unsure"),
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

    def waiting() -> Any:
        return _updates(parts, answers.waiting())

    def cancelled(request: gr.Request) -> Any:
        return _updates(parts, answers.cancelled(of(request)))

    def clicked(request: gr.Request, event: gr.SelectData) -> Any:
        for answer in answers.clicked(of(request), *event.index):
            yield _updates(parts, answer)

    def asked_how_sure(request: gr.Request) -> Any:
        for answer in answers.unsure(of(request)):
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
    asked = when(parts["fill"].click, waiting)
    running = [
        when(asked.then, filled, "editor", "transparent", "growth", "method", **options),
        when(parts["filled"].select, clicked, **options),
        when(parts["unsure"].click, asked_how_sure, **options),
    ]
    when(parts["cancel"].click, cancelled, cancels=running)


def _updates(parts: dict[str, Any], answer: answers.Answer) -> dict[Any, Any]:
    return {parts[name]: gr.update(**news) for name, news in answer.items()}
