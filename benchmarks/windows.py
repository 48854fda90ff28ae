"""Cost of filling holes, by what is missing and by the size of the image. ``python -m benchmarks.windows [TABLE ...]``.

``holes``: more and more spots in one image; ``sizes``: the same spots in larger and larger images, in windows and as a
whole, and scattered pixels; ``scan``: 24 megapixels with twelve spots, and 6 with 2.4 % missing in a scribbled stroke.
Each number is of one run in a fresh process. ``--whole`` also solves the scan as a whole, which takes minutes; with
``--quick`` everything is small.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import skimage.data
import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.images import strokes
from benchmarks.timing import costs, print_table, seconds_text
from torch_cntk.images import random_mask

SPOT = (10, 13)
HEADER = ("image", "missing", "windows", "seconds", "processor seconds", "peak memory")


def picture(size: tuple[int, int], channels: int = 3) -> Tensor:
    """A sample photograph, side by side with itself as often as it takes."""
    tile = torch.from_numpy(np.asarray(skimage.data.astronaut())).permute(2, 0, 1)[:channels].float() / 255
    image = torch.empty(channels, *size)
    for top in range(0, size[0], tile.shape[1]):
        for left in range(0, size[1], tile.shape[2]):
            part = image[:, top : top + tile.shape[1], left : left + tile.shape[2]]
            part.copy_(tile[:, : part.shape[1], : part.shape[2]])
    return image


def spots(size: tuple[int, int], count: int, seed: int = 0) -> Tensor:
    """So many spots at random places, clear of the edges."""
    generator = torch.Generator().manual_seed(seed)
    observed = torch.ones(size, dtype=torch.bool)
    for _ in range(count):
        top, left = (
            int(torch.randint(0, n - side, (1,), generator=generator)) for n, side in zip(size, SPOT, strict=True)
        )
        observed[top : top + SPOT[0], left : left + SPOT[1]] = False
    return observed


def _data(size: tuple[int, int], kind: str, amount: float) -> tuple[Tensor, Tensor]:
    if kind == "spots":
        return picture(size), spots(size, int(amount))
    return picture(size), random_mask(size, amount) if kind == "scattered" else strokes(size, lines=int(amount))


def _fill(windows: bool, image: Tensor, observed: Tensor) -> tc.InpaintingResult:
    return tc.inpaint(image, observed, windows=windows)


def row(size: tuple[int, int], kind: str, amount: float, windows: bool = True) -> tuple[object, ...]:
    """One run."""
    found = costs(partial(_data, size, kind, amount), partial(_fill, windows))
    missing = f"{amount:.0%} scattered" if kind == "scattered" else f"{int(amount)} {kind}"
    return (
        f"{size[0]} x {size[1]}",
        missing,
        "yes" if windows else "no",
        seconds_text(found.seconds),
        seconds_text(found.processor),
        f"{found.peak / 1e9:.2f} GB",
    )


def holes(options: argparse.Namespace) -> None:
    """More and more missing pixels in one image."""
    size, counts = ((256, 256), (1, 2)) if options.quick else ((2048, 2048), (1, 4, 16, 64))
    print_table(HEADER, [row(size, "spots", count) for count in counts])


def sizes(options: argparse.Namespace) -> None:
    """The same spots in larger images."""
    sides = (192, 256) if options.quick else (512, 1024, 2048, 4096)
    largest_whole = 256 if options.quick else options.largest
    rows = [row((side, side), "spots", 6) for side in sides]
    rows += [row((side, side), "spots", 6, windows=False) for side in sides if side <= largest_whole]
    rows += [row((side, side), "scattered", 0.5) for side in sides if side <= largest_whole]
    print_table(HEADER, rows)


def scan(options: argparse.Namespace) -> None:
    """Scans of photographs."""
    small, large = ((256, 320), (320, 480)) if options.quick else ((2048, 3072), (4000, 6000))
    rows = [row(large, "spots", 12), row(small, "strokes", 1)]
    if options.whole:
        rows.append(row(small, "strokes", 1, windows=False))
    print_table(HEADER, rows)


TABLES = {"holes": holes, "sizes": sizes, "scan": scan}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], help="which; all by default")
    parser.add_argument("--quick", action="store_true", help="small images, to see that everything runs")
    parser.add_argument("--whole", action="store_true", help="solve the scan as a whole, too")
    parser.add_argument("--largest", type=int, default=1024, help="side of the largest image solved as a whole")
    options = parser.parse_args(arguments)
    for name in options.tables or TABLES:
        print(f"\n{name}\n")
        TABLES[name](options)


if __name__ == "__main__":
    main()
