"""All operators keep the contract of operators; so does one that a user might write."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from tests.helpers.operator_contract import OperatorContract
from tests.helpers.regressions import deep, random_operator
from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators import (
    BlockCirculantOperator,
    DenseOperator,
    GramOperator,
    Operator,
    PeriodicOperator,
    StencilOperator,
)
from torch_cntk.operators.derived import MultipleOperator, ScaledOperator, SelectedOperator, SumOperator
from torch_cntk.operators.over_ranks import BandedOperator, GatheredOperator, SharedOperator
from torch_cntk.operators.row_column import RowColumnOperator


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def features(*size: int) -> torch.Tensor:
    return torch.randn(3, *size, generator=seeded(), dtype=torch.float64)


def periodic(size: tuple[int, ...] = (16, 12)) -> Operator:
    return deep(2).kernel(tc.priors.Uniform()).operator(size)


def gram(inputs: int = 11) -> GramOperator:
    net = tc.Sequential(tc.Linear(4, 1), tc.ReLU(), tc.Linear(1, 1), tc.Erf(), tc.Linear(1, 1))
    z = torch.randn(inputs, 4, generator=seeded(), dtype=torch.float64)
    operator = net.gram_operator(z, white=0.3)
    assert isinstance(operator, GramOperator)
    return operator


class TestDense(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return random_operator((4, 6), 1e3, seeded())


class TestDenseWithoutDisplacements(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return DenseOperator(gram().dense())


class TestDenseKernel(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        operator = deep(1).kernel(tc.priors.Tensor(features(8, 6))).operator()
        assert type(operator) is DenseOperator
        return operator


class TestPeriodic(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        operator = periodic()
        assert type(operator) is PeriodicOperator
        return operator


class TestPeriodicWithPhases(OperatorContract):
    """Its far part depends on the phases, and its axes do not separate."""

    @pytest.fixture
    def operator(self) -> Any:
        net = tc.Sequential(
            tc.StridedConv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3)
        )
        return net.kernel(tc.priors.Uniform()).operator((20, 24))


class TestPeriodicInFloat32(OperatorContract):
    tolerance = 2e-6

    @pytest.fixture
    def operator(self) -> Any:
        return deep(1).kernel(tc.priors.Uniform()).operator((12, 8), dtype=torch.float32)


class TestSignal(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        net = tc.Sequential(tc.Conv1d(1, 1, 3, stride=2), tc.ReLU(), tc.NearestUp(2), tc.Conv1d(1, 1, 3), tc.ReLU())
        return net.kernel(tc.priors.Uniform()).operator((20,))


class TestVideo(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        net = tc.Sequential(tc.Conv3d(1, 1, 3), tc.ReLU(), tc.Conv3d(1, 1, 1))
        return net.kernel(tc.priors.Uniform()).operator((4, 5, 3))


class TestBlockCirculant(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        operator = deep(2).kernel(tc.priors.Uniform(), (4, 8)).operator()  # so small that displacements wrap
        assert type(operator) is BlockCirculantOperator
        return operator


class TestStencil(OperatorContract):
    tolerance = 1e-6  # of tables in float32

    @pytest.fixture
    def operator(self) -> Any:
        prior = tc.priors.White(0.1) + tc.priors.Tensor(features(8, 10))
        operator = deep(1).kernel(prior, (8, 10), radius=3, dtype=torch.float32).operator()
        assert type(operator) is StencilOperator
        return operator


class TestWindowOfAStationaryPrior(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        operator = deep(1).kernel(tc.priors.Uniform(), (12, 8), radius=3, dtype=torch.float64).operator()
        assert type(operator) is PeriodicOperator
        return operator


class TestGathered(OperatorContract):
    """Of one rank; those of several are in tests/distributed."""

    @pytest.fixture
    def operator(self) -> Any:
        operator = random_operator((4, 6), 1e3, seeded()).divided(Mesh.alone())
        assert type(operator) is GatheredOperator
        return operator


class TestPeriodicInBands(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        operator = periodic().divided(Mesh.alone())
        assert type(operator) is BandedOperator
        return operator.in_bands()


class TestStencilInBands(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        prior = tc.priors.White(0.1) + tc.priors.Tensor(features(8, 10))
        operator = deep(1).kernel(prior, (8, 10), radius=3).operator().divided(Mesh.alone())
        assert type(operator) is BandedOperator
        return operator.in_bands()


class TestSharedOfAllDisplacements(OperatorContract):
    """Along an axis of an even number of pixels, half of it is its own negative."""

    @pytest.fixture
    def operator(self) -> Any:
        kernel = deep(1).kernel(tc.priors.Tensor(features(8, 6)), mesh=Mesh.alone())
        operator = kernel.operator()
        assert type(operator) is SharedOperator
        return operator


class TestSharedWindow(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        prior = tc.priors.White(0.1) + tc.priors.Tensor(features(8, 10))
        return deep(1).kernel(prior, (8, 10), radius=3, mesh=Mesh.alone()).operator()


class TestGram(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return gram()


@pytest.mark.parametrize("combine", ["product", "sum"])
class TestRowColumn(OperatorContract):
    @pytest.fixture
    def operator(self, combine: Any) -> Any:
        rows, columns = (f @ f.T for f in (features(n, 5)[0] for n in (3, 4)))
        return RowColumnOperator(rows, columns, combine)


class TestSelected(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return SelectedOperator(gram(15), torch.tensor([3, 0, 14, 7, 9, 2]))


class TestScaled(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return ScaledOperator(gram(), torch.rand(11, generator=seeded(), dtype=torch.float64) + 0.5)


class TestSum(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return periodic((8, 12)) + random_operator((8, 12), 1e2, seeded())


class TestMultiple(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return 0.3 * periodic((8, 12))


class TestMixture(OperatorContract):
    tolerance = 1e-6

    @pytest.fixture
    def operator(self) -> Any:
        prior = tc.priors.White(0.1) + tc.priors.Tensor(features(8, 12))
        stencil = deep(1).kernel(prior, (8, 12), radius=3, dtype=torch.float32).operator()
        return 2 * (periodic((8, 12)) + 0.5 * stencil)


class Exponential(Operator):
    """exp(-|i - j|): what a user has to write for a kernel of their own."""

    def __init__(self, n: int) -> None:
        super().__init__((n,), torch.float64, torch.device("cpu"), cost=2 * n)

    def lookup(self, first: Any, second: Any) -> Any:
        return torch.exp(-(first[0] - second[0]).abs().double())

    def _multiply(self, images: Any) -> Any:
        every = torch.arange(self.size[0])
        return (images.double() @ self.lookup([every[:, None]], [every])).to(images.dtype)


class TestOfAUser(OperatorContract):
    @pytest.fixture
    def operator(self) -> Any:
        return Exponential(9)


# How they compose.


def test_sum_is_that_of_the_matrices(generator: torch.Generator) -> None:
    first, second = periodic((8, 12)), random_operator((8, 12), 1e2, generator)
    total = first + second
    assert type(total) is SumOperator
    every = torch.arange(96)
    assert torch.equal(total.entries(every, every), first.entries(every, every) + second.entries(every, every))
    assert torch.equal(total.diagonal, first.diagonal + second.diagonal)
    assert total.stationary is not None and first.stationary is not None and second.stationary is not None
    assert torch.equal(total.stationary, first.stationary + second.stationary)
    assert total.mean_diagonal == pytest.approx(first.mean_diagonal + second.mean_diagonal, rel=1e-12)
    w = torch.randn(2, 8, 12, generator=generator, dtype=torch.float64)
    assert torch.equal(total @ w, (first @ w) + (second @ w))
    assert total.cost == first.cost + second.cost + 1
    assert total.entry_cost == first.entry_cost + second.entry_cost + 1
    assert total.traffic == first.traffic + second.traffic
    assert first.iterations is not None and second.iterations is not None
    assert total.iterations == max(first.iterations, second.iterations)


@pytest.mark.parametrize("factor", [2, 0.25, np.float64(3.0), np.int64(2)])
def test_multiple_is_that_of_the_matrix(factor: Any, generator: torch.Generator) -> None:
    operator = periodic((8, 12))
    w = torch.randn(2, 8, 12, generator=generator, dtype=torch.float64)
    for multiple in (factor * operator, operator * factor):
        assert type(multiple) is MultipleOperator
        assert torch.equal(multiple @ w, (operator @ w) * float(factor))
        assert torch.equal(multiple.diagonal, operator.diagonal * float(factor))
        assert multiple.stationary is not None and operator.stationary is not None
        assert torch.equal(multiple.stationary, operator.stationary * float(factor))
        assert multiple.cost == operator.cost + 1
        assert multiple.iterations == operator.iterations


def test_what_is_known_of_a_sum_is_known_of_both() -> None:
    stencil = deep(1).kernel(tc.priors.Tensor(features(8, 12)), (8, 12), radius=3, dtype=torch.float16).operator()
    total = periodic((8, 12)) + stencil
    assert total.stationary is None
    assert (total.dtype, total.entry_dtype) == (torch.float64, torch.float16)
    assert total.iterations == stencil.iterations
    unbounded = DenseOperator(torch.eye(11, dtype=torch.float64))
    assert (gram() + unbounded).iterations is None


def test_what_is_no_sum_or_multiple_is_refused() -> None:
    operator = periodic((8, 12))
    with pytest.raises(ValueError, match=r"two operators of one size and device, got 8 x 12 on cpu and 16 x 12"):
        operator + periodic((16, 12))
    for factor in (0, -1, -0.5):
        with pytest.raises(ValueError, match=r"expected .*multiple of an operator"):
            factor * operator
    for factor in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            factor * operator
    other: Any
    for other in (3, "operator", None, torch.ones(8, 12)):
        with pytest.raises(TypeError):
            operator + other
    for other in ("two", None, operator, True):
        with pytest.raises(TypeError):
            operator * other


def test_operator_without_entries_says_so() -> None:
    class Nothing(Operator):
        def _multiply(self, images: Any) -> Any:
            return images.clone()

    operator = Nothing((3,), torch.float64, torch.device("cpu"), cost=1)
    with pytest.raises(NotImplementedError, match="expected Nothing to define lookup"):
        operator.entries(torch.arange(2), torch.arange(2))


def test_function_given_to_the_constructor_is_looked_up() -> None:
    class Given(Operator):
        def _multiply(self, images: Any) -> Any:
            return images.clone()

    def identity(first: Any, second: Any) -> Any:
        return (first[0] == second[0]).double()

    operator = Given((3,), torch.float64, torch.device("cpu"), identity, cost=1)
    assert torch.equal(operator.entries(torch.arange(3), torch.arange(3)), torch.eye(3, dtype=torch.float64))
