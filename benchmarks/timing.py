"""Medians of interleaved runs, and a table."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes by which a fresh process grows while it does the work, libraries not counted (Linux)."""
    return costs(tuple, work).peak


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


@dataclass(frozen=True)
class Costs:
    """What a piece of work took: seconds, processor seconds of all threads, bytes at the peak beyond those before."""

    seconds: float
    processor: float
    peak: int


def _measure_costs(prepare: Callable[[], tuple[object, ...]], work: Callable[..., object], pipe: object) -> None:
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    data = prepare()
    clear.write_text("5")  # forget the peak of the preparations

    def high_water() -> int:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    before, start, processor = high_water(), time.perf_counter(), time.process_time()
    work(*data)
    costs = Costs(time.perf_counter() - start, time.process_time() - processor, high_water() - before)
    pipe.send(costs)  # type: ignore[attr-defined]


def costs(prepare: Callable[[], tuple[object, ...]], work: Callable[..., object]) -> Costs:
    """What ``work(*prepare())`` takes in a fresh process, once, without the preparations (Linux)."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_costs, args=(prepare, work, sender))
    process.start()
    # Its copy of this end is then the last one: if it dies, nothing is waited for.
    sender.close()
    found: Costs = receiver.recv()
    process.join()
    return found
