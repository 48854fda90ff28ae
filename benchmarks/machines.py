"""One problem on several processes: what it costs, how it scales, and what a model says of more of them.

``python -m benchmarks.machines`` prints all tables; ``scaling``, ``iterations``, ``largest`` and ``model`` are single
ones. Ratios are of things measured in one run, a thread a process. ``--device cuda`` compares the product on a CUDA
device with the CPU, and with ``torch.mm`` there. ``python -m benchmarks.kills`` is about faults.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.timing import medians, print_table, seconds_text
from torch_cntk._internal import checkpoints

WIDTH = 100
"""Features of an input."""
RIDGE, TOLERANCE = 1e-3, 1e-4
PAPER = 201_484
"""Columns of the paper's drug screen."""
H100_FLOAT64, H100_MEMORY, H100_LINK = 50e12, 2.5e12, 100e9
"""Operations a second of an H100 SXM in float64 by tensor cores (67e12 at the peak), bytes a second of its memory
(3.35e12) and between two of them by NVLink (450e9 each way): NVIDIA's data sheet, less a margin."""
PASSES = 30
"""Times that the closed form of an entry reads or writes a number in memory: each of its steps makes a new block."""


def data(n: int, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Features [n, width] with eight causes and some noise, of norm 1, and a target [1, n] that depends on one."""
    draws = torch.Generator().manual_seed(0)
    causes = torch.randn(n, 8, generator=draws, dtype=torch.float64)
    features = torch.tanh(causes @ torch.randn(8, width, generator=draws, dtype=torch.float64))
    features += 0.1 * torch.randn(n, width, generator=draws, dtype=torch.float64)
    features *= width**0.5 / features.norm(dim=1, keepdim=True)
    noise = 0.1 * torch.randn(1, n, generator=draws, dtype=torch.float64)
    return features, torch.sin(3 * causes[:, :1]).T + noise


def network(width: int = WIDTH) -> tc.Sequential:
    """One hidden layer."""
    return tc.Sequential(tc.Linear(width, 8), tc.ReLU(), tc.Linear(8, 1))


def regression(
    n: int, mesh: tc.distributed.Mesh | None, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[tc.Regression, Tensor]:
    """The equations of ``data``, whose products the ranks divide."""
    features, targets = (tensor.to(device) for tensor in data(n))
    operator = network().gram_operator(features, mesh=mesh, dtype=dtype)
    return tc.Regression(operator, torch.ones(n, dtype=torch.bool, device=device), RIDGE), targets


@dataclass(frozen=True)
class Measured:
    """A product of some ranks: seconds of one rank alone, of all, of the exchange, and the bytes that a rank sends."""

    alone: float
    seconds: float
    exchange: float
    sent: int


def rank_of_products(sizes: list[int], path: Path) -> None:
    """What each rank does: measure products, one size after the other; the first one writes them down.

    Products of rank 0 alone, for which the others wait, and of all ranks take turns.
    """
    mesh = tc.distributed.mesh()
    found = []
    for n in sizes:
        equations, targets = regression(n, mesh)
        before = mesh.bytes_sent
        operator: Any = equations.operator
        _ = operator @ targets
        sent = mesh.bytes_sent - before
        alone = partial(_alone, mesh, partial(operator.operator.__matmul__, targets))
        works = [alone, partial(operator.__matmul__, targets), partial(mesh.sum, targets)]
        found.append((*medians(works, 5), sent))
    if mesh.rank == 0:
        path.write_text(json.dumps(found))


def _alone(mesh: tc.distributed.Mesh, work: Callable[[], object]) -> None:
    """Work of rank 0, for which the others wait."""
    if mesh.rank == 0:
        work()
    mesh.barrier()


def under_torchrun(ranks: int, *options: str) -> None:
    """Start this module in so many processes of one thread."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "benchmarks.machines"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *start, *options], check=True, env=environment)


def on_ranks(ranks: int, sizes: list[int]) -> list[Measured]:
    """Products of these sizes on so many processes of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.json"
        under_torchrun(ranks, "--products", ",".join(map(str, sizes)), "--into", str(path))
        return [Measured(*entry) for entry in json.loads(path.read_text())]


def scaling(n: int) -> None:
    """Products with K: strong scaling (the same n), weak scaling (as many entries of K a rank), and bytes sent."""
    larger = round(n * 2**0.5)
    found = on_ranks(2, [n, larger])
    rows = []
    for what, after, ideal in (("strong", found[0], 2.0), ("weak", found[1], 1.0)):
        rows.append(
            (
                f"{what}, {n:,} on 1, {n if what == 'strong' else larger:,} on 2",
                seconds_text(found[0].alone),
                seconds_text(after.seconds),
                f"{found[0].alone / after.seconds:.2f} of {ideal:g}",
                f"{after.sent:,}",
                seconds_text(after.exchange),
            )
        )
    print_table(("", "1 process", "2 processes", "ratio", "bytes sent a product by a rank", "exchange"), rows)


SOLVERS: dict[str, Callable[[], Any]] = {
    "chosen": lambda: tc.ConjugateGradient(TOLERANCE),
    "pivoted": lambda: tc.ConjugateGradient(TOLERANCE, preconditioner=tc.Landmarks(1000)),
    "random": lambda: tc.ConjugateGradient(TOLERANCE, preconditioner=tc.Landmarks(1000, "random")),
    "float32": lambda: tc.ConjugateGradient(TOLERANCE),
    "eigenpro": lambda: tc.EigenPro(tolerance=TOLERANCE, epochs=10_000),
    "jacobi": lambda: tc.ConjugateGradient(TOLERANCE, preconditioner="jacobi"),
}
"""Of the table of iterations; "float32" multiplies in that."""


def iterations(n: int, options: argparse.Namespace) -> None:
    """Conjugate gradients with several preconditioners, and EigenPro beside them, to a residual of 1e-4.

    K is never stored. Each takes ``--minutes`` at most; then its row has the residual so far, and where ``--keep``
    names a folder, the same command goes on from there. ``--ranks`` processes divide the products.
    """
    if options.ranks > 1 and "RANK" not in os.environ:
        given = [f"--inputs={n}", f"--minutes={options.minutes}", f"--solvers={options.solvers}"]
        under_torchrun(options.ranks, "iterations", *given, *([f"--keep={options.keep}"] if options.keep else []))
        return
    mesh = tc.distributed.mesh()
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(mesh.broadcast(options.keep or name))
        folder.mkdir(parents=True, exist_ok=True)
        for solver in options.solvers.split(","):
            path = folder / f"{solver}-{n}-{mesh.size}.pt"
            equations, targets = regression(n, mesh, dtype=torch.float32 if solver == "float32" else None)
            rows.append((solver, *solved(SOLVERS[solver](), equations, targets, path, mesh, options.minutes)))
            if mesh.rank == 0:
                print(*rows[-1], file=sys.stderr, flush=True)
    if mesh.rank == 0:
        print(f"n = {n:,}, {mesh.size} processes of one thread")
        print_table(("", "iterations", "residual", "set up", "iterate", "solver"), rows)


class OutOfTimeError(Exception):
    """The minutes are over, on all ranks alike."""


def solved(
    solver: Any, equations: tc.Regression, targets: Tensor, path: Path, mesh: tc.distributed.Mesh, minutes: float
) -> tuple[object, ...]:
    """A row of the table of iterations: how many there were, the residual, seconds, and what solved it."""
    solver = replace(solver, checkpoint=path, checkpoint_seconds=0)
    start = time.perf_counter()
    factorisation = solver.factorise(equations)
    ready = time.perf_counter()
    timed_out = partial(_check_time, mesh, ready + 60 * minutes)
    _before_each(equations.operator, ("_multiply", "entries"), timed_out)
    try:
        solution = factorisation.solve(targets, progress=mesh.rank == 0)
        done = (solution.iterations, f"{float(solution.residual.max()):.1e}")
        text = solution.solver
    except OutOfTimeError:
        done, text = mesh.broadcast(_reached(path)), "out of time"
    return *done, seconds_text(ready - start), seconds_text(time.perf_counter() - ready), text


def _before_each(operator: Any, names: tuple[str, ...], check: Callable[[], None]) -> None:
    """Let an operator ask before each product and each look at entries."""
    for name in names:
        setattr(operator, name, partial(_checked, check, getattr(operator, name)))


def _checked(check: Callable[[], None], work: Callable[..., Any], *arguments: Any) -> Any:
    check()
    return work(*arguments)


def _check_time(mesh: tc.distributed.Mesh, until: float) -> None:
    """Rank 0 decides, so that no rank goes on alone.

    Raises:
        OutOfTimeError: the time is over.
    """
    if mesh.broadcast(time.perf_counter() > until):
        raise OutOfTimeError


def _reached(path: Path) -> tuple[int, str]:
    """Iterations of the checkpoint that a solve has left, and the residual: the updated one of conjugate gradients."""
    if not path.exists():
        return 0, "-"
    state = checkpoints.load(path)["state"]
    run = state.get("run", state)
    residual = run["relative"] if "run" in state else run["best"]
    return int(run.get("iterations", run.get("epochs"))), f"{float(residual.max()):.1e} so far"


def timed(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def largest(n: int) -> None:
    """A fit of so many inputs on this machine, with the seconds of its parts."""
    equations, targets = regression(n, None)
    solver = tc.ConjugateGradient(TOLERANCE)
    start = time.perf_counter()
    factorisation = solver.factorise(equations)
    ready = time.perf_counter()
    solution = factorisation.solve(targets, progress=True)
    end = time.perf_counter()
    print_table(
        ("n", "iterations", "residual", "set up", "iterate", "solver"),
        [
            (
                f"{n:,}",
                solution.iterations,
                f"{float(solution.residual.max()):.1e}",
                seconds_text(ready - start),
                seconds_text(end - ready),
                solution.solver,
            )
        ],
    )


@dataclass(frozen=True)
class Model:
    """Seconds of a product with K between n inputs on some ranks: c n^2 / ranks + latency + bytes / speed.

    Attributes:
        entry: seconds of one rank for n^2 = 1 (half of the entries are computed, and each used twice).
        latency: seconds of an exchange of nothing.
        speed: bytes a second that a rank sends.
    """

    entry: float
    latency: float
    speed: float

    @classmethod
    def fitted(cls, sizes: list[int], found: list[Measured]) -> Model:
        """Fit to measured products: least squares of the squares of n on one rank, and two exchanges on two."""
        squares = [float(n) ** 2 for n in sizes]
        entry = sum(one.alone * s for one, s in zip(found, squares, strict=True)) / sum(s * s for s in squares)
        first, second = found
        slope = max((second.exchange - first.exchange) / (second.sent - first.sent), 1e-11)
        return cls(entry, max(first.exchange - slope * first.sent, 0.0), 1 / slope)

    def seconds(self, n: int, ranks: int, sides: int = 1) -> float:
        """Of a product with ``sides`` right-hand sides."""
        sent = 2 * (ranks - 1) / ranks * 8 * n * sides
        return self.entry * n**2 / ranks + (self.latency + sent / self.speed if ranks > 1 else 0.0)


def model(n: int) -> None:
    """The model fitted to products here, checked on the product that it was not fitted to, and two predictions."""
    larger = round(n * 2**0.5)
    found = on_ranks(2, [n, larger])
    here = Model.fitted([n, larger], found)
    # Half of the entries: two operations a feature, and what the closed form reads and writes.
    there = Model(WIDTH / H100_FLOAT64 + 8 * PASSES / 2 / H100_MEMORY, 50e-6, H100_LINK)
    rows = [
        (f"measured, 2 processes, {size:,}", seconds_text(one.seconds), seconds_text(here.seconds(size, 2)))
        for size, one in zip([n, larger], found, strict=True)
    ]
    for ranks in (1, 2, 8, 64):
        rows.append((f"PREDICTION, {ranks} such processes, {PAPER:,}", "-", seconds_text(here.seconds(PAPER, ranks))))
    rows.append((f"PREDICTION, 8 H100, {PAPER:,}", "-", seconds_text(there.seconds(PAPER, 8))))
    print_table(("a product", "measured", "model"), rows)
    print(
        f"{here.entry * 1e9:.3g} ns n^2 / ranks + {seconds_text(here.latency)} + bytes / {here.speed / 1e9:.3g} GB/s; "
        f"the H100's numbers are the data sheet's with a margin, not measured"
    )


def on_cuda(n: int) -> None:
    """The product on a CUDA device against the CPU, and its speed against torch.mm there, in float64."""
    equations, targets = regression(n, None)
    here = equations.operator @ targets
    mesh = tc.distributed.mesh()
    device = str(mesh.device)
    there_equations, there_targets = regression(n, mesh, device)

    def product() -> Tensor:
        found = there_equations.operator @ there_targets
        torch.cuda.synchronize()
        return found

    matrix = torch.rand(4096, 4096, dtype=torch.float64, device=device)

    def plain() -> None:
        _ = matrix @ matrix
        torch.cuda.synchronize()

    difference = float((product().cpu() - here).abs().max() / here.abs().max())
    seconds, alone = medians([product, plain], 5)
    # Half of the entries, each 2 operations a feature, and used twice.
    speed, most = (n**2 * WIDTH + 4 * n**2 / 2) / seconds / 1e9, 2 * 4096**3 / alone / 1e9
    print_table(
        ("n", "difference", "seconds", "GFLOP/s of products of features", "torch.mm", "share"),
        [
            (
                f"{n:,}",
                f"{difference:.1e}",
                seconds_text(seconds),
                f"{speed:,.0f}",
                f"{most:,.0f}",
                f"{speed / most:.2f}",
            )
        ],
    )


TABLES: dict[str, tuple[Callable[..., object], int]] = {
    "scaling": (scaling, 8_000),
    "iterations": (iterations, 10_000),
    "model": (model, 6_000),
    "largest": (largest, 50_000),
}


def main() -> None:
    """Print tables, or measure as one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--n", "--inputs", type=int, help="inputs")
    parser.add_argument("--ranks", type=int, default=1, help="processes of iterations (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each solver in iterations (default: 20)")
    parser.add_argument("--solvers", default="chosen,pivoted,random,float32,eigenpro", help=f"of {', '.join(SOLVERS)}")
    parser.add_argument("--keep", help="a folder for checkpoints, from which the same command goes on")
    parser.add_argument("--products", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.products is not None:
        rank_of_products([int(n) for n in options.products.split(",")], options.into)
        return
    if options.device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("expected a CUDA device, found none")
        on_cuda(options.n or 20_000)
        return
    for given, known in ((options.tables, TABLES), (options.solvers.split(","), SOLVERS)):
        if unknown := set(given) - set(known):
            parser.error(f"expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    for name in options.tables or TABLES:
        table, n = TABLES[name]
        if os.environ.get("RANK", "0") == "0":
            print(f"\n{name}: {table.__doc__}\n", flush=True)
        table(options.n or n, *([options] if table is iterations else []))


if __name__ == "__main__":
    main()
