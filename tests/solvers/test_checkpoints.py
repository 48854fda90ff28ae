"""Checkpoints of a solve: it goes on to the same bits, and refuses what is not its own."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk._internal import checkpoints
from torch_cntk.operators import DenseOperator, Operator
from torch_cntk.solvers import EigenPro, Regression, Status
from torch_cntk.solvers.base import Solver

N = 90
ENDLESS = 10**9
"""Products that no solve takes."""


class KilledError(Exception):
    """In place of a signal."""


class Mortal(Operator):
    """Another operator, whose process "dies" at a product."""

    def __init__(self, inner: Operator, products: int) -> None:
        super().__init__(
            inner.size,
            inner.dtype,
            inner.device,
            inner.lookup,
            inner.stationary,
            cost=inner.cost,
            entry_dtype=inner.entry_dtype,
            entry_cost=inner.entry_cost,
            iterations=inner.iterations,
        )
        self._inner, self.left = inner, products

    def _multiply(self, images: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        return self._inner @ images


def gram(generator: torch.Generator, width: float = 1.0) -> Operator:
    """A smooth kernel between random points."""
    x = torch.rand(N, 2, generator=generator, dtype=torch.float64)
    return DenseOperator(torch.exp(-torch.cdist(x, x).square() / width**2))


def image(generator: torch.Generator) -> Operator:
    """A periodic kernel of images."""
    return tc.load_kernel("uniform-3x128-leaky0.1").operator((16, 24), dtype=torch.float32)


def problem(operator: Operator, generator: torch.Generator, ridge: float) -> tuple[Regression, Tensor]:
    """Three right-hand sides on two thirds of the points."""
    observed = torch.rand(operator.size, generator=generator) < 0.7
    targets = torch.randn(3, *operator.size, generator=generator, dtype=torch.float64) * observed
    return Regression(operator, observed, ridge), targets


CASES: dict[str, tuple[Callable[[torch.Generator], Operator], Solver, float]] = {
    "jacobi": (gram, tc.ConjugateGradient(1e-8, refresh=4, preconditioner="jacobi"), 1e-3),
    "with a sound ridge": (lambda g: gram(g, 3.0), tc.ConjugateGradient(1e-9, refresh=5), 0.0),
    "nested": (image, tc.ConjugateGradient(1e-5, preconditioner="nested"), 1e-3),
    "out of iterations": (gram, tc.ConjugateGradient(1e-12, max_iterations=9), 1e-6),
    "EigenPro, batches": (gram, EigenPro(6, batch=10, subsample=40, validation=0.1), 1e-3),
    "EigenPro, whole": (image, EigenPro(3, tolerance=1e-5, subsample=100), 1e-3),
}


def killed_again_and_again(solver: Any, regression: Regression, targets: Tensor, lives: Callable[[], int]) -> Any:
    """Solve in processes that die, until one of them ends it; the solution and how many died."""
    deaths = 0
    while True:
        mortal = Regression(Mortal(regression.operator, lives()), regression.observed, regression.relative_ridge)
        try:
            return solver.solve(mortal, targets), deaths
        except KilledError:
            deaths += 1


@pytest.mark.parametrize("name", CASES)
def test_a_solve_that_is_killed_goes_on_to_the_same_bits(name: str, tmp_path: Path, generator: torch.Generator) -> None:
    make, solver, ridge = CASES[name]
    regression, targets = problem(make(generator), generator, ridge)
    immortal = Mortal(regression.operator, ENDLESS)
    whole = solver.solve(Regression(immortal, regression.observed, ridge), targets)
    products = ENDLESS - immortal.left
    path = tmp_path / "solve.pt"
    keeping: Any = replace(solver, checkpoint=path, checkpoint_seconds=0)  # type: ignore[type-var]
    draws = random.Random(torch.randint(1 << 30, (), generator=generator).item())
    # Each life has the products of the beginning again, at most 3; an epoch has up to 25.
    solution, deaths = killed_again_and_again(
        keeping, regression, targets, lambda: 3 + draws.randint(1, max(products // 2, 25))
    )
    assert torch.equal(solution.weights, whole.weights)
    assert torch.equal(solution.residual, whole.residual)
    assert (solution.iterations, solution.status, solution.solver) == (whole.iterations, whole.status, whole.solver)
    assert deaths > 0 or products < 30
    assert not path.exists()


def test_the_cases_reach_a_second_run() -> None:
    """Else the state of the first one would not be tried."""
    generator = torch.Generator().manual_seed(0)
    make, solver, ridge = CASES["with a sound ridge"]
    assert solver.solve(*problem(make(generator), generator, ridge)).status is Status.RIDGE


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The file of a solve that was killed; see ``again``."""
    regression, targets = fixed()
    path = tmp_path / "left.pt"
    with pytest.raises(KilledError):
        solver(path).solve(Regression(Mortal(regression.operator, 8), regression.observed, 1e-3), targets)
    assert path.exists()
    return path


