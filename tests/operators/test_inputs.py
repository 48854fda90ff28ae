"""The kernel between images as an operator."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.operator_contract import OperatorContract
from torch_cntk.covariance.pairs import evaluation


def net() -> tc.Sequential:
    return tc.Sequential(
        tc.Conv2d(2, 4, 3), tc.ReLU(), tc.AvgPool2d(2), tc.Conv2d(4, 4, 3), tc.Erf(), tc.GlobalAvgPool()
    )


def images(generator: torch.Generator, n: int = 7) -> torch.Tensor:
    return torch.randn(n, 2, 4, 4, generator=generator, dtype=torch.float64)


class TestInputsOperator(OperatorContract):
    @pytest.fixture
    def operator(self, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> tc.Operator:
        monkeypatch.setitem(evaluation._SLAB_ENTRIES, "cpu", 300)
        return net().gram_operator(images(generator))


def test_other_images(generator: torch.Generator) -> None:
    x, others = images(generator), images(generator, 3)
    operator: Any = net().gram_operator(x)
    expected = net().gram(others, x)
    w = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    assert torch.allclose(operator.cross(others), expected, rtol=1e-12, atol=0)
    assert torch.allclose(operator.cross_multiply(others, w), w @ expected.T, rtol=0, atol=1e-11)
    assert torch.allclose(operator.diagonal_of(others), net().gram(others).diagonal(), rtol=1e-12, atol=0)
    assert torch.allclose(operator.dense(), net().gram(x), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"expected images of shape \[m, 2, 4, 4\]"):
        operator.cross(others[:, :, :3])


def test_memory_of_earlier_blocks_is_nobody_elses(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results stay as they are while later ones are computed: in and out of inference mode, by several threads."""
    monkeypatch.setitem(evaluation._SLAB_ENTRIES, "cpu", 300)
    operator: Any = net().gram_operator(images(generator))
    with torch.inference_mode():
        early = operator.entries(torch.arange(3), torch.arange(7))
    kept, expected = early.clone(), operator.dense()
    with torch.inference_mode():
        assert torch.equal(operator.dense(), expected)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: operator.dense(), range(12)))
    assert all(torch.equal(other, expected) for other in found)
    assert torch.equal(early, kept)
    # Blocks of other pairs are in another order of two images.
    assert torch.allclose(early, expected[:3], rtol=1e-12, atol=0)


def test_pickled(generator: torch.Generator) -> None:
    operator: Any = net().gram_operator(images(generator))
    again = pickle.loads(pickle.dumps(operator))
    assert torch.equal(again.dense(), operator.dense())
    assert again.size == operator.size


def test_selected_images_keep_their_diagonal(generator: torch.Generator) -> None:
    operator: Any = net().gram_operator(images(generator))
    index = torch.tensor([4, 0, 2])
    assert torch.allclose(operator.select(index).diagonal, operator.diagonal[index], rtol=1e-14, atol=0)
