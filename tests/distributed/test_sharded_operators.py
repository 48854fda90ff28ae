"""Operators whose blocks several ranks compute are those of one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.operator_contract import OperatorContract
from tests.helpers.ranks import Launcher, launcher
from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators import GramOperator, InputsOperator, ShardedGram

SIZES = (2, 3, 4)
TOLERANCE = 1e-12
"""Relative to the sum of absolute values: additions in another order."""


@pytest.fixture(scope="module")
def ranks() -> Iterator[Launcher]:
    with launcher() as made:
        yield made


def rows_operator(n: int, seed: int, **options: Any) -> GramOperator:
    net = tc.Sequential(tc.Linear(5, 1), tc.ReLU(), tc.Linear(1, 1), tc.Erf(), tc.Linear(1, 1))
    operator = net.gram_operator(draw(seed, n, 5), white=0.3, **options)
    assert isinstance(operator, GramOperator)
    return operator


def images_operator(n: int, seed: int) -> InputsOperator:
    net = tc.Sequential(tc.Conv1d(2, 1, 3), tc.ReLU(), tc.Flatten(), tc.Linear(1, 1))
    return InputsOperator(net.propagate, draw(seed, n, 2, 4))


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(kind: str, n: int, seed: int) -> tuple[Any, torch.Tensor]:
    """An operator and other inputs."""
    if kind == "images":
        return images_operator(n, seed), draw(seed + 1, 5, 2, 4)
    dtype = torch.float32 if kind == "float32" else None
    return rows_operator(n, seed, dtype=dtype), draw(seed + 1, n + 2, 5)


def compared(seed: int, cases: list[tuple[str, int]]) -> list[dict[str, Any]]:
    mesh = tc.distributed.mesh(timeout=60)
    found = []
    for kind, n in cases:
        single, others = made(kind, n, seed)
        shared = single.divided(mesh)
        assert type(shared) is ShardedGram
        w = draw(seed + 2, 3, n)
        index = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        product, expected = shared.multiply(w), single.multiply(w)
        scale = single.multiply(w.abs()).abs().max() if kind != "float32" else w.abs().sum() * single.mean_diagonal
        allowed = TOLERANCE if kind != "float32" else 1e-6
        assert (product - expected).abs().max() <= allowed * scale, (kind, n)
        # Blocks are the same, and each is computed by one rank.
        assert torch.equal(shared.dense(), single.dense()), (kind, n)
        assert torch.equal(shared.entries(index[: n // 2], index), single.entries(index[: n // 2], index))
        assert torch.equal(shared.cross(others), single.cross(others))
        assert torch.equal(shared.cross_multiply(others, w), single.cross_multiply(others, w))
        assert torch.equal(shared.diagonal, single.diagonal)
        part = index[: max(n // 3, 1)]
        assert torch.equal(shared.select(part).dense(), single.select(part).dense())
        first = shared.gathered(None, first=True)
        assert (first is None) == (mesh.rank > 0)
        assert first is None or torch.equal(first, single.dense())
        twice = (2 * (single + single)).divided(mesh)
        assert torch.allclose(twice.multiply(w), 4 * product, rtol=1e-6 if kind == "float32" else 1e-12)
        for one in (shared, twice) if n > 1 else ():
            with pytest.raises(ValueError, match="expected vectors as rows"):
                one @ torch.eye(n, dtype=torch.float64)
        found.append({"product": product, "bytes": mesh.bytes_sent})
    return found


CASES = [("rows", 1), ("rows", 2), ("rows", 3), ("rows", 60), ("float32", 50), ("images", 7)]


@pytest.mark.parametrize("size", SIZES)
def test_shared_operators_are_those_of_one_process(ranks: Launcher, size: int, generator: torch.Generator) -> None:
    seed = int(torch.randint(10**6, (), generator=generator))
    # One matrix of more than a block of each kind, with uneven last ones.
    cases = [*CASES, ("rows", 801), ("images", 90)] if size == 3 else CASES
    found = ranks.values(compared, size, seed, cases)
    for one in found[1:]:
        assert all(torch.equal(a["product"], b["product"]) for a, b in zip(found[0], one, strict=True))


def pixels(seed: int) -> None:
    mesh = tc.distributed.mesh(timeout=60)
    net = tc.Sequential(tc.Conv1d(2, 1, 3), tc.ReLU(), tc.Conv1d(1, 1, 3))
    images = draw(seed, 5, 2, 6)
    single = InputsOperator(net.propagate, images)
    shared = ShardedGram(single, mesh)
    assert torch.equal(shared.dense(), single.dense())
    assert torch.equal(shared.cross(images[:2] + 1), single.cross(images[:2] + 1))


def test_kernels_between_pixels(ranks: Launcher, generator: torch.Generator) -> None:
    ranks.values(pixels, 3, int(torch.randint(10**6, (), generator=generator)))


def traffic() -> list[int]:
    mesh = tc.distributed.mesh(timeout=60)
    shared = rows_operator(1200, 0).divided(mesh)
    w = draw(1, 2, 1200)
    shared @ w
    before = mesh.bytes_sent
    shared @ w
    return [mesh.bytes_sent - before, 3 * 8 * (mesh.size - 1)]


def test_bytes_of_a_product(ranks: Launcher) -> None:
    for sent, report in ranks.values(traffic, 3):
        # 2 (ranks - 1) / ranks of the product, and the report of each rank to the others, and what opens a sum.
        assert sent == 2 * 2 * (2 * 1200 * 8) // 3 + report + 512 * 2


def faults() -> list[tuple[str, str]]:
    mesh = tc.distributed.mesh(timeout=60)
    shared = rows_operator(30, 0).divided(mesh)
    found = []

    def other_vectors() -> None:
        shared @ (draw(1, 30) * (1 + 1e-15 * (mesh.rank == 1)))

    def other_work() -> None:
        if mesh.rank == 2:
            shared.cross_multiply(draw(3, 4, 5), draw(1, 2, 30))
        else:
            shared @ draw(1, 30)

    def full() -> None:
        if mesh.rank == 1:
            vars(shared.operator)["own_blocks"] = _full
        shared @ draw(1, 30)

    for work in (other_vectors, other_work, full):
        try:
            work()
        except Exception as error:
            found.append((type(error).__name__, str(error)))
    return found


def _full(least: int) -> Any:
    raise tc.OutOfMemoryError("no room")


def test_ranks_that_differ_are_told(ranks: Launcher) -> None:
    found = ranks.values(faults, 3)
    assert found[0] == found[1] == found[2]
    (vectors, work, full) = found[0]
    assert vectors[0] == "RuntimeError"
    assert "in a product: expected the same numbers on all ranks, got checksum" in vectors[1]
    assert "on ranks 0 and 2" in vectors[1] and "on rank 1; ranks need the same kind of processor" in vectors[1]
    assert work == (
        "RuntimeError",
        "expected the same work on all ranks, got a product on ranks 0 and 1; a prediction on rank 2",
    )
    assert full == ("OutOfMemoryError", "on rank 1: no room")


def test_another_kind_of_device_is_refused() -> None:
    with pytest.raises(ValueError, match="expected inputs on meta, as the mesh is, got cpu"):
        rows_operator(3, 0).divided(Mesh(device="meta"))


class TestShardedRows(OperatorContract):
    """On one rank; that several do the same is tested above."""

    @pytest.fixture
    def operator(self) -> Any:
        return rows_operator(11, 3).divided(Mesh.alone())


class TestShardedImages(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return images_operator(6, 3).divided(Mesh.alone())