def fixed() -> tuple[Regression, Tensor]:
    """A problem that is the same each time."""
    generator = torch.Generator().manual_seed(1)
    return problem(gram(generator), generator, 1e-3)


def solver(path: Path, **options: Any) -> tc.ConjugateGradient:
    """That writes after each iteration."""
    return tc.ConjugateGradient(1e-9, checkpoint=path, checkpoint_seconds=0, **options)


def other_kernel(regression: Regression, targets: Tensor, path: Path) -> object:
    """One entry differs a little."""
    matrix = regression.operator.entries(torch.arange(N), torch.arange(N))
    matrix[3, 4] += 1e-6
    matrix[4, 3] += 1e-6
    return solver(path).solve(Regression(DenseOperator(matrix), regression.observed, 1e-3), targets)


def other_mask(regression: Regression, targets: Tensor, path: Path) -> object:
    """One more observation."""
    seen = regression.observed.clone()
    seen[int((~seen).nonzero()[0])] = True
    return solver(path).solve(Regression(regression.operator, seen, 1e-3), targets)


def other_guess(regression: Regression, targets: Tensor, path: Path) -> object:
    """Begun somewhere else."""
    return solver(path).factorise(regression).solve(targets, guess=targets)


def other_precision(regression: Regression, targets: Tensor, path: Path) -> object:
    """Single precision."""
    matrix = regression.operator.entries(torch.arange(N), torch.arange(N)).float()
    return solver(path).solve(Regression(DenseOperator(matrix), regression.observed, 1e-3), targets)


OTHERS: dict[str, Callable[[Regression, Tensor, Path], object]] = {
    "the kernel": other_kernel,
    "which targets are observed": other_mask,
    "the weights to begin with": other_guess,
    "the precision": other_precision,
    "the targets": lambda regression, targets, path: solver(path).solve(regression, targets.roll(1, 0)),
    "the ridge": lambda regression, targets, path: solver(path).solve(regression.with_ridge(2e-3), targets),
    "the solver's options": lambda regression, targets, path: solver(path, refresh=7).solve(regression, targets),
    "the number of pixels or inputs": lambda regression, targets, path: solver(path).solve(
        Regression(regression.operator.select(torch.arange(50)), regression.observed[:50], 1e-3), targets[:, :50]
    ),
}


@pytest.mark.parametrize("word", OTHERS)
def test_another_problem_is_refused_and_named(word: str, left: Path) -> None:
    before = left.read_bytes()
    with pytest.raises(ValueError, match=f"expected a checkpoint of this solve.*left.pt; different: .*{word}"):
        OTHERS[word](*fixed(), left)
    assert left.read_bytes() == before


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("torch", "1.0", "expected a checkpoint that torch .* wrote, got one of torch 1.0"),
        ("torch_cntk", "9", "expected a checkpoint that torch_cntk .* wrote, got one of torch_cntk 9"),
        ("ranks", 4, "expected a checkpoint of a solve on 1 ranks, got one of 4.*; start 4 to go on from it"),
    ],
)
def test_other_versions_and_ranks_are_refused(fact: str, value: object, words: str, left: Path) -> None:
    state = checkpoints.load(left)
    del state["checksum"]
    state["facts"][fact] = value
    checkpoints.write(left, state)
    with pytest.raises(ValueError, match=words):
        solver(left).solve(*fixed())


def test_damage_is_noticed(left: Path, generator: torch.Generator) -> None:
    whole = left.read_bytes()
    expected = tc.ConjugateGradient(1e-9).solve(*fixed()).weights
    for _ in range(30):
        place = int(torch.randint(len(whole), (), generator=generator))
        broken = bytearray(whole)
        broken[place] ^= 1 << int(torch.randint(8, (), generator=generator))
        left.write_bytes(broken)
        # Some bytes of the container mean nothing: then nothing is damaged.
        try:
            found = solver(left).solve(*fixed()).weights
        except ValueError as error:
            assert "damaged" in str(error) or "version" in str(error)
        else:
            assert torch.equal(found, expected)
    left.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="expected a checkpoint of torch_cntk, got another or a damaged file"):
        solver(left).solve(*fixed())


