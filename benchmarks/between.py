"""Kernels between inputs: time against one pass of atan2, digits and small tables. ``python -m benchmarks.between``.

The unit is a pass of atan2 (float64, in pieces that fit the cache) over as many numbers as the network's activations
see: pixels^2 for each pair of images and activation behind a pooling of all pixels, pixels behind ``Flatten``. All on
one thread, in seconds of the processor, so that other programs do not count. Large matrices are measured on some pairs
and extrapolated, which the table says. The last column is neural-tangents 0.6.5 (jit, float64, one thread, extrapolated
from 10 pairs), measured once on another machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import torch_cntk as tc
from benchmarks.learned import TABLES, digits, tables
from benchmarks.timing import peak_bytes, print_table, seconds_text

ELSEWHERE = {"32 images of 32 x 32, pooled": 230.0}
"""Seconds of neural-tangents."""
PIECE = 1 << 15
"""Numbers that atan2 takes at once."""


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


def row(name: str, net: tc.Sequential, side: int, count: int, tried: int, dtype: torch.dtype) -> list[object]:
    """A line of the table: ``count`` images, of which ``tried`` are computed."""
    pairs, measured = count * (count + 1) // 2, tried**2
    x = images(count if tried == count else 2 * tried, side)
    # All pairs within a few images would be more often pairs on the diagonal than among many.
    work = (lambda: net.gram(x, dtype=dtype)) if tried == count else lambda: net.gram(x[:tried], x[tried:], dtype=dtype)
    seconds = processor_seconds(work, 1) * (1 if tried == count else pairs / measured)
    pixels = side**2
    activations = sum(isinstance(layer, tc.ReLU) for layer in net)
    numbers = pairs * activations * (pixels if isinstance(net[-1], tc.Flatten) else pixels**2)
    elsewhere = ELSEWHERE.get(name) if dtype == torch.float64 else None
    return [
        name,
        str(dtype).removeprefix("torch."),
        seconds_text(seconds) + ("" if tried == count else f" (from {measured} pairs)"),
        f"{seconds / (numbers * atan2_pass()):.1f}",
        f"{elsewhere:g} s: {elsewhere / seconds:.1f} times" if elsewhere else "",
    ]


def speed(quick: bool) -> None:
    pooled, flat = convolutional(3, 4, tc.GlobalAvgPool()), convolutional(3, 4, tc.Flatten())
    few = 2 if quick else 3
    rows = [
        row("32 images of 32 x 32, pooled", pooled, 32, 32, few, torch.float64),
        row("32 images of 32 x 32, pooled", pooled, 32, 32, few, torch.float32),
        row("1,000 images of 8 x 8, pooled", pooled, 8, 1000, 20 if quick else 60, torch.float64),
        row("1,000 images of 8 x 8, flattened", flat, 8, 1000, 200 if quick else 1000, torch.float64),
        row("1,000 images of 32 x 32, flattened", flat, 32, 1000, 50 if quick else 200, torch.float64),
    ]
    print_table(["kernel between", "in", "time", "over atan2", "neural-tangents"], rows)


def flattened_gram() -> torch.Tensor:
    return convolutional(3, 4, tc.Flatten()).gram(images(1000, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs and digits: a minute")
    parser.add_argument("--digits", type=int, help="how many digits to classify; by default 300 if quick, else all")
    parser.add_argument("--only", choices=("speed", "digits", "tables"), help="one part (default: all)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep scores here, and go on where a run ended")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick, only, results = arguments.quick, arguments.only, arguments.results
    if only in (None, "speed"):
        speed(quick)
    if only in (None, "speed") and not quick:
        print(f"\nMemory of 1,000 images of 8 x 8, flattened: {peak_bytes(flattened_gram) / 1e6:.0f} MB")
    if only in (None, "digits"):
        digits(arguments.digits or (300 if quick else 1797), results)
    if only in (None, "tables"):
        tables(TABLES[:2] if quick else TABLES, results)


if __name__ == "__main__":
    main()
