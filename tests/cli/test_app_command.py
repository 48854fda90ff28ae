"""``torch-cntk app`` without a browser: its options, and what it says without gradio."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from torch_cntk.cli.main import main


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page would be served with; Ctrl-C ends it at once."""
    asked: dict[str, Any] = {}

    @contextlib.contextmanager
    def serving(machine: Any, **options: Any) -> Iterator[str]:
        asked.update(options, machine=machine)
        yield "http://somewhere/"
        asked["ended"] = True

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torch_cntk.cli.app.serving", serving)
    monkeypatch.setattr("time.sleep", interrupt)
    return asked


def test_this_machine_alone_by_default(
    served: dict[str, Any], capsys: pytest.CaptureFixture[str], threads: Any
) -> None:
    assert main(["app", "--threads", "1"]) == 0
    assert served["host"] == "127.0.0.1" and served["port"] is None and not served["browser"] and served["ended"]
    assert (served["machine"].megapixels, served["machine"].threads, served["machine"].device) == (24, 1, "cpu")
    out, err = capsys.readouterr()
    assert "http://somewhere/" in out and err == ""


def test_options(served: dict[str, Any], capsys: pytest.CaptureFixture[str], threads: Any) -> None:
    arguments = ["--host", "0.0.0.0", "--port", "8000", "--max-megapixels", "2.5", "--open", "--threads", "1"]
    assert main(["app", *arguments]) == 0
    assert (served["host"], served["port"], served["browser"]) == ("0.0.0.0", 8000, True)
    assert served["machine"].megapixels == 2.5
    assert "warning: whoever reaches this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "0"], "--port from 1 to 65535"),
        (["--port", "70000"], "--port from 1 to 65535"),
        (["--max-megapixels", "0"], "--max-megapixels above 0"),
        (["--max-megapixels", "nan"], "--max-megapixels"),
        (["--max-megapixels", "1e9"], "at most 1000"),
    ],
)
def test_refusals(
    arguments: list[str], said: str, served: dict[str, Any], capsys: pytest.CaptureFixture[str], threads: Any
) -> None:
    assert main(["app", *arguments]) == 2
    assert said in capsys.readouterr().err and not served


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], threads: Any) -> None:
    monkeypatch.delitem(sys.modules, "torch_cntk.app.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", "--threads", "1"]) == 2
    assert "pip install 'torch-cntk[app]'" in capsys.readouterr().err
