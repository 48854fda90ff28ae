"""Run functions of tests on several processes that find each other as torchrun's do.

Importing torch takes seconds a process. Here one process imports it and is forked for each rank: a launch takes tenths
of a second. The processes talk by gloo over the loopback device. A process of its own keeps their store, as the agent
of torchrun does.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Launcher", "Outcome", "launcher", "serve"]

_ROOT = Path(__file__).parents[2]
_PATIENCE = 5.0
"""Seconds after which a launcher that does not end is killed."""


@dataclass(frozen=True)
class Outcome:
    """How the work of one rank ended.

    Attributes:
        value: what the function returned.
        error: what it raised instead, as the error's kind and text.
        seconds: that it took.
        code: exit code of the process; negative if a signal ended it.
    """

    value: Any
    error: tuple[str, str] | None
    seconds: float
    code: int


class Launcher:
    """A process that is forked for each rank."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )

    def run(self, work: Callable[..., Any], size: int, *arguments: Any, within: float = 90.0) -> list[Outcome]:
        """Call a function of a module on each of some ranks.

        Args:
            work: called with the arguments.
            size: number of ranks.
            *arguments: they must be possible to pickle.
            within: seconds after which what still runs is killed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((work.__module__, work.__qualname__, size, arguments, within), self._process.stdin)
        self._process.stdin.flush()
        outcomes: list[Outcome] = pickle.load(self._process.stdout)
        return outcomes

    def values(self, work: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
        """What the function returns on each rank, none of which may fail."""
        outcomes = self.run(work, size, *arguments)
        failures = {rank: (one.error, one.code) for rank, one in enumerate(outcomes) if one.error or one.code}
        assert not failures, failures
        return [outcome.value for outcome in outcomes]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def launcher() -> Iterator[Launcher]:
    """A launcher that is closed in the end."""
    made = Launcher()
    try:
        yield made
    finally:
        made.close()


def serve() -> None:
    """Fork as is asked for on the standard input, and answer with the outcomes on the standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import torch_cntk  # noqa: F401 - so that ranks need not import it

    while True:
        try:
            module, name, size, arguments, within = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)
        work = getattr(importlib.import_module(module), name)
        keeper, port = _keeper()
        with tempfile.TemporaryDirectory() as folder:
            children = [_forked(work, arguments, rank, size, port, folder) for rank in range(size)]
            pickle.dump(_outcomes(children, Path(folder), within), answers)
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        answers.flush()


def _keeper() -> tuple[int, int]:
    """A process that keeps the ranks' store, and the store's port.

    The store has threads of its own: a process with threads may be forked while one of them holds a lock.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as port:
            return child, int(port.readline())
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    os.write(writing, f"{store.port}\n".encode())
    while True:
        time.sleep(_PATIENCE)
        if os.getppid() == 1:  # whoever forked it is gone
            os._exit(0)


def _forked(work: Callable[..., Any], arguments: Any, rank: int, size: int, port: int, folder: str) -> int:
    """The number of a new process, which does the work of one rank."""
    child = os.fork()
    if child:
        return child
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    start = time.perf_counter()
    value, error = None, None
    try:
        value = work(*arguments)
    except Exception as raised:
        error = type(raised).__name__, str(raised)
    answer = Path(folder) / f"{rank}.part"
    answer.write_bytes(pickle.dumps((value, error, time.perf_counter() - start)))
    answer.rename(Path(folder) / str(rank))
    os._exit(0)


def _outcomes(children: list[int], folder: Path, within: float) -> list[Outcome]:
    """How all processes end; those that take too long are killed."""
    until = time.monotonic() + within
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                if time.monotonic() > until:
                    os.kill(child, signal.SIGKILL)
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    found = []
    for rank, child in enumerate(children):
        file = folder / str(rank)
        value, error, seconds = pickle.loads(file.read_bytes()) if file.exists() else (None, None, float("nan"))
        found.append(Outcome(value, error, seconds, codes[child]))
    return found
