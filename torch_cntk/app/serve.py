"""Show the page for as long as it is wanted, and leave nothing behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch_cntk.app.session import Machine
from torch_cntk.app.sessions import Sessions
from torch_cntk.app.work import prepare

__all__ = ["serving"]

_CACHE = "GRADIO_TEMP_DIR"


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
        ImportError: gradio is not installed.
        OSError: the port is not free.
    """
    with _cache() as folder:
        try:
            # Only now: gradio makes folders where its cache is when it is imported.
            from torch_cntk.app.page import launch
        except ModuleNotFoundError as error:
            raise ImportError(f"the page needs gradio: pip install 'torch-cntk[app]' ({error})") from error
        prepare()
        sessions = Sessions(machine, folder)
        try:
            address, end = launch(sessions, host, port, browser)
            try:
                yield address
            finally:
                end()
        finally:
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
