"""The processes of a mesh divide, add, gather, compare and fail together."""

from __future__ import annotations

import copy
import os
import pickle
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.ranks import Launcher, Outcome, launcher
from torch_cntk.distributed import Mesh

SIZES = (2, 3, 4)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex128)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


def numbers(rank: int, count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(rank), dtype=torch.float64) * 10.0**rank


def all_collectives() -> dict[str, Any]:
    mesh = tc.distributed.mesh(timeout=60)
    assert tc.distributed.mesh(timeout=60) is mesh
    found: dict[str, Any] = {"rank": mesh.rank, "size": mesh.size, "device": str(mesh.device)}
    for count in (0, 1, 5, 1024, 1025, 5000):
        before = numbers(mesh.rank, count).reshape(-1, 1)
        given = before.clone()
        sent = mesh.bytes_sent
        found[f"sum {count}"] = mesh.sum(given)
        found[f"bytes {count}"] = mesh.bytes_sent - sent
        assert torch.equal(given, before)
    found["sum again"] = mesh.sum(numbers(mesh.rank, 5000).reshape(-1, 1))
    strided = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(mesh.sum(strided), mesh.size * strided)
    for n in (0, 1, 2, 3, 7, 40):
        for multiple in (1, 3):
            whole = numbers(9, 3 * n).reshape(n, 3)
            assert torch.equal(mesh.gather(whole[mesh.share(n, multiple)], n, multiple), whole)
    for dtype in DTYPES:
        whole = (10 * numbers(9, 11)).to(dtype)
        assert torch.equal(mesh.gather(whole[mesh.share(11)], 11), whole)
    found["broadcast"] = mesh.broadcast({"of": mesh.rank, "tensor": torch.ones(mesh.rank + 1)})
    assert copy.deepcopy([mesh])[0] is mesh and pickle.loads(pickle.dumps(mesh)) is mesh
    device_mesh = mesh.device_mesh
    assert device_mesh is not None and device_mesh.ndim == 1 and device_mesh.size() == mesh.size
    mesh.agree(table=torch.ones(3, 2), ridge=0.1, names=["a", None])
    mesh.barrier()
    return found


