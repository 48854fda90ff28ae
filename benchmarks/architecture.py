"""Search for the architecture that fills best, by leaving out observed pixels. ``python -m benchmarks.architecture``.

Kernels of networks like the deep image prior's hourglass are tried on sample photographs, never on the images of the
other benchmarks. Pixels that the mask hides are not looked at: others are left out, scattered ones or copies of the
mask's holes (``tc.leave_out_error``), and the score is the mean PSNR (dB) there. From a start, one option after the
other takes the value with the best score, until none gains 0.01 dB; the number of levels is given (``--levels``), and
shown separately, as more of them cost more. The prior is U[0, 0.1], the ridge 1e-4. Tasks:

    50, 75, 90  so many percent of the pixels missing
    strokes     lines of 5 pixels, as of writing over a photograph
    holes       two round holes of 33 pixels

All scores are written to a table of JSON lines with ``-o``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import skimage.data
import skimage.draw
import torch
from torch import Tensor
from tqdm import tqdm

import torch_cntk as tc
from benchmarks.others import biharmonic
from benchmarks.timing import print_table
from torch_cntk._internal.files import writing
from torch_cntk.images import random_mask

PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "rocket")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "up": ("nearest", "finest bilinear", "bilinear"),
    "up_filter": ((3,), (3, 1), (3, 3), (3, 3, 3), (5,), (5, 3), (5, 5)),
    "slope": (0.0, 0.1, 0.2, 0.3, 0.5),
    "down_filter": ((3,), (3, 3), (3, 3, 3), (5, 5)),
    "skip": (0, 4, 32),
}
START = {"up": "nearest", "up_filter": (3, 3), "slope": 0.3, "down_filter": (3, 3), "skip": 0}
_GAIN = 0.01
"""dB by which a value must be better to be taken."""


def photographs(side: int) -> dict[str, Tensor]:
    """Grey, [1, side, side], from the middle, but off the grid of JPEG's blocks, which levels would profit from."""
    images = {}
    for name in PHOTOGRAPHS:
        pixels = torch.from_numpy(np.ascontiguousarray(getattr(skimage.data, name)())).float() / 255
        grey = pixels[..., :3].mean(-1) if pixels.ndim == 3 else pixels
        top, left = (grey.shape[0] - side) // 2 + 3, (grey.shape[1] - side) // 2 + 5
        images[name] = grey[top : top + side, left : left + side][None].contiguous()
    return images


def scattered(side: int, seed: int, missing: float) -> Tensor:
    """Mask, True = known."""
    return random_mask((side, side), missing, seed)


