"""Calls in processes of their own, so that one that ends its process or never answers is found out as well."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from fuzz.oracle import SECONDS, Outcome
from fuzz.run import BATCH, batch

__all__ = ["Finding", "Tally", "in_process", "once", "watched"]

_SILENCE = 15 * SECONDS
"""After so many seconds without a word a process is ended: it waits, or hangs where Python cannot interrupt it. They
are many, as the machine may be busy with other programs."""
_STARTING = 120
"""Likewise until its first word: it imports torch."""
_MEMORY = 6 << 30
"""Bytes of address space that a process may take beyond what it has when it begins, where the system can say so: what
the package does not count beforehand must not end this machine."""


@dataclass(frozen=True)
class Finding:
    """A call that ended as none should.

    Attributes:
        number: of the call; see ``run.batch``.
        case: its input.
        outcome: how it ended.
    """

    number: int
    case: str
    outcome: Outcome


@dataclass
class Tally:
    """What came of the calls of a target.

    Attributes:
        counts: of each kind of outcome.
        findings: those that should not be.
        seconds: that it took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        """Number of them."""
        return sum(self.counts.values())

    def add(self, number: int, case: str, outcome: Outcome) -> None:
        """Count a call."""
        self.counts[outcome.kind] += 1
        if outcome.finding:
            self.findings.append(Finding(number, case, outcome))


def in_process(target: str, seed: int, calls: int) -> Tally:
    """Make the first calls of a target in this process."""
    tally, start = Tally(), time.perf_counter()

    def begin(number: int, case: Any) -> bool:
        return number < calls

    for number in range(-(-calls // BATCH)):
        batch(target, seed, number, begin, lambda n, case, outcome: tally.add(n, repr(case), outcome))
    tally.seconds = time.perf_counter() - start
    return tally


def once(target: str, seed: int, number: int) -> Tally:
    """Make one call again, in this process."""
    tally = Tally()
    add: Callable[[int, Any, Outcome], None] = lambda n, case, outcome: tally.add(n, repr(case), outcome)  # noqa: E731
    batch(target, seed, number // BATCH, lambda n, case: n == number, add)
    return tally


def watched(target: str, seed: int, *, seconds: float, calls: int | None = None) -> Tally:
    """Make calls of a target for some time, or so many of them, in a process that is watched."""
    tally, start, first = Tally(), time.perf_counter(), 0
    while (left := seconds - (time.perf_counter() - start)) > 0 and (calls is None or first * BATCH < calls):
        first = _slice(target, seed, first, left, calls, tally)
    tally.seconds = time.perf_counter() - start
    return tally


def _slice(target: str, seed: int, first: int, seconds: float, calls: int | None, tally: Tally) -> int:
    """Calls of one process, until the time is over or it ends; returns the batch with which to go on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, target, seed, first, seconds, calls), daemon=True)
    process.start()
    theirs.close()
    number, case, patience = first * BATCH, "", float(_STARTING)
    try:
        while ours.poll(patience):
            word, *rest = ours.recv()
            patience = float(_SILENCE)
            if word == "begin":
                number, case = rest
            elif word == "end":
                tally.add(number, case, rest[0])
            else:
                process.join()
                return (number // BATCH) + 1
        tally.add(number, case, Outcome("hang", f"no answer after {patience:g} seconds; the process was ended"))
    except EOFError:
        process.join()
        tally.add(number, case, Outcome("crash", f"the process ended with the status {process.exitcode}"))
    finally:
        process.kill()
        process.join()
        ours.close()
    return number // BATCH + 1


def _work(out: Connection, target: str, seed: int, first: int, seconds: float, calls: int | None) -> None:
    """The work of a process: batch after batch, each call told before and after."""
    faulthandler.enable()
    logging.disable(logging.WARNING)
    _limit_memory()
    start = time.perf_counter()

    def begin(number: int, case: Any) -> bool:
        over = time.perf_counter() - start > seconds or (calls is not None and number >= calls)
        if not over:
            out.send(("begin", number, repr(case)))
        return not over

    def end(number: int, case: Any, outcome: Outcome) -> None:
        out.send(("end", outcome))

    number = first
    while time.perf_counter() - start < seconds and (calls is None or number * BATCH < calls):
        batch(target, seed, number, begin, end)
        number += 1
    out.send(("done",))


def _limit_memory() -> None:
    try:
        import resource
        from pathlib import Path

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, hard))
