"""A solve on several ranks survives the death of any of them, and whatever else goes wrong ends in a sentence."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_cntk as tc
from benchmarks import kills
from tests.helpers.ranks import Launcher, launcher
from torch_cntk._internal import checkpoints

N = 150
WAIT = 4.0
"""Seconds for which ranks wait for each other, where one of them does not come."""


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


def problem(seed: int, mesh: tc.distributed.Mesh | None = None) -> tuple[tc.Regression, torch.Tensor]:
    """A kernel that is divided among the ranks, and two right-hand sides on a part of the inputs."""
    draws = torch.Generator().manual_seed(seed)
    features = torch.randn(N, 6, generator=draws, dtype=torch.float64)
    observed = torch.rand(N, generator=draws) < 0.8
    targets = torch.randn(2, N, generator=draws, dtype=torch.float64) * observed
    net = tc.Sequential(tc.Linear(6, 8), tc.ReLU(), tc.Linear(8, 1))
    return tc.Regression(net.gram_operator(features, mesh=mesh), observed, 1e-3), targets


def image(seed: int, mesh: tc.distributed.Mesh) -> tuple[tc.Regression, torch.Tensor]:
    """A kernel of an image that is large enough for two bands."""
    draws = torch.Generator().manual_seed(seed)
    size = (96, 16)
    observed = torch.rand(size, generator=draws) < 0.5
    targets = torch.randn(1, *size, generator=draws, dtype=torch.float64) * observed
    operator = tc.load_kernel("uniform-3x128-leaky0.1").operator(size, dtype=torch.float64).divided(mesh)
    return tc.Regression(operator, observed, 1e-3), targets


def solver(path: Path | None, name: str = "jacobi") -> Any:
    """Conjugate gradients with this preconditioner, or EigenPro."""
    if name == "EigenPro":
        return tc.EigenPro(4, subsample=60, checkpoint=path, checkpoint_seconds=0)
    chosen: Any = tc.Landmarks(30) if name == "landmarks" else name
    return tc.ConjugateGradient(1e-10, preconditioner=chosen, checkpoint=path, checkpoint_seconds=0)


def solved(seed: int, path: Path | None, name: str = "jacobi", lives: tuple[float, ...] = ()) -> torch.Tensor:
    """The weights; a rank with a life ends after so many seconds, at whatever it does then."""
    mesh = tc.distributed.mesh(timeout=WAIT)
    regression, targets = (image if name == "nested" else problem)(seed, mesh)
    if mesh.rank < len(lives) and lives[mesh.rank]:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, lives[mesh.rank])
    weights: torch.Tensor = solver(path, name).solve(regression, targets).weights
    signal.setitimer(signal.ITIMER_REAL, 0)
    return weights


@pytest.mark.parametrize(("name", "size"), [("jacobi", 2), ("landmarks", 2), ("landmarks", 3)])
def test_several_ranks_solve_what_one_does(ranks: Launcher, name: str, size: int) -> None:
    seed = random.randrange(1 << 30)
    alone = solver(None, name).solve(*problem(seed)).weights
    found = ranks.values(solved, size, seed, None, name)
    assert all(torch.equal(weights, found[0]) for weights in found)
    # Both are within 1e-10 of y, and the smallest eigenvalue is 1e-3 of the mean one.
    torch.testing.assert_close(found[0], alone, rtol=0, atol=1e-6 * float(alone.abs().max()))


def completed(path: Path | None) -> torch.Tensor:
    """A matrix that all ranks fit together."""
    draws = torch.Generator().manual_seed(5)
    features = torch.randn(60, 6, generator=draws, dtype=torch.float64)
    table = torch.tanh(features @ torch.randn(6, 3, generator=draws, dtype=torch.float64)).T
    table[:, ::5] = torch.nan
    solver = tc.ConjugateGradient(1e-10, checkpoint=path, checkpoint_seconds=0)
    mesh = None if path is None else tc.distributed.mesh(timeout=WAIT)
    model = tc.MatrixCompletion(ridge=1e-2, solver=solver, mesh=mesh).fit(table, features=features)
    filled: torch.Tensor = model.predict()
    return filled


def test_a_matrix_is_completed_with_a_checkpoint(ranks: Launcher, tmp_path: Path) -> None:
    first, second = ranks.values(completed, 2, tmp_path / "fit.pt")
    assert torch.equal(first, second)
    torch.testing.assert_close(first, completed(None), rtol=0, atol=1e-7)
    assert not list(tmp_path.iterdir())


def test_landmarks_of_more_ranks_than_inputs(ranks: Launcher) -> None:
    for preconditioned in ranks.values(few_inputs, 4):
        torch.testing.assert_close(preconditioned, few_inputs(), rtol=1e-8, atol=1e-10)


def few_inputs() -> torch.Tensor:
    """What the preconditioner makes of a vector, of three inputs."""
    from torch_cntk.solvers.landmarks import LandmarkNystrom

    net = tc.Sequential(tc.Linear(2, 8), tc.ReLU(), tc.Linear(8, 1))
    mesh = tc.distributed.mesh(timeout=WAIT)
    operator = net.gram_operator(torch.eye(3, 2, dtype=torch.float64) + 0.1, mesh=mesh)
    regression = tc.Regression(operator, torch.tensor([True] * 3), 0.1)
    divide = LandmarkNystrom(regression, tc.Landmarks(2)).restricted(regression.mask[None])
    return divide(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["landmarks", "nested", "EigenPro"])
def test_killed_ranks_go_on_to_the_same_bits(ranks: Launcher, name: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    draws, path = random.Random(seed), tmp_path / "solve.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.monotonic()
        # With a file, so that images have no bands, whose states would differ between the ranks.
        whole = ranks.values(solved, 2, seed, path, name)[0]
        life = time.monotonic() - start
    for _ in range(3):
        lives = [0.0, 0.0]
        lives[draws.randrange(2)] = draws.uniform(0.01, life)
        outcomes = ranks.run(solved, 2, seed, path, name, tuple(lives))
        for outcome in outcomes:
            # Killed, told of it, or done before.
            assert outcome.code == -signal.SIGALRM or outcome.error is not None or torch.equal(outcome.value, whole)
            assert outcome.error is None or ("ended" in outcome.error[1] or "failed" in outcome.error[1]), outcome.error
    found = ranks.values(solved, 2, seed, path, name)
    assert torch.equal(found[0], whole) and torch.equal(found[1], whole)
    assert not path.exists()


def left(ranks: Launcher, path: Path, seed: int = 3) -> None:
    """Leave the checkpoint of two ranks."""
    outcomes = ranks.run(killed_at_product, 2, seed, path)
    assert [outcome.code for outcome in outcomes] == [-signal.SIGKILL] * 2 and path.exists()


def killed_at_product(seed: int, path: Path) -> None:
    mesh = tc.distributed.mesh(timeout=WAIT)
    regression, targets = problem(seed, mesh)
    operator: Any = regression.operator
    multiply, count = operator._multiply, [0]

    def mortal(images: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] == 12:
            mesh.barrier()
            os.kill(os.getpid(), signal.SIGKILL)
        return multiply(images)

    operator._multiply = mortal
    solver(path).solve(regression, targets)


def test_another_number_of_ranks_is_refused_on_all(ranks: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "solve.pt"
    left(ranks, path)
    outcomes = ranks.run(solved, 3, 3, path)
    for outcome in outcomes:
        assert outcome.error is not None and outcome.error[0] == "ValueError"
        assert "expected a checkpoint of a solve on 3 ranks, got one of 2" in outcome.error[1]
        assert "start 2 to go on from it, or remove it" in outcome.error[1]
    with pytest.raises(ValueError, match="expected a checkpoint of a solve on 1 ranks, got one of 2"):
        solver(path).solve(*problem(3))
    assert torch.equal(*ranks.values(solved, 2, 3, path))


def test_damage_is_told_on_all_ranks(ranks: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "solve.pt"
    left(ranks, path)
    path.write_bytes(path.read_bytes()[:-2000])
    for outcome in ranks.run(solved, 2, 3, path):
        assert outcome.error is not None and "another or a damaged file" in outcome.error[1]


def test_only_the_first_rank_needs_the_file(ranks: Launcher, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    left(ranks, tmp_path / "0" / "solve.pt")
    (tmp_path / "1").mkdir()
    assert torch.equal(*ranks.values(on_own_disks, 2, tmp_path))
    assert not list(tmp_path.rglob("*.pt"))


def on_own_disks(folder: Path) -> torch.Tensor:
    rank = tc.distributed.mesh(timeout=WAIT).rank
    return solved(3, folder / str(rank) / "solve.pt")


def slow(seconds: float, wait: float) -> tuple[float, torch.Tensor]:
    """One rank takes longer at its third product."""
    mesh = tc.distributed.mesh(timeout=wait)
    regression, targets = problem(3, mesh)
    operator: Any = regression.operator
    multiply, count = operator._multiply, [0]

    def sleepy(images: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] == 3 and mesh.rank == 1:
            if seconds < 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(abs(seconds))
        return multiply(images)

    operator._multiply = sleepy
    return seconds, solver(None).solve(regression, targets).weights


def test_a_slow_rank_is_waited_for(ranks: Launcher) -> None:
    found = ranks.values(slow, 2, 1.0, WAIT)
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("stopped", [False, True])
def test_a_rank_that_does_not_come_is_named_in_time(ranks: Launcher, stopped: bool) -> None:
    wait = 1.5
    first, _ = ranks.run(slow, 2, -20.0 if stopped else 20.0, wait, within=wait + 8)
    assert first.error is not None and first.error[0] == "RuntimeError"
    assert "rank 1 ended, or did not come within 1.5 s" in first.error[1]
    # Waiting, and two seconds to find out who is there.
    assert first.seconds < wait + 7


def test_less_memory_on_one_rank_is_told_on_all(ranks: Launcher) -> None:
    for outcome in ranks.run(with_little_memory, 2):
        assert outcome.error is not None and outcome.error[0] == "OutOfMemoryError"
        assert "on rank 1: a preconditioner of 30 pivoted landmarks for 150 inputs needs" in outcome.error[1]


def with_little_memory() -> None:
    from torch_cntk._internal import memory

    mesh = tc.distributed.mesh(timeout=WAIT)
    memory._SMALL = 0
    memory.available_bytes = lambda device="cpu": 10**3 if mesh.rank == 1 else 10**9
    regression, targets = problem(3, mesh)
    solver(None, "landmarks").solve(regression, targets)


def test_other_inputs_on_one_rank_are_told_on_all(ranks: Launcher, tmp_path: Path) -> None:
    for path in (None, tmp_path / "solve.pt"):
        for outcome in ranks.run(of_other_targets, 2, path):
            assert outcome.error is not None
            assert "on all ranks" in outcome.error[1] or "on rank 1" in outcome.error[1], outcome.error


def of_other_targets(path: Path | None) -> None:
    mesh = tc.distributed.mesh(timeout=WAIT)
    regression, targets = problem(3, mesh)
    solver(path).solve(regression, targets + 1e-9 * mesh.rank)


def test_a_full_disk_of_the_first_rank_costs_a_warning(ranks: Launcher, tmp_path: Path) -> None:
    told = ranks.values(on_a_full_disk, 2, tmp_path / "solve.pt")
    assert "the checkpoint was not written, the solve goes on without it" in told[0][0]
    assert told[1] == []


def on_a_full_disk(path: Path) -> list[str]:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoints.write = full  # type: ignore[assignment]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solved(3, path)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def test_ranks_that_are_killed_under_torchrun_go_on_to_the_same_bits(ranks: Launcher, tmp_path: Path) -> None:
    draws = random.Random()
    found = kills.launch(tmp_path, 2, [kills.Moment(draws.uniform(0, 2), True)], draws)
    assert found.code == 0, (tmp_path / "log").read_text()
    assert (found.kills, found.weights) == (1, unbroken(ranks, tmp_path))


def unbroken(ranks: Launcher, folder: Path) -> str:
    """What two ranks write that nobody kills."""
    (folder / "whole").mkdir()
    ranks.values(kills.solve, 2, folder / "whole")
    return (folder / "whole" / "weights").read_text()


@pytest.mark.slow
def test_a_killed_launcher_leaves_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    found = kills.launch(tmp_path, 2, [], random.Random(), launcher_lives=1.0)
    assert found.code == -signal.SIGKILL and (tmp_path / "solve.pt").exists() and found.weights is None
    again = kills.launch(tmp_path, 2, [], random.Random())
    assert (again.code, again.resumed) == (0, 1) and again.weights is not None


@pytest.mark.slow
def test_two_hundred_kills() -> None:
    assert kills.report(200, 2, 20, random.randrange(1 << 30))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None, reason="no command ip")
def test_two_hosts_with_addresses_of_their_own(ranks: Launcher, tmp_path: Path) -> None:
    with kills.two_hosts() as hosts:
        if hosts is None:
            pytest.skip("this user may not make network namespaces (ip netns)")
        found = kills.launch_on_hosts(tmp_path, hosts, kills.Moment(0.5, True), random.Random())
    assert found.code == 0, (tmp_path / "log").read_text()
    assert (found.kills, found.weights) == (1, unbroken(ranks, tmp_path))
