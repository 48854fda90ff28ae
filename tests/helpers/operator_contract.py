"""What every operator promises. A test of an operator inherits ``OperatorContract`` and says how to make one."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import math
import pickle
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.regressions import direct, stationary_average


def keep_contract(operator: tc.Operator, generator: torch.Generator, tolerance: float | None = None) -> int:
    """Run all tests of an operator without pytest, as in a process of several; how many there were."""
    contract, count = OperatorContract(), 0
    contract.tolerance = tolerance or contract.tolerance
    every = torch.arange(math.prod(operator.size))
    known = {"operator": operator, "matrix": operator.entries(every, every), "generator": generator}
    for name, test in inspect.getmembers(contract, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        marks = [mark.args for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        for values in itertools.product(*(values for _, values in marks)):
            given = {argument: value for (argument, _), value in zip(marks, values, strict=True)}
            wanted = inspect.signature(test).parameters
            test(**given, **{argument: value for argument, value in known.items() if argument in wanted})
            count += 1
    return count


class OperatorContract:
    """Tests of one operator; the subclass has a fixture ``operator`` and perhaps another tolerance."""

    tolerance = 1e-11
    """Of entries and products in float64, relative to the largest entry and to the sum of absolute values."""

    @pytest.fixture
    def operator(self) -> tc.Operator:
        raise NotImplementedError

    @pytest.fixture
    def matrix(self, operator: tc.Operator) -> torch.Tensor:
        """By its entries: products are compared with it."""
        every = torch.arange(math.prod(operator.size))
        return operator.entries(every, every)

    def images(self, operator: tc.Operator, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        return torch.randn(*shape, *operator.size, generator=generator, dtype=torch.float64)

    def test_states_what_it_is(self, operator: Any) -> None:
        assert isinstance(operator, tc.Operator)
        assert isinstance(operator.size, tuple)
        assert operator.dtype.is_floating_point
        assert operator.entry_dtype.is_floating_point
        assert operator.cost > 0
        assert operator.entry_cost > 0
        assert operator.traffic >= 0
        assert operator.iterations is None or operator.iterations > 0

    def test_matrix_is_symmetric_and_positive_semi_definite(self, matrix: Any) -> None:
        scale = float(matrix.abs().max())
        assert matrix.dtype == torch.float64
        assert (matrix - matrix.T).abs().max() <= self.tolerance * scale
        # Rounding of an eigenvalue is that of the largest one, which is at most the trace.
        assert float(torch.linalg.eigvalsh(matrix)[0]) >= -self.tolerance * float(matrix.diagonal().sum())

    def test_unit_vectors_give_the_entries(self, operator: Any, matrix: Any) -> None:
        units = torch.eye(len(matrix), dtype=torch.float64).reshape(len(matrix), *operator.size)
        product = (operator.multiply(units)).reshape(matrix.shape)
        assert (product - matrix).abs().max() <= self.tolerance * matrix.abs().max()

    def test_products_are_those_of_the_matrix(self, operator: Any, matrix: Any, generator: torch.Generator) -> None:
        w = self.images(operator, (5,), generator).reshape(5, -1)
        product = (operator @ w.reshape(5, *operator.size)).reshape(5, -1)
        assert ((product - w @ matrix).abs() <= self.tolerance * (w.abs() @ matrix.abs()).max()).all()

    def test_single_pairs_and_blocks_of_entries_agree(
        self, operator: Any, matrix: Any, generator: torch.Generator
    ) -> None:
        pixels = len(matrix)
        first = torch.randint(pixels, (4,), generator=generator)
        second = torch.randint(pixels, (7,), generator=generator)
        scale = matrix.abs().max()
        assert (operator.entries(first, second) - matrix[first][:, second]).abs().max() <= self.tolerance * scale
        x, y = (list(torch.unravel_index(index, operator.size)) for index in (first[:, None], second))
        assert (operator.lookup(x, y).double() - matrix[first][:, second]).abs().max() <= self.tolerance * scale
        assert operator.entries(first[:0], second).shape == (0, 7)

    def test_diagonal_and_its_mean(self, operator: Any, matrix: Any) -> None:
        assert (operator.diagonal.shape, operator.diagonal.dtype) == (operator.size, torch.float64)
        assert (operator.diagonal.flatten() - matrix.diagonal()).abs().max() <= self.tolerance * matrix.abs().max()
        assert operator.mean_diagonal == pytest.approx(float(matrix.diagonal().mean()), rel=100 * self.tolerance)

    def test_stationary_average_is_the_mean_over_positions(self, operator: Any, matrix: Any) -> None:
        if operator.stationary is None:
            return
        expected = stationary_average(matrix.reshape(*operator.size, *operator.size))
        assert operator.stationary.dtype == torch.float64
        assert (operator.stationary - expected).abs().max() <= self.tolerance * matrix.abs().max()

    def test_selection_is_a_part_of_the_matrix(self, operator: Any, matrix: Any, generator: torch.Generator) -> None:
        index = torch.randperm(len(matrix), generator=generator)[: len(matrix) // 2]
        selected = operator.select(index)
        part = matrix[index][:, index]
        assert selected.size == (len(index),)
        w = torch.randn(2, len(index), generator=generator, dtype=torch.float64)
        assert (selected.multiply(w) - w @ part).abs().max() <= self.tolerance * (w.abs() @ part.abs()).max()

    @pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 1, 3), (0,)])
    def test_any_batch(self, operator: Any, matrix: Any, shape: Any, generator: torch.Generator) -> None:
        w = self.images(operator, shape, generator)
        product = operator @ w
        assert product.shape == w.shape
        expected = (w.reshape(-1, len(matrix)) @ matrix).reshape(w.shape)
        assert torch.allclose(product, expected, rtol=0, atol=self.tolerance * float(matrix.abs().sum(1).max()) * 10)

    def test_images_keep_their_precision_and_are_left_alone(
        self, operator: Any, matrix: Any, generator: torch.Generator
    ) -> None:
        w = self.images(operator, (2,), generator)
        before = w.clone()
        product = operator @ w
        assert torch.equal(w, before)
        assert product.data_ptr() != w.data_ptr()
        narrow = operator @ w.float()
        assert narrow.dtype == torch.float32
        bound = 1e-5 * (w.abs().reshape(2, -1) @ matrix.abs()).max()
        assert (narrow.double() - product).abs().max() <= bound

    def test_images_that_are_not_contiguous(self, operator: Any, generator: torch.Generator) -> None:
        w = self.images(operator, (3,), generator)
        strided = w.movedim(0, -1).contiguous().movedim(-1, 0)
        # The order of additions may differ.
        assert torch.allclose(
            operator @ strided, operator @ w, rtol=1e-9, atol=1e-9 * float((operator @ w).abs().max())
        )

    def test_products_are_linear(self, operator: Any, generator: torch.Generator) -> None:
        u, v = self.images(operator, (2,), generator)
        left, right = operator @ (2 * u - v), 2 * (operator @ u) - operator @ v
        scale = (operator @ u.abs()).abs().max() + (operator @ v.abs()).abs().max()
        assert (left - right).abs().max() <= 100 * self.tolerance * scale

    def test_wrong_images_are_refused(self, operator: Any) -> None:
        longer = (*operator.size[:-1], operator.size[-1] + 1)
        for shape in (longer, (3, *longer), operator.size[1:]):
            with pytest.raises(
                ValueError, match=r"expected (images of .* pixels|vectors of .* numbers, .*), got shape"
            ):
                operator @ torch.zeros(shape, dtype=torch.float64)
        for images in (torch.ones(operator.size, dtype=torch.long), torch.ones(operator.size).bool(), [1.0], None):
            with pytest.raises(TypeError, match=r"expected (images|vectors) in a floating point tensor"):
                operator @ images

    def test_gradient_of_a_product_is_a_product(self, operator: Any, generator: torch.Generator) -> None:
        w, g = self.images(operator, (2, 2), generator)
        tracked = w.clone().requires_grad_()
        product = operator @ tracked
        # The order of additions may differ.
        scale = (operator @ (w.abs() + g.abs())).abs().max()
        assert (product.detach() - operator @ w).abs().max() <= self.tolerance * scale
        (gradient,) = torch.autograd.grad(product, tracked, g)
        assert (gradient - operator @ g).abs().max() <= self.tolerance * scale
        with torch.no_grad():
            assert not (operator @ tracked).requires_grad

    def test_modes_of_torch_change_nothing(self, operator: Any, generator: torch.Generator) -> None:
        w = self.images(operator, (2,), generator)
        expected = operator @ w, operator @ w.float()
        with torch.inference_mode():
            assert torch.equal(operator @ w, expected[0])
        assert torch.equal(operator @ w, expected[0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(operator @ w.float(), expected[1])
        torch.set_default_dtype(torch.float64)
        try:
            assert torch.equal(operator @ w.float(), expected[1])
        finally:
            torch.set_default_dtype(torch.float32)

    @pytest.mark.parametrize("way", ["pickle", "deepcopy", "torch.save"])
    def test_copies_are_equal(self, operator: Any, way: Any, generator: torch.Generator) -> None:
        w = self.images(operator, (2,), generator)
        expected = operator @ w
        match way:
            case "pickle":
                other = pickle.loads(pickle.dumps(operator))
            case "deepcopy":
                other = copy.deepcopy(operator)
            case _:
                buffer = io.BytesIO()
                torch.save(operator, buffer)
                buffer.seek(0)
                other = torch.load(buffer, weights_only=False)
        assert type(other) is type(operator)
        assert (other.size, other.dtype, other.cost, other.iterations) == (
            operator.size,
            operator.dtype,
            operator.cost,
            operator.iterations,
        )
        first = torch.arange(math.prod(operator.size))[:5]
        assert torch.equal(other @ w, expected)
        assert torch.equal(other.entries(first, first), operator.entries(first, first))
        assert torch.equal(other.diagonal, operator.diagonal)

    def test_regression_is_solved(self, operator: Any, matrix: Any, generator: torch.Generator) -> None:
        observed = torch.rand(operator.size, generator=generator) < 0.7
        observed.view(-1)[0] = True
        y = self.images(operator, (2,), generator) * observed
        regression = tc.Regression(operator, observed, 0.1)
        dense = matrix.reshape(*operator.size, *operator.size)
        expected = direct(dense, observed, y, 0.1)
        single = operator.dtype == torch.float32
        for solver in (tc.Direct(), tc.ConjugateGradient(1e-5 if single else 1e-9, 2000)):
            solution = solver.solve(regression, y)
            # The tolerance times the condition number, which the ridge bounds.
            assert (solution.weights - expected).norm() <= (1e-2 if single else 1e-4) * expected.norm()