def test_a_checkpoint_of_other_work_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    checkpoints.write(path, {"version": 2, "run": ""})
    with pytest.raises(ValueError, match=r"another or a damaged file: .*; remove it to solve from the beginning"):
        solver(path).solve(*fixed())


def test_a_full_disk_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(
        UserWarning, match="the checkpoint was not written, the solve goes on without it: .*no space"
    ) as w:
        found = solver(tmp_path / "a.pt").solve(*fixed())
    assert len(w) == 1
    assert torch.equal(found.weights, tc.ConjugateGradient(1e-9).solve(*fixed()).weights)


def test_a_folder_that_cannot_be_written_to_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.warns(UserWarning, match="goes on without it: expected a folder that can be written to") as w:
        solver(tmp_path / "a.pt").solve(*fixed())
    assert len(w) == 1


def test_places_that_cannot_be_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        solver(tmp_path / "none" / "a.pt").solve(*fixed())
    with pytest.raises(IsADirectoryError, match="expected a file to write to, got the folder"):
        solver(tmp_path).solve(*fixed())
    with pytest.raises(TypeError, match="expected checkpoint to be the path of a file, got int"):
        tc.ConjugateGradient(checkpoint=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got the stream"):
        tc.EigenPro(checkpoint="/dev/stdout")
    with pytest.raises(ValueError, match="checkpoint_seconds"):
        tc.EigenPro(checkpoint_seconds=-1)


def test_nothing_is_written_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "write", lambda *_: pytest.fail("written too early"))
    tc.ConjugateGradient(1e-9, checkpoint=tmp_path / "a.pt").solve(*fixed())


def test_several_masks_of_a_solver_of_one_are_refused(tmp_path: Path) -> None:
    regression, targets = fixed()
    masks = torch.stack([regression.observed, ~regression.observed, regression.observed])
    several = Regression(regression.operator, masks, 1e-3)
    with pytest.raises(ValueError, match="expected one mask for all right-hand sides beside a checkpoint of EigenPro"):
        tc.EigenPro(checkpoint=tmp_path / "a.pt").solve(several, targets * masks)


def test_further_solves_of_a_fitted_regressor_keep_none(tmp_path: Path, generator: torch.Generator) -> None:
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(4, 8), tc.ReLU(), tc.Linear(8, 1))
    path = tmp_path / "fit.pt"
    for solver_ in (solver(path), tc.EigenPro(epochs=3, checkpoint=path, checkpoint_seconds=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = tc.KernelRegressor(net, ridge=1e-3, solver=solver_).fit(x, x[:, 0])
            path.write_text("of another solve")
            model.predict(x[:3], return_std=True)
        assert path.read_text() == "of another solve"
        path.unlink()


def test_trials_of_ridges_and_passes_keep_none(tmp_path: Path, generator: torch.Generator) -> None:
    path = tmp_path / "fit.pt"
    features = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    table = features @ torch.randn(4, 6, generator=generator, dtype=torch.float64)
    table[torch.rand(table.shape, generator=generator) < 0.2] = torch.nan
    chosen, plain = (
        tc.MatrixCompletion(ridge="cv", solver=tc.ConjugateGradient(1e-3, checkpoint=file, checkpoint_seconds=0)).fit(
            table.T, features=features
        )
        for file in (path, None)
    )
    assert torch.equal(chosen.predict(), plain.predict())
    picture = torch.rand(1, 24, 24, generator=generator, dtype=torch.float64)
    seen = torch.rand(24, 24, generator=generator) < 0.6
    kept, alone = (
        tc.inpaint(
            picture,
            seen,
            solver=tc.ConjugateGradient(1e-3, checkpoint=file, checkpoint_seconds=0),
            ridge="cv",
            passes=1,
            windows=False,
        )
        for file in (path, None)
    )
    assert torch.equal(kept.image, alone.image)
    with pytest.raises(ValueError, match="expected one mask for all channels beside a checkpoint, got 2 masks"):
        tc.inpaint(picture.expand(2, -1, -1), torch.stack((seen, ~seen)), solver=solver(path))
    assert not path.exists()
