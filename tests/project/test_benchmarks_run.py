"""Benchmarks that have a quick mode run in it."""

from __future__ import annotations

import sys

import pytest

from benchmarks import windows


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_the_benchmark_of_windows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    windows.main(["--quick", "holes"])
    shown = capsys.readouterr().out
    assert "1 spots" in shown and "GB" in shown
