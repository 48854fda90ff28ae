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
from fuzz.targets import TARGETS, kernels
from torch_cntk.covariance import duals

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


# Faults that are planted: the check of kernels must see them.

PRIORS = (tc.priors.Normal(0.3, 0.7), tc.priors.Normal(3, 1e6), tc.priors.Normal(0, 1e-9))
CLOSED = (tc.Erf, tc.Sin)
ACTIVATIONS = (*CLOSED, tc.GELU, tc.Tanh, tc.Softsign, tc.SiLU, tc.ELU, tc.Hardtanh, tc.ReLU6)


def case(activation: Any, prior: Any, kind: str = "ntk") -> kernels.Case:
    layers = [tc.Conv1d(1, 1, 3), tc.BilinearUp(2), activation(), tc.Conv1d(1, 1, 1)]
    return kernels.Case(layers, prior, (4,), {"kind": kind}, ordinary=False, seed=1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_errors_of_activations_are_found(
    monkeypatch: pytest.MonkeyPatch, activation: Any, kind: Any, prior: Any
) -> None:
    """Of 1e-7 of a value or a slope: a hundred times what tables state; in closed forms 1e-9 are seen."""
    given = case(activation, prior, kind)
    kernels.check(given)
    dual = type(activation()._dual())
    original, error = dual.__call__, 1e-9 if activation in CLOSED else 1e-7
    if activation is tc.Sin and prior is PRIORS[1]:
        pytest.skip("the phase of such waves has few digits")

    def wrong(self: Any, *given: Any) -> Any:
        value, slope = original(self, *given)
        return value * (1 + error * (kind == "nngp")), slope * (1 + 4 * error * (kind == "ntk"))

    monkeypatch.setattr(dual, "__call__", wrong)
    with pytest.raises(oracle.WrongError, match="off the recursion"):
        kernels.check(given)


@pytest.mark.parametrize("activation", [tc.ReLU, tc.Abs, lambda: tc.LeakyReLU(0.3)], ids=["relu", "abs", "leaky"])
@pytest.mark.parametrize("fault", ["bend", "lengths"])
@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_errors_of_rectifiers_are_found(
    monkeypatch: pytest.MonkeyPatch, activation: Any, fault: Any, prior: Any
) -> None:
    """Of 1e-7 of a kink, or of 1e-12 of a variance: equal features have an angle of 1e-6 then."""
    given = case(activation, prior)
    kernels.check(given)
    bend, lengths = vars(duals.Rectifier)["bend"].func, duals.Rectifier.lengths
    if fault == "bend":
        monkeypatch.setattr(duals.Rectifier, "bend", property(lambda self: bend(self) * (1 + 1e-7)))
    else:
        shorter = lambda self, variance: lengths(self, variance * (1 + 1e-12))  # noqa: E731
        monkeypatch.setattr(duals.Rectifier, "lengths", shorter)
    with pytest.raises(oracle.WrongError, match="off the recursion"):
        kernels.check(given)
