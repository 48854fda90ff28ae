"""What the page shows after each thing that a user does. Knows the names of the page's parts, but not gradio.

An answer says of some parts what is new: ``{"status": {"value": "..."}}``. The others stay as they are.
"""

from __future__ import annotations

import html
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from torch_cntk.app.repair import Method, Repaired
from torch_cntk.app.session import Session
from torch_cntk.app.work import CancelledError, Progress

__all__ = ["Answer", "cancelled", "clicked", "dropped", "filled", "masked", "opened", "unsure", "waiting"]

Answer = dict[str, dict[str, Any]]

_ERRORS = (ValueError, TypeError, OSError, MemoryError, RuntimeError)
"""Those of a picture or of this machine, which are told in a sentence."""
_LOSSY = ("JPEG", "AVIF")
_HIDDEN: dict[str, Any] = {"value": None, "visible": False}
_STOPPED: Answer = {"fill": {"interactive": True}, "cancel": {"interactive": False}, "progress": {"value": ""}}


def waiting() -> Answer:
    """Something will be computed: as soon as what others asked for before is done."""
    return {
        "fill": {"interactive": False},
        "cancel": {"interactive": True},
        "progress": {"value": _drawn(Progress("waiting for its turn"))},
        "status": {"value": ""},
    }


def opened(session: Session, path: str | None) -> Answer:
    """A photograph was uploaded."""
    answer: Answer = {"file": {"value": None}}  # ready for the next one
    if path is None:
        return answer
    try:
        line = session.open(path)
        picture = str(session.preview())
    except _ERRORS as error:
        return answer | _told(error)
    return (
        answer
        | _STOPPED
        | {
            "status": {"value": _plain(line)},
            "editor": {"value": {"background": picture, "layers": [], "composite": None}, "visible": True},
            "mask": {"value": None},
            "transparent": {"visible": session.opened.alpha is not None, "value": False},
            "growth": {"value": session.usual_growth},
            "download": {"value": None, "interactive": False},
            "slider": _HIDDEN,
            "filled": _HIDDEN,
            "unsure": {"interactive": False},
            "map": _HIDDEN,
            "sentence": {"value": ""},
        }
    )


def masked(session: Session, path: str | None) -> Answer:
    """A mask was uploaded."""
    if path is None:
        return {}
    try:
        return {"status": {"value": _plain(session.take_mask(path))}}
    except _ERRORS as error:
        return {"mask": {"value": None}} | _told(error)


def dropped(session: Session) -> Answer:
    """The mask was taken away."""
    session.drop_mask()
    return {"status": {"value": "no mask but what is painted"}}


def filled(
    session: Session, drawing: dict[str, Any] | None, transparent: bool, growth: int, method: Method
) -> Iterator[Answer]:
    """The user asked to fill the picture."""
    try:
        layers: list[np.ndarray] = [] if drawing is None else drawing["layers"]
        work = session.fill(session.mask(layers, transparent=transparent, grown=int(growth)), method)
        repaired = yield from _bar(work)
        yield _STOPPED | {
            "status": {"value": _summary(repaired)},
            "slider": {"value": (str(session.preview()), str(session.result_preview())), "visible": True},
            "filled": {"value": str(session.result_preview()), "visible": True},
            "download": {"value": str(session.download()), "interactive": True},
            "unsure": {"interactive": True},
            "map": _HIDDEN,
            "sentence": {"value": ""},
        }
    except CancelledError:
        yield _STOPPED
    except _ERRORS as error:
        yield _STOPPED | _told(error)


def cancelled(session: Session) -> Answer:
    """The user does not want to wait any longer."""
    session.cancel()
    return _STOPPED | {"status": {"value": "cancelled: nothing was changed"}}


def clicked(session: Session, column: int, row: int) -> Iterator[Answer]:
    """A pixel of the filled picture was clicked."""
    yield from _mapped(session.heat_map((row, column)), "Which pixels fill it")


def unsure(session: Session) -> Iterator[Answer]:
    """The user asked how sure the fill is."""
    yield from _mapped(session.uncertainty(), "How sure the fill is: yellow where it is least so")


def _mapped(work: Generator[Progress, None, tuple[Any, str]], label: str) -> Iterator[Answer]:
    """Compute a map and show it with its sentence."""
    try:
        yield {"fill": {"interactive": False}, "cancel": {"interactive": True}}
        picture, sentence = yield from _bar(work)
        shown = {"value": str(picture), "visible": True, "label": label}
        yield _STOPPED | {"map": shown, "sentence": {"value": sentence}}
    except CancelledError:
        yield _STOPPED
    except _ERRORS as error:
        yield _STOPPED | _told(error)


def _bar(work: Generator[Progress, None, Any]) -> Generator[Answer, None, Any]:
    """Follow a computation, and show how far it is."""
    last = ""
    while True:
        try:
            now = _drawn(next(work))
        except StopIteration as end:
            return end.value
        if now != last:
            last = now
            yield {"progress": {"value": now}}


def _drawn(progress: Progress) -> str:
    """A bar, in HTML."""
    steps = f", {progress.done:g} of {progress.total:g}" if progress.total else ""
    text = f"{html.escape(progress.stage) or 'starting'}{steps}, {progress.seconds:.0f} s"
    value = f' value="{progress.done:g}" max="{progress.total:g}"' if progress.total else ""
    return f'<progress{value}></progress><div role="status">{text}</div>'


def _summary(repaired: Repaired) -> str:
    """What was filled, how and how well, in a line."""
    result, missing, total = repaired.result, int((~repaired.observed).sum()), repaired.observed.numel()
    how = result.choice or "the kernel alone"
    if result.passes and not result.choice:
        how = f"{result.passes} content-aware pass{'es' if result.passes != 1 else ''}"
    kind = repaired.photograph.metadata.kind
    others = f"{kind} compresses the others again" if kind in _LOSSY else "all others are as they were"
    quality = "" if result.converged else f" Take care: {result.status.value}."
    return f"filled {missing:,} of {total:,} pixels by {how} in {result.seconds:.1f} s; {others}.{quality}"


def _told(error: Exception) -> Answer:
    """What went wrong, in a sentence."""
    return {"status": {"value": f"**{_plain(str(error) or type(error).__name__)}**"}}


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names of files may hold anything."""
    return "".join(f"\\{character}" if character in "\\`*_{}[]()<>#+-!|~$&" else character for character in text)
