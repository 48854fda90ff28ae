"""Medians of interleaved runs, and a table."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def medians(works: Sequence[Callable[[], object]], repeats: int = 5) -> list[float]:
    """Median seconds of each piece of work; they take turns, so that a slow spell of the machine hits all."""
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(repeats):
        for work, taken in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def _measure(work: Callable[[], object], pipe: object) -> None:
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    clear.write_text("5")  # forget the peak of the imports

    def high_water() -> int:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    before = high_water()
    work()
    pipe.send(high_water() - before)  # type: ignore[attr-defined]


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes by which a fresh process grows while it does the work, libraries not counted (Linux)."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(work, sender))
    process.start()
    # Its copy of this end is then the last one: if it dies, nothing is waited for.
    sender.close()
    grown = receiver.recv()
    process.join()
    return int(grown)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    texts = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[k]) for row in texts) for k in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in texts
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """As ``markdown``."""
    print(markdown(header, rows))


def seconds_text(seconds: float) -> str:
    """Three digits, in seconds or milliseconds."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
