"""Large images on several processes: bands with halos against whole images on each, ``python -m benchmarks.bands``.

Bytes that a rank sends a product, the iterations and the seconds of a fill of half of the pixels, and by how much the
memory of a rank grows while it iterates. A thread a process; each way has processes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import torch_cntk as tc
from benchmarks.timing import medians, print_table, seconds_text

KERNELS = ("uniform-3x128-leaky0.1", "window")
"""A periodic kernel, whose preconditioner is in bands as well, and a window of five pixels around each, without."""
WAYS = ("bands", "whole")


def operator_of(kernel: str, side: int) -> tc.Operator:
    """The kernel of an image of ``side`` x ``side`` pixels."""
    if kernel != "window":
        return tc.load_kernel(kernel).operator((side, side))
    prior = tc.priors.White(0.1) + tc.priors.Tensor(torch.randn(2, side, side))
    net = tc.Sequential(tc.Conv2d(2, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3))
    return net.kernel(prior, radius=5).operator()


def held_and_peak() -> tuple[int, int]:
    """Bytes that this process has in memory, and the most that it had since ``begin`` (Linux)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    held, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return held, most


def begin() -> int:
    """Let the peak begin at what is in memory now, and say how much that is."""
    Path("/proc/self/clear_refs").write_text("5")
    return held_and_peak()[0]


def rank(kernel: str, way: str, side: int, path: Path) -> None:
    """What each rank does; the first one writes down what it measured."""
    mesh = tc.distributed.mesh()
    torch.manual_seed(0)
    operator = operator_of(kernel, side).divided(mesh)
    bands: Any = operator.in_bands()
    observed = torch.rand(side, side) < 0.5
    rows = torch.arange(side) / 20
    targets = ((rows[:, None].sin() + rows.cos())[None] + 0.1 * torch.randn(1, side, side)) * observed
    own = bands.layout.own(targets)
    product = (lambda: bands @ own) if way == "bands" else (lambda: operator @ targets)
    before = mesh.bytes_sent
    product()
    sent = mesh.bytes_sent - before
    (seconds,) = medians([product], 3)
    if way == "whole":
        vars(operator)["in_bands"] = lambda: None
    name: Any = "jacobi" if kernel == "window" else "nested"
    start, held = time.perf_counter(), begin()
    solution = tc.ConjugateGradient(preconditioner=name).solve(tc.Regression(operator, observed, 1e-2), targets)
    taken = time.perf_counter() - start
    if mesh.rank == 0:
        path.write_text(json.dumps([sent, seconds, solution.iterations, taken, held_and_peak()[1] - held]))


def measured(kernel: str, way: str, side: int, ranks: int) -> tuple[object, ...]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.json"
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "benchmarks.bands"]
        own = [f"--kernel={kernel}", f"--way={way}", f"--side={side}", f"--into={path}"]
        subprocess.run([sys.executable, *start, *own], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        sent, product, iterations, solve, grown = json.loads(path.read_text())
    texts = (f"{sent:,}", seconds_text(product), iterations, seconds_text(solve), f"{grown / 1e6:.0f} MB")
    return f"{kernel}, {way}", *texts


def main() -> None:
    """Print the table, or measure as one rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--kernel", choices=KERNELS, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.into is not None:
        rank(options.kernel, options.way, options.side, options.into)
        return
    rows = [measured(kernel, way, options.side, options.ranks) for kernel in KERNELS for way in WAYS]
    header = ("", "bytes a product", "product", "iterations", "fill", "memory of the fill")
    print(f"{options.side} x {options.side} pixels, {options.ranks} processes of one thread")
    print_table(header, rows)


if __name__ == "__main__":
    main()
