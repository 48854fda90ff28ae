"""Kernels between inputs: time against one pass of atan2, digits and small tables. ``python -m benchmarks.between``.

The unit is a pass of atan2 (float64, in pieces that fit the cache) over as many numbers as the network's activations
see: pixels^2 for each pair of images and activation behind a pooling of all pixels, pixels behind ``Flatten``. All on
one thread, in seconds of the processor, so that other programs do not count. Large matrices are measured on some pairs
and extrapolated, which the table says. "Bytes moved" are those that all operations read and write, for each of these
numbers, and "rate" is how many a second; a copy's is below the table. ``--neural-tangents PYTHON`` names a Python that
has neural-tangents: it takes turns, on as many pairs (jit, float64, one thread), and the last column is how many times
as long it takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import torch_cntk as tc
from benchmarks.beside import CACHED, UNCACHED, NeuralTangents, bytes_moved, copy_rate, in_turns
from benchmarks.learned import TABLES, digits, tables
from benchmarks.timing import peak_bytes, print_table, seconds_text

PIECE = 1 << 15
"""Numbers that atan2 takes at once."""
MOST_BESIDE = 200
"""Inputs of either side up to which neural-tangents takes turns: it keeps all pairs at once."""


def convolutional(channels: int, depth: int, head: tc.Layer, width: int = 8) -> tc.Sequential:
    """[3x3 conv, ReLU] x depth and a head."""
    layers = [layer for k in range(depth) for layer in (tc.Conv2d(channels if k == 0 else width, width, 3), tc.ReLU())]
    return tc.Sequential(*layers, head)


def images(count: int, side: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def processor_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The least of some runs; one before is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def atan2_pass() -> float:
    """Seconds for a number."""
    a, b = (torch.rand(PIECE, dtype=torch.float64) for _ in range(2))
    out = torch.empty_like(a)
    return processor_seconds(lambda: torch.atan2(a, b, out=out), 50) / PIECE


REPEATS = 5


@dataclass(frozen=True)
class Case:
    """A line of the table: ``count`` inputs, of which ``tried`` are computed, against others unless it is all."""

    name: str
    net: tc.Sequential
    head: str
    side: int
    count: int
    tried: int
    dtype: torch.dtype = torch.float64

    def row(self, python: str | None) -> list[object]:
        """Measure."""
        whole, count, tried = self.tried == self.count, self.count, self.tried
        x = self.inputs(count if whole else 2 * tried)
        # All pairs within a few images would be more often pairs on the diagonal than among many.
        both = (x,) if whole else (x[:tried], x[tried:])
        work = partial(self.net.gram, *both, dtype=self.dtype)
        pairs = count * (count + 1) // 2
        measured = pairs if whole else tried**2
        with ExitStack() as stack:
            other = None
            if python is not None and self.dtype == torch.float64 and tried <= MOST_BESIDE:
                other = stack.enter_context(NeuralTangents(python, self.head, self.side, tried))
            seconds, theirs = in_turns(work, other, REPEATS)
        numbers, moved = measured * self.numbers_a_pair, bytes_moved(work)
        return [
            self.name,
            str(self.dtype).removeprefix("torch."),
            seconds_text(seconds * pairs / measured) + ("" if whole else f" (from {measured:,} pairs)"),
            f"{seconds / (numbers * atan2_pass()):.1f}",
            f"{moved / numbers:.0f}",
            f"{moved / seconds / 1e9:.0f} GB/s",
            f"{theirs / seconds:.1f}" if theirs else "",
        ]

    def inputs(self, count: int) -> torch.Tensor:
        """Random ones."""
        if self.head != "rows":
            return images(count, self.side)
        return torch.randn(count, self.side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    @property
    def numbers_a_pair(self) -> int:
        """How many numbers the activations see."""
        activations = sum(isinstance(layer, tc.ReLU) for layer in self.net)
        pixels = 1 if self.head == "rows" else self.side**2
        return activations * (pixels**2 if self.head == "pooled" else pixels)


def speed(quick: bool, python: str | None) -> None:
    pooled, flat = convolutional(3, 4, tc.GlobalAvgPool()), convolutional(3, 4, tc.Flatten())
    connected = tc.Sequential(tc.Linear(784, 8), tc.ReLU(), tc.Linear(8, 8), tc.ReLU(), tc.Linear(8, 1))
    few = 2 if quick else 3
    cases = [
        Case("32 images of 32 x 32, pooled", pooled, "pooled", 32, 32, few),
        Case("32 images of 32 x 32, pooled", pooled, "pooled", 32, 32, few, torch.float32),
        Case("1,000 images of 8 x 8, pooled", pooled, "pooled", 8, 1000, 20 if quick else 60),
        Case("1,000 images of 8 x 8, flattened", flat, "flat", 8, 1000, 200 if quick else 1000),
        Case("1,000 images of 32 x 32, flattened", flat, "flat", 32, 1000, 50 if quick else 200),
        Case("10,000 rows of 784", connected, "rows", 784, 10_000, 1000 if quick else 10_000),
    ]
    header = ["kernel between", "in", "time", "over atan2", "bytes moved", "rate", "neural-tangents"]
    print_table(header, [case.row(python) for case in cases])
    cached, uncached = (copy_rate(numbers) / 1e9 for numbers in (CACHED, UNCACHED))
    print(f"\nA copy moves {cached:.0f} GB/s in the caches and {uncached:.0f} GB/s out of them.")


def flattened_gram() -> torch.Tensor:
    return convolutional(3, 4, tc.Flatten()).gram(images(1000, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs and digits: a minute")
    parser.add_argument("--digits", type=int, help="how many digits to classify; by default 300 if quick, else all")
    parser.add_argument("--only", choices=("speed", "digits", "tables"), help="one part (default: all)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep scores here, and go on where a run ended")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="a Python that has neural-tangents")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick, only, results = arguments.quick, arguments.only, arguments.results
    if only in (None, "speed"):
        speed(quick, arguments.neural_tangents)
    if only in (None, "speed") and not quick:
        print(f"\nMemory of 1,000 images of 8 x 8, flattened: {peak_bytes(flattened_gram) / 1e6:.0f} MB")
    if only in (None, "digits"):
        digits(arguments.digits or (300 if quick else 1797), results)
    if only in (None, "tables"):
        tables(TABLES[:2] if quick else TABLES, results)


if __name__ == "__main__":
    main()