def strokes(side: int, seed: int) -> Tensor:
    """Mask, True = known."""
    random = np.random.default_rng(seed)
    covered = np.zeros((side, side), bool)
    for _ in range(side * side // 1400):
        start = random.integers(0, side, 2)
        end = np.clip(start + random.integers(-18, 19, 2), 0, side - 1)
        covered[skimage.draw.line(*start, *end)] = True
    return torch.from_numpy(~scipy.ndimage.binary_dilation(covered, np.ones((5, 5))))


def holes(side: int, seed: int) -> Tensor:
    """Mask, True = known."""
    random = np.random.default_rng(seed)
    observed = np.ones((side, side), bool)
    for centre in random.integers(side // 6, side - side // 6, (2, 2)):
        observed[skimage.draw.disk(tuple(centre), 17, shape=observed.shape)] = False
    return torch.from_numpy(observed)


TASKS: dict[str, Callable[[int, int], Tensor]] = {
    "50": partial(scattered, missing=0.5),
    "75": partial(scattered, missing=0.75),
    "90": partial(scattered, missing=0.9),
    "strokes": strokes,
    "holes": holes,
}
LEVELS = {"50": 3, "75": 4, "90": 4, "strokes": 4, "holes": 5}


def kernel_of(levels: int, options: dict[str, Any]) -> tc.Kernel:
    up = options["up"]
    ups = ("bilinear",) + ("nearest",) * (levels - 1) if up == "finest bilinear" else (up,) * levels
    # Without a skip connection the kernel does not depend on the number of channels.
    width = 128 if options["skip"] else 1
    rest = {name: value for name, value in options.items() if name not in ("up", "skip")}
    net = tc.hourglass(levels, width, options["skip"], ups, channels=1, in_channels=1, one_by_one=False, **rest)
    return net.kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)


def scores(fill: Callable[[Tensor, Tensor], Tensor], images: dict[str, Tensor], mask: Callable[[int], Tensor]) -> list:
    """PSNR at what is left out of each image."""
    return [-10 * math.log10(tc.leave_out_error(image, mask(seed), fill)) for seed, image in enumerate(images.values())]


class Search:
    """The scores of one task, in a table that grows."""

    def __init__(self, task: str, side: int, images: dict[str, Tensor], table: list[dict[str, Any]]) -> None:
        self._task = task
        self._images = images
        self._mask = partial(TASKS[task], side)
        self._table = table
        self._known: dict[str, float] = {}
        self.biharmonic = scores(biharmonic, images, self._mask)
        self._note("biharmonic", {}, self.biharmonic, 0.0)

    def _note(self, method: str, options: dict[str, Any], found: list[float], seconds: float) -> None:
        row = {"task": self._task, "method": method, **options, "seconds": round(seconds, 2)}
        row |= {"mean": statistics.fmean(found)} | dict(zip(self._images, found, strict=True))
        self._table.append(row)

    def score(self, levels: int, options: dict[str, Any]) -> float:
        """Mean PSNR; each architecture is tried once."""
        key = json.dumps([levels, options])
        if key not in self._known:
            start = time.perf_counter()
            kernel = kernel_of(levels, options)
            found = scores(lambda image, observed: tc.inpaint(image, observed, kernel).image, self._images, self._mask)
            self._note("CNTK", {"levels": levels, **options}, found, time.perf_counter() - start)
            self._known[key] = statistics.fmean(found)
        return self._known[key]

    def descend(self, levels: int, space: dict[str, tuple[Any, ...]], bar: tqdm) -> dict[str, Any]:
        """From the start, take the best value of each option in turn, until none gains."""
        options = dict(START)
        best = self.score(levels, options)
        improved = True
        while improved:
            improved = False
            for name, values in space.items():
                for value in values:
                    score = self.score(levels, options | {name: value})
                    bar.update()
                    bar.set_postfix_str(f"{self._task}: {best:.2f} dB")
                    if score > best + _GAIN:
                        best, options, improved = score, options | {name: value}, True
        return options


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (default: all)")
    parser.add_argument("--levels", type=int, help="of the search (default: 3 to 5 by task)")
    parser.add_argument("--sweep", type=int, nargs="*", default=[], help="levels to try with the winner's options")
    parser.add_argument("--photographs", type=int, default=len(PHOTOGRAPHS), help="how many (default: all)")
    parser.add_argument("-o", "--output", type=Path, help="table of JSON lines")
    parser.add_argument("--fast", action="store_true", help="small crops of two photographs and few values")
    options = parser.parse_args(arguments)
    unknown = set(options.tasks) - set(TASKS)
    if unknown:
        parser.error(f"expected tasks among {', '.join(TASKS)}, got {', '.join(sorted(unknown))}")
    side = 64 if options.fast else 160
    images = dict(list(photographs(side).items())[: 2 if options.fast else options.photographs])
    space = {name: values[:2] for name, values in OPTIONS.items()} if options.fast else OPTIONS

    table: list[dict[str, Any]] = []
    rows = []
    with tqdm(desc="architectures", unit="kernel") as bar:
        for task in options.tasks or TASKS:
            search = Search(task, side, images, table)
            levels = options.levels or (2 if options.fast else LEVELS[task])
            winner = search.descend(levels, space, bar)
            theirs = statistics.fmean(search.biharmonic)
            for name, chosen, depth in (
                ("start", START, levels),
                ("winner", winner, levels),
                *(("winner", winner, depth) for depth in options.sweep if depth != levels),
            ):
                score = search.score(depth, chosen)
                rows.append((task, name, depth, *chosen.values(), f"{score:.2f}", f"{theirs:.2f}"))
            if options.output:
                with writing(options.output) as temporary:
                    temporary.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    threads, cores = torch.get_num_threads(), os.cpu_count()
    print(f"PSNR (dB) of left-out pixels, mean of {len(images)} photographs; torch {torch.__version__}, ", end="")
    print(f"{threads} threads, {cores} cores; masks of the seeds 0 to {len(images) - 1}")
    print_table(("task", "", "levels", *OPTIONS, "CNTK", "biharmonic"), rows)


if __name__ == "__main__":
    main()
