"""How a call ended: with a result that was found right, with an error or a warning of the package, or otherwise."""

from __future__ import annotations

import linecache
import random
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import numpy as np
import torch

import torch_cntk as tc

__all__ = ["Kind", "Outcome", "WrongError", "judge", "require"]

Kind = Literal["right", "warned", "refused", "wrong", "raw error", "raw warning", "state", "hang", "crash"]
FINDINGS: tuple[Kind, ...] = ("wrong", "raw error", "raw warning", "state", "hang", "crash")

SECONDS = 20.0
"""Of the processor, after which a call hangs: most take milliseconds. What waits is found out by ``work``."""
_PACKAGE = str(Path(tc.__file__).parent)
_OWN = str(Path(__file__).parent)
_ERRORS = (ValueError, TypeError, IndexError, OSError, MemoryError, ArithmeticError, NotImplementedError)
_LEAST_LETTERS = 20
"""Of a message that says what would be right."""


class WrongError(AssertionError):
    """A result is not what it must be."""


def require(condition: object, message: str) -> None:
    """Check what must be so.

    Raises:
        WrongError: the condition does not hold.
    """
    if not bool(condition):
        raise WrongError(message)


class _LateError(BaseException):
    """A call has taken too long; no handler of the package catches it."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        kind: in a word or two.
        detail: of a finding, for whoever mends it.
    """

    kind: Kind
    detail: str = ""

    @property
    def finding(self) -> bool:
        """Whether it should not have ended like this."""
        return self.kind in FINDINGS


def judge(call: Callable[[], Any], *, ordinary: bool = False) -> Outcome:
    """Make a call that checks its result itself, and say how it ended.

    Args:
        call: the call.
        ordinary: whether it must not be refused.
    """
    before = _state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome = _ended(call)
    changed = [name for name, value in _state().items() if value != before[name]]
    if outcome.finding:
        return outcome
    if ordinary and outcome.kind == "refused" and "OutOfMemoryError" not in outcome.detail:
        return Outcome("wrong", f"refused, though nothing is wrong with it: {outcome.detail}")
    if changed:
        return Outcome("state", f"changed: {', '.join(changed)}")
    raw = [warning for warning in caught if not _documented(warning)]
    if raw:
        return Outcome("raw warning", "; ".join(f"{w.filename}:{w.lineno}: {w.message}" for w in raw))
    return Outcome("warned") if caught and outcome.kind == "right" else outcome


def _ended(call: Callable[[], Any]) -> Outcome:
    try:
        with _limited():
            call()
    except WrongError as error:
        return Outcome("wrong", str(error) + _place(error))
    except _LateError as error:
        return Outcome("hang", f"no answer after {SECONDS:g} seconds of the processor" + _place(error))
    except Exception as error:
        return Outcome("refused" if _ours(error) else "raw error", f"{type(error).__name__}: {error}" + _place(error))
    return Outcome("right")


@contextmanager
def _limited() -> Iterator[None]:
    """Interrupt what takes too long, where the system can."""

    def late(number: int, frame: FrameType | None) -> None:
        raise _LateError

    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _ours(error: Exception) -> bool:
    """Whether the package raised an error itself, of a kind that users can catch, and says what would be right."""
    last = _last(error.__traceback__)
    if last is None or not last.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        return False
    line = linecache.getline(last.tb_frame.f_code.co_filename, last.tb_lineno).strip()
    return line.startswith("raise") and isinstance(error, _ERRORS) and len(str(error)) >= _LEAST_LETTERS


def _last(found: TracebackType | None) -> TracebackType | None:
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return found


def _place(error: BaseException) -> str:
    """The innermost lines of a traceback."""
    return "\n" + "".join(traceback.format_tb(error.__traceback__)[-4:])


def _documented(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is the package's: those point at the line of the user, which is one of ours here."""
    return issubclass(warning.category, UserWarning) and warning.filename.startswith(_OWN)


def _state() -> dict[str, object]:
    """What belongs to the user and no call may change."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the old generator is what users have
    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "automatic casting": torch.is_autocast_enabled("cpu"),
        "torch's algorithms": torch.are_deterministic_algorithms_enabled(),
        "default device": torch.get_default_device(),
        "numpy's generator": (name, np.asarray(keys).tobytes(), tuple(rest)),
        "numpy's errors": tuple(np.geterr().items()),
        "Python's generator": random.getstate(),
        "signals": signal.getsignal(signal.SIGINT),
        "folder": Path.cwd(),
    }
