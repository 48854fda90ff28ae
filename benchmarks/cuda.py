"""Every part on a CUDA device, against the CPU, in one report. ``python -m benchmarks.cuda`` takes less than 8 minutes.

Each row does one thing on both devices: the largest relative difference of the results, the seconds of each, and the
peak of the device's memory. ``--device cpu`` compares the CPU with itself, to try the program out. Exit code 1 if a
difference exceeds its bound.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.timing import print_table, seconds_text


@dataclass(frozen=True)
class Check:
    """One thing to do on a device.

    Attributes:
        name: of the row.
        work: does it on a device and gives a tensor.
        bound: on the largest difference, relative to the largest number of the CPU's result.
    """

    name: str
    work: Callable[[str], Tensor]
    bound: float


def photograph(size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """A made-up picture, smooth with edges, [channels, size, size], and a mask with half of the pixels and a hole."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    picture = torch.stack([torch.sin((5 + k) * rows) * torch.cos(7 * columns) for k in range(channels)])
    picture = (picture + (rows > columns)) / 3 + 1 / 3
    observed = torch.rand(size, size, generator=torch.Generator().manual_seed(0)) < 0.5
    observed[size // 3 : size // 2, size // 4 : size // 3] = False
    return picture, observed


def fill(size: int, **options: object) -> Callable[[str], Tensor]:
    """Fill a picture."""

    def work(device: str) -> Tensor:
        picture, observed = photograph(size)
        made = {name: value() if callable(value) else value for name, value in options.items()}
        return tc.inpaint(picture.to(device), observed.to(device), **made).image  # type: ignore[arg-type]

    return work


def kernel(size: tuple[int, int] | None, prior: tc.priors.Prior, radius: int | None = None) -> Callable[[str], Tensor]:
    """Compute a kernel's table."""
    net = tc.hourglass(3, 8, 4)

    def work(device: str) -> Tensor:
        found = net.kernel(prior, size, radius=radius, device=device)
        return found.row((3, 5), size or (64, 64))

    return work


def product(size: int, dtype: torch.dtype) -> Callable[[str], Tensor]:
    """Ten products with a periodic kernel."""

    def work(device: str) -> Tensor:
        operator = tc.load_kernel("uniform-5x128-leaky0.1", device=device).operator((size, size), dtype=dtype)
        w = torch.rand(3, size, size, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        for _ in range(10):
            w = operator @ w
            w = w / w.abs().max()
        return w

    return work


def gram(rows: int, dtype: torch.dtype) -> Callable[[str], Tensor]:
    """The kernel between rows of a table."""

    def work(device: str) -> Tensor:
        x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(device, dtype)
        net = tc.Sequential(tc.Linear(64, 32), tc.ReLU(), tc.Linear(32, 32), tc.ReLU(), tc.Linear(32, 1))
        return net.gram(x)

    return work


def complete(device: str) -> Tensor:
    """Complete a matrix."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(1500, 20, generator=generator, dtype=torch.float64)
    table = torch.tanh(features @ torch.randn(20, 30, generator=generator, dtype=torch.float64)).T
    table[torch.rand(table.shape, generator=generator) < 0.3] = float("nan")
    model = tc.MatrixCompletion(hidden_layers=2, device=device).fit(table, features=features)
    return torch.as_tensor(model.predict())


def train(device: str) -> Tensor:
    """The first losses of a finite network."""
    picture, observed = photograph(64)
    torch.manual_seed(0)
    net = tc.hourglass(3, 32, 4)
    options = {"steps": 5, "lr": 0.01, "seed": 0}
    result = tc.train(net.to(device), picture.to(device), observed.to(device), **options)  # type: ignore[arg-type]
    return result.losses[:1]


CHECKS = [
    Check("kernel, 3 levels, periodic", kernel(None, tc.priors.Uniform(0, 0.1)), 1e-10),
    Check("kernel, 3 levels, dense 64 x 64", kernel((64, 64), tc.priors.Meshgrid()), 1e-10),
    Check("kernel, 3 levels, within 8 pixels", kernel((64, 64), tc.priors.Meshgrid(), 8), 1e-10),
    Check("10 products, 512 x 512, float32", product(512, torch.float32), 1e-4),
    Check("10 products, 512 x 512, float64", product(512, torch.float64), 1e-10),
    Check("gram of 4,000 x 64, float64", gram(4000, torch.float64), 1e-10),
    Check("gram of 4,000 x 64, float32", gram(4000, torch.float32), 1e-4),
    Check("fill 512 x 512, conjugate gradients", fill(512, solver=lambda: tc.ConjugateGradient(tolerance=1e-5)), 1e-3),
    Check("fill 48 x 48, direct", fill(48, solver=tc.Direct), 1e-4),
    Check("fill 64 x 64, EigenPro", fill(64, solver=lambda: tc.EigenPro(epochs=20)), 1e-2),
    Check("fill 256 x 256, two guided passes", fill(256, passes=2), 1e-2),
    Check("complete a matrix, 30 x 1,500", complete, 1e-6),
    Check("train 3 levels, loss of the first step", train, 1e-3),
]


def synchronise(device: str) -> None:
    """Wait until the device is done."""
    if device != "cpu":
        torch.cuda.synchronize()


def timed(work: Callable[[str], Tensor], device: str) -> tuple[Tensor, float]:
    """The result, on the CPU, and the seconds of a second run: the first one warms up."""
    work(device)
    synchronise(device)
    start = time.perf_counter()
    result = work(device)
    synchronise(device)
    return result.cpu(), time.perf_counter() - start


def gigaflops(device: str) -> float:
    """Of torch.mm in float64 on the device: what there is to be had."""
    a = torch.rand(2048, 2048, dtype=torch.float64, device=device)
    _, seconds = timed(lambda _: a @ a, device)
    return 2 * 2048**3 / seconds / 1e9


def synchronisations(device: str) -> str:
    """How often the host waits for the device in one fill, an iteration."""
    if device == "cpu":
        return "-"
    picture, observed = photograph(256)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = tc.inpaint(picture.to(device), observed.to(device), solver=tc.ConjugateGradient())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    return f"{waits} in {result.iterations} iterations"


def report(device: str, names: list[str]) -> bool:
    """Print the table. Gives whether all differences are within their bounds."""
    rows, fine = [], True
    for check in CHECKS:
        if names and not any(name in check.name for name in names):
            continue
        here, seconds_here = timed(check.work, "cpu")
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        there, seconds_there = timed(check.work, device)
        peak = torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else 0.0
        difference = float((here.double() - there.double()).abs().max() / here.double().abs().max())
        within = difference <= check.bound
        fine &= within
        times = (seconds_text(seconds_here), seconds_text(seconds_there), f"{seconds_here / seconds_there:.1f}")
        rows.append(
            (check.name, f"{difference:.1e}", f"{check.bound:.0e}", *times, f"{peak:.2f} GB", "" if within else "!")
        )
    print_table(("", "difference", "bound", "CPU", device, "times", "peak", ""), rows)
    print(
        f"\ntorch.mm in float64 on {device}: {gigaflops(device):,.0f} GFLOP/s; host waits: {synchronisations(device)}"
    )
    return fine


def main() -> None:
    """Compare a device with the CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of rows")
    told = parser.parse_args()
    if told.device != "cpu" and not torch.cuda.is_available():
        sys.exit("expected a CUDA device, found none; --device cpu tries the program out")
    sys.exit(0 if report(told.device, told.only) else 1)


if __name__ == "__main__":
    main()
