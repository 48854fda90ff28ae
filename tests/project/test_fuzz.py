"""The fuzz programme: a few calls of each target, the same in each run; and that it finds what it should.

``python -m fuzz --minutes 10`` makes new ones.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from fuzz import oracle, work
from fuzz.__main__ import main
from fuzz.oracle import Outcome, judge, require
from fuzz.run import batch
from fuzz.targets import TARGETS

SEED = 20220412
CALLS = {"kernels": 10, "inpaint": 20, "completion": 10, "conversion": 15, "files": 40, "command": 8}


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_calls_of_each_target(target: str) -> None:
    tally = work.in_process(target, SEED, CALLS[target])
    assert tally.calls == CALLS[target]
    assert [(finding.number, finding.case, finding.outcome) for finding in tally.findings] == []


def numbers(target: str, seed: int, only: int | None = None) -> dict[int, str]:
    """The inputs of the first batch, or one of them; nothing is called."""
    found: dict[int, str] = {}

    def begin(number: int, case: Any) -> bool:
        if only is None or number == only:
            found[number] = repr(case)
        return False

    batch(target, seed, 0, begin, lambda *ended: pytest.fail("it was called"))
    return found


def test_a_call_can_be_had_again_by_its_number() -> None:
    every = numbers("files", 7)
    assert every == numbers("files", 7)
    assert every != numbers("files", 8)
    assert numbers("files", 7, 23) == {23: every[23]}
    assert work.once("files", 7, 23).calls == 1


def refuse(what: str) -> None:
    tc.Conv2d(1, 1, what)  # type: ignore[arg-type]


def never() -> None:
    while True:
        pass


ENDS: dict[str, tuple[Any, str]] = {
    "right": (lambda: None, "right"),
    "ours": (lambda: refuse("wide"), "refused"),
    "wrong": (lambda: require(False, "it is wrong"), "wrong"),
    "torch's": (lambda: torch.ones(2) @ torch.ones(3), "raw error"),
    "Python's": (lambda: int("x"), "raw error"),
    "warning": (lambda: warnings.warn("of a library", RuntimeWarning, stacklevel=1), "raw warning"),
    "numpy's warning": (lambda: np.float64(1) / np.float64(0), "raw warning"),
    "random": (lambda: torch.rand(1), "state"),
    "numpy": (lambda: np.random.rand(), "state"),  # noqa: NPY002
    "hang": (never, "hang"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_oracle_tells_how_a_call_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "SECONDS", 0.2)
    call, kind = ENDS[name]
    outcome = judge(call)
    assert outcome.kind == kind, outcome.detail
    assert outcome.finding == (kind not in ("right", "warned", "refused"))


def test_what_is_ordinary_must_not_be_refused() -> None:
    assert judge(lambda: refuse("wide"), ordinary=True).kind == "wrong"


def test_findings_are_told_with_the_command_that_repeats_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.run.judge", lambda call, ordinary: Outcome("raw error", "TypeError: it"))
    assert main(["--target", "files", "--seed", "5", "--only", "3"]) == 1
    shown = capsys.readouterr().out
    assert "raw error: TypeError: it" in shown
    assert "python -m fuzz --target files --seed 5 --only 3" in shown
    assert "1 calls: 1 raw error; 1 findings" in shown