@pytest.mark.parametrize("size", SIZES)
def test_collectives(ranks: Launcher, size: int) -> None:
    found = ranks.values(all_collectives, size)
    assert [one["rank"] for one in found] == list(range(size))
    assert all((one["size"], one["device"]) == (size, "cpu") for one in found)
    for count in (0, 1, 5, 1024, 1025, 5000):
        expected = numbers(0, count)
        for rank in range(1, size):
            expected = expected + numbers(rank, count)  # in the order of the ranks, to the bit
        assert all(torch.equal(one[f"sum {count}"][:, 0], expected) for one in found)
    assert all(torch.equal(one["sum again"], one["sum 5000"]) for one in found)
    length = -(-5000 // size)
    # What opens a sum takes 512 bytes, small vectors included.
    assert all(one["bytes 5000"] == 2 * (size - 1) * length * 8 + 512 * (size - 1) for one in found)
    assert all(one["bytes 1024"] == (size - 1) * (1024 * 8 + 512) for one in found)
    assert all(one["bytes 5"] == 512 * (size - 1) for one in found)
    assert all(one["broadcast"]["of"] == 0 and len(one["broadcast"]["tensor"]) == 1 for one in found)


def unlike() -> list[str]:
    mesh = tc.distributed.mesh(timeout=60)
    odd = mesh.rank == 1
    tensors = [
        torch.ones(3 + odd),
        torch.ones(2, 3) if odd else torch.ones(3, 2),
        torch.ones(5, dtype=torch.float32 if odd else torch.float64),
        torch.ones(5000 if odd else 4),
        torch.ones(5000 + odd),
        torch.ones(0 if odd else 1),
    ]
    found = []
    for tensor in tensors:
        with pytest.raises(ValueError) as told:
            mesh.sum(tensor)
        found.append(str(told.value))
    assert float(mesh.sum(torch.ones(1))) == mesh.size  # the mesh goes on
    return found


@pytest.mark.parametrize("size", SIZES)
def test_unlike_tensors_are_not_added(ranks: Launcher, size: int) -> None:
    first, *others = ranks.values(unlike, size)
    assert all(other == first for other in others)
    rest = "rank 0" if size == 2 else "ranks 0 and 2" if size == 3 else "ranks 0, 2 and 3"
    assert first[0] == (
        f"expected the same kind of tensor in a sum on all ranks, got torch.float32 [3] on cpu on {rest}; "
        "torch.float32 [4] on cpu on rank 1"
    )
    assert "[3, 2]" in first[1] and "torch.float64" in first[2] and "[5000]" in first[3] and "[5001]" in first[4]
    assert "[0]" in first[5]


def no_numbers() -> list[tuple[str, str]]:
    mesh = tc.distributed.mesh(timeout=60)
    odd, two = mesh.rank == 1, torch.ones(2)
    calls = (
        lambda: mesh.sum(torch.ones(2, dtype=torch.bool)),
        lambda: mesh.sum(1.5),  # type: ignore[arg-type]
        lambda: mesh.sum(two.numpy()),  # type: ignore[arg-type]
        lambda: mesh.sum([1.0, 2.0]),  # type: ignore[arg-type]
        lambda: mesh.sum(None if odd else two),  # type: ignore[arg-type]
        lambda: mesh.gather(None if odd else two[:1], 2),  # type: ignore[arg-type]
        lambda: mesh.gather(1.5, 2),  # type: ignore[arg-type]
        lambda: mesh.gather(two if odd else two[:1], 2),
        lambda: mesh.gather(torch.ones(1, 2 + odd), 2),
        lambda: mesh.exchange(None if odd else two, [2, 2]),  # type: ignore[arg-type]
        lambda: mesh.exchange([1.0], [1, 1]),  # type: ignore[arg-type]
        lambda: mesh.exchange(torch.ones(3) if odd else two, [2, 2]),
        lambda: mesh.broadcast(lambda: None),
    )
    found = []
    for call in calls:
        with pytest.raises((TypeError, ValueError)) as told:
            call()
        found.append((type(told.value).__name__, str(told.value)))
        assert float(mesh.sum(torch.ones(1))) == mesh.size  # ranks are in step
    return found


def test_what_is_no_tensor_of_numbers_is_refused_by_all_ranks(ranks: Launcher) -> None:
    first, second = ranks.values(no_numbers, 2)
    assert [kind for kind, _ in first] == [kind for kind, _ in second]
    wrong = ("torch.bool [2]", "float", "ndarray", "list")
    assert [text for _, text in first[:4]] == [f"expected a torch tensor of numbers to sum, got {got}" for got in wrong]
    assert first == second
    assert first[4][1].endswith("got torch.float32 [2] on cpu on rank 0; no tensor (NoneType) on rank 1")
    assert "kind of tensor in a gathering of rows" in first[5][1]
    assert "no tensor (NoneType) on rank 1" in first[5][1] and "2 in place of 1 on rank 1" in first[7][1]
    assert "[0, 3] on cpu on rank 1" in first[8][1]
    assert "kind of tensor in an exchange of blocks" in first[9][1]
    assert "3 numbers where [2, 2] are said on rank 1" in first[11][1]
    assert first[12][1].startswith("expected what can be pickled to broadcast, got function")
    alone = Mesh.alone()
    for wrong_one in (1.5, torch.ones(2, dtype=torch.bool), None):
        with pytest.raises(TypeError, match="expected a torch tensor of numbers to sum"):
            alone.sum(wrong_one)  # type: ignore[arg-type]


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 17, 100])
def test_shares_cover_all_rows_evenly(n: int, multiple: int) -> None:
    for size in (1, 2, 3, 7):
        shares = Mesh(0, size).shares(n, multiple)
        assert [row for share in shares for row in range(n)[share]] == list(range(n))
        assert all(share.start % multiple == 0 or share.start == n for share in shares)
        blocks = [-(-(share.stop - share.start) // multiple) for share in shares]
        assert max(blocks) - min(blocks) <= 1
        assert [Mesh(rank, size).share(n, multiple) for rank in range(size)] == shares


def test_mesh_of_one_is_the_identity() -> None:
    mesh = Mesh.alone()
    tensor = torch.randn(3, 2)
    assert mesh.sum(tensor) is tensor and mesh.gather(tensor, 3) is tensor
    assert mesh.share(3) == slice(0, 3) and mesh.broadcast(tensor) is tensor
    mesh.agree(anything=tensor)
    mesh.barrier()
    with pytest.raises(KeyError), mesh.together():
        raise KeyError("x")
    assert mesh.bytes_sent == 0 and mesh.device_mesh is None
    assert not torch.distributed.is_initialized()


def test_without_torchrun_there_is_one_rank() -> None:
    mesh = tc.distributed.mesh()
    assert (mesh.rank, mesh.size) == (0, 1)
    assert not torch.distributed.is_initialized()
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="expected timeout to be above 0 seconds"):
            tc.distributed.mesh(timeout=wrong)
    with pytest.raises(ValueError, match='expected backend "gloo", "nccl" or None, got \'mpi\''):
        tc.distributed.mesh(backend="mpi")  # type: ignore[arg-type]


def disagreements() -> list[str]:
    mesh = tc.distributed.mesh(timeout=60)
    odd = mesh.rank == 1
    found = []
    for values in (
        {"ridge": 0.1 if odd else 0.2},
        {"features": torch.ones(3).double() + 1e-16 * odd},
        {"features": torch.full((3,), 1 + 1e-15 * odd, dtype=torch.float64)},
        {"features": torch.ones(3, 2 + odd)},
        {"features": torch.ones(3).to(torch.float64 if odd else torch.float32)},
        {"mask": torch.tensor([True, not odd])},
        {"options": {"a": 1, "b": [torch.zeros(2) + odd]}},
        {"row_names": [f"row {i + 100 * odd * (i == 99)}" for i in range(100)]},
        {"one": 1} if odd else {"other": 1},
        {"anything": object()},
    ):
        try:
            mesh.agree(**values)
            found.append("")
        except ValueError as error:
            found.append(str(error))
    return found


def test_what_differs_is_named(ranks: Launcher) -> None:
    told = ranks.values(disagreements, 3)
    assert told[0] == told[1] == told[2]
    expected = iter(told[0])
    assert next(expected) == "expected the same ridge on all ranks, got 0.2 on ranks 0 and 2; 0.1 on rank 1"
    assert next(expected) == ""  # the sum is rounded to the same number
    assert "the same features on all ranks, got float64 [3] with checksum" in next(expected)
    assert "float32 [3, 2] with checksum" in next(expected)
    assert "float32 [3]" in next(expected)
    assert "the same mask on all ranks, got bool [2]" in next(expected)
    assert "the same b (options) on all ranks" in next(expected)
    assert "the same row names on all ranks" in next(expected)
    assert "got 1 on ranks 0 and 2; nothing on rank 1" in next(expected)
    assert next(expected) == ""


class Particular(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def failures() -> list[tuple[str, str]]:
    mesh = tc.distributed.mesh(timeout=60)
    found = []

    def one_rank() -> None:
        if mesh.rank == 1:
            raise ValueError("expected a good number, got 13")

    def all_ranks() -> None:
        raise TypeError("expected a number")

    def two_ranks() -> None:
        if mesh.rank != 1:
            raise tc.OutOfMemoryError(f"rank {mesh.rank} is full")

    def particular() -> None:
        if mesh.rank == 2:
            raise Particular(1, 2)

    def collective() -> None:
        mesh.barrier()

    def nested() -> None:
        with mesh.together():
            pass

    for work in (one_rank, all_ranks, two_ranks, particular, collective, nested):
        try:
            with mesh.together():
                work()
        except Exception as error:
            found.append((type(error).__name__, str(error)))
    with mesh.together():
        total = mesh.rank
    assert float(mesh.sum(torch.tensor(float(total)))) == 3  # all of them go on
    return found


def test_an_error_on_one_rank_is_raised_on_all(ranks: Launcher) -> None:
    outcomes = ranks.run(failures, 3)
    for outcome in outcomes:
        assert outcome.value == [
            ("ValueError", "on rank 1: expected a good number, got 13"),
            ("TypeError", "expected a number"),
            ("OutOfMemoryError", "on rank 0: rank 0 is full"),
            ("RuntimeError", "on rank 2: Particular: 1 and 2"),
            ("RuntimeError", "expected no barrier of all ranks within a rank's own work"),
            ("RuntimeError", "expected no block of work by rank within another one"),
        ]


def lost(way: str) -> None:
    mesh = tc.distributed.mesh(timeout=1.5 if way == "slow" else 20)
    mesh.barrier()
    if mesh.rank == 1:
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "slow":
            time.sleep(4)
        if way == "ended":
            return
    try:
        mesh.sum(torch.ones(5000))
    finally:
        if way != "slow" or mesh.rank != 1:
            with pytest.raises(RuntimeError):  # what has failed stays so, at once
                mesh.barrier()


@pytest.mark.parametrize(("way", "size"), [("killed", 2), ("killed", 4), ("slow", 3), ("ended", 3)])
def test_lost_ranks_end_the_wait(ranks: Launcher, way: str, size: int) -> None:
    outcomes = ranks.run(lost, size, way)
    others: list[Outcome] = [outcome for rank, outcome in enumerate(outcomes) if rank != 1]
    assert outcomes[1].code == (-signal.SIGKILL if way == "killed" else 0)
    for outcome in others:
        assert outcome.code == 0 and outcome.error is not None
        kind, text = outcome.error
        assert kind == "RuntimeError"
        assert f"A sum among {size} ranks failed on rank" in text
        # On a busy machine another rank may not answer in time either.
        assert re.search(rf"ranks? .*\b1\b.* ended, or did not come within {'1.5' if way == 'slow' else '20'} s", text)


def alone_of_two() -> None:
    if os.environ["RANK"] == "0":
        tc.distributed.mesh(timeout=1)


def test_ranks_that_never_come_end_the_wait(ranks: Launcher) -> None:
    first, second = ranks.run(alone_of_two, 2)
    assert second.error is None and first.error is not None
    assert first.error[0] == "RuntimeError"
    assert "rank 0 could not meet all 2 ranks within 1 s" in first.error[1]


def incomplete() -> None:
    del os.environ["MASTER_PORT"]
    tc.distributed.mesh(timeout=1)


def no_number() -> None:
    os.environ["WORLD_SIZE"] = "two"
    tc.distributed.mesh(timeout=1)


def other_threads() -> None:
    if os.environ["RANK"] == "1":
        torch.set_num_threads(2)
    tc.distributed.mesh(timeout=60)


def user_group() -> None:
    torch.distributed.init_process_group("gloo")
    mesh = tc.distributed.mesh(timeout=60)
    assert float(mesh.sum(torch.ones(()))) == mesh.size == torch.distributed.get_world_size()
    again = tc.distributed.mesh(timeout=15)  # another time, another group
    assert again is not mesh and float(again.sum(torch.ones(()))) == mesh.size


def without_gpus() -> None:
    tc.distributed.mesh(timeout=1, backend="nccl")


def test_what_torchrun_should_have_set_is_asked_for(ranks: Launcher) -> None:
    for outcome in ranks.run(incomplete, 2):
        assert outcome.error is not None and "got no MASTER_PORT" in outcome.error[1]
    for outcome in ranks.run(no_number, 2):
        assert (
            outcome.error is not None and "expected a number in the environment variable WORLD_SIZE" in outcome.error[1]
        )
    for outcome in ranks.run(other_threads, 2):
        assert outcome.error == (
            "ValueError",
            "expected the same number of threads on all ranks, got 1 on rank 0; 2 on rank 1",
        )
    ranks.values(user_group, 2)
    if not torch.cuda.is_available():
        for outcome in ranks.run(without_gpus, 2):
            assert outcome.error is not None and "expected a GPU for each process of this machine" in outcome.error[1]
