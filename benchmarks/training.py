"""Steps a second of training a finite network: ``python -m benchmarks.training``.

On the GPU if there is one: eager against compiled, float32 against bfloat16 where torch holds it safe, and filters
stored channels last. Medians over steps; compilation and the first steps are left out.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import pairwise
from typing import Any

import torch

import torch_cntk as tc
from benchmarks.timing import print_table

VARIANTS = {
    "eager": {},
    "eager, channels last": {"channels_last": True},
    "eager, bfloat16": {"autocast": True, "channels_last": True},
    "compiled": {"compile": True},
    "compiled, channels last": {"compile": True, "channels_last": True},
    "compiled, bfloat16": {"compile": True, "autocast": True, "channels_last": True},
}


def seconds_a_step(image: torch.Tensor, net: tc.Layer, steps: int, options: dict[str, Any]) -> float:
    """Median time between the ends of steps, after the first few of them."""
    ends: list[float] = []
    tc.train(
        net, image, steps=steps + 5, batch_norm=True, jitter=0.03, callback=lambda s: ends.append(s.seconds), **options
    )
    return statistics.median(b - a for a, b in pairwise(ends[4:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the image")
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; {options.size} x {options.size} RGB, {options.levels} levels of {options.width} filters")
    image = torch.rand(3, options.size, options.size, device=device)
    image[:, ::2, ::2] = float("nan")
    net = tc.hourglass(options.levels, options.width, 4)
    rows = []
    for variant in options.variants:
        seconds = seconds_a_step(image, net, options.steps, VARIANTS[variant])
        rows.append((variant, f"{1 / seconds:.2f}"))
    print_table(("training", "steps a second"), rows)


if __name__ == "__main__":
    main()
