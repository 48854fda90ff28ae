"""Time to compute kernels, against the textbook recursion on [H, W, H, W] arrays. ``python -m benchmarks.kernels``.

Expanded kernels serve every image size that is a multiple of their period; the textbook computes them on a torus of
twice the period. The floor is one pass of atan2 (float64) over as many independent numbers as the network's activations
see: an eighth or, as exchanging the axes changes nothing, a sixteenth of all of them for independent pixels, half of
them for an image, a quarter for the meshgrid. "Elsewhere" are figures measured once on another machine of two cores:
the paper's published code (3 levels at 16 x 16, one thread) and neural-tangents 0.6.5 (jit, float32, two cores).

A second table has dense kernels in float64 on one thread, in seconds of the processor, so that other programs do not
count: the bytes that all operations read and write, for each number that an activation sees, and how many a second,
beside ``Tensor.copy_`` in the caches and out of them. ``--neural-tangents PYTHON`` names a Python that has
neural-tangents, which takes turns with it.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial

import torch

import torch_cntk as tc
from benchmarks.beside import CACHED, UNCACHED, NeuralTangents, bytes_moved, copy_rate, in_turns
from benchmarks.timing import medians, peak_bytes, print_table, seconds_text
from tests.helpers import brute_force
from torch_cntk.zoo.catalogue import SHAPES


def paper_net(levels: int) -> tc.Layer:
    return SHAPES["plain"](levels, tc.ReLU(), 128, 3)


def dip_net(levels: int) -> tc.Layer:
    return SHAPES["deep"](levels, tc.LeakyReLU(0.1), 128, 3)


def flat_net() -> tc.Sequential:
    """[3x3 conv, ReLU] x 4, 3x3 conv."""
    layers = [layer for _ in range(4) for layer in (tc.Conv2d(3, 3, 3), tc.ReLU())]
    return tc.Sequential(*layers, tc.Conv2d(3, 3, 3))


def expanded(net: tc.Layer) -> tc.Kernel:
    return net.kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)


def dense(net: tc.Layer, side: int) -> tc.Kernel:
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    return net.kernel(tc.priors.Tensor(image))


def dense_deep(net: tc.Layer, side: int) -> tc.Kernel:
    return net.kernel(tc.priors.Meshgrid(), (side, side), dtype=torch.float32)


def textbook_expanded(levels: int) -> object:
    side = 2 ** (levels + 1)
    return brute_force.propagate(paper_net(levels), brute_force.independent_prior((side, side), 0.05, 1 / 300))


def textbook_dense(side: int) -> object:
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    return brute_force.propagate(flat_net(), brute_force.feature_prior(image))


def atan2_pass(entries: int) -> float:
    """Seconds for atan2 over so many float64 numbers, in pieces that fit the cache."""
    root, sigma = torch.rand(2, 1 << 17, dtype=torch.float64)
    out = torch.empty_like(root)
    return medians([partial(torch.atan2, root, sigma, out=out)], 50)[0] * entries / (1 << 17)


def evaluations(net: tc.Layer, size: int, period: int, symmetries: int) -> int:
    """Numbers that the network's activations see, each counted once however many symmetries repeat it."""
    assert isinstance(net, tc.Sequential)
    total, n, p = 0, size, period
    for layer in net.layers:
        if isinstance(layer, tc.NearestUp):
            n, p = n * layer.scale_factor, p * layer.scale_factor
        elif isinstance(layer, tc.Conv2d | tc.StridedConv2d):
            stride = layer.stride[0]
            n, p = n // stride, max(p // stride, 1)
        else:
            total += n * n * p * p // symmetries
    return total


def dense_double(side: int) -> tc.Kernel:
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return flat_net().kernel(tc.priors.Tensor(image))


def one_thread(sides: list[int], repeats: int, python: str | None) -> None:
    """Print dense kernels in float64 beside neural-tangents', and the bytes that they move."""
    torch.set_num_threads(1)
    rows = []
    for side in sides:
        work = partial(dense_double, side)
        with ExitStack() as stack:
            other = stack.enter_context(NeuralTangents(python, "pixels", side)) if python else None
            seconds, theirs = in_turns(work, other, repeats)
        numbers, moved = evaluations(flat_net(), side, side, 2), bytes_moved(work)
        rows.append(
            (
                f"[conv, ReLU] x 4, conv, dense {side} x {side}",
                seconds_text(seconds),
                seconds_text(theirs) if theirs else "-",
                f"{theirs / seconds:.1f}" if theirs else "-",
                f"{seconds / numbers * 1e9:.1f} ns",
                f"{moved / numbers:.0f}",
                f"{moved / seconds / 1e9:.0f} GB/s",
            )
        )
    print("\nOne thread, float64, processor seconds\n")
    header = ("kernel", "ours", "neural-tangents", "ratio", "a number", "bytes moved", "rate")
    print_table(header, rows)
    cached, uncached = (copy_rate(numbers) / 1e9 for numbers in (CACHED, UNCACHED))
    print(f"\nA copy moves {cached:.0f} GB/s in the caches and {uncached:.0f} GB/s out of them.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--large", action="store_true", help="also the dense 128 x 128 kernel of a 6-level net")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="a Python that has neural-tangents")
    parser.add_argument("--one-thread", type=int, nargs="+", metavar="SIDE", help="the second table alone, of these")
    options = parser.parse_args()
    if options.one_thread:
        one_thread(options.one_thread, options.repeats, options.neural_tangents)
        return
    cases = []
    for name, net in (("paper's net", paper_net), ("DIP-like net", dip_net)):
        for s in (3, 4, 5, 6):
            made = net(s)
            textbook = partial(textbook_expanded, s) if s < 5 and net is paper_net else None
            elsewhere = "1.25 s (published)" if s == 3 and net is paper_net else "-"
            work = evaluations(made, 2 ** (s + 1), 1, 16)
            cases.append((f"{name}, {s} levels", partial(expanded, made), textbook, work, elsewhere))
    for n, seconds in ((16, 0.06), (32, 0.76), (48, 3.3), (64, 11.9)):
        textbook = partial(textbook_dense, n) if n < 64 else None
        work = evaluations(flat_net(), n, n, 2)
        elsewhere = f"{seconds} s (neural-tangents)"
        cases.append((f"[conv, ReLU] x 4, dense {n} x {n}", partial(dense, flat_net(), n), textbook, work, elsewhere))
    if options.large:
        net = dip_net(6)
        work = evaluations(net, 128, 128, 4)
        cases.append(
            ("DIP-like net, 6 levels, meshgrid, dense 128 x 128", partial(dense_deep, net, 128), None, work, "-")
        )
    rows = []
    for name, ours, textbook, work, elsewhere in cases:
        (seconds,) = medians([ours], 1 if "128" in name else options.repeats)
        theirs = medians([textbook], 1)[0] if textbook is not None else None
        floor = atan2_pass(work)
        rows.append(
            (
                name,
                seconds_text(seconds),
                "-" if theirs is None else seconds_text(theirs),
                "-" if theirs is None else f"{theirs / seconds:.0f}",
                elsewhere,
                f"{peak_bytes(ours) / 1e6:.0f} MB",
                seconds_text(floor),
                f"{seconds / floor:.1f}",
            )
        )
        print(".", end="", flush=True)
    print(f"\n{torch.get_num_threads()} threads, torch {torch.__version__}")
    print_table(("kernel", "ours", "textbook", "ratio", "elsewhere", "peak memory", "floor", "ours / floor"), rows)
    one_thread([16, 32, 48], options.repeats, options.neural_tangents)


if __name__ == "__main__":
    main()
