"""Operators made of others, against their matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.matrices.completion import fully_connected
from torch_cntk.operators.base import DenseOperator
from torch_cntk.operators.derived import ScaledOperator, SelectedOperator
from torch_cntk.operators.row_column import RowColumnOperator, between


def assert_is_its_matrix(operator: Any, matrix: torch.Tensor, generator: torch.Generator) -> None:
    """Products, entries, single pairs and the diagonal."""
    count = len(matrix)
    w = torch.randn(2, 3, *operator.size, generator=generator, dtype=torch.float64)
    expected = (w.reshape(6, count) @ matrix).reshape(w.shape)
    assert torch.allclose(operator @ w, expected, rtol=1e-11, atol=1e-11)
    first, second = (torch.randint(count, (k,), generator=generator) for k in (4, 7))
    assert torch.allclose(operator.entries(first, second), matrix[first][:, second], rtol=1e-12, atol=1e-13)
    assert torch.allclose(
        tc.Operator.entries(operator, first, second), matrix[first][:, second], rtol=1e-12, atol=1e-13
    )
    assert torch.allclose(operator.diagonal.flatten(), matrix.diagonal(), rtol=1e-12)
    assert operator.mean_diagonal == pytest.approx(float(matrix.diagonal().mean()), rel=1e-12)


@pytest.mark.parametrize("stored", [True, False])
def test_selected_and_scaled(stored: Any, generator: torch.Generator) -> None:
    z = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    gram = tc.GramOperator(fully_connected(2).propagate, z, white=0.3)
    matrix = gram.dense()
    whole = DenseOperator(matrix) if stored else gram
    index = torch.randperm(9, generator=generator)[:6]
    scale = torch.rand(6, generator=generator, dtype=torch.float64) + 0.5
    part = matrix[index][:, index]
    selected = SelectedOperator(whole, index)
    assert_is_its_matrix(selected, part, generator)
    assert_is_its_matrix(ScaledOperator(selected, scale), scale[:, None] * part * scale, generator)


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_rows_and_columns(combine: Any, generator: torch.Generator) -> None:
    factors = [torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (3, 4)]
    rows, columns = (factor @ factor.T for factor in factors)
    ones = [torch.ones(n, n, dtype=torch.float64) for n in (3, 4)]
    matrix = (
        torch.kron(rows, columns) if combine == "product" else torch.kron(rows, ones[1]) + torch.kron(ones[0], columns)
    )
    operator = RowColumnOperator(rows, columns, combine)
    assert_is_its_matrix(operator, matrix, generator)
    scale = torch.rand(4, generator=generator, dtype=torch.float64) + 0.5
    spread = scale.expand(3, 4).flatten()
    assert_is_its_matrix(ScaledOperator(operator, scale), spread[:, None] * matrix * spread, generator)
    w = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    other_rows, other_columns = (torch.randn(2, n, generator=generator, dtype=torch.float64) for n in (3, 4))
    filled = between(other_rows, other_columns, w, combine)
    for i, j in ((0, 0), (1, 0), (1, 1)):
        pair = (
            torch.outer(other_rows[i], other_columns[j])
            if combine == "product"
            else other_rows[i][:, None] + other_columns[j]
        )
        assert float(filled[i, j]) == pytest.approx(float((pair * w).sum()), rel=1e-10, abs=1e-12)
